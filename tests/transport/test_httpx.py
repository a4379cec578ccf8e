"""httpx in both directions: ours behind its interface, and it behind ours (proxies, HTTP/2)."""

from __future__ import annotations

import asyncio

import h2.config
import h2.connection
import h2.events
import httpx
import pytest

from batchrun.job import Endpoint, Timeout
from batchrun.transport import Credential, open_transport
from batchrun.transport.own.adapter import HttpxAdapter
from batchrun.transport.own.transport import OwnTransport
from tests.transport.conftest import Authority
from tests.transport.servers import CHUNKED, Asked, Peer, Recorder, serve, sized

BODY = b'{"model":"m"}'
SHORT = Timeout(connect_s=5, first_byte_s=0.5, idle_s=0.5, total_s=5)


def client(base_url: str) -> httpx.AsyncClient:
    """Return httpx's client over our transport."""
    own = OwnTransport(Endpoint(base_url=base_url, timeout=SHORT), Credential(), connections=2, environ={})
    return httpx.AsyncClient(transport=HttpxAdapter(own), base_url=base_url)


async def test_our_transport_serves_httpxs_client() -> None:
    """A plain httpx program: JSON in, JSON out, connection kept, headers as httpx has them."""
    asked: list[Asked] = []

    async def script(peer: Peer) -> None:
        while True:
            asked.append(await peer.request())
            await peer.say(sized(b'{"ok":true}', extra=b"Content-Type: application/json\r\n"))

    async with serve(script) as server:
        async with client(server.base_url) as http:
            for _ in range(2):
                reply = await http.post("/v1/messages?beta=true", content=BODY, headers={"X-Mine": "1"})
                assert (reply.status_code, reply.json()) == (200, {"ok": True})
        assert server.connections == 1
    assert asked[0].line == "POST /v1/messages?beta=true HTTP/1.1"
    assert (asked[0].headers["x-mine"], asked[0].body) == ("1", BODY)


async def test_httpxs_client_streams_through_our_transport() -> None:
    """The head is returned before the body is there, and the body comes piece by piece."""
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(CHUNKED)
        await peer.chunks(b"one", last=False)
        await asyncio.wait_for(go.wait(), 5)
        await peer.chunks(b"two")

    async with (
        serve(script) as server,
        client(server.base_url) as http,
        http.stream("POST", "/v1/messages", content=BODY) as reply,
    ):
        pieces = reply.aiter_raw()
        assert await anext(pieces) == b"one"
        go.set()
        assert b"".join([piece async for piece in pieces]) == b"two"


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        ([], httpx.RemoteProtocolError),
        ([b"nonsense\r\n\r\n"], httpx.RemoteProtocolError),
        ([CHUNKED, b"5\r\nhel"], httpx.RemoteProtocolError),
        ([CHUNKED, b"5\r\nhello\r\n", b"stall"], httpx.ReadTimeout),
    ],
)
async def test_ends_become_httpxs_exceptions(parts: list[bytes], kind: type[httpx.TransportError]) -> None:
    """A reply that does not end well raises what httpx would."""

    async def script(peer: Peer) -> None:
        await peer.request()
        if parts[-1:] == [b"stall"]:
            await peer.say(*parts[:-1])
            await peer.gone()
        await peer.say(*parts)

    async with serve(script) as server, client(server.base_url) as http:
        with pytest.raises(kind):
            await http.post("/v1/messages", content=BODY)


async def test_the_adapter_gives_up_when_it_is_left() -> None:
    """Leaving a stream, cancelling a call or naming another host: the connection is closed or never opened."""
    closed: list[bool] = []

    async def script(peer: Peer) -> None:
        if "stream" in (await peer.request()).line:
            await peer.say(CHUNKED, b"5\r\nhello\r\n")
        closed.append(await peer.gone())

    async with serve(script) as server, client(server.base_url) as http:
        async with http.stream("POST", "/stream", content=BODY):
            pass
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(http.post("/silent", content=BODY), 0.1)
        with pytest.raises(httpx.UnsupportedProtocol):
            await http.post("http://127.0.0.1:9/v1/messages", content=BODY)
        await asyncio.sleep(0.05)
        assert closed == [True, True]


async def test_calls_go_through_the_proxy() -> None:
    """The environment's proxy gets the whole address, and the answer comes back through it."""
    asked: list[Asked] = []

    async def proxy(peer: Peer) -> None:
        asked.append(await peer.request())
        await peer.say(sized(b"through"))

    async with serve(proxy) as server:
        endpoint = Endpoint(base_url="http://api.example.com/gateway", timeout=SHORT)
        environ = {"HTTP_PROXY": server.base_url}
        credential = Credential.from_environment(endpoint, {"ANTHROPIC_API_KEY": "the-key"})
        transport = open_transport(endpoint, credential, connections=2, environ=environ)
        recorder = Recorder()
        ended = await transport.post("/v1/messages", BODY, recorder)
        await transport.aclose()
    assert (ended.how, recorder.body) == ("complete", b"through")
    assert asked[0].line == "POST http://api.example.com/gateway/v1/messages HTTP/1.1"
    assert asked[0].headers["host"] == "api.example.com"
    assert asked[0].headers["x-api-key"] == "the-key"


async def test_a_proxy_that_is_not_there_is_named() -> None:
    """No proxy, no connection: its place is said, which nobody may have thought of, and never its password."""
    endpoint = Endpoint(base_url="http://api.example.com", timeout=SHORT)
    environ = {"HTTP_PROXY": "http://someone:secret@127.0.0.1:9"}
    transport = open_transport(endpoint, Credential(), connections=1, environ=environ)
    ended = await transport.post("/v1/messages", BODY, Recorder())
    assert (ended.how, ended.message.partition(" through ")[2]) == ("connect", "the proxy 127.0.0.1:9")
    await transport.aclose()


async def speak_http2(peer: Peer) -> None:
    """Answer every stream of one HTTP/2 connection with its own body, in two pieces."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
    connection.initiate_connection()
    await peer.say(connection.data_to_send())
    bodies: dict[int, bytes] = {}
    while data := await peer.reader.read(65536):
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                bodies[event.stream_id] = bodies.get(event.stream_id, b"") + event.data
            elif isinstance(event, h2.events.StreamEnded):
                if bodies[event.stream_id] == b"reset":
                    connection.reset_stream(event.stream_id)
                    continue
                connection.send_headers(event.stream_id, [(":status", "200"), ("request-id", "r")])
                connection.send_data(event.stream_id, b"echo ")
                connection.send_data(event.stream_id, bodies[event.stream_id], end_stream=True)
        await peer.say(connection.data_to_send())


async def test_http2_shares_one_connection(authority: Authority) -> None:
    """Ten calls at once are ten streams; one that is reset ends alone."""
    assert authority.context is not None
    authority.context.set_alpn_protocols(["h2"])
    async with serve(speak_http2, tls=authority.context) as server:
        endpoint = Endpoint(base_url=server.base_url, http2=True, ca_file=authority.ca_file, timeout=SHORT)
        transport = open_transport(endpoint, Credential(), connections=10, environ={})
        assert (await transport.post("/v1/messages", b"first", Recorder())).how == "complete"
        recorders = [Recorder() for _ in range(10)]
        bodies = [b"reset" if i == 5 else b"body %d" % i for i in range(10)]
        posts = [transport.post("/v1/messages", body, one) for body, one in zip(bodies, recorders, strict=True)]
        ends = await asyncio.gather(*posts)
        await transport.aclose()
    assert [ended.how for ended in ends] == ["reset" if i == 5 else "complete" for i in range(10)]
    assert [one.body for one in recorders] == [b"" if i == 5 else b"echo body %d" % i for i in range(10)]
    assert server.connections == 1


GOAWAY = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\x01\0\0\0\0"
NO_WINDOW = b"\0\0\x04\x08\0\0\0\0\0\0\0\0\0"
UNOPENED = b"\0\0\0\0\0\0\x0f\xff\xff"


@pytest.mark.parametrize("last_words", [b"", GOAWAY, NO_WINDOW, UNOPENED], ids=["none", "goaway", "no window", "unopened stream"])
async def test_http2_that_dies_ends_its_calls_and_raises_nothing(authority: Authority, last_words: bytes) -> None:
    """What HTTP/2 lets through is the end of a call, not of the run; the next call finds a new connection."""
    assert authority.context is not None
    authority.context.set_alpn_protocols(["h2"])
    died = False

    async def die(peer: Peer) -> None:
        nonlocal died
        if died:
            await speak_http2(peer)
            return
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        open_streams = 0
        while open_streams < 5:
            for event in connection.receive_data(await peer.reader.read(65536)):
                if isinstance(event, h2.events.StreamEnded):
                    connection.send_headers(event.stream_id, [(":status", "200")])
                    connection.send_data(event.stream_id, b"begun ")
                    open_streams += 1
            await peer.say(connection.data_to_send())
        died = True
        await peer.say(last_words)

    async with serve(die, tls=authority.context) as server:
        endpoint = Endpoint(base_url=server.base_url, http2=True, ca_file=authority.ca_file, timeout=SHORT)
        transport = open_transport(endpoint, Credential(), connections=10, environ={})
        ends = await asyncio.gather(*(transport.post("/v1/messages", b"x", Recorder()) for _ in range(5)))
        last = Recorder()
        after = await transport.post("/v1/messages", b"again", last)
        await transport.aclose()
    assert {ended.how for ended in ends} <= {"reset", "closed", "bad_http"}
    assert (after.how, last.body) == ("complete", b"echo again")
