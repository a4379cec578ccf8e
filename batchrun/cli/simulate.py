"""`batchrun simulate`: a local endpoint to try things against, with faults on request."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchrun.errors import StorageError

if TYPE_CHECKING:
    from batchrun.job import Job


@click.command("simulate", epilog="Example: batchrun simulate jobs/weather.toml --port 8080 --set simulate.faults.cut=0.1")
@click.argument("job", metavar="[JOB.toml|DATASET]", required=False)
@click.option("--port", type=click.IntRange(0, 65_535), default=0, show_default=True, help="0: any free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--access-log", type=click.Path(path_type=Path, dir_okay=False), help="Write a JSON line for every request.")
@click.option("--require-key", is_flag=True, help="Answer 401 to requests without a credential.")
@click.option("--set", "set_", multiple=True, metavar="KEY=VALUE", help="Any key of the job, by its path.")
def command(job: str | None, port: int, host: str, access_log: Path | None, *, require_key: bool, set_: tuple[str, ...]) -> None:
    """Serve /v1/messages (and count_tokens, batches, models) until Ctrl-C; prints its address on stdout.

    With JOB or a DATASET it knows the expected answers and gives them as often as `simulate.accuracy` says.
    """
    from batchrun.transport.loop import run

    try:
        run(_serve(_load(job, set_), (host, port), access_log, require_key=require_key, known=job is not None))
    except OSError as error:
        raise StorageError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    except KeyboardInterrupt:
        click.echo("stopped", err=True)


def _load(job: str | None, assignments: tuple[str, ...]) -> Job:
    """Return the job whose `[simulate]` is served."""
    from batchrun.job import parse_job, parse_set
    from batchrun.prepare import load_job

    overrides = [parse_set(assignment) for assignment in assignments]
    if job is None:
        return parse_job("", default_name="simulated", default_dataset="none", overrides=overrides)
    if not job.endswith(".toml"):
        overrides.insert(0, ("request.model", "simulated"))
    return load_job(job, overrides=overrides)


async def _serve(job: Job, address: tuple[str, int], access_log: Path | None, *, require_key: bool, known: bool) -> None:
    """Serve until the task is cancelled."""
    import asyncio

    from batchrun.prepare import open_job_dataset
    from batchrun.simulator import answers_of, serve

    answers = answers_of(open_job_dataset(job).samples()) if known else None
    host, port = address
    async with serve(job.simulate, answers, host=host, port=port, access_log=access_log, require_key=require_key) as server:
        click.echo(server.base_url)
        click.echo(f"hint: batchrun run DATASET --model any --base-url {server.base_url}", err=True)
        await asyncio.Event().wait()
