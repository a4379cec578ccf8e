"""The same rows answered twice → whether the second is better, by how much, and what could have been seen.

Each row is its own control (Miller 2024, arXiv:2411.00640, section 4.2): the t test is of the mean difference, its error
clustered. McNemar's test is the exact binomial one on the rows that flipped. Families of tests are corrected
by Holm (1979). What was not found is put in proportion by the smallest difference the sample could have shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist

from batchrun.statistics.clustered import Estimate
from batchrun.statistics.interval import Interval
from batchrun.statistics.proportions import wilson

_ROUNDING = 1e-12
"""An error this small beside its mean is what floats leave of none at all."""


def newcombe(table: tuple[int, int, int, int], confidence: float = 0.95) -> Interval | None:
    """Return the interval of a difference of paired proportions, after − before; None for no rows.

    `table` counts rows (right both times, lost, gained, wrong both times). Newcombe (1998), "Improved confidence intervals
    for the difference between binomial proportions based on paired data", Statistics in Medicine 17:2635, method 10: both
    Wilson intervals, squared and added with their correlation. Its width is never 0, even where no row flipped.
    """
    both, lost, gained, neither = table
    n = sum(table)
    old, new = wilson(both + lost, n, confidence), wilson(both + gained, n, confidence)
    if old is None or new is None:
        return None
    before, after = (both + lost) / n, (both + gained) / n
    margins = (both + lost) * (gained + neither) * (both + gained) * (lost + neither)
    excess = both * neither - lost * gained
    phi = (excess if excess < 0 else max(excess - n / 2, 0)) / math.sqrt(margins) if margins else 0.0

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))

    difference = after - before
    low = difference - reach(after - new.low, old.high - before)
    return Interval(low, difference + reach(before - old.low, new.high - after))


def t_test(difference: Estimate) -> float | None:
    """Return the two-sided p of a mean being 0, by Student's t over its clusters; None without a spread but that of rounding."""
    if difference.se is None or difference.se <= _ROUNDING * abs(difference.value):
        return None
    from scipy.special import stdtr  # noqa: PLC0415 - scipy is loaded by those who need it

    return 2 * float(stdtr(difference.clusters - 1, -abs(difference.value) / difference.se))


def sign_test(difference: Estimate) -> float:
    """Return the two-sided p of a mean being 0 where all clusters moved alike, so that they have no spread for a t test.

    The exact sign test: that all go one way, whichever, has the chance 2 · 2^−clusters. Where none moved, it is 1.
    """
    return min(1.0, 2.0 ** (1 - difference.clusters)) if difference.value else 1.0


def mcnemar(lost: int, gained: int, *, mid_p: bool = False) -> float:
    """Return the two-sided p of McNemar's exact test: `lost` rows went right → wrong, `gained` wrong → right.

    Conditional on the flips, each way is Binomial(lost + gained, 1/2); no flips give 1. `mid_p` takes half
    the probability of the table itself away: closer to the nominal level (Fagerland, Lydersen & Laake 2013).
    """
    if min(lost, gained) < 0:
        raise ValueError(f"{lost} lost and {gained} gained")
    from scipy.special import bdtr  # noqa: PLC0415 - scipy is loaded by those who need it

    flips, fewer = lost + gained, min(lost, gained)
    tail = float(bdtr(fewer, flips, 0.5)) if flips else 1.0
    if not mid_p:
        return min(1.0, 2 * tail)
    itself = tail - (float(bdtr(fewer - 1, flips, 0.5)) if fewer else 0.0)
    return 1 - itself / 2 if lost == gained else 2 * tail - itself


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return Holm's (1979) adjusted p-values, in the order given: reject those at most alpha, error kept over all."""
    adjusted: dict[str, float] = {}
    floor = 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = floor
    return {name: adjusted[name] for name in p_values}


def minimal_detectable(se: float | None, *, alpha: float = 0.05, power: float = 0.8) -> float | None:
    """Return the smallest true difference that a two-sided test at `alpha` finds with chance `power`.

    (z_{1−α/2} + z_power) · se: Miller (2024), section 5. None where there is no error, or no spread to take it from.
    """
    if not se:
        return None
    normal = NormalDist()
    return (normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)) * se


def rows_needed(rows: int, detectable: float, wanted: float) -> int:
    """Return how many rows would show `wanted` where `rows` show `detectable`: the error shrinks as 1/√rows."""
    return math.ceil(rows * (detectable / wanted) ** 2)
