"""`batchrun compare`: two runs row by row, with the interval, the test, the flips, and what could not have been seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from batchrun.cli.options import print_json
from batchrun.errors import GateFailed
from batchrun.report.words import milliseconds, money, percent
from batchrun.visible import visible

if TYPE_CHECKING:
    from batchrun.statistics.clustered import Estimate
    from batchrun.statistics.compare import Comparison, Contrast


@click.command("compare", epilog="Example: batchrun compare reports/suite/RUN_A reports/suite/RUN_B --fail-if worse")
@click.argument("run_a")
@click.argument("run_b")
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="Chance of calling a difference that is none; intervals are at 1 - alpha.",
)
@click.option("--any-dataset", is_flag=True, help="Compare runs over different datasets, by the ids both have.")
@click.option("--fail-if", type=click.Choice(["worse"]), help="Exit 8 when RUN_B is significantly worse.")
@click.option("--flips", type=click.IntRange(min=0), default=10, show_default=True, help="Changed rows to list each way.")
@click.option("--json", "json_", is_flag=True, help="Print the comparison as JSON.")
def command(run_a: str, run_b: str, alpha: float, fail_if: str | None, flips: int, *, any_dataset: bool, json_: bool) -> None:
    """Compare RUN_B with RUN_A over the rows they share: difference with its interval, exact test, flips both ways.

    Each is a folder or an address in a bucket.
    """
    from batchrun.cli.places import run_folder
    from batchrun.report.comparison import compare_runs, read_summary

    before, after = read_summary(run_folder(run_a)), read_summary(run_folder(run_b))
    comparison = compare_runs(before, after, alpha=alpha, any_dataset=any_dataset)
    if json_:
        print_json(comparison)
    else:
        for line in _lines(comparison, before, after, flips):
            click.echo(visible(line))
    if fail_if == "worse" and comparison.worse() and comparison.overall is not None:
        overall = comparison.overall
        raise GateFailed(f"{run_b} is worse than {run_a}: {overall.difference.value:+.1%}, p = {overall.p_value:.3g}")


def _lines(comparison: Comparison, before: Mapping[str, Any], after: Mapping[str, Any], flips: int) -> list[str]:
    """Return the comparison in words."""
    lines = [
        f"A  {before['job']}  {before['run_id']}",
        f"B  {after['job']}  {after['run_id']}",
        (
            f"{comparison.shared:,} rows in both; only in A {comparison.only_before:,}, only in B {comparison.only_after:,}; "
            f"{comparison.no_verdict:,} without a verdict in one of them"
        ),
    ]
    overall = comparison.overall
    if overall is None:
        return [*lines, "no row has a verdict in both runs: nothing can be said of the accuracy"]
    lines += ["", *_contrast(overall, comparison.alpha)]
    lines += _family("model", comparison.models) + _family("tag", comparison.tags)
    if comparison.cost is not None:
        lines.append(f"cost a row      {_signed(comparison.cost, money)}")
    if comparison.latency_ms is not None:
        lines.append(f"latency         {_signed(comparison.latency_ms, milliseconds)}")
    for name, rows in (("lost", overall.lost), ("gained", overall.gained)):
        if rows and flips:
            shown = ", ".join(f"{model}/{row}" if model else row for model, row in rows[:flips])
            lines.append(f"{name:<15} {shown}" + (f" … and {len(rows) - flips:,} more" if len(rows) > flips else ""))
    return lines


def _contrast(contrast: Contrast, alpha: float) -> list[str]:
    """Return the headline: both accuracies, the difference, the tests, and the power."""
    verdict = "no significant difference"
    if contrast.p_value <= alpha:
        verdict = "B is better" if contrast.difference.value > 0 else "B is worse"
    exact = f"; exact McNemar p = {_p(contrast.mcnemar_p)}" if contrast.mcnemar_p != contrast.p_value else ""
    flips = f"({len(contrast.lost):,} lost, {len(contrast.gained):,} gained)"
    lines = [
        f"accuracy        A {_share(contrast.before)}   B {_share(contrast.after)}",
        f"difference      {_signed(contrast.difference, percent)}   {verdict}",
        f"test            {contrast.method}: p = {_p(contrast.p_value)}{exact} {flips}",
    ]
    if contrast.detectable is not None:
        half = f"; about {contrast.rows_for_half:,} rows would show half of it" if contrast.rows_for_half else ""
        lines.append(f"power           this sample shows a difference of {percent(contrast.detectable)} 8 times in 10{half}")
    return lines


def _family(kind: str, contrasts: Sequence[Contrast]) -> list[str]:
    """Return a line a model or tag, its p-value corrected for their number (Holm)."""
    if len(contrasts) < 2:
        return []
    width = max(len(contrast.name) for contrast in contrasts)
    head = [f"by {kind} (p corrected for {len(contrasts)} by Holm)"]
    return head + [
        f"  {contrast.name:<{width}}  {_signed(contrast.difference, percent)}  n = {contrast.rows:,}  p = {_p(contrast.holm_p)}"
        for contrast in contrasts
    ]


def _share(estimate: Estimate) -> str:
    bounds = f" [{percent(estimate.interval.low)}, {percent(estimate.interval.high)}]" if estimate.interval else ""
    return percent(estimate.value) + bounds


def _signed(estimate: Estimate, words: Any) -> str:
    """Return a difference with its sign and interval."""
    value = f"{'+' if estimate.value >= 0 else '−'}{words(abs(estimate.value))}"
    if estimate.interval is None:
        return value
    low, high = (f"{'+' if end >= 0 else '−'}{words(abs(end))}" for end in estimate.interval)
    return f"{value} [{low}, {high}]"


def _p(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3g}"
