"""Virtual time: an event loop whose clock jumps to the next timer instead of waiting for it."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

import pytest


class NoWaiting(selectors.SelectSelector):
    """A selector that never sleeps: it moves the clock by what it was asked to wait, and a microsecond a turn.

    Without that microsecond, a timer that a rounding error sets to this very moment would come up for ever.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return at once; a wait without an end means that nothing can ever happen."""
        if timeout is None:
            raise RuntimeError("every task waits for something that will never come")
        self.now += max(timeout, 1e-6)
        return super().select(0)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """The standard event loop on a clock that is moved by hand."""

    def __init__(self) -> None:
        self.hands = NoWaiting()
        super().__init__(self.hands)

    def time(self) -> float:
        """Return the virtual time, in seconds."""
        return self.hands.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]  # noqa: ARG002 - asyncio's signature
        """Do at once what a thread would do: nothing here can wait for one."""
        future = self.create_future()
        future.set_result(func(*args))
        return future


Run = Callable[[Coroutine[Any, Any, Any]], Any]


def in_virtual_time(main: Coroutine[Any, Any, Any]) -> Any:
    """Run `main` to its end in virtual time and return its result."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


@pytest.fixture(scope="session")
def virtual_time() -> Run:
    """Run a coroutine in virtual time."""
    return in_virtual_time
