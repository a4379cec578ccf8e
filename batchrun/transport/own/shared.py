"""What the connections of one transport have in common: the event loop, the buffers, the timers, and when requests leave."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from batchrun.transport.own.deadlines import Deadlines
from batchrun.transport.own.pacing import Pacing
from batchrun.transport.own.tls import RECORD_BYTES

_WRITTEN_TOGETHER: Final = 8
"""Requests written one right after the other find the endpoint awake: waking a gateway on this machine costs more than
writing to it. So they wait for each other, though never past the event loop's next turn."""


class Writing(Protocol):
    """A connection with a request to write."""

    def write_now(self) -> None:
        """Write it."""


class Shared:
    """`buffer` is what a socket is read into, `plain` what that is where there is TLS."""

    __slots__ = ("_unwritten", "buffer", "deadlines", "loop", "pacing", "plain")

    def __init__(self, loop: asyncio.AbstractEventLoop, buffer_size: int, shortest_limit_s: float) -> None:
        """Allocate the buffers and the timers."""
        self.loop = loop
        self.buffer = memoryview(bytearray(buffer_size))
        self.plain = memoryview(bytearray(buffer_size + RECORD_BYTES))
        self.deadlines = Deadlines(loop, shortest_limit_s)
        self.pacing = Pacing(loop, self.deadlines.running)
        self._unwritten: list[Writing] = []

    def write_soon(self, connection: Writing) -> None:
        """Have `connection` write its request along with others."""
        if not self._unwritten:
            self.loop.call_soon(self._write)
        self._unwritten.append(connection)
        if len(self._unwritten) >= _WRITTEN_TOGETHER:
            self._write()

    def _write(self) -> None:
        """Write all that waits."""
        unwritten, self._unwritten = self._unwritten, []
        for connection in unwritten:
            connection.write_now()
