"""Workers as processes of this machine, and the broker in this one.

Each is a new interpreter on a socket pair of its own: what is said to it (its order, which may hold a credential)
passes through memory alone. The socket is the leash in both directions: a worker that dies is known at once, and all
of them end when this process does. They have sessions of their own, so that Ctrl-C reaches this process alone and
it drains them.
"""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self

import batchrun
from batchrun.engine.distributed.broker import Broker
from batchrun.engine.distributed.messages import Look, Lost, View
from batchrun.engine.distributed.socket_line import serve
from batchrun.worker import Order, encode_order

DRIVER: Final = "driver"
REAP_S: Final = 10.0


class Crew(Protocol):
    """The workers of a run and their broker, wherever they are. A context manager: on leaving it all are gone."""

    async def __aenter__(self) -> Self:
        """Start the broker."""

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End everything."""

    async def look(self, look: Look) -> View:
        """Ask the broker how far the run is."""

    async def lost(self, lost: Lost) -> None:
        """Tell the broker that a worker is dead."""

    def hire(self, order: Order) -> asyncio.Task[bool]:
        """Start a worker; the task's result is whether it left in good order."""

    def kill(self, worker: str) -> None:
        """End a worker that does not answer."""


class ProcessCrew:
    """Worker processes of this one."""

    def __init__(self, make_broker: Callable[[], Broker]) -> None:
        """Start nothing yet."""
        self._make_broker = make_broker
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._tasks: set[asyncio.Task[bool]] = set()

    async def __aenter__(self) -> Self:
        self._broker = self._make_broker()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                process.kill()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def look(self, look: Look) -> View:
        """Ask the broker how far the run is."""
        return _view(await self._broker.ask(DRIVER, look))

    async def lost(self, lost: Lost) -> None:
        """Tell the broker that a worker is dead."""
        await self._broker.ask(DRIVER, lost)

    def hire(self, order: Order) -> asyncio.Task[bool]:
        """Start a worker process."""
        return self._started(self._employ(order))

    def kill(self, worker: str) -> None:
        """End a worker process."""
        self._processes[worker].kill()

    def _started(self, work: Coroutine[Any, Any, bool]) -> asyncio.Task[bool]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _employ(self, order: Order) -> bool:
        """Serve one process until it ends."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = self._processes[order.name] = _spawn(theirs)
        try:
            await serve(ours, encode_order(order), functools.partial(self._broker.ask, order.name))
        finally:
            code = await asyncio.to_thread(_reap, process)
        return code == 0


def _spawn(theirs: socket.socket) -> subprocess.Popen[bytes]:
    """Start a worker with this very package on its path; credentials reach it by its order, not by its environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANTHROPIC_")}
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, (str(Path(batchrun.__file__).parents[1]), kept.get("PYTHONPATH"))))
    return subprocess.Popen(  # noqa: S603 - this interpreter, this package, a number
        [sys.executable, "-m", "batchrun.worker", str(theirs.fileno())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=(theirs.fileno(),),
        env=kept,
        start_new_session=True,
    )


def _reap(process: subprocess.Popen[bytes]) -> int:
    """Return the exit code of a process that has let go of its socket."""
    try:
        return process.wait(REAP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _view(answer: object) -> View:
    """Return the answer to a look."""
    if not isinstance(answer, View):
        raise TypeError(f"a look was answered by {type(answer).__name__}")
    return answer
