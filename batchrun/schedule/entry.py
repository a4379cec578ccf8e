"""Job files → what the scheduler runs: a timetable, a command line, and a share of the endpoint's rate limits each.

Jobs with one `endpoint.base_url` share one set of rate limits: the smallest `rpm`, `itpm` and `otpm` that any of them
states. At most `per_endpoint` of them run at once (one, unless told otherwise) and each is given that part of the set, fixed
for its whole run: what is sent together never exceeds it, at the price of room that is left when fewer run. A simulated job
has an endpoint of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from batchrun.errors import JobError, Problem
from batchrun.job import Job
from batchrun.schedule.planner import Timetable
from batchrun.schedule.times import Times
from batchrun.transport.address import parse_base_url

RATES: Final = ("rpm", "itpm", "otpm")


class Entry(Struct, frozen=True, kw_only=True):
    """One job of the scheduler."""

    file: str
    job: Job
    table: Timetable
    overrides: tuple[str, ...] = ()  # of `--set`: shares of the limits, the deadline, and the user's own
    simulate: bool = False

    def command(self, resume: Path | None = None) -> list[str]:
        """Return the command line of a run, or of going on with the one in the folder `resume`."""
        return [sys.executable, "-m", "batchrun", *self.arguments(resume)]

    def arguments(self, resume: Path | None = None) -> list[str]:
        """Return what follows the program's name on that command line."""
        head = ["run", self.file] if resume is None else ["resume", str(resume)]
        head += ["--simulate"] if self.simulate and resume is None else []
        return [*head, "--quiet", *(part for override in self.overrides for part in ("--set", override))]


def entries(
    jobs: Sequence[tuple[str, Job]], *, per_endpoint: int = 1, simulate: bool = False, overrides: Sequence[str] = ()
) -> list[Entry]:
    """Return the entries of (job file, job) pairs. Raises `JobError` for what cannot be scheduled together."""
    seen: dict[str, str] = {}
    for file, job in jobs:
        if job.name in seen:
            hint = "their runs would go to one folder: give one of them another name"
            raise JobError(
                [Problem(file=file, field="name", message=f"{job.name} is also the name of {seen[job.name]}", hint=hint)]
            )
        seen[job.name] = file
        if job.out is not None:
            hint = "leave `out` away: runs go to reports/NAME, each into a folder of its own"
            message = "runs of a schedule cannot share one folder: each would find the first one finished and call nothing"
            raise JobError([Problem(file=file, field="out", message=message, hint=hint)])
    return [
        Entry(
            file=file,
            job=job,
            table=Timetable(
                name=job.name,
                times=Times(job.schedule, file=file),
                catch_up=job.schedule.catch_up,
                jitter_s=job.schedule.jitter_s,
                endpoint=endpoint_of(job, simulate=simulate),
            ),
            overrides=(*overrides, *_shares(job, jobs, per_endpoint, simulate=simulate), *deadline(job)),
            simulate=simulate,
        )
        for file, job in jobs
    ]


def endpoint_of(job: Job, *, simulate: bool) -> str:
    """Return what jobs on one endpoint have in common: where the calls go. Raises `JobError` for an address that is none."""
    if simulate:
        return f"simulated {job.name}"
    address = parse_base_url(job.endpoint.base_url)
    return f"{address.origin}{address.prefix}"


def _shares(job: Job, jobs: Sequence[tuple[str, Job]], per_endpoint: int, *, simulate: bool) -> list[str]:
    """Return the job's part of its endpoint's rate limits, as overrides."""
    endpoint = endpoint_of(job, simulate=simulate)
    together = [other for _, other in jobs if endpoint_of(other, simulate=simulate) == endpoint]
    places = min(per_endpoint, len(together))
    shares = []
    for rate in RATES:
        stated = [value for other in together if (value := getattr(other.limits, rate)) is not None]
        if stated and (share := min(stated) / places) != getattr(job.limits, rate):
            shares.append(f"limits.{rate}={share:.15g}")
    return shares


def deadline(job: Job) -> list[str]:
    """Return the schedule's deadline as an override of the run's, where it is the sooner one."""
    bound = job.schedule.deadline_s
    if bound is None or (job.limits.deadline_s is not None and job.limits.deadline_s <= bound):
        return []
    return [f"limits.deadline_s={bound:.15g}"]
