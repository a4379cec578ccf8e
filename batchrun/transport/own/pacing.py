"""Decides when a reply's bytes may gather in the kernel instead of waking us one event at a time.

A model writes an event every few milliseconds, and waking up for each is most of what a streamed call costs.
So a connection whose reply has begun, and comes no faster than a model writes, leaves the event loop: it is read
when its bytes have gathered for most of a second, or once it is silent, which an answer is after its end.

The *times* of arrival stay known. Every 16 ms `arrivals` looks which sockets something has come to since: by a thread in C,
which rings a bell where somebody is to be read, or where that was not built, by a timer here. An arrival is placed in the
middle between two looks, so it is at most 8 ms off. Most endpoints write each piece of a reply as a packet
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

from batchrun.transport.own.arrivals import Arrivals, PythonArrivals, Watcher

FEWEST_STREAMS: Final = 16
QUICK_BYTES_PER_S: Final = 64 * 1024  # faster than this is no model writing; most write a tenth of it
LONGEST_GATHER_S: Final = 1.0
SHORTEST_LOOK_S: Final = 0.016
_OLD: Final = 7 / 8  # of the longest, and bytes are read along with those that gathered for longer
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
    """The connections that have left the loop, and when they are read.

    How long a silence is taken for an end adapts: each end makes it shorter, and each look with reads in vain longer.
    """

    __slots__ = ("_agreed", "_arrivals", "_away", "_looked_at", "_loop", "_patience", "_running", "_timer", "_watcher")

    def __init__(self, loop: asyncio.AbstractEventLoop, running: Sized) -> None:
        """Take the number of streams from `running`."""
        self._loop = loop
        self._running = running
        self._away: dict[int, Paced] = {}  # by file descriptor
        self._arrivals: PythonArrivals | None = None
        self._watcher: Watcher | None = None
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
            if isinstance(self._arrivals, Watcher):
                self._watcher = self._arrivals
                self._loop.add_reader(self._watcher.fileno(), self._hear)
        self._arrivals.register(descriptor)

    def leave(self, descriptor: int, connection: Paced, *, exact: bool) -> None:
        """Note what comes to a registered socket, and have it read in time; `exact`: the times matter."""
        if self._arrivals is not None:
            (self._arrivals.follow_exactly if exact else self._arrivals.follow)(descriptor)
            self._away[descriptor] = connection
            if self._watcher is not None:
                if len(self._away) == 1:
                    self._watch(self._watcher)
            elif self._timer is None:
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
        if self._watcher is not None:
            self._loop.remove_reader(self._watcher.fileno())
            self._watcher = None
        if self._arrivals is not None:
            self._arrivals.close()
            self._arrivals = None
        self._away.clear()

    def _watch(self, watcher: Watcher) -> None:
        """Have the thread look as it is needed now, and ring once more."""
        streams = len(self._running)
        look = look_s(streams)
        watcher.watch(look, self._patience, gather_s(streams), self._counts(look))

    def _hear(self) -> None:
        """After a ring, read who is due."""
        watcher, arrivals = self._watcher, self._arrivals
        if watcher is None or arrivals is None:
            return
        now, since = watcher.heard()
        try:
            if not self._read_due(arrivals, now, since):
                self._loop.call_soon(self._hear)  # the loop looks after its own sockets first
        finally:
            self._watch(watcher)  # or it would never ring again

    def _look_later(self) -> None:
        """Set the timer of the next look."""
        self._timer = self._loop.call_later(look_s(len(self._running)), self._look)

    def _look(self) -> None:
        """Note what has come, and read who is due."""
        self._timer, arrivals = None, self._arrivals
        if arrivals is None or not self._away:
            return
        self._look_later()
        before = self._looked_at
        self._note(arrivals)
        self._read_due(arrivals, self._looked_at, self._looked_at - before)

    def _note(self, arrivals: PythonArrivals) -> None:
        """Note to which sockets something has come since the last look: in the middle between the two."""
        before, self._looked_at = self._looked_at, monotonic()
        streams = len(self._running)
        look = arrivals.look_and_count if self._counts(look_s(streams)) else arrivals.look
        look((before + self._looked_at) / 2, streams + _SPARE_ARRIVALS)

    def _counts(self, look: float) -> bool:
        """Tell whether the kernel is asked how many bytes came."""
        return look == SHORTEST_LOOK_S and self._agreed < _AGREE_FOR

    def _read_due(self, arrivals: PythonArrivals, now: float, since: float) -> bool:
        """Read who has gathered for long, or is silent, at a look at the time `now`, `since` seconds after the one before.

        Returns whether all were read: where that takes long, the others come after what else there is to do.
        """
        streams = len(self._running)
        precise = look_s(streams) == SHORTEST_LOOK_S
        look, longest = max(look_s(streams), since), gather_s(streams)  # where a look is late, nobody can seem silent for it
        due, in_vain = arrivals.due(now - self._patience * look, now - longest * _OLD)
        if in_vain:
            self._patience = min(longest / look, self._patience * _MORE_PATIENT)
        enough = monotonic() + look / 2
        for place, descriptor in enumerate(due):
            if place and monotonic() > enough:
                return False
            if place and precise:  # what came while the ones before it were read
                if self._watcher is not None:
                    self._watcher.look_too()
                else:
                    self._note(arrivals)
            if connection := self._away.get(descriptor):
                connection.read_now()
        return True
