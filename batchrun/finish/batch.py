"""Samples and what the journal has of them in, judged and priced rows out, a batch at a time and as columns.

A batch is some thousand rows, or fewer of long ones, so that memory is bounded whatever was asked and answered. Its rows
are held as columns from the beginning: whoever counts or writes them goes over a column, and a `Row` is made only of the few
that a page shows. This module refuses to know files and figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from operator import attrgetter
from typing import Any, Final, Self

import msgspec
from msgspec import Struct

from batchrun.job import Job
from batchrun.pricing.book import PriceBook
from batchrun.pricing.rates import Amounts, dollars
from batchrun.records import Attempt, Row, Sample, Score
from batchrun.scoring import Scorer
from batchrun.storage.index import JournalIndex, landing

BATCH_ROWS: Final = 1024
BATCH_BYTES: Final = 8 << 20
"""A batch ends with the row that reaches one of these."""

CHUNK_ROWS: Final = 128
"""So many rows go from the journal to columns at a time: few enough to stay in a processor's cache on the way."""

BESIDE: Final = ("events", "cached_from")
"""What is counted of a row and is no column of `results.parquet`."""

NO_ANSWER: Final = Score(outcome="infra_error", correct=None, score=None)
_FREE: Final[Amounts] = {}

_OF_SAMPLE: Final = ("id", "index", "tags", "cluster")
_OF_SCORE: Final = ("outcome", "correct", "score", "explanation")
_OF_ATTEMPT: Final = (
    *("model", "status", "queued_ms", "ttft_ms", "first_call_ms", "latency_ms", "http_status", "request_id"),
    *BESIDE,
)
_OF_REPLY: Final = ("text", "thinking", "stop_reason", "completions", "logprobs", "message_id")
_OF_USAGE: Final = (
    *("input_tokens", "output_tokens", "cache_read_tokens"),
    *("cache_write_5m_tokens", "cache_write_1h_tokens", "thinking_tokens"),
)


class Landed(Struct, kw_only=True):
    """A few rows by their parts: one value a row in each."""

    samples: list[Sample] = []
    repeats: list[int] = []
    finals: list[Attempt] = []  # the attempt that each landed with
    tries: list[int] = []
    scores: list[Score] = []
    amounts: list[Amounts | None] = []  # what the answer cost by kind, in billionths; None: not known
    wasted: list[int | None] = []  # what was billed for attempts thrown away, as far as it is known; None: nothing of it
    partly: int = 0  # how many rows wasted more than is known

    def columns(self) -> dict[str, list[Any]]:
        """Return the rows as columns."""
        replies = [final.reply for final in self.finals]
        failures = [final.failure for final in self.finals]
        usages = [None if reply is None else reply.usage for reply in replies]
        return {
            **{name: _each(self.samples, name) for name in _OF_SAMPLE},
            **{name: _each(self.scores, name) for name in _OF_SCORE},
            **{name: _each(self.finals, name) for name in _OF_ATTEMPT},
            **{name: _told(replies, name) for name in _OF_REPLY},
            **{name: _told(usages, name) for name in _OF_USAGE},
            "repeat": self.repeats,
            "attempts": self.tries,
            "tool_calls": [() if reply is None else reply.tool_uses for reply in replies],
            "response_model": _told(replies, "model"),
            "expected": [_text(sample.expected) for sample in self.samples],
            "metadata": [_metadata(sample, final) for sample, final in zip(self.samples, self.finals, strict=True)],
            "cost_usd": [None if parts is None else sum(parts.values()) for parts in self.amounts],
            "wasted_usd": self.wasted,
            "error_type": [None if failure is None else failure.type or failure.kind for failure in failures],
            "error_message": _told(failures, "message"),
            "started_at": _each(self.finals, "started_at_us"),
        }


class Batch:
    """Rows finished together, in input order, and all the samples that were read for them.

    `columns` are those of `results.parquet` (contract 5), money in billionths, and `BESIDE` them what else is counted; `samples`,
    `scores`, `amounts` (what an answer cost by kind) and `categories` go with them. `partly` counts rows of which only a part of
    what was wasted is known.
    """

    def __init__(self) -> None:
        """Begin with no rows."""
        self.read: list[Sample] = []
        self.samples: list[Sample] = []
        self.scores: list[Score] = []
        self.amounts: list[Amounts | None] = []
        self.categories: list[str | None] = []
        self.partly = 0
        self.columns: dict[str, list[Any]] = {name: [] for name in (*Row.__struct_fields__, *BESIDE)}

    def __len__(self) -> int:
        return len(self.samples)

    def extend(self, read: Sequence[Sample], landed: Landed) -> None:
        """Add some samples, and those of their rows that have landed."""
        self.read += read
        self.samples += landed.samples
        self.scores += landed.scores
        self.amounts += landed.amounts
        self.partly += landed.partly
        self.categories += [_category(sample) for sample in landed.samples]
        for name, values in landed.columns().items():
            self.columns[name] += values

    def of(self, model: str) -> Self:
        """Return the rows of one model."""
        chosen = [name == model for name in self.columns["model"]]
        if all(chosen):
            return self
        part = type(self)()
        part.samples, part.scores = list(compress(self.samples, chosen)), list(compress(self.scores, chosen))
        part.amounts, part.categories = list(compress(self.amounts, chosen)), list(compress(self.categories, chosen))
        part.columns = {name: list(compress(values, chosen)) for name, values in self.columns.items()}
        return part

    def row(self, place: int) -> Row:
        """Return one row as a value."""
        values = {name: self.columns[name][place] for name in Row.__struct_fields__}
        for name in ("cost_usd", "wasted_usd"):
            values[name] = None if values[name] is None else dollars(values[name])
        return Row(**values)


class Finisher:
    """Joins samples with their attempts; scores and prices what has landed."""

    def __init__(self, job: Job, index: JournalIndex, scorer: Scorer, book: PriceBook) -> None:
        """Keep what judges and what prices."""
        self._index, self._scorer, self._book = index, scorer, book
        self._repeats = job.request.repeat
        self._calls = len(job.request.model) * job.request.repeat
        self._discounted = job.request.mode == "batches"
        self._tools = msgspec.json.encode(job.request.tools) if job.request.tools is not None else None

    def batches(self, samples: Iterable[Sample], *, beyond: bool = False) -> Iterator[Batch]:
        """Yield the landed rows in input order, the repeats of a (row, model) together and in one batch.

        It ends with the last sample that may have landed, unless those `beyond` it are wanted too.
        """
        last = self._index.last
        batch, read, size = Batch(), list[Sample](), 0
        for sample in samples:
            first = sample.index * self._calls
            if first > last and not beyond:
                break
            read.append(sample)
            size += _size(sample) + self._index.bytes_of(first, first + self._calls)
            full = (len(batch.read) + len(read)) * self._calls >= BATCH_ROWS or size >= BATCH_BYTES
            if full or len(read) * self._calls >= CHUNK_ROWS:
                batch.extend(read, self._landed(read))
                read = []
            if full:
                yield batch
                batch, size = Batch(), 0
        if read:
            batch.extend(read, self._landed(read))
        if batch.read:
            yield batch

    def _landed(self, samples: Sequence[Sample]) -> Landed:
        """Return what has landed of some samples."""
        calls = range(self._calls)
        attempts = iter(self._index.attempts_of([sample.index * self._calls + call for sample in samples for call in calls]))
        landed = Landed()
        for sample in samples:
            for call in calls:
                tried = next(attempts)
                final = landing(tried)
                if final is not None:
                    self._add(landed, sample, call % self._repeats, tried, final)
        return landed

    def _add(self, landed: Landed, sample: Sample, repeat: int, tried: Sequence[Attempt], final: Attempt) -> None:
        """Judge and price one row."""
        reply = final.reply
        landed.samples.append(sample)
        landed.repeats.append(repeat)
        landed.finals.append(final)
        landed.tries.append(final.attempt if len(tried) == 1 else _made(tried))
        if reply is None:
            landed.scores.append(NO_ANSWER)
            landed.amounts.append(None)
        else:
            landed.scores.append(self._scorer.score(sample.expected, sample.tools or self._tools, reply))
            landed.amounts.append(_FREE if final.cached_from is not None else self._priced(final))
        wasted, more = (0, False) if len(tried) == 1 and reply is not None else self._wasted(tried, final)
        landed.wasted.append(wasted)
        landed.partly += more and wasted is not None

    def _priced(self, attempt: Attempt) -> Amounts | None:
        """Return what an attempt cost; None where that is not known."""
        return self._book.amounts(attempt.usage, attempt.model, attempt.started_at_us or 0, batch=self._discounted)

    def _wasted(self, attempts: Sequence[Attempt], final: Attempt) -> tuple[int | None, bool]:
        """Return what was billed for attempts thrown away, None where nothing of it is known, and whether it was more."""
        wasted, more = 0, False
        for attempt in attempts:
            if attempt is final and attempt.reply is not None:
                continue
            if attempt.usage is None and not attempt.billed_unseen:
                continue
            amounts = None if attempt.usage is None else self._priced(attempt)
            if amounts is None:
                more = True
            else:
                wasted += sum(amounts.values())
        return (None if more and not wasted else wasted), more


def _made(tried: Sequence[Attempt]) -> int:
    """Return how many attempts were made, of which not all are kept: each session of a run counts its own from 1.

    What became of a call in a batch is there again each time that the results of the batch were fetched.
    """
    made = before = 0
    seen: set[tuple[int, int]] = set()
    for attempt in tried:
        if attempt.started_at_us is not None:
            sent = (attempt.attempt, attempt.started_at_us)
            if sent in seen:
                continue
            seen.add(sent)
        if attempt.attempt <= before:
            made += before
        before = attempt.attempt
    return made + before


def _each(items: Sequence[Any], field: str) -> list[Any]:
    """Return one field of each item."""
    return list(map(attrgetter(field), items))


def _told(items: Sequence[Any], field: str) -> list[Any]:
    """Return one field of each item, None where there is no item."""
    read = attrgetter(field)
    return [None if item is None else read(item) for item in items]


def _size(sample: Sample) -> int:
    """Return about how many bytes a sample holds of its own."""
    return len(sample.messages) + sum([len(part) for part in (sample.system, sample.expected, sample.metadata) if part])


def _metadata(sample: Sample, final: Attempt) -> str | None:
    """Return the row's other fields, and whose answer it is where it came from the response cache."""
    text = _text(sample.metadata)
    if final.cached_from is None:
        return text
    mark = msgspec.json.encode({"cached_from": final.cached_from}).decode()[1:]
    return "{" + (text[1:-1] + ", " if text and text != "{}" else "") + mark


def _category(sample: Sample) -> str | None:
    """Return the row's `category` field, where it has one of text."""
    if sample.metadata is None or b'"category"' not in sample.metadata:
        return None
    category = msgspec.json.decode(sample.metadata).get("category")
    return category if isinstance(category, str) else None


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("utf-8", "replace")
