"""`batchrun schedule`: run jobs by their schedules, say what is next, or write files for another scheduler."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchrun.cli.options import print_json
from batchrun.errors import UsageError
from batchrun.visible import visible

if TYPE_CHECKING:
    from batchrun.schedule.entry import Entry
    from batchrun.schedule.service import Scheduler

KINDS = ("cron", "systemd", "github-actions", "kubernetes")


@click.command(
    "schedule",
    epilog="Examples: batchrun schedule jobs/nightly.toml --status-port 9464   "
    "batchrun schedule jobs/nightly.toml --export systemd",
)
@click.argument("jobs", metavar="JOB.toml…", nargs=-1, required=True)
@click.option("--max-jobs", type=click.IntRange(min=1), default=4, show_default=True, metavar="N", help="Runs at once.")
@click.option(
    "--per-endpoint",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Runs at once on one endpoint; each gets 1/N of its rate limits.",
)
@click.option("--grace", type=click.FloatRange(min=0), default=300, show_default=True, metavar="S", help="Seconds to drain.")
@click.option("--simulate", is_flag=True, help="Run every job against a simulated endpoint.")
@click.option("--set", "set_", multiple=True, metavar="KEY=VALUE", help="Any key of every job, by its path.")
@click.option("--status", is_flag=True, help="Say what is next, running and last, and end.")
@click.option("--json", "json_", is_flag=True, help="With --status: as JSON.")
@click.option(
    "--status-port", type=click.IntRange(0, 65535), metavar="PORT", help="Serve /, /status.json, /metrics on 127.0.0.1."
)
@click.option("--export", "kind", type=click.Choice(KINDS), help="Print files for another scheduler, and end.")
def command(
    jobs: tuple[str, ...],
    max_jobs: int,
    per_endpoint: int,
    grace: float,
    *,
    set_: tuple[str, ...],
    status_port: int | None,
    kind: str | None,
    simulate: bool,
    status: bool,
    json_: bool,
) -> None:
    """Run each JOB.toml by its [schedule], as a process that stays.

    SIGTERM or Ctrl-C drains the runs that go on; the next start goes on with them. What is due while nobody runs is caught up
    as [schedule] catch_up says. Jobs on one endpoint share the smallest rate limits that any of them states.
    """
    entries = _entries(jobs, per_endpoint, set_, simulate=simulate)
    if kind is not None:
        _export(entries, kind)
    elif status or json_:
        _status(entries, json_=json_)
    else:
        _serve(entries, max_jobs, per_endpoint, grace, status_port)


def _entries(jobs: tuple[str, ...], per_endpoint: int, set_: tuple[str, ...], *, simulate: bool) -> list[Entry]:
    """Return what is run. Raises `JobError` for everything that is wrong with a job or its schedule."""
    from batchrun.job import parse_set
    from batchrun.prepare import load_job
    from batchrun.schedule.entry import entries

    datasets = [file for file in jobs if not file.endswith(".toml")]
    if datasets:
        raise UsageError(f"{datasets[0]}: is no job file", hint="a schedule is part of a job: batchrun init writes one")
    overrides = [parse_set(assignment) for assignment in set_]
    loaded = [(file, load_job(file, overrides=overrides, environ=os.environ)) for file in jobs]
    return entries(loaded, per_endpoint=per_endpoint, simulate=simulate, overrides=set_)


def _export(entries: list[Entry], kind: str) -> None:
    """Print the files."""
    import shutil

    from batchrun.schedule.export import export

    text = export(kind, entries, str(Path.cwd()), shutil.which("batchrun") or "batchrun")  # type: ignore[arg-type]  # click checked the choice
    click.echo(text, nl=False)


def _status(entries: list[Entry], *, json_: bool) -> None:
    """Print what the state file says."""
    from datetime import UTC, datetime

    from batchrun.prepare import REPORTS
    from batchrun.schedule.state import StateFile
    from batchrun.schedule.status import lines, status

    file = StateFile(REPORTS)
    state = file.read()
    memories = state.jobs if state is not None else {}
    value = status(entries, memories, REPORTS, datetime.now(UTC), owner=file.owner())
    if json_:
        print_json(value)
    else:
        click.echo(visible("\n".join(lines(value))))


def _serve(entries: list[Entry], max_jobs: int, per_endpoint: int, grace: float, status_port: int | None) -> None:
    """Run the scheduler until a signal."""
    import asyncio

    from batchrun.prepare import REPORTS
    from batchrun.schedule.planner import Room
    from batchrun.schedule.service import Scheduler, Settings

    settings = Settings(root=REPORTS, room=Room(jobs=max_jobs, per_endpoint=per_endpoint), grace_s=grace)
    asyncio.run(_until_stopped(Scheduler(entries, settings, log=_say), status_port))


async def _until_stopped(scheduler: Scheduler, status_port: int | None) -> None:
    """Serve with signals and, where it is asked for, the status page."""
    import asyncio
    import signal
    from contextlib import AsyncExitStack
    from datetime import UTC, datetime

    from batchrun.schedule.status import status
    from batchrun.schedule.status_page import served

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, scheduler.stop)
    owner = f"process {os.getpid()}"

    def now() -> dict[str, object]:
        root = scheduler.settings.root
        return status(scheduler.entries.values(), scheduler.memories, root, datetime.now(UTC), owner=owner)

    async with AsyncExitStack() as stack:
        if status_port is not None:
            port = await stack.enter_async_context(served(status_port, now))
            _say(f"status: http://127.0.0.1:{port}/")
        await scheduler.serve()


def _say(line: str) -> None:
    """Print one line of the scheduler's log, with the time, on stderr."""
    from datetime import UTC, datetime

    click.echo(f"{datetime.now(UTC).isoformat(timespec='seconds')} {visible(line)}", err=True)
    sys.stderr.flush()
