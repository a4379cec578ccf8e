"""Summaries of runs → Markdown for a pull-request comment: the head table, the gates, the worst failures, where the rest is.

Several runs stand side by side, a column a model. Cells are plain text: what Markdown or HTML could read into a model's
words is escaped, so a dataset can put neither a link nor a mention into somebody's comment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from batchrun.records import Row
from batchrun.report import figures, words
from batchrun.report.call_diff import cut
from batchrun.report.page_rows import OTHERS
from batchrun.statistics.compare import Comparison
from batchrun.visible import visible

WORST: Final = 10
MOST_CHANGES: Final = 8
_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]<>#!|~$&])")
_MENTION: Final = re.compile(r"(?<=[@#])(?=\w)|(?<=:)(?=//)|(?<=\bwww)(?=\.)")


def render_markdown(runs: Sequence[Mapping[str, Any]], failing: Sequence[Row] = (), *, links: Sequence[str] = ()) -> str:
    """Return the comment: `failing` are rows of the runs to name, the first `WORST` of them; `links` are whole lines."""
    columns = figures.columns(runs)
    lines = [f"### {_title(runs)}", ""]
    lines += _table(["", *(column.name for column in columns)], _body(columns))
    if len({run.get("dataset_digest") for run in runs}) > 1:
        lines += ["", "The runs are over different datasets: a difference may be one of the rows."]
    lines += [line for run in runs for line in _notes(run, several=len(runs) > 1)]
    shown = [row for row in failing if row.outcome not in OTHERS][:WORST]
    if shown:
        lines += ["", "<details><summary>Failures</summary>", ""]
        lines += _table(
            ["row", "outcome", "why"],
            [[_place(row), row.outcome, cut(row.explanation or row.error_message or "", 160)] for row in shown],
        )
        lines += ["", "</details>"]
    if links:
        lines += ["", *(text(line) for line in links)]
    return "\n".join(lines) + "\n"


def render_comparison_markdown(comparison: Comparison, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Return what changed from one run to the other."""
    from batchrun.report.changes import change_lines, verdict  # noqa: PLC0415 - one of two pages

    rows = change_lines(comparison, most=MOST_CHANGES)
    lines = [
        f"### {text(after['job'])}: {text(verdict(comparison))}",
        "",
        f"A is {text(before['run_id'])}, B is {text(after['run_id'])}.",
        "",
    ]
    lines += _table(["", "A", "B", "difference", "rows", "p"], [[line.name, *line.cells] for line in rows])
    overall = comparison.overall
    if overall is not None:
        for name, ids in (("Lost", overall.lost), ("Gained", overall.gained)):
            if ids:
                named = ", ".join(text(row) for _, row in ids[:WORST])
                lines += ["", f"{name} ({len(ids):,}): {named}" + (" …" if len(ids) > WORST else "")]
    return "\n".join(lines) + "\n"


def text(value: Any) -> str:
    """Return a value as text that Markdown shows as it is: no markup, no links, no mentions, on one line."""
    plain = " ".join(str(visible(str(value))).split())
    return (
        _MENTION.sub("\u200b", _SPECIAL.sub(r"\\\1", plain)).replace("\\<", "&lt;").replace("\\>", "&gt;").replace("\\&", "&amp;")
    )


def _title(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return the runs by name."""
    names = list(dict.fromkeys(str(run["job"]) for run in runs))
    marks = (" (simulated)" if any(run.get("simulated") for run in runs) else "") + (
        " (stopped early)" if any(run.get("stopped") for run in runs) else ""
    )
    return text(", ".join(names)) + marks


def _body(columns: Sequence[figures.Column]) -> list[list[str]]:
    """Return the head table's lines, the outcomes after the first."""
    head = figures.headline(columns)
    outcomes = [figures.Figure(line.name, line.cells, inner=True) for line in figures.outcomes(columns) if line.name != "correct"]
    lines = [*head[:2], *outcomes, *head[2:]]
    return [[f"· {line.name}" if line.inner else line.name, *line.cells] for line in lines]


def _notes(run: Mapping[str, Any], *, several: bool) -> list[str]:
    """Return the lines below the table: gates, what is outside accuracy, errors."""
    name = f"{text(run['run_id'])}: " if several else ""
    notes = [
        f"- {name}{'✅' if gate['passed'] else '❌'} gate {text(gate['name'])}: {text(gate['detail'])}"
        for gate in run.get("gates") or []
    ]
    if found := figures.outside(run["rows"]):
        notes.append(f"- {name}outside accuracy: {text(', '.join(found))}")
    notes += [f"- {name}{text(cut(one, 300))}" for one in figures.outside_cost(run)]
    missing = run["rows"]["total"] - run["rows"]["landed"]
    if missing > 0:
        notes.append(f"- {name}{missing:,} of {run['rows']['total']:,} calls are still to be made")
    notes += [
        f"- {name}{error['count']:,} × {text(cut(error['what'] + ': ' + error['example'], 160))}" for error in run["errors"][:3]
    ]
    if run.get("wall_s"):
        notes.append(f"- {name}took {words.duration(run['wall_s'])}")
    return ["", *notes] if notes else []


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """Return a Markdown table; all columns but the first are aligned to the right where they hold figures."""
    align = ["---", *("--:" if head[1:] and head[0] == "" else "---" for _ in head[1:])]
    return [
        "| " + " | ".join(text(cell) for cell in head) + " |",
        "|" + "|".join(align) + "|",
        *("| " + " | ".join(text(cell) for cell in line) + " |" for line in body),
    ]


def _place(row: Row) -> str:
    return row.id if not row.repeat else f"{row.id} (repeat {row.repeat})"
