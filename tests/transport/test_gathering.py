"""What only the transport of our own does: letting bytes gather, and telling when they came all the same."""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Callable, Sequence
from typing import ClassVar

import pytest

from batchrun.job import Timeout
from batchrun.transport.own.arrivals import Arrivals, PythonArrivals
from batchrun.transport.own.pacing import FEWEST_STREAMS, LONGEST_GATHER_S, gather_s, look_s
from batchrun.transport.own.reply import arrival_of
from batchrun.transport.own.transport import OwnTransport
from tests.transport.conftest import Authority
from tests.transport.servers import CHUNKED, Peer, Recorder, Script, own, serve

pytestmark = pytest.mark.usefixtures("arrivals")

BODY = b"{}"
EVENTS = 40
GAP_S = 0.02
CALL_AT = 20  # this event begins the first call
PAUSE_AT, PAUSE_S = 25, 0.2  # the longest silence, behind that event


@pytest.fixture(params=dict.fromkeys([PythonArrivals, Arrivals]), ids=lambda kind: kind.__module__.rpartition(".")[2])
def arrivals(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look by a timer, and by a thread where that was built."""
    monkeypatch.setattr("batchrun.transport.own.pacing.Arrivals", request.param)


def event(number: int) -> bytes:
    """Return an event's bytes."""
    return b"event %d%s;" % (number, b" call" if number == CALL_AT else b"")


class Pacer:
    """Writes so many events at once, packet by packet, and remembers when."""

    def __init__(self, packets: Sequence[int] = (1,) * EVENTS) -> None:
        self.packets = packets
        self.first: list[float] = []
        self.calls: list[float] = []
        self.ends: list[float] = []

    async def __call__(self, peer: Peer) -> None:
        """Answer one request."""
        clock = asyncio.get_running_loop().time
        number = int((await peer.request()).body)
        await peer.say(CHUNKED)
        await asyncio.sleep(number % 7 * 0.003)  # streams do not beat in time
        end = 0
        for size in self.packets:
            begin, end = end, end + size
            if begin == 0:
                self.first.append(clock())
            elif begin == CALL_AT:
                self.calls.append(clock())
            await peer.chunks(*map(event, range(begin, end)), last=False)
            await asyncio.sleep(PAUSE_S if begin == PAUSE_AT else GAP_S)
        self.ends.append(clock())
        await peer.say(b"0\r\n\r\n")


BURST = (1,) * 12 + (8,) + (1,) * 20
"""Many events come at once, just before the first call: nothing tells an event from an arrival but the bytes."""

WHOLE = b"".join(map(event, range(EVENTS)))


async def stream(transport: OwnTransport, streams: int, marks: tuple[bytes, ...] = ()) -> list[Recorder]:
    """Run so many paced streams at once on a transport, and close it."""
    recorders = await exchanged(transport, streams, marks)
    await transport.aclose()
    return recorders


async def exchanged(transport: OwnTransport, streams: int, marks: tuple[bytes, ...]) -> list[Recorder]:
    """Run so many paced streams at once."""
    recorders = [Recorder(mark=b"call") for _ in range(streams)]
    for one in recorders:
        one.marks = marks
    ends = await asyncio.gather(*(transport.post("/v1/messages", b"%d" % i, one) for i, one in enumerate(recorders)))
    assert {ended.how for ended in ends} == {"complete"}
    assert all(one.body == WHOLE for one in recorders)
    return recorders


@pytest.mark.parametrize("packets", [(1,) * EVENTS, BURST], ids=["one a packet", "a burst"])
@pytest.mark.parametrize("marks", [(), (b"call",)], ids=["every time matters", "marked"])
async def test_times_are_true_while_the_receiver_is_eager(
    either: Authority, marks: tuple[bytes, ...], packets: Sequence[int]
) -> None:
    """First byte and first call of 32 streams are told to 10 ms, though bytes are read a few times a second.

    Servers and client share one loop here, whose own lag counts too: the best of three runs is judged.
    """
    context, ca_file = either
    best = [1.0, 1.0]
    for _ in range(3):
        pacer = Pacer(packets)
        async with serve(pacer, tls=context) as server:
            recorders = await stream(own(server.base_url, connections=32, ca_file=ca_file), 32, marks)
        told = ([one.pieces[0][0] for one in recorders], [one.mark_at for one in recorders])
        for i, (true, seen) in enumerate(zip((pacer.first, pacer.calls), told, strict=True)):
            off = statistics.median(abs(a - b) for a, b in zip(sorted(true), sorted(seen), strict=True))
            best[i] = min(best[i], off)
        if max(best) < 0.010:
            return
    assert max(best) < 0.010


class Noted(Recorder):
    """Also keeps when it was handed something, in hundredths of a second: while it was eager, and after that."""

    def __init__(self) -> None:
        super().__init__(mark=b"call")
        self.handed: dict[bool, set[float]] = {True: set(), False: set()}

    def data(self, chunk: bytes, at: float) -> None:
        """Keep the time."""
        self.handed[self.eager].add(round(asyncio.get_running_loop().time(), 2))
        super().data(chunk, at)


async def test_bytes_gather(either: Authority) -> None:
    """An event does not cost a read: many come at once, before the first call and after it."""
    context, ca_file = either
    recorders = [Noted() for _ in range(32)]
    async with serve(Pacer(), tls=context) as server:
        transport = own(server.base_url, connections=32, ca_file=ca_file)
        await asyncio.gather(*(transport.post("/v1/messages", b"%d" % i, one) for i, one in enumerate(recorders)))
        await transport.aclose()
    for eager, events in ((True, CALL_AT), (False, EVENTS - CALL_AT)):
        assert statistics.median(len(one.handed[eager]) for one in recorders) <= events * 0.6


class Told(PythonArrivals):
    """Also keeps whether bytes were counted, look by look."""

    counted: ClassVar[list[bool]]

    def look(self, at: float, most: int) -> None:
        """Look without counting."""
        self.counted.append(False)
        super().look(at, most)

    def look_and_count(self, at: float, most: int) -> None:
        """Look and count."""
        self.counted.append(True)
        super().look_and_count(at, most)


async def test_where_pieces_are_arrivals_bytes_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is asked for the bytes of an arrival, which costs a call each, until pieces and arrivals have agreed."""
    monkeypatch.setattr("batchrun.transport.own.pacing._AGREE_FOR", 1)
    monkeypatch.setattr("batchrun.transport.own.pacing.Arrivals", Told)
    Told.counted = []
    async with serve(Pacer()) as server:
        await stream(own(server.base_url, connections=32), 32, (b"call",))
    assert Told.counted[0]
    assert not all(Told.counted)


async def test_a_slow_model_is_not_taken_for_silent_each_time() -> None:
    """Where every gap looks like an end at first, longer ones are soon waited for."""

    async def slow(peer: Peer) -> None:
        await peer.request()
        await peer.say(CHUNKED)
        await peer.chunks(*[b"event;"] * 20, pause_s=0.08)

    async with serve(slow) as server:
        transport = own(server.base_url, connections=20)
        recorders = [Recorder() for _ in range(20)]
        for one in recorders:
            one.eager = False
        await asyncio.gather(*(transport.post("/v1/messages", BODY, one) for one in recorders))
        await transport.aclose()
    assert all(one.body == b"event;" * 20 for one in recorders)
    assert statistics.median(len(one.pieces) for one in recorders) <= 12


async def test_more_than_a_buffer_may_gather(either: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit in one read is read by the next, though nothing comes to tell of it."""
    context, ca_file = either
    monkeypatch.setattr("batchrun.transport.own.transport._BUFFER_BYTES", 64)
    async with serve(Pacer(), tls=context) as server:
        await stream(own(server.base_url, connections=20, ca_file=ca_file), 20)


@pytest.mark.parametrize(
    ("pieces", "times", "told"),
    [
        (3, [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]),
        (1, [1.0], [1.0]),
        (3, [1.0, 2.0], [1.0, 1.5, 2.0]),  # one of the two brought two pieces
        (6, [1.0, 4.0], [1.0, 1.0, 2.0, 3.0, 4.0, 4.0]),
        (2, [1.0, 2.0, 4.0], [1.25, 3.5]),  # one of the two came in two
    ],
)
def test_pieces_are_matched_with_arrivals(pieces: int, times: list[float], told: list[float]) -> None:
    """One to one where they are as many, else spread evenly."""
    assert [arrival_of(place, pieces, times) for place in range(pieces)] == told


async def test_a_few_streams_are_read_as_they_come() -> None:
    """Below 16 streams nothing gathers."""
    async with serve(Pacer()) as server:
        recorders = await stream(own(server.base_url, connections=4), 4)
    assert min(len(one.pieces) for one in recorders) > EVENTS * 0.8


async def test_gathered_bytes_keep_the_times_of_their_last_and_of_their_longest_silence(
    either: Authority,
) -> None:
    """Bytes are handed over late; what is told of them is when they came."""
    context, ca_file = either
    pacer = Pacer()
    async with serve(pacer, tls=context) as server:
        recorders = await stream(own(server.base_url, connections=32, ca_file=ca_file), 32)
    last = [recorder.pieces[-1][0] for recorder in recorders]
    said = [end - GAP_S for end in sorted(pacer.ends)]  # the last event was written a gap before the end mark
    assert statistics.median(abs(a - b) for a, b in zip(sorted(last), said, strict=True)) < 0.03
    assert statistics.median(abs(one.max_gap - PAUSE_S) for one in recorders) < 0.03


async def test_an_end_is_seen_soon_though_bytes_gather() -> None:
    """Silence after the end is noticed long before a read would be due, which is after half a second."""
    pacer, loop = Pacer(), asyncio.get_running_loop()
    seen: list[float] = []

    async def one(transport: OwnTransport, number: int) -> None:
        await transport.post("/v1/messages", b"%d" % number, Recorder(mark=b"call"))
        seen.append(loop.time())

    async with serve(pacer) as server:
        transport = own(server.base_url, connections=32)
        await asyncio.gather(*(one(transport, i) for i in range(32)))
        await transport.aclose()
    assert statistics.median(a - b for a, b in zip(sorted(seen), sorted(pacer.ends), strict=True)) < 0.15


async def torn(peer: Peer) -> None:
    """Answer a request with events that come whole, several at once or in bits, with pauses of every length."""
    chance = random.Random(int((await peer.request()).body))
    await peer.say(CHUNKED)
    events = numbered(chance)
    raw = b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in events) + b"0\r\n\r\n"
    cuts = sorted(chance.sample(range(1, len(raw)), 20))
    for begin, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        await peer.say(raw[begin:end], pause_s=chance.choice([0, 0.005, 0.02, 0.05]))


def numbered(chance: random.Random) -> list[bytes]:
    """Return the events of one answer."""
    return [b"event %d%s;" % (i, b" call" if chance.random() < 0.05 else b"") for i in range(chance.randint(20, 60))]


async def test_nothing_is_lost_or_out_of_order_however_it_comes(
    either: Authority,
) -> None:
    """Every byte arrives once, and no time is before the one before it."""
    context, ca_file = either
    async with serve(torn, tls=context) as server:
        transport = own(server.base_url, connections=24, ca_file=ca_file)
        recorders = [Recorder(mark=b"call") for _ in range(48)]
        for number, one in enumerate(recorders):
            one.marks = (b"call",) if number % 2 else ()
        ends = await asyncio.gather(*(transport.post("/", b"%d" % i, one) for i, one in enumerate(recorders)))
        await transport.aclose()
    assert {ended.how for ended in ends} == {"complete"}
    for number, one in enumerate(recorders):
        assert one.body == b"".join(numbered(random.Random(number)))
        assert [at for at, _ in one.pieces] == sorted(at for at, _ in one.pieces)


def stalling(after: Callable[[Peer], object]) -> Script:
    """Return a script that paces some events and then does `after`."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(CHUNKED)
        await peer.chunks(*[b"event call;"] * 10, pause_s=0.01, last=False)
        after(peer)
        await peer.gone()

    return script


@pytest.mark.parametrize("eager", [True, False], ids=["watched", "stopped"])
@pytest.mark.parametrize("end", ["silence", "reset", "close"])
async def test_ends_are_seen_away_from_the_loop(
    either: Authority,
    end: str,
    eager: bool,  # noqa: FBT001 - a parameter of the table
) -> None:
    """A stream that the loop does not read still ends by silence, reset and close; its last bytes count."""
    after: dict[str, Callable[[Peer], object]] = {
        "silence": lambda _: None,
        "reset": lambda peer: asyncio.get_running_loop().call_later(0.3, peer.reset),
        "close": lambda peer: peer.writer.close(),
    }
    timeout = Timeout(connect_s=5, first_byte_s=5, idle_s=0.4, total_s=5)
    context, ca_file = either
    async with serve(stalling(after[end]), tls=context) as server:
        transport = own(server.base_url, connections=20, timeout=timeout, ca_file=ca_file)
        recorders = [Recorder(mark=b"never" if eager else b"call") for _ in range(20)]
        ends = await asyncio.gather(*(transport.post("/v1/messages", BODY, one) for one in recorders))
        await transport.aclose()
    assert {ended.how for ended in ends} == {{"silence": "timeout_idle", "reset": "reset", "close": "closed"}[end]}
    assert all(one.body == b"event call;" * 10 for one in recorders)


async def test_streams_away_from_the_loop_can_be_cancelled() -> None:
    """Cancelled and closed while their bytes gather: nothing is left behind."""
    async with serve(stalling(lambda _: None)) as server:
        transport = own(server.base_url, connections=20)
        recorders = [Recorder(mark=b"call" if i % 2 else b"never") for i in range(20)]
        tasks = [asyncio.create_task(transport.post("/v1/messages", BODY, one)) for one in recorders]
        await asyncio.sleep(0.3)
        for task in tasks[:10]:
            task.cancel()
        await asyncio.wait(tasks[:10])
        await transport.aclose()
        ends = await asyncio.wait_for(asyncio.gather(*tasks[10:]), 2)
    assert {ended.how for ended in ends} == {"closed"}


def test_reads_and_looks_get_rarer_with_more_streams() -> None:
    """Never over a second, and a look is never rarer than a read; times are true to 10 ms up to 640 streams."""
    counts = range(FEWEST_STREAMS, 50_000)
    reads, looks = [gather_s(n) for n in counts], [look_s(n) for n in counts]
    assert reads == sorted(reads)
    assert looks == sorted(looks)
    assert max(reads) == max(looks) == LONGEST_GATHER_S
    assert all(look <= read for look, read in zip(looks, reads, strict=True))
    assert look_s(640) / 2 <= 0.010
