"""Results handed on: JSON Lines, CSV, a dataset card."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import duckdb
import msgspec
import polars as pl
import pytest

from batchrun.errors import StorageError, UsageError
from batchrun.job import parse_job
from batchrun.records import Row, ToolUse
from batchrun.storage.card import dataset_card
from batchrun.storage.export import FORMATS, export_csv, export_jsonl
from batchrun.storage.manifest import Identity, Manifest, public_job
from batchrun.storage.results import ResultsWriter

MakeRow = Callable[..., Row]
BIG = '{"n": 12345678901234567890.10, "s": "a\\u00e9"}'


@pytest.fixture
def results(tmp_path: Path, row: MakeRow) -> Path:
    """Return a results file: one usual row, one with nothing in it, one with everything odd."""
    empty = dict.fromkeys(("expected", "text", "correct", "cost_usd", "started_at", "latency_ms"))
    rows = [
        row(0),
        row(1, tool_calls=(), tags=(), **empty),
        row(
            2,
            text='said "hi",\nand left',
            explanation="",
            expected="[\n 1\n]",
            metadata=BIG,
            logprobs="not JSON",
            tool_calls=(
                ToolUse(id="a", name="f", input=None, raw="{", error="invalid_json"),
                ToolUse(id="b", name="g", input=BIG, raw=BIG),
            ),
            cost_usd=Decimal("1E-9"),
        ),
    ]
    path = tmp_path / "results.parquet"
    with ResultsWriter(path, {}) as writer:
        writer.write(rows)
    return path


def test_json_lines_hold_values_and_not_texts_of_values(results: Path) -> None:
    """One line a row; JSON columns are the JSON they spell, digit for digit; money is a number."""
    out = io.BytesIO()
    assert export_jsonl(results, out) == 3
    lines = out.getvalue().decode().splitlines()
    first, second, third = map(json.loads, lines)
    assert first["expected"] == [{"name": "get_weather", "arguments": {"location": "Paris"}}]
    assert first["tool_calls"][0]["input"] == {"location": "Paris"}
    assert first["started_at"] == "2025-10-09T08:53:20.123456Z"
    assert second["expected"] is second["cost_usd"] is None
    assert second["tool_calls"] == second["tags"] == []
    assert third["expected"] == [1]
    assert third["logprobs"] == "not JSON"
    assert '"metadata":{"n":12345678901234567890.10,"s":"a\\u00e9"}' in lines[2]
    assert third["tool_calls"][0] == {"id": "a", "name": "f", "input": None, "raw": "{", "error": "invalid_json"}
    assert json.loads(lines[2], parse_float=Decimal)["cost_usd"] == Decimal("1E-9")


def test_csv_is_read_back_by_others(results: Path, tmp_path: Path) -> None:
    """DuckDB and polars find the same cells; an absent value is not an empty text."""
    path = tmp_path / "results.csv"
    with path.open("wb") as out:
        assert export_csv(results, out) == 3
    frame = pl.read_csv(path, infer_schema_length=None)
    assert frame.columns == list(Row.__struct_fields__)
    assert frame["text"].to_list() == ["Let me look.", None, 'said "hi",\nand left']
    assert json.loads(frame["tool_calls"][2])[1]["name"] == "g"
    assert json.loads(frame["tags"][1]) == []
    with duckdb.connect() as database:
        cells = database.read_csv(str(path), all_varchar=True).project("cost_usd, started_at, correct").fetchall()
    assert cells[0] == ("0.001791000", "2025-10-09T08:53:20.123456Z", "true")
    assert cells[1] == (None, None, None)
    assert Decimal(cells[2][0]) == Decimal("1E-9")
    assert ',"",' in path.read_text()


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_chosen_columns_and_no_rows(results: Path, tmp_path: Path, kind: str) -> None:
    out = io.BytesIO()
    FORMATS[kind](results, out, ["id", "outcome"])
    assert out.getvalue().decode().splitlines() == (
        ['"id","outcome"', *(f'"row-{index}","correct"' for index in range(3))]
        if kind == "csv"
        else [f'{{"id":"row-{index}","outcome":"correct"}}' for index in range(3)]
    )
    with ResultsWriter(tmp_path / "none.parquet", {}) as writer:
        writer.write([])
    out = io.BytesIO()
    assert FORMATS[kind](tmp_path / "none.parquet", out, ["id", "tags"]) == 0
    assert out.getvalue() == (b'"id","tags"\n' if kind == "csv" else b"")
    with pytest.raises(UsageError, match="no column nope"):
        FORMATS[kind](results, io.BytesIO(), ["id", "nope"])


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_what_is_no_results_file_is_exit_4(tmp_path: Path, kind: str) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    for name in ("broken.parquet", "missing.parquet"):
        with pytest.raises(StorageError, match=name):
            FORMATS[kind](tmp_path / name, io.BytesIO())


def manifest(*, simulated: bool) -> Manifest:
    """Return the manifest of a finished run."""
    job = parse_job('name = "weather"\ndataset = "/data/rows.jsonl"\n[request]\nmodel = ["claude-x", "claude-y"]')
    return Manifest(
        run_id="20261122T153000Z-abc123",
        job_name=job.name,
        job=public_job(job)[0],
        identity=Identity.of(job, "0123456789abcdef0000", simulated=simulated),
        state="finished",
        started_at="2026-11-22T15:30:00+00:00",
        dataset=job.dataset,
        simulated=simulated,
        price_book="built in" if simulated else None,
        price_date="2026-11-01" if simulated else None,
    )


def test_a_card_is_what_the_hub_reads(results: Path) -> None:
    """Front matter with the file, its size and every feature; then the run, its figures and its columns."""
    card = dataset_card(results, manifest(simulated=True), {"accuracy": "66.7 % | of 3"})
    head, page = card.removeprefix("---\n").split("\n---\n", 1)
    assert head.splitlines()[:8] == [
        'pretty_name: "weather: tool calls, 2026-11-22"',
        "tags:",
        "- tool-calling",
        "- function-calling",
        "- evaluation",
        "size_categories:",
        "- n<1K",
        "configs:",
    ]
    assert "    path: results.parquet" in head
    assert "    num_examples: 3" in head
    for feature in (
        "  - name: index\n    dtype: int64",
        "  - name: score\n    dtype: float64",
        "  - name: cost_usd\n    dtype: decimal128(18,9)",
        "  - name: started_at\n    dtype: timestamp[us, tz=UTC]",
        "  - name: tags\n    list: string",
        "  - name: tool_calls\n    list:\n    - name: id\n      dtype: string",
    ):
        assert feature in head
    assert [line[10:] for line in head.splitlines() if line.startswith("  - name: ")] == [*Row.__struct_fields__, "results"]
    assert "Simulated" in page
    assert "| accuracy | 66.7 % \\| of 3 |" in page
    assert "# weather: tool calls, 2026-11-22" in page
    assert "`claude-x`, `claude-y`" in page
    assert "prices: built in, of 2026-11-01" in page
    assert "/data" not in page
    undated = dataset_card(results, msgspec.structs.replace(manifest(simulated=True), price_date=None))
    assert "prices: built in\n" in undated
    plain = dataset_card(results, manifest(simulated=False))
    assert "Simulated" not in plain
    assert "prices" not in plain
    assert all(f"| `{name}` |" in plain for name in Row.__struct_fields__)
