"""A few sampled calls → the total of the whole run, with an interval that holds as often as it says.

Calls are put into strata by tag and length (powers of two of the body's bytes); a seeded sample is drawn in each, in proportion
to rows × mean length (Neyman allocation, with the spread taken as proportional to length), at least two. The total is the
combined regression estimator on length (Cochran 1977, *Sampling Techniques*, 7.10), its variance that of the residuals with
the finite population correction, so that a pilot of every call has no interval.

The interval is the stratified bootstrap-t (Efron & Tibshirani 1993, 12.5): costs are skewed to the right, and a symmetric
interval from a small sample ends too low too often; `tests/bench/bench_estimate.py` shows how often it holds. This module
knows neither prices nor endpoints: a value is any quantity of a call (money, tokens, seconds).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct

MIN_SAMPLED = 2
RESAMPLES = 999
Key = tuple[str, int]


class Stratum(Struct, frozen=True, kw_only=True):
    """How many calls of one kind there are, and their lengths added up."""

    calls: int
    length: float


class Seen(NamedTuple):
    """One sampled call: its length (known of all calls) and the value that was measured."""

    length: float
    value: float


class PilotTotal(Struct, frozen=True, kw_only=True):
    """The whole run's total of one quantity. `low` and `high` are None with too few calls to tell."""

    low: float | None
    expected: float
    high: float | None
    confidence: float
    sampled: int
    calls: int
    method: str = "stratified regression on length, bootstrap-t interval"


class _Moments(NamedTuple):
    """What one stratum's sample says: n of N calls, means, and the sums of squares and products about them."""

    weight: float  # N² (1 − n/N) / n: variance of the estimated total per unit of variance of a value
    sampled: int
    calls: int
    length: float  # mean
    value: float  # mean
    gaps: tuple[tuple[float, float], ...]  # each call's length and value less the means


def stratum_of(tags: Sequence[str], length: float) -> Key:
    """Return the stratum of a call: its first tag, and the power of two its length lies under."""
    return (tags[0] if tags else "", math.frexp(max(length, 1.0))[1])


def coarsened(strata: Mapping[Key, Stratum], sample: int) -> dict[Key, Key]:
    """Map each stratum to the one it is sampled in: at most `sample` / 8 of them, each of two calls or more.

    Strata give up the tag first, then the length.
    """
    merges: tuple[Callable[[Key], Key], ...] = (lambda key: key, lambda key: ("", key[1]), lambda _: ("", 0))
    for merge in merges:
        calls: dict[Key, int] = {}
        for key, stratum in strata.items():
            calls[merge(key)] = calls.get(merge(key), 0) + stratum.calls
        if len(calls) <= sample // 8 and min(calls.values(), default=0) >= MIN_SAMPLED:
            break
    return {key: merge(key) for key in strata}


def merged(strata: Mapping[Key, Stratum], into: Mapping[Key, Key]) -> dict[Key, Stratum]:
    """Return the strata that `coarsened` leads to."""
    found: dict[Key, Stratum] = {}
    for key, stratum in strata.items():
        old = found.get(into[key], Stratum(calls=0, length=0.0))
        found[into[key]] = Stratum(calls=old.calls + stratum.calls, length=old.length + stratum.length)
    return found


def allocate(strata: Mapping[Key, Stratum], sample: int) -> dict[Key, int]:
    """Return how many calls to draw in each stratum: two, then by total length, never more than there are."""
    drawn = {key: min(MIN_SAMPLED, stratum.calls) for key, stratum in strata.items()}
    room = {key: stratum.calls - drawn[key] for key, stratum in strata.items()}
    left = min(sample - sum(drawn.values()), sum(room.values()))
    while left > 0:
        open_ = {key: strata[key].length or 1.0 for key, free in room.items() if free}
        whole = sum(open_.values())
        shares = {key: min(room[key], int(left * length / whole)) for key, length in open_.items()}
        if not any(shares.values()):
            shares = {max(open_, key=lambda key: open_[key] / (drawn[key] + 1)): 1}
        for key, more in shares.items():
            drawn[key], room[key], left = drawn[key] + more, room[key] - more, left - more
    return drawn


def choose(strata: Mapping[Key, Stratum], drawn: Mapping[Key, int], *, seed: int) -> dict[Key, list[int]]:
    """Return which calls to make: places (0-based, ascending) within each stratum, every set of them equally likely."""
    import numpy as np  # noqa: PLC0415 - loaded by those who need it

    rng = np.random.default_rng(seed)
    return {
        key: sorted(rng.choice(stratum.calls, size=drawn[key], replace=False).tolist()) for key, stratum in sorted(strata.items())
    }


def pilot_total(
    strata: Mapping[Key, Stratum], seen: Mapping[Key, Sequence[Seen]], *, seed: int, confidence: float = 0.9
) -> PilotTotal | None:
    """Return the total over all calls of the strata from those that were made; None where a stratum has none.

    What was spent on the pilot is part of the total, so no end lies below it.
    """
    if not strata or any(not seen.get(key) for key in strata):
        return None
    moments = [_moments(stratum, seen[key]) for key, stratum in strata.items()]
    slope = _slope(moments)
    missing_length = sum(stratum.length for stratum in strata.values()) - math.fsum(m.calls * m.length for m in moments)
    expected = math.fsum(m.calls * m.value for m in moments) + slope * missing_length
    spent = math.fsum(call.value for calls in seen.values() for call in calls)
    low, high = _ends(moments, slope, expected, (confidence, seed))
    sampled = sum(m.sampled for m in moments)
    return PilotTotal(
        low=None if low is None else max(low, spent),
        expected=max(expected, spent),
        high=None if high is None else max(high, spent),
        confidence=confidence,
        sampled=sampled,
        calls=sum(m.calls for m in moments),
    )


def _moments(stratum: Stratum, seen: Sequence[Seen]) -> _Moments:
    """Centre one stratum's sample."""
    n = len(seen)
    length, value = math.fsum(call.length for call in seen) / n, math.fsum(call.value for call in seen) / n
    weight = stratum.calls**2 * (1 - n / stratum.calls) / n
    return _Moments(weight, n, stratum.calls, length, value, tuple((call.length - length, call.value - value) for call in seen))


def _slope(moments: Sequence[_Moments]) -> float:
    """Return the slope of value on length that makes the combined estimator's variance least."""
    products = lengths = 0.0
    for m in moments:
        if m.sampled > 1:
            products += m.weight / (m.sampled - 1) * math.fsum(x * y for x, y in m.gaps)
            lengths += m.weight / (m.sampled - 1) * math.fsum(x * x for x, _ in m.gaps)
    return products / lengths if lengths else 0.0


def _ends(
    moments: Sequence[_Moments], slope: float, expected: float, chance: tuple[float, int]
) -> tuple[float | None, float | None]:
    """Return both ends of the interval for (confidence, seed); both None where an open stratum was sampled once."""
    open_ = [m for m in moments if m.weight]
    if any(m.sampled < MIN_SAMPLED for m in open_):
        return None, None
    spare = sum(m.sampled - 1 for m in open_)
    inflate = spare / (spare - 1) if slope and spare > 1 else 1.0  # the slope was estimated too
    squares = (m.weight / (m.sampled - 1) * math.fsum((y - slope * x) ** 2 for x, y in m.gaps) for m in open_)
    se = math.sqrt(inflate * math.fsum(squares))
    if not se:
        return expected, expected
    low, high = _studentized(open_, slope, inflate, chance)
    return expected - high * se, expected - low * se


def _studentized(moments: Sequence[_Moments], slope: float, inflate: float, chance: tuple[float, int]) -> tuple[float, float]:
    """Return both quantiles of (resampled total − total) / its own error, every stratum resampled to its size.

    Drawing is with replacement, so the finite population correction is in neither. A resample without spread is held
    to a thousandth of the sample's own variance.
    """
    import numpy as np  # noqa: PLC0415 - loaded by those who need it

    confidence, seed = chance
    rng = np.random.default_rng(seed)
    moved = lengths = xx = xy = yy = np.zeros(RESAMPLES)
    least = 0.0
    for m in moments:
        gaps = np.asarray(m.gaps)
        x, y = np.moveaxis(gaps[rng.integers(0, m.sampled, size=(RESAMPLES, m.sampled))], 2, 0)
        x_mean, y_mean = x.mean(axis=1), y.mean(axis=1)
        moved, lengths = moved + m.calls * y_mean, lengths + m.calls * x_mean
        weight = m.calls**2 / m.sampled / (m.sampled - 1)
        x, y = x - x_mean[:, None], y - y_mean[:, None]
        xx, xy, yy = (sum_ + weight * (a * b).sum(axis=1) for sum_, a, b in ((xx, x, x), (xy, x, y), (yy, y, y)))
        least += weight * float(((gaps[:, 1] - slope * gaps[:, 0]) ** 2).sum()) / 1000
    slopes = np.divide(xy, xx, out=np.zeros(RESAMPLES), where=xx > 0)
    variances = np.maximum(yy - slopes * xy, least) * inflate
    low, high = np.quantile((moved - slopes * lengths) / np.sqrt(variances), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
