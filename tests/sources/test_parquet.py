"""Parquet: nested columns and JSON text give the rows that JSONL would."""

import datetime as dt
import decimal
import io
import json
import subprocess
import sys
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


def nested(values: Any) -> pa.Table:
    """Return a table of one row for each value: as it is, and inside of a list, a struct and a map."""
    every: Any = pa.array(range(len(values) + 1), pa.int32())
    names: Any = pa.array(["k"] * len(values))
    return pa.table(
        {
            "plain": values,
            "list": pa.ListArray.from_arrays(every, values),
            "large": pa.LargeListArray.from_arrays(every.cast(pa.int64()), values),
            "fixed": pa.FixedSizeListArray.from_arrays(values, 1),
            "struct": pa.StructArray.from_arrays([values], ["k"]),
            "map": pa.MapArray.from_arrays(every, names, values),
            "deep": pa.ListArray.from_arrays(every, pa.StructArray.from_arrays([values], ["k"])),
        }
    )


def spread(text: str) -> dict[str, object]:
    return {
        "plain": text,
        "list": [text],
        "large": [text],
        "fixed": [text],
        "struct": {"k": text},
        "map": {"k": text},
        "deep": [{"k": text}],
    }


MOMENTS = [
    (pa.timestamp("ns"), 1709209800123456789, "2024-02-29T12:30:00.123456789"),
    (pa.timestamp("ns"), 1709209800123000000, "2024-02-29T12:30:00.123000"),
    (pa.timestamp("ns"), -1, "1969-12-31T23:59:59.999999999"),
    (pa.timestamp("ns", "UTC"), 1709209800000000001, "2024-02-29T12:30:00.000000001+00:00"),
    (pa.timestamp("ns", "+02:00"), 2**63 - 1, "2262-04-12T01:47:16.854775807+02:00"),
    (pa.timestamp("ms", "+02:00"), 1709209800123, "2024-02-29T14:30:00.123000+02:00"),
    (pa.timestamp("us"), 2**63 - 1, "<value out of range: 9223372036854775807>"),
    (pa.timestamp("us", "+02:00"), 2**63 - 1, "<value out of range: 9223372036854775807>"),
    (pa.timestamp("s"), 253402300800, "10000-01-01 00:00:00.000"),
    (pa.timestamp("s", "+02:00"), 253402300799, "9999-12-31 23:59:59.000Z"),
    (pa.duration("ns"), 86_400_000_000_001, "1 day, 0:00:00.000000001"),
    (pa.duration("ns"), 1_500_000_001, "0:00:01.500000001"),
    (pa.duration("ns"), 1_500_000_000, "0:00:01.500000"),
    (pa.duration("s"), 2**63 - 1, "9223372036854775807"),
    (pa.time64("ns"), 45_000_123_456_000, "12:30:00.123456"),
    (pa.time32("s"), 45_000, "12:30:00"),
    (pa.date32(), 19_782, "2024-02-29"),
    (pa.date32(), 2**31 - 1, "<value out of range: 2147483647>"),
    (pa.date64(), -86_400_000, "1969-12-31"),
]


@pytest.mark.parametrize(("kind", "value", "text"), MOMENTS)
def test_moments_are_text_wherever_they_are_nested_and_also_where_python_cannot_hold_them(
    kind: pa.DataType, value: int, text: str
) -> None:
    column = pa.array([value, None], pa.int32() if kind.bit_width == 32 else pa.int64()).view(kind)
    first, second = [values(record) for record in read(nested(column))]
    assert first == spread(text)
    nothing: dict[str, object] = {
        "list": [None],
        "large": [None],
        "fixed": [None],
        "struct": {},
        "map": {"k": None},
        "deep": [{}],
    }
    assert second == nothing


def test_the_names_of_a_map_are_moments_as_python_writes_them() -> None:
    names: Any = pa.array([0, 1], pa.int64()).view(pa.timestamp("ns"))
    both: Any = pa.array([0, 2], pa.int32())
    [record] = read(pa.table({"map": pa.MapArray.from_arrays(both, names, pa.array([1, 2]))}))
    assert values(record) == {"map": {"1970-01-01 00:00:00": 1, "1970-01-01 00:00:00.000000001": 2}}


def test_nanoseconds_are_read_without_pandas(tmp_path: Path) -> None:
    kinds = {str(kind): pa.array([1], pa.int64()).view(kind) for kind in (pa.timestamp("ns"), pa.duration("ns"), pa.time64("ns"))}
    pq.write_table(pa.table(kinds), tmp_path / "a.parquet")
    program = """if True:
        import sys
        sys.modules["pandas"] = None
        from batchrun.sources import open_dataset
        for record in open_dataset(sys.argv[1], format="parquet").records():
            print(*(bytes(text).decode() for text in record.fields.values()))
    """
    command = [sys.executable, "-c", program, str(tmp_path / "a.parquet")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout == '"1970-01-01T00:00:00.000000001" "0:00:00.000000001" "00:00:00"\n'


def test_a_value_that_python_cannot_hold_is_told_with_file_and_row() -> None:
    twice = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
    with pytest.raises(DatasetError, match=r"f\.parquet, row 0: row group 0 cannot be read: .*duplicate"):
        read(pa.table({"twice": twice}))


def test_uuids_are_read_in_their_usual_form_wherever_they_are_nested() -> None:
    """Their bytes were taken for text."""
    held: Any = pa.array([bytes(range(128, 144))], pa.binary(16))
    [record] = read(nested(pa.ExtensionArray.from_storage(pa.uuid(), held)))
    assert values(record) == spread("80818283-8485-8687-8889-8a8b8c8d8e8f")


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_bytes_are_text_in_whichever_of_its_types_arrow_keeps_them(kind: Any) -> None:
    [first, second] = read(pa.table({"raw": pa.array([b"caf\xc3\xa9", None], kind), "many": [[1], [2]]}))
    assert values(first) == {"raw": "café", "many": [1]}
    assert values(second) == {"many": [2]}
    [record] = read(pa.table({"expected": pa.array([b'[{"name": "f"}]'], kind), "many": pa.array([[b"x"]], pa.list_(kind))}))
    assert values(record) == {"expected": [{"name": "f"}], "many": ["x"]}


@pytest.mark.parametrize("nothing", [None, "null", " null\n", "", " "])
def test_json_text_of_nothing_is_an_absent_field(tmp_path: Path, nothing: str | None) -> None:
    """`json.dumps` makes the text `null` of a value that is not there."""
    structured = ("messages", "tools", "tool_choice", "params", "expected")
    pq.write_table(pa.table({"prompt": ["x"], **{name: pa.array([nothing]) for name in structured}}), tmp_path / "a.parquet")
    [sample] = open_dataset(str(tmp_path / "a.parquet")).samples()
    assert sample.messages == b'[{"role":"user","content":"x"}]'
    assert (sample.tools, sample.tool_choice, sample.params, sample.expected) == (None, None, None, None)


def test_words_are_kept_where_a_column_may_hold_words(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["null"], "system": [""], "tags": ["null"], "note": ["null"]}), tmp_path / "a.parquet")
    [sample] = open_dataset(str(tmp_path / "a.parquet")).samples()
    assert (sample.messages, sample.system) == (b'[{"role":"user","content":"null"}]', b'""')
    assert (sample.tags, sample.metadata) == (("null",), b'{"note":"null"}')
