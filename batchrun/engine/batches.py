"""A stream of calls in, a landed attempt for each of them out, by way of the Batches endpoint: half the price, any time.

Calls are cut into batches (`batch_cutter`), each written down before it is sent (`batch_submit`, `batch_ledger`), asked
after with growing patience (`batch_open`), and its results landed line by line as they are downloaded (`batch_landing`).
A batch costs what thousands of calls cost, so the rule is: **never send again what may have been accepted**. After a
broken answer or a crash the endpoint's batches are searched for it (`batch_search`); only when none can be it are its
calls sent anew. Where that cannot be known the run stops and says so, and `--resubmit` decides.

To stop the run leaves its batches at work; a resumed run takes them up again. All that a batch can cost is reserved
before it is sent. A run that comes to its end counts its landings first. It refuses to know JSON and prices.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Final

from batchrun.engine.batch_endpoint import BatchStatus
from batchrun.engine.batch_landing import Lander
from batchrun.engine.batch_ledger import Ledger, Submission
from batchrun.engine.batch_open import AtWork, OpenBatches
from batchrun.engine.batch_patience import Patience, PollPace
from batchrun.engine.batch_search import Search
from batchrun.engine.batch_submit import Submitter
from batchrun.engine.batch_wiring import BatchWiring
from batchrun.engine.stopping import StopSignal, budget_reached, deadline_reached, describe, unwrap
from batchrun.engine.telemetry import EngineSummary, Progress, Telemetry
from batchrun.errors import BatchrunError, BudgetReached, EndpointRefused, Interrupted, StorageError
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
        self.progress = Progress()
        self._stopped: BatchrunError | None = None
        self._search = Search(wiring.endpoint, wiring.settle_s)
        self._search_pace = PollPace(0.0)
        self._search_patience = Patience(limits)
        self._restored = 0  # calls that earlier sessions submitted and nobody has landed yet

    async def drive(self, stop: StopSignal | None = None) -> EngineSummary:
        """Submit, wait and land until every call has landed or the run must stop; return what was done.

        Raises `StorageError` where nothing can be kept. What is at work at the endpoint stays at work.
        """
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._timers: list[asyncio.TimerHandle] = []
        with Ledger(self._wiring.ledger) as ledger:
            self._prepare(ledger)
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

    def _prepare(self, ledger: Ledger) -> None:
        """Make the parts that belong to one ledger and one event loop."""
        wiring, limits = self._wiring, self._limits
        self._telemetry = Telemetry(self._loop.time(), self.progress)
        self._lander = Lander(wiring.landing, limits, self._telemetry)
        self._batches = OpenBatches(
            ledger=ledger,
            budget=wiring.landing.budget,
            progress=self.progress,
            limits=limits,
            now=self._loop.time,
            now_us=lambda: int(wiring.clocks.wall() * 1e6),
        )
        self._submitter = Submitter(wiring, limits, self._batches, self._lander, self._telemetry, self._look_for)

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
        await self._submitter.submit(self._may_submit)
        for work in list(self._batches.at_work.values()):
            if self._stopped is None and work.pace.due(self._loop.time()):
                await self._ask(work)
        if self._batches.at_work or self._search:
            return True
        if self._lander.ending is not None:
            raise self._lander.ending
        if self._wiring.cancel:
            return False
        if (error := self._submitter.in_vain) is not None:
            raise error
        if self._submitter.starved:
            raise budget_reached(str(self._wiring.landing.budget))
        return self._submitter.wanted

    async def _rest(self) -> None:
        """Sleep until something is due, or somebody wants the run to stop."""
        now = self._loop.time()
        due = [work.pace.at for work in self._batches.at_work.values()]
        if self._search:
            due.append(self._search_pace.at)
        if self._submitter.wanted and self._may_submit() and not self._submitter.starved:
            due.append(self._submitter.at)
        try:
            async with asyncio.timeout(max(0.0, min(due, default=now) - now)):
                await self._woken.wait()
        except TimeoutError:
            return

    def _may_submit(self) -> bool:
        """Whether anything may be submitted, sooner or later."""
        if self._stopped is not None or self._lander.ending is not None or self._submitter.unreadable is not None:
            return False
        return not self._wiring.cancel

    # What is there already.

    async def _restore(self) -> None:
        """Take up what earlier sessions have submitted, and begin the pass over the calls that are in none of it."""
        held = bytearray()
        for submission in self._batches.restore():
            if submission.id is None:
                self._look_for(submission, settled=False)
            for first, last in submission.intent.ordinals:
                held.extend(bytes(max(0, last + 1 - len(held))))
                held[first : last + 1] = b"\1" * (last - first + 1)
            self._restored += len(self._left(submission))
        if not self._wiring.cancel:
            self._submitter.begin(lambda ordinal: ordinal < len(held) and held[ordinal] == 1)
            return
        for work in tuple(self._batches.at_work.values()):
            await self._cancel(work)

    def _left(self, submission: Submission) -> dict[int, int]:
        """Return the calls of a batch that have not landed, and which try the next one is should it bring nothing more."""
        work = self._batches.at_work.get(submission.key)
        results = work.results if work is not None else None
        landed, tries = self._wiring.landing.landed, submission.intent.tries
        left = submission.ordinals() if results is None else results.left
        again = {ordinal: tries.get(ordinal, 1) for ordinal in left if not landed(ordinal)}
        return again if results is None else again | results.again

    def _look_for(self, submission: Submission, settled: bool) -> None:  # noqa: FBT001 - the shape of `Unknown`
        """Search for a batch of which nobody knows whether it was accepted."""
        self._search.expect(submission, self._wiring.clocks.wall(), settled=settled)
        self._search_pace = PollPace(self._loop.time())

    async def _find(self) -> None:
        """Look for the batches of which nobody knows whether they were accepted."""
        known = {submission.id for submission in self._batches.ledger.submissions.values() if submission.id is not None}
        found = await self._search.look(known, self._wiring.clocks.wall())
        if isinstance(found, Failure):
            no_list = found.kind == "unknown_shape" and self._wiring.resubmit  # then what cannot be found is made anew
            if found.retry == "retry" and not no_list:
                self._search_pace.at = self._loop.time() + self._wait_after(found, self._search_patience)
                return
            found = self._search.give_up(f"the endpoint does not list its batches: {describe(found)}")
        self._search_patience.well()
        self._search_pace.later(self._loop.time(), self._wiring.clocks.chance())
        for item in found:
            if item.id is not None:
                self._batches.accepted(item.submission, item.id)
            elif item.certain or self._wiring.resubmit:
                self._anew(item.submission, item.why)
            else:
                raise _lost(f"a batch may have been accepted: {item.why}")

    def _anew(self, submission: Submission, why: str) -> None:
        """Have the calls of a batch made again that have not landed and that it will not bring."""
        again = self._left(submission)
        self._batches.void(submission, why)
        self._submitter.paid_back()
        self._lander.again |= again

    # Waiting for it, and landing it.

    async def _ask(self, work: AtWork) -> None:
        """Ask how far a batch is; land its results when it has ended."""
        status = await self._endpoint.show(work.id)
        if isinstance(status, Failure):
            self._trouble(work, status, work.asking)
            return
        work.asking.well()
        if not status.ended:
            work.pace.later(self._loop.time(), self._wiring.clocks.chance())
            return
        self._batches.ended(work.submission, status.request_counts)
        if status.archived_at is not None:
            self._gone(work, "its results are no longer kept")
        else:
            await self._fetch(work)
        if status.cancel_initiated_at is not None and not self._wiring.cancel:
            words = f"batch {work.id} was cancelled: nothing more is submitted"
            self._lander.ending = self._lander.ending or Interrupted(words, signal_number=2, hint="`batchrun resume RUN` goes on")

    async def _fetch(self, work: AtWork) -> None:
        """Download the results of a batch, land what is new in them, and close it when all of them are durable."""
        results = work.results = work.results or self._lander.results_of(work.submission, self._loop.time)
        results.strangers, before = 0, len(results.left)
        failure = await self._endpoint.download(work.id, results.take)
        if failure is None or len(results.left) < before:
            work.fetching.well()
        if failure is not None:
            self._trouble(work, failure, work.fetching)
            return
        if results.left:
            work.lacked += 1
            if work.lacked < LACKING_TRIES:
                work.pace.later(self._loop.time(), self._wiring.clocks.chance())
                return
            if results.strangers:
                self._gone(work, f"{results.strangers:,} of its results are not of what was sent")
                return
        results.close()
        self._lander.settle()
        await asyncio.to_thread(self._wiring.sync)
        self._batches.landed(work.submission)
        self._submitter.paid_back()
        self._lander.again |= results.again

    async def _cancel(self, work: AtWork) -> None:
        """Ask the endpoint to stop a batch; one that has ended or is gone is left as it is."""
        while True:
            status = await self._endpoint.cancel(work.id)
            if isinstance(status, BatchStatus) or status.status in {400, 404, 409}:
                work.asking.well()
                return
            await asyncio.sleep(self._wait_after(status, work.asking))

    def _trouble(self, work: AtWork, failure: Failure, patience: Patience) -> None:
        """Ask after a batch later, or give it up where the endpoint does not know it."""
        if failure.status in {404, 410}:
            self._gone(work, failure.message)
            return
        work.pace.at = self._loop.time() + self._wait_after(failure, patience)

    def _gone(self, work: AtWork, why: str) -> None:
        """Make the calls of a batch anew whose results cannot be had, where that is wanted."""
        if not self._wiring.resubmit:
            raise _lost(f"the results of batch {work.id} ({work.submission.count:,} calls) cannot be fetched: {why}")
        self._anew(work.submission, why)

    def _wait_after(self, failure: Failure, patience: Patience) -> float:
        """Return how long to wait after a call that failed; raises `EndpointRefused` where that does not help."""
        return patience.failed(self._lander.redacted(failure), self._loop.time(), self._wiring.clocks.chance())

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
        ledger = self._batches.ledger
        return EngineSummary(
            progress=self.progress,
            wall_s=self._loop.time() - self._telemetry.began,
            stopped=self._reason(ledger.open()),
            concurrency=(),
            timeline_width_s=self._telemetry.timeline.width_s,
            timeline=tuple(self._telemetry.timeline.bins),
            distributions=self._telemetry.distributions(),
            batches=tuple(submission.id for submission in ledger.submissions.values() if submission.id is not None),
        )

    def _reason(self, left: list[Submission]) -> BatchrunError | None:
        """Return why the run ended before all calls had landed, None where they have; `left` is what is still open."""
        stopped = self._stopped
        if stopped is None:
            return self._missing()
        calls = sum(submission.count for submission in left)
        words = f"{stopped}: batches submitted and not fetched: {len(left)} ({calls:,} calls); they stay at work"
        match stopped:
            case Interrupted() if left:
                return Interrupted(words, signal_number=stopped.signal_number, hint=COME_BACK)
            case BudgetReached() if left:  # the deadline: the money of what is at work is set aside
                return BudgetReached(words, hint=COME_BACK)
        return stopped

    def _missing(self) -> BatchrunError | None:
        """Return the error of a run that believes itself done and is not: a fault of ours, and one to be told."""
        calls = self._restored + self._submitter.read - self.progress.landed
        if self._wiring.cancel:
            calls -= len(self._lander.again)  # a resumed run makes those
        elif self._submitter.wanted:
            calls = max(calls, 1)
        if calls <= 0:
            return None
        words = f"the run came to its end and {calls:,} or more of its calls have not landed: that is a fault of batchrun"
        return BatchrunError(words, hint="`batchrun resume RUN` makes them")


def _lost(what: str) -> EndpointRefused:
    return EndpointRefused(what, hint=RESUBMIT)
