"""What only the transport of our own does: sweeping deadlines, writing together, guarding its connections."""

from __future__ import annotations

import asyncio
from typing import cast

from batchrun.job import Timeout
from batchrun.transport.base import Bounds
from batchrun.transport.own.connection import Connection
from batchrun.transport.own.deadlines import SHORTEST_SWEEP_S, Deadlines
from batchrun.transport.own.shared import Shared
from tests.transport.servers import CHUNKED, Peer, Recorder, Wire, own, serve, sized

BODY = b"{}"
BOUNDS = Bounds(connect_s=5, first_byte_s=5, idle_s=5, total_s=20, max_body=1 << 20)


class Due:
    """Something that is due at once and counts how often it was asked."""

    def __init__(self) -> None:
        self.check_at = 0.0
        self.asked = 0

    def check(self, now: float) -> None:
        """Count."""
        self.asked += 1
        self.check_at = now + 60


async def test_the_sweep_asks_only_what_is_due_and_rests_without_work() -> None:
    """One timer serves all; it asks again at the stated time and stops when nothing runs."""
    loop = asyncio.get_running_loop()
    deadlines, due, later = Deadlines(loop, 0.1), Due(), Due()
    later.check_at = loop.time() + 60
    deadlines.add(due)
    deadlines.add(later)
    await asyncio.sleep(SHORTEST_SWEEP_S * 4)
    assert (due.asked, later.asked) == (1, 0)
    deadlines.discard(due)
    deadlines.discard(later)
    await asyncio.sleep(SHORTEST_SWEEP_S * 2)
    assert deadlines._timer is None


async def test_a_long_computation_is_no_silence() -> None:
    """Bytes that waited while the loop was busy for longer than `idle_s` are read before the limit is judged."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(CHUNKED, b"5\r\nhello\r\n", pause_s=0.1)
        await peer.say(b"5\r\nagain\r\n0\r\n\r\n")

    import time  # noqa: PLC0415

    recorder = Recorder()
    async with serve(script) as server:
        transport = own(server.base_url, connections=1, timeout=Timeout(connect_s=5, first_byte_s=5, idle_s=0.2, total_s=5))
        task = asyncio.create_task(transport.post("/v1/messages", BODY, recorder))
        await asyncio.wait_for(recorder.begun.wait(), 5)
        await asyncio.sleep(0.12)
        time.sleep(0.5)  # noqa: ASYNC251 - the loop is kept busy on purpose
        assert (await task).how == "complete"
        await transport.aclose()
    assert recorder.body == b"helloagain"


def kept(shared: Shared) -> tuple[Connection, Wire]:
    """Return a connection that has been used before, and its wire."""
    connection, wire = Connection(shared, None), Wire()
    connection.connection_made(cast("asyncio.BaseTransport", wire))
    return connection, wire


async def test_requests_of_one_moment_are_written_together_and_their_clocks_begin_then() -> None:
    """Not one is held past the loop's next turn; one that was given up before is not written at all."""
    shared = Shared(asyncio.get_running_loop(), 1024, 1.0)
    pairs = [kept(shared) for _ in range(3)]
    receivers = [Recorder() for _ in pairs]
    calls = [
        asyncio.ensure_future(connection.exchange(b"request", receiver, BOUNDS))
        for (connection, _), receiver in zip(pairs, receivers, strict=True)
    ]
    await asyncio.sleep(0)
    assert [wire.written for _, wire in pairs] == [[], [], []]
    calls[1].cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [wire.written for _, wire in pairs] == [[b"request"], [], [b"request"]]
    assert [len(receiver.sent_at) for receiver in receivers] == [1, 0, 1]
    assert pairs[1][1].aborted
    for connection, _ in pairs:
        connection.close()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_a_new_connection_that_is_lost_before_its_exchange_ends_it_at_once() -> None:
    """The server closed right after it had accepted: nobody would tell of that a second time."""
    connection, wire = kept(Shared(asyncio.get_running_loop(), 1024, 1.0))
    connection.connection_lost(None)
    async with asyncio.timeout(1):
        ended = await connection.exchange(b"request", Recorder(), BOUNDS, 1.0)
    assert (ended.how, wire.written) == ("closed", [])
    assert connection.untouched


async def test_bytes_before_the_request_has_left_are_no_reply_to_it() -> None:
    """A server that says something on its own (408 before it closes) is taken for gone, and the call goes elsewhere."""
    shared = Shared(asyncio.get_running_loop(), 1024, 1.0)
    (connection, wire), receiver = kept(shared), Recorder()
    call = asyncio.ensure_future(connection.exchange(b"request", receiver, BOUNDS))
    await asyncio.sleep(0)
    early = sized(b"timed out", status="408 Request Timeout")
    connection.get_buffer(0)[: len(early)] = early
    connection.buffer_updated(len(early))
    assert (await call).how == "closed"
    assert (receiver.status, receiver.sent_at, wire.written) == (None, [], [])
    assert connection.untouched
    assert not connection.alive
