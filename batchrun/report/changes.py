"""A comparison of two runs → its figures in words, for every page that shows one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from batchrun.report.figures import Figure
from batchrun.report.words import UNKNOWN, interval, milliseconds, money, percent
from batchrun.statistics.clustered import Estimate
from batchrun.statistics.compare import Comparison, Contrast


def verdict(comparison: Comparison) -> str:
    """Say in one sentence what the comparison came to."""
    overall = comparison.overall
    if overall is None:
        return "no row has a verdict in both runs"
    if overall.p_value > comparison.alpha:
        return "no significant difference"
    return "B is better" if overall.difference.value > 0 else "B is worse"


def change_lines(comparison: Comparison, *, most: int | None = None) -> list[Figure]:
    """Return a line for all rows, each model, each tag, cost and latency: A, B, difference, rows, p.

    `most` keeps that many models and that many tags, those with the smallest p.
    """
    lines = [] if comparison.overall is None else [_line("Accuracy", comparison.overall, comparison.overall.p_value)]
    lines += _family("model", comparison.models, most) + _family("tag", comparison.tags, most)
    for name, estimate, words in (
        ("Cost a row", comparison.cost, money),
        ("Latency", comparison.latency_ms, milliseconds),
    ):
        if estimate is not None:
            lines.append(Figure(name, [UNKNOWN, UNKNOWN, signed(estimate, words), f"{estimate.n:,}", UNKNOWN]))
    return lines


def power(comparison: Comparison) -> str | None:
    """Say what this sample could have shown; None where that cannot be told."""
    overall = comparison.overall
    if overall is None or overall.detectable is None:
        return None
    half = f"; about {overall.rows_for_half:,} rows would show half of it" if overall.rows_for_half else ""
    return f"This sample shows a difference of {percent(overall.detectable)} 8 times in 10{half}."


def signed(estimate: Estimate, words: Callable[[float], str]) -> str:
    """Return a difference with its sign and interval."""

    def one(value: float) -> str:
        return f"{'+' if value >= 0 else '−'}{words(abs(value))}"

    if estimate.interval is None:
        return one(estimate.value)
    return f"{one(estimate.value)} [{one(estimate.interval.low)}, {one(estimate.interval.high)}]"


def _family(kind: str, contrasts: Sequence[Contrast], most: int | None) -> list[Figure]:
    """Return a line a model or tag, its p-value corrected for their number (Holm)."""
    kept = contrasts
    if most is not None and len(contrasts) > most:
        clearest = sorted(contrasts, key=lambda contrast: (contrast.p_value, contrast.name))
        kept = [contrast for contrast in contrasts if contrast in clearest[:most]]
    lines = [_line(f"{kind} {contrast.name}", contrast, contrast.holm_p, inner=True) for contrast in kept]
    left_out = len(contrasts) - len(kept)
    return lines + ([Figure(f"{left_out:,} {kind}s more", [UNKNOWN] * 5, inner=True)] if left_out else [])


def _line(name: str, contrast: Contrast, p: float | None, *, inner: bool = False) -> Figure:
    cells = [_share(contrast.before), _share(contrast.after), signed(contrast.difference, percent), f"{contrast.rows:,}"]
    return Figure(name, [*cells, "undefined" if p is None else f"{p:.3g}"], inner)


def _share(estimate: Estimate) -> str:
    low, high = estimate.interval or (None, None)
    return interval({"value": estimate.value, "low": low, "high": high})
