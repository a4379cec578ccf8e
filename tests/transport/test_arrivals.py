"""What comes to a socket that nobody reads is noted: when, and where it is asked for how much; in C as in Python."""

from __future__ import annotations

import select
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.transport.own.arrivals import Arrivals, PythonArrivals

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no epoll")

MOST = 64
IN_C = pytest.mark.skipif(Arrivals is PythonArrivals, reason="the extension is not built")
BOTH = pytest.mark.parametrize("kind", dict.fromkeys([PythonArrivals, Arrivals]), ids=lambda kind: kind.__module__)


class Pair:
    """A pair of sockets: what is sent to one comes to the other, `descriptor`."""

    def __init__(self, stack: ExitStack) -> None:
        self.far, self.near = map(stack.enter_context, socket.socketpair())
        self.near.setblocking(False)  # noqa: FBT003 - its signature
        self.descriptor = self.near.fileno()


@pytest.fixture
def wires() -> Iterator[list[Pair]]:
    """Three pairs of sockets."""
    with ExitStack() as stack:
        yield [Pair(stack) for _ in range(3)]


@pytest.fixture
def arrivals(kind: type[PythonArrivals], wires: list[Pair]) -> Iterator[PythonArrivals]:
    """Notes of a kind, which know all the sockets."""
    notes = kind()
    for wire in wires:
        notes.register(wire.descriptor)
    yield notes
    notes.close()


@BOTH
def test_arrivals_are_noted_until_they_are_taken(arrivals: PythonArrivals, wires: list[Pair]) -> None:
    """Each look that finds something is one arrival, however much it is and though nothing was read."""
    first, second, _ = wires
    arrivals.follow(first.descriptor)
    first.far.send(b"a")
    second.far.send(b"nobody follows this")
    arrivals.look(1.0, MOST)
    arrivals.look(2.0, MOST)
    first.far.send(b"b")
    first.far.send(b"c")
    arrivals.look(3.0, MOST)
    assert arrivals.take(first.descriptor) == ([1.0, 3.0], None)
    assert arrivals.take(first.descriptor) == ([], None)
    assert arrivals.take(second.descriptor) == ([], None)


@BOTH
def test_bytes_are_counted_where_times_matter(arrivals: PythonArrivals, wires: list[Pair]) -> None:
    """From the first arrival on, or not until the next read: a count without those before it tells nothing."""
    exact, other, late = wires
    arrivals.follow_exactly(exact.descriptor)
    arrivals.follow(other.descriptor)
    arrivals.follow_exactly(late.descriptor)
    late.far.send(b"0")
    arrivals.look(0.5, MOST)
    for at, data in ((1.0, b"abc"), (2.0, b"de")):
        for wire in wires:
            wire.far.send(data)
        arrivals.look_and_count(at, MOST)
    assert arrivals.take(exact.descriptor) == ([1.0, 2.0], [3, 5])
    assert arrivals.take(other.descriptor) == ([1.0, 2.0], None)
    assert arrivals.take(late.descriptor) == ([0.5, 1.0, 2.0], None)


@BOTH
def test_due_is_who_waits_for_long_or_is_silent(arrivals: PythonArrivals, wires: list[Pair]) -> None:
    old, silent, fresh = wires
    for wire in wires:
        arrivals.follow(wire.descriptor)
    for at, who in ((1.0, [old]), (2.0, [silent]), (3.0, [old, fresh])):
        for wire in who:
            wire.far.send(b"x")
        arrivals.look(at, MOST)
    found, in_vain = arrivals.due(2.5, 1.5)
    assert (sorted(found), in_vain) == (sorted([old.descriptor, silent.descriptor]), 0)
    arrivals.unfollow(old.descriptor)
    assert arrivals.due(2.5, 1.5) == ([silent.descriptor], 0)
    assert arrivals.take(old.descriptor) == ([1.0, 3.0], None)


@BOTH
def test_a_read_for_silence_was_in_vain_if_more_comes(arrivals: PythonArrivals, wires: list[Pair]) -> None:
    one, *_ = wires

    def in_vain(at: float, silent: float, oldest: float) -> int:
        """Let something come, which is due at once, and read it; tell whether the read before was in vain."""
        one.far.send(b"x")
        arrivals.look(at, MOST)
        found, how_often = arrivals.due(silent, oldest)
        assert found == [one.descriptor]
        arrivals.take(one.descriptor)
        return how_often

    arrivals.follow(one.descriptor)
    assert in_vain(1.0, 1.5, 0.5) == 0
    assert in_vain(2.0, 2.5, 1.5) == 1, "it was not silent after all"
    assert in_vain(3.0, 2.5, 3.5) == 1, "nor this time"
    assert in_vain(4.0, 4.5, 3.5) == 0, "the last time it was old"
    arrivals.forget(one.descriptor)
    arrivals.follow(one.descriptor)
    assert in_vain(5.0, 5.5, 4.5) == 0, "that was another reply"


@BOTH
def test_an_arrival_can_be_noted_by_hand(arrivals: PythonArrivals, wires: list[Pair]) -> None:
    one, *_ = wires
    arrivals.follow_exactly(one.descriptor)
    one.far.send(b"x")
    arrivals.look_and_count(1.0, MOST)
    arrivals.note(one.descriptor, 1.5)
    assert arrivals.take(one.descriptor) == ([1.0, 1.5], None)


@BOTH
def test_a_socket_with_the_same_number_begins_anew(kind: type[PythonArrivals]) -> None:
    arrivals = kind()
    with ExitStack() as stack:
        old = Pair(stack)
        arrivals.register(old.descriptor)
        arrivals.follow_exactly(old.descriptor)
        old.far.send(b"x")
        arrivals.look_and_count(1.0, MOST)
    with ExitStack() as stack:
        new = next(wire for wire in (Pair(stack) for _ in range(64)) if wire.descriptor == old.descriptor)
        arrivals.register(new.descriptor)
        new.far.send(b"y")
        arrivals.look_and_count(2.0, MOST)
        assert arrivals.take(new.descriptor) == ([], None)
        arrivals.follow(new.descriptor)
        new.far.send(b"y")
        arrivals.look_and_count(3.0, MOST)
        assert arrivals.take(new.descriptor) == ([3.0], None)
    arrivals.close()


@BOTH
def test_many_arrivals(arrivals: PythonArrivals, wires: list[Pair]) -> None:
    one, *_ = wires
    arrivals.follow_exactly(one.descriptor)
    for number in range(120):
        one.far.send(b"x")
        arrivals.look_and_count(float(number), MOST)
    assert arrivals.take(one.descriptor) == ([float(number) for number in range(120)], list(range(1, 121)))


@BOTH
def test_faults_are_told(kind: type[PythonArrivals], wires: list[Pair]) -> None:
    arrivals, descriptor = kind(), wires[0].descriptor
    for method in (arrivals.follow, arrivals.follow_exactly, arrivals.unfollow, arrivals.take, arrivals.forget):
        for unknown in (descriptor, -1, 10**6):
            with pytest.raises(KeyError):
                method(unknown)
    with pytest.raises(KeyError):
        arrivals.note(descriptor, 1.0)
    arrivals.register(descriptor)
    with pytest.raises(FileExistsError):
        arrivals.register(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        arrivals.register(2**20)
    arrivals.close()
    with pytest.raises((OSError, ValueError)):
        arrivals.look(1.0, MOST)
    arrivals.close()


WHO = st.integers(0, 2)
STEPS = st.lists(
    st.tuples(st.sampled_from(["follow", "follow_exactly", "unfollow", "forget", "take", "note", "read"]), WHO)
    | st.tuples(st.just("send"), WHO, st.integers(1, 9))
    | st.tuples(st.sampled_from(["look", "look_and_count"]))
    | st.tuples(st.just("due"), st.integers(0, 4), st.integers(0, 9)),
    max_size=40,
)


@IN_C
@given(STEPS)
def test_it_keeps_the_notes_that_python_keeps(steps: list[tuple[Any, ...]]) -> None:
    """Two epolls watch the same sockets; whatever happens to those, the notes are the same."""
    with ExitStack() as stack:
        wires = [Pair(stack) for _ in range(3)]
        both = [PythonArrivals(), Arrivals()]
        for notes in both:
            stack.callback(notes.close)
            for wire in wires:
                notes.register(wire.descriptor)
        for now, (what, *rest) in enumerate(steps):
            match what:
                case "send":
                    wires[rest[0]].far.send(b"x" * rest[1])
                case "read":
                    with suppress(BlockingIOError):
                        wires[rest[0]].near.recv(1 << 16)
                case "due":
                    found = [notes.due(float(now - rest[0]), float(now - rest[1])) for notes in both]
                    assert sorted(found[0][0]) == sorted(found[1][0])
                    assert found[0][1] == found[1][1]
                case "look" | "look_and_count":
                    for notes in both:
                        getattr(notes, what)(float(now), MOST)
                case _:
                    arguments = (wires[rest[0]].descriptor, float(now))[: 2 if what == "note" else 1]
                    first, second = (getattr(notes, what)(*arguments) for notes in both)
                    assert first == second


LOOK_S = 0.002
AGES = 1000.0


@pytest.fixture
def watching(wires: list[Pair]) -> Iterator[Any]:
    """Notes that a thread takes, of all the sockets."""
    notes: Any = Arrivals()
    for wire in wires:
        notes.register(wire.descriptor)
    yield notes
    notes.close()


def rings(watching: Any, within_s: float) -> bool:
    """Wait for the bell."""
    return bool(select.select([watching], [], [], within_s)[0])


@IN_C
def test_it_rings_for_silence_and_tells_when_what_came(watching: Any, wires: list[Pair]) -> None:
    one, other, _ = wires
    watching.follow_exactly(one.descriptor)
    watching.follow(other.descriptor)
    before = time.monotonic()
    watching.watch(LOOK_S, 5.0, AGES, True)  # noqa: FBT003 - C's
    one.far.send(b"abc")
    assert rings(watching, 10)
    looked_at, gap = watching.heard()
    assert not rings(watching, 0), "it was heard"
    (at,), counts = watching.take(one.descriptor)
    assert before < at <= looked_at - 5 * LOOK_S
    assert gap > 0
    assert counts == [3]
    assert watching.take(other.descriptor) == ([], None)


@IN_C
def test_it_rings_for_what_has_gathered_for_long(watching: Any, wires: list[Pair]) -> None:
    one, *_ = wires
    watching.follow(one.descriptor)
    watching.watch(LOOK_S, AGES, 0.1, False)  # noqa: FBT003 - C's
    one.far.send(b"x")
    assert rings(watching, 10)
    looked_at, _ = watching.heard()
    times, _ = watching.take(one.descriptor)
    assert looked_at - times[0] > 0.1


@IN_C
def test_it_rings_once_until_it_is_told_to_watch_again(watching: Any, wires: list[Pair]) -> None:
    one, *_ = wires
    watching.follow(one.descriptor)
    for _ in range(2):
        watching.watch(LOOK_S, 1.0, AGES, False)  # noqa: FBT003 - C's
        one.far.send(b"x")
        assert rings(watching, 10)
        watching.heard()
        assert not rings(watching, 0.05), "who is due still is, and the one who was told knows"


@IN_C
def test_it_does_not_ring_for_whom_nobody_follows(watching: Any, wires: list[Pair]) -> None:
    """Nor where nothing came; and it goes on with those who are followed later."""
    one, other, _ = wires
    watching.watch(LOOK_S, 1.0, 0.01, False)  # noqa: FBT003 - C's
    watching.follow(other.descriptor)
    one.far.send(b"x")
    assert not rings(watching, 0.05)
    watching.unfollow(other.descriptor)
    assert not rings(watching, 0.05)
    watching.follow(other.descriptor)
    other.far.send(b"x")
    assert rings(watching, 10)
    assert watching.due(time.monotonic(), 0.0)[0] == [other.descriptor]


@IN_C
def test_others_may_look_too(watching: Any, wires: list[Pair]) -> None:
    """What came is then placed between their look and the one before."""
    one, *_ = wires
    watching.follow_exactly(one.descriptor)
    watching.watch(AGES, 1.0, AGES, True)  # noqa: FBT003 - C's
    for data in (b"ab", b"c"):
        one.far.send(data)
        watching.look_too()
    after = time.monotonic()
    times, counts = watching.take(one.descriptor)
    assert times == sorted(times)
    assert times[1] < after
    assert counts == [2, 3]


def watchers() -> int:
    """Return how many threads of this process watch."""
    names = []
    for file in Path("/proc/self/task").glob("*/comm"):
        with suppress(OSError):  # another that ended just now
            names.append(file.read_text())
    return names.count("arrivals\n")


@IN_C
def test_it_ends_when_it_is_closed(wires: list[Pair]) -> None:
    for kept in (True, False):
        watching: Any = Arrivals()
        watching.register(wires[0].descriptor)
        watching.follow(wires[0].descriptor)
        watching.watch(LOOK_S, 1.0, AGES, False)  # noqa: FBT003 - C's
        assert watchers() == 1
        if kept:
            watching.close()
        del watching
        assert watchers() == 0
    closed: Any = Arrivals()
    closed.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        closed.watch(LOOK_S, 1.0, AGES, False)  # noqa: FBT003 - C's


@IN_C
@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("look", ("now", MOST)),
        ("look", (1.0,)),
        ("due", (1.0, "old")),
        ("due", ()),
        ("note", (1,)),
        ("register", ("a",)),
        ("watch", (1.0,)),
    ],
)
def test_its_arguments_are_checked(method: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        getattr(Arrivals(), method)(*arguments)


@IN_C
def test_it_takes_no_arguments() -> None:
    with pytest.raises(TypeError):
        Arrivals(1)  # type: ignore[call-arg]  # what is tested
