"""The rows of a run in, ranges of them out to whoever has room: large ones first, small ones at the end.

A worker that is done sooner takes more. Half of an equal share of what is left is given at a time (guided
self-scheduling, Polychronopoulos and Kuck 1987), so that few ranges are handed out and all workers end together.
Ranges are remembered until their worker has landed all it had; those of a worker that died are handed out
again, with what has landed of them. Pure: who waits and dies is told to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from batchrun.engine.distributed.messages import Rows

LARGEST: Final = 50_000
SMALLEST: Final = 500
UNCOUNTED: Final = 1_000  # rows in a range while nobody knows how many there are
SHARES: Final = 2
NONE_LEFT: Final = Rows()


class Ranges:
    """What is left to hand out, and who has what."""

    def __init__(self, runs: Iterable[tuple[int, int | None]], *, workers: int, concurrency: int) -> None:
        """Hand out the places in `runs` (start, stop), in order; a stop of None is a dataset of unknown length."""
        self._runs = deque(runs)
        self._again: deque[Rows] = deque()
        self._held: dict[str, list[Rows]] = {}
        self._workers = workers
        self._smallest = min(SMALLEST, max(1, 2 * concurrency // workers))

    @property
    def finished(self) -> bool:
        """Whether nothing is left to hand out, and nobody has anything."""
        return not (self._runs or self._again or self._held)

    def take(self, worker: str) -> Rows:
        """Return the next range, now this worker's; an empty one while there is none."""
        rows = self._again.popleft() if self._again else self._cut()
        if not rows.empty:
            self._held.setdefault(worker, []).append(rows)
        return rows

    def landed(self, worker: str) -> None:
        """Forget what this worker had: all of it has landed."""
        self._held.pop(worker, None)

    def lost(self, worker: str, landed: bytes) -> None:
        """Hand out again what this worker had, and with it what has landed."""
        for rows in self._held.pop(worker, []):
            self._again.append(Rows(start=rows.start, stop=rows.stop, landed=landed))

    def end(self, at: int) -> None:
        """Hand out nothing from place `at` on: there are no such rows."""
        cut = ((start, at if stop is None else min(stop, at)) for start, stop in self._runs)
        self._runs = deque((start, stop) for start, stop in cut if start < stop)

    def _cut(self) -> Rows:
        """Cut a range off the front."""
        if not self._runs:
            return NONE_LEFT
        start, stop = self._runs.popleft()
        end = start + (UNCOUNTED if stop is None else min(self._size(stop - start), stop - start))
        if stop is None or end < stop:
            self._runs.appendleft((end, stop))
        return Rows(start=start, stop=end)

    def _size(self, here: int) -> int:
        """Return how many rows to hand out, of the run with `here` rows at the front and those behind it."""
        left = here + sum(stop - start for start, stop in list(self._runs)[:64] if stop is not None)
        return max(self._smallest, min(LARGEST, -(-left // (SHARES * self._workers))))
