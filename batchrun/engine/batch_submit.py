"""Calls that are wanted → batches that the endpoint has, or may have.

The first pass reads the run's calls; each later pass makes those again that a batch has brought back (`Lander.again`).
A batch is written down before it is sent. One that was surely not accepted is cut smaller, waits, or ends the run;
one that may have been is handed to the search, and never sent again from here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from os import urandom

from batchrun.engine.batch_cutter import BatchBounds, Chunk, Cutter
from batchrun.engine.batch_endpoint import BatchStatus
from batchrun.engine.batch_landing import Lander
from batchrun.engine.batch_ledger import Intent, Submission, packed, runs_of
from batchrun.engine.batch_open import OpenBatches
from batchrun.engine.batch_patience import Patience
from batchrun.engine.batch_wiring import BatchWiring
from batchrun.engine.stopping import RESUME, describe, refused
from batchrun.engine.telemetry import Telemetry
from batchrun.errors import EndpointRefused
from batchrun.job import Limits
from batchrun.records import Failure, Request

Unknown = Callable[[Submission, bool], None]
"""Is told of a batch that may have been accepted; true: the answer was whole, so it is there by now or will never be."""


class Submitter:
    """Submits the batches of one run. `read` counts the calls of the first pass so far; nothing is sent before `at`."""

    def __init__(
        self, wiring: BatchWiring, limits: Limits, batches: OpenBatches, lander: Lander, telemetry: Telemetry, unknown: Unknown
    ) -> None:
        """Begin with no calls."""
        self.at = 0.0
        self.read = 0
        self.unreadable: EndpointRefused | None = None  # what the last submission was answered with: there is no other one
        self._wiring = wiring
        self._batches = batches
        self._lander = lander
        self._telemetry = telemetry
        self._unknown = unknown
        self._cutter = Cutter(wiring.bounds, wiring.landing.budget)
        self._tries: dict[int, int] = {}  # of the calls that the pass under way makes again
        self._patience = Patience(limits)

    @property
    def wanted(self) -> bool:
        """Whether there are calls that no batch was ever sent with, or that are to be made again."""
        return bool(self._lander.again) or not self._cutter.exhausted

    @property
    def starved(self) -> bool:
        """Whether there are calls, and was no money for the next one."""
        return self._cutter.starved

    @property
    def in_vain(self) -> EndpointRefused | None:
        """Return why calls that are left are not submitted; None where none is left, whatever the last answer was."""
        if self.unreadable is None or not (self._lander.again or self._cutter.look_ahead()):
            return None
        return self.unreadable

    def paid_back(self) -> None:
        """Take note that there is money again."""
        self._cutter.starved = False

    def begin(self, skip: Callable[[int], bool]) -> None:
        """Begin the first pass over the calls, less those whose ordinal `skip` is true of."""
        self._cutter.feed(self._counted(self._wiring.requests(skip)))

    async def submit(self, allowed: Callable[[], bool]) -> None:
        """Submit batches while that is `allowed`, there are calls and money, and the endpoint does not want us to wait."""
        while self.wanted and allowed() and self._batches.now() >= self.at:
            if self._cutter.exhausted:
                self._tries, self._lander.again = self._lander.again, {}
                self._cutter.feed(self._wiring.requests(functools.partial(_not_in, self._tries)))
            key = urandom(8)
            chunk = self._cutter.cut(key)
            if chunk is not None:
                await self._send(key, chunk)
            elif self._cutter.starved:
                return

    def _counted(self, requests: Iterator[Request]) -> Iterator[Request]:
        for request in requests:
            self.read += 1
            yield request

    async def _send(self, key: bytes, chunk: Chunk) -> None:
        """Write a batch down, send it, write down what came of it."""
        submission = self._batches.announce(self._intent(key.hex(), chunk))
        telemetry = self._telemetry
        telemetry.progress.sent += submission.count
        telemetry.timeline.at(self._batches.now() - telemetry.began).sent += submission.count
        created = await self._wiring.endpoint.create(chunk.body)
        if isinstance(created, BatchStatus):
            self._patience.well()
            self._batches.accepted(submission, created.id)
            return
        failure = self._lander.redacted(created.failure)
        if created.certain:
            self._batches.void(submission, failure.message)
            self.paid_back()
            self._refused(chunk, failure)
            return
        self._unknown(submission, (failure.status or 0) >= 500)
        if failure.retry == "retry":
            self._wait(failure)
        else:  # nothing that is sent will be answered better
            self.unreadable = refused(failure)

    def _intent(self, key: str, chunk: Chunk) -> Intent:
        """Return what is written down of a batch."""
        tries = {request.ordinal: self._try_of(request.ordinal) for request in chunk.requests}
        return Intent(
            key=key,
            at_us=self._batches.now_us(),
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

    def _refused(self, chunk: Chunk, failure: Failure) -> None:
        """Do what follows from a batch that was surely not accepted: cut it smaller, wait, or stop."""
        if failure.status == 413 and len(chunk.requests) == 1:
            ordinal = chunk.requests[0].ordinal
            self._lander.fail(self._try_of(ordinal), ordinal, failure, self._batches.now())
        elif failure.status == 413:
            self._cutter.bounds = BatchBounds(requests=len(chunk.requests) // 2, body_bytes=self._cutter.bounds.body_bytes)
            self._cutter.put_back(chunk)
        elif failure.retry == "retry":
            self._cutter.put_back(chunk)
            self._wait(failure)
        else:
            where = chunk.rows_named(failure.message, self._wiring.calls_a_row)
            raise EndpointRefused(f"the endpoint refuses a batch, {where}: {describe(failure)}", hint=RESUME)

    def _wait(self, failure: Failure) -> None:
        """Submit nothing for a while. Other batches at work show that the endpoint is well: then there is no end to that."""
        now, endless = self._batches.now(), bool(self._batches.at_work)
        self.at = now + self._patience.failed(failure, now, self._wiring.clocks.chance(), endless=endless)


def _not_in(wanted: dict[int, int], ordinal: int) -> bool:
    return ordinal not in wanted
