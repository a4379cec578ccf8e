"""What a run leaves behind: quantiles to 1 %, bounded memory, sums that add up."""

import math
import random

import pytest

from batchrun.engine.telemetry import GATHERED, MAX_BINS, Progress, Telemetry, Timeline, rate_used
from batchrun.job import Limits
from batchrun.records import Attempt, Reply, Usage


def answered(place: int, **clocks: float | None) -> Attempt:
    """Return an answer of 3 output tokens."""
    reply = Reply(form="anthropic_sse", text="", tool_uses=(), stop_reason="end_turn", usage=Usage(output_tokens=3))
    return Attempt(
        ordinal=place,
        attempt=1,
        final=True,
        status="succeeded",
        model="m",
        reply=reply,
        events=5,
        **clocks,  # type: ignore[arg-type]  # the clocks are floats
    )


def test_the_quantiles_are_those_of_all_answers_whatever_was_gathered_at_once() -> None:
    """A clock that was not taken counts nowhere; a mean gap counts once a gap."""
    chance, telemetry = random.Random(1), Telemetry(0.0, Progress())
    latencies = [chance.lognormvariate(5, 1) + 1 for _ in range(2 * GATHERED + 7)]
    for place, latency in enumerate(latencies):
        known = place % 3 > 0
        telemetry.ended(
            answered(
                place, queued_ms=0.0, ttft_ms=1.0 if known else None, latency_ms=latency, max_gap_ms=latency if known else None
            ),
            now=1.0,
        )
    found = telemetry.distributions()
    with_ttft = [latency for place, latency in enumerate(latencies) if place % 3]
    assert found["latency_ms"]["p95"] == pytest.approx(_exact(latencies, 0.95), rel=0.0101)
    assert found["latency_ms"]["max"] == max(latencies)
    assert found["max_gap_ms"]["max"] == max(with_ttft)
    assert found["gap_ms"]["p50"] == pytest.approx((_exact(with_ttft, 0.5) - 1) / 4, rel=0.0101)
    assert found["tokens_per_s"]["max"] == pytest.approx(3000 / (min(with_ttft) - 1))
    assert found["queued_ms"]["p99"] == 0.0
    assert set(found["first_call_ms"].values()) == {None}
    assert telemetry.histograms["gap_ms"].n == 4 * len(with_ttft)


def _exact(values: list[float], share: float) -> float:
    """Return the quantile by nearest rank."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def test_the_timeline_stays_bounded_and_loses_nothing() -> None:
    timeline = Timeline()
    for second in range(10_000):
        here = timeline.at(float(second))
        here.sent += 1
        here.refused += second % 2
        here.faults += 2
        here.input_tokens += 3
        here.output_tokens += 4
    assert len(timeline.bins) <= MAX_BINS
    assert timeline.width_s == 64
    assert sum(here.sent for here in timeline.bins) == 10_000
    assert sum(here.refused for here in timeline.bins) == 5000
    assert sum(here.faults for here in timeline.bins) == 20_000
    assert sum(here.input_tokens for here in timeline.bins) == 30_000
    assert sum(here.output_tokens for here in timeline.bins) == 40_000


def test_the_share_of_a_rate_is_told_for_stated_rates_alone() -> None:
    assert rate_used(Progress(sent=50), Limits(rpm=100), 60.0) == {"rpm": 0.5}
    assert rate_used(Progress(), Limits(rpm=100), 0.0) == {}
