"""From what the job allows a minute to the moment each call may be sent: one gate in front of three budgets.

Calls enter the gate in order and leave it in order. The one at its head feeds for all: it takes one request,
its input tokens and its output tokens from three leaky buckets (`aiolimiter`), and only then the next one
moves up, so a large call is never overtaken by small ones. What aiolimiter lacks is made here:

- *No opening burst*: a bucket holds `SLACK_S` seconds of its rate, just enough that a timer that fires late
  costs nothing. Large amounts are taken in slices. `burst_s` seconds of budget may be sent at once where the
  job says so; the rest of that minute is then slower, so that no minute exceeds its limit.
- *No refund*: a call reserves an estimate and settles with the real usage; the difference is carried into
  the amount that the next call takes. Estimates are learnt from the usages settled so far.
- *No window*: a minute's sum of lumps is watched by `SlidingMinute`.
- *The endpoint's word*: a limit it states lowers ours; what it says remains is spread evenly until its reset;
  nothing left holds the gate until then.

Input that was read from the prompt cache does not count. Time is the running event loop's own. This module
refuses to know what a request holds and what a header is called.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from batchrun.engine.window import BIN_S, WINDOW_S, SlidingMinute
from batchrun.job import Limits
from batchrun.records import Usage
from batchrun.wire.ratelimit import Limit, RateLimits

SLACK_S: Final = 0.02  # of a request bucket: calls in any second stay within 1.02 of the rate, and one
TOKEN_SLACK_S: Final = 0.05
NETWORK_JITTER_S: Final = 0.1  # sends of 60.1 s may arrive within 60 s
TICK_S: Final = 0.005  # calls that become due within one tick share one timer
MAX_CREDIT_S: Final = 5.0  # of unused estimates that may be carried forward
MAX_BURST_S: Final = 50.0
MAX_STRETCH: Final = 50.0
LEARNING: Final = 0.05  # weight of the newest usage in a learnt estimate
QUEUE_S: Final = 0.1  # calls waiting at the gate: as many as pass in this time

Ticket = tuple[float, float, int, int]
"""What a call reserved: input tokens, output tokens, and the bins of the two minutes they count in."""


class RateBudget:
    """One rate, in units a minute: a paced bucket, the carried difference, and for tokens the sliding minute."""

    def __init__(self, limit: float, *, lumpy: bool, burst_s: float, now: float, lag_s: float = 0.0) -> None:
        """Allow `limit` units a minute; `lumpy` ones (tokens) are watched by the sliding minute as well.

        What is taken may be sent up to `lag_s` seconds later.
        """
        self.configured = limit
        self._lag_s = lag_s
        self._slack_s = TOKEN_SLACK_S if lumpy else SLACK_S
        self._minute = SlidingMinute() if lumpy else None
        self._held_until = self._changed_at = now
        self._owed = 0.0
        self._stretch = 1.0
        burst_s = min(burst_s, MAX_BURST_S)
        self._burst_left = float(int(limit * burst_s / WINDOW_S))
        self._burst_end: float | None = None  # a minute after the first call, once there was one
        self._burst_stretch = WINDOW_S / (WINDOW_S - burst_s)
        self._set_limit(limit)

    def _set_limit(self, limit: float) -> None:
        """Pace at `limit` a minute: a bucket of one unit and `_slack_s` seconds, a hair below the rate.

        n calls need n units, of which a full bucket has 1 + slack at once: in any 60 s and the margin, fewer
        than limit + 1 calls are let through.
        """
        from aiolimiter import AsyncLimiter  # noqa: PLC0415 - 15 ms, only where the job or the endpoint states a limit

        self.limit = limit
        margin = NETWORK_JITTER_S + self._lag_s + (2 * BIN_S if self._minute is not None else 0.0)
        rate = limit / (WINDOW_S + self._slack_s + margin)
        capacity = 1.0 + rate * self._slack_s
        self._bucket = AsyncLimiter(capacity, capacity / rate)
        self._coalesces = self._minute is None and rate * TICK_S > 1
        self._slice = 1.0 + (rate * self._slack_s / 2 if self._minute is not None else 0.0)

    async def take(self, amount: float) -> None:
        """Wait until `amount` may be sent, and pay for it."""
        loop = asyncio.get_running_loop()
        await _wait_while(lambda: self._held_until - loop.time())
        if (minute := self._minute) is not None:
            await _wait_while(lambda: minute.wait(amount, self.limit, loop.time()))
        await self._pay(amount, loop.time())

    def sent(self, amount: float, now: float) -> int:
        """Count `amount` as sent now; return its bin in the sliding minute (0 where there is none)."""
        return self._minute.add(amount, now) if self._minute is not None else 0

    async def _pay(self, amount: float, now: float) -> None:
        """Take `amount` and what is owed from the bucket, slice by slice; a credit or the burst pays first."""
        if self._burst_end is None:
            self._burst_end = now + WINDOW_S
        if self._burst_left >= amount > 0:
            self._burst_left -= amount
            return
        self._burst_left = 0.0
        stretch = self._stretch * (self._burst_stretch if now < self._burst_end else 1.0)
        self._owed += amount * stretch
        while self._owed > 1e-9:
            part = min(self._owed, self._slice)
            if self._coalesces and not self._bucket.has_capacity(part):
                await asyncio.sleep(TICK_S)
            await self._bucket.acquire(part)
            self._owed -= part

    def settle(self, reserved: float, real: float, number: int, now: float) -> None:
        """Replace what a call reserved by what it used."""
        change = real - reserved
        self._owed = max(self._owed + change, -self.limit / WINDOW_S * MAX_CREDIT_S)
        if self._minute is not None:
            self._minute.correct(number, change, now)

    def correct(self, state: Limit, now: float, max_wait_s: float) -> None:
        """Follow the endpoint's own account: its limit where that is lower, what remains until its reset."""
        stated = self.configured if state.limit is None else min(self.configured, state.limit)
        if 0 < stated < self.limit or (stated > self.limit and now - self._changed_at >= WINDOW_S):
            self._set_limit(stated)
            self._owed += self._slice  # the new bucket begins full
            self._changed_at = now
        self._stretch = 1.0
        if state.remaining is None or state.reset_s is None or state.reset_s <= 0:
            return
        if state.remaining <= 0:
            self._held_until = max(self._held_until, now + min(state.reset_s, max_wait_s))
        elif state.reset_s >= 1:
            allowed = state.remaining / state.reset_s
            self._stretch = min(max(self.limit / WINDOW_S / allowed, 1.0), MAX_STRETCH)


class Estimates:
    """What a call will really count, learnt from those that are settled: a ratio for input, a mean for output."""

    __slots__ = ("_input_ratio", "_output_mean")

    def __init__(self) -> None:
        """Know nothing: the caller's estimate and `max_tokens` are taken as they are."""
        self._input_ratio: float | None = None
        self._output_mean: float | None = None

    def input(self, estimate: int) -> float:
        """Return the input tokens a call will count."""
        return estimate if self._input_ratio is None else estimate * self._input_ratio

    def output(self, max_tokens: int) -> float:
        """Return the output tokens a call will count."""
        return max_tokens if self._output_mean is None else min(max_tokens, self._output_mean)

    def learn(self, estimate: int, counted_input: float | None, output: int | None) -> None:
        """Take note of one settled usage."""
        if counted_input is not None and estimate > 0:
            self._input_ratio = _blend(self._input_ratio, counted_input / estimate)
        if output is not None:
            self._output_mean = _blend(self._output_mean, output)


class Pacing(Protocol):
    """What the engine needs of a gate; times are the event loop's."""

    @property
    def hungry(self) -> bool:
        """Whether another call should come: more would only be chosen too early."""

    async def enter(self, input_tokens: int, max_tokens: int) -> Ticket:
        """Wait for a call's turn; return what it reserved, for `settle`."""

    def settle(self, ticket: Ticket, usage: Usage | None, input_tokens: int, now: float) -> None:
        """Replace a reservation by the real usage."""

    def correct(self, told: RateLimits, now: float) -> None:
        """Follow what a response's headers say."""

    def pause(self, until: float) -> None:
        """Let nothing through before `until`."""


class Gate:
    """The one way to the endpoint where the job states a rate; calls pass in the order they came."""

    __slots__ = ("_estimates", "_input", "_lock", "_max_queue", "_max_wait_s", "_output", "_paused_until", "_requests", "waiting")

    def __init__(self, limits: Limits, *, now: float, lag_s: float = 0.0) -> None:
        """Build the budgets that `limits` states; `now` is the event loop's time; sends follow within `lag_s` seconds."""

        def budget(limit: float | None, *, lumpy: bool) -> RateBudget | None:
            return None if limit is None else RateBudget(limit, lumpy=lumpy, burst_s=limits.burst_s, now=now, lag_s=lag_s)

        self._requests = budget(limits.rpm, lumpy=False)
        self._input = budget(limits.itpm, lumpy=True)
        self._output = budget(limits.otpm, lumpy=True)
        self._estimates = Estimates()
        self._lock = asyncio.Lock()
        self._max_wait_s = limits.max_wait_s
        self._paused_until = now
        self._max_queue = 16 if limits.rpm is None else 2 + int(limits.rpm / WINDOW_S * QUEUE_S)
        self.waiting = 0

    @property
    def hungry(self) -> bool:
        """Whether another call should come to the gate: more would only be chosen too early."""
        return self.waiting < self._max_queue

    async def enter(self, input_tokens: int, max_tokens: int) -> Ticket:
        """Wait for this call's turn and for all its budgets; return what it reserved, for `settle`."""
        self.waiting += 1
        try:
            async with self._lock:
                return await self._feed(self._estimates.input(input_tokens), self._estimates.output(max_tokens))
        finally:
            self.waiting -= 1

    async def enter_many(self, calls: int, input_tokens: float, output_tokens: float) -> Ticket:
        """Wait until all of `calls` calls may be sent, which count these tokens together; for `settle_many`.

        So much is taken from all budgets side by side: what one of them gains while another pays is soon lost.
        """
        amounts = ((self._requests, calls), (self._input, input_tokens), (self._output, output_tokens))
        async with self._lock:
            async with asyncio.TaskGroup() as group:
                for budget, amount in amounts:
                    if budget is not None:
                        group.create_task(budget.take(amount))
            return await self._passed(input_tokens, output_tokens)

    async def _feed(self, reserved_input: float, reserved_output: float) -> Ticket:
        """Take from each budget in turn, the request last, so that the send follows its own pace."""
        if self._input is not None:
            await self._input.take(reserved_input)
        if self._output is not None:
            await self._output.take(reserved_output)
        if self._requests is not None:
            await self._requests.take(1.0)
        return await self._passed(reserved_input, reserved_output)

    async def _passed(self, reserved_input: float, reserved_output: float) -> Ticket:
        """Wait for the end of a pause and count what is now sent."""
        loop = asyncio.get_running_loop()
        await _wait_while(lambda: self._paused_until - loop.time())
        now = loop.time()
        input_bin = self._input.sent(reserved_input, now) if self._input is not None else 0
        output_bin = self._output.sent(reserved_output, now) if self._output is not None else 0
        return reserved_input, reserved_output, input_bin, output_bin

    def settle(self, ticket: Ticket, usage: Usage | None, input_tokens: int, now: float) -> None:
        """Replace the reservation by the real usage; None: no usage is known, the input stands, no output."""
        reserved_input, reserved_output, input_bin, output_bin = ticket
        counted = counted_input(usage)
        output = usage.output_tokens if usage is not None else None
        if self._input is not None and counted is not None:
            self._input.settle(reserved_input, counted, input_bin, now)
        if self._output is not None and (output is not None or usage is None):
            self._output.settle(reserved_output, output or 0, output_bin, now)
        self._estimates.learn(input_tokens, counted, output)

    def settle_many(
        self, unused: int, input_changes: Mapping[int, float], output_changes: Mapping[int, float], now: float
    ) -> None:
        """Take back room for `unused` calls; replace reserved tokens by used ones, each difference under its ticket's bin."""
        if self._requests is not None and unused:
            self._requests.settle(unused, 0.0, 0, now)
        for budget, changes in ((self._input, input_changes), (self._output, output_changes)):
            if budget is None:
                continue
            for number, change in changes.items():
                budget.settle(0.0, change, number, now)

    def correct(self, told: RateLimits, now: float) -> None:
        """Follow what a response's headers say about each budget that the job states."""
        pairs = ((told.requests, self._requests), (told.input_tokens, self._input), (told.output_tokens, self._output))
        for state, budget in pairs:
            if budget is not None and state is not None:
                budget.correct(state, now, self._max_wait_s)
        tokens = told.tokens
        if tokens is not None and tokens.remaining == 0 and tokens.reset_s:
            self.pause(now + min(tokens.reset_s, self._max_wait_s))

    def pause(self, until: float) -> None:
        """Let nothing through before `until`."""
        self._paused_until = max(self._paused_until, until)


def open_gate(limits: Limits, *, now: float, lag_s: float = 0.0) -> Gate | None:
    """Return a gate for the rates that `limits` states, None where it states none: then nothing is paced."""
    if limits.rpm is None and limits.itpm is None and limits.otpm is None:
        return None
    return Gate(limits, now=now, lag_s=lag_s)


async def _wait_while(left: Callable[[], float]) -> None:
    """Sleep for as many seconds as `left` says, until it says none."""
    while (seconds := left()) > 0:  # noqa: ASYNC110 - the moment waited for may have moved in the meantime
        await asyncio.sleep(seconds)


def counted_input(usage: Usage | None) -> float | None:
    """Return the input tokens that count to the limit: uncached ones and cache writes, not cache reads."""
    if usage is None or usage.input_tokens is None:
        return None
    return usage.input_tokens + (usage.cache_write_5m_tokens or 0) + (usage.cache_write_1h_tokens or 0)


def _blend(old: float | None, new: float) -> float:
    """Return the exponentially weighted mean with `new` in it."""
    return new if old is None else old + LEARNING * (new - old)
