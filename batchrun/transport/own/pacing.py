"""Decides when a reply's bytes may gather in the kernel instead of waking us one event at a time.

A model writes an event every few milliseconds, and waking up for each is most of what a streamed call costs.
So a connection whose reply has begun, and comes no faster than a model writes, leaves the event loop: it is read
when its bytes have gathered for most of a second, or once it is silent, which an answer is after its end.

The *times* of arrival stay known. Every 16 ms `arrivals` looks which sockets something has come to since. An arrival is
placed in the middle between two looks, so it is at most 8 ms off. Most endpoints write each piece of a reply as a packet
of its own; then the pieces that are read together are matched with the arrivals one to one. Where they are not as many,
the kernel is also asked how many bytes came each time, until pieces and arrivals agree again.

Quick replies never leave the loop: only one that has brought less than 64 KiB/s since its first byte is worth
waiting for. Below 16 streams, and where there is no epoll, nobody leaves it.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Sized
from time import monotonic
from typing import Final, Protocol

from batchrun.transport.own.arrivals import Arrivals, PythonArrivals

FEWEST_STREAMS: Final = 16
QUICK_BYTES_PER_S: Final = 64 * 1024  # faster than this is no model writing; most write a tenth of it
LONGEST_GATHER_S: Final = 1.0
SHORTEST_LOOK_S: Final = 0.016
_ARRIVALS_PER_S: Final = 40_000  # more are not told apart: some 7 % of a core
_LEAST_PATIENCE: Final = 1.4  # looks: one without an arrival is enough
_LESS_PATIENT, _MORE_PATIENT = 0.9, 1.25
_AGREE_FOR: Final = 32  # reads in a row, after which pieces are trusted to be arrivals
_SPARE_ARRIVALS: Final = 64


class Paced(Protocol):
    """A connection that has left the loop."""

    def read_now(self) -> None:
        """Read what is there."""


def gather_s(streams: int) -> float:
    """Return how long bytes gather at most, in seconds: 16 streams 0.4, 100 and more one second."""
    return min(LONGEST_GATHER_S, math.sqrt(streams) / 10)


def look_s(streams: int) -> float:
    """Return how often arrivals are noted, in seconds: each 16 ms, and above 640 streams less often."""
    return min(gather_s(streams), max(SHORTEST_LOOK_S, streams / _ARRIVALS_PER_S))


class Pacing:
    """The connections that have left the loop, and the timer that looks after them.

    How long a silence is taken for an end adapts: each end makes it shorter, and each look with reads in vain longer.
    """

    __slots__ = ("_agreed", "_arrivals", "_away", "_looked_at", "_loop", "_patience", "_running", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, running: Sized) -> None:
        """Take the number of streams from `running`."""
        self._loop = loop
        self._running = running
        self._away: dict[int, Paced] = {}  # by file descriptor
        self._arrivals: PythonArrivals | None = None
        self._looked_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._patience = 2.0  # looks
        self._agreed = 0

    def worth_waiting(self, received: int, since_s: float) -> bool:
        """Tell whether a reply that brought `received` bytes in `since_s` seconds may leave the loop."""
        return sys.platform == "linux" and received < QUICK_BYTES_PER_S * since_s and len(self._running) >= FEWEST_STREAMS

    def register(self, descriptor: int) -> None:
        """Have the arrivals of a socket told, until it is closed."""
        if self._arrivals is None:
            self._arrivals = Arrivals()
        self._arrivals.register(descriptor)

    def leave(self, descriptor: int, connection: Paced, *, exact: bool) -> None:
        """Note what comes to a registered socket, and have it read in time; `exact`: the times matter."""
        if self._arrivals is not None:
            (self._arrivals.follow_exactly if exact else self._arrivals.follow)(descriptor)
            self._away[descriptor] = connection
            if self._timer is None:
                self._looked_at = monotonic()
                self._look_later()

    def come_back(self, descriptor: int) -> None:
        """Note no more what comes to a socket."""
        if self._arrivals is not None:
            self._arrivals.unfollow(descriptor)
            self._away.pop(descriptor, None)

    def take(self, descriptor: int) -> tuple[list[float], list[int] | None]:
        """Return the times of a socket's arrivals since the last read, and the bytes that waited at each, where that is known."""
        return ([], None) if self._arrivals is None else self._arrivals.take(descriptor)

    def note(self, descriptor: int, at: float) -> None:
        """Note an arrival of which the kernel will not tell."""
        if self._arrivals is not None:
            self._arrivals.note(descriptor, at)

    def compare(self, pieces: int, arrivals: int) -> None:
        """Learn from a read that brought so many pieces in so many arrivals."""
        self._agreed = min(_AGREE_FOR, self._agreed + 1) if pieces == arrivals else 0

    def ended(self, descriptor: int) -> None:
        """Note no more, and learn from an exchange that has ended."""
        if self._arrivals is not None:
            self._arrivals.forget(descriptor)
            self._away.pop(descriptor, None)
        self._patience = max(_LEAST_PATIENCE, self._patience * _LESS_PATIENT)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._arrivals is not None:
            self._arrivals.close()
            self._arrivals = None
        self._away.clear()

    def _look_later(self) -> None:
        """Set the timer of the next look."""
        self._timer = self._loop.call_later(look_s(len(self._running)), self._look)

    def _look(self) -> None:
        """Note what has come, and read who has gathered for long enough or is silent."""
        self._timer, arrivals = None, self._arrivals
        if arrivals is None or not self._away:
            return
        self._look_later()
        streams = len(self._running)
        look, longest = look_s(streams), gather_s(streams)
        precise, before = look == SHORTEST_LOOK_S, self._looked_at
        counted = precise and self._agreed < _AGREE_FOR
        self._note(arrivals, counted=counted)
        now = self._looked_at
        look = max(look, now - before)  # where a look is late, nobody can seem silent for it
        due, in_vain = arrivals.due(now - self._patience * look, now - longest)
        if in_vain:
            self._patience = min(longest / look, self._patience * _MORE_PATIENT)
        for place, descriptor in enumerate(due):
            if precise and place:
                self._note(arrivals, counted=counted)  # what came while the ones before it were read
            if connection := self._away.get(descriptor):
                connection.read_now()
            if precise and monotonic() > now + look / 2:
                break  # the others come after the next look, which would be late

    def _note(self, arrivals: PythonArrivals, *, counted: bool) -> None:
        """Note to which sockets something has come since the last look: in the middle between the two."""
        before, self._looked_at = self._looked_at, monotonic()
        look = arrivals.look_and_count if counted else arrivals.look
        look((before + self._looked_at) / 2, len(self._running) + _SPARE_ARRIVALS)
