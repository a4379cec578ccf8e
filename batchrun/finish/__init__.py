"""The half that is free: a journal and its dataset in, scored and priced rows and every report out.

It reads the dataset and the journal side by side in ordinal order, a batch of rows at a time, so that a million
rows need the memory of one batch; it can be repeated at will (another profile, other prices) and gives the same
bytes for the same input. It calls no endpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from batchrun.finish.batch import Finisher
from batchrun.finish.ledger import Ledger
from batchrun.job import Job
from batchrun.pricing.book import PriceBook
from batchrun.pricing.table import to_arrow
from batchrun.records import Sample
from batchrun.report.junit import JUnitWriter
from batchrun.report.page import render_run
from batchrun.scoring import open_scorer
from batchrun.storage.atomic import replacing, write_bytes, write_text
from batchrun.storage.folder import RunFolder
from batchrun.storage.results import ResultsWriter
from batchrun.storage.tables import write_table

Judge = Callable[[Mapping[str, Any], Path], list[dict[str, Any]]]
"""The summary of a run and the folder its results are in → the verdicts of its gates, as plain values."""


class About(Struct, frozen=True, kw_only=True):
    """What a run knows of itself: `facts` go into its summary as they are; `judge` adds the gates' verdicts to it."""

    facts: Mapping[str, Any]
    expected_rows: int
    judge: Judge | None = None


def finish(job: Job, folder: RunFolder, samples: Iterable[Sample], book: PriceBook, run: About) -> dict[str, Any]:
    """Write every file of a run from its journal and return its summary.

    `run.judge` is asked once the results are in place. Each file appears whole or not at all. Raises `StorageError`.
    """
    about = run.facts
    provenance = {key: str(about[key]) for key in ("job", "run_id", "dataset_digest", "batchrun_version") if key in about}
    ledger = Ledger(job, book)
    with ExitStack() as stack:
        index = stack.enter_context(folder.open_index())
        results = stack.enter_context(ResultsWriter(folder.results, provenance))
        stream = stack.enter_context(stack.enter_context(replacing(folder.junit)).open("wb"))
        junit = JUnitWriter(stream, job.name)
        finisher = Finisher(job, index, open_scorer(job.scoring), book)
        for batch in finisher.batches(samples, beyond=ledger.known is not None):
            ledger.add(batch)
            if len(batch):
                results.write_columns(batch.columns)
                junit.add_many(batch.columns)
        junit.close()
    write_table(folder.cost, to_arrow(ledger.costs.lines()), provenance)
    summary = ledger.summary(about, run.expected_rows)
    if run.judge is not None:
        summary["gates"] = run.judge(summary, folder.path)
    write_bytes(folder.summary, msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n")
    write_text(folder.report, render_run(summary, ledger.page_rows.sampled(), draw=False))
    return summary
