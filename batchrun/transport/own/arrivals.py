"""Notes when something comes to sockets that nobody reads at the moment.

An edge-triggered epoll tells in one call which sockets something has come to since it was asked last: half of what it
costs to ask each socket, a fifth of what it costs to read it. The notes are kept by a class in C, since each arrival of
each stream passes through it. Where that was not built, the one in Python does the same.

It refuses to know connections: sockets are their descriptors. When to look is said by the caller, with the time; the
class in C can also look by itself, as a `Watcher`.
"""

from __future__ import annotations

import array
import sys
from typing import Final, Protocol, runtime_checkable

if sys.platform == "linux":
    import fcntl
    import select
    import termios

try:
    from batchrun.transport.own import _arrivals
except ImportError:
    _arrivals = None  # type: ignore[assignment]


class _Notes:
    """What came to one socket. `times`: one an arrival; `counts`: the bytes that waited from then on, where they were asked for.

    `hurries`: it is due for its silence; `hurried`: it was taken for that.
    """

    __slots__ = ("counts", "exact", "followed", "hurried", "hurries", "times")

    def __init__(self) -> None:
        """Begin with nothing."""
        self.times: list[float] = []
        self.counts: list[int] | None = None
        self.followed = self.exact = self.hurries = self.hurried = False


class PythonArrivals:
    """The arrivals at registered sockets while they are followed, each until it is taken. Times are in seconds.

    A method raises `KeyError` for a socket that was never registered, and `OSError` where the kernel refuses.
    """

    def __init__(self) -> None:
        """Open the epoll."""
        self._epoll = select.epoll()
        self._notes: dict[int, _Notes] = {}
        self._waiting = array.array("i", [0])  # where the kernel writes a count of bytes

    def register(self, descriptor: int) -> None:
        """Have the arrivals at a socket told, until it is closed; one before it may have had the same descriptor."""
        self._epoll.register(descriptor, select.EPOLLIN | select.EPOLLET)
        self._notes[descriptor] = _Notes()

    def follow(self, descriptor: int) -> None:
        """Note what comes to a registered socket."""
        notes = self._notes[descriptor]
        notes.followed, notes.exact = True, False

    def follow_exactly(self, descriptor: int) -> None:
        """Note what comes to a registered socket of which the times matter, so that its bytes may be counted."""
        notes = self._notes[descriptor]
        notes.followed = notes.exact = True

    def unfollow(self, descriptor: int) -> None:
        """Note no more what comes to a socket."""
        self._notes[descriptor].followed = False

    def look(self, at: float, most: int) -> None:
        """Note that something has come at the time `at`, to at most so many sockets."""
        self._look(at, most, counted=False)

    def look_and_count(self, at: float, most: int) -> None:
        """Note also how many bytes wait, where times matter."""
        self._look(at, most, counted=True)

    def note(self, descriptor: int, at: float) -> None:
        """Note an arrival of which the kernel will not tell."""
        notes = self._notes[descriptor]
        notes.times.append(at)
        notes.counts = None

    def due(self, silent: float, oldest: float) -> tuple[list[int], int]:
        """Return the followed sockets to which something came before `oldest`, or nothing any more since `silent`.

        And how many of them were taken for their silence the last time: in vain, as more has come.
        """
        found, in_vain = [], 0
        for descriptor, notes in self._notes.items():
            times = notes.times
            if times and notes.followed and (times[-1] < silent or times[0] < oldest):
                found.append(descriptor)
                notes.hurries = times[0] >= oldest
                in_vain += notes.hurried
        return found, in_vain

    def take(self, descriptor: int) -> tuple[list[float], list[int] | None]:
        """Return the times of a socket's arrivals, and how many bytes waited at each, where that is known; then begin anew."""
        notes = self._notes[descriptor]
        times, counts = notes.times, notes.counts
        notes.times, notes.counts = [], None
        notes.hurried, notes.hurries = notes.hurries, False
        return times, counts

    def forget(self, descriptor: int) -> None:
        """Follow a socket no more, and drop all that is noted of it."""
        self.unfollow(descriptor)
        self._notes[descriptor] = _Notes()

    def close(self) -> None:
        """Close the epoll."""
        self._epoll.close()

    def _look(self, at: float, most: int, *, counted: bool) -> None:
        for descriptor, _ in self._epoll.poll(0, most):
            notes = self._notes[descriptor]
            if notes.followed:
                if counted and notes.exact and not notes.times:
                    notes.counts = []
                notes.times.append(at)
                if notes.counts is not None:
                    fcntl.ioctl(descriptor, termios.FIONREAD, self._waiting)
                    notes.counts.append(self._waiting[0])


@runtime_checkable
class Watcher(Protocol):
    """Arrivals that are looked for by a thread of their own while any socket is followed. It does not need the interpreter.

    Waking that up to look was more than half of what streams cost that pause between their events.
    """

    def watch(self, look: float, patience: float, longest: float, counted: bool, /) -> None:  # noqa: FBT001 - it is C's
        """Look every `look` seconds, counting bytes if `counted`; ring where somebody is due, once until this is called again.

        Due is who has been silent for `patience` looks, and at eight times in `longest` seconds, who has gathered for so long.
        Raises `OSError`.
        """

    def look_too(self) -> None:
        """Look now, too: a caller that computes for long may keep the thread from doing so. Raises what ended the thread."""

    def fileno(self) -> int:
        """Return the bell's descriptor: it can be read once the bell has rung."""

    def heard(self) -> tuple[float, float]:
        """Silence the bell; return when the last look was, and how long after the one before. Raises what ended the thread."""


Arrivals: Final[type[PythonArrivals]] = PythonArrivals if _arrivals is None else _arrivals.Arrivals
"""The faster of the two that is there."""
