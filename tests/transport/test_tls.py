"""TLS of the transport of our own: without a socket against OpenSSL's server side, and over real ones."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
from typing import cast

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrun.transport.own.connection import Connection
from batchrun.transport.own.shared import Shared
from batchrun.transport.own.tls import RECORD_BYTES, Tls
from tests.transport.conftest import Authority
from tests.transport.servers import CHUNKED, Peer, Recorder, Wire, own, serve, sized

BODY = b"{}"
AUTHORITY = trustme.CA()
CERTIFICATES = {name: AUTHORITY.issue_cert(name) for name in ("127.0.0.1", "127.0.0.2", "other.test")}


class Remote:
    """A server's side, without a socket."""

    def __init__(self, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, name: str = "127.0.0.1") -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.maximum_version = version
        CERTIFICATES[name].configure_cert(context)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.side = context.wrap_bio(self.incoming, self.outgoing, server_side=True)

    def answer(self, heard: bytes) -> bytes:
        """Go on with the handshake."""
        self.incoming.write(heard)
        with contextlib.suppress(ssl.SSLWantReadError):
            self.side.do_handshake()
        return self.outgoing.read()

    def says(self, text: bytes) -> bytes:
        """Return a text as one record, or several where it is long."""
        self.side.write(text)
        return self.outgoing.read()

    def closes(self) -> bytes:
        """Return the notice that nothing more comes."""
        with pytest.raises(ssl.SSLWantReadError):
            self.side.unwrap()
        return self.outgoing.read()


def client(host: str = "127.0.0.1") -> Tls:
    """Return our side, which trusts the authority."""
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return Tls(context, host)


def shaken(remote: Remote, cut: int = 1 << 16) -> tuple[Tls, bytes]:
    """Make the handshake, fed by so many bytes at once; return our side, and what the server sent after it."""
    tls = client()
    tls.shake_hands(b"")
    while not tls.secure:
        answer = remote.answer(tls.to_send())
        for begin in range(0, len(answer), cut):
            tls.shake_hands(answer[begin : begin + cut])
    return tls, remote.answer(tls.to_send())


def read(tls: Tls, *received: bytes) -> list[bytes]:
    """Return the text of each piece that was read."""
    into = memoryview(bytearray(max(map(len, received)) + RECORD_BYTES))
    return [bytes(into[: tls.decrypt(memoryview(piece), into)]) for piece in received]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@given(sizes=st.lists(st.integers(1, 20_000), min_size=1, max_size=3), cut=st.integers(1, 30_000))
@settings(deadline=None)
def test_a_text_is_the_same_however_its_bytes_are_cut(version: ssl.TLSVersion, sizes: list[int], cut: int) -> None:
    """The handshake too. What follows the handshake by itself is no text."""
    texts = [b"%d;" % size * (size // 6 + 1) for size in sizes]
    remote = Remote(version)
    tls, after = shaken(remote, cut)
    sent = after + b"".join(map(remote.says, texts))
    assert b"".join(read(tls, *(sent[at : at + cut] for at in range(0, len(sent), cut)))) == b"".join(texts)
    assert not tls.closed
    remote.incoming.write(tls.encrypt(b"a question"))
    assert remote.side.read() == b"a question"


def test_it_is_known_how_much_text_each_arrival_brought() -> None:
    """Also where one brought but a part of a record, and what came after the last count."""
    remote = Remote()
    tls, after = shaken(remote)
    records = [remote.says(text) for text in (b"abc", b"de", b"f", b"last")]
    one, two, three, _ = (len(after) + sum(map(len, records[: end + 1])) for end in range(4))
    received = memoryview(after + b"".join(records))
    into = memoryview(bytearray(len(received) + RECORD_BYTES))
    counts = [one, two - 1, two, three, three]
    assert tls.decrypt_by(received, counts, into) == [3, 3, 5, 6, 10]
    assert bytes(into[:10]) == b"abcdeflast"

    tls, after = shaken(remote := Remote())
    end = after + remote.says(b"end") + remote.closes()
    assert tls.decrypt_by(memoryview(end + b"?"), [len(end), len(end) + 1], into) == [3, 3]
    assert (tls.closed, tls.broken) == (True, None)


def test_the_end_is_told_behind_the_last_text() -> None:
    """In order or not, what came before it counts."""
    remote = Remote()
    tls, after = shaken(remote)
    assert read(tls, after + remote.says(b"last") + remote.closes()) == [b"last"]
    assert (tls.closed, tls.broken) == (True, None)

    remote = Remote()
    tls, after = shaken(remote)
    good, forged = remote.says(b"good"), bytearray(remote.says(b"forged"))
    forged[-1] ^= 1
    assert read(tls, after + good + forged) == [b"good"]
    assert tls.closed
    assert "decryption failed or bad record mac" in str(tls.broken).lower()
    assert tls.to_send(), "the server is told"


@pytest.mark.parametrize(("name", "host"), [("127.0.0.2", "127.0.0.1"), ("other.test", "some.test")])
def test_a_certificate_for_another_name_is_refused(name: str, host: str) -> None:
    """Though its authority is trusted; and the server is told."""
    tls, remote = client(host), Remote(name=name)
    tls.shake_hands(b"")
    with pytest.raises(ssl.SSLCertVerificationError, match=host):
        tls.shake_hands(remote.answer(tls.to_send()))
    assert not tls.secure
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        remote.answer(tls.to_send())


async def test_long_replies_come_whole(authority: Authority) -> None:
    """Of many records and more than a buffer, ended by a length and by a close."""
    body = bytes(range(256)) * 6000

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(sized(body))
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\n\r\n", body)
        peer.writer.close()

    async with serve(script, tls=authority.context) as server:
        transport = own(server.base_url, connections=1, ca_file=authority.ca_file)
        for _ in range(2):
            recorder = Recorder()
            assert (await transport.post("/", BODY, recorder)).how == "complete"
            assert recorder.body == body
        await transport.aclose()
    assert server.connections == 1


async def test_a_connection_closed_while_it_was_kept_is_replaced(authority: Authority) -> None:
    """The server's notice is taken while nobody waits for anything."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(sized(b"one answer"))
        peer.writer.close()

    async with serve(script, tls=authority.context) as server:
        transport = own(server.base_url, connections=1, ca_file=authority.ca_file)
        for pause_s in (0.1, 0.0, 0.0):
            recorder = Recorder()
            assert (await transport.post("/", BODY, recorder)).how == "complete"
            assert recorder.body == b"one answer"
            await asyncio.sleep(pause_s)
        await transport.aclose()
    assert server.connections == 3


@pytest.mark.parametrize("reset", [False, True])
async def test_a_server_that_leaves_in_the_handshake_cannot_be_connected_to(reset: bool) -> None:  # noqa: FBT001 - a column
    """In order or not: `connect`, so the call was never sent."""

    async def script(peer: Peer) -> None:
        await peer.reader.read(1)
        if reset:
            peer.reset()

    async with serve(script) as server:
        transport = own(server.base_url.replace("http", "https"), connections=1)
        ended = await transport.post("/", BODY, Recorder())
        await transport.aclose()
    assert ended.how == "connect"
    assert ended.message


async def test_a_handshake_that_is_cancelled_closes_its_socket() -> None:
    """Nothing is left behind."""
    seen, left = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.reader.read(1)
        seen.set()
        await peer.gone()
        left.set()

    async with serve(script) as server:
        transport = own(server.base_url.replace("http", "https"), connections=1)
        call = asyncio.create_task(transport.post("/", BODY, Recorder()))
        await seen.wait()
        call.cancel()
        await asyncio.wait([call])
        await asyncio.wait_for(left.wait(), 5)
        await transport.aclose()
    assert call.cancelled()


async def test_a_server_that_is_refused_is_told_so() -> None:
    """Before its connection is closed."""
    connection = Connection(Shared(asyncio.get_running_loop(), 1 << 16, 1.0), client())
    wire, remote = Wire(), Remote(name="other.test")
    connection.connection_made(cast("asyncio.BaseTransport", wire))
    answer = remote.answer(b"".join(wire.written))
    wire.written.clear()
    connection.get_buffer(0)[: len(answer)] = answer
    connection.buffer_updated(len(answer))
    with pytest.raises(ssl.SSLCertVerificationError):
        await connection.secured()
    assert wire.aborted
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        remote.answer(b"".join(wire.written))


async def test_a_handshake_that_nobody_waits_for_any_more_is_no_complaint() -> None:
    """The call was cancelled as its connection was made, and then the connection broke."""
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    connection = Connection(Shared(asyncio.get_running_loop(), 1024, 1.0), client())
    connection.connection_lost(ConnectionResetError("broken"))
    del connection
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []


async def test_text_that_nobody_asked_for_closes_the_connection(authority: Authority) -> None:
    """What comes on a kept connection is no answer to the next request."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(CHUNKED)
        await peer.chunks(b"answer")
        await asyncio.sleep(0.05)
        await peer.say(sized(b"not asked for"))
        await peer.gone()

    async with serve(script, tls=authority.context) as server:
        transport = own(server.base_url, connections=1, ca_file=authority.ca_file)
        for _ in range(2):
            recorder = Recorder()
            assert (await transport.post("/", BODY, recorder)).how == "complete"
            assert recorder.body == b"answer"
            await asyncio.sleep(0.2)
        await transport.aclose()
    assert server.connections == 2
