"""`batchrun cancel`: stop the batches that a run has submitted, and keep what they have brought by then."""

from __future__ import annotations

import click

from batchrun.cli.options import JobFlags, job_flags


@click.command("cancel", epilog="Example: batchrun cancel reports/weather/20260101T060000Z-1a2b3c")
@click.argument("run", metavar="RUN")
@job_flags(simulate=False)
def command(run: str, flags: JobFlags) -> None:
    """Stop the batches of RUN, a run's folder or its address in a bucket, wait until they have ended and land what is there.

    A run that is still waiting for them in another process lands it itself.
    """
    from msgspec.structs import replace

    from batchrun.cli.options import print_json
    from batchrun.cli.progress import ProgressView
    from batchrun.cli.table import show_summary
    from batchrun.errors import RunLocked
    from batchrun.prepare import resumable
    from batchrun.run import cancel_batches
    from batchrun.run import run as run_job

    job, options = resumable(run, overrides=flags.overrides())
    if options.simulate:
        click.echo("a simulated endpoint ends with its run: there is no batch to stop", err=True)
        return
    try:
        with ProgressView(job.name, quiet=flags.quiet) as view:
            result = run_job(job, replace(options, cancel=True), show=view.show)
    except RunLocked as locked:
        stopped = cancel_batches(job)
        click.echo(f"asked for {stopped} batches to be stopped; {locked}: it lands what is there", err=True)
        return
    if flags.json:
        print_json(result.summary)
    if not flags.quiet:
        show_summary(result.summary)
    if result.stopped is not None:
        raise result.stopped
