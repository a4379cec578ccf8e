"""One timer for the time-outs of all exchanges.

A timer an exchange, moved at every read, costs more than reading does. Instead each running exchange keeps
the earliest moment at which something could be due, and a sweep compares them: a limit is found late by at most
1/200 of the shortest one, within 40 to 250 ms, and never early. With nothing running, nothing ticks.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Final, Protocol

from batchrun.records import Ended
from batchrun.transport.base import DRAIN_S, ENOUGH, Bounds, timed_out

SHORTEST_SWEEP_S: Final = 0.04
LONGEST_SWEEP_S: Final = 0.25
_SWEEPS_PER_LIMIT: Final = 200


class Timed(Protocol):
    """Something with a moment before which it need not be asked."""

    check_at: float

    def check(self, now: float) -> None:
        """End what is overdue and set `check_at` anew."""


class Deadlines:
    """The exchanges that run now, and the sweep over them."""

    __slots__ = ("_loop", "_sweep_s", "_timer", "running")

    def __init__(self, loop: asyncio.AbstractEventLoop, shortest_limit_s: float) -> None:
        """Begin with nothing running."""
        self._loop = loop
        self._sweep_s = min(LONGEST_SWEEP_S, max(SHORTEST_SWEEP_S, shortest_limit_s / _SWEEPS_PER_LIMIT))
        self._timer: asyncio.TimerHandle | None = None
        self.running: set[Timed] = set()

    def add(self, timed: Timed) -> None:
        """Watch one more."""
        self.running.add(timed)
        if self._timer is None:
            self._timer = self._loop.call_later(self._sweep_s, self._sweep)

    def discard(self, timed: Timed) -> None:
        """Watch it no longer."""
        self.running.discard(timed)

    def _sweep(self) -> None:
        """Ask those that may be overdue."""
        self._timer = None
        now = monotonic()
        due = [timed for timed in self.running if timed.check_at <= now]
        if self.running:
            self._timer = self._loop.call_later(self._sweep_s, self._sweep)
        for timed in due:
            timed.check(now)


def due_by(
    now: float, bounds: Bounds, started: float, first_at: float | None, last_at: float, done_at: float | None
) -> tuple[Ended | None, float]:
    """Return the end of an exchange that is due by now, if one is, and the next moment at which one could be.

    It `started`, the first and the last of its body's bytes came, and its receiver was done; None: not yet.
    """
    total_until = started + bounds.total_s
    enough_at = total_until if done_at is None else done_at + DRAIN_S
    if first_at is None:
        silence, silent_until = timed_out("timeout_first_byte", bounds.first_byte_s), started + bounds.first_byte_s
    else:
        silence, silent_until = timed_out("timeout_idle", bounds.idle_s), last_at + bounds.idle_s
    if done_at is not None and now >= enough_at:
        return ENOUGH, now
    if now >= total_until:
        return timed_out("timeout_total", bounds.total_s), now
    if now >= silent_until:
        return silence, now
    return None, min(silent_until, total_until, enough_at)
