"""A block of a Messages stream, taken apart into lines and runs.

A model sends its answer a few characters at a time, so that nearly all events of a stream are deltas of one text. A
*run* is what such deltas come to where they follow each other. They are decoded and joined by a function in C, for a
sixth of what it costs to make an object of each; where that was not built, every event stays a line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Final, cast

from batchrun.wire import usual
from batchrun.wire.sse import plain_data

try:
    from batchrun.wire import _runs
except ImportError:
    _runs = None  # type: ignore[assignment]

Run = tuple[int, int, str, int]
"""The deltas' kind (its place in `KINDS`), the index of their block, their text, and how many they were."""

KINDS: Final = (usual.Text, usual.Json, usual.Thinking)

take_apart: Final[Callable[[bytes], Sequence[bytes | Run] | None]] = plain_data if _runs is None else _runs.take_apart
"""Return the data of each event of a block as `sse.plain_data` does, in order, but runs as a `Run`; None: not plain."""


def events_in(items: Sequence[bytes | Run]) -> int:
    """Return how many events so many lines and runs stand for."""
    return sum(1 if isinstance(item, bytes) else item[3] for item in items)


def decoded(items: Sequence[bytes | Run], at: int) -> Iterable[Any]:
    """Return the event of each line from `items[at]` on, None where it is not usual, and the runs as they are.

    From a later place than the first on there must be no run.
    """
    if at:
        return map(usual.read, islice(cast("Sequence[bytes]", items), at, None))
    lines = [item for item in items if isinstance(item, bytes)]
    together = usual.read_all(lines) if len(lines) > 1 else None
    events = map(usual.read, lines) if together is None else together
    if len(lines) == len(items):
        return events
    following = iter(events)
    return (next(following) if isinstance(item, bytes) else item for item in items)
