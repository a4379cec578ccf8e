"""A run's summary held against the job's `[gate]`: what must hold for exit 0, one line a gate.

A gate on a figure that is undefined fails: a release is not waved through because nothing could be measured.
A provider's outage is not a regression: rows without an answer are outside the paired test and outside accuracy;
they have a gate of their own, `max_error_rate`. This module is handed figures and decides; it reads no run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from batchrun.errors import GateFailed
from batchrun.job import Gate
from batchrun.report.words import interval, milliseconds, money, percent

if TYPE_CHECKING:
    from batchrun.statistics.compare import Comparison
    from batchrun.statistics.drift import Drift

_ROUNDING = 1e-12
"""A mean of repeats falls short of what it stands for by less: 12 of 15 is at least 0.8."""


class Verdict(Struct, frozen=True, kw_only=True):
    """One gate: its name (with the model, where there are several), whether it held, and the figures in words."""

    name: str
    passed: bool
    detail: str


def judge(
    gate: Gate,
    summary: Mapping[str, Any],
    *,
    comparison: Comparison | None = None,
    against: str | None = None,
    chosen: bool = False,
    drifts: Mapping[str, Drift | None] | None = None,
) -> list[Verdict]:
    """Return the verdict of every gate the job has set, in the order of the job's keys.

    `comparison` is of the run named `against` with this one; None where there is none, and `against` says why (then
    `no_regression` holds: the first run has nothing to lose). `chosen`: that run was named by the job's owner, and is not
    just the last one; then a run with verdicts of which none can be held against it fails. `drifts` are by model, None
    where the past is too short.
    """
    verdicts: list[Verdict] = []
    for model in summary["models"]:
        label = f" ({model['model']})" if len(summary["models"]) > 1 else ""
        if gate.min_accuracy is not None:
            verdicts.append(_accuracy(gate.min_accuracy, gate.on, model["accuracy"], label))
        if gate.max_p95_latency_ms is not None:
            verdicts.append(_latency(gate.max_p95_latency_ms, model["latency_ms"], label))
        drift = (drifts or {}).get(model["model"])
        if gate.max_drift_sd is not None:
            verdicts.append(_drift(gate.max_drift_sd, drift, model["accuracy"]["value"], label))
    if gate.max_error_rate is not None:
        verdicts.append(_errors(gate.max_error_rate, summary["rows"]))
    if gate.max_cost_usd is not None:
        verdicts.append(_cost(gate.max_cost_usd, summary["cost"]))
    if gate.no_regression is not None:
        measured = any(model["accuracy"]["value"] is not None for model in summary["models"])
        verdicts.append(_regression(gate.no_regression.alpha, comparison, against, may_pass_untold=not (chosen and measured)))
    return verdicts


def require(verdicts: Sequence[Verdict]) -> None:
    """Raise `GateFailed` (exit 8) with one line a failed gate, if one failed."""
    failed = [verdict for verdict in verdicts if not verdict.passed]
    if failed:
        raise GateFailed("\n".join(f"gate {verdict.name} failed: {verdict.detail}" for verdict in failed))


def _accuracy(wanted: float, end: str, accuracy: Mapping[str, Any], label: str) -> Verdict:
    figure = accuracy["value"] if end == "point" else accuracy["low"]
    named = "accuracy" if end == "point" else "the interval's lower end"
    detail = f"{named} is {percent(figure)} of at least {percent(wanted)}; accuracy {interval(accuracy)}, n = {accuracy['n']:,}"
    passed = figure is not None and figure >= wanted - _ROUNDING
    return Verdict(name=f"min_accuracy{label}", passed=passed, detail=detail)


def _latency(most: float, times: Mapping[str, Any], label: str) -> Verdict:
    p95 = times.get("p95")
    detail = f"95th percentile is {milliseconds(p95)} of at most {milliseconds(most)}"
    return Verdict(name=f"max_p95_latency_ms{label}", passed=p95 is not None and p95 <= most, detail=detail)


def _drift(most: float, drift: Drift | None, accuracy: float | None, label: str) -> Verdict:
    name = f"max_drift_sd{label}"
    if accuracy is None:
        return Verdict(name=name, passed=False, detail="there is no accuracy to measure a drift of")
    if drift is None:
        from batchrun.statistics.drift import MIN_BASELINE  # noqa: PLC0415 - only for a gate on drift

        detail = f"no drift can be told before there are {MIN_BASELINE} runs over this dataset"
        return Verdict(name=name, passed=True, detail=detail)
    baseline = f"{percent(drift.baseline)}, the mean of {drift.runs} runs"
    detail = f"accuracy is {drift.z:+.1f} standard deviations from {baseline}; at most ±{most:g} allowed"
    return Verdict(name=name, passed=abs(drift.z) <= most, detail=detail)


def _errors(most: float, rows: Mapping[str, int]) -> Verdict:
    landed, errored = rows["landed"], rows["landed"] - rows["succeeded"]
    share = errored / landed if landed else None
    detail = f"{errored:,} of {landed:,} rows have no answer: {percent(share)} of at most {percent(most)}"
    return Verdict(name="max_error_rate", passed=share is not None and share <= most, detail=detail)


def _cost(most: Decimal, cost: Mapping[str, Any]) -> Verdict:
    total, unpriced = cost["total"], sum(cost["unpriced"].values())
    passed = total is not None and not unpriced and Decimal(total) <= most
    unknown = f"; {unpriced:,} rows have no price" if unpriced else ""
    more = cost.get("waste_unknown")
    unknown += f"; what was wasted is not all known (rows: {more:,})" if more else ""
    return Verdict(name="max_cost_usd", passed=passed, detail=f"cost is {money(total)} of at most {money(most)}{unknown}")


def _regression(alpha: float, comparison: Comparison | None, against: str | None, *, may_pass_untold: bool) -> Verdict:
    if comparison is None:
        return Verdict(name="no_regression", passed=may_pass_untold, detail=against or "there is no run to compare with")
    overall, named = comparison.overall, against or "the earlier run"
    if overall is None:
        detail = f"no row has a verdict in both this run and {named}: there is no loss to be told"
        return Verdict(name="no_regression", passed=may_pass_untold, detail=detail)
    difference = overall.difference
    detail = (
        f"{difference.value:+.1%} against {named} over {overall.rows:,} shared rows, p = {overall.p_value:.3g} "
        f"({overall.method}), alpha = {alpha:g}"
    )
    return Verdict(name="no_regression", passed=not comparison.worse(alpha), detail=detail)
