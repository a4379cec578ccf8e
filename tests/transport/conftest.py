"""Transports of both kinds, opened for a test and closed after it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import msgspec
import pytest
import pytest_asyncio
import trustme

from batchrun.job import Endpoint, Timeout
from batchrun.transport import Credential, Transport, open_transport

Kind = Literal["own", "httpx"]
SHORT = Timeout(connect_s=5, first_byte_s=5, idle_s=5, total_s=10)


class Opener(Protocol):
    """Opens a transport of the kind under test."""

    def __call__(
        self,
        base_url: str,
        *,
        connections: int = 4,
        timeout: Timeout = SHORT,
        environ: Mapping[str, str] | None = None,
        **endpoint: Any,
    ) -> Transport:
        """Return a transport that is closed after the test."""


class Authority(NamedTuple):
    """What a server on loopback speaks TLS with, and the file of the authority behind it; nothing of both for plain HTTP."""

    context: ssl.SSLContext | None
    ca_file: str | None


PLAIN = Authority(None, None)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority of its own for each test."""
    made = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.issue_cert("127.0.0.1").configure_cert(context)
    made.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return Authority(context, str(tmp_path / "ca.pem"))


@pytest.fixture(params=[False, True], ids=["plain", "TLS"])
def either(request: pytest.FixtureRequest, authority: Authority) -> Authority:
    """Every test that asks for this runs without TLS and with it."""
    return authority if request.param else PLAIN


@pytest.fixture(params=["own", "httpx"])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest_asyncio.fixture
async def connect(kind: Kind) -> AsyncIterator[Opener]:
    """Every test that asks for this runs over both transports."""
    opened: list[Transport] = []

    def opener(
        base_url: str,
        *,
        connections: int = 4,
        timeout: Timeout = SHORT,
        environ: Mapping[str, str] | None = None,
        **endpoint: Any,
    ) -> Transport:
        spec = msgspec.structs.replace(Endpoint(base_url=base_url, transport=kind, timeout=timeout), **endpoint)
        credential = Credential.from_environment(spec, environ or {})
        transport = open_transport(spec, credential, connections=connections, environ={})
        opened.append(transport)
        return transport

    yield opener
    for transport in opened:
        await transport.aclose()
