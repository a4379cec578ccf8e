"""The end of a run on stderr: one table a person reads, drawn from the same summary machines get.

It takes `summary.json`'s value and gives lines; it computes nothing, so the terminal, the page and the
file cannot disagree.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from batchrun.cli import colour
from batchrun.report.words import count, interval, milliseconds, money, untold_waste
from batchrun.visible import all_visible

if TYPE_CHECKING:
    from rich.console import RenderableType

Summary = Mapping[str, Any]
_GOOD = {"correct"}
_OUTSIDE = {"infra_error", "unscored"}


def show_summary(summary: Summary) -> None:
    """Print the closing table of one run on stderr."""
    from rich.console import Console

    summary = all_visible(summary)
    console = Console(stderr=True, no_color=not colour(sys.stderr), highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = 120
    console.print(_head(summary))
    console.print(_models(summary))
    for line in _notes(summary):
        console.print(line, soft_wrap=True)


def _head(summary: Summary) -> RenderableType:
    """Return the line above the table: which run this is and how it ended."""
    from rich.text import Text

    text = Text()
    text.append(str(summary["job"]), style="bold")
    text.append(f"  {summary['run_id']}", style="dim")
    if summary.get("simulated"):
        text.append("  simulated", style="magenta")
    if summary.get("stopped"):
        text.append(f"  stopped: {summary['stopped']}", style="yellow")
    return text


def _models(summary: Summary) -> RenderableType:
    """Return the table: a figure a line, a model a column."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("")
    for model in summary["models"]:
        table.add_column(str(model["model"]), justify="right", overflow="fold")
    for name, cells in _lines(summary["models"]):
        table.add_row(name, *cells)
    return table


def _lines(models: list[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Return the table's lines as (name, one cell a model)."""
    confidence = next((m["accuracy"].get("confidence") for m in models if m.get("accuracy")), None)
    named = f"accuracy [{confidence:.0%} interval]" if confidence else "accuracy"
    lines = [
        ("rows", [f"{m['rows']['landed']:,}" for m in models]),
        (named, [interval(m.get("accuracy")) for m in models]),
    ]
    lines += [(f"  {kind}", [_outcome(m, kind) for m in models]) for kind in _kinds(models)]
    lines += [
        ("tokens in / out", [f"{count(m['tokens']['input'])} / {count(m['tokens']['output'])}" for m in models]),
        ("cost", [_cost(m) for m in models]),
        ("first token p50 / p95", [_pair(m, "ttft_ms") for m in models]),
        ("latency p50 / p95", [_pair(m, "latency_ms") for m in models]),
        ("slowest", [_slowest(m) for m in models]),
    ]
    return lines


def _kinds(models: list[Mapping[str, Any]]) -> list[str]:
    """Return the outcomes that occur: right ones first, then by how many, those outside accuracy last."""
    totals: dict[str, int] = {}
    for model in models:
        for kind, number in model["outcomes"].items():
            totals[kind] = totals.get(kind, 0) + number
    return sorted((k for k, n in totals.items() if n), key=lambda k: (k in _OUTSIDE, k not in _GOOD, -totals[k], k))


def _outcome(model: Mapping[str, Any], kind: str) -> str:
    """Return one outcome's count."""
    from rich.markup import escape

    number = model["outcomes"].get(kind, 0)
    style = "green" if kind in _GOOD else "dim" if not number else "yellow" if kind in _OUTSIDE else "red"
    return f"[{style}]{escape(f'{number:,}')}[/]"


def _cost(model: Mapping[str, Any]) -> str:
    """Return the cost, its waste, and how many rows have no price."""
    cost = model["cost"]
    parts = [money(cost["total_usd"])]
    if cost.get("wasted_usd") and float(cost["wasted_usd"]):
        parts.append(f"of it {money(cost['wasted_usd'])} wasted")
    if cost.get("unpriced"):
        parts.append(f"{cost['unpriced']:,} rows without a price")
    return ", ".join(parts)


def _pair(model: Mapping[str, Any], name: str) -> str:
    """Return the median and the 95th percentile of a time."""
    times = model.get(name) or {}
    return f"{milliseconds(times.get('p50'))} / {milliseconds(times.get('p95'))}"


def _slowest(model: Mapping[str, Any]) -> str:
    """Return the slowest row and how long it took."""
    from rich.markup import escape

    if not model["slowest"]:
        return "–"
    first = model["slowest"][0]
    return escape(f"{first['id']} ({milliseconds(first['latency_ms'])})")


def _notes(summary: Summary) -> list[str]:
    """Return the lines below the table: what is outside the figures, what failed and why, and where the files are."""
    from rich.markup import escape

    notes = []
    rows = summary["rows"]
    outside = [f"{rows[kind]:,} {kind}" for kind in ("infra_error", "unscored") if rows.get(kind)]
    if outside:
        notes.append(f"accuracy counts {rows['scored']:,} rows; outside it: {', '.join(outside)}")
    early = summary.get("stop_when") or {}
    if early.get("known"):
        calls, saved = early["calls"], early["saved_usd"]
        worth = "" if saved is None else f", about {money(saved)}"
        notes.append(f"[green]stopped: the answer is known[/] after {calls['made']:,} of {calls['planned']:,} calls")
        notes.append(f"saved {calls['saved']:,} calls{worth}; the interval holds though the run stopped early")
    elif rows["landed"] < rows["total"]:
        notes.append(f"[yellow]{rows['total'] - rows['landed']:,} of {rows['total']:,} calls are still to be made[/]")
    notes.extend(
        f"[red]{error['count']:,}×[/] {escape(error['what'])}: {escape(error['example'])}"
        for error in summary.get("errors", [])[:5]
    )
    notes.extend(
        f"[yellow]no price is known for {escape(model)}[/], or its endpoint told no usage: "
        "name one with \\[\\[prices.models]] in the job"
        for model in summary.get("unpriced_models", [])
    )
    if unknown := summary["cost"].get("waste_unknown"):
        notes.append(f"[yellow]{untold_waste(unknown)}[/]")
    notes.extend(
        f"[{'green' if gate['passed'] else 'red'}]gate {gate['name']}: {'passed' if gate['passed'] else 'FAILED'}[/] "
        f"({escape(gate['detail'])})"
        for gate in summary.get("gates", [])
    )
    if estimated := _estimated(summary.get("estimate")):
        notes.append(estimated)
    if summary.get("wall_s"):
        notes.append(f"took {milliseconds(summary['wall_s'] * 1000)}, {summary.get('calls_per_s') or 0:,.1f} calls/s")
    notes.append(f"results: {escape(str(summary['folder']))}")
    return notes


def _estimated(estimate: Mapping[str, Any] | None) -> str:
    """Return the estimate beside what the run came to; nothing where none was made."""
    if estimate is None or estimate["cost"] is None:
        return ""
    currency, cost = estimate["currency"], estimate["cost"]
    ends = f"{money(cost['expected'], currency)} [{money(cost['low'], currency)}, {money(cost['high'], currency)}]"
    word = {True: ", within it", False: ", [yellow]outside it[/]", None: ""}[estimate["held"]]
    return f"estimated {ends}, came to {money(estimate['actual']['cost'], currency)}{word}"
