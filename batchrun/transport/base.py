"""What every transport is to the engine, and the table that turns socket errors into `Ended`.

A transport sends one ready-made body and pushes what comes back into a `Receiver`, as bytes: the
transfer coding is taken off, the content coding is not. It never raises for what a network or a server
does: how an exchange ended is a value (`records.Ended`). Only a receiver's own exception comes through.

Times are seconds of `time.monotonic()`, which is asyncio's and uvloop's own clock, only finer than uvloop's
`loop.time()`. This module refuses to know HTTP libraries and reply formats.
"""

from __future__ import annotations

import math
import ssl
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Final, Protocol

from msgspec import Struct, structs

from batchrun.job import Endpoint
from batchrun.records import Ended, EndedHow

EVENT_STREAM: Final = "text/event-stream"
JSON: Final = "application/json"

MAX_HEAD_BYTES: Final = 64 * 1024
"""Bound of a reply's head, all 1xx heads before it included. h11 allows 16 KB, nginx sends at most 32 KB,
Node and curl stop at 16 KB and 300 KB."""

MAX_HEADERS: Final = 256
"""Bound of the number of header fields; Python's http.client stops at 100, h11 and Node have none."""

DRAIN_S: Final = 1.0
"""How long the end of a body is waited for once the receiver is done, so that the connection can be kept."""

RACE_S: Final = 0.25
"""A kept connection that is lost within this time of the write, without a byte of a reply, is taken to have been closed
before the request came to it, and the request is sent again unasked: the news of that takes one round trip, a quarter of
a second to the other side of the earth. Lost later, the request may have been at work and be billed: the engine must know."""

MAX_MESSAGE: Final = 200  # characters of a foreign error that are kept

COMPLETE: Final = Ended(how="complete")
ENOUGH: Final = Ended(how="enough")


class Receiver(Protocol):
    """Takes one reply as it arrives. The methods are called from the event loop and must not block.

    `marks`: byte strings one of which is in whatever it still waits for while it is eager: bytes without any are
    then handed over together, at the last one's time. Empty: each time matters.
    `max_gap`: seconds of the longest silence between two arrivals of the body so far; the transport raises it.
    """

    marks: tuple[bytes, ...]
    max_gap: float

    def sent(self, at: float) -> None:
        """Note when the exchange began: the moment we begin to connect or, on a kept connection, to write.

        Called once. Waiting for one of the transport's connections is before it, setting one up is after it.
        """

    def head(self, status: int, headers: Mapping[str, str], at: float) -> None:
        """Take the final status and the headers: names in lower case, repeated ones joined by `, `."""

    def data(self, chunk: bytes, at: float) -> None:
        """Take the next bytes of the body, in transfer-decoded and still content-encoded form."""

    @property
    def eager(self) -> bool:
        """Whether the times of arrival still matter: while true, `at` is right to 10 ms, up to 640 streams."""

    @property
    def done(self) -> bool:
        """Whether all that is wanted has been seen: the transport then finishes soon."""


class Call(Struct, frozen=True, kw_only=True, gc=False):
    """What one request asks for: `path` is the API's, under the endpoint's base address; `body` is JSON."""

    method: str
    path: str
    accept: str
    body: bytes | None = None
    once: bool = False  # never to be sent a second time, on whatever connection: what it makes is paid for


class SmallReply(Struct, frozen=True, kw_only=True):
    """A whole reply in memory: `status` is None where no head came, and `ended` says why."""

    status: int | None
    headers: Mapping[str, str]
    body: bytes
    ended: Ended


class Bounds(Struct, frozen=True, kw_only=True):
    """What one exchange may use: seconds from its send or its last byte, and bytes of body.

    `first_byte_s` runs to the first byte of the body and not of the head: servers that queue requests send
    the head at once and think afterwards. `idle_s` is the longest silence after that.
    """

    connect_s: float
    first_byte_s: float
    idle_s: float
    total_s: float
    max_body: int

    @classmethod
    def of(cls, endpoint: Endpoint) -> Bounds:
        """Return what the job allows a call."""
        timeout = endpoint.timeout
        return cls(
            connect_s=timeout.connect_s,
            first_byte_s=timeout.first_byte_s,
            idle_s=timeout.idle_s,
            total_s=timeout.total_s,
            max_body=int(endpoint.max_reply_mb * 1_000_000),
        )

    def for_download(self, total_s: float | None, max_bytes: int | None) -> Bounds:
        """Return these bounds with the total time and the size given; None is no bound."""
        total = math.inf if total_s is None else total_s
        return structs.replace(self, total_s=total, max_body=sys.maxsize if max_bytes is None else max_bytes)


class Transport(Protocol):
    """Sends requests to one endpoint and pushes the replies into receivers."""

    async def post(self, path: str, body: bytes, receiver: Receiver, *, accept: str = EVENT_STREAM) -> Ended:
        """POST a JSON body to `path` (`/v1/messages`, under the endpoint's base address); all four timeouts apply."""

    async def get(self, path: str, receiver: Receiver, *, total_s: float | None = None, max_bytes: int | None = None) -> Ended:
        """GET a long download: no total timeout and no bound of its size but those given here."""

    async def request(self, method: str, path: str, body: bytes | None = None, *, once: bool = False) -> SmallReply:
        """Make one small JSON call and return its whole reply, within the endpoint's timeouts and size bound.

        `once`: it is sent on a new connection, since an old one may be closed while we write, and is never sent again.
        """

    async def aclose(self) -> None:
        """Close every connection."""


class Collector:
    """A receiver that keeps the whole reply, for small calls."""

    eager = True
    done = False
    marks: tuple[bytes, ...] = ()
    max_gap = 0.0

    def __init__(self) -> None:
        """Begin with nothing received."""
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}
        self.chunks: list[bytes] = []

    def sent(self, at: float) -> None:
        """Take no note of the time."""

    def head(self, status: int, headers: Mapping[str, str], at: float) -> None:  # noqa: ARG002 - the protocol's signature
        """Keep the head."""
        self.status, self.headers = status, headers

    def data(self, chunk: bytes, at: float) -> None:  # noqa: ARG002 - the protocol's signature
        """Keep the bytes."""
        self.chunks.append(chunk)


class Calls(ABC):
    """The calls of a `Transport`, in terms of one `exchange`, which a transport implements."""

    def __init__(self, bounds: Bounds) -> None:
        """Hold what the job allows a call."""
        self.bounds = bounds

    async def post(self, path: str, body: bytes, receiver: Receiver, *, accept: str = EVENT_STREAM) -> Ended:
        """POST a JSON body to `path` and return how the exchange ended."""
        return await self.exchange(Call(method="POST", path=path, accept=accept, body=body), receiver, self.bounds)

    async def get(self, path: str, receiver: Receiver, *, total_s: float | None = None, max_bytes: int | None = None) -> Ended:
        """GET a long download and return how the exchange ended."""
        bounds = self.bounds.for_download(total_s, max_bytes)
        return await self.exchange(Call(method="GET", path=path, accept="*/*"), receiver, bounds)

    async def request(self, method: str, path: str, body: bytes | None = None, *, once: bool = False) -> SmallReply:
        """Make one small JSON call and return its whole reply."""
        collector = Collector()
        call = Call(method=method, path=path, accept=JSON, body=body, once=once)
        ended = await self.exchange(call, collector, self.bounds)
        return SmallReply(status=collector.status, headers=collector.headers, body=b"".join(collector.chunks), ended=ended)

    @abstractmethod
    async def exchange(self, call: Call, receiver: Receiver, bounds: Bounds) -> Ended:
        """Make one exchange within `bounds`."""


_WHILE_CONNECTING: Final[tuple[tuple[type[BaseException], EndedHow], ...]] = (
    (ssl.SSLError, "tls"),  # includes a certificate that cannot be verified
    (TimeoutError, "timeout_connect"),  # ours, and the kernel's ETIMEDOUT
    (OSError, "connect"),  # refused, unreachable, no such host
    (UnicodeError, "connect"),  # a host name that DNS cannot carry
)


def ended_connecting(error: BaseException) -> Ended:
    """Translate what stopped a connection from being made: the first row of the table that fits."""
    how: EndedHow = next((how for kind, how in _WHILE_CONNECTING if isinstance(error, kind)), "connect")
    return Ended(how=how, message=brief(error))


def ended_by_loss(error: BaseException | None) -> Ended:
    """Translate the loss of a connection: without an error it was closed in order, only too early."""
    if error is None:
        return Ended(how="closed", message="the server closed the connection before the end of its reply")
    return Ended(how="reset", message=brief(error))


def brief(error: BaseException) -> str:
    """Return a foreign error in one bounded line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:MAX_MESSAGE]


def timed_out(how: EndedHow, seconds: float) -> Ended:
    """Return the end of an exchange that ran into one of the four timeouts."""
    return Ended(how=how, message=f"{_WAITED_FOR[how]} within {seconds:g} s")


_WAITED_FOR: Final[Mapping[EndedHow, str]] = {
    "timeout_connect": "no connection",
    "timeout_first_byte": "no first byte of a reply",
    "timeout_idle": "no further byte",
    "timeout_total": "not finished",
}
