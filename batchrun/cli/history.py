"""`batchrun history`: the finished runs of a job, how they went, and where their level changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchrun.cli.options import print_json
from batchrun.errors import UsageError
from batchrun.visible import visible

if TYPE_CHECKING:
    from batchrun.schedule.history import Home

HEAD = ("run", "model", "accuracy", "rows", "no answer", "cost", "p95", "exit", "")


@click.command(
    "history", epilog="Examples: batchrun history nightly   batchrun history nightly --baseline 20260101T060000Z-1a2b3c"
)
@click.argument("job", metavar="JOB")
@click.option("-n", "--last", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="Runs to show.")
@click.option("--baseline", metavar="RUN", help="Make RUN the baseline that gates compare with.")
@click.option("--no-baseline", is_flag=True, help="Have no baseline any more.")
@click.option("--simulated", is_flag=True, help="Show the simulated runs, where there are real ones too.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write the history as a page.")
@click.option("--json", "json_", is_flag=True, help="Print rows, trends and changes as JSON.")
def command(
    job: str, last: int, baseline: str | None, html: Path | None, *, no_baseline: bool, simulated: bool, json_: bool
) -> None:
    """Show the last runs of JOB (a name, a job file, or the folder of its runs), oldest first, with trends and changes."""
    home = _home(job)
    if baseline is not None or no_baseline:
        home.set_baseline(None if baseline is None else Path(baseline).name)
        click.echo(f"baseline: {home.baseline() or 'none'}")
        return
    _show(home, last, html, simulated=simulated, json_=json_)


def _home(job: str) -> Home:
    """Return where the history of JOB is. Raises `UsageError` where there is none."""
    from batchrun.prepare import REPORTS, load_job
    from batchrun.schedule.history import Home

    home = Home(path=Path(job))
    if not Path(job).is_dir():
        home = Home(path=REPORTS / (load_job(job).name if job.endswith(".toml") else job))
    if not home.table.exists():
        raise UsageError(f"{home.path}: there is no history of finished runs", hint="batchrun run JOB.toml makes the first")
    return home


def _show(home: Home, last: int, html: Path | None, *, simulated: bool, json_: bool) -> None:
    """Print the runs of one kind: real ones, or the simulated where there are no others or they are asked for."""
    from batchrun.schedule.history import runs
    from batchrun.schedule.trend import changes, trends

    rows = home.rows()
    kind = simulated or all(row["simulated"] for row in rows)
    grouped = [found for found in runs(rows).values() if found[0]["simulated"] == kind][-last:]
    shown = [row for found in grouped for row in found]
    if html is not None:
        from batchrun.report.more_pages import render_history
        from batchrun.storage.atomic import write_text

        write_text(html, render_history(shown, job=home.path.name))
        click.echo(str(html))
        return
    found_trends, found_changes = trends(shown), changes(shown)
    if json_:
        print_json({"baseline": home.baseline(), "runs": shown, "trends": found_trends, "changes": found_changes})
        return
    for line in _table(shown, home.baseline()):
        click.echo(visible(line))
    click.echo()
    for trend in found_trends:
        click.echo(visible(f"{trend.name:<28} {trend.line}  {trend.words}"))
    for change in found_changes:
        click.echo(visible(f"changed: {change.words}"))
    left = len(runs(rows)) - len(grouped)
    if left:
        click.echo(f"{left:,} more runs in the history (--last, --simulated)")


def _table(rows: Sequence[Mapping[str, Any]], baseline: str | None) -> list[str]:
    """Return the runs as lines of plain text, a run and model each."""
    cells = [HEAD, *(_cells(row, baseline) for row in rows)]
    several = len({row["model"] for row in rows}) > 1
    kept = [place for place, name in enumerate(HEAD) if several or name != "model"]
    widths = {place: max(len(line[place]) for line in cells) for place in kept}
    return ["  ".join(line[place].ljust(widths[place]) for place in kept).rstrip() for line in cells]


def _cells(row: Mapping[str, Any], baseline: str | None) -> tuple[str, ...]:
    """Return one run's line."""
    from batchrun.report.words import interval, milliseconds, money
    from batchrun.schedule.trend import remark

    accuracy = {"value": row["accuracy"], "low": row["accuracy_low"], "high": row["accuracy_high"]}
    note = remark(row)
    return (
        str(row["run_id"]),
        str(row["model"]),
        interval(accuracy),
        f"{row['rows'] or 0:,}",
        f"{row['errored']:,}" if row["errored"] else "–",
        money(row["cost_usd"]),
        milliseconds(row["latency_p95_ms"]),
        str(row["exit_code"]),
        "; ".join(part for part in ("baseline" if row["run_id"] == baseline else "", note) if part),
    )
