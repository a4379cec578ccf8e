"""Raw servers on loopback: a script says, byte for byte, what each connection hears and sees."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from batchrun.job import Endpoint, Timeout
from batchrun.transport import Credential
from batchrun.transport.own.transport import OwnTransport

WAIT_S = 20  # bounds every wait of a server


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request as it came in."""

    line: str
    headers: Mapping[str, str]
    body: bytes
    raw_head: bytes


class Peer:
    """The server's side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def request(self) -> Asked:
        """Read one whole request."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), WAIT_S)
        line, *fields = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
        body = await asyncio.wait_for(self.reader.readexactly(int(headers.get("content-length", 0))), WAIT_S)
        return Asked(line=line, headers=headers, body=body, raw_head=head)

    async def say(self, *parts: bytes, pause_s: float = 0) -> None:
        """Write each part by itself."""
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()
            await asyncio.sleep(pause_s)

    async def chunks(self, *parts: bytes, pause_s: float = 0, last: bool = True) -> None:
        """Write each part as an HTTP chunk."""
        for part in parts:
            await self.say(b"%x\r\n%s\r\n" % (len(part), part), pause_s=pause_s)
        if last:
            await self.say(b"0\r\n\r\n")

    async def gone(self) -> bool:
        """Wait until the client has closed the connection."""
        with contextlib.suppress(ConnectionError):
            while await asyncio.wait_for(self.reader.read(65536), WAIT_S):
                pass
        return True

    def reset(self) -> None:
        """End the connection with a RST."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


@dataclass
class Server:
    """A running server: where it is, and how many connections it has had."""

    base_url: str
    connections: int = 0
    faults: list[BaseException] = field(default_factory=list)


@asynccontextmanager
async def serve(script: Script, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Run `script` for every connection; what goes wrong in it is raised at the end."""
    tasks: set[asyncio.Task[None]] = set()
    server = Server("")

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await script(Peer(reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went away, or the test is over
        except BaseException as error:  # noqa: BLE001 - raised again below
            server.faults.append(error)
        finally:
            tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.CancelledError):
                await writer.wait_closed()

    listener = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls, limit=1 << 24, backlog=1024)
    port = listener.sockets[0].getsockname()[1]
    server.base_url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    try:
        yield server
    finally:
        listener.close()
        for task in tuple(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tuple(tasks), timeout=WAIT_S)
        await listener.wait_closed()
    if server.faults:
        raise server.faults[0]


class Recorder:
    """A receiver that keeps everything. Done once `until` was seen, eager until `mark` was."""

    def __init__(self, *, until: bytes | None = None, mark: bytes | None = None) -> None:
        self._until = until
        self._mark = mark
        self.eager = True
        self.done = False
        self.marks: tuple[bytes, ...] = ()
        self.max_gap = 0.0
        self.sent_at: list[float] = []
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}
        self.head_at = 0.0
        self.mark_at = 0.0
        self.pieces: list[tuple[float, bytes]] = []
        self.begun = asyncio.Event()

    @property
    def body(self) -> bytes:
        """All the bytes so far."""
        return b"".join(piece for _, piece in self.pieces)

    def sent(self, at: float) -> None:
        """Keep the time."""
        self.sent_at.append(at)

    def head(self, status: int, headers: Mapping[str, str], at: float) -> None:
        """Keep the head."""
        assert self.status is None, "a head comes once"
        self.status, self.headers, self.head_at = status, headers, at

    def data(self, chunk: bytes, at: float) -> None:
        """Keep the bytes and their time."""
        assert self.status is not None, "the head comes first"
        assert isinstance(chunk, bytes)
        assert chunk
        self.pieces.append((at, chunk))
        self.begun.set()
        if self._mark is not None and self.eager and self._mark in chunk:
            self.mark_at, self.eager = at, False
        if self._until is not None and self._until in self.body[-len(chunk) - len(self._until) :]:
            self.done = True


class Wire:
    """Stands for a socket's asyncio transport: keeps what is written to it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.aborted = False

    def get_extra_info(self, name: str) -> object:
        """Be a socket."""
        return self if name == "socket" else None

    def fileno(self) -> int:
        """Be none that can be read without the loop."""
        return -1

    def is_closing(self) -> bool:
        """Tell whether it was aborted."""
        return self.aborted

    def abort(self) -> None:
        """Close."""
        self.aborted = True

    def write(self, data: bytes) -> None:
        """Keep the bytes."""
        self.written.append(data)


def own(base_url: str, *, connections: int, timeout: Timeout | None = None, ca_file: str | None = None) -> OwnTransport:
    """Open a transport."""
    endpoint = Endpoint(base_url=base_url, timeout=timeout or Timeout(total_s=20), ca_file=ca_file)
    return OwnTransport(endpoint, Credential(), connections=connections, environ={})


CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def sized(body: bytes, *, status: str = "200 OK", extra: bytes = b"") -> bytes:
    """Return a whole reply with a Content-Length."""
    return b"HTTP/1.1 %s\r\ncontent-length: %d\r\n%s\r\n%s" % (status.encode(), len(body), extra, body)
