"""A run whose calls are over: its dataset and its journal, of every kind of row there is."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from batchrun.finish import About, Others, finish
from batchrun.finish.part import Order, OrderedFinisher, Part, Range
from batchrun.job import Job, parse_job
from batchrun.pricing.book import PriceBook, open_book
from batchrun.records import Attempt, Failure, Reply, ToolUse, Usage
from batchrun.sources import open_dataset
from batchrun.storage.folder import RunFolder

ROWS = 700
MODELS = ("claude-sonnet-4-5", "claude-haiku-4-5", "unpriced-model")
REPEATS = 2
FILES = ("results.parquet", "cost.parquet", "junit.xml", "summary.json", "report.html")
TOOLS = [
    {"name": name, "input_schema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}}
    for name in ("note", "look")
]
ABOUT = {
    "job": "weather",
    "run_id": "20251122T163000Z-abcdef",
    "folder": "run",
    "started_at": "2025-11-22T16:30:00+00:00",
    "simulated": False,
    "stopped": None,
    "dataset": "rows.jsonl",
    "dataset_digest": "0",
    "profile": "default",
    "base_url": "https://gateway.example",
    "wall_s": 1.0,
    "calls_per_s": 1.0,
    "sessions": [],
}


class Run:
    """The folder of a run, and the means to finish it."""

    def __init__(self, folder: Path, *settings: tuple[str, object]) -> None:
        """Take the dataset and the journal that are there."""
        self.folder = RunFolder(folder)
        self.job = a_job(folder, *settings)
        self.dataset = open_dataset(self.job.dataset, select=self.job.select)

    def finish(self, others: Others | None = None) -> tuple[dict[str, bytes], PriceBook]:
        """Return the content of the run's files, and the book that priced it."""
        book, calls = open_book(self.job.prices), len(self.job.request.model) * self.job.request.repeat
        finish(self.job, self.folder, self.dataset.samples, book, About(facts=ABOUT, expected_rows=ROWS * calls), others)
        assert {path.name for path in self.folder.path.iterdir()} == {*FILES, "journal", "rows.jsonl"}
        return {name: (self.folder.path / name).read_bytes() for name in FILES}, book


def a_job(folder: Path, *settings: tuple[str, object]) -> Job:
    wanted = [("request.model", list(MODELS)), ("request.repeat", REPEATS), *settings]
    return parse_job("", default_name="weather", default_dataset=str(folder / "rows.jsonl"), overrides=wanted)


def in_this_process(order: Order, ranges: Sequence[Range]) -> Iterator[Part | None]:
    """Finish ranges as another process would, in this one."""
    finisher = OrderedFinisher(order)
    try:
        for rows in ranges:
            yield finisher.finish(rows)
    finally:
        finisher.close()


def others(spread: Any, workers: int) -> Others:
    """Return who shares the finishing of a run of any size."""
    return Others(spread=spread, workers=workers, least=0, price_text=None, bad_rows={})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder with a dataset and what has landed of it."""
    chance = random.Random(7)
    with (tmp_path / "rows.jsonl").open("w") as stream:
        stream.writelines(json.dumps(a_row(number, chance)) + "\n" for number in range(ROWS))
    attempts = [
        attempt
        for ordinal in range(ROWS * len(MODELS) * REPEATS)
        if ordinal % 97  # some have not landed
        for attempt in landed(ordinal, chance)
    ]
    for start in range(0, len(attempts), 100):  # in the order of completion
        window = attempts[start : start + 100]
        chance.shuffle(window)
        attempts[start : start + 100] = window
    for writer, part in (("w1", attempts[::2]), ("w2", attempts[1::2])):
        with RunFolder(tmp_path).open_journal(writer) as journal:
            for attempt in part:
                journal.append(attempt, Decimal("0.001"))
    return tmp_path


def a_row(number: int, chance: random.Random) -> dict[str, Any]:
    """Return a row of the dataset."""
    call = {"name": "note", "arguments": {"n": number}}
    expected = [[call], [], {"any_call": True}, [call, call], {"any_of": [[call], []]}, None][chance.randrange(6)]
    row: dict[str, Any] = {"id": f"row <{number}>", "prompt": f"Keep {number} & go on.", "tools": TOOLS[: 1 + number % 2]}
    row |= {"tags": [*chance.sample("abcde", chance.randrange(4)), f"t{number % 230}"], "origin": {"line": number}}
    row |= {"expected": expected} if expected is not None else {}
    row |= {"cluster": f"c{number % 40}"} if number % 3 else {}
    return row | ({"category": "odd" if number % 2 else "even"} if number % 5 else {})


def landed(ordinal: int, chance: random.Random) -> list[Attempt]:
    """Return the attempts of one call, the last one final."""
    row, model = ordinal // (len(MODELS) * REPEATS), MODELS[ordinal // REPEATS % len(MODELS)]
    fate, common = chance.random(), dict[str, Any](ordinal=ordinal, model=model, queued_ms=chance.random())
    began = 1_763_829_000_000_000 + ordinal * 10**9
    tried: list[Attempt] = []
    if fate < 0.2:
        cut = Failure(kind="truncated", retry="retry", message="cut", usage=Usage(input_tokens=9, output_tokens=ordinal % 7))
        tried.append(
            Attempt(attempt=1, final=False, status="errored", failure=cut, started_at_us=began, http_status=200, **common)
        )
    if fate < 0.1:
        lost = Failure(kind="http", retry="stop_row", message=f"overloaded {row % 60}", type=f"error_{row % 70}", status=529)
        return [*tried, Attempt(attempt=2, final=True, status="errored", failure=lost, http_status=529, **common)]
    arguments = json.dumps({"n": row if fate < 0.7 else "many"}) if fate < 0.9 else '{"n": '
    broken = fate >= 0.9
    use = ToolUse(
        id=f"toolu_{ordinal}",
        name="note" if fate < 0.8 else f"made_up_{row % 50}",
        input=None if broken else arguments,
        raw=arguments,
        error="invalid_json" if broken else None,
    )
    usage = Usage(input_tokens=50 + ordinal % 30, output_tokens=ordinal % 11, cache_read_tokens=ordinal % 3)
    reply = Reply(
        form="anthropic_sse",
        text=f"Kept \u2028 {ordinal}.",
        tool_uses=(use,) * (1 + ordinal % 2) if ordinal % 7 else (),
        stop_reason="tool_use" if ordinal % 13 else "max_tokens",
        usage=usage,
        message_id=f"msg_{ordinal}",
        model=model,
    )
    common |= {"started_at_us": began, "ttft_ms": 100 * chance.random(), "latency_ms": 100 + 900 * chance.random(), "events": 9}
    cached = "20251101T000000Z-abcdef" if ordinal % 53 == 1 else None
    answer = Attempt(
        attempt=len(tried) + 1,
        final=True,
        status="succeeded",
        reply=reply,
        cached_from=cached,
        http_status=200,
        **common,
    )
    return [*tried, answer]
