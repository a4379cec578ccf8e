"""Sends requests over connections of our own and keeps the connections.

A request is a head that was encoded once, the body's length, and the body: nothing is built a call. Free
connections are a stack, so that the one used last, which the server is least likely to have closed, is used
next. A kept connection that fails as the request is written is replaced once by a new one: the server had closed it
by then. One that fails later ends the exchange, even without one byte of a reply: the server may have been at work.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping
from time import monotonic
from typing import Any, Final

from batchrun.job import Endpoint
from batchrun.records import Ended
from batchrun.transport.address import Address, parse_base_url
from batchrun.transport.base import RACE_S, Bounds, Call, Calls, Receiver, ended_connecting, timed_out
from batchrun.transport.credential import Credential
from batchrun.transport.headers import request_headers
from batchrun.transport.own.connection import Connection
from batchrun.transport.own.shared import Shared
from batchrun.transport.own.tls import Tls
from batchrun.transport.trust import client_context

_BUFFER_BYTES: Final = 256 * 1024
_MAX_IDLE_S: Final = 50.0  # load balancers commonly close after 60 s of silence
_HAPPY_EYEBALLS_S: Final = 0.25  # RFC 8305, 5
_MAX_HEADS: Final = 64  # of distinct paths; batch ids make more


class OwnTransport(Calls):
    """HTTP/1.1 to one endpoint, on at most `connections` connections at a time."""

    def __init__(self, endpoint: Endpoint, credential: Credential, *, connections: int, environ: Mapping[str, str]) -> None:
        """Check the endpoint and encode what every request carries; nothing is opened yet. Raises `UsageError`."""
        super().__init__(Bounds.of(endpoint))
        self._address = parse_base_url(endpoint.base_url)
        self._fields = request_headers(endpoint, credential)
        self._trust = client_context(endpoint.ca_file, environ) if self._address.tls else None
        self._heads: dict[tuple[str, str, str], bytes] = {}
        self._slots = asyncio.Semaphore(connections)
        self._free: list[Connection] = []
        self._open: set[Connection] = set()
        self._shared: Shared | None = None

    @property
    def address(self) -> Address:
        """Where everything is sent."""
        return self._address

    async def exchange(self, call: Call, receiver: Receiver, bounds: Bounds) -> Ended:
        """Send a call with the endpoint's own headers."""
        return await self.send(self._encode(call), receiver, bounds, once=call.once)

    async def aclose(self) -> None:
        """Close every connection and let the loop take note."""
        for connection in tuple(self._open):
            connection.close()
        if self._shared is not None:
            self._shared.pacing.close()
            self._shared = None
        self._open.clear()
        self._free.clear()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def send(self, request: bytes, receiver: Receiver, bounds: Bounds, *, once: bool = False) -> Ended:
        """Make one exchange with an encoded request, on a kept connection or a new one; `once`: on a new one."""
        async with self._slots:
            shared = self._shared or self._set_up()
            started = monotonic()
            connection = self._take(started)
            if once and connection is not None:
                connection.close()
                self._open.discard(connection)
                connection = None
            if connection is not None:
                ended = await self._on(connection, request, receiver, bounds)
                stale = connection.unwritten or (connection.untouched and monotonic() - started < RACE_S)
                if not (stale and ended.how in {"closed", "reset"}):
                    return ended
            if connection is None or connection.unwritten:
                receiver.sent(started)
            opened = await self._connect(shared, bounds)
            if isinstance(opened, Ended):
                return opened
            return await self._on(opened, request, receiver, bounds, started)

    async def _on(
        self, connection: Connection, request: bytes, receiver: Receiver, bounds: Bounds, started: float | None = None
    ) -> Ended:
        """Make the exchange on `connection`, and keep it if it can be used again."""
        try:
            return await connection.exchange(request, receiver, bounds, started)
        finally:
            if connection.alive:
                connection.idle_since = monotonic()
                self._free.append(connection)
            else:
                self._open.discard(connection)

    def _take(self, now: float) -> Connection | None:
        """Return the connection used last, if it still stands; those below it have been idle for longer."""
        while self._free:
            connection = self._free.pop()
            if connection.usable and now - connection.idle_since < _MAX_IDLE_S:
                return connection
            connection.close()
            self._open.discard(connection)
        return None

    async def _connect(self, shared: Shared, bounds: Bounds) -> Connection | Ended:
        """Open a connection, within the connect timeout; TLS included."""
        address, limit = self._address, min(bounds.connect_s, bounds.total_s)
        try:
            async with asyncio.timeout(limit):
                _, connection = await shared.loop.create_connection(
                    lambda: Connection(shared, self._tls()), address.host, address.port, **self._resolving(shared.loop)
                )
                await connection.secured()
        except (OSError, UnicodeError) as error:
            ended = ended_connecting(error)
            return timed_out("timeout_connect", limit) if ended.how == "timeout_connect" else ended
        self._open.add(connection)
        return connection

    def _tls(self) -> Tls | None:
        """Return the TLS of a new connection, where there is any."""
        return None if self._trust is None else Tls(self._trust, self._address.host)

    def _resolving(self, loop: asyncio.AbstractEventLoop) -> dict[str, Any]:
        """Return the options for a name with addresses of both families: not for a literal, and uvloop has none."""
        both = isinstance(loop, asyncio.BaseEventLoop) and not _is_literal(self._address.host)
        return {"happy_eyeballs_delay": _HAPPY_EYEBALLS_S} if both else {}

    def _set_up(self) -> Shared:
        """Make what the connections share, on the loop that runs now."""
        limit = min(self.bounds.first_byte_s, self.bounds.idle_s, self.bounds.total_s)
        self._shared = Shared(asyncio.get_running_loop(), _BUFFER_BYTES, limit)
        return self._shared

    def _encode(self, call: Call) -> bytes:
        """Return the whole request: an encoded head, the length of the body, the body."""
        key = (call.method, call.path, call.accept)
        head = self._heads.get(key)
        if head is None:
            head = self._encode_head(*key)
            if len(self._heads) < _MAX_HEADS:
                self._heads[key] = head
        if call.body is None:
            return head + (b"content-length: 0\r\n\r\n" if call.method == "POST" else b"\r\n")
        length = b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(call.body)
        return b"".join((head, length, call.body))

    def _encode_head(self, method: str, path: str, accept: str) -> bytes:
        """Return the request line and all fields but those of the body."""
        address = self._address
        fields = {b"host": address.authority.encode("ascii"), b"accept": accept.encode("ascii")} | dict(self._fields)
        lines = [f"{method} {address.target(path)} HTTP/1.1".encode("ascii")]
        lines += [name + b": " + value for name, value in fields.items()]
        return b"\r\n".join(lines) + b"\r\n"


def _is_literal(host: str) -> bool:
    """Tell whether `host` is an IP address, which has no second family to try."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
