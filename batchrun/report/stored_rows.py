"""`results.parquet` → the rows a page shows: a draw over all of them, or one page of those that match.

Polars scans the file and never loads it: filters and the sorting key are read over narrow columns, then the few rows
shown are fetched whole. Memory is that of one batch, and while somebody pages through the rows sixteen bytes for each one
that matches. This module refuses to know HTML and HTTP.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import polars as pl

from batchrun.errors import StorageError, UsageError
from batchrun.records import Row, ToolUse
from batchrun.report.page_rows import OTHERS, Draw

Place = tuple[int, str, int]
"""(index, model, repeat): one line of the file."""

SORTS: Final = {
    "index": "input order",
    "-latency_ms": "slowest",
    "-cost_usd": "dearest",
    "-output_tokens": "longest",
    "-attempts": "most attempts",
    "score": "lowest score",
}
SEARCHED: Final = ("id", "explanation", "text", "expected", "error_message", "metadata")
FAILING: Final = "failing"
_KEPT: Final = 3  # queries whose matches are remembered
_PLACE: Final = ("index", "model", "repeat")


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows, in which order; empty is "any". `outcome` is a kind of outcome or `failing`."""

    outcome: str = ""
    model: str = ""
    tag: str = ""
    text: str = ""
    sort: str = "index"


class StoredRows:
    """The rows of one `results.parquet`."""

    def __init__(self, path: Path) -> None:
        """Open the file at `path`. Raises `UsageError` where there is none, `StorageError` where it cannot be read."""
        if not path.is_file():
            raise UsageError(f"{path}: there are no results yet", hint="batchrun resume finishes a run that stopped")
        self._path = path
        self._matches: OrderedDict[Query, pl.DataFrame] = OrderedDict()
        self.total = int(self._collect(self._scan().select(pl.len())).item())

    def drawn(self) -> tuple[list[Place], dict[str, int]]:
        """Return the places of the rows that a page of the whole run shows, and how many rows have which outcome."""
        draw: Draw[Place] = Draw()
        narrow = self._scan().select("outcome", *_PLACE)
        for start in range(0, self.total, 1 << 17):
            for outcome, index, model, repeat in self._collect(narrow.slice(start, 1 << 17)).iter_rows():
                mark = draw.admits(outcome, (index, repeat, model))
                if mark is not None:
                    draw.put(outcome, mark, (index, model, repeat))
        return draw.chosen(), dict(draw.seen)

    def page(self, query: Query, start: int, count: int) -> tuple[list[Row], int]:
        """Return `count` matching rows from number `start` on, and how many match in all."""
        matches = self._matching(query)
        places: list[Place] = matches.slice(start, count).rows()
        found = {(row.index, row.model, row.repeat): row for row in self.rows(places)}
        return [found[place] for place in places], matches.height

    def rows(self, places: Iterable[Place]) -> list[Row]:
        """Return the rows at these places, in the file's order."""
        wanted = set(places)
        if not wanted:
            return []
        indexes = sorted({index for index, _, _ in wanted})
        near = self._scan().filter(pl.col("index").is_between(indexes[0], indexes[-1]) & pl.col("index").is_in(indexes))
        return [
            to_row(values)
            for values in self._collect(near).iter_rows(named=True)
            if (values["index"], values["model"], values["repeat"]) in wanted
        ]

    def named(self, ids: Iterable[str]) -> list[Row]:
        """Return the rows with these ids, in the file's order."""
        return [
            to_row(values)
            for values in self._collect(self._scan().filter(pl.col("id").is_in(sorted(set(ids))))).iter_rows(named=True)
        ]

    def every(self) -> Iterator[Row]:
        """Yield all rows in the file's order."""
        for start in range(0, self.total, 1 << 13):
            yield from map(to_row, self._collect(self._scan().slice(start, 1 << 13)).iter_rows(named=True))

    def _matching(self, query: Query) -> pl.DataFrame:
        """Return the places of all matching rows in the order asked for; the last few answers are remembered."""
        known = self._matches.pop(query, None)
        if known is None:
            column = query.sort.removeprefix("-") if query.sort in SORTS else "index"
            lazy = self._scan()
            for condition in _conditions(query):
                lazy = lazy.filter(condition)
            narrow = lazy.select(*_PLACE) if column == "index" else lazy.select(*_PLACE, pl.col(column).alias("key"))
            if column != "index":
                narrow = narrow.sort("key", descending=query.sort.startswith("-"), nulls_last=True, maintain_order=True)
            known = self._collect(narrow.select(*_PLACE).with_columns(pl.col("model").cast(pl.Categorical)))
        self._matches[query] = known
        while len(self._matches) > _KEPT:
            self._matches.popitem(last=False)
        return known

    def _scan(self) -> pl.LazyFrame:
        return pl.scan_parquet(self._path)

    def _collect(self, lazy: pl.LazyFrame) -> pl.DataFrame:
        """Run one query. Raises `StorageError`."""
        try:
            return lazy.collect(engine="streaming")
        except (OSError, pl.exceptions.PolarsError) as error:
            raise StorageError(f"{self._path}: cannot be read: {error}") from None


def _conditions(query: Query) -> list[pl.Expr]:
    """Return what a row must be to match."""
    conditions: list[pl.Expr] = []
    if query.outcome == FAILING:
        conditions.append(~pl.col("outcome").is_in(sorted(OTHERS)))
    elif query.outcome:
        conditions.append(pl.col("outcome") == query.outcome)
    if query.model:
        conditions.append(pl.col("model") == query.model)
    if query.tag:
        conditions.append(pl.col("tags").list.contains(query.tag))
    if query.text:
        raw = pl.col("tool_calls").list.eval(pl.element().struct.field("name") + " " + pl.element().struct.field("raw"))
        texts = [pl.col(name).fill_null("") for name in SEARCHED] + [raw.list.join(" ").fill_null("")]
        needle = pl.lit(query.text).str.to_lowercase()  # by the same rules as the texts
        conditions.append(pl.any_horizontal([text.str.to_lowercase().str.contains(needle, literal=True) for text in texts]))
    return conditions


def to_row(values: Mapping[str, Any]) -> Row:
    """Return a line of `results.parquet`, as polars names it, as the `Row` it was written from."""
    started = values["started_at"]
    return Row(
        **{
            **values,
            "tool_calls": tuple(ToolUse(**call) for call in values["tool_calls"]),
            "tags": tuple(values["tags"]),
            "started_at": None if started is None else round(started.timestamp() * 1_000_000),
        }
    )
