"""Requests, connections, time-outs and ends. Over both transports, on real sockets."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from batchrun import __version__
from batchrun.job import Timeout
from batchrun.transport.base import RACE_S
from tests.transport.conftest import Authority, Kind, Opener
from tests.transport.servers import CHUNKED, Asked, Peer, Recorder, serve, sized

BODY = '{"model":"m","messages":["é"]}'.encode()
PING = b'event: ping\ndata: {"type":"ping"}\n\n'
SECRET = "sk-ant-0123456789-secret"  # noqa: S105 - made up


async def test_the_request_is_exactly_the_contracts(connect: Opener) -> None:
    """Contract 1, byte for byte: these fields, this body, nothing that was not asked for."""
    asked: list[Asked] = []

    async def script(peer: Peer) -> None:
        for _ in range(3):
            asked.append(await peer.request())
            await peer.say(sized(b"{}"))
        await peer.gone()

    async with serve(script) as server:
        transport = connect(
            server.base_url + "/gateway/v1/", headers={"X-Team": "b", "User-Agent": "mine"}, environ={"ANTHROPIC_API_KEY": SECRET}
        )
        await transport.post("/v1/messages", BODY, Recorder())
        await transport.request("GET", "/v1/models")
        await transport.request("POST", "/v1/messages/batches/b/cancel")
    assert asked[0].line == "POST /gateway/v1/messages HTTP/1.1"
    assert asked[0].body == BODY
    assert asked[0].headers == {
        "host": server.base_url.removeprefix("http://"),
        "accept": "text/event-stream",
        "content-type": "application/json",
        "content-length": str(len(BODY)),
        "anthropic-version": "2023-06-01",
        "user-agent": "mine",
        "x-team": "b",
        "x-api-key": SECRET,
    }
    assert asked[1].line == "GET /gateway/v1/models HTTP/1.1"
    assert asked[1].headers["accept"] == "application/json"
    assert "content-length" not in asked[1].headers
    assert asked[2].headers["content-length"] == "0"
    assert "accept-encoding" not in asked[0].headers


async def test_without_a_credential_none_is_sent(connect: Opener) -> None:
    """No credential set: no Authorization, no x-api-key; the User-Agent is ours."""
    asked: list[Asked] = []

    async def script(peer: Peer) -> None:
        asked.append(await peer.request())
        await peer.say(sized(b"{}"))

    async with serve(script) as server:
        await connect(server.base_url).post("/v1/messages", BODY, Recorder(), accept="application/json")
    assert not {"authorization", "x-api-key"} & set(asked[0].headers)
    assert asked[0].headers["user-agent"] == f"batchrun/{__version__}"
    assert asked[0].headers["accept"] == "application/json"


async def test_a_small_call_returns_its_whole_reply(connect: Opener) -> None:
    """`request` gives status, headers and body; where nothing came, the status is None and the end says why."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(sized(b'{"error":1}', status="404 Not Found", extra=b"Request-Id: r1\r\n"))

    async with serve(script) as server:
        reply = await connect(server.base_url).request("POST", "/v1/messages/count_tokens", BODY)
    assert (reply.status, reply.body, reply.headers["request-id"]) == (404, b'{"error":1}', "r1")
    reply = await connect(server.base_url).request("GET", "/v1/models")
    assert (reply.status, reply.body, reply.ended.how) == (None, b"", "connect")


async def test_a_download_has_its_own_bounds(connect: Opener) -> None:
    """`get` is not bound by the reply's size, unless it is told to be."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.say(sized(b"x" * 300_000))

    async with serve(script) as server:
        transport = connect(server.base_url, max_reply_mb=0.1)
        whole, bounded = Recorder(), Recorder()
        assert (await transport.get("/v1/messages/batches/b/results", whole)).how == "complete"
        assert (await transport.get("/v1/messages/batches/b/results", bounded, max_bytes=1000)).how == "too_large"
    assert (len(whole.body), len(bounded.body)) == (300_000, 1000)


async def test_a_connection_is_used_again(connect: Opener) -> None:
    """Sequential calls share one connection; `Connection: close` is obeyed."""

    async def script(peer: Peer) -> None:
        for _ in range(3):
            await peer.request()
            await peer.say(CHUNKED)
            await peer.chunks(b"hello")
        await peer.request()
        await peer.say(sized(b"bye", extra=b"Connection: close\r\n"))
        assert await peer.gone()

    async with serve(script) as server:
        transport = connect(server.base_url)
        for _ in range(4):
            assert (await transport.post("/v1/messages", BODY, Recorder())).how == "complete"
        assert server.connections == 1
        assert (await transport.post("/v1/messages", BODY, Recorder())).how == "complete"
        await transport.aclose()
        assert server.connections == 2


async def test_a_connection_closed_while_idle_is_replaced(connect: Opener) -> None:
    """The server closes between two calls: the second goes out on a new connection and nobody notices."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(sized(b"hello"))

    async with serve(script) as server:
        transport = connect(server.base_url)
        for _ in range(3):
            recorder = Recorder()
            assert (await transport.post("/v1/messages", BODY, recorder)).how == "complete"
            assert len(recorder.sent_at) == 1
            await asyncio.sleep(0.02)
        assert server.connections == 3


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_stale_connection_is_retried_once(connect: Opener, how: str) -> None:
    """The server closes as the request arrives, before a byte of reply: once more, on a new connection."""
    seen: list[int] = []

    async def script(peer: Peer) -> None:
        mine = len(seen)
        seen.append(0)
        while True:
            await peer.request()
            seen[mine] += 1
            if mine == 0 and seen[mine] == 2:
                if how == "reset":
                    peer.reset()
                return
            await peer.say(sized(b"hello"))

    async with serve(script) as server:
        transport = connect(server.base_url)
        for _ in range(2):
            recorder = Recorder()
            assert (await transport.post("/v1/messages", BODY, recorder)).how == "complete"
            assert len(recorder.sent_at) == 1
        await transport.aclose()
    assert seen == [2, 1]


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_request_that_was_at_work_is_never_sent_again_unasked(connect: Opener, how: str) -> None:
    """Lost later than the news of a stale connection takes: it may be billed, so whoever counts the calls must know."""
    asked = 0

    async def script(peer: Peer) -> None:
        nonlocal asked
        for number in range(2):
            await peer.request()
            asked += 1
            if number == 0:
                await peer.say(sized(b"hello"))
        await asyncio.sleep(RACE_S + 0.05)
        if how == "reset":
            peer.reset()

    async with serve(script) as server:
        transport = connect(server.base_url)
        assert (await transport.post("/v1/messages", BODY, Recorder())).how == "complete"
        recorder = Recorder()
        ended = await transport.post("/v1/messages", BODY, recorder)
        assert (ended.how, asked, len(recorder.sent_at)) == ({"close": "closed", "reset": "reset"}[how], 2, 1)
        assert (await transport.post("/v1/messages", BODY, Recorder())).how == "complete"
    assert server.connections == 2


async def test_a_fresh_connection_is_never_retried(connect: Opener) -> None:
    """A server that answers nothing is asked once: the engine decides what follows."""
    asked = 0

    async def script(peer: Peer) -> None:
        nonlocal asked
        await peer.request()
        asked += 1

    async with serve(script) as server:
        ended = await connect(server.base_url).post("/v1/messages", BODY, Recorder())
    assert (ended.how, asked) == ("closed", 1)


async def test_a_reply_that_has_begun_is_never_asked_for_again(connect: Opener) -> None:
    """After the head of a reply, a lost connection ends the call, kept connection or not."""
    asked = 0

    async def script(peer: Peer) -> None:
        nonlocal asked
        while True:
            await peer.request()
            asked += 1
            if asked == 2:
                await peer.say(CHUNKED, b"3\r\nab")
                return
            await peer.say(sized(b"hello"))

    async with serve(script) as server:
        transport = connect(server.base_url)
        assert (await transport.post("/v1/messages", BODY, Recorder())).how == "complete"
        assert (await transport.post("/v1/messages", BODY, Recorder())).how == "closed"
    assert asked == 2


async def test_surplus_bytes_spoil_the_connection(connect: Opener, kind: Kind) -> None:
    """A second reply that nobody asked for is not taken for the answer to the next request.

    httpcore keeps such bytes and does take them for the next answer, so here httpx is left out.
    """
    if kind == "httpx":
        return

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(sized(b"one") + sized(b"poison"))
        await peer.gone()

    async with serve(script) as server:
        transport = connect(server.base_url)
        for _ in range(2):
            recorder = Recorder()
            assert (await transport.post("/v1/messages", BODY, recorder)).how == "complete"
            assert recorder.body == b"one"
        assert server.connections == 2


async def test_an_early_answer_is_read(connect: Opener) -> None:
    """A server may refuse before it has read the whole request."""

    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.say(sized(b"too big", status="413 Content Too Large", extra=b"Connection: close\r\n"))
        await peer.gone()

    recorder = Recorder()
    async with serve(script) as server:
        ended = await connect(server.base_url).post("/v1/messages", b"x" * 3_000_000, recorder)
    assert (ended.how, recorder.status, recorder.body) == ("complete", 413, b"too big")


async def test_redirects_are_not_followed(connect: Opener) -> None:
    """A 3xx is a reply like another: nothing, and no credential, goes to where it points."""
    asked: list[Asked] = []

    async def other(peer: Peer) -> None:
        asked.append(await peer.request())

    async with serve(other) as elsewhere:

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.say(
                sized(b"", status="307 Temporary Redirect", extra=b"Location: %s/v1\r\n" % elsewhere.base_url.encode())
            )

        recorder = Recorder()
        async with serve(script) as server:
            transport = connect(server.base_url, environ={"ANTHROPIC_API_KEY": SECRET})
            assert (await transport.post("/v1/messages", BODY, recorder)).how == "complete"
    assert recorder.status == 307
    assert not asked


async def test_a_refused_connection_is_named(connect: Opener) -> None:
    """Nobody listens: `connect`."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    ended = await connect(f"http://127.0.0.1:{port}").post("/v1/messages", BODY, Recorder())
    assert ended.how == "connect"


async def test_tls_is_verified(connect: Opener, authority: Authority) -> None:
    """A certificate of an unknown authority is `tls`; with `ca_file` the same server is called."""

    async def script(peer: Peer) -> None:
        for _ in range(2):
            await peer.request()
            await peer.say(CHUNKED)
            await peer.chunks(*[b"x" * 1000] * 50)

    async with serve(script, tls=authority.context) as server:
        ended = await connect(server.base_url).post("/v1/messages", BODY, Recorder())
        assert ended.how == "tls"
        assert "certificate" in ended.message.lower()
        transport = connect(server.base_url, ca_file=authority.ca_file)
        for _ in range(2):
            recorder = Recorder()
            assert (await transport.post("/v1/messages", BODY, recorder)).how == "complete"
            assert len(recorder.body) == 50_000
        await transport.aclose()
        assert server.connections == 1  # the refused handshake is not counted


async def test_tls_that_is_cut_is_no_answer(connect: Opener, authority: Authority) -> None:
    """A connection that breaks under TLS ends the reply as it does without."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(CHUNKED, b"5\r\nhel", pause_s=0.05)
        peer.writer.transport.abort()

    recorder = Recorder()
    async with serve(script, tls=authority.context) as server:
        ended = await connect(server.base_url, ca_file=authority.ca_file).post("/v1/messages", BODY, recorder)
    assert ended.how in {"closed", "reset"}
    assert recorder.body == b"hel"


def limits(**bounds: float) -> Timeout:
    """Return time-outs that are generous but for those given."""
    return Timeout(**({"connect_s": 5.0, "first_byte_s": 5.0, "idle_s": 5.0, "total_s": 10.0} | bounds))


async def timed(connect: Opener, server_url: str, allowed: Timeout, recorder: Recorder | None = None) -> tuple[str, float]:
    """Make a call; return how it ended and after how many seconds."""
    began = time.monotonic()
    ended = await connect(server_url, timeout=allowed).post("/v1/messages", BODY, recorder or Recorder())
    return ended.how, time.monotonic() - began


async def test_the_first_byte_times_out(connect: Opener) -> None:
    """A silent server, and one that sends its head and then nothing: `timeout_first_byte`."""

    async def silent(peer: Peer) -> None:
        await peer.gone()

    async def head_only(peer: Peer) -> None:
        await peer.request()
        await peer.say(CHUNKED)
        await peer.gone()

    for script in (silent, head_only):
        async with serve(script) as server:
            how, took = await timed(connect, server.base_url, limits(first_byte_s=0.3, idle_s=0.1))
        assert how == "timeout_first_byte"
        assert 0.3 <= took < 0.6


async def test_silence_times_out(connect: Opener) -> None:
    """`idle_s` counts from the last byte, and not from the first."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(CHUNKED)
        await peer.chunks(*[PING] * 5, pause_s=0.1, last=False)
        await peer.gone()

    recorder = Recorder()
    async with serve(script) as server:
        how, took = await timed(connect, server.base_url, limits(idle_s=0.3), recorder)
    assert how == "timeout_idle"
    assert recorder.body == PING * 5
    assert 0.65 <= took < 1.1


@pytest.mark.parametrize("piece", [PING, b":"], ids=["pings", "drip"])
async def test_a_stream_without_end_hits_the_total(connect: Opener, piece: bytes) -> None:
    """Bytes that keep coming hold off the idle time-out, and nothing else."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(CHUNKED)
        while True:
            await peer.chunks(piece, pause_s=0.02, last=False)

    async with serve(script) as server:
        how, took = await timed(connect, server.base_url, limits(idle_s=0.2, total_s=0.6))
    assert how == "timeout_total"
    assert 0.6 <= took < 0.9


async def test_connecting_times_out(connect: Opener) -> None:
    """A TLS handshake that is never answered: `timeout_connect`."""

    async def silent(peer: Peer) -> None:
        await peer.gone()

    async with serve(silent) as server:
        url = server.base_url.replace("http:", "https:")
        how, took = await timed(connect, url, limits(connect_s=0.3))
    assert how == "timeout_connect"
    assert 0.3 <= took < 0.8


async def test_a_slow_answer_is_no_time_out(connect: Opener) -> None:
    """Pauses below `idle_s` never add up to one."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.2)
        await peer.say(CHUNKED)
        await peer.chunks(*[PING] * 6, pause_s=0.15)

    async with serve(script) as server:
        how, _ = await timed(connect, server.base_url, limits(first_byte_s=0.5, idle_s=0.4, total_s=3))
    assert how == "complete"


async def test_cancelling_closes_the_connection(connect: Opener) -> None:
    """The server sees the end of the connection at once, and the next call has a new one."""
    closed = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(CHUNKED, b"5\r\nhello\r\n")
        if await peer.gone():
            closed.set()

    async with serve(script) as server:
        transport = connect(server.base_url, connections=1)
        recorder = Recorder()
        task = asyncio.create_task(transport.post("/v1/messages", BODY, recorder))
        await asyncio.wait_for(recorder.begun.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(closed.wait(), 2)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(transport.post("/v1/messages", BODY, Recorder()), 0.2)
        assert server.connections == 2


async def test_a_receiver_that_is_done_is_not_kept_waiting(connect: Opener) -> None:
    """After the logical end, the body's end is waited for a second at most; then: `enough`."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(CHUNKED)
        await peer.chunks(b"message_stop", last=False)
        await peer.gone()

    async with serve(script) as server:
        how, took = await timed(connect, server.base_url, limits(), Recorder(until=b"message_stop"))
    assert how == "enough"
    assert 0.9 <= took < 1.5


async def test_a_done_receivers_connection_is_kept(connect: Opener) -> None:
    """The body's end comes a moment after the logical one: complete, and the connection is used again."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.say(CHUNKED)
            await peer.chunks(b"message_stop", pause_s=0.05)

    async with serve(script) as server:
        transport = connect(server.base_url)
        for _ in range(2):
            assert (await transport.post("/v1/messages", BODY, Recorder(until=b"message_stop"))).how == "complete"
        assert server.connections == 1


async def test_damage_after_the_logical_end_is_enough(connect: Opener) -> None:
    """Nonsense behind the logical end does not turn an answer into an error."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(CHUNKED)
        await peer.chunks(b"message_stop", last=False)
        await peer.say(b"nonsense")
        await peer.gone()

    async with serve(script) as server:
        how, _ = await timed(connect, server.base_url, limits(), Recorder(until=b"message_stop"))
    assert how == "enough"


async def test_the_longest_silence_is_told(connect: Opener) -> None:
    """Between two arrivals of the body: not the wait for its first byte."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.3)
        await peer.say(CHUNKED)
        await peer.chunks(b"one", pause_s=0.02, last=False)
        await peer.chunks(b"two", pause_s=0.12, last=False)
        await peer.chunks(b"three")

    recorder = Recorder()
    async with serve(script) as server:
        how, _ = await timed(connect, server.base_url, limits(), recorder)
    assert how == "complete"
    assert 0.11 <= recorder.max_gap < 0.25


class BrokenReceiver(Recorder):
    """A receiver with a bug."""

    def data(self, chunk: bytes, at: float) -> None:  # noqa: ARG002 - the receiver's signature
        """Fail."""
        raise LookupError("a bug")


async def test_a_receivers_own_error_comes_through(connect: Opener) -> None:
    """An exception of the receiver reaches the caller as it is, and the connection is closed."""
    closed = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(CHUNKED, b"5\r\nhello\r\n")
        if await peer.gone():
            closed.set()

    async with serve(script) as server:
        with pytest.raises(LookupError, match="a bug"):
            await connect(server.base_url).post("/v1/messages", BODY, BrokenReceiver())
        await asyncio.wait_for(closed.wait(), 2)


async def test_connections_bound_what_runs_at_once(connect: Opener) -> None:
    """No more than `connections` exchanges run at once; waiting for one is before the clock starts."""
    running = most = 0

    async def script(peer: Peer) -> None:
        nonlocal running, most
        while True:
            await peer.request()
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.05)
            running -= 1
            await peer.say(sized(b"hello"))

    async with serve(script) as server:
        transport = connect(server.base_url, connections=3)
        recorders = [Recorder() for _ in range(9)]
        await asyncio.gather(*(transport.post("/v1/messages", BODY, one) for one in recorders))
        assert server.connections <= 3
    assert most == 3
    assert all(one.head_at - one.sent_at[0] < 0.15 for one in recorders)


async def test_300_streams_at_once(connect: Opener) -> None:
    """Every stream gets all of its own bytes in order, and time-outs stay quiet."""

    async def script(peer: Peer) -> None:
        name = (await peer.request()).body
        await peer.say(CHUNKED)
        await peer.chunks(*[b"%s %d\n" % (name, i) for i in range(20)], pause_s=0.02)

    async with serve(script) as server:
        transport = connect(server.base_url, connections=300)
        recorders = [Recorder(mark=b" 3\n") for _ in range(300)]
        ends = await asyncio.gather(*(transport.post("/v1/messages", b"s%d" % i, one) for i, one in enumerate(recorders)))
    assert {ended.how for ended in ends} == {"complete"}
    for i, one in enumerate(recorders):
        assert one.body == b"".join(b"s%d %d\n" % (i, k) for k in range(20))
        assert [at for at, _ in one.pieces] == sorted(at for at, _ in one.pieces)


async def test_no_secret_is_shown(connect: Opener, caplog: pytest.LogCaptureFixture) -> None:
    """No repr, no error and no log line holds the credential."""

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.reset()

    with caplog.at_level("DEBUG"):
        async with serve(script) as server:
            transport = connect(server.base_url, environ={"ANTHROPIC_AUTH_TOKEN": SECRET})
            ended = await transport.post("/v1/messages", BODY, Recorder())
    assert ended.how == "reset"
    shown = repr(transport) + str(transport) + repr(ended) + caplog.text
    assert SECRET not in shown
