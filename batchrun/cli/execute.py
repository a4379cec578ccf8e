"""Run or resume a job with its progress, its closing table and its exit code: what `run` and `resume` share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from batchrun.cli import colour
from batchrun.cli.options import JobFlags, print_json
from batchrun.cli.process import load_numpy
from batchrun.cli.progress import ProgressView
from batchrun.cli.table import show_summary
from batchrun.errors import BatchrunError
from batchrun.visible import visible

if TYPE_CHECKING:
    from batchrun.job import Job
    from batchrun.prepare import Options
    from batchrun.schedule.supervise import Supervisor


def execute(job: Job, flags: JobFlags, *, job_file: str | None, force: bool) -> None:
    """Run `job` and end with the exit code of how it ended."""
    from batchrun.prepare import Options

    _run(job, flags, Options(simulate=flags.simulate, force=force, job_file=job_file))


def resume(run: str, flags: JobFlags, *, retry_errors: bool, force: bool, resubmit: bool) -> None:
    """Go on with the run at a path or address, its own job under the flags' overrides."""
    from msgspec.structs import replace

    from batchrun.prepare import resumable

    job, options = resumable(run, overrides=flags.overrides(), force=force, retry_errors=retry_errors)
    _run(job, flags, replace(options, resubmit=resubmit))


def _run(job: Job, flags: JobFlags, options: Options) -> None:
    """Run under supervision: the job's lock, its gates, its history, and whoever wants to be told."""
    load_numpy(custom=job.scoring.scorer is not None)
    from batchrun.schedule.supervise import Supervisor

    supervisor = Supervisor(job, options)
    with _said(job, supervisor) as quiet:
        with ProgressView(job.name, quiet=flags.quiet or quiet) as view:
            ended = supervisor.run(show=view.show)
        result = ended.result
        if flags.json:
            print_json(result.summary)
        if not (flags.quiet or quiet):
            show_summary(result.summary)
        if ended.error is not None:
            if ended.error.hint:
                ended.error.hint = ended.error.hint.replace("RUN", str(result.summary["folder"]))
            raise ended.error


@contextmanager
def _said(job: Job, supervisor: Supervisor) -> Iterator[bool]:
    """Say on stderr what went wrong beside the run: as text, or as events where stderr is for events alone (yields True)."""
    from batchrun.observe.log import events_on_stderr

    log = events_on_stderr(job, os.environ)
    error: BatchrunError | None = None
    try:
        yield log is not None
    except BatchrunError as raised:
        error = raised
        if log is None:
            raise
    finally:
        for warning in supervisor.warnings:
            if log is None:
                click.echo(click.style("warning: ", fg="yellow") + str(visible(warning)), err=True, color=colour(sys.stderr))
            else:
                log.event("warning", "warning", reason=warning)
    if log is not None:
        code, hint = (0, None) if error is None else (error.exit_code, error.hint)
        log.event("exit", "info" if error is None else "error", exit_code=code, reason=error and str(error), hint=hint)
        click.get_current_context().exit(code)
