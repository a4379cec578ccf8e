"""The calls of a pilot, as a run folder's journal has them → the whole run's money and tokens, each with an interval.

The pilot's calls are the run's own: they land in its journal and are not made again. Each model's total is
`pricing.pilot`'s; the totals of several models are independent, and their interval is put together from theirs by the
MOVER method (Zou and Donner 2008: the distances to the ends add up as squares), which keeps it skewed as costs are.

The first calls of a run write to the prompt cache what the others read, so a pilot pays for more writes than its share.
Where the job places the marks, each call's cached tokens are valued at the share of writes of the whole run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final, NamedTuple

from msgspec import Struct, structs

from batchrun.estimation.survey import Draw
from batchrun.pricing.book import PriceBook
from batchrun.pricing.estimate import Range
from batchrun.pricing.pilot import Key, PilotTotal, Seen, pilot_total
from batchrun.records import Attempt, Usage
from batchrun.storage.index import JournalIndex, landing

CONFIDENCE: Final = 0.9


class Chosen(NamedTuple):
    """One call of the pilot; `length` is its body's, `weight` as `survey` has it."""

    ordinal: int
    model: str
    stratum: Key
    length: int
    weight: float


class Interval(Struct, frozen=True, kw_only=True):
    """A total of the whole run. `low` and `high` are None where the calls were too few to tell."""

    low: float | None
    expected: float
    high: float | None


class Pilot(Struct, frozen=True, kw_only=True):
    """What a pilot says of the whole run, its own calls included. Money is None where a call's cost is not known."""

    folder: str
    calls: int
    errored: int
    spent: Decimal | None
    confidence: float
    cost: Interval | None
    batch_cost: Interval | None
    input_tokens: Interval | None
    output_tokens: Interval | None
    latency_s: float | None


class Value(NamedTuple):
    """What one call came to."""

    cost: float | None
    batch_cost: float | None
    input: float
    output: float


class Terms(NamedTuple):
    """How calls are valued: the prices, and the share of cached tokens that the whole run writes, by model."""

    book: PriceBook
    write_share: Mapping[str, float]
    ttl: str
    batch: bool  # the run's own way, for what the pilot itself has cost


def measure(index: JournalIndex, chosen: Sequence[Chosen], draws: Mapping[str, Draw], terms: Terms, *, seed: int) -> Pilot:
    """Return what the chosen calls say of the whole; those that have not landed are left out."""
    seen: dict[str, dict[Key, list[tuple[Chosen, Value]]]] = {model: {} for model in draws}
    errored, latencies = 0, []
    spent: Decimal | None = Decimal(0)
    landed = 0
    for call in sorted(chosen):
        attempts = index.attempts(call.ordinal)
        final = landing(attempts)
        if final is None:
            continue
        landed += 1
        errored += final.reply is None
        if final.reply is not None and final.latency_ms is not None:
            latencies.append(final.latency_ms / 1000)
        spent = _added(spent, _billed(attempts, terms))
        seen[call.model].setdefault(call.stratum, []).append((call, _value(attempts, final, terms)))
    totals = {name: _total(name, seen, draws, seed) for name in Value._fields}
    return Pilot(
        folder=str(index.folder.parent),
        calls=landed,
        errored=errored,
        spent=spent,
        confidence=CONFIDENCE,
        cost=totals["cost"],
        batch_cost=totals["batch_cost"],
        input_tokens=totals["input"],
        output_tokens=totals["output"],
        latency_s=math.fsum(latencies) / len(latencies) if latencies else None,
    )


def as_range(interval: Interval | None, bracket: Range | None) -> Range | None:
    """Return the interval's ends; those of the bracket that was known before where the pilot is too small to tell."""
    if interval is None:
        return bracket
    if interval.low is not None and interval.high is not None:
        return Range(interval.low, interval.expected, interval.high)
    if bracket is None:
        return None
    return Range(min(bracket.low, interval.expected), interval.expected, max(bracket.high, interval.expected))


def _value(attempts: Iterable[Attempt], final: Attempt, terms: Terms) -> Value:
    """Return what one call came to, the attempts it took included."""
    costs: list[float | None] = [0.0, 0.0]
    for attempt in attempts:
        if attempt.usage is not None and attempt.cached_from is None:
            for place, batch in enumerate((False, True)):
                so_far, cost = costs[place], _cost(attempt, terms, batch=batch)
                costs[place] = None if so_far is None or cost is None else so_far + cost
    usage = (final.reply.usage if final.reply is not None else None) or Usage()
    whole = (usage.input_tokens or 0) + _cached(usage)
    return Value(costs[0], costs[1], whole, usage.output_tokens or 0)


def _cost(attempt: Attempt, terms: Terms, *, batch: bool) -> float | None:
    """Return the money of one attempt by that way, its cached tokens valued at the run's share of writes."""
    usage, model, at_us = attempt.usage or Usage(), attempt.model, attempt.started_at_us or 0
    if usage.service_tier == "batch":  # says which way it came; here the way is given
        usage = structs.replace(usage, service_tier=None)
    share = terms.write_share.get(model)
    if share is None or not _cached(usage):
        cost = terms.book.cost(usage, model, at_us, batch=batch).usd
        return None if cost is None else float(cost)
    nothing = structs.replace(usage, cache_read_tokens=0, cache_write_5m_tokens=0, cache_write_1h_tokens=0)
    written = structs.replace(nothing, **{f"cache_write_{terms.ttl}_tokens": _cached(usage)})
    read = structs.replace(nothing, cache_read_tokens=_cached(usage))
    costs = [terms.book.cost(each, model, at_us, batch=batch).usd for each in (read, written)]
    if costs[0] is None or costs[1] is None:
        return None
    return float(costs[0]) * (1 - share) + float(costs[1]) * share


def _cached(usage: Usage) -> int:
    """Return the tokens read from and written to the cache."""
    return (usage.cache_read_tokens or 0) + (usage.cache_write_5m_tokens or 0) + (usage.cache_write_1h_tokens or 0)


def _billed(attempts: Iterable[Attempt], terms: Terms) -> Decimal | None:
    """Return what the attempts of one call have cost."""
    spent: Decimal | None = Decimal(0)
    for attempt in attempts:
        if attempt.usage is not None and attempt.cached_from is None:
            cost = terms.book.cost(attempt.usage, attempt.model, attempt.started_at_us or 0, batch=terms.batch)
            spent = _added(spent, cost.usd)
    return spent


def _added(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    """Return the sum, None where either is not known."""
    return None if one is None or other is None else one + other


def _total(
    name: str, seen: Mapping[str, Mapping[Key, Sequence[tuple[Chosen, Value]]]], draws: Mapping[str, Draw], seed: int
) -> Interval | None:
    """Return one quantity's total over all models; None where a model or a stratum has no known value."""
    by_weight, totals = name in {"cost", "batch_cost"}, []
    for model, one in draws.items():
        strata = one.weights if by_weight else one.lengths
        if not strata:
            continue
        values: dict[Key, list[Seen]] = {}
        for key, calls in seen[model].items():
            measured = [getattr(value, name) for _, value in calls]
            if None in measured:
                return None
            known = [call.weight if by_weight else float(call.length) for call, _ in calls]
            values[key] = [Seen(*pair) for pair in zip(known, measured, strict=True)]
        total = pilot_total(strata, values, seed=seed, confidence=CONFIDENCE)
        if total is None:
            return None
        totals.append(total)
    return _together(totals) if totals else None


def _together(totals: Sequence[PilotTotal]) -> Interval:
    """Return the sum of independent totals, its distances to the ends as MOVER has them."""
    expected = math.fsum(total.expected for total in totals)
    lows = [None if total.low is None else total.expected - total.low for total in totals]
    highs = [None if total.high is None else total.high - total.expected for total in totals]
    if None in lows or None in highs:
        return Interval(low=None, expected=expected, high=None)
    return Interval(
        low=expected - math.hypot(*(gap for gap in lows if gap is not None)),
        expected=expected,
        high=expected + math.hypot(*(gap for gap in highs if gap is not None)),
    )
