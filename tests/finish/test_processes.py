"""Ranges finished by processes of this machine: the same bytes, whichever of them die."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Generator, Sequence
from pathlib import Path

import pytest

from batchrun.errors import StorageError
from batchrun.finish.part import Order, Part, Range
from batchrun.finish.processes import Processes, _Worker
from tests.finish.conftest import Run, others


def test_two_processes_give_the_bytes_of_one(folder: Path) -> None:
    run = Run(folder)
    whole, book = run.finish()
    parts, parts_book = run.finish(others(Processes(2), 2))
    assert parts == whole
    assert parts_book.snapshot() == book.snapshot()


def test_killed_ones_lose_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each dies after its first range, and so does whoever takes its place: the rest is done here."""
    run = Run(folder)
    whole, _ = run.finish()
    begin, begun, processes = _Worker._begin, list[_Worker](), Processes(2)

    def noted(worker: _Worker) -> socket.socket:
        begun.append(worker)
        return begin(worker)

    monkeypatch.setattr(_Worker, "_begin", noted)

    def killing(order: Order, ranges: Sequence[Range]) -> Generator[Part | None]:
        parts = processes(order, ranges)
        try:
            for part in parts:
                for worker in begun:
                    if worker._process is not None and worker._process.poll() is None:
                        os.kill(worker._process.pid, signal.SIGKILL)
                yield part
        finally:
            parts.close()

    assert run.finish(others(killing, 2))[0] == whole
    assert all(worker._process is None for worker in begun)


def test_what_they_cannot_finish_is_said_here(folder: Path) -> None:
    run = Run(folder)
    segment = next(folder.glob("journal/*.journal"))
    content = bytearray(segment.read_bytes())
    content[-5] ^= 1
    segment.write_bytes(content)
    with pytest.raises(StorageError, match="is damaged"):
        run.finish(others(Processes(2), 2))
