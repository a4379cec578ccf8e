"""From how an attempt ended to what is done about it: it lands, it comes up again, or the run stops.

Every attempt that ends is judged once, here: what it reserved (rates, money) is settled with what it used;
an answer lands; a failure waits for another try, lands as its row's end, or stops the run (`retry.decide`).
A refusal (429, 529 and their like) slows the run as a whole: concurrency halves once an episode, and a wait
that the endpoint states holds everybody; less so where refusals have proved to be sporadic. It sends nothing
itself and refuses to know who waits for whom.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from msgspec import Struct, field
from msgspec.structs import replace

from batchrun.engine.attempt import Call, Exchange, broke_off
from batchrun.engine.backlog import Backlog
from batchrun.engine.budget import MoneyBudget
from batchrun.engine.concurrency import Concurrency
from batchrun.engine.limits import Pacing, Ticket
from batchrun.engine.order import PrefixOrder
from batchrun.engine.ports import MESSAGES_PATH, Clocks, Decoder, Land, Observer, Transport
from batchrun.engine.retry import GiveUp, StopRun, Wait, decide
from batchrun.engine.sporadic import LimitWatch
from batchrun.engine.stopping import ErrorWatch, OutageWatch, RefusalWatch, refused
from batchrun.engine.telemetry import Telemetry
from batchrun.errors import BatchrunError, EndpointRefused
from batchrun.job import Limits
from batchrun.records import Attempt, Ended, EndedHow, Failure, FailureKind, Reply
from batchrun.transport.base import EVENT_STREAM
from batchrun.wire.ratelimit import parse_rate_limits

MAX_BACKOFF_S: Final = 60.0  # of the whole run, while the endpoint refuses and states no wait
if TYPE_CHECKING:
    from batchrun.engine.response_cache import ResponseCache

FAULTS: Final[frozenset[FailureKind]] = frozenset({"connection", "timeout", "truncated", "empty", "corrupt_event"})
NO_CONNECTION: Final[frozenset[EndedHow]] = frozenset({"connect", "tls", "timeout_connect"})
REFUSED_AGAIN_S: Final = 1.0  # until a row is tried again that alone may be refused
GIVEN_UP: Final = Ended(how="closed", message="given up by us")


class Wiring(Struct, frozen=True, kw_only=True):
    """What one run is made of; what is None is not used."""

    transport: Transport
    new_decoder: Callable[[], Decoder]
    land: Land
    redact: Callable[[str], str] | None = None  # takes the credential out of an endpoint's words
    path: str = MESSAGES_PATH
    accept: str = EVENT_STREAM
    budget: MoneyBudget | None = None
    response_cache: ResponseCache | None = None
    observer: Observer | None = None
    cache_life_s: float | None = None  # prompt-cache-aware order: how long an entry lives after its last use
    clocks: Clocks = field(default_factory=Clocks)


class State(Struct, frozen=True, kw_only=True):
    """The moving parts of one run, which dispatch and judgement share."""

    gate: Pacing | None
    concurrency: Concurrency
    order: PrefixOrder | None
    backlog: Backlog
    telemetry: Telemetry
    watch: ErrorWatch
    wall_offset: float  # turns the event loop's time into seconds since the epoch


class Judge:
    """Judges the attempts of one run. `stop` is called with the reason when no further call should be sent."""

    def __init__(self, wiring: Wiring, limits: Limits, state: State, stop: Callable[[BatchrunError], None]) -> None:
        """Judge by `limits`, settle and land through `wiring`, slow the run through `state`."""
        self._wiring = wiring
        self._limits = limits
        self._state = state
        self._stop = stop
        self._progress = state.telemetry.progress
        self.paused_until = 0.0  # of the whole run
        self.answered_at: float | None = None  # when the call of the newest answer was sent
        self.outage = OutageWatch(limits)
        self._refusals = RefusalWatch()
        self._limits_met = LimitWatch()

    def answered_elsewhere(self, sent_at: float) -> None:
        """Take note that a call of another process was answered: the endpoint is well and refuses no run."""
        self._refusals.answered(sent_at)
        self.outage.well()

    def judge(self, exchange: Exchange, ended: Ended, ticket: Ticket | None, now: float) -> None:
        """Settle what the attempt had reserved, and do what follows from how it ended."""
        call, state = exchange.call, self._state
        result = exchange.finish(ended, wall=now + state.wall_offset)
        if state.gate is not None and ticket is not None:
            state.gate.settle(ticket, result.usage, call.request.input_tokens, now)
            if exchange.headers:
                state.gate.correct(parse_rate_limits(exchange.headers, now=now + state.wall_offset), now)
        if isinstance(result, Reply):
            exchange.begin(now)
        if call.leads and state.order is not None:  # it ended before a good reply had begun
            call.leads = False
            state.order.failed(call.request.prefix)
        if isinstance(result, Reply):
            self._answer(exchange, result, ended.how, now)
        else:
            self._fail(exchange, self._redacted(result), ended.how, now)

    def _redacted(self, failure: Failure) -> Failure:
        """Return the failure without the credential, which an endpoint may echo."""
        redact = self._wiring.redact
        if redact is None:
            return failure
        partial = None if failure.partial is None else redact(failure.partial)
        return replace(failure, message=redact(failure.message), partial=partial)

    def break_off(self, exchange: Exchange, now: float) -> None:
        """Keep what a cancelled call has brought: its answer if that was complete, else what it may have cost."""
        call, budget = exchange.call, self._wiring.budget
        if exchange.sent_at is None:
            if budget is not None and call.worst_case is not None:
                budget.release(call.worst_case)
            return
        result = exchange.finish(GIVEN_UP, wall=now + self._state.wall_offset)
        if isinstance(result, Reply):
            self._answer(exchange, result, "enough", now)
            return
        failure = Failure(kind="interrupted", retry="retry", message="given up: the run was stopped", usage=result.usage)
        attempt = self._settle_money(call, self._attempt(exchange, failure, now, final=False), None)
        self._ended(attempt, now)
        self._land_waste(attempt)

    def land_final(self, attempt: Attempt) -> None:
        """Land the end of a row, and watch for too many errors."""
        self._wiring.land(attempt)
        self._progress.landed += 1
        if attempt.failure is None:
            self._state.watch.answered()
            return
        self._progress.errored += 1
        error = self._state.watch.failed(attempt.failure)
        if error is not None:
            self._stop(error)

    def _answer(self, exchange: Exchange, reply: Reply, how: EndedHow, now: float) -> None:
        """Land an answer."""
        self.answered_at = now if exchange.sent_at is None else exchange.sent_at
        self._refusals.answered(self.answered_at)
        self._limits_met.answered()
        attempt = self._settle_money(exchange.call, self._attempt(exchange, reply, now, final=True), how)
        cache, key = self._wiring.response_cache, exchange.call.cache_key
        if cache is not None and key is not None:
            cache.store(key, attempt)
        self._ended(attempt, now)
        self.land_final(attempt)

    def _ended(self, attempt: Attempt, now: float, wait_s: float | None = None) -> None:
        """Count an attempt that has ended, and tell of it; its row is tried again after `wait_s` seconds, if at all."""
        self._state.telemetry.ended(attempt, now)
        if self._wiring.observer is not None:
            self._wiring.observer.ended(attempt, wait_s)

    def _fail(self, exchange: Exchange, failure: Failure, how: EndedHow, now: float) -> None:
        """Wait for another try, end the row, or stop the run."""
        call, state = exchange.call, self._state
        if failure.slows_run:
            self._slow_down(exchange, failure, now)
        elif failure.kind in FAULTS or (failure.status or 0) >= 500:
            self._sit_out(failure, now)
        spent_s = 0.0 if call.first_sent_at is None else now - call.first_sent_at
        decision = decide(failure, call.attempt, spent_s, self._limits, self._wiring.clocks.chance())
        concerns = self._refusals.refused(call.refused_at, now) if isinstance(decision, StopRun) else None
        unreached = self._unreached(failure, how, now, last_try=isinstance(decision, GiveUp))
        final = concerns in {"run", "row"} or (isinstance(decision, GiveUp) and unreached is None)
        wait_s = decision.seconds if isinstance(decision, Wait) else max(REFUSED_AGAIN_S, now - (call.refused_at or now))
        attempt = self._settle_money(call, self._attempt(exchange, failure, now, final=final), how)
        self._ended(attempt, now, None if final else wait_s)
        if concerns == "run":
            # For the record, with the endpoint's own words; a run that goes on asks again.
            self._wiring.land(replace(attempt, status="canceled"))
            self._stop(refused(failure))
            return
        if final:
            self.land_final(attempt)
            return
        self._land_waste(attempt)
        if isinstance(decision, StopRun):
            call.refused_at = now if call.refused_at is None else call.refused_at
        call.attempt += 1
        call.ready_at = now
        state.backlog.again(call, now + wait_s)
        self._progress.retries += 1

    def _unreached(self, failure: Failure, how: EndedHow, now: float, *, last_try: bool) -> EndpointRefused | None:
        """Stop the run where no call of it ever got a connection, and return why; None: that is not so."""
        if how not in NO_CONNECTION:
            self.outage.reached()
            return None
        error = self.outage.missed(failure, now, in_flight=self._progress.in_flight, last_try=last_try)
        if error is not None:
            self._stop(error)
        return error

    def _slow_down(self, exchange: Exchange, failure: Failure, now: float) -> None:
        """Slow the whole run after a refusal."""
        concurrency = self._state.concurrency
        sent_at = now if exchange.sent_at is None else exchange.sent_at
        for_all = self._limits_met.refused()
        share = 1.0 if for_all else self._limits_met.share
        worse = concurrency.refused(sent_at, now, in_flight=self._progress.in_flight, share=share)
        stated = failure.retry_after_s
        if stated is not None:
            if for_all and stated <= self._limits.max_wait_s:
                self.pause(now + stated)
        elif worse and concurrency.generation > 1:
            ceiling = min(MAX_BACKOFF_S, 2.0 ** min(concurrency.generation - 2, 16))
            self.pause(now + ceiling * (0.5 + self._wiring.clocks.chance() / 2))

    def _sit_out(self, failure: Failure, now: float) -> None:
        """Hold growth after a fault, and send nothing for a while where faults are all there is."""
        self._state.concurrency.fault()
        if now < self.paused_until:
            return
        pause_s = self.outage.fault(now, in_flight=self._progress.in_flight)
        if pause_s:
            self.pause(now + pause_s * (0.5 + self._wiring.clocks.chance() / 2), outage=True)
            error = self.outage.too_long(failure, now)
            if error is not None:
                self._stop(error)

    def pause(self, until: float, *, outage: bool = False) -> None:
        """Let the whole run send nothing before `until`, as the endpoint wants or, in an `outage`, as we do."""
        if until > self.paused_until:
            self._progress.outage = outage
            if self._wiring.observer is not None:
                self._wiring.observer.paused(until - self._wiring.clocks.wall() + self._state.wall_offset, outage=outage)
        self.paused_until = self._progress.paused_until = max(self.paused_until, until)
        self._state.concurrency.hold_until(self.paused_until)
        if self._state.gate is not None:
            self._state.gate.pause(self.paused_until)

    def _attempt(self, exchange: Exchange, result: Reply | Failure, now: float, *, final: bool) -> Attempt:
        """Return the record of the attempt."""
        return exchange.attempt(result, final=final, now=now, wall_offset=self._state.wall_offset)

    def _settle_money(self, call: Call, attempt: Attempt, how: EndedHow | None) -> Attempt:
        """Settle the money set aside; return the attempt with what may have been billed beyond what it told."""
        budget = self._wiring.budget
        if broke_off(attempt, how):
            attempt = replace(attempt, broke_off=True)
        if budget is None:
            return attempt
        if call.worst_case is None:
            held = budget.record(attempt, call.request, how)
        else:
            held = budget.settle(attempt, call.worst_case, how)
            call.worst_case = None
        self._progress.cost = budget.told
        return replace(attempt, cost_reserved=str(held)) if held else attempt

    def _land_waste(self, attempt: Attempt) -> None:
        """Land an attempt that is not its row's end, where it cost something or may have."""
        if attempt.usage is not None or attempt.billed_unseen:
            self._progress.wasted += 1
            self._wiring.land(attempt)
