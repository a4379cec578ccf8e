"""What the engine is wired to, each as the little it needs of it.

The engine knows no HTTP, no JSON and no file. What it drives is handed in by the composition root and
named here by its shape alone: a transport that exchanges bytes, a decoder that tells what a reply is, the
callable that lands an attempt in the journal, and two that know prices.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Final, Protocol

from msgspec import Struct

from batchrun.records import Attempt, Ended, Failure, Reply, Request, Usage
from batchrun.transport.base import Receiver

MESSAGES_PATH: Final = "/v1/messages"


class Transport(Protocol):
    """Exchanges one request for one response; what `transport.base.Transport` is to the engine."""

    async def post(self, path: str, body: bytes, receiver: Receiver, *, accept: str = ...) -> Ended:
        """Send `body`, feed `receiver`, return how the exchange ended. Cancelling closes the connection."""


class Decoder(Protocol):
    """Turns the bytes of one response into a `Reply` or a `Failure`."""

    first_event: bool
    first_call: bool
    complete: bool
    events: int

    @property
    def call_marks(self) -> tuple[bytes, ...]:
        """What stands in the bytes where a tool call begins, one of these; asked once the first event is there."""

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        """Take the response's head."""

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body, split anywhere."""

    def finish(self, ended: Ended, *, now: float) -> Reply | Failure:
        """Return what the exchange came to; `now` is in seconds since the epoch."""


class InFlight(Protocol):
    """Keeps what the calls in flight can cost at most, so that a session which is killed does not take that with it."""

    def sent(self, worst: Decimal) -> None:
        """Note a call that is about to be sent."""

    def ended(self, worst: Decimal) -> None:
        """Note a call that has ended, or was not sent; what it came to is landed next."""


class Observer(Protocol):
    """Is told what happens to a run, and changes nothing of it; it must not raise."""

    def ended(self, attempt: Attempt, wait_s: float | None) -> None:
        """Take note of an attempt that has ended; its row is tried again after `wait_s` seconds, None: it is not."""

    def paused(self, seconds: float, *, outage: bool = False) -> None:
        """Take note that the run sends nothing for so long: as the endpoint wants or, in an `outage`, as we do."""


Land = Callable[[Attempt], None]
"""Hands a finished attempt to the journal; raises `StorageError` when it cannot be kept."""

WorstCase = Callable[[Request], Decimal | None]
"""The most a request can cost, in US dollars; None: its model has no price."""

PriceOf = Callable[[Usage, str, int], Decimal | None]
"""Usage, model, microseconds since the epoch → US dollars; None: not known."""


class Clocks(Struct, frozen=True, kw_only=True):
    """The wall clock (seconds since the epoch) and chance (uniform in [0, 1)); the rest is the event loop's time."""

    wall: Callable[[], float] = time.time
    chance: Callable[[], float] = random.random
