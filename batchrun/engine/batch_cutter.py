"""A stream of calls in, batches of them out: as many as the endpoint's bounds and the money allow.

It reads the stream one call ahead and no further. A batch is one JSON body, made once; its calls are kept beside
it until the endpoint has taken it, in case it must be cut smaller. Refuses to know HTTP and files.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from batchrun.engine.budget import NOTHING, MoneyBudget
from batchrun.records import Request
from batchrun.wire.batch_lines import RequestName, check_of, entry

ENDPOINT_REQUESTS: Final = 100_000
"""What the endpoint takes in one batch. API documentation, Batch processing, "Batch limitations"."""

OWN_BYTES: Final = 64_000_000
"""What we put into one, of the 256 MB that the endpoint takes: it is in memory three times while it is sent, and all of it
is sent again when that fails."""

_HEAD: Final = b'{"requests":['
_TAIL: Final = b"]}"
_PLACE: Final = re.compile(r"\brequests[.\[](\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchBounds:
    """The largest batch."""

    requests: int = ENDPOINT_REQUESTS
    body_bytes: int = OWN_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """The calls of one batch, its body, and the most that it can cost: in all, and of one call."""

    requests: list[Request]
    names: list[RequestName]
    body: bytes
    reserved: Decimal
    worst: Decimal

    @property
    def sha256(self) -> str:
        """Return the hash of the body, as hex."""
        return hashlib.sha256(self.body).hexdigest()

    def rows_named(self, words: str, calls_a_row: int) -> str:
        """Return the row that the endpoint's words name (`requests.3.params…`), or which rows the batch is about."""
        place = _PLACE.search(words)
        if place is not None and int(place[1]) < len(self.requests):
            request = self.requests[int(place[1])]
            return f"for row {request.ordinal // calls_a_row} (model {request.model})"
        return f"rows {self.requests[0].ordinal // calls_a_row} to {self.requests[-1].ordinal // calls_a_row}"


class Cutter:
    """Cuts the calls of `source`; `bounds` may be made smaller at any time."""

    def __init__(self, bounds: BatchBounds, budget: MoneyBudget) -> None:
        """Begin with no calls."""
        self.bounds = bounds
        self.starved = False  # there are calls, and no money for the next one
        self._budget = budget
        self._source: Iterator[Request] | None = None
        self._ahead: deque[Request] = deque()

    @property
    def exhausted(self) -> bool:
        """Whether no call is left."""
        return self._source is None and not self._ahead

    def look_ahead(self) -> bool:
        """Return whether a call is left, having taken the next one from the source where that is the only way to know."""
        if not self._ahead and (request := self._next()) is not None:
            self._ahead.append(request)
        return bool(self._ahead)

    def feed(self, source: Iterator[Request]) -> None:
        """Go on with the calls of another source; the one before must be exhausted."""
        self._source = source

    def put_back(self, chunk: Chunk) -> None:
        """Take the calls of a batch back, to be cut again before all others."""
        self._ahead.extendleft(reversed(chunk.requests))

    def cut(self, key: bytes) -> Chunk | None:
        """Return the next batch under `key`; None where no call is left, or none that the money allows (`starved`).

        Raises what the source raises, and `UsageError` where a model has no price.
        """
        requests: list[Request] = []
        names: list[RequestName] = []
        entries: list[bytes] = []
        size, reserved, dearest = len(_HEAD) + len(_TAIL), NOTHING, NOTHING
        self.starved = False
        while len(requests) < self.bounds.requests:
            request = self._next()
            if request is None:
                break
            worst = self._budget.worst_case(request)
            self.starved = not self._budget.fits(reserved + worst)
            name = RequestName(request.ordinal, check_of(key, request.body))
            encoded = entry(name, request.body)
            if self.starved or (requests and size + len(encoded) + 1 > self.bounds.body_bytes):
                self._ahead.appendleft(request)
                break
            requests.append(request)
            names.append(name)
            entries.append(encoded)
            size += len(encoded) + 1
            reserved += worst
            dearest = max(dearest, worst)
        if not requests:
            return None
        body = b"%b%b%b" % (_HEAD, b",".join(entries), _TAIL)
        return Chunk(requests=requests, names=names, body=body, reserved=reserved, worst=dearest)

    def _next(self) -> Request | None:
        """Return the next call, None where there is none."""
        if self._ahead:
            return self._ahead.popleft()
        request = None if self._source is None else next(self._source, None)
        if request is None:
            self._source = None
        return request
