"""The half that spends money: samples out as requests, finished attempts into the journal.

It wires the rooms together and adds nothing of its own: the dataset gives samples, `wire` makes bodies and
reads replies, `engine` drives the calls within the limits, the journal lands each attempt. What has landed is
skipped, so collecting again is how a run is resumed.
"""

from __future__ import annotations

import asyncio
import functools
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from batchrun.engine.budget import ENDLESS, MoneyBudget
from batchrun.engine.judging import Wiring
from batchrun.engine.local import LocalEngine
from batchrun.engine.ports import Observer
from batchrun.engine.stopping import StopSignal
from batchrun.engine.telemetry import EngineSummary, Progress
from batchrun.job import Endpoint, Job
from batchrun.pricing.book import PriceBook
from batchrun.pricing.rates import dollars
from batchrun.records import Attempt, Failure, Request, Sample, Usage
from batchrun.sources import Dataset
from batchrun.storage.folder import RunFolder
from batchrun.storage.in_flight import InFlight, left_in_flight
from batchrun.storage.index import AGAIN, JournalIndex, landing
from batchrun.storage.journal import Journal
from batchrun.transport import Credential, open_transport
from batchrun.transport.base import EVENT_STREAM, JSON
from batchrun.wire.bound import most_input_tokens
from batchrun.wire.reply import ReplyDecoder
from batchrun.wire.request import BodyBuilder

if TYPE_CHECKING:
    from batchrun.engine.answer_watch import AnswerWatch
    from batchrun.engine.batches import BatchEngine
    from batchrun.engine.response_cache import ResponseCache
    from batchrun.transport import Transport

SHOW_EVERY_S: Final = 0.25
CACHE_LIFE_S: Final = {"5m": 300.0, "1h": 3600.0}
_MEGABYTE: Final = 1 << 20

Show = Callable[[Progress, int | None], None]


class Plan(Struct, frozen=True, kw_only=True):
    """What is collected: a job over a dataset, into a folder, priced by a book."""

    job: Job
    dataset: Dataset
    folder: RunFolder
    book: PriceBook
    environ: Mapping[str, str]
    retry_errors: bool = False
    only: frozenset[int] | None = None  # the ordinals to call (a pilot); None: all
    resubmit: bool = False  # make calls anew whose batch cannot be found
    cancel: bool = False  # stop the batches at work and land what they have, submit nothing
    observer: Observer | None = None

    def __repr__(self) -> str:
        """Show nothing of the environment and the job, in which there are secrets."""
        return f"Plan(folder={self.folder!r}, …)"


async def collect(plan: Plan, *, stop: StopSignal, show: Show | None = None) -> EngineSummary:
    """Make every call that has not landed yet; return what was done and why it ended.

    Raises what ends a run before its first call (a credential that cannot be sent, storage that cannot be written).
    """
    job = plan.job
    async with AsyncExitStack() as stack:
        credential = Credential.from_environment(job.endpoint, plan.environ)
        index = stack.enter_context(plan.folder.open_index(again=AGAIN | {"errored"} if plan.retry_errors else AGAIN))
        journal = stack.enter_context(plan.folder.open_journal(secrets=[credential.secret] if credential.secret else []))
        endpoint = patient(job.endpoint) if job.request.mode == "batches" else job.endpoint
        transport = open_transport(endpoint, credential, connections=job.limits.concurrency, environ=plan.environ)
        stack.push_async_callback(transport.aclose)
        watch = _watch(plan, index)
        calls = Calls(plan, index, journal, None if watch is None else stack.enter_context(watch))
        if job.request.mode == "batches":
            batches = calls.batch_engine(transport, credential.redact)
            if show is not None:
                stack.enter_context(shown(batches.progress, calls.left(), show))
            return await batches.drive(stop)
        in_flight = stack.enter_context(InFlight(journal)) if job.limits.max_cost_usd is not None else None
        engine = LocalEngine(calls.wiring(transport, credential.redact, calls.budget(in_flight)), job.limits)
        if show is not None:
            stack.enter_context(shown(engine.progress, calls.left(), show))
        return await engine.drive(calls.requests(samples=None if watch is None else watch.samples()), stop)


async def cancel_at_work(job: Job, folder: Path, environ: Mapping[str, str]) -> int:
    """Ask the endpoint to stop every batch of the run in `folder` that is at work; return how many they are."""
    from batchrun.engine.batch_endpoint import BatchEndpoint  # noqa: PLC0415 - only for `mode = "batches"`
    from batchrun.engine.batch_ledger import read_ledger  # noqa: PLC0415
    from batchrun.engine.stopping import refused  # noqa: PLC0415

    at_work = [
        one.id for one in read_ledger(RunFolder(folder).batches).values() if one.id is not None and not (one.ended or one.closed)
    ]
    credential = Credential.from_environment(job.endpoint, environ)
    transport = open_transport(job.endpoint, credential, connections=1, environ=environ)
    try:
        endpoint = BatchEndpoint(transport, max_line=int(job.endpoint.max_reply_mb * _MEGABYTE))
        for batch in at_work:
            answer = await endpoint.cancel(batch)
            if isinstance(answer, Failure) and answer.status not in {400, 404, 409}:
                raise refused(replace(answer, message=credential.redact(answer.message)))
    finally:
        await transport.aclose()
    return len(at_work)


class Calls:
    """The calls of one plan: as requests to the engine, and as attempts to the journal."""

    def __init__(self, plan: Plan, index: JournalIndex, journal: Journal, watch: AnswerWatch | None = None) -> None:
        """Keep what is landed, where new attempts land, and who scores them at once."""
        self._plan, self._index, self._journal, self._watch = plan, index, journal, watch
        self._job = plan.job
        self._builder = BodyBuilder(plan.job.request)
        self._batch = plan.job.request.mode == "batches"
        self._priced: tuple[Usage | None, Decimal | None] = None, None  # the budget asks first, then the journal

    def requests(
        self, skip: Callable[[int], bool] | None = None, *, samples: Iterable[Sample] | None = None
    ) -> Iterator[Request]:
        """Yield the request of every (row, model, repeat) that has not landed, in order; land rows that cannot be sent.

        Ordinals that `skip` is true of are passed over; `samples` is a part of the dataset, where not all is asked for.
        """
        models, repeats = self._job.request.model, self._job.request.repeat
        marks = self._job.request.cache == "auto"
        for sample in self._plan.dataset.samples(done=self._done_rows()) if samples is None else samples:
            first = sample.index * len(models) * repeats
            for place, model in enumerate(models):
                for ordinal in range(first + place * repeats, first + (place + 1) * repeats):
                    if self._done(ordinal) or (skip is not None and skip(ordinal)):
                        continue
                    if sample.problem is not None:
                        self._land_and_tell(bad_row(sample, ordinal, model))
                        continue
                    yield self._builder.request(sample, model, ordinal, cache=marks)

    def left(self) -> int | None:
        """Return how many calls have not landed yet, None where nobody has counted the rows."""
        if self._plan.only is not None:
            return sum(not self._index.landed(ordinal) for ordinal in self._plan.only)
        rows = self._plan.dataset.count()
        return None if rows is None else rows * len(self._job.request.model) * self._job.request.repeat - self._index.count

    def _done(self, ordinal: int) -> bool:
        """Whether the row needs no further call, or is not asked for."""
        only = self._plan.only
        return self._index.landed(ordinal) or (only is not None and ordinal not in only)

    def _done_rows(self) -> bytes:
        """Return a 1 for each row of which no call is left, up to the last one that has any."""
        calls = len(self._job.request.model) * self._job.request.repeat
        rows = (self._index.last + 1) // calls
        return self._index.landed_mask(rows * calls).reshape(rows, calls).all(axis=1).tobytes()

    def land(self, attempt: Attempt) -> None:
        """Hand one attempt to the journal, with what it cost or may have cost."""
        self._journal.append(attempt, self._cost(attempt))
        if self._watch is not None:
            self._watch.land(attempt)

    def _land_and_tell(self, attempt: Attempt) -> None:
        """Land an attempt that no engine tells the observer of."""
        self.land(attempt)
        if self._plan.observer is not None:
            self._plan.observer.ended(attempt, None if attempt.final else 0.0)

    def _cost(self, attempt: Attempt) -> Decimal | None:
        """Return what an attempt cost, None where that is not known: of one that broke off, the most it can have cost."""
        if attempt.cost_reserved is not None:
            return Decimal(attempt.cost_reserved)
        if attempt.usage is None or attempt.cached_from is not None:
            return None if attempt.billed_unseen else Decimal(0)
        return self.price(attempt.usage, attempt.model, attempt.started_at_us or 0)

    def price(self, usage: Usage, model: str, at_us: int) -> Decimal | None:
        """Return what a usage costs, None where its model has no price."""
        if self._priced[0] is not usage:
            amounts = self._plan.book.amounts(usage, model, at_us, batch=self._batch)
            self._priced = usage, None if amounts is None else dollars(sum(amounts.values()))
        return self._priced[1]

    def wiring(self, transport: object, redact: Callable[[str], str], budget: MoneyBudget) -> Wiring:
        """Return what the engine is made of."""
        job = self._job
        marks = job.request.cache == "auto"
        return Wiring(
            transport=transport,  # type: ignore[arg-type]  # both transports fit the engine's protocol
            new_decoder=functools.partial(ReplyDecoder, max_bytes=int(job.endpoint.max_reply_mb * _MEGABYTE)),
            land=self.land,
            redact=redact,
            accept=EVENT_STREAM if job.request.stream else JSON,
            budget=budget,
            response_cache=self._response_cache(),
            observer=self._plan.observer,
            cache_life_s=CACHE_LIFE_S[job.request.cache_ttl] if marks else None,
        )

    def batch_engine(self, transport: Transport, redact: Callable[[str], str]) -> BatchEngine:
        """Return the engine for the Batches endpoint, wired."""
        from batchrun.engine.batch_endpoint import BatchEndpoint  # noqa: PLC0415 - only for `mode = "batches"`
        from batchrun.engine.batch_landing import LandingWiring  # noqa: PLC0415
        from batchrun.engine.batch_wiring import BatchWiring  # noqa: PLC0415
        from batchrun.engine.batches import BatchEngine  # noqa: PLC0415

        plan, models, repeats = self._plan, self._job.request.model, self._job.request.repeat
        max_line = int(self._job.endpoint.max_reply_mb * _MEGABYTE)
        landing = LandingWiring(
            land=self._land_and_tell,
            landed=self._index.landed,
            model_of=lambda ordinal: models[ordinal // repeats % len(models)],
            budget=self.budget(),
            redact=redact,
            max_line=max_line,
        )
        wiring = BatchWiring(
            endpoint=BatchEndpoint(transport, max_line=max_line),
            ledger=plan.folder.batches,
            landing=landing,
            requests=self.requests,
            tries_of=lambda ordinal: max((attempt.attempt for attempt in self._index.attempts(ordinal)), default=0),
            calls_a_row=len(models) * repeats,
            sync=self._journal.flush,
            resubmit=plan.resubmit,
            cancel=plan.cancel,
        )
        return BatchEngine(wiring, self._job.limits)

    def budget(self, in_flight: InFlight | None = None) -> MoneyBudget:
        """Return the money the run may still spend, less what its earlier sessions spent or may have; it tells `in_flight`."""
        limits, (spent, _) = self._job.limits, self._index.spent
        if limits.max_cost_usd is None:
            return MoneyBudget(ENDLESS, self.worst_case, self.price, allow_unpriced=True, prior=spent)
        maximum, unpriced = limits.max_cost_usd, limits.allow_unpriced
        budget = MoneyBudget(maximum, self.worst_case, self.price, allow_unpriced=unpriced, prior=spent, in_flight=in_flight)
        budget.held = left_in_flight(self._plan.folder.journal)
        return budget

    def worst_case(self, request: Request) -> Decimal | None:
        """Return the most a call can cost."""
        marks = self._job.request.cache == "auto" or b'"cache_control"' in request.body
        tokens, at_us = most_input_tokens(request.body), time.time_ns() // 1000
        return self._plan.book.worst_case(request.model, tokens, request.max_tokens, at_us, cache_marks=marks, batch=self._batch)

    def _response_cache(self) -> ResponseCache | None:
        """Return the answers of earlier runs, where the job asks for them."""
        if not self._job.engine.cache:
            return None
        from batchrun.engine.response_cache import ResponseCache  # noqa: PLC0415 - with sqlite, only for `engine.cache`

        folder = Path(self._job.engine.cache_dir or self._plan.folder.path.parent / ".cache")
        return ResponseCache(
            folder, endpoint=self._job.endpoint, run_id=self._plan.folder.run_id, repeats=self._job.request.repeat
        )


def _watch(plan: Plan, index: JournalIndex) -> AnswerWatch | None:
    """Return what stops the run once the answer is known, ready; None where every row is to be run."""
    job, rule = plan.job, plan.job.scoring.stop_when
    if rule is None or plan.only is not None:
        return None
    from batchrun.engine.answer_watch import AnswerWatch, WatchRule  # noqa: PLC0415 - only for `scoring.stop_when`
    from batchrun.engine.other_run import read_verdicts  # noqa: PLC0415
    from batchrun.scoring import open_scorer  # noqa: PLC0415

    watched = WatchRule(
        rule=rule,
        models=job.request.model,
        repeats=job.request.repeat,
        seed=job.scoring.seed,
        scorer=open_scorer(job.scoring),
        judges_all=job.scoring.scorer is not None,
        tools=msgspec.json.encode(job.request.tools) if job.request.tools is not None else None,
        others=read_verdicts(rule.decided_against, job.request.model) if rule.decided_against else {},
    )
    watch = AnswerWatch(watched, plan.folder.path, index.landed, lambda ordinal: landing(index.attempts(ordinal)))
    watch.prepare(plan.dataset.samples())
    return watch


def patient(endpoint: Endpoint) -> Endpoint:
    """Return the endpoint with time for the upload of a whole batch."""
    from batchrun.engine.batch_search import CREATE_S  # noqa: PLC0415 - only for `mode = "batches"`

    times = endpoint.timeout
    longer = replace(times, first_byte_s=max(times.first_byte_s, CREATE_S), total_s=max(times.total_s, CREATE_S))
    return replace(endpoint, timeout=longer)


def bad_row(sample: Sample, ordinal: int, model: str) -> Attempt:
    """Return the landing of a row that cannot be sent (`on_bad_row = "skip"`)."""
    failure = Failure(kind="bad_row", retry="stop_row", message=sample.problem or "cannot be sent")
    return Attempt(ordinal=ordinal, attempt=0, final=True, status="errored", model=model, failure=failure)


@contextmanager
def shown(progress: Progress, total: int | None, show: Show) -> Iterator[None]:
    """Show the progress every `SHOW_EVERY_S` while the block lasts, and once more at its end."""
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle | None = None

    def tick() -> None:
        nonlocal timer
        show(progress, total)
        timer = loop.call_later(SHOW_EVERY_S, tick)

    tick()
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()
        show(progress, total)


@contextmanager
def signals(stop: StopSignal) -> Iterator[None]:
    """Hand SIGINT and SIGTERM to `stop` while the block lasts, inside a running loop on the main thread; then to who had them."""
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        for number in (signal.SIGINT, signal.SIGTERM):
            stack.callback(signal.signal, number, signal.getsignal(number) or signal.SIG_DFL)
            loop.add_signal_handler(number, stop.request, number)
            stack.callback(loop.remove_signal_handler, number)
        yield
