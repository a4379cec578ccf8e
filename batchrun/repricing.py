"""Finished runs → what they cost, and what they would have cost otherwise, side by side; no call is made.

Each run's `results.parquet` is read in batches and priced twice: with the unit prices it was priced with (the snapshot in
`run.json`), and with another book or under a what-if. Both sides go through one `CostTable` a run, so memory does not
grow with the rows. What the columns do not hold (service tiers, server tools, the usage of attempts thrown away) is taken
from the journal; where that is gone, such money is carried over as it was billed. An answer that came from the
response cache was free and stays so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from msgspec import Struct, structs

from batchrun.errors import UsageError
from batchrun.job import Job
from batchrun.pricing.book import PriceBook
from batchrun.pricing.lines import CostLine, CostSummary
from batchrun.pricing.reprice import TOKEN_COLUMNS, Repricer, WhatIf, usage_of, without_caching
from batchrun.pricing.table import CostTable, combined
from batchrun.records import Attempt, Cost, Row, ToolUse, Usage
from batchrun.storage.export import read_batches
from batchrun.storage.folder import RunFolder
from batchrun.storage.index import JournalIndex, landing

FREE: Final = Cost(usd=Decimal(0), wasted_usd=Decimal(0))
_PLAIN: Final = ("id", "index", "model", "repeat", "status", "correct", "cost_usd", "wasted_usd", "attempts", *TOKEN_COLUMNS)
_NESTED: Final = ("tool_calls", "tags", "started_at")
_BLANK: Final[dict[str, Any]] = dict.fromkeys(Row.__struct_fields__)


class PastRun(Struct, frozen=True, kw_only=True):
    """One finished run; `book` holds the unit prices that its rows were priced with."""

    folder: RunFolder
    job: Job
    book: PriceBook

    @property
    def batch(self) -> bool:
        """Whether its calls went through the Batches endpoint."""
        return self.job.request.mode == "batches"


class Repriced(Struct, frozen=True, kw_only=True):
    """What a run cost and what it would have cost; the lines are those of `cost.parquet`."""

    run: str
    billed: CostSummary
    repriced: CostSummary
    billed_lines: list[CostLine]
    repriced_lines: list[CostLine]
    carried_over: int  # rows of which something was carried over as it was billed


def open_run(path: Path) -> PastRun:
    """Return the run in a folder. Raises `UsageError` where it is none, or has no results yet."""
    folder = RunFolder.open(path)
    manifest = folder.read_manifest()
    prices = manifest.notes.get("prices")
    if prices is None or not folder.results.is_file():
        raise UsageError(f"{path}: has no results yet", hint=f"batchrun resume {path}")
    return PastRun(folder=folder, job=manifest.resolved_job(), book=PriceBook.from_snapshot(prices))


def reprice(run: PastRun, what_if: WhatIf, book: PriceBook | None = None) -> Repriced:
    """Price every row of `run` as it was and as it would be; `book` None keeps its own prices. Raises `StorageError`."""
    with run.folder.open_index(seal=False) as index:
        pricing = _Pricing(run, what_if, book or run.book, index)
        for row in rows_of(run.folder.results):
            pricing.add(row)
    return Repriced(
        run=str(run.folder.path),
        billed=pricing.billed.summary(),
        repriced=pricing.repriced.summary(),
        billed_lines=pricing.billed.lines(),
        repriced_lines=pricing.repriced.lines(),
        carried_over=pricing.carried_over,
    )


def together(parts: Sequence[Repriced]) -> Repriced:
    """Return several runs as one. Raises `UsageError` where their amounts are in different currencies."""
    try:
        billed, repriced = combined([part.billed for part in parts]), combined([part.repriced for part in parts])
    except ValueError as error:
        raise UsageError(str(error), hint="reprice the runs one by one") from None
    return Repriced(
        run=f"{len(parts)} runs",
        billed=billed,
        repriced=repriced,
        billed_lines=_merged(line for part in parts for line in part.billed_lines),
        repriced_lines=_merged(line for part in parts for line in part.repriced_lines),
        carried_over=sum(part.carried_over for part in parts),
    )


def rows_of(results: Path) -> Iterator[Row]:
    """Yield the rows of a `results.parquet`, with no more in them than a price depends on. Raises `StorageError`."""
    for batch in read_batches(results, (*_PLAIN, *_NESTED)):
        plain = zip(*(batch.column(name).to_pylist() for name in _PLAIN), strict=True)
        calls, tags, began = (_values(batch.column(name)) for name in _NESTED)
        for values, uses, tagged, at_us in zip(plain, calls, tags, began, strict=True):
            named = tuple(ToolUse(id=None, name=use["name"], input=None) for use in uses)
            fields = dict(zip(_PLAIN, values, strict=True)) | {"tool_calls": named, "tags": tuple(tagged), "started_at": at_us}
            yield Row(**_BLANK | fields)


def _values(column: Any) -> list[Any]:
    """Return a column's values; times as microseconds since the epoch."""
    values: list[Any] = (column.cast("int64") if str(column.type).startswith("timestamp") else column).to_pylist()
    return values


class _Pricing:
    """Prices the rows of one run twice."""

    def __init__(self, run: PastRun, what_if: WhatIf, book: PriceBook, index: JournalIndex) -> None:
        self.carried_over = 0
        self._run, self._what_if, self._index = run, what_if, index
        self._old = Repricer(run.book, original=run.book, was_batch=run.batch)
        self._new = Repricer(book, what_if, original=run.book, was_batch=run.batch)
        self.billed = CostTable(run.book, batch=run.batch)
        self.repriced = CostTable(book, batch=run.batch if what_if.batch is None else what_if.batch)

    def add(self, row: Row) -> None:
        """Add one row to both sides."""
        at_us, was = row.started_at, Cost(usd=row.cost_usd, wasted_usd=row.wasted_usd)
        usage = usage_of(row)
        tokens = self._run.book.cost(usage, row.model, at_us or 0, batch=self._run.batch).usd
        if row.cost_usd == 0 and tokens != 0:  # from the response cache
            old = new = FREE
        else:
            if row.cost_usd != tokens:
                usage = self._told(row) or (Usage() if row.cost_usd is None else usage)
            old = self._old.cost(usage, row.model, at_us, was)
            new = self._new.cost(usage, row.model, at_us, was)
        wasted, more = self._waste(row)
        self.billed.add(row, structs.replace(old, wasted_usd=row.wasted_usd), partly=more and row.wasted_usd is not None)
        self.repriced.add(self._changed(row), structs.replace(new, wasted_usd=wasted), partly=more and wasted is not None)

    def _changed(self, row: Row) -> Row:
        """Return the row as it would have been: another model, no cached tokens."""
        row = structs.replace(row, model=self._what_if.model or row.model)
        if self._what_if.caching:
            return row
        plain = without_caching(usage_of(row))
        return structs.replace(row, **{name: getattr(plain, name) for name in TOKEN_COLUMNS})

    def _waste(self, row: Row) -> tuple[Decimal | None, bool]:
        """Return what the attempts thrown away would have cost, None where nothing of it is known, and whether it was more."""
        if row.wasted_usd == 0:
            return row.wasted_usd, False
        attempts, final = self._attempts(row)
        thrown = [attempt for attempt in attempts if attempt is not final or attempt.reply is None]
        if not thrown:
            self.carried_over += 1
            return row.wasted_usd, False
        wasted, more = Decimal(0), False
        for attempt in thrown:
            cost = self._new.cost(attempt.usage or Usage(), attempt.model, attempt.started_at_us).usd
            if attempt.billed_unseen or (attempt.usage is not None and cost is None):
                more = True
            wasted += cost or 0
        return (None if more and not wasted else wasted), more

    def _told(self, row: Row) -> Usage | None:
        """Return the usage as the endpoint told it, where the journal still has it."""
        _, final = self._attempts(row)
        if final is not None and final.usage is not None:
            return final.usage
        self.carried_over += 1
        return None

    def _attempts(self, row: Row) -> tuple[list[Attempt], Attempt | None]:
        """Return the row's attempts and the one it landed with."""
        request = self._run.job.request
        place = row.index * len(request.model) + request.model.index(row.model)
        attempts = self._index.attempts(place * request.repeat + row.repeat)
        return attempts, landing(attempts)


def _merged(lines: Iterator[CostLine]) -> list[CostLine]:
    """Add up lines of the same place and kind, in the order of `cost.parquet`."""
    found: dict[tuple[str, str, str, str], CostLine] = {}
    for line in lines:
        key = (line.dimension, line.value, line.model, line.kind)
        old = found.get(key)
        found[key] = line if old is None else _added(old, line)
    return sorted(found.values(), key=lambda line: (line.dimension, line.value, line.model))


def _added(one: CostLine, other: CostLine) -> CostLine:
    """Return two lines of the same place and kind as one."""
    return structs.replace(
        one,
        rows=one.rows + other.rows,
        tokens=None if one.tokens is None or other.tokens is None else one.tokens + other.tokens,
        cost=None if one.cost is None or other.cost is None else one.cost + other.cost,
        unpriced_rows=one.unpriced_rows + other.unpriced_rows,
    )
