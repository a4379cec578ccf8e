"""Bytes over HTTP. The only room that imports httpx.

`open_transport` chooses: the transport of our own (`own/`) wherever it can go, stock httpx (`stock`) where a
proxy or HTTP/2 is in the way. Both are the same to a caller (`base.Transport`), and both never follow a
redirect, verify TLS, and tell how an exchange ended as a value. Imports are inside, so that a run that never
needs httpx never pays for it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec

from batchrun.errors import JobError, MissingExtra, Problem
from batchrun.job import Endpoint
from batchrun.transport.address import parse_base_url
from batchrun.transport.base import Receiver, SmallReply, Transport
from batchrun.transport.credential import Credential
from batchrun.transport.files import allow_open_files
from batchrun.transport.proxies import environment_proxy

__all__ = ["Credential", "Receiver", "SmallReply", "Transport", "open_transport", "way_of"]


def open_transport(
    endpoint: Endpoint, credential: Credential, *, connections: int, environ: Mapping[str, str] = os.environ
) -> Transport:
    """Return the transport for `endpoint`, at most `connections` exchanges at a time; nothing is opened yet.

    `endpoint.transport = "auto"` is our own, unless `proxy` or `http2` is set or `environ` names a proxy for
    this host. Raises `UsageError` for an endpoint that cannot be called as it stands, `MissingExtra` where
    HTTP/2 or a SOCKS proxy needs packages that are not installed.
    """
    allow_open_files(connections)
    own, proxy = way_of(endpoint, environ)
    if own:
        from batchrun.transport.own.transport import OwnTransport  # noqa: PLC0415 - only where it is the one

        return OwnTransport(endpoint, credential, connections=connections, environ=environ)
    from batchrun.transport.stock import StockTransport  # noqa: PLC0415 - httpx is slow to import

    return StockTransport(endpoint, credential, connections=connections, proxy=proxy, environ=environ)


def way_of(endpoint: Endpoint, environ: Mapping[str, str]) -> tuple[bool, str | None]:
    """Return whether calls go by our own transport, and the proxy that the other one is to use. Raises as `open_transport`."""
    proxy = endpoint.proxy or environment_proxy(parse_base_url(endpoint.base_url), environ)
    if endpoint.transport == "own" and (endpoint.proxy or endpoint.http2):
        message, hint = '"own" can use neither a proxy nor HTTP/2', 'set endpoint.transport = "auto"'
        raise JobError([Problem(message=message, field="endpoint.transport", hint=hint)])
    if endpoint.transport == "own" or (endpoint.transport == "auto" and not proxy and not endpoint.http2):
        return True, None
    if endpoint.http2 and find_spec("h2") is None:
        raise MissingExtra("HTTP/2", "http2")
    if proxy and proxy.lower().startswith("socks") and find_spec("socksio") is None:
        raise MissingExtra("a SOCKS proxy", "socks")
    if proxy:
        from batchrun.transport.stock import proxy_of  # noqa: PLC0415 - httpx is slow to import, and here it is used

        proxy_of(proxy)
    return False, proxy
