"""A stream of calls in, a landed attempt for each of them out, by way of the Batches endpoint: half the price, any time.

Calls are cut into batches (`batch_cutter`), each written down before it is sent (`batch_ledger`), asked after with
growing patience, and its results landed line by line as they are downloaded (`batch_landing`). A batch costs what
thousands of calls cost, so the rule is: **never send again what may have been accepted**. After a broken answer or a
crash the endpoint's batches are searched for it (`batch_search`); only when none can be it are its calls sent anew.
Where that cannot be known the run stops and says so, and `--resubmit` decides.

To stop the run leaves its batches at work; a resumed run takes them up again. All that a batch can cost is reserved
before it is sent. It refuses to know JSON and prices.
"""

from __future__ import annotations

import asyncio
import functools
import os
from typing import Final

from msgspec.structs import replace

from batchrun.engine.batch_cutter import BatchBounds, Chunk, Cutter
from batchrun.engine.batch_endpoint import BatchStatus
from batchrun.engine.batch_landing import Lander, Results
from batchrun.engine.batch_ledger import Ended, Intent, Landed, Ledger, Submission, Submitted, Void, packed, runs_of
from batchrun.engine.batch_patience import Patience, PollPace
from batchrun.engine.batch_search import Search
from batchrun.engine.batch_wiring import BatchWiring
from batchrun.engine.stopping import RESUME, StopSignal, budget_reached, deadline_reached, describe, unwrap
from batchrun.engine.telemetry import EngineSummary, Progress, Telemetry
from batchrun.errors import BatchrunError, EndpointRefused, Interrupted, StorageError
from batchrun.job import Limits
from batchrun.records import Failure

LACKING_TRIES: Final = 3
"""So often results are downloaded that lack rows, before those rows count as failed."""

RESUBMIT: Final = "`batchrun resume RUN --resubmit` makes these calls anew, which may pay for them twice"
COME_BACK: Final = "`batchrun resume RUN` fetches their results, `batchrun cancel RUN` stops them"


class BatchEngine:
    """Drives one run in this process, once. `progress` may be read at any time from the event loop's thread."""

    def __init__(self, wiring: BatchWiring, limits: Limits) -> None:
        """Prepare one run within `limits`."""
        self._wiring = wiring
        self._limits = limits
        self._endpoint = wiring.endpoint
        self._budget = wiring.landing.budget
        self.progress = Progress()
        self._stopped: BatchrunError | None = None
        self._cutter = Cutter(wiring.bounds, self._budget)
        self._search = Search(wiring.endpoint, wiring.settle_s)
        self._search_pace = PollPace(0.0)
        self._tries: dict[int, int] = {}  # of the calls that the pass under way makes again
        self._working: dict[str, Submission] = {}  # batches at the endpoint, by key
        self._paces: dict[str, PollPace] = {}
        self._results: dict[str, Results] = {}
        self._lacked: dict[str, int] = {}
        self._patience, self._create_patience = Patience(limits), Patience(limits)
        self._submit_at = 0.0

    async def drive(self, stop: StopSignal | None = None) -> EngineSummary:
        """Submit, wait and land until every call has landed or the run must stop; return what was done.

        Raises `StorageError` where nothing can be kept. What is at work at the endpoint stays at work.
        """
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._telemetry = Telemetry(self._loop.time(), self.progress)
        self._lander = Lander(self._wiring.landing, self._limits, self._telemetry)
        self._timers: list[asyncio.TimerHandle] = []
        with Ledger(self._wiring.ledger) as self._ledger:
            try:
                async with asyncio.TaskGroup() as group:
                    task = group.create_task(self._run())
                    if self._limits.deadline_s is not None:
                        error = deadline_reached(self._limits.deadline_s)
                        self._timers.append(self._loop.call_later(self._limits.deadline_s, self._stop, error, task))
                    if stop is not None:
                        stop.listen(functools.partial(self._heard, stop, task))
            except BaseExceptionGroup as group:
                raise unwrap(group) from None
            finally:
                if stop is not None:
                    stop.listen(None)
                for timer in self._timers:
                    timer.cancel()
            return self._summary()

    async def _run(self) -> None:
        """Go round until nothing is left to do. An error that ends the run is kept; one of storage, or a bug, is raised."""
        try:
            await self._restore()
            while self._stopped is None and await self._round():
                await self._rest()
        except StorageError:
            raise
        except BatchrunError as error:
            self._stopped = self._stopped or error

    async def _round(self) -> bool:
        """Do all that can be done now; return whether there is something to wait for."""
        if self._search and self._search_pace.due(self._loop.time()):
            await self._find()
        await self._submit()
        for submission in list(self._working.values()):
            if self._stopped is None and self._paces[submission.key].due(self._loop.time()):
                await self._ask(submission)
        if self._working or self._search:
            return True
        if self._lander.ending is not None:
            raise self._lander.ending
        if self._wiring.cancel:
            return False
        if self._cutter.starved:
            raise budget_reached(str(self._budget))
        return bool(self._lander.again) or not self._cutter.exhausted

    async def _rest(self) -> None:
        """Sleep until something is due, or somebody wants the run to stop."""
        now = self._loop.time()
        due = [self._paces[key].at for key in self._working]
        if self._search:
            due.append(self._search_pace.at)
        if self._may_submit and not self._cutter.starved:
            due.append(self._submit_at)
        try:
            async with asyncio.timeout(max(0.0, min(due, default=now) - now)):
                await self._woken.wait()
        except TimeoutError:
            return

    # What is there already.

    async def _restore(self) -> None:
        """Take up what earlier sessions have submitted, and begin the pass over the calls that are in none of it."""
        held = bytearray()
        for submission in self._ledger.open():
            self._hold(submission)
            if submission.id is None:
                self._search.expect(submission, self._wiring.clocks.wall())
            for first, last in submission.intent.ordinals:
                held.extend(bytes(max(0, last + 1 - len(held))))
                held[first : last + 1] = b"\1" * (last - first + 1)
        if not self._wiring.cancel:
            self._cutter.feed(self._wiring.requests(lambda ordinal: ordinal < len(held) and held[ordinal] == 1))
            return
        for submission in tuple(self._working.values()):
            await self._cancel(submission)

    def _hold(self, submission: Submission) -> None:
        """Set the money of a batch aside, and ask after it if it is known to be at work."""
        self._budget.reserve(submission.intent.reserved_usd)
        self.progress.in_flight += submission.count
        self.progress.batches += 1
        if submission.id is not None:
            self._work(submission)

    def _work(self, submission: Submission) -> None:
        self._working[submission.key] = submission
        self._paces[submission.key] = PollPace(self._loop.time())

    def _close(self, submission: Submission, event: Landed | Void) -> None:
        """Write down that a batch is over and give its reservation back."""
        self._ledger.note(event)
        self._working.pop(submission.key, None)
        self._results.pop(submission.key, None)
        self._budget.release(submission.intent.reserved_usd)
        self._cutter.starved = False
        self.progress.in_flight -= submission.count
        self.progress.batches -= 1

    async def _find(self) -> None:
        """Look for the batches of which nobody knows whether they were accepted."""
        known = {submission.id for submission in self._ledger.submissions.values() if submission.id is not None}
        found = await self._search.look(known, self._wiring.clocks.wall())
        now = self._loop.time()
        self._search_pace.later(now, self._wiring.clocks.chance())
        if isinstance(found, Failure) and not self._wiring.resubmit:
            if found.retry == "retry":
                self._search_pace.at = max(self._search_pace.at, now + self._wait_after(found))
                return
            raise _lost(f"a batch may have been accepted, and the endpoint does not list its batches: {describe(found)}")
        self._patience.well()
        for item in [] if isinstance(found, Failure) else found:
            if item.id is not None:
                self._accepted(item.submission, item.id)
            elif item.certain or self._wiring.resubmit:
                self._anew(item.submission, "the endpoint has no such batch")
            else:
                raise _lost(f"a batch may have been accepted: {item.why}")
        if self._wiring.resubmit:
            for submission in self._search.give_up():
                self._anew(submission, "given up: --resubmit")

    def _anew(self, submission: Submission, why: str) -> None:
        """Have the calls of a batch made again that is not to be had."""
        self._close(submission, Void(key=submission.key, at_us=self._now_us(), why=why))
        tries = submission.intent.tries
        landed = self._wiring.landing.landed
        self._lander.again |= {ordinal: tries.get(ordinal, 1) for ordinal in submission.ordinals() if not landed(ordinal)}

    # Submitting.

    @property
    def _may_submit(self) -> bool:
        """Whether there are calls that may be submitted, sooner or later."""
        wanted = bool(self._lander.again) or not self._cutter.exhausted
        return wanted and self._stopped is None and self._lander.ending is None and not self._wiring.cancel

    async def _submit(self) -> None:
        """Submit batches until no call is left, the money does not allow one, or the endpoint wants us to wait."""
        while self._may_submit and self._loop.time() >= self._submit_at:
            if self._cutter.exhausted:
                self._tries, self._lander.again = self._lander.again, {}
                self._cutter.feed(self._wiring.requests(functools.partial(_not_in, self._tries)))
            key = os.urandom(8)
            chunk = self._cutter.cut(key)
            if chunk is not None:
                await self._send(key, chunk)
            elif self._cutter.starved:
                return

    async def _send(self, key: bytes, chunk: Chunk) -> None:
        """Write a batch down, send it, write down what came of it."""
        submission = self._ledger.announce(self._intent(key.hex(), chunk))
        self._hold(submission)
        self.progress.sent += submission.count
        self._telemetry.timeline.at(self._loop.time() - self._telemetry.began).sent += submission.count
        created = await self._endpoint.create(chunk.body)
        if isinstance(created, BatchStatus):
            self._create_patience.well()
            self._accepted(submission, created.id)
            return
        failure = self._redacted(created.failure)
        if created.certain:
            self._close(submission, Void(key=submission.key, at_us=self._now_us(), why=failure.message))
            self._refused(chunk, failure)
            return
        self._search.expect(submission, self._wiring.clocks.wall(), settled=(failure.status or 0) >= 500)
        self._search_pace = PollPace(self._loop.time())
        if failure.retry == "retry":
            self._wait_to_submit(failure)

    def _intent(self, key: str, chunk: Chunk) -> Intent:
        """Return what is written down of a batch."""
        tries = {request.ordinal: self._try_of(request.ordinal) for request in chunk.requests}
        return Intent(
            key=key,
            at_us=self._now_us(),
            ordinals=runs_of(request.ordinal for request in chunk.requests),
            checks=packed([name.check for name in chunk.names]),
            tries={ordinal: number for ordinal, number in tries.items() if number > 1},
            body_bytes=len(chunk.body),
            sha256=chunk.sha256,
            reserved_usd=chunk.reserved,
            worst_usd=chunk.worst,
        )

    def _try_of(self, ordinal: int) -> int:
        """Return which try of a call the next one is."""
        return self._tries.get(ordinal) or self._wiring.tries_of(ordinal) + 1

    def _accepted(self, submission: Submission, batch: str) -> None:
        """Write down the id of a batch, and ask after it from now on."""
        self._ledger.note(Submitted(key=submission.key, at_us=self._now_us(), id=batch))
        self._work(submission)

    def _refused(self, chunk: Chunk, failure: Failure) -> None:
        """Do what follows from a batch that was surely not accepted: cut it smaller, wait, or stop."""
        if failure.status == 413 and len(chunk.requests) == 1:
            ordinal = chunk.requests[0].ordinal
            self._lander.fail(self._try_of(ordinal), ordinal, failure, self._loop.time())
        elif failure.status == 413:
            self._cutter.bounds = BatchBounds(requests=len(chunk.requests) // 2, body_bytes=self._cutter.bounds.body_bytes)
            self._cutter.put_back(chunk)
        elif failure.retry == "retry":
            self._cutter.put_back(chunk)
            self._wait_to_submit(failure)
        else:
            where = chunk.rows_named(failure.message, self._wiring.calls_a_row)
            raise EndpointRefused(f"the endpoint refuses a batch, {where}: {describe(failure)}", hint=RESUME)

    def _wait_to_submit(self, failure: Failure) -> None:
        """Submit nothing for a while. Other batches at work show that the endpoint is well: then there is no end to that."""
        now = self._loop.time()
        if self._working:
            self._create_patience.well()
        self._submit_at = now + self._create_patience.failed(failure, now, self._wiring.clocks.chance())

    # Waiting for it, and landing it.

    async def _ask(self, submission: Submission) -> None:
        """Ask how far a batch is; land its results when it has ended."""
        status = await self._endpoint.show(submission.id or "")
        if isinstance(status, Failure):
            self._trouble(submission, status)
            return
        self._patience.well()
        if not status.ended:
            self._paces[submission.key].later(self._loop.time(), self._wiring.clocks.chance())
            return
        if not submission.ended:
            self._ledger.note(Ended(key=submission.key, at_us=self._now_us(), counts=status.request_counts))
        if status.archived_at is not None:
            self._gone(submission, "its results are no longer kept")
        else:
            await self._fetch(submission)
        if status.cancel_initiated_at is not None and not self._wiring.cancel:
            words = f"batch {submission.id} was cancelled: nothing more is submitted"
            self._lander.ending = self._lander.ending or Interrupted(words, signal_number=2, hint="`batchrun resume RUN` goes on")

    async def _fetch(self, submission: Submission) -> None:
        """Download the results of a batch, land what is new in them, and close it when all of them are durable."""
        results = self._results.get(submission.key)
        if results is None:
            results = self._results[submission.key] = self._lander.results_of(submission, self._loop.time)
        results.strangers = 0
        failure = await self._endpoint.download(submission.id or "", results.take)
        if failure is not None:
            self._trouble(submission, failure)
            return
        if results.left:
            self._lacked[submission.key] = self._lacked.get(submission.key, 0) + 1
            if self._lacked[submission.key] < LACKING_TRIES:
                self._paces[submission.key].later(self._loop.time(), self._wiring.clocks.chance())
                return
            if results.strangers:
                self._gone(submission, f"{results.strangers:,} of its results are not of what was sent")
                return
        results.close()
        self._lander.settle()
        await asyncio.to_thread(self._wiring.sync)
        self._close(submission, Landed(key=submission.key, at_us=self._now_us()))

    async def _cancel(self, submission: Submission) -> None:
        """Ask the endpoint to stop a batch; one that has ended or is gone is left as it is."""
        while True:
            status = await self._endpoint.cancel(submission.id or "")
            if isinstance(status, BatchStatus) or status.status in {400, 404, 409}:
                return
            await asyncio.sleep(self._wait_after(status))

    def _trouble(self, submission: Submission, failure: Failure) -> None:
        """Ask after a batch later, or give it up where the endpoint does not know it."""
        if failure.status in {404, 410}:
            self._gone(submission, failure.message)
            return
        self._paces[submission.key].at = self._loop.time() + self._wait_after(failure)

    def _gone(self, submission: Submission, why: str) -> None:
        """Make the calls of a batch anew whose results cannot be had, where that is wanted."""
        if not self._wiring.resubmit:
            raise _lost(f"the results of batch {submission.id} ({submission.count:,} calls) cannot be fetched: {why}")
        self._anew(submission, why)

    def _wait_after(self, failure: Failure) -> float:
        """Return how long to wait after a call that failed; raises `EndpointRefused` where that does not help."""
        return self._patience.failed(self._redacted(failure), self._loop.time(), self._wiring.clocks.chance())

    def _redacted(self, failure: Failure) -> Failure:
        return replace(failure, message=self._wiring.landing.redact(failure.message))

    def _now_us(self) -> int:
        return int(self._wiring.clocks.wall() * 1e6)

    # The end.

    def _heard(self, stop: StopSignal, task: asyncio.Task[None]) -> None:
        """Follow a signal: the first lets a submission or a download end, the second ends at once."""
        self._stop(stop.error(), task)
        if stop.requests > 1:
            task.cancel()

    def _stop(self, error: BatchrunError, task: asyncio.Task[None]) -> None:
        """Do nothing more than what is under way. The first reason is the one that counts."""
        if self._stopped is None:
            self._stopped = error
            self._timers.append(self._loop.call_later(self._limits.grace_s, task.cancel))
        self._woken.set()

    def _summary(self) -> EngineSummary:
        """Return what was done."""
        left = [
            submission for submission in self._ledger.open() if submission.id is not None or submission.key not in self._working
        ]
        stopped = self._stopped
        if isinstance(stopped, Interrupted) and left:
            calls = sum(submission.count for submission in left)
            words = f"{stopped}: batches submitted and not fetched: {len(left)} ({calls:,} calls); they stay at work"
            stopped = Interrupted(words, signal_number=stopped.signal_number, hint=COME_BACK)
        return EngineSummary(
            progress=self.progress,
            wall_s=self._loop.time() - self._telemetry.began,
            stopped=stopped,
            concurrency=(),
            timeline_width_s=self._telemetry.timeline.width_s,
            timeline=tuple(self._telemetry.timeline.bins),
            distributions=self._telemetry.distributions(),
            batches=tuple(submission.id for submission in self._ledger.submissions.values() if submission.id is not None),
        )


def _not_in(wanted: dict[int, int], ordinal: int) -> bool:
    return ordinal not in wanted


def _lost(what: str) -> EndpointRefused:
    return EndpointRefused(what, hint=RESUBMIT)
