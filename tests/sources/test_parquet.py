"""Parquet: nested columns and JSON text give the rows that JSONL would."""

import datetime as dt
import decimal
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrun.errors import DatasetError
from batchrun.sources import open_dataset, parquet
from batchrun.sources.record import Record

TOOLS = [{"name": "f", "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}]


def stream(table: pa.Table, **options: object) -> io.BytesIO:
    target = io.BytesIO()
    pq.write_table(table, target, **options)  # type: ignore[arg-type]  # row_group_size alone
    target.seek(0)
    return target


def read(table: pa.Table, *, skip: int = 0, **options: object) -> list[Record]:
    file = parquet.open_file(stream(table, **options), "f.parquet", repeating=frozenset({"tools"}))
    return list(parquet.records(file, name="f.parquet", skip=skip))


def values(record: Record) -> dict[str, object]:
    return {name: json.loads(bytes(raw)) for name, raw in record.fields.items()}


def test_nested_columns_lose_the_keys_that_only_other_rows_have() -> None:
    rows: list[dict[str, Any]] = [
        {"expected": [{"name": "f", "arguments": {"a": 1}}], "messages": [{"role": "user", "content": "x"}]},
        {
            "expected": [{"name": "g", "arguments": {"b": [True, None]}}],
            "messages": [{"role": "user", "content": "y", "name": "z"}],
        },
        {"expected": None, "messages": []},
    ]
    found = [values(record) for record in read(pa.Table.from_pylist(rows))]
    assert found == [rows[0], rows[1], {"messages": []}]


def test_exact_values_survive() -> None:
    table = pa.table(
        {
            "dec": pa.array([decimal.Decimal("12345678901234567890.123456789")], pa.decimal128(38, 9)),
            "big": pa.array([2**64 - 1], pa.uint64()),
            "at": pa.array([dt.datetime(2024, 2, 29, 12, 30, tzinfo=dt.UTC)], pa.timestamp("us", tz="UTC")),
            "day": pa.array([dt.date(2024, 2, 29)]),
            "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
            "raw": pa.array([b"caf\xc3\xa9"]),
            "nan": pa.array([float("nan")]),
            "when": pa.array([[dt.datetime(2024, 1, 1)]]),  # noqa: DTZ001 -- a column without a zone
        }
    )
    [record] = read(table)
    texts = {name: bytes(raw).decode() for name, raw in record.fields.items()}
    assert texts == {
        "dec": "12345678901234567890.123456789",
        "big": "18446744073709551615",
        "at": '"2024-02-29T12:30:00+00:00"',
        "day": '"2024-02-29"',
        "map": '{"k":1}',
        "raw": '"café"',
        "nan": "null",
        "when": '["2024-01-01T00:00:00"]',
    }


@pytest.mark.parametrize("dictionary", [True, False])
def test_json_text_keeps_its_bytes_and_equal_tools_are_one_object(tmp_path: Path, *, dictionary: bool) -> None:
    text = json.dumps(TOOLS, indent=1)
    table = pa.table({"prompt": [f"p{i}" for i in range(50)], "tools": [text] * 50})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=20, use_dictionary=dictionary)
    samples = list(open_dataset(str(tmp_path / "a.parquet")).samples())
    assert {sample.tools for sample in samples} == {text.encode()}
    assert len({id(sample.tools) for sample in samples}) == 1


def test_text_that_is_no_json_stays_text() -> None:
    [record] = read(pa.table({"system": ["[not json"], "expected": ["[1,"], "note": ["[]"]}))
    assert values(record) == {"system": "[not json", "expected": "[1,", "note": "[]"}


@pytest.mark.parametrize("skip", [0, 1, 10, 11, 29, 30])
def test_reading_from_the_middle_gives_the_rows_from_there(skip: int) -> None:
    table = pa.table({"n": list(range(30))})
    records = read(table, skip=skip, row_group_size=10)
    assert [(record.index, values(record)["n"]) for record in records] == [(n, n) for n in range(skip, 30)]


@pytest.mark.parametrize("skip", [0, 4, 12])
@pytest.mark.parametrize("done", [b"", bytes([1] * 10), bytes([1] * 25), bytes([1] * 40), bytes([0] * 10 + [1] * 10 + [0, 1])])
def test_no_row_that_is_not_done_is_passed_over(done: bytes, skip: int) -> None:
    """Whole row groups of done rows are; of the others, rows that are done may come."""
    table = pa.table({"n": list(range(30))})
    file = parquet.open_file(stream(table, row_group_size=10), "f.parquet")
    found = [(record.index, values(record)["n"]) for record in parquet.records(file, name="f.parquet", skip=skip, done=done)]
    asked = [n for n in range(skip, 30) if not (n < len(done) and done[n])]
    assert {n for n, _ in found} >= set(asked)
    assert all(index == n for index, n in found)
    assert {n // 10 for n, _ in found} == {n // 10 for n in asked}


def test_what_is_no_parquet_file_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b'{"prompt": "x"}\n')
    with pytest.raises(DatasetError, match="not a Parquet file"):
        list(open_dataset(str(tmp_path / "a.parquet")).samples())


def test_a_broken_page_is_told_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"prompt": [f"text {n * 7919}" for n in range(5000)]}), path, compression="zstd", use_dictionary=False
    )
    content = bytearray(path.read_bytes())
    content[100:2000] = b"\xff" * 1900
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"a\.parquet"):
        list(open_dataset(str(path), format="parquet").samples())
