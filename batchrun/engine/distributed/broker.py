"""The one place that knows the limits of a run that several processes share.

Workers ask, it answers: room at the rates (by the engine's own gate, entered for many calls at once), money, rows,
and at each beat what the others have met: a refusal slows all, a pause holds all, an answer shows all that the
endpoint is well, a reason to stop stops all. Errors are counted over all workers. A worker that dies loses its rows
to the others and its money to nobody. It sends nothing and reads no file; who carries the questions (a socket, a
cluster's actor) is not its business. It lives on one event loop.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from msgspec.structs import replace

from batchrun.engine.distributed.gathering import add_up
from batchrun.engine.distributed.messages import (
    Answer,
    AskMoney,
    AskRates,
    AskRows,
    Beat,
    Lease,
    Look,
    Lost,
    Measured,
    Money,
    Question,
    Rows,
    RowsEnded,
    Stop,
    View,
    Word,
)
from batchrun.engine.distributed.purse import Purse
from batchrun.engine.distributed.ranges import NONE_LEFT, Ranges
from batchrun.engine.limits import Gate, open_gate
from batchrun.engine.stopping import ErrorWatch
from batchrun.engine.telemetry import Progress
from batchrun.job import Limits

SILENT_S: Final = 15.0
SLICE_S: Final = 0.2
"""Seconds of the rates that all workers together may hold unsent; the margin below the limit is twice that, since
each may hold one slice and wait for the next."""


@dataclass(slots=True)
class Member:
    """What is known of one worker."""

    heard_at: float
    progress: Progress = field(default_factory=Progress)
    ceiling: int = 0
    idle: bool = False  # waits for rows
    gone: bool = False  # has left or died
    refusals_heard: int = 0
    answered_at: float | None = None
    answered_heard: float = 0.0


class Broker:
    """Answers the questions of the workers of one run, and the driver's."""

    def __init__(self, limits: Limits, ranges: Ranges, *, workers: int, prior: Decimal, silent_s: float = SILENT_S) -> None:
        """Share `limits` among `workers` workers; `prior` dollars were spent in earlier sessions."""
        self._limits = limits
        self._ranges = ranges
        self._workers = workers
        self._silent_s = silent_s
        maximum = limits.max_cost_usd
        self._purse = None if maximum is None else Purse(maximum, prior=prior, workers=workers)
        self._loop = asyncio.get_running_loop()
        self._gate: Gate | None = open_gate(limits, now=self._loop.time(), lag_s=2 * SLICE_S)
        self._watch = ErrorWatch(limits)
        self._members: dict[str, Member] = {}
        self._dead: list[Progress] = []
        self._measured: list[tuple[float, Measured]] = []  # each with its beginning in our time
        self._stop: Stop | None = None
        self._refusals = 0
        self._paused_until = 0.0
        self._changed = asyncio.Event()

    async def ask(self, worker: str, question: Question) -> Answer:  # noqa: PLR0911 - one line a question
        """Answer one question of a worker (or of the driver, who has a name of its own)."""
        match question:
            case Beat():
                return self._beat(worker, question)
            case AskRates():
                return await self._rates(question)
            case AskMoney():
                return await self._money(worker, question)
            case AskRows():
                return await self._rows(worker, idle=question.idle)
            case RowsEnded():
                self._ranges.end(question.at)
                return self._word(self._member(worker), self._loop.time())
            case Lost():
                return self._lost(question)
            case Look():
                return self._look(question)

    def _member(self, worker: str) -> Member:
        """Return what is known of a worker, and note that it lives."""
        now = self._loop.time()
        member = self._members.get(worker)
        if member is None:
            member = self._members[worker] = Member(now, refusals_heard=self._refusals)
        member.heard_at = now
        return member

    # Beats.

    def _beat(self, worker: str, beat: Beat) -> Word:
        """Take in what a worker tells; answer with what it must know."""
        now, member = self._loop.time(), self._member(worker)
        member.progress = beat.progress
        self._measured += [(now - part.began_ago_s, part) for part in beat.measured]
        if self._gate is not None:
            self._gate.settle_many(beat.unused, beat.input_changes, beat.output_changes, now)
            if beat.told is not None:
                self._gate.correct(beat.told, now)
        if self._purse is not None:
            self._purse.report(worker, beat.account)
        self._hear(member, beat, now)
        self._count(beat)
        if beat.stopped is not None:
            self._halt(beat.stopped)
        if beat.leaves:
            self._leave(worker, member)
        self._pulse()
        return self._word(member, now)

    def _hear(self, member: Member, beat: Beat, now: float) -> None:
        """Keep what the others should follow."""
        if beat.refused:
            self._refusals += 1
            member.refusals_heard = self._refusals
        if beat.pause_s > 0:
            self._paused_until = max(self._paused_until, now + beat.pause_s)
            if self._gate is not None:
                self._gate.pause(self._paused_until)
        if beat.answered_s is not None:
            member.answered_at = now - beat.answered_s

    def _count(self, beat: Beat) -> None:
        """Count the landed rows of all workers, and stop at too many errors."""
        counted, watch = beat.counted, self._watch
        watch.done += counted.done
        watch.errored += counted.errored
        watch.in_a_row = counted.in_a_row + (watch.in_a_row if counted.done == counted.errored else 0)
        error = watch.verdict(counted.last) if counted.errored else None
        if error is not None:
            self._halt(Stop.of(error))

    def _word(self, member: Member, now: float) -> Word:
        """Return what a worker must know now."""
        member.ceiling = self._ceiling(member)
        refused, member.refusals_heard = member.refusals_heard < self._refusals, self._refusals
        others = (other.answered_at for other in self._members.values() if other is not member and other.answered_at is not None)
        answered = max(others, default=0.0)
        news, member.answered_heard = answered > member.answered_heard, max(answered, member.answered_heard)
        return Word(
            ceiling=member.ceiling,
            refused=refused,
            pause_s=max(0.0, self._paused_until - now),
            answered_s=now - answered if news else None,
            scarce=self._purse is not None and self._purse.scarce,
            stop=self._stop,
        )

    def _ceiling(self, member: Member) -> int:
        """Return how many calls a worker may have in flight: an equal part of what the others do not have."""
        others = [other for other in self._members.values() if other is not member and not other.gone]
        resting = sum(other.idle for other in others) + sum(other.gone for other in self._members.values())
        fair = self._limits.concurrency // max(1, self._workers - resting)
        taken = sum(max(0 if other.idle else other.ceiling, other.progress.in_flight) for other in others)
        return max(1, min(fair, self._limits.concurrency - taken))

    # What has to be waited for.

    async def _rates(self, asked: AskRates) -> Lease:
        """Answer once these calls may be sent."""
        if self._gate is None:
            return Lease(input_bin=0, output_bin=0)
        ticket = await self._gate.enter_many(asked.calls, asked.input, asked.output)
        return Lease(input_bin=ticket[2], output_bin=ticket[3])

    async def _money(self, worker: str, asked: AskMoney) -> Money:
        """Answer once there is money, or certainly none."""
        self._member(worker)
        purse = self._purse
        if purse is None:
            raise RuntimeError("a run without a budget has no purse to ask")
        purse.report(worker, asked.account)
        self._pulse()
        amount = purse.grant(worker, asked.need, asked.want)
        purse.waiting += 1
        try:
            while amount is not None and not amount and self._stop is None:
                await self._changed.wait()
                amount = purse.grant(worker, asked.need, asked.want)
        finally:
            purse.waiting -= 1
        return Money(amount=amount, account=str(purse) if amount is None else "")

    async def _rows(self, worker: str, *, idle: bool) -> Rows:
        """Answer with more rows; an idle worker waits for those that a dying one may leave behind."""
        member = self._member(worker)
        if idle:
            self._ranges.landed(worker)
            self._pulse()
        member.idle = idle
        try:
            while self._stop is None:
                rows = self._ranges.take(worker)
                if not rows.empty or not idle or self._ranges.finished:
                    return rows
                await self._changed.wait()
        finally:
            member.idle = False
        return NONE_LEFT

    def _pulse(self) -> None:
        """Have everybody who waits look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    # The end.

    def _halt(self, stop: Stop) -> None:
        """Stop the run. The first reason is the one that counts; a later one may only make it quicker."""
        if self._stop is None:
            self._stop = stop
        elif stop.at_once and not self._stop.at_once:
            self._stop = Stop(code=self._stop.code, message=self._stop.message, hint=self._stop.hint, at_once=True)
        self._pulse()

    def _leave(self, worker: str, member: Member) -> None:
        """Let a worker go that has landed all it had."""
        member.gone = True
        self._ranges.landed(worker)
        if self._purse is not None:
            self._purse.left_by(worker)

    def _lost(self, lost: Lost) -> Answer:
        """Give the rows of a dead worker to the others; one takes its place, so the share of each stays."""
        worker, member = lost.worker, self._members.pop(lost.worker, None)
        if member is not None:
            member.progress.in_flight = member.progress.retrying = member.progress.concurrency = 0
            self._dead.append(member.progress)
        self._ranges.lost(worker, lost.landed)
        if self._purse is not None:
            self._purse.lost(worker)
        self._pulse()
        return self._look(Look())

    def _look(self, look: Look) -> View:
        """Return how far the run is."""
        if look.stop is not None:
            self._halt(look.stop)
        now = self._loop.time()
        alive = {name: member for name, member in self._members.items() if not member.gone}
        return View(
            progress=add_up([*(member.progress for member in self._members.values()), *self._dead]),
            silent=tuple(name for name, member in alive.items() if now - member.heard_at > self._silent_s),
            stop=self._stop,
            measured=tuple(replace(part, began_ago_s=now - began) for began, part in self._measured) if look.last else (),
            finished=self._ranges.finished,
        )
