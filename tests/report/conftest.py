"""A run made in memory: rows, their questions, and the summary that a real run of them would have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from batchrun.job import Prices
from batchrun.pricing.book import open_book
from batchrun.pricing.rates import nanos
from batchrun.pricing.table import CostTable
from batchrun.records import CallScore, Cost, Row, Sample, Score, ScoreDetail, ToolUse
from batchrun.report.summary import build_summary
from batchrun.report.tally import ModelTally
from batchrun.scoring.metrics import Metrics
from batchrun.storage.results import ResultsWriter

MODEL = "claude-sonnet-4-20250514"
EXPECTED = '[{"name": "get_weather", "arguments": {"city": "Oslo", "unit": {"$optional": true, "$any_of": ["C", "F"]}}}]'
MakeRow = Callable[..., Row]


def call(arguments: str | None, name: str = "get_weather", raw: str | None = None, error: str | None = None) -> ToolUse:
    return ToolUse(id="toolu_1", name=name, input=arguments, raw=raw or arguments, error=error)


def make_row(index: int = 0, **changes: Any) -> Row:
    """Return a wrong row with every field told, some of them changed."""
    values: dict[str, Any] = {
        "id": f"row-{index}",
        "index": index,
        "model": MODEL,
        "repeat": 0,
        "status": "succeeded",
        "outcome": "wrong_call",
        "correct": False,
        "score": 0.5,
        "explanation": 'call 1 `get_weather`: `city` is "Osaka", expected "Oslo"',
        "tool_calls": (call('{"city": "Osaka"}'),),
        "expected": EXPECTED,
        "text": "Let me look.",
        "thinking": None,
        "stop_reason": "tool_use",
        "completions": None,
        "logprobs": None,
        "input_tokens": 400,
        "output_tokens": 20,
        "cache_read_tokens": 0,
        "cache_write_5m_tokens": 0,
        "cache_write_1h_tokens": 0,
        "thinking_tokens": None,
        "cost_usd": Decimal("0.0015"),
        "wasted_usd": Decimal(0),
        "queued_ms": 1.5,
        "ttft_ms": 100.0 + index % 50,
        "first_call_ms": 120.0,
        "latency_ms": 300.0 + index % 97,
        "attempts": 1,
        "http_status": 200,
        "error_type": None,
        "error_message": None,
        "request_id": f"req_{index}",
        "message_id": f"msg_{index}",
        "response_model": MODEL,
        "started_at": 1_763_829_000_000_000 + index,
        "tags": ("one_call", "lang:en"),
        "cluster": None,
        "metadata": None,
    }
    return Row(**{**values, **changes})


def right_row(index: int, **changes: Any) -> Row:
    return make_row(
        index, outcome="correct", correct=True, score=1.0, explanation=None, tool_calls=(call('{"city": "Oslo"}'),), **changes
    )


def make_sample(row: Row) -> Sample:
    question = msgspec.json.encode([{"role": "user", "content": f"How is the weather in Oslo? ({row.id})"}])
    return Sample(index=row.index, id=row.id, messages=question, expected=(row.expected or "").encode() or None)


def make_summary(rows: Iterable[Row], *, folder: str = "run", **about: Any) -> dict[str, Any]:
    """Return the summary of these rows, as `summary.json` has it."""
    book = open_book(Prices())
    costs = CostTable(book)
    kept = list(rows)
    models = list(dict.fromkeys(row.model for row in kept)) or [MODEL]
    tallies = {model: ModelTally(model) for model in models}
    metrics = {model: Metrics() for model in models}
    for row in kept:
        tally = tallies[row.model]
        columns: dict[str, list[Any]] = {name: [getattr(row, name)] for name in Row.__struct_fields__}
        for name in ("cost_usd", "wasted_usd"):
            columns[name] = [None if money is None else nanos(money) for money in columns[name]]
        tally.add_many({**columns, "events": [9], "cached_from": [None]})
        scored = CallScore(
            tool="get_weather", expected=True, called=True, right=bool(row.correct), arguments_expected=1, arguments_given=1
        )
        detail = ScoreDetail(should_call=True, called=bool(row.tool_calls), schema_valid=True, calls=(scored,))
        score = Score(outcome=row.outcome, correct=row.correct, score=row.score, detail=detail)
        metrics[row.model].add(score, row=row.index, tags=row.tags)
        parts = {"input": row.cost_usd} if row.cost_usd is not None else {}
        costs.add(row, Cost(usd=row.cost_usd, wasted_usd=row.wasted_usd, parts=parts))
    known = {
        "job": "weather",
        "run_id": "20251122T163000Z-abcdef",
        "folder": folder,
        "started_at": "2025-11-22T16:30:00+00:00",
        "simulated": False,
        "stopped": None,
        "dataset": "datasets/weather.jsonl",
        "dataset_digest": "26017f7e996c9ad5",
        "base_url": "https://gateway.example",
        "profile": "default",
        "wall_s": 12.5,
        "calls_per_s": 8.0,
        "sessions": [session()],
    }
    figures = [{**tally.summary(0.95), "metrics": metrics[name].summary()} for name, tally in tallies.items()]
    built = build_summary({**known, **about}, figures, costs.summary(), expected_rows=len(kept))
    plain: dict[str, Any] = msgspec.to_builtins(built, str_keys=True)
    return plain


def session() -> dict[str, Any]:
    bins = [{"sent": 8 + n, "refused": n % 2, "faults": 0, "input_tokens": 1, "output_tokens": 1} for n in range(12)]
    changes = [{"at_s": 0.0, "limit": 4, "why": "start"}, {"at_s": 3.0, "limit": 8, "why": "grow"}]
    return {
        "wall_s": 12.5,
        "sent": 100,
        "retries": 6,
        "refused": 6,
        "stopped": None,
        "concurrency": changes,
        "timeline_width_s": 1.0,
        "timeline": bins,
        "distributions": {},
        "rate_used": {"rpm": 0.5},
    }


def write_run(folder: Path, rows: Iterable[Row], **about: Any) -> dict[str, Any]:
    """Write `results.parquet` and `summary.json` of these rows, and return the summary."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = list(rows)
    with ResultsWriter(folder / "results.parquet", {}) as writer:
        for start in range(0, len(kept), 1000):
            writer.write(kept[start : start + 1000])
    summary = make_summary(kept, folder=str(folder), **about)
    (folder / "summary.json").write_bytes(msgspec.json.encode(summary))
    return summary


@pytest.fixture
def mixed_rows() -> list[Row]:
    """The rows of `make_mixed_rows`."""
    return make_mixed_rows()


def make_mixed_rows() -> list[Row]:
    """Three hundred rows: right ones, four kinds of wrong ones, some without an answer."""
    kinds = ["correct"] * 6 + ["wrong_call", "missing_call", "invalid_json"]
    rows = []
    for index in range(300):
        kind = kinds[index % len(kinds)]
        if index % 100 == 7:
            rows.append(
                make_row(
                    index,
                    outcome="infra_error",
                    correct=None,
                    score=None,
                    status="errored",
                    tool_calls=(),
                    error_type="overloaded_error",
                )
            )
        elif kind == "correct":
            rows.append(right_row(index))
        elif kind == "invalid_json":
            rows.append(make_row(index, outcome=kind, tool_calls=(call(None, raw='{"city": ', error="invalid_json"),)))
        else:
            rows.append(make_row(index, outcome=kind, tool_calls=() if kind == "missing_call" else (call('{"city": "Osaka"}'),)))
    return rows


@pytest.fixture
def run_folder(tmp_path: Path, mixed_rows: list[Row]) -> Path:
    """The folder of a run of `mixed_rows`."""
    write_run(tmp_path / "run", mixed_rows)
    return tmp_path / "run"
