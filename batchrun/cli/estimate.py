"""`batchrun estimate`: what a job will cost and how long it will take, before it runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from batchrun.cli.options import JobFlags, job_flags, print_json
from batchrun.report.words import count, duration, money
from batchrun.visible import visible

if TYPE_CHECKING:
    from batchrun.estimation.forecast import JobEstimate
    from batchrun.estimation.pilot import Interval
    from batchrun.pricing.estimate import Range

OFF = "off"


def _rows_to_count(_context: click.Context, _parameter: click.Parameter, value: str) -> int:
    """Return how many rows to count: 0 for off."""
    if value == OFF:
        return 0
    if not value.isdecimal() or not int(value):
        raise click.BadParameter("a number of rows, or off")
    return int(value)


@click.command(
    "estimate",
    epilog="Examples: batchrun estimate jobs/cost_estimate.toml   batchrun estimate jobs/cost_estimate.toml --pilot 40",
)
@click.argument("job", metavar="JOB.toml|DATASET")
@job_flags()
@click.option(
    "--pilot",
    type=click.IntRange(min=2),
    metavar="N",
    help="Make N of the calls first, for an interval. They are paid for, and kept.",
)
@click.option(
    "--count-tokens",
    "count_",
    default="32",
    show_default=True,
    metavar="N|off",
    callback=_rows_to_count,
    help="Rows of each model that the endpoint counts, free of charge.",
)
def command(job: str, flags: JobFlags, pilot: int | None, count_: int) -> None:
    """Estimate the cost and the hours of JOB.toml, or of DATASET with --model.

    Low, expected and high, through messages and through batches. With --pilot, calls sampled by tag and length give a
    90 % interval; they land in the journal of a run, which goes on without making them again.
    """
    from batchrun.cli.progress import ProgressView
    from batchrun.estimation.forecast import Asked, estimate_job
    from batchrun.fitting import require_fit
    from batchrun.prepare import Options
    from batchrun.schedule.checks import checks

    loaded = flags.load(job)
    options = Options(simulate=flags.simulate, job_file=job if job.endswith(".toml") else None)
    require_fit(loaded, options, os.environ, checks(loaded, options.root))
    asked = Asked(options=options, count=count_, pilot=pilot or 0, environ=os.environ)
    with ProgressView(f"{loaded.name} pilot", quiet=flags.quiet) as view:
        made = estimate_job(loaded, asked, show=view.show)
    if flags.json:
        print_json(made)
        return
    for line in _lines(made):
        click.echo(line)


def _lines(made: JobEstimate) -> Iterator[str]:
    """Yield the estimate in words."""
    models = f" × {len(made.models)} models" if len(made.models) > 1 else ""
    repeats = f" × {made.repeats:,} repeats" if made.repeats > 1 else ""
    simulated = "  simulated" if made.simulated else ""
    yield f"{made.job}: {made.rows:,} rows{models}{repeats} = {made.calls:,} calls{simulated}"
    yield ""
    yield from _table(made)
    for model in made.total.unpriced:
        yield click.style(f"no price is known for {visible(model)}: the cost is unknown", fg="yellow", bold=True)
        yield "hint: name one with [[prices.models]], or the model it is priced as under [prices.aliases]"
    yield ""
    for one in made.models if len(made.models) > 1 and made.pilot is None else ():
        cost = one.estimate.messages.cost
        yield f"{visible(one.model)}: {_money(cost, one.estimate.currency)}"
    if made.pilot is None:
        for one in made.models:
            name = f" ({visible(one.model)})" if len(made.models) > 1 else ""
            yield f"input{name}: {one.input_source}; output: {one.output_source}"
        yield f"latency: {made.latency_source}; low and high are a bracket, not an interval"
    yield from made.notes
    yield from _pilot(made)


def _table(made: JobEstimate) -> Iterator[str]:
    """Yield both modes side by side: low, expected, high."""
    total = made.total
    rows = [("", "low", "expected", "high")]
    for mode in (total.messages, total.batches):
        cost = [money(None)] * 3 if mode.cost is None else [money(each, total.currency) for each in mode.cost]
        rows.append((f"{mode.mode}: cost", cost[0], cost[1], cost[2]))
        low, expected, high = (duration(hours * 3600) for hours in mode.hours)
        rows.append((f"{mode.mode}: time ({mode.bottleneck})", low, expected, high))
    rows.append(("input tokens", *map(count, total.input_tokens)))  # type: ignore[arg-type] # three of them
    rows.append(("output tokens", *map(count, total.output_tokens)))  # type: ignore[arg-type] # three of them
    widths = [max(len(row[place]) for row in rows) for place in range(4)]
    for row in rows:
        yield "   ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))])


def _pilot(made: JobEstimate) -> Iterator[str]:
    """Yield what the pilot said, and how to go on from it."""
    pilot = made.pilot
    if pilot is None:
        return
    failed = f", {pilot.errored:,} of them errored" if pilot.errored else ""
    yield f"pilot: {pilot.calls:,} calls for {money(pilot.spent, made.total.currency)}{failed}"
    cost = pilot.batch_cost if made.mode == "batches" else pilot.cost
    yield f"the whole, with {pilot.confidence:.0%} confidence: {_interval(cost, made.total.currency)}"
    yield f"go on: batchrun resume {pilot.folder}   (it makes the other {made.calls - pilot.calls:,} calls)"


def _money(cost: Range | None, currency: str) -> str:
    """Return an amount with its ends."""
    if cost is None:
        return money(None)
    return f"{money(cost.expected, currency)} [{money(cost.low, currency)}, {money(cost.high, currency)}]"


def _interval(interval: Interval | None, currency: str) -> str:
    """Return an interval, or why there is none."""
    if interval is None:
        return "not known: a call has no price, or none has landed"
    if interval.low is None or interval.high is None:
        return f"{money(interval.expected, currency)}, too few calls for an interval"
    return f"{money(interval.expected, currency)} [{money(interval.low, currency)}, {money(interval.high, currency)}]"
