"""Turns `endpoint.base_url` into what a connection and a request line need.

The base address may end in a slash, carry a path of its own (a gateway's), or end in the `/v1` or
`/v1/messages` that people copy along: calls still go to `…/v1/messages` once. This module refuses to know
proxies and sockets.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, urlsplit

from msgspec import Struct

from batchrun.errors import JobError, Problem

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_COPIED_ALONG: Final = ("/v1/messages", "/v1")
_SENDABLE: Final = re.compile(r"/[!-~]*")  # visible ASCII: no blank, no line break


class Address(Struct, frozen=True, kw_only=True):
    """Where calls go: `host` as DNS wants it, `authority` as the Host header does, `prefix` before every path."""

    scheme: str
    host: str
    port: int
    authority: str
    prefix: str

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme == "https"

    @property
    def origin(self) -> str:
        """Return `scheme://host[:port]`."""
        return f"{self.scheme}://{self.authority}"

    def target(self, path: str) -> str:
        """Return the request target of an API path, or of a whole address at this endpoint.

        Raises `ValueError` for an address of another origin (the credential would go there) and for
        characters that a request line cannot carry.
        """
        if path.startswith(self.origin + "/"):
            target = path[len(self.origin) :]
        elif path.startswith("/"):
            target = self.prefix + path
        else:
            raise ValueError("an address outside the endpoint is not called: it would be sent the credential")
        if _SENDABLE.fullmatch(target) is None:
            raise ValueError("a request path holds visible ASCII only")
        return target


def parse_base_url(base_url: str) -> Address:
    """Return the address of `base_url`; raises `JobError` where it is none, or holds what has no place in it."""
    try:
        parts = urlsplit(base_url.strip())
        port = parts.port
    except ValueError as error:
        raise _refused(f"is not an address: {error}") from None
    if parts.username is not None or parts.password is not None:
        raise _refused("holds a user name or a password", hint="set ANTHROPIC_AUTH_TOKEN or ANTHROPIC_API_KEY instead")
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise _refused(f"{base_url!r} does not begin with http:// or https:// and a host")
    if parts.query or parts.fragment:
        raise _refused("holds a query or a fragment", hint="give the address alone; `headers` takes the rest")
    host = _ascii_host(parts.hostname)
    shown = f"[{host}]" if ":" in host else host
    default = _DEFAULT_PORTS[parts.scheme]
    return Address(
        scheme=parts.scheme,
        host=host,
        port=port or default,
        authority=shown if port in {None, default} else f"{shown}:{port}",
        prefix=_prefix(parts.path),
    )


def _prefix(path: str) -> str:
    """Return the path that goes before `/v1/…`, less what was copied along."""
    bare = path.rstrip("/")
    for suffix in _COPIED_ALONG:
        if bare.endswith(suffix):
            bare = bare.removesuffix(suffix)
            break
    return quote(bare.rstrip("/"), safe="/%:@!$&'()*+,;=~-._")


def _ascii_host(host: str) -> str:
    """Return the host as DNS carries it."""
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        raise _refused(f"host {host!r} is not a name that DNS can carry") from None


def _refused(what: str, *, hint: str = 'endpoint.base_url = "https://api.anthropic.com"') -> JobError:
    """Build the error that names the field."""
    return JobError([Problem(message=what, field="endpoint.base_url", hint=hint)])
