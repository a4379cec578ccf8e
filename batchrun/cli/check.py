"""`batchrun check`: everything that is wrong with a job and its dataset, before any money is spent."""

from __future__ import annotations

import os
import sys
from collections import Counter
from typing import TYPE_CHECKING

import click

from batchrun.cli import colour
from batchrun.cli.options import JobFlags, job_flags, print_json
from batchrun.errors import DatasetError, JobError, UsageError
from batchrun.visible import visible

if TYPE_CHECKING:
    from batchrun.errors import Problem
    from batchrun.job import Job
    from batchrun.sources.check import CheckReport


@click.command("check", epilog="Example: batchrun check jobs/weather.toml")
@click.argument("job", metavar="JOB.toml|DATASET")
@job_flags(simulate=False)
def command(job: str, flags: JobFlags) -> None:
    """Validate JOB as a run of it would, and read its whole dataset once: schemas, ids, prompts, tools, expected answers.

    Sends nothing and needs no credential.

    Errors end with exit code 2, unless they are of rows that the job skips; warnings do not.
    """
    from batchrun.fitting import misfits
    from batchrun.prepare import Options
    from batchrun.schedule.checks import checks

    loaded = flags.load(job)
    options = Options(job_file=job if job.endswith(".toml") else None)
    report = _report(loaded, misfits(loaded, options, os.environ, checks(loaded, options.root)))
    if flags.json:
        print_json(_plain(report))
    elif not flags.quiet:
        _show(loaded, report)
    if report.ok:
        return
    if loaded.on_bad_row != "skip" or not report.some_ok:
        raise _failed(report)
    if not flags.quiet:
        skipped = len(report.bad_rows)
        click.echo(f'{skipped:,} bad rows are skipped (on_bad_row = "skip"): in the results they are errored', err=True)


def _report(job: Job, found: list[Problem]) -> CheckReport:
    """Return what is wrong with the dataset, and before it what was `found` wrong with the job.

    Raises `JobError` with both where something is, and the dataset as a whole cannot be read.
    """
    from msgspec.structs import replace

    from batchrun.fitting import problems_of
    from batchrun.prepare import open_job_dataset
    from batchrun.sources.check import check_dataset

    try:
        report = check_dataset(
            open_job_dataset(job), job.request, endpoint=job.endpoint, own_scorer=job.scoring.scorer is not None
        )
    except UsageError as error:
        if found:
            raise JobError([*found, *problems_of(error)]) from None
        raise
    if not found:
        return report
    counts = Counter(report.counts) + Counter(problem.code for problem in found)
    return replace(report, problems=(*found, *report.problems), errors=report.errors + len(found), counts=counts)


def _show(job: Job, report: CheckReport) -> None:
    """Print each problem, then the counts."""
    for problem in report.problems:
        shade = "red" if problem.severity == "error" else "yellow"
        click.echo(f"{click.style(problem.severity, fg=shade)}: {visible(str(problem))}", color=colour(sys.stdout))
        if problem.hint:
            click.echo(f"  hint: {visible(problem.hint)}")
    left = report.errors + report.warnings - len(report.problems)
    if left > 0:
        by_code = ", ".join(f"{code} {number:,}" for code, number in sorted(report.counts.items()))
        click.echo(f"… and {left:,} more; in all: {by_code}")
    for name, number in sorted(report.losses.items()):
        click.echo(f"{click.style('lost in conversion', fg='yellow')}: {visible(name)}, {number:,}×", color=colour(sys.stdout))
    calls = report.rows * len(job.request.model) * job.request.repeat
    click.echo(
        f"{report.rows:,} rows ({report.expected_rows:,} with an expected answer, {report.distinct_tools:,} distinct tool sets), "
        f"{calls:,} calls, about {report.input_tokens:,} input tokens a pass; "
        f"{report.errors:,} errors, {report.warnings:,} warnings"
    )


def _failed(report: CheckReport) -> DatasetError:
    """Return the error that ends the command: the problems themselves have been printed."""
    from batchrun.errors import Problem

    return DatasetError([Problem(message=f"{report.errors:,} errors: nothing can be sent")])


def _plain(report: CheckReport) -> dict[str, object]:
    """Return the report for machines."""
    return {
        "ok": report.ok,
        "rows": report.rows,
        "errors": report.errors,
        "warnings": report.warnings,
        "counts": dict(report.counts),
        "losses": dict(report.losses),
        "input_tokens": report.input_tokens,
        "problems": [
            {
                "severity": problem.severity,
                "code": problem.code,
                "file": problem.file,
                "row": problem.row,
                "line": problem.line,
                "field": problem.field,
                "message": problem.message,
                "hint": problem.hint,
            }
            for problem in report.problems
        ],
    }
