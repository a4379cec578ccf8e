"""What a run did, in bounded memory: distributions, a timeline, counters, and the summary made of them.

A million calls leave a few kilobytes: quantiles come from histograms, into which the clocks of many answers go at
once, and the timeline doubles the width of its bins whenever it is full. The terminal reads `Progress`; the run's
summary is `EngineSummary`. Nothing here has a clock: times are handed in.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from msgspec import Struct, field

from batchrun.engine.concurrency import Change
from batchrun.errors import BatchrunError
from batchrun.job import Limits
from batchrun.records import Attempt, Reply
from batchrun.statistics.histogram import LogHistogram

MAX_BINS: Final = 240
FIRST_BIN_S: Final = 1.0
LATELY: Final = 0.05  # weight of the newest time to first event in the average that the terminal shows
GATHERED: Final = 1024  # answers whose clocks go into the histograms together
QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


class Bin(Struct):
    """What happened in one stretch of the run."""

    sent: int = 0
    refused: int = 0  # 429, 529 and their like
    faults: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class Timeline:
    """At most `MAX_BINS` bins of equal width from the run's beginning; the width doubles when they are full."""

    __slots__ = ("bins", "width_s")

    def __init__(self) -> None:
        """Begin with bins of one second."""
        self.width_s = FIRST_BIN_S
        self.bins: list[Bin] = [Bin()]

    def at(self, elapsed_s: float) -> Bin:
        """Return the bin of this moment, to count in."""
        place = max(0, int(elapsed_s / self.width_s))
        while place >= MAX_BINS:
            self._halve()
            place = int(elapsed_s / self.width_s)
        while len(self.bins) <= place:
            self.bins.append(Bin())
        return self.bins[place]

    def _halve(self) -> None:
        """Join neighbours."""
        joined = []
        for left, right in zip(self.bins[::2], [*self.bins[1::2], Bin()], strict=False):
            joined.append(
                Bin(
                    left.sent + right.sent,
                    left.refused + right.refused,
                    left.faults + right.faults,
                    left.input_tokens + right.input_tokens,
                    left.output_tokens + right.output_tokens,
                )
            )
        self.bins = joined
        self.width_s *= 2


class Progress(Struct):
    """Counters of a run under way, read by the terminal at any moment. Rows count as done once durable."""

    sent: int = 0  # attempts
    landed: int = 0  # rows with an answer or a last failure, handed to the journal
    errored: int = 0  # of them, without an answer
    cached: int = 0  # of them, answered by the response cache
    durable: int = 0  # rows on disk: moved on by the journal's sync
    retrying: int = 0  # rows waiting for another try
    in_flight: int = 0
    batches: int = 0  # that those in flight are in, with the Batches endpoint
    retries: int = 0
    refused: int = 0  # attempts that met a limit or an overload
    wasted: int = 0  # attempts billed and thrown away
    input_tokens: int = 0  # without what was read from the prompt cache
    output_tokens: int = 0
    cost: Decimal | None = None  # so far, where the run counts money
    concurrency: int = 0
    paused_until: float = 0.0  # of the whole run, in the event loop's time
    outage: bool = False  # the pause is ours, since no call is answered
    ttft_ms: float | None = None  # of late: a moving average


class EngineSummary(Struct, frozen=True, kw_only=True):
    """What `drive` did. `stopped` is None when every request has landed, else why it did not go on."""

    progress: Progress
    wall_s: float
    stopped: BatchrunError | None
    concurrency: tuple[Change, ...]
    timeline_width_s: float
    timeline: tuple[Bin, ...]
    distributions: dict[str, dict[str, float | None]]
    """By `queued_ms`, `ttft_ms`, `first_call_ms`, `latency_ms`, `gap_ms` (mean gap between the events of a reply),
    `max_gap_ms` (the longest silence within a reply) and `tokens_per_s` (output tokens after the first event)."""
    rate_used: dict[str, float] = field(default_factory=dict)
    """Share of each stated rate that was used over the run, by `rpm`, `itpm`, `otpm`."""
    batches: tuple[str, ...] = ()
    """The ids of all batches that the run has submitted so far, earlier sessions included."""


class Telemetry:
    """Counts attempts as they end."""

    def __init__(self, began: float, progress: Progress) -> None:
        """Count in `progress` as well; `began` is the run's beginning in the event loop's time."""
        self.began = began
        self.progress = progress
        self.timeline = Timeline()
        names = ("queued_ms", "ttft_ms", "first_call_ms", "latency_ms", "gap_ms", "max_gap_ms", "tokens_per_s")
        self.histograms = {name: LogHistogram() for name in names}
        self._clocks: list[tuple[float | None, ...]] = []  # of answers that the histograms do not know yet

    def sent(self, now: float) -> None:
        """Count a send."""
        self.progress.sent += 1
        self.timeline.at(now - self.began).sent += 1

    def ended(self, attempt: Attempt, now: float) -> None:
        """Count an attempt that has ended, landed or not."""
        here = self.timeline.at(now - self.began)
        failure = attempt.failure
        if failure is not None:
            if failure.slows_run:
                self.progress.refused += 1
                here.refused += 1
            else:
                here.faults += 1
        elif attempt.reply is not None:
            self._distribute(attempt, attempt.reply)
        usage = attempt.usage
        if usage is not None:
            writes = (usage.cache_write_5m_tokens or 0) + (usage.cache_write_1h_tokens or 0)
            tokens_in, tokens_out = (usage.input_tokens or 0) + writes, usage.output_tokens or 0
            self.progress.input_tokens += tokens_in
            self.progress.output_tokens += tokens_out
            here.input_tokens += tokens_in
            here.output_tokens += tokens_out

    def _distribute(self, attempt: Attempt, reply: Reply) -> None:
        """Count an answer's clocks."""
        ttft = attempt.ttft_ms
        if ttft is not None:
            of_late = self.progress.ttft_ms
            self.progress.ttft_ms = ttft if of_late is None else of_late + LATELY * (ttft - of_late)
        output = reply.usage.output_tokens
        self._clocks.append(
            (attempt.queued_ms, ttft, attempt.first_call_ms, attempt.latency_ms, attempt.max_gap_ms, attempt.events, output)
        )
        if len(self._clocks) >= GATHERED:
            self.gather()

    def gather(self) -> None:
        """Bring the histograms up to date."""
        if not self._clocks:
            return
        import numpy as np  # noqa: PLC0415 - loaded by those who need it

        told = np.array(self._clocks, np.float64).T  # what is not known is NaN
        self._clocks.clear()
        queued, ttft, first_call, latency, max_gap, events, output = told
        add = {name: histogram.add_many for name, histogram in self.histograms.items()}
        for name, clock in (("queued_ms", queued), ("ttft_ms", ttft), ("first_call_ms", first_call), ("latency_ms", latency)):
            add[name](np.maximum(clock[~np.isnan(clock)], 0.0))
        streamed = latency - ttft
        gaps = (streamed > 0) & (events > 1)
        add["gap_ms"](streamed[gaps] / (events[gaps] - 1), events[gaps] - 1)
        add["max_gap_ms"](max_gap[gaps & ~np.isnan(max_gap)])
        fast = (streamed > 0) & (output > 0)
        add["tokens_per_s"](output[fast] / streamed[fast] * 1000)

    def distributions(self) -> dict[str, dict[str, float | None]]:
        """Return the quantiles (`p50`, …) and the largest of everything that was measured."""
        self.gather()
        names = [f"p{share * 100:g}" for share in QUANTILES]
        return {
            kind: {
                **dict(zip(names, histogram.quantiles(QUANTILES), strict=True)),
                "max": histogram.highest if histogram.n else None,
            }
            for kind, histogram in self.histograms.items()
        }


def rate_used(progress: Progress, limits: Limits, wall_s: float) -> dict[str, float]:
    """Return the share of each stated rate that was used over `wall_s` seconds, by `rpm`, `itpm`, `otpm`."""
    used = {"rpm": progress.sent, "itpm": progress.input_tokens, "otpm": progress.output_tokens}
    stated = {"rpm": limits.rpm, "itpm": limits.itpm, "otpm": limits.otpm}
    return {name: used[name] / (limit * wall_s / 60) for name, limit in stated.items() if limit is not None and wall_s > 0}
