"""A job's `[gate]` and `[schedule]` → what is checked of them before a run: the reference is there, the times are times."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from batchrun.job import Job

if TYPE_CHECKING:
    from batchrun.fitting import Check


def checks(job: Job, root: Path) -> tuple[Check, ...]:
    """Return what is to be checked of `job`, whose runs go to `root`; each raises `UsageError`. A job without has none."""
    found: list[Check] = []
    if job.gate.no_regression is not None:
        from batchrun.schedule.history import Home  # noqa: PLC0415 - only for a gate against another run
        from batchrun.schedule.verdicts import reference  # noqa: PLC0415

        found.append(("gate.no_regression.against", partial(reference, job.gate, Home.of(job, root))))
    if job.schedule.cron is not None or job.schedule.every_s is not None:
        from batchrun.schedule.times import Times  # noqa: PLC0415 - only for a job that has times

        found.append(("schedule", partial(Times, job.schedule)))
    return tuple(found)
