"""The value behind `summary.json`, the terminal's table and every page: one shape, built in one place.

It joins what the tally counted with what the run knows of itself. Whoever draws a run draws this value and
computes nothing, so that no two views of a run can disagree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from batchrun.pricing.lines import CostSummary

SCHEMA_VERSION = 1


def build_summary(
    about: Mapping[str, Any], models: Sequence[Mapping[str, Any]], costs: CostSummary, *, expected_rows: int
) -> dict[str, Any]:
    """Return the summary of a run.

    `about` is what the run knows of itself (job, run_id, folder, stopped, simulated, …) and is laid on top;
    `models` are `ModelTally.summary` values; `costs` is the money of all of them; `expected_rows` counts (row, model, repeat).
    """
    rows: Counter[str] = Counter()
    for model in models:
        rows.update(model["rows"])
    return {
        "schema_version": SCHEMA_VERSION,
        **about,
        "rows": {"total": expected_rows, **rows},
        "models": list(models),
        "cost": costs,
        "errors": _errors(models),
        "unpriced_models": sorted(costs.unpriced),
        "estimate": _beside(about, rows, models, costs, expected_rows),
    }


def _beside(
    about: Mapping[str, Any], rows: Counter[str], models: Sequence[Mapping[str, Any]], costs: CostSummary, expected_rows: int
) -> dict[str, Any] | None:
    """Return the estimate that was made of the run with what it came to, None where none was made.

    `held` says whether the cost is within the estimate's ends; None while the run is not whole or one of them is not known.
    """
    estimate = about.get("estimate")
    if estimate is None:
        return None
    ends, total = estimate["cost"], costs.total
    known = ends is not None and total is not None and not costs.unpriced and rows["landed"] >= expected_rows
    actual = {
        "cost": total,
        "hours": about["wall_s"] / 3600,
        **{f"{kind}_tokens": sum(model["tokens"][kind] or 0 for model in models) for kind in ("input", "output")},
    }
    return {**estimate, "actual": actual, "held": ends["low"] <= float(total) <= ends["high"] if known and total else None}


def _errors(models: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the kinds of error of all models, most frequent first, each with one example."""
    found: dict[str, dict[str, Any]] = {}
    for model in models:
        for error in model["errors"]:
            entry = found.setdefault(error["what"], {**error, "count": 0})
            entry["count"] += error["count"]
    return sorted(found.values(), key=lambda error: -int(error["count"]))
