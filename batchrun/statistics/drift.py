"""A job's runs over time, one number each → how far the last is from its past, and where the level changed.

`drift` holds a new run against a rolling baseline of the runs before it, with the prediction error of one more run:
sd · √(1 + 1/n), and never less than the run's own sampling error, so that a calm past does not make noise look like
drift. `change_points` finds the levels that explain the series best, each one costing a penalty (optimal partitioning:
Jackson et al. 2005). The penalty is 4·ln n a change, stricter than BIC's: of quiet histories of 14 runs fewer than 1 in 10
shows one. One run that strays alone is no level (Hampel's filter takes it out first): it is for `drift` to judge. Runs
without the number (None: nothing was scored, a provider's outage) are left out, not counted as 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, median, stdev

from msgspec import Struct

MIN_BASELINE = 3
SPIKE = 5  # noises from the median of itself and its two neighbours


class Drift(Struct, frozen=True, kw_only=True):
    """One run against its baseline; `z` counts prediction errors, its sign is the way it moved."""

    z: float
    value: float
    baseline: float
    sd: float
    runs: int


def drift(value: float | None, history: Sequence[float | None], *, window: int = 10, se: float | None = None) -> Drift | None:
    """Return how far `value` lies from the last `window` runs of `history` (oldest first).

    `se` is the value's own sampling error. None where the value is unknown, or where fewer than `MIN_BASELINE` runs have a
    number. Infinitely far is a value that differs where neither the past nor `se` gives any spread to measure by.
    """
    past = [known for known in history if known is not None][-window:]
    if value is None or len(past) < MIN_BASELINE:
        return None
    baseline = fmean(past)
    sd = max(stdev(past), se or 0.0)
    reach = sd * math.sqrt(1 + 1 / len(past))
    away = value - baseline
    z = away / reach if reach else math.copysign(math.inf, away) if away else 0.0
    return Drift(z=z, value=value, baseline=baseline, sd=sd, runs=len(past))


def change_points(values: Sequence[float | None], *, sd: float | None = None, penalty: float | None = None) -> list[int]:
    """Return the places (0-based, ascending) at which a new level of the mean begins.

    `sd` is the noise of one run; None takes it from the differences of neighbours (their median absolute
    difference, which a few changes of level do not move). `penalty` is in units of sd²: default 4·ln n.
    Time grows with n²: a few thousand runs at most.
    """
    places = [place for place, value in enumerate(values) if value is not None]
    known = [value for value in values if value is not None]
    noise = _noise(known) if sd is None else sd
    if len(known) < 2 * MIN_BASELINE:
        return []
    each = 4 * math.log(len(known)) if penalty is None else penalty
    least = 1e-12 * max(1.0, *(value * value for value in known))  # a change must be worth more than float noise
    return [places[start] for start in _partition(_without_spikes(known, SPIKE * noise), max(each * noise * noise, least))]


def _noise(values: Sequence[float]) -> float:
    """Return the noise of one value: the median |difference| of neighbours over √2 · 0.6745, or else their mean."""
    gaps = [abs(b - a) for a, b in pairwise(values)]
    if not gaps:
        return 0.0
    return (median(gaps) / 0.6745 or fmean(gaps)) / math.sqrt(2)


def _without_spikes(values: Sequence[float], bound: float) -> list[float]:
    """Replace each value further than `bound` from the median of three by that median; a step keeps its place."""
    last = len(values) - 3
    middles = [median(values[max(0, min(place - 1, last)) :][:3]) for place in range(len(values))]
    return [middle if abs(value - middle) > bound else value for value, middle in zip(values, middles, strict=True)]


def _partition(values: Sequence[float], penalty: float) -> list[int]:
    """Return the starts of all but the first segment of the cheapest partition: squared error plus `penalty` a change."""
    sums, squares = [0.0], [0.0]
    centre = fmean(values)
    for value in values:
        sums.append(sums[-1] + value - centre)
        squares.append(squares[-1] + (value - centre) ** 2)
    best, came_from = [-penalty], [0]
    for end in range(1, len(sums)):
        costs = [
            best[start] + penalty + squares[end] - squares[start] - (sums[end] - sums[start]) ** 2 / (end - start)
            for start in range(end)
        ]
        cheapest = min(costs)
        best.append(cheapest)
        came_from.append(costs.index(cheapest))
    starts = []
    end = len(values)
    while came_from[end]:
        end = came_from[end]
        starts.append(end)
    return starts[::-1]
