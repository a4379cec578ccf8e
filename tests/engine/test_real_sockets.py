"""The engine on the real transport, decoder and journal, against a raw server on 127.0.0.1 that misbehaves."""

import asyncio
import itertools
import json
import random
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from batchrun.engine.budget import MoneyBudget
from batchrun.engine.judging import Wiring
from batchrun.engine.local import LocalEngine
from batchrun.engine.ports import Clocks
from batchrun.engine.stopping import StopSignal
from batchrun.engine.telemetry import EngineSummary
from batchrun.errors import Interrupted
from batchrun.job import Endpoint, Limits, Timeout
from batchrun.records import Attempt, Request
from batchrun.storage.journal import Journal, JournalIndex
from batchrun.transport import Credential, open_transport
from batchrun.wire.reply import ReplyDecoder

MESSAGE = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": []}
USE = {"type": "tool_use", "id": "t", "name": "f", "input": {}}


def event(kind: str, **fields: object) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), json.dumps({"type": kind, **fields}).encode())


EVENTS = (
    event("message_start", message={**MESSAGE, "usage": {"input_tokens": 10, "output_tokens": 1}}),
    event("content_block_start", index=0, content_block=USE) + event("content_block_stop", index=0),
    event("message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": 5}) + event("message_stop"),
)

Choose = Callable[[int, int], str]
"""Row, how often it was asked before → what to do: answer, cut, reset, 500, 429, hang, silence."""


class RawServer:
    """An endpoint that speaks HTTP by hand, and logs for each row when it was asked and answered."""

    def __init__(self, choose: Choose, *, event_s: float = 0.005) -> None:
        self.choose = choose
        self.event_s = event_s
        self.asked: defaultdict[int, list[float]] = defaultdict(list)
        self.answered: defaultdict[int, list[float]] = defaultdict(list)
        self.refused_at = 0.0
        self.lost = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection until it is closed."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                row = int(json.loads(await reader.readexactly(length))["row"])
                how = self.choose(row, len(self.asked[row]))
                self.asked[row].append(time.monotonic())
                if not await self._answer(row, how, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            self.lost += 1
        finally:
            writer.close()

    async def _answer(self, row: int, how: str, writer: asyncio.StreamWriter) -> bool:
        """Do what was chosen; return whether the connection may be used again."""
        if how == "hang":
            await asyncio.sleep(60)
        if how == "silence":
            await asyncio.sleep(0.3)  # at work on it, then gone without a byte
            return False
        if how in {"500", "429"}:
            self.refused_at = time.monotonic()
            wait = b"retry-after: 1\r\n" if how == "429" else b""
            writer.write(b"HTTP/1.1 %s no\r\n%scontent-length: 2\r\n\r\n{}" % (how.encode(), wait))
            return True
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for chunk in EVENTS if how == "answer" else EVENTS[:2]:
            await asyncio.sleep(self.event_s)
            writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            await writer.drain()
        if how == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        if how != "answer":
            return False
        writer.write(b"0\r\n\r\n")
        self.answered[row].append(time.monotonic())
        return True


@asynccontextmanager
async def served(choose: Choose, *, event_s: float = 0.005) -> AsyncIterator[RawServer]:
    """Run the server on a free port while the block lasts."""
    raw = RawServer(choose, event_s=event_s)
    server = await asyncio.start_server(raw.serve, "127.0.0.1", 0)
    raw.port = server.sockets[0].getsockname()[1]
    try:
        yield raw
    finally:
        server.close()


def requests(rows: int, skip: Callable[[int], bool] = lambda _: False) -> Iterator[Request]:
    for n in range(rows):
        if not skip(n):
            yield Request(ordinal=n, model="m", body=b'{"tools": [], "row": %d}' % n, input_tokens=5, max_tokens=9)


async def collect(
    port: int,
    rows: Iterator[Request],
    limits: Limits,
    land: Callable[[Attempt], None],
    stop: StopSignal | None = None,
    budget: MoneyBudget | None = None,
) -> EngineSummary:
    """Drive the rows through the real transport and the real decoder."""
    endpoint = Endpoint(base_url=f"http://127.0.0.1:{port}", timeout=Timeout(first_byte_s=5, idle_s=5))
    transport = open_transport(endpoint, Credential(), connections=limits.concurrency, environ={})
    # Jitter of nothing but a tenth of its ceiling, so that the test is short; the waits themselves are the product's.
    clocks = Clocks(chance=lambda: random.random() / 10)
    try:
        wiring = Wiring(transport=transport, new_decoder=ReplyDecoder, land=land, clocks=clocks, budget=budget)
        return await LocalEngine(wiring, limits).drive(rows, stop)
    finally:
        await transport.aclose()


async def test_faults_of_20_percent_on_real_connections_lose_no_row() -> None:
    """Cut streams, resets and 500s: every row is answered exactly once as far as the journal is concerned."""
    chance = random.Random(2)

    def choose(_row: int, tries: int) -> str:
        if tries > 2 or chance.random() >= 0.2:
            return "answer"
        return chance.choice(["cut", "reset", "500"])

    landed: Counter[int] = Counter()
    wasted = []

    def land(attempt: Attempt) -> None:
        if attempt.final:
            assert attempt.status == "succeeded", attempt.failure
            landed[attempt.ordinal] += 1
        else:
            wasted.append(attempt)

    async with served(choose) as server:
        summary = await asyncio.wait_for(collect(server.port, requests(400), Limits(concurrency=32), land), 60)
    assert summary.stopped is None
    assert landed == dict.fromkeys(range(400), 1)
    assert all(len(times) == 1 for times in server.answered.values()), "nothing that was answered is asked again"
    assert wasted
    assert all(attempt.usage is not None for attempt in wasted), "what a broken stream had told of its usage is kept"


async def test_every_request_that_an_endpoint_was_at_work_on_is_counted() -> None:
    """Kept connections that are closed without a byte of a reply: each request is an attempt, and its money is held."""
    budget = MoneyBudget(Decimal(10), lambda _: Decimal(2), lambda *_: Decimal(1))
    landed: list[Attempt] = []
    async with served(lambda row, tries: "silence" if row and not tries else "answer") as raw:
        summary = await collect(raw.port, requests(3), Limits(concurrency=1), landed.append, budget=budget)
    assert summary.stopped is None
    assert [len(raw.asked[row]) for row in range(3)] == [1, 2, 2]
    assert [(attempt.ordinal, attempt.attempt) for attempt in landed if attempt.final] == [(0, 1), (1, 2), (2, 2)]
    assert [(attempt.ordinal, attempt.cost_reserved) for attempt in landed if not attempt.final] == [(1, "2"), (2, "2")]
    assert (budget.spent, budget.held) == (Decimal(3), Decimal(4))


async def test_a_429_with_retry_after_holds_the_whole_run() -> None:
    """Nobody is asked within the second that the server stated."""
    async with served(lambda row, tries: "429" if row == 50 and not tries else "answer") as server:
        summary = await asyncio.wait_for(collect(server.port, requests(200), Limits(concurrency=8), lambda _: None), 30)
    asked = sorted(at for times in server.asked.values() for at in times)
    in_pause = [at for at in asked if server.refused_at + 0.1 < at < server.refused_at + 0.99]
    assert not in_pause
    assert summary.progress.landed == 200
    assert len(server.asked[50]) == 2


async def test_a_drain_keeps_what_arrives_and_a_second_signal_ends_at_once() -> None:
    landed: list[int] = []
    stop = StopSignal()

    def land(attempt: Attempt) -> None:
        if attempt.final:
            landed.append(attempt.ordinal)
        if len(landed) == 20:
            stop.request(signal.SIGTERM)
            asyncio.get_running_loop().call_later(0.3, stop.request)

    async with served(lambda row, _: "hang" if row % 10 == 9 else "answer") as server:
        began = time.monotonic()
        summary = await asyncio.wait_for(collect(server.port, requests(1000), Limits(concurrency=16), land, stop), 20)
        assert time.monotonic() - began < 5
        assert isinstance(summary.stopped, Interrupted)
        assert summary.stopped.exit_code == 143
        assert sorted(landed) == sorted(server.answered), "all that was answered is kept, and nothing more was sent"
        assert len(server.asked) <= len(landed) + 16


CHILD = """
import asyncio, importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("real_sockets", sys.argv[1])
tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tests)
asyncio.run(tests.killable(int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])))
"""


async def killable(port: int, folder: Path, rows: int) -> None:
    """Collect what the journal in `folder` does not hold, as a run does."""
    with JournalIndex(folder) as index, Journal(folder) as journal:
        # Below the number of streams whose reads are gathered: an answer sent is an answer received.
        await collect(port, requests(rows, index.landed), Limits(concurrency=12), journal.append)


@pytest.mark.timeout(100)
async def test_killed_anywhere_and_resumed_nothing_is_lost_or_asked_twice(tmp_path: Path) -> None:
    """`kill -9`, six times: no answer of more than 200 ms before a kill is asked for again, and in the end all are there."""
    chance, rows = random.Random(11), 600
    kills: list[float] = []

    def start(port: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", CHILD, __file__, str(port), str(tmp_path), str(rows)])

    async with served(lambda *_: "answer", event_s=0.02) as server:
        for _ in range(6):
            child, before = start(server.port), len(server.answered)
            while len(server.answered) <= before and child.poll() is None:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)
            await asyncio.sleep(chance.uniform(0.0, 0.5))
            kills.append(time.monotonic())
            child.kill()
            child.wait(10)
        last = start(server.port)
        while last.poll() is None:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
    assert last.returncode == 0
    for row, times in server.answered.items():
        for first, again in itertools.pairwise(times):
            assert any(first > kill - 0.2 and kill <= again for kill in kills), f"row {row} was asked again for no reason"
    with JournalIndex(tmp_path) as index:
        assert [row for row in range(rows) if not index.landed(row)] == []
        assert all(sum(attempt.final for attempt in index.attempts(row)) == 1 for row in range(rows))
