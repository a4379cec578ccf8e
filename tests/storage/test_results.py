"""`results.parquet`: contract 5's columns for everybody's reader, whole or not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchrun.errors import StorageError
from batchrun.records import Row, ToolUse
from batchrun.storage import results
from batchrun.storage.results import ResultsWriter, columns_of, to_batches
from batchrun.storage.tables import read_table, write_table

MakeRow = Callable[..., Row]

CONTRACT = """
id str · index i64 · model str · repeat i32 · status str · outcome str · correct bool? ·
score f64? · explanation str? · tool_calls list<struct<id str, name str, input str?, raw str, error str?>> ·
expected str? · text str? · thinking str? · stop_reason str? · completions str? · logprobs str? ·
input_tokens i64? · output_tokens i64? · cache_read_tokens i64? · cache_write_5m_tokens i64? ·
cache_write_1h_tokens i64? · thinking_tokens i64? · cost_usd decimal(18,9)? · wasted_usd decimal(18,9)? ·
queued_ms f64? · ttft_ms f64? · first_call_ms f64? · latency_ms f64? · attempts i32 · http_status i32? ·
error_type str? · error_message str? · request_id str? · message_id str? · response_model str? ·
started_at timestamp(us, UTC)? · tags list<str> · cluster str? · metadata str?
"""
ARROW = {
    "str": pa.string(),
    "i64": pa.int64(),
    "i32": pa.int32(),
    "f64": pa.float64(),
    "bool": pa.bool_(),
    "decimal(18,9)": pa.decimal128(18, 9),
    "timestamp(us, UTC)": pa.timestamp("us", tz="UTC"),
    "list<str>": pa.list_(pa.field("element", pa.string(), nullable=False)),
}


def written(path: Path, rows: list[Row]) -> Path:
    """Write `rows` to `path` and return it."""
    with ResultsWriter(path, {"run_id": "20261122T153000Z-abc123"}) as writer:
        writer.write(rows)
    return path


def test_the_columns_are_the_contracts(tmp_path: Path, row: MakeRow) -> None:
    """Names, order, types and nullability, column by column, as the file says them."""
    schema = pq.read_schema(written(tmp_path / "results.parquet", [row(0)]))
    columns = [column.strip() for column in CONTRACT.replace("\n", " ").split("·")]
    assert schema.names == [column.split(" ")[0] for column in columns]
    assert tuple(schema.names) == Row.__struct_fields__
    for column, field in zip(columns, schema, strict=True):
        name, _, kind = column.partition(" ")
        assert field.nullable is kind.endswith("?"), name
        if name != "tool_calls":
            assert field.type == ARROW[kind.rstrip("?")], name
    call = schema.field("tool_calls").type.value_type
    assert [(inner.name, inner.type, inner.nullable) for inner in call] == [
        (name, pa.string(), name in {"input", "error"}) for name in ("id", "name", "input", "raw", "error")
    ]


def test_every_value_survives(tmp_path: Path, row: MakeRow) -> None:
    rows = [
        row(0),
        row(
            1,
            correct=None,
            score=None,
            outcome="infra_error",
            status="errored",
            tool_calls=(),
            tags=(),
            started_at=None,
            cost_usd=None,
        ),
        row(2, repeat=3, cost_usd=Decimal("-0.000000001"), wasted_usd=Decimal("999999999.999999999"), thinking_tokens=2**60),
        row(
            3,
            text="naïve \x00 \u2028 \U0001f600",
            tool_calls=(ToolUse(id=None, name="f", input=None, raw=None, error="truncated"),) * 3,
        ),
    ]
    table = pq.read_table(written(tmp_path / "results.parquet", rows)).to_pylist()
    for got, meant in zip(table, rows, strict=True):
        for name in Row.__struct_fields__:
            value = getattr(meant, name)
            if name == "tool_calls":
                value = [
                    {"id": c.id or "", "name": c.name, "input": c.input, "raw": c.raw or "", "error": c.error} for c in value
                ]
            elif name == "tags":
                value = list(value)
            elif name == "started_at" and value is not None:
                value = datetime.fromtimestamp(value // 10**6, UTC).replace(microsecond=value % 10**6)
            assert got[name] == value, name


def test_everybodys_reader_reads_it(tmp_path: Path, row: MakeRow) -> None:
    """Polars, DuckDB and pandas see the same rows, nested columns, money and time as Arrow does."""
    path = written(tmp_path / "results.parquet", [row(index, cost_usd=Decimal("0.000000001") * index) for index in range(100)])
    total = Decimal("0.00000495")
    frame = pl.read_parquet(path)
    assert frame["cost_usd"].sum() == total
    assert frame.schema["started_at"] == pl.Datetime("us", "UTC")
    assert frame["tool_calls"].explode().struct.field("name").unique().to_list() == ["get_weather"]
    with duckdb.connect() as database:
        table = database.read_parquet(str(path)).filter("list_contains(tags, 'weather')")
        answer = table.aggregate("sum(cost_usd), max(tool_calls[1].name), count(*)").fetchall()
    assert answer == [(total, "get_weather", 100)]
    panda = pd.read_parquet(path)
    assert panda["cost_usd"].sum() == total
    assert panda["index"].tolist() == list(range(100))
    assert panda["tool_calls"][7][0]["name"] == "get_weather"


def test_a_run_without_rows_is_a_file_without_rows(tmp_path: Path) -> None:
    assert pq.read_table(written(tmp_path / "results.parquet", [])).num_rows == 0
    assert pl.read_parquet(tmp_path / "results.parquet").columns == list(Row.__struct_fields__)


def test_the_file_says_where_it_comes_from(tmp_path: Path, row: MakeRow) -> None:
    """Schema version and provenance in the key-value metadata, zstd, statistics; few values get a dictionary, texts none."""
    meta = pq.read_metadata(written(tmp_path / "results.parquet", [row(index) for index in range(50)]))
    assert meta.metadata is not None
    assert meta.metadata[b"batchrun.run_id"] == b"20261122T153000Z-abc123"
    assert meta.metadata[b"batchrun.schema_version"] == b"1"
    columns = {(column := meta.row_group(0).column(place)).path_in_schema: column for place in range(meta.num_columns)}
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    statistics = columns["index"].statistics
    assert statistics is not None
    assert (statistics.min, statistics.max) == (0, 49)
    assert columns["model"].has_dictionary_page
    assert columns["tool_calls.list.element.name"].has_dictionary_page
    assert not columns["text"].has_dictionary_page


def test_row_groups_are_bounded_by_rows_and_by_bytes(tmp_path: Path, row: MakeRow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "GROUP_ROWS", 1000)
    monkeypatch.setattr(results, "_BATCH_ROWS", 300)
    small = pq.read_metadata(written(tmp_path / "small.parquet", [row(index) for index in range(2500)]))
    assert [small.row_group(place).num_rows for place in range(small.num_row_groups)] == [1200, 1200, 100]
    monkeypatch.setattr(results, "GROUP_BYTES", 100_000)
    large = pq.read_metadata(written(tmp_path / "large.parquet", [row(index, text="x" * 30_000) for index in range(12)]))
    assert [large.row_group(place).num_rows for place in range(large.num_row_groups)] == [4, 4, 4]


def test_lone_surrogates_never_stop_a_run(tmp_path: Path, row: MakeRow) -> None:
    """In a text, a tag or an argument they become U+FFFD, and their neighbours stay."""
    call = ToolUse(id="a", name="f\udfff", input='"\ud800"', raw='"\ud800"')
    path = written(
        tmp_path / "results.parquet", [row(0, text="a\ud800b", tags=("t\ud800",), tool_calls=(call,)), row(1, text=None)]
    )
    first, second = pq.read_table(path).to_pylist()
    assert (first["text"], first["tags"], first["tool_calls"][0]["name"]) == ("a\ufffdb", ["t\ufffd"], "f\ufffd")
    assert second["text"] is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # it makes rows and remembers none
@given(st.lists(st.none() | st.decimals(min_value=-999_999_999, max_value=999_999_999, places=12), min_size=1, max_size=20))
def test_money_is_exact_to_nine_places(row: MakeRow, values: list[Decimal | None]) -> None:
    """Rounded half to even at the ninth place, as `Decimal.quantize` does it; null stays null."""
    meant = [None if value is None else value.quantize(Decimal("1e-9")) for value in values]
    (batch,) = to_batches(columns_of([row(index, cost_usd=value) for index, value in enumerate(values)]))
    batch.validate(full=True)
    assert batch.column("cost_usd").to_pylist() == meant


def test_an_amount_too_large_is_an_error_and_not_another_amount(tmp_path: Path, row: MakeRow) -> None:
    with pytest.raises(StorageError, match="does not fit"):
        written(tmp_path / "results.parquet", [row(0, wasted_usd=Decimal(10) ** 9)])


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, row: MakeRow) -> None:
    """Neither a crash between two batches nor one at the end shows under the final name."""
    path = written(tmp_path / "results.parquet", [row(0)])
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError), ResultsWriter(path, {}) as writer:
        writer.write([row(0), row(1 // 0)])
    assert path.read_bytes() == before
    writer = ResultsWriter(path, {})
    writer.write([row(7)])
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) != ["results.parquet"]
    writer.abort()
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.parquet"]


@pytest.mark.parametrize("step", ["_end_group", "rename"])
def test_a_full_disk_is_exit_4(tmp_path: Path, row: MakeRow, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path = tmp_path / "results.parquet"

    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    writer = ResultsWriter(path, {})
    writer.write([row(0)])
    if step == "rename":
        monkeypatch.setattr(Path, "replace", full)
    else:
        monkeypatch.setattr(writer._file, "write_table", full)
    with pytest.raises(StorageError, match="No space left") as caught:
        writer.close()
    assert caught.value.exit_code == 4
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_begin_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(pq, "ParquetWriter", full)
    with pytest.raises(StorageError, match="No space left"):
        ResultsWriter(tmp_path / "results.parquet", {})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_exit_4(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError):
        ResultsWriter(tmp_path / "file" / "results.parquet", {})


GROWTH = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from conftest import make_row
from batchrun.storage.results import ResultsWriter
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
with ResultsWriter(Path(sys.argv[1]), {}) as writer:
    for start in range(0, 200_000, 500):
        writer.write([make_row(start + step, text="x" * 1000) for step in range(500)])
        if start == 60_000:
            early = peak()
print(early, peak())
"""


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """200,000 rows of 1 KB texts peak where 60,000 do, give or take a tenth."""
    command = [sys.executable, "-c", GROWTH, str(tmp_path / "results.parquet"), str(Path(__file__).parent)]
    early, late = map(int, subprocess.run(command, check=True, capture_output=True, text=True, timeout=100).stdout.split())
    assert late <= early * 1.1 + 5
    assert pq.read_metadata(tmp_path / "results.parquet").num_rows == 200_000


def test_small_tables_are_whole_and_say_where_they_come_from(tmp_path: Path) -> None:
    path = tmp_path / "history.parquet"
    write_table(path, pa.table({"run": ["a"], "accuracy": [0.5]}), {"schema_version": "1"})
    assert read_table(path).to_pylist() == [{"run": "a", "accuracy": 0.5}]
    assert (read_table(path).schema.metadata or {})[b"batchrun.schema_version"] == b"1"
    write_table(path, pa.table({"x": [1]}))
    assert read_table(path).to_pylist() == [{"x": 1}]
    assert [entry.name for entry in tmp_path.iterdir()] == ["history.parquet"]


def test_what_is_no_table_is_exit_4(tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    for name in ("broken.parquet", "missing.parquet"):
        with pytest.raises(StorageError, match=name):
            read_table(tmp_path / name)


def test_a_batch_is_the_schema(row: MakeRow) -> None:
    (batch,) = to_batches(columns_of([row(0), row(1)]))
    batch.validate(full=True)
    assert batch.schema.equals(results.SCHEMA)
    assert json.loads(batch.column("expected")[0].as_py())[0]["name"] == "get_weather"
