"""`batchrun run`: a job, or a dataset against a model, from the first call to the report."""

from __future__ import annotations

import click

from batchrun.cli.options import JobFlags, job_flags


@click.command(
    "run",
    epilog="Examples: batchrun run jobs/weather.toml --simulate   "
    "batchrun run data.jsonl --model claude-sonnet-4-20250514 --base-url https://gateway.example",
)
@click.argument("job", metavar="JOB.toml|DATASET")
@job_flags()
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Processes that share the calls.")
@click.option("--cache", is_flag=True, help="Take answers to equal requests from earlier runs.")
@click.option("--allow-unpriced", is_flag=True, help="Go on though a model has no known price.")
@click.option("--force", is_flag=True, help="With --out at a stopped run: go on though rows were added or the request changed.")
def command(job: str, flags: JobFlags, workers: int | None, *, cache: bool, allow_unpriced: bool, force: bool) -> None:
    """Run JOB.toml, or DATASET with --model: call, score, price, report.

    A run that stopped goes on where it was when it is started again with the same --out (or `batchrun resume RUN`).
    """
    from batchrun.cli.execute import execute

    extra: list[tuple[str, object]] = []
    if workers is not None:
        extra.append(("engine.workers", workers))
    if cache:
        extra.append(("engine.cache", True))
    if allow_unpriced:
        extra.append(("limits.allow_unpriced", True))
    execute(flags.load(job, extra), flags, job_file=job if job.endswith(".toml") else None, force=force)
