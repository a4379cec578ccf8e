"""The half that spends money, in several processes: `collect` for `--workers N` and `[engine] kind = "ray"`.

The driver sends nothing itself. It cuts what has not landed into ranges, starts the workers and the broker, and
watches: it adds up the progress, passes on a signal or the deadline, replaces a worker that died (its rows go to
whoever has room), ends one that has been silent for too long. When all have left, their figures become one summary,
and the journal holds their segments side by side, fetched from the run's bucket where they landed on other machines'
disks: what finishes a run sees no difference. It alone reads the journal; workers are told what has landed.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec.structs import replace

from batchrun.collect import Plan, Show, shown
from batchrun.crew import Crew, ProcessCrew
from batchrun.engine.distributed.broker import Broker
from batchrun.engine.distributed.gathering import copy_into, summarize
from batchrun.engine.distributed.messages import Look, Lost, Stop, View
from batchrun.engine.distributed.ranges import SMALLEST, Ranges
from batchrun.engine.stopping import StopSignal, deadline_reached
from batchrun.engine.telemetry import EngineSummary, Progress
from batchrun.errors import BatchrunError, StorageError, UsageError
from batchrun.job import Job, Select
from batchrun.sources.bad_rows import Blocks
from batchrun.storage.home import Home, home_of
from batchrun.storage.in_flight import left_in_flight
from batchrun.storage.index import AGAIN, JournalIndex
from batchrun.transport import Credential
from batchrun.worker import Order, needed

if TYPE_CHECKING:
    from batchrun.finish import Others
    from batchrun.finish.part import Spread

TICK_S: Final = 0.1
DEATHS_A_WORKER: Final = 3
WORTH_SHARING: Final = 20_000
"""Calls landed from which on finishing them in several processes is sooner done: starting those takes a second."""
WORTH_A_CLUSTER: Final = 500_000
"""... where a cluster would have to be started for it."""
LEAVE_S: Final = 20.0  # beyond the grace of a stop, until a worker that has not left is ended

Runs = list[tuple[int, int | None]]


async def distribute(plan: Plan, *, stop: StopSignal, show: Show | None = None) -> EngineSummary:
    """Make every call that has not landed yet, in `job.engine.workers` processes; return what they did and why it ended.

    Raises as `collect` does, `MissingExtra` where Ray is asked for and not installed, `UsageError` where a machine of the
    cluster cannot do its part, and `BatchrunError` when workers keep dying.
    """
    job = plan.job
    if job.scoring.stop_when is not None:
        hint = '--workers 1, engine.kind = "local"'
        raise UsageError("scoring.stop_when judges the answers in the order of one process", hint=hint)
    Credential.from_environment(job.endpoint, plan.environ)  # what is wrong with it is said once, and here
    workers = min(job.engine.workers, job.limits.concurrency)
    with ExitStack() as stack:
        home = stack.enter_context(home_of(plan.folder.path, _bucket(job)))
        if job.engine.kind == "ray":
            stack.enter_context(connected(job))
            await asyncio.to_thread(_survey, plan, home, stop)
        with await asyncio.to_thread(_landed, plan, home) as index:
            runs, total, prior, told = unlanded(plan, index), left(plan, index), index.spent[0], index.told()
        by_now = functools.partial(_landed_with_the_dead, plan, home)
        held = left_in_flight(plan.folder.journal)
        driver = Driver(_crew(plan, runs, workers, prior + held), _orders(plan, home, told), job.limits.grace_s, prior, by_now)
        if show is not None:
            stack.enter_context(shown(driver.progress, total, show))
        stop.listen(lambda: driver.stop(Stop.of(stop.error()), at_once=stop.requests > 1))
        stack.callback(stop.listen, None)
        if job.limits.deadline_s is not None:
            error = Stop.of(deadline_reached(job.limits.deadline_s))
            timer = asyncio.get_running_loop().call_later(job.limits.deadline_s, driver.stop, error)
            stack.callback(timer.cancel)
        summary = await driver.run(workers, plan)
        await asyncio.to_thread(_gather, plan, home)
        return summary


class Driver:
    """Watches over the workers of one run."""

    def __init__(
        self, crew: Crew, order_of: Callable[[int], Order], grace_s: float, prior: Decimal, landed: Callable[[], JournalIndex]
    ) -> None:
        """Start nothing yet; `order_of(number)` is what the worker of that number is told, `landed` reads the journal."""
        self.progress = Progress()
        self._crew, self._order_of, self._grace_s, self._prior, self._landed = crew, order_of, grace_s, prior, landed
        self._hired: dict[asyncio.Task[bool], str] = {}
        self._numbers = 0
        self._deaths = 0
        self._stop: Stop | None = None
        self._wake = asyncio.Event()
        self._end_at: float | None = None  # when workers that have not left are ended

    def stop(self, stop: Stop, *, at_once: bool = False) -> None:
        """Have all workers stop."""
        self._stop = replace(stop, at_once=at_once)
        self._wake.set()

    async def run(self, workers: int, plan: Plan) -> EngineSummary:
        """Run until every worker has left; return what they did."""
        began = asyncio.get_running_loop().time()
        async with self._crew:
            for _ in range(workers):
                self._hire()
            while self._hired:
                await self._tick(DEATHS_A_WORKER * workers)
            view = await self._crew.look(Look(stop=self._stop, last=True))
        self._show(view)
        stopped = None if view.stop is None else view.stop.error()
        if isinstance(stopped, StorageError):
            raise stopped
        if stopped is None and not view.finished:
            raise BatchrunError("workers keep dying; what they said is above", hint="`batchrun resume RUN` goes on from here")
        wall_s = asyncio.get_running_loop().time() - began
        return summarize(view.measured, self.progress, plan.job.limits, wall_s, stopped)

    async def _tick(self, most_deaths: int) -> None:
        """Wait a moment, look, and do what follows."""
        waker = asyncio.ensure_future(self._wake.wait())
        done, _ = await asyncio.wait([waker, *self._hired], timeout=TICK_S, return_when=asyncio.FIRST_COMPLETED)
        waker.cancel()
        self._wake.clear()
        view = await self._crew.look(Look(stop=self._stop))
        self._show(view)
        for name in self._overdue(view):
            self._crew.kill(name)
        dead = [name for task, name in list(self._hired.items()) if task in done and not self._left(task)]
        if dead:
            await self._lost(dead, most_deaths)

    def _left(self, task: asyncio.Task[bool]) -> bool:
        """Take note of a worker's end; return whether it left in good order."""
        del self._hired[task]
        return task.result()

    async def _lost(self, dead: Sequence[str], most_deaths: int) -> None:
        """Have the others hear of the dead, which may be many where a machine was lost, and others take their places."""
        with await asyncio.to_thread(self._landed) as index:
            landed = index.told()
        for name in dead:
            self._deaths += 1
            await self._crew.lost(Lost(worker=name, landed=landed))
            if self._stop is None and self._deaths < most_deaths:
                self._hire()

    def _overdue(self, view: View) -> list[str]:
        """Return who has been silent for too long, or should have left by now."""
        now = asyncio.get_running_loop().time()
        if view.stop is not None:
            self._stop = self._stop or view.stop
            wait_s = LEAVE_S + (0.0 if view.stop.at_once else self._grace_s)
            self._end_at = min(now + wait_s, now + wait_s if self._end_at is None else self._end_at)
        here = list(self._hired.values())
        if self._end_at is not None and now > self._end_at:
            return here
        return [name for name in view.silent if name in here]

    def _hire(self) -> None:
        """Start one more worker."""
        self._numbers += 1
        order = self._order_of(self._numbers)
        self._hired[self._crew.hire(order)] = order.name

    def _show(self, view: View) -> None:
        """Let whoever watches see how far all workers are."""
        copy_into(self.progress, view.progress)
        if self._prior and self.progress.cost is not None:
            self.progress.cost += self._prior


def connected(job: Job) -> AbstractContextManager[None]:
    """Hold the connection to the Ray cluster of a job. Raises `MissingExtra`, `UsageError`."""
    from batchrun import cluster  # noqa: PLC0415 - an optional extra

    return cluster.connected(job.engine.address, min(job.engine.workers, job.limits.concurrency))


def finishers(job: Job, bad_rows: Blocks) -> Others | None:
    """Return who shares the finishing of a run with this process; None where the job has one worker."""
    from batchrun.finish import Others  # noqa: PLC0415 - loaded when a run ends
    from batchrun.finish.processes import Processes  # noqa: PLC0415

    workers, least = job.engine.workers, WORTH_SHARING
    if job.engine.kind == "ray":
        from batchrun import cluster  # noqa: PLC0415 - an optional extra

        # A run in a bucket is spooled where no other machine sees it.
        spread: Spread = functools.partial(cluster.spread, here=_bucket(job) is not None)
        if job.engine.address is None and not cluster.is_connected():
            least = WORTH_A_CLUSTER
    elif workers > 1:
        spread = Processes(workers)
    else:
        return None
    return Others(spread=spread, workers=workers, least=least, price_text=_price_text(job), bad_rows=bad_rows)


def _price_text(job: Job) -> str | None:
    """Return the text of the price file that a job names."""
    return Path(job.prices.file).read_text(encoding="utf-8") if job.prices.file else None


def unlanded(plan: Plan, index: JournalIndex) -> Runs:
    """Return the places of the chosen rows that may have a call to make, as (start, stop) in order.

    Where every row is chosen a place is a row's number, and rows that have landed are left out.
    """
    rows = plan.dataset.count()
    if plan.job.select != Select() or not index.count:
        return [(0, rows)]
    calls = len(plan.job.request.model) * plan.job.request.repeat
    if rows is None:
        known = index.last // calls + 1
        return [*_holes(index, known, calls), (known, None)]
    return _holes(index, rows, calls)


def _holes(index: JournalIndex, rows: int, calls: int) -> Runs:
    """Return the stretches of the first `rows` rows that have not landed, near ones as one."""
    todo = ~index.landed_mask(rows * calls).reshape(rows, calls).all(axis=1)
    starts, stops = np.flatnonzero(np.diff(np.concatenate(([False], todo, [False])).astype(np.int8))).reshape(-1, 2).T
    apart = starts[1:] - stops[:-1] >= SMALLEST  # smaller holes are passed over by whoever reads
    pairs = zip(starts[np.r_[True, apart]].tolist(), stops[np.r_[apart, True]].tolist(), strict=True) if len(starts) else ()
    return list(pairs)


def left(plan: Plan, index: JournalIndex) -> int | None:
    """Return how many calls have not landed yet, None where nobody has counted the rows."""
    rows = plan.dataset.count()
    return None if rows is None else rows * len(plan.job.request.model) * plan.job.request.repeat - index.count


def _crew(plan: Plan, runs: Runs, workers: int, prior: Decimal) -> Crew:
    """Return the crew of the kind that the job names."""
    limits = plan.job.limits
    if plan.job.engine.kind == "ray":
        from batchrun.cluster import RayCrew  # noqa: PLC0415 - an optional extra

        return RayCrew(plan.job, runs, workers=workers, prior=prior)
    return ProcessCrew(
        lambda: Broker(limits, Ranges(runs, workers=workers, concurrency=limits.concurrency), workers=workers, prior=prior)
    )


def _orders(plan: Plan, home: Home, landed: bytes) -> Callable[[int], Order]:
    """Return what makes the order of each worker."""
    job, price_text, stamp = plan.job, _price_text(plan.job), plan.dataset.stamp()
    digest = "" if stamp is None else plan.dataset.digest()

    def order(number: int) -> Order:
        return Order(
            name=f"w{number}",
            workers=min(job.engine.workers, job.limits.concurrency),
            job=job,
            home=home,
            environ=needed(plan.environ),
            price_text=price_text,
            bad_rows=plan.dataset.bad_rows.blocks,
            landed=landed,
            stamp=stamp,
            digest=digest,
            retry_errors=plan.retry_errors,
        )

    return order


def _survey(plan: Plan, home: Home, stop: StopSignal) -> None:
    """Have every machine of the cluster look whether it can do its part. Raises `UsageError`."""
    from batchrun import cluster  # noqa: PLC0415 - an optional extra

    cluster.survey(_orders(plan, home, JournalIndex(None).told())(0), stop)


def _landed(plan: Plan, home: Home) -> JournalIndex:
    """Read the journal beside its live writers, those on other machines as far as the bucket has them."""
    _gather(plan, home)
    return plan.folder.open_index(again=AGAIN | {"errored"} if plan.retry_errors else AGAIN, seal=False)


def _landed_with_the_dead(plan: Plan, home: Home) -> JournalIndex:
    """Do so once the machines of dead workers, where they live, have sent what those had no time to."""
    if home.place is not None and plan.job.engine.kind == "ray":
        from batchrun import cluster  # noqa: PLC0415 - an optional extra

        cluster.send_left(home.place)
    return _landed(plan, home)


def _gather(plan: Plan, home: Home) -> None:
    """Have in the run's folder what has landed on other machines."""
    if home.place is not None:
        from batchrun.storage.mirror import pull_journal  # noqa: PLC0415 - only for a run in a bucket

        pull_journal(home.place, plan.folder.path)


def _bucket(job: Job) -> str | None:
    """Return the bucket folder that the run of a job is copied to, None where it is on disks alone."""
    from batchrun.storage.places import is_remote  # noqa: PLC0415 - brings Arrow

    return job.out if job.out is not None and is_remote(job.out) else None
