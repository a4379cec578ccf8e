"""Connections that have left the loop are read when the bell rings, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from batchrun.transport.own.pacing import FEWEST_STREAMS, Pacing, gather_s, look_s


class Bell:
    """Arrivals of which a test says who is `waiting` to be read. `done` is what was done, in order."""

    def __init__(self) -> None:
        self.rope, self.bell = socket.socketpair()
        self.bell.setblocking(False)  # noqa: FBT003 - its signature
        self.waiting: list[int] = []
        self.done: list[object] = []

    def fileno(self) -> int:
        """Return where the ring comes."""
        return self.bell.fileno()

    def ring(self) -> None:
        """Ring."""
        self.rope.send(b"!")

    def heard(self) -> tuple[float, float]:
        """Silence the bell; the last look was a moment ago."""
        with suppress(BlockingIOError):
            self.bell.recv(16)
        return 100.0, 0.0

    def due(self, silent: float, oldest: float) -> tuple[list[int], int]:
        """Return who waits."""
        assert 100 - gather_s(FEWEST_STREAMS) < oldest < silent < 100, "who has nearly waited for long enough is read along"
        return list(self.waiting), 0

    def watch(self, *_: object) -> None:
        """Be told to watch."""
        self.done.append("watch")

    def look_too(self) -> None:
        """Be told to look."""
        self.done.append("look")

    def ignored(self, *_: object) -> None:
        """Take any other call."""

    register = follow = follow_exactly = unfollow = forget = ignored

    def close(self) -> None:
        """Close the sockets."""
        self.rope.close()
        self.bell.close()


class Away:
    """A connection that was read, and then does something."""

    def __init__(self, bell: Bell, descriptor: int, then: Callable[[], object]) -> None:
        self.bell, self.descriptor, self.then = bell, descriptor, then

    def read_now(self) -> None:
        """Be read."""
        self.bell.waiting.remove(self.descriptor)
        self.bell.done.append(self.descriptor)
        self.then()


@pytest.fixture
async def pacing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The pacing of so many streams that they gather."""
    monkeypatch.setattr("batchrun.transport.own.pacing.Arrivals", Bell)
    made = Pacing(asyncio.get_running_loop(), range(FEWEST_STREAMS))
    made.register(0)
    yield made
    made.close()


async def rung(pacing: Any, *then: Callable[[], object], times: int = 1) -> list[object]:
    """Have so many connections leave and be due; return what was done after so many rings."""
    bell: Bell = pacing._arrivals
    for descriptor, what in enumerate(then):
        bell.waiting.append(descriptor)
        pacing.leave(descriptor, Away(bell, descriptor, what), exact=True)
    bell.done.clear()
    for _ in range(times):
        bell.ring()
        for _ in range(8):
            await asyncio.sleep(0)
    return bell.done


def nothing() -> None:
    """Do nothing."""


async def test_it_is_looked_before_each_further_read(pacing: Any) -> None:
    """Else what came while the ones before were read would be read, too, and belong to no arrival."""
    assert await rung(pacing, nothing, nothing, nothing) == [0, "look", 1, "look", 2, "watch"]


async def test_a_read_that_fails_does_not_keep_the_others_waiting(pacing: Any) -> None:
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, failure: failures.append(failure))

    def fail() -> None:
        raise RuntimeError("a fault of ours")

    assert await rung(pacing, fail, nothing, times=2) == [0, "watch", 1, "watch"]
    assert [str(failure["exception"]) for failure in failures] == ["a fault of ours"]


async def test_long_reads_leave_room_for_the_loop(pacing: Any, clock: list[float]) -> None:
    bell: Bell = pacing._arrivals

    def take_long() -> None:
        clock[0] += look_s(FEWEST_STREAMS)
        asyncio.get_running_loop().call_soon(bell.done.append, "the loop")

    assert await rung(pacing, take_long, nothing) == [0, "watch", "the loop", 1, "watch"]


async def test_nobody_listens_to_a_bell_that_is_gone(pacing: Any) -> None:
    """Its descriptor may soon be somebody else's."""
    descriptor = pacing._arrivals.fileno()
    pacing.close()
    assert not asyncio.get_running_loop().remove_reader(descriptor)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that a test moves."""
    time = [100.0]
    monkeypatch.setattr("batchrun.transport.own.pacing.monotonic", lambda: time[0])
    return time
