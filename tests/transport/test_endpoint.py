"""Addresses, headers, proxies, trusted authorities, and which transport they choose."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path

import pytest
import trustme

from batchrun import transport
from batchrun.errors import MissingExtra, UsageError
from batchrun.job import Endpoint
from batchrun.transport import Credential, open_transport
from batchrun.transport.address import parse_base_url
from batchrun.transport.files import allow_open_files
from batchrun.transport.headers import request_headers
from batchrun.transport.own.transport import OwnTransport
from batchrun.transport.proxies import environment_proxy
from batchrun.transport.stock import StockTransport
from batchrun.transport.trust import client_context


@pytest.mark.parametrize(
    ("base_url", "target"),
    [
        ("https://api.example.com", "/v1/messages"),
        ("https://api.example.com/", "/v1/messages"),
        ("https://api.example.com/v1", "/v1/messages"),
        ("https://api.example.com/v1/", "/v1/messages"),
        ("https://api.example.com/v1/messages", "/v1/messages"),
        ("https://api.example.com/gateway", "/gateway/v1/messages"),
        ("https://api.example.com/gateway/v1//", "/gateway/v1/messages"),
        ("https://api.example.com/case/17/mode/byte", "/case/17/mode/byte/v1/messages"),
        ("https://api.example.com/a b/ü", "/a%20b/%C3%BC/v1/messages"),
        (" https://api.example.com\n", "/v1/messages"),
    ],
)
def test_calls_go_below_the_base_address(base_url: str, target: str) -> None:
    """With or without a slash, a path, or what people copy along."""
    assert parse_base_url(base_url).target("/v1/messages") == target


@pytest.mark.parametrize(
    ("base_url", "host", "port", "authority", "tls"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1", 8080, "127.0.0.1:8080", False),
        ("HTTPS://API.Example.com:443/", "api.example.com", 443, "api.example.com", True),
        ("http://[::1]:9/", "::1", 9, "[::1]:9", False),
        ("http://bücher.example", "xn--bcher-kva.example", 80, "xn--bcher-kva.example", False),
    ],
)
def test_the_parts_of_an_address(base_url: str, host: str, port: int, authority: str, tls: bool) -> None:  # noqa: FBT001 - a column
    """DNS wants the bare host, the Host header brackets and any port but the scheme's own."""
    address = parse_base_url(base_url)
    assert (address.host, address.port, address.authority, address.tls) == (host, port, authority, tls)


@pytest.mark.parametrize(
    "base_url",
    ["api.example.com", "ftp://x", "https://", "https://x:port", "https://x/?key=1", "https://x/#a", "http://\udcff.x"],
)
def test_what_is_no_base_address(base_url: str) -> None:
    """Named as the field it is, with exit code 2."""
    with pytest.raises(UsageError, match=r"endpoint\.base_url"):
        parse_base_url(base_url)


def test_a_password_in_the_address_is_refused_unseen() -> None:
    """A credential is never in a job file, and the error does not repeat it."""
    with pytest.raises(UsageError) as caught:
        parse_base_url("https://user:hunter2@x.example/")
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


def test_whole_addresses_are_called_only_at_the_endpoint() -> None:
    """The API names result files by whole addresses; one elsewhere would be sent the credential."""
    address = parse_base_url("https://api.example.com/gateway")
    assert address.target("https://api.example.com/v1/results/1?x=y") == "/v1/results/1?x=y"
    assert address.target("/v1/models?next=http://x/") == "/gateway/v1/models?next=http://x/"
    for path in ("https://evil.example/v1", "https://api.example.com.evil.example/", "/v1/x\r\nX: y", "/v1/a b", "v1"):
        with pytest.raises(ValueError, match=r"endpoint|request path"):
            address.target(path)


def test_the_jobs_headers_win_whatever_their_case() -> None:
    """A name given in the job replaces the default of that name."""
    endpoint = Endpoint(headers={"Anthropic-Version": "2099-01-01", "anthropic-beta": "a,b"}, version="x")
    fields = dict(request_headers(endpoint, Credential()))
    assert fields[b"anthropic-version"] == b"2099-01-01"
    assert fields[b"anthropic-beta"] == b"a,b"


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "x-api-key",
        "X-Api-Key",
        "api_key",
        "Cookie",
        "Proxy-Authorization",
        "X-Auth-Token",
        "CF-Access-Client-Secret",
    ],
)
def test_a_credential_in_the_job_is_refused_unseen(name: str) -> None:
    """Contract 1: never in a job file."""
    with pytest.raises(UsageError) as caught:
        request_headers(Endpoint(headers={name: "hunter2"}), Credential())
    shown = f"{caught.value} {caught.value.hint}"
    assert name in shown
    assert "ANTHROPIC_API_KEY" in shown
    assert "hunter2" not in shown


@pytest.mark.parametrize(
    "headers",
    [
        {"X Y": "a"},
        {"": "a"},
        {"X:": "a"},
        {"X": "a\r\nY: b"},
        {"X": "a\x00"},
        {"X": "ж"},
        {"Host": "x"},
        {"Content-Length": "1"},
    ],
)
def test_headers_that_break_a_request_are_refused(headers: dict[str, str]) -> None:
    """Names that are none, values that would split the head, and fields of the connection."""
    with pytest.raises(UsageError, match=r"endpoint\.headers"):
        request_headers(Endpoint(headers=headers), Credential())


HERE = parse_base_url("https://api.example.com")


@pytest.mark.parametrize(
    ("environ", "proxy"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ({"https_proxy": "p:1", "HTTPS_PROXY": "http://q:1"}, "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, None),
        ({"ALL_PROXY": "socks5://p:1"}, "socks5://p:1"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "localhost, example.com"}, None),
        ({"HTTPS_PROXY": "http://p:1", "no_proxy": ".example.com"}, None),
        ({"HTTPS_PROXY": "http://p:1", "no_proxy": "*.example.com"}, None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "api.example.com:443"}, None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "api.example.com:80,,ample.com"}, "http://p:1"),
    ],
)
def test_the_environments_proxy(environ: dict[str, str], proxy: str | None) -> None:
    """By scheme, in either case, less what NO_PROXY names."""
    assert environment_proxy(HERE, environ) == proxy


def opened(environ: dict[str, str] | None = None, **endpoint: object) -> type:
    """Return the kind of transport that is chosen."""
    spec = Endpoint(base_url="http://api.example.com", **endpoint)  # type: ignore[arg-type]  # columns of a table
    return type(open_transport(spec, Credential(), connections=1, environ=environ or {}))


def test_the_choice_of_transport() -> None:
    """Ours, unless a proxy or HTTP/2 is in the way or the job says httpx."""
    assert opened() is OwnTransport
    assert opened(transport="own", environ={"HTTP_PROXY": "http://p:1"}) is OwnTransport
    assert opened(environ={"HTTP_PROXY": "http://p:1", "NO_PROXY": "example.com"}) is OwnTransport
    assert opened(environ={"HTTP_PROXY": "http://p:1"}) is StockTransport
    assert opened(proxy="http://p:1") is StockTransport
    assert opened(proxy="socks5://p:1") is StockTransport
    assert opened(http2=True) is StockTransport
    assert opened(transport="httpx") is StockTransport
    for impossible in ({"proxy": "http://p:1"}, {"http2": True}):
        with pytest.raises(UsageError, match="neither a proxy nor HTTP/2"):
            opened(transport="own", **impossible)
    with pytest.raises(UsageError, match="proxy") as caught:
        opened(proxy="gopher://user:hunter2@p:1")
    assert "hunter2" not in str(caught.value)


def test_missing_packages_name_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint is what to install."""
    monkeypatch.setattr(transport, "find_spec", lambda _: None)
    for endpoint, extra in (({"http2": True}, "http2"), ({"proxy": "socks5://p:1"}, "socks")):
        with pytest.raises(MissingExtra) as caught:
            opened(**endpoint)
        assert caught.value.hint == f"pip install 'batchrun[{extra}]'"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such bound")
def test_as_many_files_as_connections_may_be_open() -> None:
    """A soft bound below what the connections need is raised as far as the hard one lets it, and never lowered."""
    import resource  # noqa: PLC0415 - not there on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        allow_open_files(200)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (656 if hard == resource.RLIM_INFINITY else min(656, hard), hard)
        allow_open_files(1)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 600
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_trusted_authorities(tmp_path: Path) -> None:
    """`ca_file` before SSL_CERT_FILE before SSL_CERT_DIR before the bundle; always verified."""
    ca_file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(ca_file))
    nothing = {"SSL_CERT_FILE": str(tmp_path / "none.pem")}
    assert len(client_context(str(ca_file), nothing).get_ca_certs()) == 1
    assert len(client_context(None, {"SSL_CERT_FILE": str(ca_file)}).get_ca_certs()) == 1
    assert not client_context(None, {"SSL_CERT_DIR": str(tmp_path)}).get_ca_certs()
    bundle = client_context(None, {})
    assert len(bundle.get_ca_certs()) > 50
    assert bundle.check_hostname
    assert ssl.OP_NO_RENEGOTIATION in bundle.options
    (tmp_path / "junk.pem").write_text("junk")
    for file, environ, named in (
        (str(tmp_path / "none.pem"), {}, "endpoint.ca_file"),
        (str(tmp_path / "junk.pem"), {}, "endpoint.ca_file"),
        (None, nothing, "SSL_CERT_FILE"),
    ):
        with pytest.raises(UsageError, match=named):
            client_context(file, environ)
