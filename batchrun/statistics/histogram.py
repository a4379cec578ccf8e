"""Positive numbers, any many of them → quantiles within 1 %, in the memory of a few hundred counts.

Buckets are 2 % wide on a logarithmic scale (the idea of DDSketch: Masson, Rim & Lee 2019): a quantile is answered by
the geometric middle of its bucket, so its relative error is below 1 %. Histograms merge exactly, in any order; the
smallest, the largest, the count and the sum are exact. Zeros have a bucket of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_WIDTH = math.log(1.02)


class LogHistogram:
    """Accumulates numbers ≥ 0; negative ones and NaN raise `ValueError`."""

    __slots__ = ("counts", "highest", "lowest", "total", "zeros")

    def __init__(self) -> None:
        """Begin empty."""
        self.counts: dict[int, int] = {}
        self.zeros = 0
        self.total = 0.0
        self.lowest = math.inf
        self.highest = -math.inf

    def add(self, value: float, times: int = 1) -> None:
        """Add one number, `times` over."""
        if not 0 <= value < math.inf:
            raise ValueError(f"not a number of 0 or more: {value}")
        if value == 0:
            self.zeros += times
        else:
            bucket = math.floor(math.log(value) / _WIDTH)
            self.counts[bucket] = self.counts.get(bucket, 0) + times
        self.total += value * times
        self.lowest, self.highest = min(self.lowest, value), max(self.highest, value)

    def add_many(self, values: ArrayLike, times: ArrayLike | None = None) -> None:
        """Add a whole array, each value `times` over (NaN not allowed: drop missing values first)."""
        import numpy as np  # noqa: PLC0415 - loaded by those who need it

        numbers = np.asarray(values, dtype=np.float64)
        if not len(numbers):
            return
        if not (numbers.min() >= 0 and numbers.max() < math.inf):
            raise ValueError("not all are numbers of 0 or more")
        weights = np.ones(len(numbers), np.int64) if times is None else np.asarray(times, np.int64)
        some = numbers > 0
        buckets, places = np.unique(np.floor(np.log(numbers[some]) / _WIDTH).astype(np.int64), return_inverse=True)
        for bucket, count in zip(buckets.tolist(), np.bincount(places, weights[some]).tolist(), strict=True):
            self.counts[bucket] = self.counts.get(bucket, 0) + int(count)
        self.zeros += int(weights[~some].sum())
        self.total += float((numbers * weights).sum())
        self.lowest, self.highest = min(self.lowest, float(numbers.min())), max(self.highest, float(numbers.max()))

    def merge(self, other: Self) -> None:
        """Add all that `other` has seen."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.zeros += other.zeros
        self.total += other.total
        self.lowest, self.highest = min(self.lowest, other.lowest), max(self.highest, other.highest)

    @property
    def n(self) -> int:
        """Return how many numbers were added."""
        return self.zeros + sum(self.counts.values())

    @property
    def mean(self) -> float | None:
        """Return the exact mean; None of nothing."""
        return self.total / self.n if self.n else None

    def quantile(self, share: float) -> float | None:
        """Return the number that `share` (0 to 1) of them do not exceed, within 1 %; None of nothing."""
        return self.quantiles([share])[0]

    def quantiles(self, shares: Iterable[float]) -> list[float | None]:
        """Return several quantiles: the smallest number whose rank reaches ⌈share · n⌉, as `numpy`'s inverted CDF."""
        n = self.n
        ordered = sorted(self.counts.items())
        return [self._at_rank(max(1, math.ceil(share * n)), ordered, n) if n else None for share in shares]

    def bars(self) -> list[tuple[float, float, int]]:
        """Return (from, to, count) of every bucket that is not empty, ascending; zeros are (0, 0, count)."""
        zeros = [(0.0, 0.0, self.zeros)] if self.zeros else []
        edges = ((math.exp(b * _WIDTH), math.exp((b + 1) * _WIDTH), count) for b, count in sorted(self.counts.items()))
        return [*zeros, *edges]

    def to_builtins(self) -> dict[str, Any]:
        """Return the histogram as plain JSON values; `from_builtins` reads it back."""
        return {"counts": {str(b): c for b, c in sorted(self.counts.items())}, "zeros": self.zeros, "total": self.total} | (
            {"lowest": self.lowest, "highest": self.highest} if self.n else {}
        )

    @classmethod
    def from_builtins(cls, plain: Mapping[str, Any]) -> Self:
        """Return the histogram that `to_builtins` wrote."""
        histogram = cls()
        histogram.counts = {int(bucket): int(count) for bucket, count in plain["counts"].items()}
        histogram.zeros, histogram.total = int(plain["zeros"]), float(plain["total"])
        histogram.lowest, histogram.highest = plain.get("lowest", math.inf), plain.get("highest", -math.inf)
        return histogram

    def _at_rank(self, rank: int, ordered: list[tuple[int, int]], n: int) -> float:
        """Return the number at that 1-based rank: exact at both ends, a bucket's middle between."""
        if rank >= n:
            return self.highest
        if rank <= self.zeros or rank == 1:
            return self.lowest
        reached = accumulate((count for _, count in ordered), initial=self.zeros)
        next(reached)
        bucket = next(bucket for (bucket, _), below in zip(ordered, reached, strict=True) if below >= rank)
        middle = math.exp((bucket + 0.5) * _WIDTH)
        return min(max(middle, self.lowest), self.highest)
