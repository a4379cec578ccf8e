"""What a `table` of costs is made of and comes to: values alone.

A `CostLine` is a line of `cost.parquet`, a `CostSummary` the cost part of `summary.json`, a `Cell` the running sums that
both are made of.
"""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct

from batchrun.pricing.rates import dollars


class CostLine(Struct, frozen=True, kw_only=True):
    """One line of `cost.parquet`; the fields are its columns, in its order.

    `rows` had that kind and a price. `tokens` is null where the kind is not counted in tokens, `cost` of kind `none`.
    `unpriced_rows` of this (dimension, value, model) answered and have no price; the same on each of its lines.
    """

    dimension: str
    value: str
    model: str
    kind: str
    rows: int
    tokens: int | None
    cost: Decimal | None
    unpriced_rows: int
    currency: str


class KindCost(Struct, frozen=True, kw_only=True):
    """What one kind came to."""

    tokens: int | None
    cost: Decimal


class PricyRow(Struct, frozen=True, kw_only=True, order=True):
    """One of the dearest rows, waste included."""

    cost: Decimal
    id: str
    model: str
    repeat: int


class CostSummary(Struct, frozen=True, kw_only=True):
    """The cost of a run in a few numbers, in `currency`; None is undefined or unknown.

    Sums are over the rows with a price; `unpriced` says how many answers by model have none, `waste_unknown` how many rows
    had an attempt that was billed for nobody knows what. `total` = `answers` + `wasted`. `without_cache` is the same usage
    with every cached token as plain input; `as_batch` the same usage through the Batches endpoint, waste left out.
    `cache_saved` may be below 0: writes that nobody read. The `per_…` are None where an answer has no price.
    """

    currency: str
    rows: int
    priced_rows: int
    correct: int
    unpriced: dict[str, int]
    attempts: int
    total: Decimal | None
    answers: Decimal | None
    wasted: Decimal
    waste_unknown: int
    per_row: Decimal | None
    per_correct: Decimal | None
    per_1000_calls: Decimal | None
    by_kind: dict[str, KindCost]
    without_cache: Decimal | None
    cache_saved: Decimal | None
    as_batch: Decimal | None
    dearest: tuple[PricyRow, ...]


class Cell:
    """Running sums by kind: rows, tokens, cost in billionths."""

    __slots__ = ("kinds", "unpriced")

    def __init__(self) -> None:
        self.kinds: dict[str, list[int]] = {}
        self.unpriced = 0

    def add(self, kind: str, cost: int, tokens: int, rows: int = 1) -> None:
        """Add the share that some rows have in one kind."""
        sums = self.kinds.get(kind)
        if sums is None:
            self.kinds[kind] = [rows, tokens, cost]
        else:
            sums[0] += rows
            sums[1] += tokens
            sums[2] += cost

    def merge(self, other: Cell) -> None:
        """Add all that `other` has seen."""
        self.unpriced += other.unpriced
        for kind, (rows, tokens, cost) in other.kinds.items():
            self.add(kind, cost, tokens, rows)

    def cost(self, kind: str) -> Decimal:
        """Return what one kind came to."""
        return dollars(self.kinds[kind][2])
