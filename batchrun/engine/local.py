"""A stream of requests in, a landed attempt for each of them out: workers, and when each may send.

N long-lived workers share one synchronous iterator; none is made for a row, and the iterator is never read
ahead (but by the prompt-cache order, within bounds), so a million rows take the memory of a hundred. A worker
takes a call only when it may be sent soon: below the concurrency limit, no pause of the run, room at the gate,
money for its worst case. Otherwise it parks, and whatever makes room wakes one: a finished call, a grown limit,
a timer for the next due retry, a leader's first event. A worker that finds work wakes the next, so nobody polls.

To stop is to send nothing more, to give the calls in flight their grace, and to keep all that arrived. What
follows from how a call ended is `judging`'s. It refuses to know HTTP, JSON, files and prices.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from batchrun.engine.attempt import Call, Exchange
from batchrun.engine.backlog import Backlog
from batchrun.engine.budget import MoneyBudget
from batchrun.engine.concurrency import Concurrency
from batchrun.engine.judging import Judge, State, Wiring
from batchrun.engine.limits import Pacing, Ticket, open_gate
from batchrun.engine.order import PrefixOrder
from batchrun.engine.stopping import ErrorWatch, StopSignal, budget_reached, deadline_reached, unwrap
from batchrun.engine.telemetry import EngineSummary, Progress, Telemetry, rate_used
from batchrun.errors import BatchrunError
from batchrun.job import Limits
from batchrun.records import Request

LEADERS_SHARE: Final = 4  # one call in four may lead a prefix group
MIN_LEADERS: Final = 4
KNOCKS: Final = 4  # calls on their way during an outage
RECHECK_S: Final = 0.005
CACHED_IN_A_ROW: Final = 256  # answers from the response cache before the event loop gets a turn

Worker = asyncio.Task[None]


class Shared(Struct, frozen=True, kw_only=True):
    """What several engines have in common, each in a process of its own."""

    gate: Pacing | None
    watch: ErrorWatch


class LocalEngine:
    """Drives one run in this process, once. `progress` may be read at any time from the event loop's thread."""

    def __init__(self, wiring: Wiring, limits: Limits, shared: Shared | None = None) -> None:
        """Prepare one run within `limits`, of which the rates and the count of errors may be `shared` with others."""
        self._wiring = wiring
        self._limits = limits
        self._shared = shared
        self.progress = Progress()
        self._stopped: BatchrunError | None = None
        self._over = False
        self._in_flight = 0
        self._held: Call | None = None  # does not fit the money budget while others are in flight
        self._parked: list[asyncio.Future[None]] = []
        self._workers: set[Worker] = set()
        self._at_gate: set[Worker] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._armed_for = 0.0

    async def drive(self, requests: Iterable[Request], stop: StopSignal | None = None) -> EngineSummary:
        """Send every request until it has landed or the run must stop; return what was done and why it ended.

        Raises what only a broken run raises (`StorageError` from landing, a bug): the calls in flight are then lost.
        """
        self._begin(iter(requests))
        try:
            async with asyncio.TaskGroup() as self._group:
                if self._limits.deadline_s is not None:
                    error = deadline_reached(self._limits.deadline_s)
                    self._timers["deadline"] = self._loop.call_later(self._limits.deadline_s, self._stop, error)
                if stop is not None:
                    stop.listen(functools.partial(self._heard, stop))
                self._wake()
        except BaseExceptionGroup as group:
            raise unwrap(group) from None
        finally:
            if stop is not None:
                stop.listen(None)
            for timer in self._timers.values():
                timer.cancel()
            if self._wiring.response_cache is not None:
                self._wiring.response_cache.flush()
        return self._summary()

    @property
    def stopped(self) -> BatchrunError | None:
        """Why nothing more is sent, None while the run goes on."""
        return self._stopped

    @property
    def telemetry(self) -> Telemetry:
        """What was measured, once `drive` has begun."""
        return self._telemetry

    @property
    def answered_at(self) -> float | None:
        """When the call of the newest answer was sent."""
        return self._judge.answered_at

    # What other engines of the same run have learnt. Each may be called once `drive` has begun.

    def look_again(self) -> None:
        """Have a worker look for work: there may be money now."""
        self._wake()

    def set_ceiling(self, concurrency: int) -> None:
        """Change how many calls may be in flight at most."""
        self._limits = replace(self._limits, concurrency=concurrency)
        if self._concurrency.set_ceiling(concurrency, self._loop.time()):
            self._wake()

    @property
    def refused(self) -> bool:
        """Whether the endpoint refuses: its last word that spoke for the whole run was no."""
        return self._concurrency.generation > 0

    def slow_down(self) -> None:
        """Follow a refusal that another engine met: an episode here too."""
        now = self._loop.time()
        if not self._concurrency.generation:
            self._concurrency.refused(now, now, in_flight=self._in_flight)

    def hold(self, until: float) -> None:
        """Follow a pause of another engine's: no send before `until`, in the event loop's time."""
        self._judge.pause(until)

    def answered_elsewhere(self, sent_at: float) -> None:
        """Take note that another engine's call, sent at this moment, was answered: the endpoint is well."""
        self._judge.answered_elsewhere(sent_at)

    def _begin(self, source: Iterator[Request]) -> None:
        """Set up what needs the event loop and the source of the run."""
        limits, life_s = self._limits, self._wiring.cache_life_s
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        shared = self._shared
        self._gate: Pacing | None = open_gate(limits, now=now) if shared is None else shared.gate
        self._concurrency = Concurrency(limits.concurrency, start=limits.concurrency if self._gate else None, now=now)
        self.progress.concurrency = self._concurrency.limit
        leaders = max(MIN_LEADERS, limits.concurrency // LEADERS_SHARE)
        self._order = PrefixOrder(source, life_s=life_s, leaders=leaders) if life_s is not None else None
        self._backlog = Backlog(source, self._order)
        self._telemetry = Telemetry(now, self.progress)
        state = State(
            gate=self._gate,
            concurrency=self._concurrency,
            order=self._order,
            backlog=self._backlog,
            telemetry=self._telemetry,
            watch=ErrorWatch(limits) if shared is None else shared.watch,
            wall_offset=self._wiring.clocks.wall() - now,
        )
        self._judge = Judge(self._wiring, limits, state, self._stop)

    # Workers: take, send, park.

    async def _work(self) -> None:
        """Take calls and send them until the run is over."""
        worker = asyncio.current_task()
        if worker is None:
            raise RuntimeError("a worker is a task")
        try:
            while not self._over:
                call = self._take()
                if call is not None:
                    self._invite()
                    await self._send(call, worker)
                elif not self._over:
                    await self._park()
        finally:
            self._workers.discard(worker)

    def _take(self) -> Call | None:
        """Return a call that may be sent now, its money set aside; None while there is none."""
        now = self._loop.time()
        if not self._may_send(now):
            return None
        try:
            call = self._held or self._next(now)
            if call is None:
                if not self._in_flight and self._backlog.exhausted and not self._backlog.waiting:
                    self._finish()
                return None
            budget = self._wiring.budget
            if budget is not None and not budget.endless and not self._set_aside(call, budget):
                return None
        except BatchrunError as error:  # the dataset cannot be read on, or a model has no price
            self._stop(error)
            return None
        self._count_in_flight(+1)
        return call

    def _may_send(self, now: float) -> bool:
        """Whether one more call may be on its way."""
        return (
            self._stopped is None
            and self._in_flight < (KNOCKS if self._judge.outage.knocking else self._concurrency.limit)
            and now >= self._judge.paused_until
            and (self._gate is None or self._gate.hungry)
        )

    def _next(self, now: float) -> Call | None:
        """Return the next call that the response cache does not answer; land those that it does."""
        cache = self._wiring.response_cache
        for _ in range(CACHED_IN_A_ROW):
            call = self._backlog.next(now)
            if call is None or cache is None or call.attempt > 1:
                return call
            call.cache_key, known = cache.look_up(call.request)
            if known is None:
                return call
            if call.leads and self._order is not None:
                self._order.failed(call.request.prefix)
            self.progress.cached += 1
            self._judge.land_final(known)
        self._loop.call_soon(self._wake)
        return None

    def _set_aside(self, call: Call, budget: MoneyBudget) -> bool:
        """Reserve the call's worst case; where it does not fit keep the call, and stop if nothing can change that."""
        worst = budget.worst_case(call.request)
        if not budget.fits(worst):
            self._held = call
            if budget.stuck:
                self._stop(budget_reached(str(budget)))
            return False
        self._held = None
        budget.reserve(worst)
        call.worst_case = worst
        return True

    async def _park(self) -> None:
        """Wait until there may be something to do."""
        self._arm()
        nudge = self._loop.create_future()
        self._parked.append(nudge)
        await nudge

    def _invite(self) -> None:
        """Wake another worker if there may be work for it too; else see that a timer will."""
        now = self._loop.time()
        if self._may_send(now) and (self._held is not None or self._backlog.ready(now)):
            self._wake()
        elif self._parked:
            self._arm()

    def _wake(self) -> None:
        """Have one more worker look for work: a parked one, or a new one below the ceiling."""
        while self._parked:
            nudge = self._parked.pop()
            if not nudge.done():
                nudge.set_result(None)
                return
        if len(self._workers) < self._limits.concurrency and not self._over:
            self._workers.add(self._group.create_task(self._work()))

    def _arm(self) -> None:
        """Have a timer wake a worker for the next due retry, and not before the run's pause ends."""
        due, paused_until, now = self._backlog.next_due, self._judge.paused_until, self._loop.time()
        when = paused_until if due is None else max(due, paused_until)
        if when <= now:
            if self.progress.in_flight:
                return  # whoever comes back will look again
            when = now + RECHECK_S  # the moment came between looking and parking: nobody else would wake us
        if now < self._armed_for <= when:
            return
        timer = self._timers.get("due")
        if timer is not None:
            timer.cancel()
        self._armed_for = when  # a timer of uvloop's does not always know its own time
        self._timers["due"] = self._loop.call_at(when, self._due)

    def _due(self) -> None:
        """Wake a worker; one that finds it is too early by a hair arms the timer anew."""
        self._armed_for = 0.0
        self._wake()

    # One call: through the gate, out, and back.

    async def _send(self, call: Call, worker: Worker) -> None:
        """Make one attempt and have it judged."""
        exchange = Exchange(call, self._wiring.new_decoder(), self._begun)
        ticket: Ticket | None = None
        try:
            if self._gate is not None:
                ticket = await self._pass_gate(self._gate, call.request, worker)
            now = self._loop.time()
            if call.first_sent_at is None:
                call.first_sent_at = now
            self._telemetry.sent(now)
            ended = await self._wiring.transport.post(self._wiring.path, call.request.body, exchange, accept=self._wiring.accept)
            self._judge.judge(exchange, ended, ticket, self._loop.time())
        except asyncio.CancelledError:
            self._judge.break_off(exchange, self._loop.time())
            raise
        finally:
            self._count_in_flight(-1)
            self.progress.retrying = self._backlog.waiting
            if self._stopped is not None and not self._in_flight:
                self._finish()

    async def _pass_gate(self, gate: Pacing, request: Request, worker: Worker) -> Ticket:
        """Wait for the call's turn; a stop of the run ends the wait."""
        self._at_gate.add(worker)
        try:
            ticket = await gate.enter(request.input_tokens, request.max_tokens)
        finally:
            self._at_gate.discard(worker)
        self._invite()
        return ticket

    def _begun(self, exchange: Exchange, at: float) -> None:
        """Take note that a reply has begun: its prefix can be read from the cache, and the endpoint is well."""
        call = exchange.call
        if call.request.prefix and self._order is not None:
            self._order.warmed(call.request.prefix, at)
            if call.leads:
                call.leads = False
                self._invite()
        was_out = self._judge.outage.knocking
        self._judge.outage.well()
        sent_at = at if exchange.sent_at is None else exchange.sent_at
        if self._concurrency.good(sent_at, at, in_flight=self._in_flight) or was_out:
            self._invite()

    def _count_in_flight(self, change: int) -> None:
        """Keep the number of calls that were taken and have not ended."""
        self._in_flight += change
        self.progress.in_flight = self._in_flight
        self.progress.concurrency = self._concurrency.limit

    # The end.

    def _heard(self, stop: StopSignal) -> None:
        """Follow a signal: the first drains, the second ends at once."""
        self._stop(stop.error())
        if stop.requests > 1:
            self._cancel(self._workers)

    def _stop(self, error: BatchrunError) -> None:
        """Send nothing more; what is in flight gets its grace. The first reason is the one that counts."""
        if self._stopped is not None or self._over:
            return
        self._stopped = error
        self._cancel(self._at_gate)
        if self._in_flight:
            self._timers["grace"] = self._loop.call_later(self._limits.grace_s, self._cancel, self._workers)
        else:
            self._finish()

    def _cancel(self, workers: set[Worker]) -> None:
        """Break off what these workers do."""
        for worker in tuple(workers):
            worker.cancel()

    def _finish(self) -> None:
        """Let every worker go home."""
        self._over = True
        for nudge in self._parked:
            if not nudge.done():
                nudge.set_result(None)
        self._parked.clear()

    def _summary(self) -> EngineSummary:
        """Return what was done."""
        wall_s = self._loop.time() - self._telemetry.began
        return EngineSummary(
            progress=self.progress,
            wall_s=wall_s,
            stopped=self._stopped,
            concurrency=tuple(self._concurrency.history),
            timeline_width_s=self._telemetry.timeline.width_s,
            timeline=tuple(self._telemetry.timeline.bins),
            distributions=self._telemetry.distributions(),
            rate_used=rate_used(self.progress, self._limits, wall_s),
        )
