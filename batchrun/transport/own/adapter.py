"""Puts the fast transport behind httpx's interface, for whoever has an `httpx.AsyncClient`.

    client = httpx.AsyncClient(transport=HttpxAdapter(own), base_url=...)

The request goes out as httpx built it, the reply's body is streamed, and what went wrong is raised as httpx's
own exceptions. Only the endpoint's origin can be called.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Final

import httpx

from batchrun.records import Ended, EndedHow
from batchrun.transport.own.transport import OwnTransport

_RAISED: Final[Mapping[EndedHow, type[httpx.TransportError]]] = {
    "closed": httpx.RemoteProtocolError,
    "bad_http": httpx.RemoteProtocolError,
    "too_large": httpx.RemoteProtocolError,
    "reset": httpx.ReadError,
    "connect": httpx.ConnectError,
    "tls": httpx.ConnectError,
    "timeout_connect": httpx.ConnectTimeout,
    "timeout_first_byte": httpx.ReadTimeout,
    "timeout_idle": httpx.ReadTimeout,
    "timeout_total": httpx.ReadTimeout,
}


class HttpxAdapter(httpx.AsyncBaseTransport):
    """An httpx transport that sends through an `OwnTransport`; closing it closes that one."""

    def __init__(self, own: OwnTransport) -> None:
        """Send through `own`."""
        self._own = own

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request`; return once its head is here, with the body as a stream."""
        url, address = request.url, self._own.address
        if (url.scheme, url.host, url.port or address.port) != (address.scheme, address.host, address.port):
            raise httpx.UnsupportedProtocol(f"this transport calls {address.origin} only", request=request)
        body = await request.aread()
        lines = [request.method.encode("ascii") + b" " + url.raw_path + b" HTTP/1.1"]
        lines += [name + b": " + value for name, value in request.headers.raw]
        stream = _Stream(self._own, b"\r\n".join(lines) + b"\r\n\r\n" + body)
        await stream.opened()
        return httpx.Response(stream.status, headers=list(stream.headers.items()), stream=stream)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._own.aclose()


class _Stream(httpx.AsyncByteStream):
    """One exchange as a receiver on one side and as httpx's byte stream on the other."""

    eager = True
    done = False
    marks: tuple[bytes, ...] = ()
    max_gap = 0.0

    def __init__(self, own: OwnTransport, request: bytes) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self._arrived: asyncio.Queue[bytes | None] = asyncio.Queue()  # None: the head, or the end
        self._task = asyncio.ensure_future(own.send(request, self, own.bounds))
        self._task.add_done_callback(lambda _: self._arrived.put_nowait(None))

    def sent(self, at: float) -> None:
        """Take no note of the time."""

    def head(self, status: int, headers: Mapping[str, str], at: float) -> None:  # noqa: ARG002 - the protocol's signature
        self.status, self.headers = status, headers
        self._arrived.put_nowait(None)

    def data(self, chunk: bytes, at: float) -> None:  # noqa: ARG002 - the protocol's signature
        self._arrived.put_nowait(chunk)

    async def opened(self) -> None:
        """Wait for the head."""
        try:
            await self._arrived.get()
        except asyncio.CancelledError:
            await self.aclose()
            raise
        if not self.status:
            _raise(await self._task)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes; raise where it ends too early."""
        while (chunk := await self._arrived.get()) is not None:
            yield chunk
        _raise(await self._task)

    async def aclose(self) -> None:
        """Give up what is still under way."""
        self._task.cancel()
        await asyncio.wait([self._task])


def _raise(ended: Ended) -> None:
    """Raise httpx's exception for an end that is none."""
    kind = _RAISED.get(ended.how)
    if kind is not None:
        raise kind(ended.message)
