"""A finished run and its job's memory → the verdicts of its gates: finds the runs that it is held against.

"last" is the newest good run (exit 0) of the same models, simulated or not as this one is, over the same dataset if there
is one; over an older version of the dataset else, by the ids both have, and the verdict says so. "baseline" is the run
that `batchrun history --baseline` named. Drift is measured against the job's finished runs over the same dataset; what an
outage or a signal cut short says nothing of a model, and is left out of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from batchrun.errors import BatchrunError, JobError, Problem, UsageError
from batchrun.job import Gate
from batchrun.schedule.gates import Verdict, judge
from batchrun.schedule.history import Home, Rows, runs

if TYPE_CHECKING:
    from batchrun.statistics.compare import Comparison
    from batchrun.statistics.drift import Drift

JUDGED = frozenset({0, 8})
"""Exit codes of runs that came to their end with figures to learn from."""


class Reference(Struct, frozen=True, kw_only=True):
    """The run that `no_regression` compares with. `folder` is None where there is none (yet), and `why` says so."""

    folder: Path | None = None
    why: str = ""


def reference(gate: Gate, home: Home, summary: Mapping[str, Any] | None = None) -> Reference:
    """Return the run to compare with; before the run has a `summary`, only whether a run that was named is there.

    Raises `JobError` where the job names a run that is none, so that it is found out before money is spent.
    """
    against = gate.no_regression.against if gate.no_regression is not None else "last"
    if against == "last":
        return Reference() if summary is None else _last_good(home, summary)
    name = home.baseline() if against == "baseline" else against
    if name is None:
        return Reference(why="no baseline is set (batchrun history JOB --baseline RUN)")
    for folder in (home.path / name, Path(name)):
        if (folder / "results.parquet").exists():
            return Reference(folder=folder)
    message = f"there is no finished run {name} to compare with"
    hint = 'against = "last", a run\'s folder, or `batchrun history JOB --baseline RUN`'
    raise JobError([Problem(message=message, field="gate.no_regression.against", hint=hint)])


def _last_good(home: Home, summary: Mapping[str, Any]) -> Reference:
    """Return the newest good run that answers the same question, the same dataset before another."""
    digest = summary["dataset_digest"]
    alike = [rows for rows in _alike(home, summary) if {row["exit_code"] for row in rows} == {0}]
    alike = [rows for rows in alike if (home.folder_of(rows[0]) / "results.parquet").exists()]
    same = [rows for rows in alike if rows[0]["dataset_digest"] == digest]
    chosen = (same or alike)[-1:]
    return Reference(folder=home.folder_of(chosen[0][0])) if chosen else Reference(why="there is no earlier good run yet")


def _alike(home: Home, summary: Mapping[str, Any]) -> list[Rows]:
    """Return the earlier runs of the same models and kind (simulated or real), in the order in which they ended."""
    models = {model["model"] for model in summary["models"]}
    earlier = takewhile(lambda run: run[0] != summary["run_id"], runs(home.rows()).items())
    return [
        rows
        for _, rows in earlier
        if {row["model"] for row in rows} == models and rows[0]["simulated"] == bool(summary.get("simulated"))
    ]


def verdicts(gate: Gate, home: Home, summary: Mapping[str, Any]) -> list[Verdict]:
    """Return the verdict of every gate the job has set on a run that came to its end. Raises `StorageError`."""
    comparison, against, chosen = None, None, False
    if gate.no_regression is not None:
        other = reference(gate, home, summary)
        comparison, against = _compared(gate.no_regression.alpha, other, summary)
        chosen = other.folder is not None and gate.no_regression.against != "last"
    drifts = _drifts(home, summary) if gate.max_drift_sd is not None else None
    return judge(gate, summary, comparison=comparison, against=against, chosen=chosen, drifts=drifts)


def _compared(alpha: float, chosen: Reference, summary: Mapping[str, Any]) -> tuple[Comparison | None, str]:
    """Return the comparison with the chosen run and what to call that run, or None and why there is none."""
    from batchrun.report.comparison import compare_runs, read_summary  # noqa: PLC0415 - only for a gate against another run

    if chosen.folder is None:
        return None, chosen.why
    before = read_summary(chosen.folder)
    changed = before.get("dataset_digest") != summary.get("dataset_digest")
    named = f"{before['run_id']} (the dataset has changed since)" if changed else str(before["run_id"])
    try:
        return compare_runs(before, summary, alpha=alpha, any_dataset=True), named
    except UsageError as error:
        return None, f"{named}: {error}"


def _drifts(home: Home, summary: Mapping[str, Any]) -> dict[str, Drift | None]:
    """Return each model's drift from the runs before, None where there are too few of them."""
    from batchrun.statistics.drift import drift  # noqa: PLC0415 - only for a gate on drift

    past = [rows for rows in _alike(home, summary) if rows[0]["exit_code"] in JUDGED]
    past = [rows for rows in past if rows[0]["dataset_digest"] == summary["dataset_digest"]]
    return {
        model["model"]: drift(
            model["accuracy"]["value"],
            [row["accuracy"] for rows in past for row in rows if row["model"] == model["model"]],
            se=standard_error(model["accuracy"]),
        )
        for model in summary["models"]
    }


def standard_error(estimate: Mapping[str, Any]) -> float | None:
    """Return the standard error that an estimate's interval stands for."""
    if estimate.get("low") is None or estimate.get("high") is None:
        return None
    from statistics import NormalDist  # noqa: PLC0415 - only for a gate on drift

    reach = NormalDist().inv_cdf(0.5 + estimate["confidence"] / 2)
    return float((estimate["high"] - estimate["low"]) / (2 * reach))


def plain(found: list[Verdict]) -> list[dict[str, Any]]:
    """Return verdicts as the values of `summary.json`."""
    return [{"name": verdict.name, "passed": verdict.passed, "detail": verdict.detail} for verdict in found]


def described(error: BatchrunError) -> str:
    """Return an error as one line."""
    return " ".join(str(error).split())
