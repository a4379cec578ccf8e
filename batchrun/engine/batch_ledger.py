"""What a run has handed to the Batches endpoint: `batches.jsonl` beside the journal, one event a line, each synced.

A batch is money spent at once, and the endpoint neither takes a name for it nor an idempotency key. So what is about
to be sent is written down first: which calls, under which key, for how much. A crash then leaves one of these:

    intent                     sent or not, nobody knows: look for it at the endpoint before anything else
    intent, submitted          it is there: ask how far it is
    intent, submitted, landed  its results are in the journal, durably
    intent, void               it is certain that it was never accepted, or it was given up on purpose

A torn last line was never synced, so what it announces was never sent: it is dropped. Refuses to know HTTP.
"""

from __future__ import annotations

import base64
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from msgspec import Struct

from batchrun.errors import StorageError
from batchrun.storage.atomic import sync_folder
from batchrun.storage.folder import BATCHES_NAME
from batchrun.storage.trouble import translated


class _Event(Struct, frozen=True, kw_only=True, tag_field="event", omit_defaults=True):
    key: str  # 16 hex digits: the batch's own, and the key of its checks
    at_us: int  # microseconds since the epoch


class Intent(_Event, frozen=True, kw_only=True, tag="intent"):
    """A batch is about to be sent."""

    ordinals: list[tuple[int, int]]  # runs of calls: first and last of each, upwards
    checks: str  # base64 of one big-endian u32 a call, in that order
    tries: dict[int, int] = {}  # calls that were tried before: which try this is
    body_bytes: int
    sha256: str  # of the body
    reserved_usd: Decimal  # the most that all of it can cost
    worst_usd: Decimal  # the most that one call of it can cost


class Submitted(_Event, frozen=True, kw_only=True, tag="submitted"):
    """The endpoint has it, under this id."""

    id: str


class Ended(_Event, frozen=True, kw_only=True, tag="ended"):
    """The endpoint has finished it."""

    counts: dict[str, int]


class Landed(_Event, frozen=True, kw_only=True, tag="landed"):
    """Its results are durable in the journal."""


class Void(_Event, frozen=True, kw_only=True, tag="void"):
    """Its calls are to be made anew."""

    why: str


Event = Intent | Submitted | Ended | Landed | Void


@dataclass(slots=True)
class Submission:
    """One batch of a run, as far as it is known."""

    intent: Intent
    id: str | None = None
    ended: bool = False
    closed: bool = False  # landed or void

    @property
    def key(self) -> str:
        """Return the batch's own key."""
        return self.intent.key

    @property
    def count(self) -> int:
        """Return how many calls are in it."""
        return sum(last - first + 1 for first, last in self.intent.ordinals)

    def ordinals(self) -> Iterator[int]:
        """Yield its calls, upwards."""
        for first, last in self.intent.ordinals:
            yield from range(first, last + 1)

    def names(self) -> dict[int, int]:
        """Return the check of each call, by ordinal."""
        checks = struct.unpack(f">{self.count}I", base64.b64decode(self.intent.checks))
        return dict(zip(self.ordinals(), checks, strict=True))

    def take(self, event: Event) -> None:
        """Learn what came of it."""
        match event:
            case Submitted():
                self.id = event.id
            case Ended():
                self.ended = True
            case Landed() | Void():
                self.closed = True
            case Intent():
                raise StorageError(f"{BATCHES_NAME}: batch {event.key} is announced twice")


class Ledger:
    """The open ledger of one run; whoever holds the run's lock may write it. Close it, or use it as a context manager."""

    def __init__(self, path: Path) -> None:
        """Read what is there and get ready to append. Raises `StorageError`."""
        self._path = path
        with translated(path):
            new = not path.exists()
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        self.submissions, whole = _read(path)
        with translated(path):
            os.ftruncate(self._descriptor, whole)
            os.lseek(self._descriptor, 0, os.SEEK_END)
            if new:
                sync_folder(path.parent)

    def announce(self, intent: Intent) -> Submission:
        """Write down, durably, what is about to be sent. Raises `StorageError`."""
        self._write(intent)
        submission = self.submissions[intent.key] = Submission(intent)
        return submission

    def note(self, event: Submitted | Ended | Landed | Void) -> None:
        """Write down, durably, what came of a batch. Raises `StorageError`."""
        self._write(event)
        self.submissions[event.key].take(event)

    def open(self) -> list[Submission]:
        """Return the batches whose results have not landed, oldest first."""
        return [submission for submission in self.submissions.values() if not submission.closed]

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _write(self, event: Event) -> None:
        with translated(self._path):
            rest = memoryview(msgspec.json.encode(event) + b"\n")
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)


def read_ledger(path: Path) -> dict[str, Submission]:
    """Return the batches in the ledger at `path` by key, without changing it; none where there is none. Raises `StorageError`."""
    return _read(path)[0] if path.exists() else {}


def runs_of(ordinals: Iterable[int]) -> list[tuple[int, int]]:
    """Return rising numbers as runs of neighbours: first and last of each."""
    runs: list[tuple[int, int]] = []
    for ordinal in ordinals:
        if runs and runs[-1][1] == ordinal - 1:
            runs[-1] = (runs[-1][0], ordinal)
        else:
            runs.append((ordinal, ordinal))
    return runs


def packed(checks: Sequence[int]) -> str:
    """Return checks as `Intent.checks` holds them."""
    return base64.b64encode(struct.pack(f">{len(checks)}I", *checks)).decode()


def _read(path: Path) -> tuple[dict[str, Submission], int]:
    """Return the batches by key, and how many bytes of the file are whole lines."""
    decode = msgspec.json.Decoder(Event).decode
    found: dict[str, Submission] = {}
    whole = 0
    with translated(path, "read"), path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                break
            try:
                event = decode(line)
                if isinstance(event, Intent) and event.key not in found:
                    found[event.key] = Submission(event)
                else:
                    found[event.key].take(event)
            except (msgspec.DecodeError, KeyError):
                hint = "restore the file: without it nobody knows which batches were paid for"
                raise StorageError(f"{path}, line {number}: is damaged", hint=hint) from None
            whole += len(line)
    return found, whole
