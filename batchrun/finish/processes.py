"""Ranges of a run's rows finished by processes of this machine, for `--workers N`.

Each is a new interpreter on a socket pair of its own: its order and its ranges go in, parts come out, one at a time. The
socket is the leash in both directions: a worker that dies is known at once, and all of them end when this process
does. A range whose worker dies, is silent for too long or cannot finish it is given back, so that this process does it and says
what is wrong in its own words.

`python -m batchrun.finish.processes FD` is one of the workers.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Final

import batchrun
from batchrun.errors import BatchrunError
from batchrun.finish.part import Order, OrderedFinisher, Part, Range, decode_order, encode_order

AHEAD: Final = 2  # ranges a worker that are under way or wait to be put together
SILENT_S: Final = 900.0
_DEATHS: Final = 2  # of one worker, after which no other takes its place
_LENGTH: Final = struct.Struct("<Q")


class Processes:
    """Has ranges finished by so many processes; a `Spread`."""

    def __init__(self, workers: int) -> None:
        """Start nothing yet."""
        self._workers = workers

    def __call__(self, order: Order, ranges: Sequence[Range]) -> Generator[Part | None]:
        """Yield what each range came to, in order; None for one that was given back."""
        workers = [_Worker(order) for _ in range(min(self._workers, len(ranges)))]
        idle: SimpleQueue[_Worker] = SimpleQueue()
        for worker in workers:
            idle.put(worker)

        def one(rows: Range) -> Part | None:
            worker = idle.get()
            try:
                return worker.finish(rows)
            finally:
                idle.put(worker)

        waiting = deque(ranges)
        at_work: deque[Future[Part | None]] = deque()
        with ThreadPoolExecutor(len(workers)) as threads:
            try:
                while waiting or at_work:
                    while waiting and len(at_work) < AHEAD * len(workers):
                        at_work.append(threads.submit(one, waiting.popleft()))
                    yield at_work.popleft().result()
            finally:
                for future in at_work:
                    future.cancel()
                for worker in workers:
                    worker.end()


class _Worker:
    """One process, begun when it is first needed, and again after its first death."""

    def __init__(self, order: Order) -> None:
        """Start nothing yet."""
        self._order = encode_order(order)
        self._deaths = 0
        self._line: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def finish(self, rows: Range) -> Part | None:
        """Return what the range came to, None where it was not finished."""
        if self._deaths >= _DEATHS:
            return None
        try:
            line = self._line or self._begin()
            _send(line, pickle.dumps(tuple(rows)))
            content = _receive(line)
        except OSError:
            self._deaths += 1
            self.end()
            return None
        part: Part | None = pickle.loads(content)  # noqa: S301 - a process of ours, on a socket of ours
        return part

    def end(self) -> None:
        """End the process, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._line is not None:
            self._line.close()
        self._line = self._process = None

    def _begin(self) -> socket.socket:
        """Start the process and tell it the order."""
        ours, theirs = socket.socketpair()
        ours.settimeout(SILENT_S)
        self._line = ours
        path = os.pathsep.join(filter(None, (str(Path(batchrun.__file__).parents[1]), os.environ.get("PYTHONPATH"))))
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, this package, a number
                [sys.executable, "-m", "batchrun.finish.processes", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={name: value for name, value in os.environ.items() if not name.startswith("ANTHROPIC_")}
                | {"PYTHONPATH": path},
                start_new_session=True,
            )
        _send(ours, self._order)
        return ours


def _send(line: socket.socket, content: bytes) -> None:
    line.sendall(_LENGTH.pack(len(content)) + content)


def _receive(line: socket.socket) -> bytes:
    """Return the next message. Raises `OSError` when the other side is gone."""
    (length,) = _LENGTH.unpack(_exactly(line, _LENGTH.size))
    return _exactly(line, length)


def _exactly(line: socket.socket, length: int) -> bytes:
    """Return so many bytes."""
    content = bytearray(length)
    view = memoryview(content)
    while view:
        got = line.recv_into(view)
        if not got:
            raise ConnectionError("the other side is gone")
        view = view[got:]
    return bytes(content)


def _as_process(descriptor: int) -> None:
    """Be a worker on a socket that was handed down, until the other side lets go."""
    with socket.socket(fileno=descriptor) as line:
        finisher: OrderedFinisher | None = None
        order = decode_order(_receive(line))
        while True:
            try:
                rows = Range(*pickle.loads(_receive(line)))  # noqa: S301 - from the process that started this one
            except ConnectionError:
                return
            part: Part | None = None
            with contextlib.suppress(BatchrunError):  # the other side comes upon it too, and says so
                finisher = finisher or OrderedFinisher(order)
                part = finisher.finish(rows)
            _send(line, pickle.dumps(part, protocol=pickle.HIGHEST_PROTOCOL))


if __name__ == "__main__":
    _as_process(int(sys.argv[1]))
