"""Batches of finished rows → all that is counted of them, in constant memory; ledgers of the parts of a run add up.

A ledger of a part of the rows keeps apart whatever the part has, however many tags or kinds of error that are; the ledger
of the run, into which parts are merged in input order, keeps those that came first. So the figures are the same
wherever the rows were cut, and whoever counted them. This module refuses to know files.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import msgspec

from batchrun.finish.batch import Batch
from batchrun.job import Job
from batchrun.pricing.book import PriceBook
from batchrun.pricing.table import CostTable
from batchrun.report.page_rows import RowSample
from batchrun.report.summary import build_summary
from batchrun.report.tally import MOST_ERRORS, MOST_TAGS, ModelTally
from batchrun.scoring.metrics import Metrics

if TYPE_CHECKING:
    from batchrun.report.known import KnownTally


class Ledger:
    """The counts of a run, or with `part` of some of its rows."""

    def __init__(self, job: Job, book: PriceBook, *, part: bool = False) -> None:
        """Begin with no rows."""
        self._job = job
        tags, errors, places = (sys.maxsize,) * 3 if part else (MOST_TAGS, MOST_ERRORS, None)
        models = job.request.model
        self.tallies = {model: ModelTally(model, most_tags=tags, most_errors=errors) for model in models}
        self.metrics = {model: Metrics(repeats=job.request.repeat) for model in models}
        self.costs = CostTable(book, batch=job.request.mode == "batches", most=places)
        self.page_rows = RowSample()
        self.known = _known(job)

    def add(self, batch: Batch) -> None:
        """Count a batch of rows."""
        if self.known is not None:
            self.known.add_many(batch.read, batch.columns)
        self.costs.add_many(batch.columns, batch.amounts, batch.columns["wasted_usd"], partly=batch.partly)
        self.page_rows.add_many(batch.columns, batch.samples, batch.row)
        for model in self.tallies:
            own = batch.of(model)
            if len(own):
                self.tallies[model].add_many(own.columns)
                self.metrics[model].add_many(
                    own.scores, rows=own.columns["index"], tags=own.columns["tags"], categories=own.categories
                )

    def merge(self, other: Self) -> None:
        """Add what the ledger of a part counted, whose rows come after those counted here."""
        for model, tally in self.tallies.items():
            tally.merge(other.tallies[model])
            self.metrics[model].merge(other.metrics[model])
        self.costs.merge(other.costs)
        self.page_rows.merge(other.page_rows)
        if self.known is not None and other.known is not None:
            self.known.merge(other.known)

    def summary(self, about: Mapping[str, Any], expected_rows: int) -> dict[str, Any]:
        """Return the run's figures as plain JSON values."""
        confidence = self._job.scoring.confidence
        models = [
            {**self.tallies[model].summary(confidence), "metrics": self.metrics[model].summary()}
            for model in self._job.request.model
        ]
        built = build_summary(about, models, self.costs.summary(), expected_rows=expected_rows)
        summary: dict[str, Any] = msgspec.to_builtins(built, str_keys=True)
        if self.known is not None:
            self.known.apply(summary)
        return summary


def _known(job: Job) -> KnownTally | None:
    """Return what gathers how much a run that may stop early knew; None for one that may not."""
    rule = job.scoring.stop_when
    if rule is None:
        return None
    from batchrun.engine.other_run import read_verdicts  # noqa: PLC0415 - only for `scoring.stop_when`
    from batchrun.report.known import KnownTally  # noqa: PLC0415

    return KnownTally(job, rule, read_verdicts(rule.decided_against, job.request.model) if rule.decided_against else {})
