"""What the Batches engine is tried against: an endpoint that fails as a seed draws it, and a run of many sessions.

Both live in the event loop's time and in memory, but for the run's ledger.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

from batchrun.engine.batch_cutter import BatchBounds
from batchrun.engine.batch_endpoint import BatchEndpoint, BatchStatus, Refusal
from batchrun.engine.batch_landing import LandingWiring
from batchrun.engine.batch_wiring import BatchWiring
from batchrun.engine.batches import BatchEngine
from batchrun.engine.budget import MoneyBudget
from batchrun.engine.ports import Clocks
from batchrun.engine.stopping import StopSignal
from batchrun.engine.telemetry import EngineSummary
from batchrun.job import Limits
from batchrun.records import Attempt, Failure, Request

CALLS = 40
WORST, COST = Decimal("0.01"), Decimal("0.004")
LIMITS = Limits(max_attempts=50, max_error_rate=1.0, max_consecutive_errors=10**6)
EPOCH = 1_700_000_000.0
CUT = Failure(kind="connection", retry="retry", message="cut")
FAILED = Failure(kind="api_error", retry="retry", message="HTTP 500", status=500)
OVERLOADED = Failure(kind="api_error", retry="retry", message="HTTP 529", status=529)
LIMITED = Failure(kind="api_error", retry="retry", message="HTTP 429", status=429, retry_after_s=7.0)
TOO_LARGE = Failure(kind="api_error", retry="stop_row", message="HTTP 413", status=413)
NOT_FOUND = Failure(kind="api_error", retry="stop_row", message="HTTP 404", status=404)
MESSAGE = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": "end_turn"}
LINES: dict[str, dict[str, Any]] = {
    "succeeded": {"type": "succeeded", "message": {**MESSAGE, "usage": {"input_tokens": 1, "output_tokens": 1}}},
    "canceled": {"type": "canceled"},
    "expired": {"type": "expired"},
    **{
        name: {"type": "errored", "error": {"type": "error", "error": {"type": f"{name}_error", "message": "no"}}}
        for name in ("overloaded", "invalid_request", "permission")
    },
}
SHARES = {"succeeded": 80, "overloaded": 12, "invalid_request": 3, "permission": 1, "expired": 4}


@dataclass
class Made:
    """A batch that was accepted: what becomes of each call, and when it is over."""

    created: float
    ends: float
    kinds: dict[str, str]  # by custom_id
    cancelled: bool = False
    lacking: int = 0  # downloads so far that lacked lines


class World(BatchEndpoint):
    """An endpoint of which each call fails with a chance of `faults`: before anything was done, or after."""

    def __init__(self, chance: Random, now: Callable[[], float]) -> None:
        """Begin without batches."""
        self.batches: dict[str, Made] = {}
        self.faults = 0.0
        self.largest = CALLS
        self._chance = chance
        self._now = now

    async def create(self, body: bytes) -> BatchStatus | Refusal:
        """Make a batch, or not, and say so, or not; who breaks off while it waits may have made one all the same."""
        requests = json.loads(body)["requests"]
        try:
            await self._travel()
        except asyncio.CancelledError:
            self._perhaps_later(requests)
            raise
        if len(requests) > self.largest:
            return Refusal(TOO_LARGE, certain=True)
        if self._fails():
            failure, certain = self._chance.choice(
                [(CUT, False), (CUT, False), (FAILED, False), (LIMITED, True), (OVERLOADED, True)]
            )
            if failure is CUT:
                self._perhaps_later(requests)
            elif failure is FAILED and self._chance.random() < 0.5:
                self._make(requests)
            return Refusal(failure, certain)
        return self._status(self._make(requests))

    async def show(self, batch: str) -> BatchStatus | Failure:
        """Say how far a batch is."""
        await self._travel()
        if self._fails():
            return self._chance.choice([CUT, FAILED, LIMITED])
        return self._status(batch) if batch in self.batches else NOT_FOUND

    async def cancel(self, batch: str) -> BatchStatus | Failure:
        """Stop a batch: of what it had not done yet, nothing will be."""
        await self._travel()
        if self._fails():
            return FAILED
        if batch not in self.batches:
            return NOT_FOUND
        made = self.batches[batch]
        if not made.cancelled and made.ends > self._now():
            made.cancelled, made.ends = True, self._now()
            made.kinds = {name: self._chance.choice([kind, "canceled"]) for name, kind in made.kinds.items()}
        return self._status(batch)

    async def recent(self, since: float) -> AsyncGenerator[BatchStatus | Failure, None]:
        """List the batches, the newest first; a failure may come after any of them."""
        for batch, made in sorted(self.batches.items(), key=lambda item: -item[1].created):
            await self._travel()
            if self._fails():
                yield self._chance.choice([CUT, FAILED])
                return
            if EPOCH + made.created >= since:
                yield self._status(batch)

    async def download(self, batch: str, on_line: Callable[[bytes], bool]) -> Failure | None:
        """Hand the results on in any order: all of them, the first ones, some twice, or for a while not all."""
        await self._travel()
        if batch not in self.batches:
            return NOT_FOUND
        made = self.batches[batch]
        lines = [json.dumps({"custom_id": name, "result": LINES[kind]}).encode() for name, kind in made.kinds.items()]
        self._chance.shuffle(lines)
        failure = None
        if self._fails():
            failure = self._chance.choice([CUT, FAILED])
            del lines[self._chance.randrange(len(lines)) :]
        elif self._fails() and made.lacking < 2:
            made.lacking += 1
            lines.pop()
        elif self._fails():
            lines += lines[:2]
        for line in lines:
            if not on_line(line):
                return None
        return failure

    def vanish(self, batch: str, landed: set[int]) -> None:
        """Lose a batch for good, along with what it has and nobody has landed."""
        kinds = {name: kind for name, kind in self.batches.pop(batch).kinds.items() if ordinal_of(name) in landed}
        self.batches[f"gone-{batch}"] = Made(created=-EPOCH, ends=0, kinds=kinds)

    def paid(self) -> Counter[int]:
        """Return how often each call was answered."""
        kinds = [item for made in self.batches.values() for item in made.kinds.items()]
        return Counter(ordinal_of(name) for name, kind in kinds if kind == "succeeded")

    async def _travel(self) -> None:
        await asyncio.sleep(self._chance.random())

    def _fails(self) -> bool:
        return self._chance.random() < self.faults

    def _perhaps_later(self, requests: list[dict[str, Any]]) -> None:
        """Make a batch that nobody is told of, within the minute, or none."""
        if self._chance.random() < 0.5:
            asyncio.get_running_loop().call_later(50 * self._chance.random(), self._make, requests)

    def _make(self, requests: list[dict[str, Any]]) -> str:
        now, batch = self._now(), f"b{len(self.batches)}-{self._chance.getrandbits(64):x}"
        shares = SHARES if self.faults else {"succeeded": 1}
        kinds = self._chance.choices(list(shares), list(shares.values()), k=len(requests))
        names = [request["custom_id"] for request in requests]
        ends = now + self._chance.choice([1.0, 40.0, 3000.0]) * self._chance.random()
        self.batches[batch] = Made(created=now, ends=ends, kinds=dict(zip(names, kinds, strict=True)))
        return batch

    def _status(self, batch: str) -> BatchStatus:
        made = self.batches[batch]
        ended = made.ends <= self._now()
        return BatchStatus(
            id=batch,
            processing_status="ended" if ended else "in_progress",
            request_counts={"succeeded" if ended else "processing": len(made.kinds)},
            created_at=datetime.fromtimestamp(EPOCH + made.created, UTC),
            cancel_initiated_at=datetime.fromtimestamp(EPOCH, UTC) if made.cancelled else None,
        )


def ordinal_of(name: str) -> int:
    """Return the call that a `custom_id` is of."""
    return int(name.removeprefix("r").partition("-")[0])


@dataclass
class Life:
    """One run: its endpoint, its ledger, its journal, and as many sessions as it takes."""

    world: World
    chance: Random
    ledger: Path
    maximum: Decimal
    journal: list[Attempt] = field(default_factory=list)
    durable: int = 0  # attempts of the journal that no crash takes away

    def landed(self) -> set[int]:
        """Return the calls that need no further one."""
        return {attempt.ordinal for attempt in self.journal if attempt.final and attempt.status in {"succeeded", "errored"}}

    async def session(
        self, *, resubmit: bool = False, cancel: bool = False, stop_s: float | None = None, kill_s: float | None = None
    ) -> EngineSummary | None:
        """Drive the run; None where it was killed."""
        engine, stop, loop = (
            BatchEngine(self._wiring(resubmit=resubmit, cancel=cancel), LIMITS),
            StopSignal(),
            asyncio.get_running_loop(),
        )
        task = loop.create_task(engine.drive(stop))
        timers = [loop.call_later(stop_s, stop.request)] if stop_s is not None else []
        timers += [loop.call_later(kill_s, task.cancel)] if kill_s is not None else []
        try:
            return await asyncio.wait_for(task, 30 * 86_400)
        except asyncio.CancelledError:
            del self.journal[self.chance.randint(self.durable, len(self.journal)) :]
            return None
        finally:
            for timer in timers:
                timer.cancel()

    def _sync(self) -> None:
        self.durable = len(self.journal)

    def _wiring(self, *, resubmit: bool, cancel: bool) -> BatchWiring:
        """Return what a session is made of; what has landed is known as of its beginning."""
        landed = self.landed()
        tries = {attempt.ordinal: attempt.attempt for attempt in self.journal}
        spent = COST * sum(attempt.usage is not None for attempt in self.journal)

        def requests(skip: Callable[[int], bool]) -> Iterator[Request]:
            for ordinal in range(CALLS):
                if ordinal not in landed and not skip(ordinal):
                    yield Request(ordinal=ordinal, model="m", body=b'{"n":%d}' % ordinal, input_tokens=1, max_tokens=1)

        landing = LandingWiring(
            land=self.journal.append,
            landed=landed.__contains__,
            model_of=lambda _ordinal: "m",
            budget=MoneyBudget(self.maximum, lambda _request: WORST, lambda _usage, _model, _at: COST, prior=spent),
            redact=str,
            max_line=1 << 16,
        )
        return BatchWiring(
            endpoint=self.world,
            ledger=self.ledger,
            landing=landing,
            requests=requests,
            tries_of=lambda ordinal: tries.get(ordinal, 0),
            calls_a_row=1,
            sync=self._sync,
            bounds=BatchBounds(requests=self.chance.choice([3, 7, 13, CALLS])),
            resubmit=resubmit,
            cancel=cancel,
            clocks=Clocks(wall=lambda: EPOCH + asyncio.get_running_loop().time(), chance=self.chance.random),
        )
