"""`batchrun resume`: go on with a run that stopped, whatever stopped it."""

from __future__ import annotations

import click

from batchrun.cli.options import JobFlags, job_flags


@click.command("resume", epilog="Example: batchrun resume reports/weather/20260101T060000Z-1a2b3c --set limits.max_cost_usd=20")
@click.argument("run", metavar="RUN")
@job_flags(simulate=False)
@click.option("--retry-errors", is_flag=True, help="Also call again the rows that ended in an error.")
@click.option("--resubmit", is_flag=True, help="Make calls anew whose batch cannot be found: they may be paid for twice.")
@click.option("--force", is_flag=True, help="Go on though rows were added to the dataset or the request changed.")
def command(run: str, flags: JobFlags, *, retry_errors: bool, resubmit: bool, force: bool) -> None:
    """Go on with RUN, a run's folder or its address in a bucket: only the calls that are missing are made."""
    from batchrun.cli.execute import resume

    resume(run, flags, retry_errors=retry_errors, force=force, resubmit=resubmit)
