"""Row values, some of them from one source → a mean whose error bar knows they are not independent.

Miller (2024), "Adding Error Bars to Evals" (arXiv:2411.00640), section 2.2, the clustered standard error:
Var = Σ_c (Σ_{i∈c} (s_i − s̄))² / n². Repeats of a row are averaged within the row first (section 3.1), so that n counts
rows. Small-cluster correction: the variance is multiplied by G / (G − 1) for G clusters and the interval uses
Student's t with G − 1 degrees of freedom (CR1, as Stata and `statsmodels` do for a mean). A row without a
cluster is a cluster of its own; when all are, this is the ordinary s² / n.

Accumulating needs memory for each distinct cluster, none for rows without one. Sums are exact until they are asked for,
so that the same rows say the same to the last digit, in any order and merged from any parts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

from msgspec import Struct, structs

from batchrun.statistics.exact import ExactSum
from batchrun.statistics.interval import Interval, normal_quantile, t_quantile
from batchrun.statistics.proportions import wilson


class Estimate(Struct, frozen=True, kw_only=True):
    """A mean over `n` rows in `clusters` clusters. `se` and `interval` are None with fewer than two clusters."""

    value: float
    se: float | None
    n: int
    clusters: int
    confidence: float
    interval: Interval | None


class _Cluster(ExactSum):
    """The values of one cluster, summed, and how many rows they are of."""

    __slots__ = ("rows",)

    def __init__(self) -> None:
        """Begin with no rows."""
        super().__init__()
        self.rows = 0

    def add_rows(self, value: float, rows: int) -> None:
        """Add rows of the same value."""
        self.add(value, rows)
        self.rows += rows


class ClusteredMean:
    """Accumulates row values; `estimate` and `proportion` may be asked at any time."""

    __slots__ = ("_clusters", "_singles", "_squares", "_sum", "_verdicts")

    def __init__(self) -> None:
        """Begin with no rows."""
        self._singles = 0
        self._sum = ExactSum()
        self._squares = ExactSum()
        self._clusters: dict[str, _Cluster] = {}
        self._verdicts = 0

    def add(self, value: float, cluster: str | None = None, *, repeats: int = 1, times: int = 1) -> None:
        """Add one row, or `times` alike: the value, already averaged over its `repeats`."""
        self._verdicts += repeats * times
        if cluster is not None:
            self._cluster(cluster).add_rows(value, times)
            return
        self._singles += times
        self._sum.add(value, times)
        self._squares.add_square(value, times)

    def add_row(self, values: Sequence[float | None], cluster: str | None = None) -> None:
        """Add one row by its repeats; those without a value (None) do not count, and neither does a row of only such."""
        known = [value for value in values if value is not None]
        if known:
            self.add(math.fsum(known) / len(known), cluster, repeats=len(known))

    def merge(self, other: Self) -> None:
        """Add all that `other` has seen; the same cluster in both is one cluster."""
        self._verdicts += other._verdicts
        self._singles += other._singles
        self._sum.merge(other._sum)
        self._squares.merge(other._squares)
        for cluster, theirs in other._clusters.items():
            mine = self._cluster(cluster)
            mine.merge(theirs)
            mine.rows += theirs.rows

    @property
    def n(self) -> int:
        """Return how many rows were added."""
        return self._singles + sum(cluster.rows for cluster in self._clusters.values())

    def estimate(self, confidence: float = 0.95) -> Estimate | None:
        """Return the mean with its clustered error and t interval, or None where there is no row."""
        n, groups = self.n, self._singles + len(self._clusters)
        if n == 0:
            return None
        total = ExactSum()
        for part in (self._sum, *self._clusters.values()):
            total.merge(part)
        mean = total.over(n)
        se = interval = None
        if groups > 1:
            squares = self._spread + self._singles * (self._mean - mean) ** 2
            squares += math.fsum((one.over(1) - one.rows * mean) ** 2 for one in self._clusters.values())
            se = math.sqrt(squares * groups / (groups - 1)) / n
            reach = t_quantile(confidence, groups - 1) * se
            interval = Interval(mean - reach, mean + reach)
        return Estimate(value=mean, se=se, n=n, clusters=groups, confidence=confidence, interval=interval)

    def proportion(self, confidence: float = 0.95) -> Estimate | None:
        """Return `estimate` with an interval that stays in [0, 1]: Wilson's at the effective number of rows.

        The effective number is p(1 − p) / se², with Korn & Graubard's (1998) factor (z / t)² for few clusters,
        at most the verdicts there are; at p = 0 or 1, where no error can be estimated, it is the number of clusters.
        Independent rows of one verdict each get the plain Wilson interval. Raises `ValueError` for a mean outside [0, 1].
        """
        estimate = self.estimate(confidence)
        if estimate is None:
            return None
        if not -1e-9 <= estimate.value <= 1 + 1e-9:
            raise ValueError(f"a mean of {estimate.value} is no proportion")
        share, n = min(max(estimate.value, 0.0), 1.0), self._effective(estimate)
        interval = None if n is None else wilson(share * n, n, confidence)
        return structs.replace(estimate, value=share, interval=interval)

    @property
    def _mean(self) -> float:
        """The mean of the rows without a cluster, 0 of none."""
        return self._sum.over(max(self._singles, 1))

    @property
    def _spread(self) -> float:
        """Σ (value − mean)² of the rows without a cluster."""
        return float(self._squares.fraction - self._sum.fraction**2 / max(self._singles, 1))

    def _cluster(self, name: str) -> _Cluster:
        """Return the sum of one cluster."""
        found = self._clusters.get(name)
        if found is None:
            found = self._clusters[name] = _Cluster()
        return found

    def _effective(self, estimate: Estimate) -> float | None:
        """Return how many independent verdicts would tell as much."""
        spread = estimate.value * (1 - estimate.value)
        if not self._clusters and self._verdicts == estimate.n and math.isclose(self._spread, estimate.n * spread, abs_tol=1e-9):
            return estimate.n
        if estimate.se is None:
            return None
        if estimate.se == 0 or spread <= 0:
            return estimate.clusters
        z, t = normal_quantile(estimate.confidence), t_quantile(estimate.confidence, estimate.clusters - 1)
        return min(spread / estimate.se**2 * (z / t) ** 2, self._verdicts)
