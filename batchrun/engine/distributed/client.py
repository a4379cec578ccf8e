"""A worker's end of the talk with the broker: what it leases, what it tells, what it is told.

Ten times a second it sends one beat and follows the answer: a ceiling, a refusal or an answer that another worker
met, a reason to stop. In between it asks for rates and money as the engine needs them and for rows when those at
hand run low. A line that breaks means that the driver is gone: the worker stops at once. It drives nothing and
knows neither sockets nor clusters: a `Line` carries its questions.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, Final, Protocol, TypeVar

from msgspec.structs import replace

from batchrun.engine.distributed.gathering import add_up, measured
from batchrun.engine.distributed.leasing import GivenBack, LeasedBudget, LeasedGate
from batchrun.engine.distributed.messages import (
    Account,
    Answer,
    AskMoney,
    AskRows,
    Beat,
    Counted,
    Lease,
    Measured,
    Money,
    Question,
    Rows,
    RowsEnded,
    Stop,
    Word,
)
from batchrun.engine.judging import Wiring
from batchrun.engine.local import LocalEngine, Shared
from batchrun.engine.ports import InFlight, PriceOf, WorstCase
from batchrun.engine.stopping import ErrorWatch, StopSignal, describe, unwrap
from batchrun.engine.telemetry import EngineSummary, Progress
from batchrun.errors import BatchrunError
from batchrun.job import Limits
from batchrun.records import Failure, Request

BEAT_S: Final = 0.1
DRIVER_GONE: Final = Stop(code=1, message="the process that drives the run is gone", at_once=True)

_T = TypeVar("_T")


class Line(Protocol):
    """Carries questions to the broker."""

    async def ask(self, question: Question) -> Answer:
        """Return the answer. Raises `ConnectionError` when the broker is gone."""


class Told(StopSignal):
    """A stop whose reason was told."""

    def __init__(self) -> None:
        """Nothing was told yet."""
        super().__init__()
        self.reason: Stop | None = None

    def tell(self, stop: Stop) -> None:
        """Stop for this reason, and at once where it says so."""
        self.reason = self.reason or stop
        while self.requests < 1 + stop.at_once:
            self.request()

    def error(self) -> BatchrunError:
        """Return the error that was told."""
        return super().error() if self.reason is None else self.reason.error()


class CountedErrors(ErrorWatch):
    """Counts landed rows for the broker, who judges those of all workers."""

    __slots__ = ("_last",)

    def __init__(self, limits: Limits) -> None:
        """Nothing was counted yet."""
        super().__init__(limits)
        self._last = ""

    def failed(self, failure: Failure) -> None:
        """Count a row that ended without an answer; it is the broker who may find that too many."""
        self.done += 1
        self.errored += 1
        self.in_a_row += 1
        self._last = describe(failure)

    def take(self) -> Counted:
        """Return what was counted since the last time."""
        counted = Counted(done=self.done, errored=self.errored, in_a_row=min(self.in_a_row, self.errored), last=self._last)
        self.done = self.errored = self.in_a_row = 0
        return counted


class Client:
    """One worker's share of a run. Use within `connected`."""

    def __init__(self, line: Line, limits: Limits, *, workers: int) -> None:
        """Talk to the broker over `line`."""
        self._line, self._limits, self._workers = line, limits, workers
        self._loop = asyncio.get_running_loop()
        self.stop = Told()
        self._ceiling = 1
        self._scarce = False
        self._paces = any(rate is not None for rate in (limits.rpm, limits.itpm, limits.otpm))
        self._watch = CountedErrors(limits)
        self._gate: LeasedGate | None = None
        self._budget: LeasedBudget | None = None
        self._engine: LocalEngine | None = None
        self._past: list[Progress] = []
        self._measured: list[Measured] = []
        self._seen_refused = False
        self._paused_until = 0.0
        self._seen_answer: float | None = None
        self._ahead: deque[Rows] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._seen_end = False
        self._own_stop: Stop | None = None

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Beat while the block lasts. A broken line stops the worker at once, as a stop does."""
        word = await self._ask(Beat(progress=Progress()), Word)
        try:
            async with asyncio.TaskGroup() as self._group:
                if self._paces:
                    ask = functools.partial(self._ask, kind=Lease)
                    self._gate = LeasedGate(ask, self._limits, workers=self._workers, spawn=self._spawn)
                self._follow(word)
                beats = self._group.create_task(self._beats())
                try:
                    yield
                finally:
                    beats.cancel()
                    for task in self._tasks:
                        task.cancel()
        except BaseExceptionGroup as group:
            raise unwrap(group) from None

    async def leave(self, stop: Stop | None = None) -> None:
        """Say the last word: all that was given has landed, or why not."""
        self._own_stop = self._own_stop or stop
        with contextlib.suppress(ConnectionError):
            await self._ask(self._beat(leaves=True), Word)

    # What an engine of this worker is made of.

    def budget(self, worst_case: WorstCase, price_of: PriceOf, in_flight: InFlight | None = None) -> LeasedBudget:
        """Return the budget whose money comes from the broker, and which tells `in_flight` of each call."""
        unpriced = self._limits.allow_unpriced
        self._budget = LeasedBudget(worst_case, price_of, self._want_money, allow_unpriced=unpriced, in_flight=in_flight)
        return self._budget

    def engine(self, wiring: Wiring) -> LocalEngine:
        """Return an engine for the rows at hand, which shares with the others what must be shared."""
        limits = replace(self._limits, concurrency=self._ceiling, deadline_s=None)
        return LocalEngine(wiring, limits, Shared(gate=self._gate, watch=self._watch))

    async def drive(self, engine: LocalEngine, requests: Iterable[Request]) -> EngineSummary:
        """Have the engine send the requests, and follow what is told meanwhile; what it measured goes with the next beat."""
        self._engine = engine
        self._seen_answer = None
        self._loop.call_soon(self._hold)  # a pause may be under way
        try:
            summary = await engine.drive(requests, self.stop)
        finally:
            self._engine = None
            self._past.append(engine.progress)
            engine.progress.in_flight = engine.progress.retrying = engine.progress.concurrency = 0
        self._measured.append(measured(engine.telemetry, summary.concurrency, self._loop.time()))
        if summary.stopped is not None and self.stop.reason is None:
            self._own_stop = Stop.of(summary.stopped)
        return summary

    # Rows.

    async def wait_for_rows(self) -> bool:
        """Return whether there are rows at hand, once there are; call it when all before have landed."""
        if self._looking is not None:
            await self._looking
        self._seen_end = False
        if not self._ahead:
            await self._more_rows(idle=True)
        return bool(self._ahead)

    def rows(self) -> Iterator[Rows]:
        """Yield the ranges at hand, and those that come in the meantime."""
        while self._ahead:
            yield self._ahead.popleft()

    def look_ahead(self) -> None:
        """Ask for more rows while the last ones at hand are read."""
        if (self._looking is None or self._looking.done()) and not self._ahead and not self._seen_end:
            self._looking = self._spawn(self._more_rows(idle=False))

    def rows_end(self, at: int) -> None:
        """Tell that the dataset ends before the row at this place."""
        self._seen_end = True
        self._spawn(self._tell_end(at))

    async def _more_rows(self, *, idle: bool) -> None:
        """Ask for rows and put them at hand."""
        try:
            rows = await self._ask(AskRows(idle=idle), Rows)
        except ConnectionError:
            self.stop.tell(DRIVER_GONE)
            return
        if rows.empty:
            self._seen_end = True
        else:
            self._ahead.append(rows)

    async def _tell_end(self, at: int) -> None:
        await self._ask(RowsEnded(at=at), Word)

    # Money.

    def _want_money(self, worst: Decimal) -> None:
        """Ask for room for one call of this worst case, and for a whole set of such."""
        if self._budget is not None:
            account = self._budget.account(give_back=True)
            self._spawn(self._fetch_money(AskMoney(need=worst, want=worst * self._ceiling, account=account), self._budget))

    async def _fetch_money(self, asked: AskMoney, budget: LeasedBudget) -> None:
        """Ask for money and have the engine look again."""
        money = await self._ask(asked, Money)
        budget.granted(money.amount, money.account)
        if self._engine is not None:
            self._engine.look_again()

    # Beats.

    async def _beats(self) -> None:
        """Tell and be told, until the line breaks."""
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                self._follow(await self._ask(self._beat(), Word))
            except ConnectionError:
                self.stop.tell(DRIVER_GONE)
                return

    def _beat(self, *, leaves: bool = False) -> Beat:
        """Return what is new since the last beat."""
        engine, now = self._engine, self._loop.time()
        back = GivenBack(0, {}, {}, None) if self._gate is None else self._gate.give_back()
        news, self._measured = tuple(self._measured), []
        stop = self._own_stop
        if stop is None and engine is not None and engine.stopped is not None and self.stop.reason is None:
            stop = Stop.of(engine.stopped)
        return Beat(
            progress=add_up([*self._past, engine.progress] if engine is not None else self._past),
            counted=self._watch.take(),
            account=Account() if self._budget is None else self._budget.account(give_back=self._scarce or leaves),
            input_changes=back.input,
            output_changes=back.output,
            unused=back.unused,
            told=back.told,
            refused=self._newly_refused(engine),
            pause_s=self._new_pause(engine, now),
            answered_s=self._new_answer(engine, now),
            stopped=stop,
            measured=news,
            leaves=leaves,
        )

    def _newly_refused(self, engine: LocalEngine | None) -> bool:
        """Whether an episode of refusals has begun here that nobody told us of."""
        before, self._seen_refused = self._seen_refused, engine is not None and engine.refused
        return self._seen_refused and not before

    def _new_pause(self, engine: LocalEngine | None, now: float) -> float:
        """Return how long a pause lasts that has begun here."""
        until = 0.0 if engine is None else engine.progress.paused_until
        if until <= self._paused_until:
            return 0.0
        self._paused_until = until
        return max(0.0, until - now)

    def _new_answer(self, engine: LocalEngine | None, now: float) -> float | None:
        """Return how long ago the call of the newest answer was sent, where that is news."""
        at = None if engine is None else engine.answered_at
        if at is None or at == self._seen_answer:
            return None
        self._seen_answer = at
        return now - at

    def _follow(self, word: Word) -> None:
        """Do what the broker says."""
        engine, now = self._engine, self._loop.time()
        self._scarce = word.scarce
        if word.pause_s > 0:
            self._paused_until = max(self._paused_until, now + word.pause_s)
            self._hold()
        if engine is not None:
            if word.ceiling != self._ceiling:
                engine.set_ceiling(word.ceiling)
            if word.answered_s is not None:
                engine.answered_elsewhere(now - word.answered_s)
            if word.refused:
                engine.slow_down()
                self._seen_refused = True
        self._ceiling = word.ceiling
        if word.stop is not None:
            self.stop.tell(word.stop)

    def _hold(self) -> None:
        """Have the engine keep a pause that others have told of."""
        if self._engine is not None and self._paused_until > max(self._loop.time(), self._engine.progress.paused_until):
            self._engine.hold(self._paused_until)

    # Asking.

    async def _ask(self, question: Question, kind: type[_T]) -> _T:
        """Return the broker's answer, which must be of this kind."""
        answer = await self._line.ask(question)
        if not isinstance(answer, kind):
            raise TypeError(f"{type(question).__name__} was answered by {type(answer).__name__}")
        return answer

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Have `work` done while the block of `connected` lasts."""
        task = self._group.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work`; a broken line stops the worker."""
        try:
            await work
        except ConnectionError:
            self.stop.tell(DRIVER_GONE)
