"""What several engines did, in one: counters added up, histograms and timelines joined, one summary.

Moments become seconds from the run's beginning; who measured what is forgotten. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final

from batchrun.engine.concurrency import MAX_HISTORY, Change
from batchrun.engine.distributed.messages import Measured
from batchrun.engine.telemetry import EngineSummary, Progress, Telemetry, rate_used
from batchrun.errors import BatchrunError
from batchrun.job import Limits
from batchrun.statistics.histogram import LogHistogram

NOT_SUMS: Final = frozenset({"cost", "outage", "paused_until", "ttft_ms"})
SUMS: Final = tuple(name for name in Progress.__struct_fields__ if name not in NOT_SUMS)


def add_up(parts: Iterable[Progress]) -> Progress:
    """Return counters that are the sums of the parts'; `ttft_ms` is the mean of those that know one."""
    total, costs, waits = Progress(), [], []
    for part in parts:
        for name in SUMS:
            setattr(total, name, getattr(total, name) + getattr(part, name))
        if part.cost is not None:
            costs.append(part.cost)
        if part.ttft_ms is not None:
            waits.append(part.ttft_ms)
    total.cost = sum(costs, Decimal(0)) if costs else None
    total.ttft_ms = sum(waits) / len(waits) if waits else None
    return total


def copy_into(target: Progress, source: Progress) -> None:
    """Make the counters that somebody watches equal to newer ones; the pause is of another clock and stays."""
    for name in (*SUMS, "cost", "ttft_ms"):
        setattr(target, name, getattr(source, name))


def measured(telemetry: Telemetry, concurrency: Sequence[Change], now: float) -> Measured:
    """Return what one engine measured, to be sent; `now` is in the time of its clock."""
    telemetry.gather()
    return Measured(
        began_ago_s=now - telemetry.began,
        histograms={name: histogram.to_builtins() for name, histogram in telemetry.histograms.items()},
        width_s=telemetry.timeline.width_s,
        bins=telemetry.timeline.bins,
        concurrency=list(concurrency),
    )


def summarize(
    parts: Sequence[Measured], progress: Progress, limits: Limits, wall_s: float, stopped: BatchrunError | None
) -> EngineSummary:
    """Return one summary of all engines of a run that began `wall_s` seconds ago."""
    telemetry = Telemetry(0.0, progress)
    for part in parts:
        began = wall_s - part.began_ago_s
        for name, plain in part.histograms.items():
            telemetry.histograms[name].merge(LogHistogram.from_builtins(plain))
        for place, piece in enumerate(part.bins):
            here = telemetry.timeline.at(max(0.0, began + (place + 0.5) * part.width_s))
            for name in piece.__struct_fields__:
                setattr(here, name, getattr(here, name) + getattr(piece, name))
    return EngineSummary(
        progress=progress,
        wall_s=wall_s,
        stopped=stopped,
        concurrency=tuple(_joined([(wall_s - part.began_ago_s, part.concurrency) for part in parts])),
        timeline_width_s=telemetry.timeline.width_s,
        timeline=tuple(telemetry.timeline.bins),
        distributions=telemetry.distributions(),
        rate_used=rate_used(progress, limits, wall_s),
    )


def _joined(histories: Sequence[tuple[float, Sequence[Change]]]) -> list[Change]:
    """Return the history of the sum of several limits."""
    each = ((began + change.at_s, place, change) for place, (began, history) in enumerate(histories) for change in history)
    changes = sorted(each, key=lambda entry: entry[0])
    now: dict[int, int] = {}
    joined = []
    for at_s, place, change in changes:
        now[place] = change.limit
        joined.append(Change(max(0.0, at_s), sum(now.values()), change.why))
    return joined[:: -(-len(joined) // MAX_HISTORY) or 1]
