"""The same transport over stock httpx: for proxies, HTTP/2 and whatever else stands in the way.

It drives httpx's own network transport directly, without its client: no redirects, no cookies, no headers
but ours, bodies as they came. The proxy is given by the caller, and httpx reads nothing from the environment.
Because a pool of httpcore costs more the more connections it has, each HTTP/1.1 connection gets a pool of its
own and the pools are kept on a stack; HTTP/2 shares one. Deadlines are one `asyncio.timeout`, moved as
bytes come.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import AsyncGenerator, Awaitable, Iterator, Mapping
from time import monotonic
from typing import Final, TypeVar, cast

import httpx

from batchrun.errors import UsageError
from batchrun.job import Endpoint
from batchrun.records import Ended, EndedHow
from batchrun.transport.address import parse_base_url
from batchrun.transport.base import (
    COMPLETE,
    DRAIN_S,
    ENOUGH,
    MAX_HEADERS,
    RACE_S,
    Bounds,
    Call,
    Calls,
    Receiver,
    brief,
    timed_out,
)
from batchrun.transport.credential import Credential
from batchrun.transport.headers import request_headers
from batchrun.transport.trust import client_context

_T = TypeVar("_T")

_KEEP_S: Final = 50.0

_ENDS: Final[tuple[tuple[type[httpx.TransportError], EndedHow], ...]] = (
    (httpx.ConnectTimeout, "timeout_connect"),
    (httpx.ConnectError, "connect"),
    (httpx.ProxyError, "connect"),
    (httpx.NetworkError, "reset"),
    (httpx.RemoteProtocolError, "bad_http"),
)
_SAID: Final[tuple[tuple[str, EndedHow], ...]] = (  # what h11 and httpcore say in a RemoteProtocolError
    ("Server disconnected", "closed"),
    ("peer closed connection", "closed"),
    ("Receive buffer too long", "too_large"),
    ("<ConnectionTerminated", "reset"),
    ("<StreamReset", "reset"),
    ("ConnectionNotAvailable", "reset"),  # HTTP/2: the server had said that it answers no more, in the middle of the answer
)


class StockTransport(Calls):
    """HTTP/1.1 or HTTP/2 to one endpoint through httpx, at most `connections` exchanges at a time."""

    def __init__(
        self,
        endpoint: Endpoint,
        credential: Credential,
        *,
        connections: int,
        proxy: str | None,
        environ: Mapping[str, str],
    ) -> None:
        """Check the endpoint; nothing is opened yet. Raises `UsageError`."""
        super().__init__(Bounds.of(endpoint))
        self._address = parse_base_url(endpoint.base_url)
        self._fields = request_headers(endpoint, credential)
        self._trust: ssl.SSLContext | bool = client_context(endpoint.ca_file, environ) if self._address.tls else False
        self._http2 = endpoint.http2
        self._proxy = None if proxy is None else proxy_of(proxy)
        self._through = "" if self._proxy is None else f" through the proxy {self._proxy.url.netloc.decode()}"
        self._connections = connections
        self._slots = asyncio.Semaphore(connections)
        self._free: list[httpx.AsyncHTTPTransport] = []
        self._open: set[httpx.AsyncHTTPTransport] = set()

    async def aclose(self) -> None:
        """Close every connection."""
        for pool in tuple(self._open):
            await self._discard(pool)

    async def exchange(self, call: Call, receiver: Receiver, bounds: Bounds) -> Ended:
        """Make one exchange on a kept pool or a new one."""
        async with self._slots:
            started = monotonic()
            receiver.sent(started)
            kept = self._free.pop() if self._free else None
            if kept is not None and call.once and not self._http2:
                await self._discard(kept)
                kept = None
            one = _Exchange(self._request(call, bounds), receiver, bounds, started)
            ended = await self._on(kept or self._new_pool(), one)
            stale = not one.answered and monotonic() - started < RACE_S
            if kept is None or self._http2 or not stale or ended.how not in {"closed", "reset"}:
                return ended
            return await self._on(self._new_pool(), _Exchange(self._request(call, bounds), receiver, bounds, started))

    async def _on(self, pool: httpx.AsyncHTTPTransport, one: _Exchange) -> Ended:
        """Make the exchange through `pool`, and keep the pool if the exchange went well."""
        keep = self._http2
        if self._http2 and not self._free:
            self._free.append(pool)  # shared: the others use it at the same time
        try:
            ended = await one.run(pool)
            keep = keep or ended.how == "complete"
            if ended.how in {"connect", "timeout_connect"} and self._through:  # whose credentials stay unsaid
                return Ended(how=ended.how, message=ended.message + self._through)
            return ended
        finally:
            if not keep:
                await self._discard(pool)
            elif pool not in self._free:
                self._free.append(pool)

    def _new_pool(self) -> httpx.AsyncHTTPTransport:
        """Make a pool: of one connection, or for HTTP/2 of as many as it takes."""
        count = self._connections if self._http2 else 1
        limits = httpx.Limits(max_connections=count, max_keepalive_connections=count, keepalive_expiry=_KEEP_S)
        pool = httpx.AsyncHTTPTransport(verify=self._trust, trust_env=False, http2=self._http2, limits=limits, proxy=self._proxy)
        self._open.add(pool)
        return pool

    async def _discard(self, pool: httpx.AsyncHTTPTransport) -> None:
        """Close a pool for good."""
        self._open.discard(pool)
        if pool in self._free:
            self._free.remove(pool)
        await pool.aclose()

    def _request(self, call: Call, bounds: Bounds) -> httpx.Request:
        """Build httpx's request from a call."""
        fields = {b"host": self._address.authority.encode("ascii"), b"accept": call.accept.encode("ascii")}
        fields |= dict(self._fields)
        if call.body is not None:
            fields |= {b"content-type": b"application/json", b"content-length": b"%d" % len(call.body)}
        return httpx.Request(
            call.method,
            self._address.origin + self._address.target(call.path),
            headers=list(fields.items()),
            content=call.body,
            extensions={"timeout": {"connect": bounds.connect_s}},
        )


class _Exchange:
    """One request and its reply. `answered` once a head has come."""

    def __init__(self, request: httpx.Request, receiver: Receiver, bounds: Bounds, started: float) -> None:
        self._request = request
        self._receiver = receiver
        self._bounds = bounds
        self._started = started
        self._limit = timed_out("timeout_first_byte", bounds.first_byte_s)
        self.answered = False

    async def run(self, pool: httpx.AsyncHTTPTransport) -> Ended:
        """Make the exchange through `pool`; return how it ended."""
        clock = asyncio.timeout(None)
        try:
            async with clock:
                self._wait_until(clock, self._started + self._bounds.first_byte_s)
                return await self._receive(clock, await _of_httpx(pool.handle_async_request(self._request)))
        except TimeoutError:
            if not clock.expired():
                raise
            return self._limit
        except httpx.TransportError as error:
            return ENOUGH if self._receiver.done else _ended_by(error, self._bounds)

    async def _receive(self, clock: asyncio.Timeout, response: httpx.Response) -> Ended:
        """Push head and body into the receiver."""
        receiver, bounds = self._receiver, self._bounds
        room, done_at, last_at = bounds.max_body, None, math.inf
        chunks = cast("AsyncGenerator[bytes, None]", response.aiter_raw())
        try:
            if len(response.headers.raw) > MAX_HEADERS:
                return Ended(how="too_large", message=f"the reply's head is over {MAX_HEADERS} fields")
            if response.status_code < 200:
                return Ended(how="bad_http", message=f"not HTTP: an unasked status {response.status_code}")
            self.answered = True
            receiver.head(response.status_code, _joined(response.headers), monotonic())
            while (chunk := await _of_httpx(anext(chunks, None))) is not None:
                at = monotonic()
                if done_at is None:
                    receiver.max_gap = max(receiver.max_gap, at - last_at)
                    last_at = at
                if chunk and room > 0:
                    receiver.data(chunk[:room], at)
                room -= len(chunk)
                if receiver.done and done_at is None:
                    done_at, self._limit = at, ENOUGH
                if room < 0:
                    return self._too_large()
                self._limit = ENOUGH if done_at is not None else timed_out("timeout_idle", bounds.idle_s)
                self._wait_until(clock, at + bounds.idle_s if done_at is None else done_at + DRAIN_S)
            return COMPLETE
        finally:
            await _of_httpx(_let_go(chunks, response))

    def _wait_until(self, clock: asyncio.Timeout, when: float) -> None:
        """Move the deadline: to `when`, or to the total one where that is sooner."""
        total = self._started + self._bounds.total_s
        if total < when:
            self._limit = timed_out("timeout_total", self._bounds.total_s)
        clock.reschedule(min(when, total))

    def _too_large(self) -> Ended:
        """Return the end of a reply that is over its bound."""
        if self._receiver.done:
            return ENOUGH
        return Ended(how="too_large", message=f"the reply is over {self._bounds.max_body} bytes (endpoint.max_reply_mb)")


async def _let_go(chunks: AsyncGenerator[bytes, None], response: httpx.Response) -> None:
    """Close a reply, of which more may be on its way."""
    try:
        await chunks.aclose()
    finally:
        await response.aclose()


async def _of_httpx(told: Awaitable[_T]) -> _T:
    """Return what httpx brings, or raise `httpx.TransportError` for all that was in the way: HTTP/2 lets other errors through."""
    try:
        return await told
    except httpx.TransportError:
        raise
    except Exception as error:
        raise httpx.RemoteProtocolError(brief(error)) from error


def _joined(headers: httpx.Headers) -> dict[str, str]:
    """Return the headers as the receiver takes them."""
    joined: dict[str, str] = {}
    for name, value in headers.raw:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t")
        joined[key] = f"{joined[key]}, {text}" if key in joined else text
    return joined


def _ended_by(error: httpx.TransportError, bounds: Bounds) -> Ended:
    """Translate httpx's exceptions: the first row that fits. What we sent never gets into the message."""
    if isinstance(error, httpx.LocalProtocolError):
        of_http2 = any(type(cause).__module__.startswith("h2.") for cause in _causes(error))
        words = "a rule of HTTP/2 was broken" if of_http2 else "httpx refused to send the request"
        return Ended(how="bad_http", message=words)
    how: EndedHow = next((how for kind, how in _ENDS if isinstance(error, kind)), "reset")
    if how == "timeout_connect":
        return timed_out(how, bounds.connect_s)
    if how == "connect" and any(isinstance(cause, ssl.SSLError) for cause in _causes(error)):
        how = "tls"
    if how == "bad_http":
        how = next((other for said, other in _SAID if said in str(error)), how)
    return Ended(how=how, message=brief(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, what led to it, and so on."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def proxy_of(address: str) -> httpx.Proxy:
    """Return httpx's proxy; raises `UsageError`, which shows no password, for an address that is none."""
    try:
        return httpx.Proxy(address)
    except (ValueError, httpx.InvalidURL):
        raise UsageError(
            "the proxy's address is not one", hint='endpoint.proxy = "http://host:port", or socks5://host:port'
        ) from None
