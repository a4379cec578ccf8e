"""Finished rows, a batch of them at a time → the figures of `summary.json`, in constant memory.

One `ModelTally` a model; nothing is kept a row but the few slowest. A batch is counted column by column. Tallies of the
parts of a run, merged in the order of the input, say the same as one tally of the whole. Accuracy counts the rows that have a
verdict; those without an answer (`infra_error`) or without one to compare it with (`unscored`) are counted
beside it. Sums of a kind nobody told stay None, never 0.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import compress, pairwise
from typing import Any, TypeAlias

from batchrun.pricing.rates import dollars
from batchrun.records import NOT_IN_DENOMINATOR
from batchrun.statistics.clustered import ClusteredMean, Estimate
from batchrun.statistics.histogram import LogHistogram

TOKENS = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cache_read": "cache_read_tokens",
    "cache_write_5m": "cache_write_5m_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
    "thinking": "thinking_tokens",
}
TIMES = ("queued_ms", "ttft_ms", "first_call_ms", "latency_ms")
ERROR = ("http_status", "error_type", "error_message")
TIMED = (*TIMES, "index", "id", "repeat", "output_tokens", "events")
PERCENTILES = (50, 90, 95, 99)
SLOWEST = 10
MOST_TAGS = 200
MOST_ERRORS = 50
DRAWN = ("ttft_ms", "latency_ms")
MOST_BARS = 48

Columns: TypeAlias = Mapping[str, Sequence[Any]]
"""Columns of `results.parquet` by name, one value a row, money in billionths; beside them `events` and `cached_from`."""


class ModelTally:
    """The figures of one model."""

    def __init__(self, model: str, *, most_tags: int = MOST_TAGS, most_errors: int = MOST_ERRORS) -> None:
        """Begin with no rows; of tags and kinds of error at most so many are told apart, those that came first."""
        self.model = model
        self._most_tags, self._most_errors = most_tags, most_errors
        self._status: Counter[str] = Counter()
        self._outcomes: Counter[str] = Counter()
        self._accuracy = ClusteredMean()
        self._score = ClusteredMean()
        self._tags: dict[str, ClusteredMean] = {}
        self._tokens: dict[str, int] = {}
        self._times = {name: LogHistogram() for name in TIMES}
        self._tokens_per_s = LogHistogram()
        self._gap_ms = LogHistogram()
        self._slowest: list[tuple[float, int, str, int]] = []
        self._errors: dict[str, tuple[int, str]] = {}
        self._attempts = self._unpriced = 0
        self._cost = self._wasted = 0  # in billionths

    def add_many(self, columns: Columns) -> None:
        """Add rows by their columns.

        The repeats of a dataset row stand together, and none of them is added later.
        """
        self._count(columns)
        ended = zip(columns["status"], columns["cached_from"], strict=True)
        timed = [status == "succeeded" and cached_from is None for status, cached_from in ended]
        self._time({name: list(compress(columns[name], timed)) for name in TIMED})
        self._judge(columns)

    def merge(self, other: ModelTally) -> None:
        """Add all that `other` has seen, whose rows come after those seen here; it must have had room for all of it."""
        self._status.update(other._status)
        self._outcomes.update(other._outcomes)
        self._accuracy.merge(other._accuracy)
        self._score.merge(other._score)
        for tag, mean in other._tags.items():
            if (mine := self._tag(tag)) is not None:
                mine.merge(mean)
        for name, tokens in other._tokens.items():
            self._tokens[name] = self._tokens.get(name, 0) + tokens
        for name, histogram in self._times.items():
            histogram.merge(other._times[name])
        self._tokens_per_s.merge(other._tokens_per_s)
        self._gap_ms.merge(other._gap_ms)
        self._slowest = heapq.nlargest(SLOWEST, self._slowest + other._slowest)
        heapq.heapify(self._slowest)
        for what, (number, example) in other._errors.items():
            self._error(what, number, example)
        self._attempts += other._attempts
        self._unpriced += other._unpriced
        self._cost += other._cost
        self._wasted += other._wasted

    def _count(self, columns: Columns) -> None:
        """Count status, outcomes, tokens, money and errors."""
        self._status.update(columns["status"])
        self._outcomes.update(columns["outcome"])
        self._attempts += sum(columns["attempts"])
        for name, column in TOKENS.items():
            told = [tokens for tokens in columns[column] if tokens is not None]
            if told:
                self._tokens[name] = self._tokens.get(name, 0) + sum(told)
        self._cost += sum(filter(None, columns["cost_usd"]))
        self._wasted += sum(filter(None, columns["wasted_usd"]))
        for place, (status, cost) in enumerate(zip(columns["status"], columns["cost_usd"], strict=True)):
            if status == "succeeded":
                self._unpriced += cost is None
            else:
                http_status, kind, message = (columns[name][place] for name in ERROR)
                self._error(f"{http_status or ''} {kind or 'error'}".strip(), 1, message or "")

    def _error(self, what: str, number: int, example: str) -> None:
        """Count one kind of error; the first example stays."""
        if what in self._errors or len(self._errors) < self._most_errors:
            so_far, first = self._errors.get(what, (0, example))
            self._errors[what] = (so_far + number, first)

    def _time(self, columns: Columns) -> None:
        """Count the clocks of answers; those of one from the cache were another run's."""
        for name, histogram in self._times.items():
            histogram.add_many([value for value in columns[name] if value is not None])
        gaps, rates = [], []
        least = self._slowest[0][0] if len(self._slowest) == SLOWEST else -math.inf
        clocks = zip(*(columns[name] for name in ("latency_ms", "ttft_ms", "output_tokens", "events")), strict=True)
        for place, (latency_ms, ttft_ms, tokens, events) in enumerate(clocks):
            if latency_ms is None:
                continue
            if latency_ms >= least:
                least = self._note(latency_ms, *(columns[name][place] for name in ("index", "id", "repeat")))
            streamed = latency_ms - (ttft_ms or 0)
            if events > 1 and streamed > 0:
                gaps.append(streamed / (events - 1))
                if tokens:
                    rates.append(tokens / streamed * 1000)
        self._gap_ms.add_many(gaps)
        self._tokens_per_s.add_many(rates)

    def _note(self, latency_ms: float, index: int, name: str, repeat: int) -> float:
        """Keep an answer if it is among the slowest; return what the next one must reach."""
        heapq.heappush(self._slowest, (latency_ms, -index, name, repeat))
        if len(self._slowest) > SLOWEST:
            heapq.heappop(self._slowest)
        return self._slowest[0][0] if len(self._slowest) == SLOWEST else -math.inf

    def _judge(self, columns: Columns) -> None:
        """Count the verdicts by dataset row, those alike together."""
        starts = _starts(columns["index"])
        verdicts = _means([None if correct is None else float(correct) for correct in columns["correct"]], starts)
        clusters = [columns["cluster"][start] for start in starts]
        tags = [columns["tags"][start] for start in starts]
        for (verdict, cluster), times in Counter(zip(verdicts, clusters, strict=True)).items():
            _add(self._accuracy, verdict, cluster, times)
        for (verdict, cluster, tagged), times in Counter(zip(verdicts, clusters, tags, strict=True)).items():
            for tag in dict.fromkeys(tagged):
                if (mine := self._tag(tag)) is not None:
                    _add(mine, verdict, cluster, times)
        for (credit, cluster), times in Counter(zip(_means(columns["score"], starts), clusters, strict=True)).items():
            _add(self._score, credit, cluster, times)

    def _tag(self, tag: str) -> ClusteredMean | None:
        """Return the mean of one tag, a new one where there is room."""
        found = self._tags.get(tag)
        if found is None and len(self._tags) < self._most_tags:
            found = self._tags[tag] = ClusteredMean()
        return found

    def summary(self, confidence: float) -> dict[str, Any]:
        """Return the figures as JSON-ready values; money as Decimal."""
        outside = {kind: self._outcomes[kind] for kind in sorted(NOT_IN_DENOMINATOR)}
        landed = sum(self._outcomes.values())
        scored = landed - sum(outside.values())
        rows = {"landed": landed, "scored": scored, "correct": self._outcomes["correct"], **outside}
        rows.update({status: self._status[status] for status in ("succeeded", "errored", "canceled", "expired")})
        return {
            "model": self.model,
            "rows": rows,
            "attempts": self._attempts,
            "outcomes": dict(self._outcomes.most_common()),
            "accuracy": proportion(self._accuracy, confidence),
            "score": proportion(self._score, confidence),
            "tags": [{"tag": tag, **proportion(self._tags[tag], confidence)} for tag in sorted(self._tags)],
            "tokens": {name: self._tokens.get(name) for name in TOKENS},
            "cost": self._money(),
            **{name: percentiles(histogram) for name, histogram in self._times.items()},
            "tokens_per_s": percentiles(self._tokens_per_s),
            "gap_ms": percentiles(self._gap_ms),
            "histograms": {name: bars(self._times[name]) for name in DRAWN},
            "slowest": [
                {"id": name, "index": -index, "repeat": repeat, "latency_ms": ms}
                for ms, index, name, repeat in sorted(self._slowest, reverse=True)
            ],
            "errors": [
                {"what": what, "count": number, "example": example}
                for what, (number, example) in sorted(self._errors.items(), key=lambda item: -item[1][0])
            ],
        }

    def _money(self) -> dict[str, Any]:
        """Return what the model cost: answers, waste and both; what answers cost is unknown while none of them has a price."""
        known = self._status["succeeded"] > self._unpriced or not self._unpriced
        return {
            "usd": _dollars(self._cost) if known else None,
            "wasted_usd": _dollars(self._wasted),
            "total_usd": _dollars(self._cost + self._wasted) if known or self._wasted else None,
            "unpriced": self._unpriced,
        }


_Known: TypeAlias = tuple[float, int] | None
"""The mean of the repeats of a row that have a value, and how many they are."""


def _starts(index: Sequence[int]) -> list[int]:
    """Return where in a column of row numbers each row begins."""
    return [place for place, row in enumerate(index) if not place or row != index[place - 1]]


def _means(values: Sequence[float | None], starts: Sequence[int]) -> list[_Known]:
    """Return the mean of each row's repeats; None where none has a value."""
    if len(starts) == len(values):
        return [None if value is None else (value, 1) for value in values]
    means: list[_Known] = []
    for start, stop in pairwise((*starts, len(values))):
        known = [value for value in values[start:stop] if value is not None]
        means.append((math.fsum(known) / len(known), len(known)) if known else None)
    return means


def _add(mean: ClusteredMean, known: _Known, cluster: str | None, times: int) -> None:
    """Add rows alike; those without a value do not count."""
    if known is not None:
        mean.add(known[0], cluster, repeats=known[1], times=times)


def _dollars(amount: int) -> Decimal:
    return dollars(amount) if amount else Decimal(0)


def proportion(mean_of: ClusteredMean, confidence: float) -> dict[str, Any]:
    """Return a share with its interval and how it was made; every figure None where no row counts."""
    estimate = mean_of.proportion(confidence)
    return _estimate(estimate, confidence, "Wilson at the effective number of rows (clustered)")


def _estimate(estimate: Estimate | None, confidence: float, method: str) -> dict[str, Any]:
    """Return an estimate as plain values."""
    if estimate is None:
        return {"value": None, "low": None, "high": None, "n": 0, "clusters": 0, "confidence": confidence, "method": method}
    low, high = estimate.interval or (None, None)
    return {
        "value": estimate.value,
        "low": low,
        "high": high,
        "n": estimate.n,
        "clusters": estimate.clusters,
        "confidence": confidence,
        "method": method,
    }


def percentiles(histogram: LogHistogram) -> dict[str, float | None]:
    """Return the percentiles of a histogram, each None where it is empty."""
    return {f"p{p}": histogram.quantile(p / 100) for p in PERCENTILES} | {"max": histogram.quantile(1.0)}


def bars(histogram: LogHistogram) -> list[tuple[float, float, int]]:
    """Return a histogram as at most `MOST_BARS` bars (from, to, count), each as wide as the others on a logarithmic scale.

    What took no time at all is left out: it has no place on such a scale.
    """
    if not histogram.counts:
        return []
    lowest, highest = min(histogram.counts), max(histogram.counts)
    step = (highest - lowest) // MOST_BARS + 1
    counts: Counter[int] = Counter()
    for bucket, count in histogram.counts.items():
        counts[(bucket - lowest) // step] += count
    start, end, _ = next(bar for bar in histogram.bars() if bar[0])
    ratio = (end / start) ** step
    return [
        (start * ratio**place, start * ratio ** (place + 1), counts[place]) for place in range((highest - lowest) // step + 1)
    ]
