"""The summary of a run and the rows drawn from it → `report.html`: one self-contained page.

The page is complete without a script: the script only filters rows that are already there. Rows are added while they fit
under a bound, so that the page of a million rows can be mailed. It reads no file and draws every figure from the summary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from markupsafe import Markup

from batchrun.report import charts, figures, html
from batchrun.report.call_diff import cut
from batchrun.report.page_rows import OTHERS, Sampled
from batchrun.report.row_view import RowView, view_of

MOST_BYTES: Final = 3_500_000
"""Bytes of a page that rows may take; with everything else it stays under 5 MB."""
MOST_TAGS: Final = 100
_MOST_CHOICES: Final = 200


def render_run(summary: Mapping[str, Any], sampled: Sampled, *, draw: bool = True) -> str:
    """Return the page of one run: `summary` as in `summary.json`, and the rows to look at.

    Without `draw` its charts are the plain ones, so that a run that ends need not start the drawing engine.
    """
    values = run_values(summary, draw=draw)
    views, rows = _rendered(sampled, exact=summary.get("profile") == "exact", several=len(summary["models"]) > 1)
    return html.render(
        "run.html",
        script="page.js",
        **values,
        shown_rows=rows,
        shown_note=_note(sampled, views),
        shown_kinds=[kind for kind in figures.OUTCOMES if any(view.outcome == kind for view in views)],
        shown_models=list(dict.fromkeys(view.model for view in views)),
        shown_tags=sorted({tag for view in views for tag in view.tags})[:_MOST_CHOICES],
    )


def run_values(run: Mapping[str, Any], *, draw: bool = True) -> dict[str, Any]:
    """Return everything that the page says of the run as a whole."""
    columns = figures.columns([run])
    models = [column.model for column in columns]
    sessions = run.get("sessions") or []
    gates = run.get("gates") or []
    tags = figures.tag_shares(columns)
    tools = [figures.tools(model) for model in models]
    values = {
        "title": f"{run['job']} {run['run_id']}",
        "run": run,
        "dataset_name": str(run.get("dataset", "")).rstrip("/").rpartition("/")[2],
        "columns": columns,
        "names": [column.name for column in columns],
        "confidence": models[0]["accuracy"]["confidence"] if models else 0.95,
        "gates": gates,
        "failed_gates": sum(not gate["passed"] for gate in gates),
        "kinds": figures.kinds(models),
        "outside": figures.outside(run["rows"]),
        "outside_cost": figures.outside_cost(run),
        "outcome_lines": figures.outcomes(columns),
        "headline": figures.headline(columns),
        "tags": dict(list(tags.items())[:MOST_TAGS]),
        "tools": [lines[: figures.MOST_TOOLS] for lines in tools],
        "more_tools": [max(0, len(lines) - figures.MOST_TOOLS) for lines in tools],
        "has_tools": any(tools),
        "behaviour": figures.behaviour(columns),
        "passes": figures.passes(columns),
        "repeat_heads": [f"k = {k}" for k in range(1, figures.repeats(columns) + 1)],
        "kind_lines": figures.kind_lines(run),
        "money_lines": figures.money_lines(run),
        "estimate_lines": figures.estimate_lines(run),
        "times": [figures.times(model) for model in models],
        "sessions": sessions,
        "sent": sum(session["sent"] for session in sessions),
        "retries": sum(session["retries"] for session in sessions),
        "refused": sum(session["refused"] for session in sessions),
        "rates": ", ".join(f"{name} {share:.0%}" for name, share in (sessions[-1]["rate_used"] if sessions else {}).items()),
        "drawn": draw and charts.can_draw(),
        "can_draw": charts.can_draw(),
        "install": charts.WHAT_TO_INSTALL,
        "share_of": figures.share_of,
        "pair": figures.pair,
        "cut": cut,
    }
    spread, over_time = charts.histograms(models), charts.timelines(sessions)
    drawn = charts.drawn([*spread, *over_time]) if draw else [*spread, *over_time]
    values |= {"histograms": drawn[: len(spread)], "timelines": drawn[len(spread) :]}
    return {**values, "anchors": _anchors(values)}


def _anchors(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the sections that the page has, for its table of contents."""
    there = {
        "gates": ("Gates", values["gates"]),
        "outcomes": ("Outcomes", True),
        "tags": ("Tags", values["tags"]),
        "tools": ("Tools", values["has_tools"]),
        "calling": ("Calling", True),
        "repeats": ("Repeats", values["passes"]),
        "cost": ("Cost", True),
        "latency": ("Latency", True),
        "throughput": ("Throughput", values["timelines"] or values["run"].get("errors")),
        "rows": ("Rows", True),
    }
    return [(anchor, name) for anchor, (name, shown) in there.items() if shown]


def _rendered(sampled: Sampled, *, exact: bool, several: bool) -> tuple[list[RowView], list[Markup]]:
    """Return the rows that fit, in words and as HTML."""
    views: list[RowView] = []
    rendered: list[Markup] = []
    left = MOST_BYTES
    for shown in sampled.rows:
        view = view_of(shown, exact=exact, several_models=several)
        row = html.fragment("row.html", "row", view)
        left -= len(row.encode("utf-8", "replace"))
        if left < 0:
            break
        views.append(view)
        rendered.append(row)
    return views, rendered


def _note(sampled: Sampled, views: Sequence[RowView]) -> str:
    """Say which of the run's rows are on the page."""
    failing = sum(number for kind, number in sampled.seen.items() if kind not in OTHERS)
    others = sum(sampled.seen.values()) - failing
    shown = sum(view.failing for view in views)
    rest = len(views) - shown
    if not failing:
        said = "No row fails"
    elif shown == failing:
        said = "The one row that fails is here" if failing == 1 else f"All {failing:,} failing rows are here"
    else:
        said = f"{shown:,} of {failing:,} failing rows are here, a uniform draw of each outcome"
    if others:
        said += "; of the others " + (f"all {others:,}" if rest == others else f"{rest:,} of {others:,}")
    whole = "" if len(views) == failing + others else " results.parquet has every row."
    return f"{said}.{whole}"
