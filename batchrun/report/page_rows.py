"""Rows passing by, any many of them → the few that a page shows, the same ones each time.

A page of a million rows shows a sample, and says so: of every outcome the rows with the smallest mixed number of
(index, repeat, model), which is a uniform draw without a clock or a seed to remember. Rare outcomes are shown whole, and no
frequent one crowds them out. A row on its way out is held against one number, so that a million rows cost a second.
This module refuses to know where rows come from, and how they look.
"""

from __future__ import annotations

import heapq
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, NamedTuple, Self, TypeVar

import msgspec

from batchrun.records import Row, Sample, ToolUse

MOST_FAILING: Final = 400
MOST_OTHERS: Final = 100
"""How many rows a page shows: those that are wrong or have no answer, and the rest."""

OTHERS: Final = frozenset({"correct", "unscored"})
KEPT_CHARACTERS: Final = 16_000
"""What is kept of one long text; the page cuts it further."""

_MASK: Final = (1 << 64) - 1
_GOLDEN: Final = 0x9E3779B97F4A7C15
_REPEATS: Final = 0x2545F491
_MIX: Final = 0xBF58476D1CE4E5B9

Item = TypeVar("Item")


class Shown(NamedTuple):
    """One row for a page, and the question it was asked: JSON text, None where the dataset was not at hand."""

    row: Row
    messages: bytes | None
    system: bytes | None = None


class Sampled(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of a page, failing ones first, each kind in input order; `seen` counts all there were, by outcome."""

    rows: tuple[Shown, ...]
    seen: dict[str, int]


class Draw(Generic[Item]):
    """Keeps, of every outcome, the items with the smallest marks."""

    def __init__(self, *, failing: int = MOST_FAILING, others: int = MOST_OTHERS) -> None:
        """Show at most `failing` rows that are wrong or unanswered, and `others` of the rest."""
        self._most = {True: failing, False: others}
        self._heaps: dict[str, list[tuple[int, int, Item]]] = {}
        self._salts: dict[str, int] = {}
        self._worst: dict[str, int] = {}
        self._puts = 0
        self.seen: Counter[str] = Counter()

    def admits(self, outcome: str, place: tuple[int, int, str]) -> int | None:
        """Count a row at (index, repeat, model); return its mark if it is among the chosen so far, else None."""
        self.seen[outcome] += 1
        index, repeat, model = place
        mixed = (index * _GOLDEN + repeat * _REPEATS + self._salt(model)) & _MASK
        mixed = ((mixed ^ (mixed >> 30)) * _MIX) & _MASK
        mark = mixed ^ (mixed >> 29)
        return mark if mark < self._worst.get(outcome, 1 << 64) else None

    def admits_of(self, columns: Mapping[str, Sequence[Any]]) -> list[tuple[int, int]]:
        """Count rows by their columns; return (position, mark) of those that are among the chosen so far."""
        positions: dict[str, list[int]] = {}
        for position, outcome in enumerate(columns["outcome"]):
            positions.setdefault(outcome, []).append(position)
        marks = self._marks(columns)
        admitted: list[tuple[int, int]] = []
        for outcome, members in positions.items():
            self.seen[outcome] += len(members)
            worst = self._worst.get(outcome, 1 << 64)
            found = [(marks[position], position) for position in members if marks[position] < worst]
            best = heapq.nsmallest(self._most[outcome not in OTHERS], found)
            admitted += [(position, mark) for mark, position in best]
        return admitted

    def put(self, outcome: str, mark: int, item: Item) -> None:
        """Keep an admitted item, in place of the one with the largest mark where there is no room."""
        heap = self._heaps.setdefault(outcome, [])
        self._puts += 1
        entry = (-mark, self._puts, item)
        most = self._most[outcome not in OTHERS]
        if len(heap) < most:
            heapq.heappush(heap, entry)
        elif most:
            heapq.heapreplace(heap, entry)
        if len(heap) == most:
            self._worst[outcome] = -heap[0][0] if heap else 0

    def merge(self, other: Self) -> None:
        """Add the rows that another draw has seen, of which it kept as many."""
        self.seen.update(other.seen)
        for outcome, heap in other._heaps.items():
            for negative, _, item in heap:
                if -negative < self._worst.get(outcome, 1 << 64):
                    self.put(outcome, -negative, item)

    def chosen(self) -> list[Item]:
        """Return what is shown: of every outcome its fair share of the places, small marks first."""
        items: list[Item] = []
        for failing, most in self._most.items():
            kept = {name: sorted(heap, reverse=True) for name, heap in self._heaps.items() if (name not in OTHERS) is failing}
            shares = fair_shares({name: len(heap) for name, heap in kept.items()}, most)
            items += [entry[2] for name, heap in sorted(kept.items()) for entry in heap[: shares[name]]]
        return items

    def _salt(self, model: str) -> int:
        """Return what sets the rows of a model apart from those of another."""
        salt = self._salts.get(model)
        if salt is None:
            salt = self._salts[model] = zlib.crc32(model.encode("utf-8", "replace")) << 32
        return salt

    def _marks(self, columns: Mapping[str, Sequence[Any]]) -> list[int]:
        """Return the marks of rows by their columns, as `admits` makes them."""
        import numpy as np  # noqa: PLC0415 - loaded by those who need it

        index, repeat = (np.array(columns[name], dtype=np.int64).astype(np.uint64) for name in ("index", "repeat"))
        salts = np.array([self._salt(model) for model in columns["model"]], dtype=np.uint64)
        with np.errstate(over="ignore"):
            mixed = index * np.uint64(_GOLDEN) + repeat * np.uint64(_REPEATS) + salts
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(_MIX)
        marks: list[int] = (mixed ^ (mixed >> np.uint64(29))).tolist()
        return marks


class RowSample:
    """Draws from finished rows as they pass by, and keeps the questions of those drawn."""

    def __init__(self) -> None:
        """Begin with no rows."""
        self._draw: Draw[Shown] = Draw()

    def add(self, row: Row, sample: Sample) -> None:
        """Show the row to the draw."""
        mark = self._draw.admits(row.outcome, (row.index, row.repeat, row.model))
        if mark is not None:
            self._draw.put(row.outcome, mark, Shown(bounded(row), _short(sample.messages), _short(sample.system)))

    def add_many(self, columns: Mapping[str, Sequence[Any]], samples: Sequence[Sample], row_at: Callable[[int], Row]) -> None:
        """Show rows to the draw by their columns; `samples` are theirs, and `row_at(position)` makes the few it keeps."""
        for position, mark in self._draw.admits_of(columns):
            sample = samples[position]
            shown = Shown(bounded(row_at(position)), _short(sample.messages), _short(sample.system))
            self._draw.put(columns["outcome"][position], mark, shown)

    def merge(self, other: Self) -> None:
        """Add the rows that another sample has seen."""
        self._draw.merge(other._draw)

    def sampled(self) -> Sampled:
        """Return the rows drawn."""
        return in_order(self._draw.chosen(), self._draw.seen)


def in_order(shown: list[Shown], seen: Mapping[str, int]) -> Sampled:
    """Return the rows in the order a page has them: those that fail, then the others, each as they came."""
    models: dict[str, int] = {}
    for one in shown:
        models.setdefault(one.row.model, len(models))
    rows = sorted(shown, key=lambda s: (s.row.outcome in OTHERS, s.row.index, models[s.row.model], s.row.repeat))
    return Sampled(rows=tuple(rows), seen=dict(sorted(seen.items())))


def fair_shares(counts: Mapping[str, int], most: int) -> dict[str, int]:
    """Divide `most` places among groups: none gets more than it has, and what small ones leave goes to the others."""
    shares: dict[str, int] = {}
    left = most
    ascending = sorted(counts.items(), key=lambda item: (item[1], item[0]))
    for position, (name, count) in enumerate(ascending):
        shares[name] = min(count, left // (len(ascending) - position))
        left -= shares[name]
    return shares


def bounded(row: Row) -> Row:
    """Return the row with its long texts cut, so that a page's rows fit in memory whatever was answered."""
    long: dict[str, str | None] = {
        name: _cut(text)
        for name in ("text", "thinking", "completions", "expected", "metadata", "error_message")
        if (text := getattr(row, name)) is not None and len(text) > KEPT_CHARACTERS
    }
    if row.logprobs is not None:
        long["logprobs"] = None  # no page shows them
    if any(len(call.raw or "") > KEPT_CHARACTERS or len(call.input or "") > KEPT_CHARACTERS for call in row.tool_calls):
        return msgspec.structs.replace(row, **long, tool_calls=tuple(_bounded_call(call) for call in row.tool_calls))
    return msgspec.structs.replace(row, **long) if long else row


def _bounded_call(call: ToolUse) -> ToolUse:
    """Return a call whose arguments are cut; cut arguments are text and no longer values."""
    if max(len(call.raw or ""), len(call.input or "")) <= KEPT_CHARACTERS:
        return call
    return msgspec.structs.replace(
        call, input=None, raw=_cut(call.raw or call.input or ""), error=call.error or "too long to show"
    )


def _cut(text: str) -> str:
    return text if len(text) <= KEPT_CHARACTERS else text[:KEPT_CHARACTERS] + "…"


def _short(raw: bytes | None) -> bytes | None:
    """Return JSON text that is short enough to keep, else as much of it as text."""
    if raw is None or len(raw) <= 2 * KEPT_CHARACTERS:
        return raw
    head = raw[:KEPT_CHARACTERS].decode("utf-8", "ignore")
    return msgspec.json.encode(f"{head}… ({len(raw):,} bytes in all)")
