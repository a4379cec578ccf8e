"""Rows with their costs → the lines of `cost.parquet` and the cost part of `summary.json`.

One pass, in memory that does not grow with the rows: at most `MAX_PLACES` (value, model) a dimension. Long format, one line for
each (dimension, value, model, kind): `dimension` is `total`, `day`, `tag` or `tool`. A row with two tags, or calls of two
tools, is in both with its whole cost, so lines of `tag` and `tool` do not sum to the total; those of `total` and `day` do.
`kind` is a token kind, `web_search`, `wasted` (attempts billed and thrown away: not known by token kind), or `none` where a
model has no priced row at all. What a row has no price for is counted, never taken as 0.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Context, Decimal
from typing import Any

from batchrun.pricing.book import PriceBook
from batchrun.pricing.lines import Cell, CostLine, CostSummary, KindCost, PricyRow
from batchrun.pricing.rates import DAY_US, EXACT, KINDS, TOKEN_KINDS, Amounts, day_of, dollars, nanos, quantized
from batchrun.records import Cost, Row

MAX_PLACES = 10_000
OTHER = "(other)"
"""Where values of a dimension beyond `MAX_PLACES` are added up: a model can invent a tool name a call."""

_ZERO = Decimal(0)
_RATIO = Context(prec=60)
_ORDER: tuple[str, ...] = (*KINDS, "wasted")
_COLUMNS = {kind: f"{kind}_tokens" for kind in TOKEN_KINDS}
_UNCACHED = ("model", "started_at", *_COLUMNS.values())  # what tells what a row would have cost without a cache
_COUNTED = ("_rows", "_priced", "_correct", "_attempts", "_waste_unknown")

Columns = Mapping[str, Sequence[Any]]
"""Columns of `results.parquet` by name, one value a row."""

NEEDED = ("id", "model", "repeat", "status", "correct", "tool_calls", "attempts", "started_at", "tags", *_COLUMNS.values())
"""The columns that a cost table reads."""


_Group = tuple[str, int | None, tuple[str, ...], tuple[str, ...]]
"""(model, day since the epoch, tags, names of the tools called): rows alike in all of these go to the same lines."""


class CostTable:
    """Accumulates priced rows; `lines` and `summary` may be asked at any time."""

    def __init__(self, book: PriceBook, *, batch: bool = False, dearest: int = 20, most: int | None = None) -> None:
        """`batch`: the rows went through the Batches endpoint; `dearest`: how many of the dearest rows to keep.

        A dimension has at most `most` places (`MAX_PLACES`), those that came first.
        """
        self._book, self._batch, self._keep, self._most = book, batch, dearest, MAX_PLACES if most is None else most
        self._groups: dict[_Group, Cell] = {}
        self._cells: dict[tuple[str, str, str], Cell] = {}
        self._places: dict[str, int] = {}
        self._dearest: list[tuple[int, str, str, int]] = []  # billionths, id, model, repeat
        self._rows = self._priced = self._correct = self._attempts = self._waste_unknown = 0
        self._unpriced: dict[str, int] = {}
        self._without_cache: int | None = 0

    def add(self, row: Row, cost: Cost, *, partly: bool = False) -> None:
        """Add one row and its cost, with its parts by kind. `cost.wasted_usd` counts also where there is no answer.

        `partly`: more was wasted than is known.
        """
        columns = {name: (getattr(row, name),) for name in NEEDED}
        amounts = None if cost.usd is None else {kind: nanos(money) for kind, money in cost.parts.items()}
        wasted = None if cost.wasted_usd is None else nanos(cost.wasted_usd)
        self.add_many(columns, (amounts,), (wasted,), partly=int(partly))

    def add_many(
        self, columns: Columns, amounts: Sequence[Amounts | None], wasted: Sequence[int | None], *, partly: int = 0
    ) -> None:
        """Add rows by their columns (`NEEDED`), with what each cost by kind and what was wasted on it, in billionths.

        On `partly` of them more was wasted than is known.
        """
        self._rows += len(amounts)
        self._attempts += sum(columns["attempts"])
        self._correct += columns["correct"].count(True)
        self._waste_unknown += wasted.count(None) + partly
        costs = [0 if parts is None else sum(parts.values()) for parts in amounts]
        for key, places in _alike(columns).items():
            self._add_alike(self._group(key), places, columns, amounts, wasted)
        self._add_without_cache(columns, amounts, costs)
        self._note(columns, [cost + (waste or 0) for cost, waste in zip(costs, wasted, strict=True)])

    def merge(self, other: CostTable) -> None:
        """Add all that `other` has seen, whose rows come after those seen here; it must have had room for all its places."""
        self._spread()
        other._spread()
        for place, cell in other._cells.items():
            self._cell(*place).merge(cell)
        for name in _COUNTED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for model, rows in other._unpriced.items():
            self._unpriced[model] = self._unpriced.get(model, 0) + rows
        mine, theirs = self._without_cache, other._without_cache
        self._without_cache = None if mine is None or theirs is None else mine + theirs
        self._dearest = heapq.nlargest(self._keep, self._dearest + other._dearest)
        heapq.heapify(self._dearest)

    def lines(self) -> list[CostLine]:
        """Return the lines of `cost.parquet`, sorted by dimension, value and model, the kinds in the order of `KINDS`."""
        self._spread()
        return [
            CostLine(
                dimension=dimension,
                value=value,
                model=model,
                kind=kind,
                rows=cell.kinds[kind][0] if kind in cell.kinds else 0,
                tokens=cell.kinds[kind][1] if kind in _COLUMNS else None,
                cost=cell.cost(kind) if kind in cell.kinds else None,
                unpriced_rows=cell.unpriced,
                currency=self._book.terms.currency,
            )
            for (dimension, value, model), cell in sorted(self._cells.items())
            for kind in [kind for kind in _ORDER if kind in cell.kinds] or ["none"]
        ]

    def summary(self) -> CostSummary:
        """Return the run's cost in a few numbers."""
        self._spread()
        whole = Cell()
        for (dimension, _, _), cell in self._cells.items():
            if dimension == "total":
                whole.merge(cell)
        by_kind = {
            kind: KindCost(tokens=whole.kinds[kind][1] if kind in _COLUMNS else None, cost=whole.cost(kind))
            for kind in _ORDER
            if kind in whole.kinds
        }
        wasted = by_kind["wasted"].cost if "wasted" in by_kind else _ZERO
        known = self._priced > 0
        answers = _sum(part.cost for kind, part in by_kind.items() if kind != "wasted") if known else None
        total = EXACT.add(answers or _ZERO, wasted) if known or wasted else None
        without = dollars(self._without_cache) if known and self._without_cache is not None else None
        return CostSummary(
            currency=self._book.terms.currency,
            rows=self._rows,
            priced_rows=self._priced,
            correct=self._correct,
            unpriced=dict(sorted(self._unpriced.items())),
            attempts=self._attempts,
            total=total,
            answers=answers,
            wasted=wasted,
            waste_unknown=self._waste_unknown,
            **_ratios(None if self._unpriced else total, self._rows, self._correct, self._attempts),
            by_kind=by_kind,
            without_cache=without,
            cache_saved=None if without is None or answers is None else EXACT.subtract(without, answers),
            as_batch=self._as_batch(by_kind) if known else None,
            dearest=tuple(
                PricyRow(cost=dollars(cost), id=name, model=model, repeat=repeat)
                for cost, name, model, repeat in sorted(self._dearest, reverse=True)
            ),
        )

    def _group(self, key: _Group) -> Cell:
        """Return the sums of the rows alike."""
        cell = self._groups.get(key)
        if cell is None:
            if len(self._groups) >= MAX_PLACES:
                self._spread()
            cell = self._groups[key] = Cell()
        return cell

    def _add_alike(
        self, cell: Cell, places: list[int], columns: Columns, amounts: Sequence[Amounts | None], wasted: Sequence[int | None]
    ) -> None:
        """Add the rows at these places, which are alike, to their sums."""
        priced = [(place, parts) for place in places if (parts := amounts[place]) is not None]
        self._priced += len(priced)
        for kind in KINDS:
            own = [(place, parts[kind]) for place, parts in priced if kind in parts]
            if own:
                tokens = columns[_COLUMNS[kind]] if kind in _COLUMNS else None
                count = 0 if tokens is None else sum([tokens[place] for place, _ in own])
                cell.add(kind, sum([money for _, money in own]), count, len(own))
        for place in places:
            if waste := wasted[place]:
                cell.add("wasted", waste, 0)
        if len(priced) < len(places):
            for place in places:
                if amounts[place] is None and columns["status"][place] == "succeeded":
                    model = columns["model"][place]
                    self._unpriced[model] = self._unpriced.get(model, 0) + 1
                    cell.unpriced += 1

    def _spread(self) -> None:
        """Add the groups to every line they belong to, and begin new ones."""
        for (model, day, tags, tools), group in self._groups.items():
            for dimension, value in _places(day, tags, tools):
                self._cell(dimension, value, model).merge(group)
        self._groups = {}

    def _cell(self, dimension: str, value: str, model: str) -> Cell:
        """Return the sums of one place, new ones where it is new and there is room."""
        cell = self._cells.get((dimension, value, model))
        if cell is None:
            self._places[dimension] = self._places.get(dimension, 0) + 1
            value = value if self._places[dimension] <= self._most else OTHER
            cell = self._cells.setdefault((dimension, value, model), Cell())
        return cell

    def _add_without_cache(self, columns: Columns, amounts: Sequence[Amounts | None], costs: Sequence[int]) -> None:
        """Add what the rows would have cost with their cached tokens as plain input; unknown once makes the sum unknown."""
        total = self._without_cache
        if total is None:
            return
        total += sum(costs)
        rows = zip(amounts, costs, *(columns[name] for name in _UNCACHED), strict=True)
        for parts, cost, model, at_us, fresh, output, read, short, long in rows:
            if not parts or not (read or short or long):
                continue
            plain_input = None if fresh is None else fresh + (read or 0) + (short or 0) + (long or 0)
            plain = self._book.plain(plain_input, output, model, at_us or 0, batch=self._batch)
            if plain is None:
                self._without_cache = None
                return
            total += plain + parts.get("web_search", 0) - cost
        self._without_cache = total

    def _as_batch(self, by_kind: dict[str, KindCost]) -> Decimal:
        """Return what the answers would cost at the batch discount, which is on tokens and not on server tools."""
        factor = Decimal(1) if self._batch else self._book.terms.batch_discount
        costs = (
            EXACT.multiply(p.cost, factor) if kind in _COLUMNS else p.cost for kind, p in by_kind.items() if kind != "wasted"
        )
        return quantized(_sum(costs))

    def _note(self, columns: Columns, spent: Sequence[int]) -> None:
        """Keep the rows that are among the dearest so far."""
        for row in zip(spent, columns["id"], columns["model"], columns["repeat"], strict=True):
            if len(self._dearest) < self._keep:
                if row[0]:
                    heapq.heappush(self._dearest, row)
            elif self._keep and row > self._dearest[0]:
                heapq.heapreplace(self._dearest, row)


def _alike(columns: Columns) -> dict[_Group, list[int]]:
    """Return the places of the rows by what they are alike in."""
    days = [None if at_us is None else at_us // DAY_US for at_us in columns["started_at"]]
    tools = [tuple([call.name for call in calls]) for calls in columns["tool_calls"]]
    found: dict[_Group, list[int]] = {}
    for place, key in enumerate(zip(columns["model"], days, columns["tags"], tools, strict=True)):
        found.setdefault(key, []).append(place)
    return found


def _places(day: int | None, tags: tuple[str, ...], tools: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return the (dimension, value) pairs of a group, each once."""
    days = [] if day is None else [("day", day_of(day * DAY_US))]
    return [
        ("total", ""),
        *days,
        *(("tag", tag) for tag in dict.fromkeys(tags)),
        *(("tool", name) for name in dict.fromkeys(tools)),
    ]


def combined(parts: Sequence[CostSummary], *, dearest: int = 20) -> CostSummary:
    """Return the cost of several runs together: sums are over what is known.

    Raises `ValueError` where they are in different currencies.
    """
    currency, *others = dict.fromkeys(part.currency for part in parts)
    if others:
        raise ValueError(f"amounts in {currency} and in {', '.join(others)} cannot be added up")
    unpriced: Counter[str] = Counter()
    by_kind: dict[str, KindCost] = {}
    for part in parts:
        unpriced.update(part.unpriced)
        for kind, one in part.by_kind.items():
            so_far = by_kind.get(kind, KindCost(tokens=None if one.tokens is None else 0, cost=_ZERO))
            tokens = None if one.tokens is None or so_far.tokens is None else so_far.tokens + one.tokens
            by_kind[kind] = KindCost(tokens=tokens, cost=EXACT.add(so_far.cost, one.cost))
    counts: dict[str, Any] = {name: sum(getattr(part, name) for part in parts) for name in _COUNTS}
    money: dict[str, Any] = {name: _known_sum([getattr(part, name) for part in parts]) for name in _SUMS}
    return CostSummary(
        currency=currency,
        **counts,
        **money,
        unpriced=dict(sorted(unpriced.items())),
        wasted=_sum(part.wasted for part in parts),
        **_ratios(None if unpriced else money["total"], counts["rows"], counts["correct"], counts["attempts"]),
        by_kind={kind: by_kind[kind] for kind in _ORDER if kind in by_kind},
        dearest=tuple(sorted((row for part in parts for row in part.dearest), reverse=True)[:dearest]),
    )


_COUNTS = ("rows", "priced_rows", "correct", "attempts", "waste_unknown")
_SUMS = ("total", "answers", "without_cache", "cache_saved", "as_batch")


def _known_sum(amounts: Sequence[Decimal | None]) -> Decimal | None:
    """Add up what is known, None where nothing is."""
    known = [amount for amount in amounts if amount is not None]
    return _sum(known) if known else None


def _sum(amounts: Iterable[Decimal]) -> Decimal:
    """Add up exactly."""
    total = _ZERO
    for amount in amounts:
        total = EXACT.add(total, amount)
    return total


def _ratios(total: Decimal | None, rows: int, correct: int, attempts: int) -> dict[str, Any]:
    """Return the total over what it was spent on; each None where the total is of some of the answers only."""
    thousand = None if total is None else EXACT.multiply(total, 1000)
    return {
        "per_row": _share(total, rows),
        "per_correct": _share(total, correct),
        "per_1000_calls": _share(thousand, attempts),
    }


def _share(total: Decimal | None, count: int) -> Decimal | None:
    """Return total / count to 9 places; None of nothing."""
    return None if total is None or not count else quantized(_RATIO.divide(total, count))
