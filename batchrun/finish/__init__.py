"""The half that is free: a journal and its dataset in, scored and priced rows and every report out.

It reads the dataset and the journal side by side in ordinal order, a batch of rows at a time, so that a million
rows need the memory of one batch; it can be repeated at will (another profile, other prices) and gives the same
bytes for the same input, whether this process does it or others share it. It calls no endpoint.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from batchrun.finish.batch import Finisher
from batchrun.finish.ledger import Ledger
from batchrun.finish.part import Files, Order, Part, RangeFinisher, Samples, Spread, cut
from batchrun.job import Job, Select
from batchrun.pricing.book import PriceBook
from batchrun.report.junit import JUnitWriter
from batchrun.report.page import render_run
from batchrun.scoring import open_scorer
from batchrun.sources.bad_rows import Blocks
from batchrun.storage.atomic import replacing, write_bytes, write_text
from batchrun.storage.folder import RunFolder
from batchrun.storage.results import ResultsWriter
from batchrun.storage.tables import cost_table, write_table
from batchrun.storage.trouble import translated

SCRATCH: Final = ".finishing"

Judge = Callable[[Mapping[str, Any], Path], list[dict[str, Any]]]
"""The summary of a run and the folder its results are in → the verdicts of its gates, as plain values."""


class About(Struct, frozen=True, kw_only=True):
    """What a run knows of itself: `facts` go into its summary as they are; `judge` adds the gates' verdicts to it."""

    facts: Mapping[str, Any]
    expected_rows: int
    judge: Judge | None = None


class Others(Struct, frozen=True, kw_only=True):
    """Who finishes ranges of rows for this process: `spread` over so many workers; they are told the rest."""

    spread: Spread
    workers: int
    least: int  # calls that have landed; a run of fewer is not worth their start
    price_text: str | None
    bad_rows: Blocks


def finish(
    job: Job, folder: RunFolder, samples: Samples, book: PriceBook, run: About, others: Others | None = None
) -> dict[str, Any]:
    """Write every file of a run from its journal and return its summary.

    `run.judge` is asked once the results are in place. Each file appears whole or not at all. With `others` ranges of the
    rows are finished elsewhere; one that is not comes back to this process. Raises `StorageError`.
    """
    about = run.facts
    provenance = {key: str(about[key]) for key in ("job", "run_id", "dataset_digest", "batchrun_version") if key in about}
    ledger = Ledger(job, book)
    with ExitStack() as stack:
        index = stack.enter_context(folder.open_index())
        results = stack.enter_context(ResultsWriter(folder.results, provenance))
        stream = stack.enter_context(stack.enter_context(replacing(folder.junit)).open("wb"))
        junit = JUnitWriter(stream, job.name)
        if others is None or index.count < others.least:
            finisher = Finisher(job, index, open_scorer(job.scoring), book)
            for batch in finisher.batches(samples(0), beyond=ledger.known is not None):
                ledger.add(batch)
                results.write_columns(batch.columns)
                junit.add_many(batch.columns)
        else:
            scratch = stack.enter_context(_scratch(folder))
            for files, part in _parts(RangeFinisher(job, index, samples, book, scratch), _order(job, scratch, others), others):
                _take(part, ledger, book)
                for columns in files.read():
                    results.write_batch(columns)
                junit.copy(files.cases)
                files.remove()
        junit.close()
    write_table(folder.cost, cost_table(ledger.costs.lines()), provenance)
    summary = ledger.summary(about, run.expected_rows)
    if run.judge is not None:
        summary["gates"] = run.judge(summary, folder.path)
    write_bytes(folder.summary, msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n")
    write_text(folder.report, render_run(summary, ledger.page_rows.sampled(), draw=False))
    return summary


def _parts(here: RangeFinisher, order: Order, others: Others) -> Iterator[tuple[Files, Part]]:
    """Yield the parts of a run in input order; what others give back is finished here."""
    ranges = cut(order.job, here.last, workers=others.workers, direct=order.job.select == Select())
    with closing(others.spread(order, ranges)) as parts:
        for rows, part in zip(ranges, parts, strict=True):
            yield Files(Path(order.scratch), rows), here.finish(rows) if part is None else part


def _take(part: Part, ledger: Ledger, book: PriceBook) -> None:
    """Count a part; the book of the run has then been asked for what the part's was."""
    ledger.merge(part.ledger)
    for model in part.models:
        book.card(model)


def _order(job: Job, scratch: Path, others: Others) -> Order:
    """Return what others must know."""
    return Order(
        job=job,
        folder=str(scratch.parent.absolute()),
        scratch=str(scratch.absolute()),
        price_text=others.price_text,
        bad_rows=others.bad_rows,
    )


@contextmanager
def _scratch(folder: RunFolder) -> Iterator[Path]:
    """Hand out an empty folder for the parts of a run, which is gone afterwards."""
    path = folder.path / SCRATCH
    shutil.rmtree(path, ignore_errors=True)
    with translated(path):
        path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
