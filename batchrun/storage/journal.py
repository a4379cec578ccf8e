"""Finished attempts in, durable records out: the landing.

`append` encodes and queues, nothing more (a microsecond or two). One thread gathers what came in the last
few hundredths of a second into a block and writes it, which `kill -9` cannot undo; another syncs what was
written, at most ten times a second, which a power cut cannot undo. So a slow disk delays neither the event
loop nor the next write. A journal never changes what is on disk: every writer begins a segment of its own.

When the disk is full, a small reserve is given back so that the answers already paid for still land,
and the run is told to stop. `index.JournalIndex` reads what this writes; this module never reads.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from batchrun.errors import StorageError
from batchrun.records import Attempt, Secret
from batchrun.storage import segment
from batchrun.storage.atomic import sync_folder, without_surrogates
from batchrun.storage.index import JournalIndex
from batchrun.storage.segment import Record
from batchrun.storage.trouble import FULL, storage_error, translated

__all__ = ["Journal", "JournalIndex"]

WRITE_EVERY_S: Final = 0.05
SYNC_EVERY_S: Final = 0.1
SEGMENT_BYTES: Final = 64 << 20
BLOCK_BYTES: Final = 4 << 20
RESERVE_BYTES: Final = 4 << 20
REDACTED: Final = b"[credential]"
SHORTEST_SECRET: Final = 8  # anything shorter is a placeholder, and may stand in any text
_PATIENCE_S: Final = 60.0  # for a disk that does not answer, at the end

_fdatasync: Final[Callable[[int], None]] = getattr(os, "fdatasync", os.fsync)  # macOS has only fsync
_STATUS_FLAGS: Final = {status: place << 1 for place, status in enumerate(segment.STATUSES)}
_NANO: Final = 9
_NONE: Final = -1  # no segment is open: all that was written is synced
RESERVE_SUFFIX: Final = ".reserve"


class Journal:
    """The open end of a journal folder: one writer, its segments, its two threads.

    `writer` names the segments (`local-000001.journal`); several writers (workers, shards) may share one folder.
    `on_durable(count)` is called after each sync, from a thread of the journal's or from `close`, with how many
    appended attempts are durable so far; it must not raise. One thread at a time may call `append`. Close it, or use
    it as a context manager.
    """

    def __init__(
        self,
        folder: Path,
        *,
        writer: str = "local",
        on_durable: Callable[[int], None] | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        reserve_bytes: int = RESERVE_BYTES,
        secrets: Sequence[Secret] = (),
    ) -> None:
        """Create `folder` if need be and begin a segment in it; `secrets` never reach it. Raises `StorageError`."""
        self.appended = self.written = self.durable = 0
        self.error: StorageError | None = None
        self._folder, self._writer, self._on_durable, self._segment_bytes = folder, writer, on_durable, segment_bytes
        self._encode = msgspec.json.Encoder().encode
        self._secrets = tuple(
            msgspec.json.encode(secret.reveal())[1:-1] for secret in secrets if len(secret.reveal()) >= SHORTEST_SECRET
        )
        self._queue: deque[Record] = deque()
        self._awake = False
        self._wake, self._unsynced, self._closing, self._stopped = (threading.Event() for _ in range(4))
        self._advanced = threading.Condition()
        self._file_lock = threading.Lock()  # held while the descriptor is synced or replaced
        with translated(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._begin_segment()
            for stale in folder.glob(f".{writer}-*{RESERVE_SUFFIX}"):
                stale.unlink(missing_ok=True)
            self._reserve = _reserve(folder / f".{self._path.stem}{RESERVE_SUFFIX}", reserve_bytes)
        self._threads = [
            threading.Thread(target=target, name=f"journal-{target.__name__}", daemon=True)
            for target in (self._write, self._sync)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def path(self) -> Path:
        """Return the segment that is being written."""
        return self._path

    def append(self, attempt: Attempt, cost: Decimal | None = None) -> None:
        """Queue one finished attempt; it is written within `WRITE_EVERY_S` and durable after the next sync.

        `cost` is what it cost in dollars, if that is known: `JournalIndex.spent` adds it up without decoding.
        Raises the `StorageError` of an earlier write, once the attempt is queued all the same: `close` tries
        again to write what is queued.
        """
        if self._stopped.is_set():
            raise StorageError(f"{self._folder}: the journal is closed")
        try:
            payload = self._encode(attempt)
        except UnicodeEncodeError:
            payload = self._encode(_encodable(msgspec.to_builtins(attempt)))
        for secret in self._secrets:  # an endpoint may echo what it was sent
            if secret in payload:
                payload = payload.replace(secret, REDACTED)
        nano = -1 if cost is None else int(cost.scaleb(_NANO).to_integral_value())
        self._queue.append(Record(attempt.ordinal, attempt.attempt, _STATUS_FLAGS[attempt.status] | attempt.final, nano, payload))
        self.appended += 1
        if not self._awake:
            self._awake = True
            self._wake.set()
        if self.error is not None:
            raise self.error

    def flush(self, timeout_s: float = _PATIENCE_S) -> None:
        """Return once everything appended before is durable. Raises `StorageError`."""
        wanted = self.appended
        deadline = time.monotonic() + timeout_s
        with self._advanced:
            while self.durable < wanted and self.error is None:
                if not self._advanced.wait(max(deadline - time.monotonic(), 0)):
                    raise StorageError(f"{self._path}: the disk did not answer for {timeout_s:g} s")
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """Write and sync what is queued, finish the segment and end the threads. Raises `StorageError`."""
        if self._stopped.is_set():
            return
        self._closing.set()
        for event, thread in zip((self._wake, self._unsynced), self._threads, strict=True):
            event.set()
            thread.join(_PATIENCE_S)
            if thread.is_alive():
                raise StorageError(f"{self._path}: the disk did not answer for {_PATIENCE_S:g} s")
        self._stopped.set()
        self._give_back_reserve()
        self._drain(at_close=True)
        self._finish_segment()
        if self.error is not None:
            raise self.error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.close()
        except StorageError as failure:
            if error is None:
                raise
            error.add_note(str(failure))

    def _write(self) -> None:
        """The writing thread: gather for a moment, then write all that is queued as blocks."""
        while not self._closing.is_set():
            self._wake.wait()
            self._wake.clear()
            self._closing.wait(WRITE_EVERY_S)
            self._awake = False
            self._drain()

    def _sync(self) -> None:
        """The syncing thread: make durable what is written, then rest so that groups can form."""
        while not self._closing.is_set():
            self._unsynced.wait()
            self._unsynced.clear()
            self._sync_once()
            self._closing.wait(SYNC_EVERY_S)

    def _drain(self, *, at_close: bool = False) -> None:
        """Write the queue block by block. After an error only `close` tries again."""
        while self._queue and (self.error is None or at_close):
            batch, size = [], 0
            while self._queue and size < BLOCK_BYTES:
                batch.append(self._queue.popleft())
                size += len(batch[-1].payload)
            if not self._write_block(batch):
                self._queue.extendleft(reversed(batch))
                return

    def _write_block(self, batch: list[Record]) -> bool:
        """Append one block, or leave the segment as it was and say why in `error`."""
        if self._size >= self._segment_bytes and not self._next_segment():
            return False
        block, table = segment.encode_block(batch, self._size)
        try:
            self._put(block)
        except OSError as error:
            self._fail(storage_error(error, self._path))
            with contextlib.suppress(OSError):  # a torn tail is recognised by whoever reads
                os.ftruncate(self._descriptor, self._size)
            if error.errno in FULL and self._give_back_reserve():
                return self._write_block(batch)
            return False
        self._size += len(block)
        self._tables += table
        self.written += len(batch)
        self._unsynced.set()
        return True

    def _put(self, block: bytes) -> None:
        """Write all of `block` at the segment's end."""
        rest = memoryview(block)
        position = self._size
        while rest:
            done = os.pwrite(self._descriptor, rest, position)
            rest, position = rest[done:], position + done

    def _sync_once(self) -> None:
        """Sync the segment and tell how far durability reaches."""
        with self._file_lock:
            written = self.written
            try:
                if self._descriptor != _NONE:
                    _fdatasync(self._descriptor)
                    self._require_linked()
            except OSError as error:
                self._fail(storage_error(error, self._path, "sync"))
                return
            except StorageError as error:
                self._fail(error)
                return
        with self._advanced:
            self.durable = max(self.durable, written)
            self._advanced.notify_all()
        if self._on_durable is not None:
            self._on_durable(self.durable)

    def _require_linked(self) -> None:
        """Raise `StorageError` where the segment was removed: what is written to it goes nowhere, and each call costs money."""
        if self._counts_links and os.fstat(self._descriptor).st_nlink == 0:
            raise StorageError(f"{self._path}: was removed while the run wrote to it", hint="`batchrun resume RUN` goes on")

    def _fail(self, error: StorageError) -> None:
        """Keep the first error and wake whoever waits for durability."""
        with self._advanced:
            self.error = self.error or error
            self._advanced.notify_all()

    def _next_segment(self) -> bool:
        """Finish the full segment and begin another; False (and `error`) when that fails."""
        self._finish_segment()
        try:
            self._begin_segment()
        except OSError as error:
            self._fail(storage_error(error, self._folder))
            return False
        return True

    def _begin_segment(self) -> None:
        """Create the next free segment of this writer; its number is claimed by creating it."""
        taken = [_number(path) for path in self._folder.glob(f"{self._writer}-*{segment.SUFFIX}")]
        number = max(taken, default=0)
        while True:
            number += 1
            path = self._folder / f"{self._writer}-{number:06d}{segment.SUFFIX}"
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666)
            except FileExistsError:
                continue
            break
        sync_folder(self._folder)
        self._counts_links = os.fstat(descriptor).st_nlink > 0  # some file systems of users' own do not
        with self._file_lock:
            self._path, self._descriptor, self._size, self._tables = path, descriptor, 0, bytearray()

    def _finish_segment(self) -> None:
        """Sync and close the segment and put its index beside it; an empty one is removed."""
        if self._descriptor == _NONE:
            return
        self._sync_once()
        with self._file_lock:
            os.close(self._descriptor)
            self._descriptor = _NONE
        try:
            if self._size:
                segment.write_index(self._path, bytes(self._tables), self._size)
            else:
                self._path.unlink(missing_ok=True)
        except (OSError, StorageError):
            return  # the index is a convenience: without it the segment is read in full

    def _give_back_reserve(self) -> bool:
        """Free the reserved room; True if there was some."""
        reserve, self._reserve = self._reserve, None
        if reserve is None:
            return False
        with contextlib.suppress(OSError):
            reserve.unlink(missing_ok=True)
        return True


def _reserve(path: Path, size: int) -> Path | None:
    """Claim `size` bytes of disk under `path`, or return None where the file system cannot promise room."""
    if not size or not hasattr(os, "posix_fallocate"):
        return None
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        path.unlink(missing_ok=True)
        if error.errno in FULL:
            raise
        return None
    finally:
        os.close(descriptor)
    return path


def _number(path: Path) -> int:
    """Return the number in a segment's name, 0 when it has none."""
    digits = path.stem.rpartition("-")[2]
    return int(digits) if digits.isdecimal() else 0


def _encodable(value: Any) -> Any:
    """Return plain `value` with its lone surrogates as U+FFFD, at every depth."""
    if isinstance(value, str):
        return without_surrogates(value)
    if isinstance(value, dict):
        return {_encodable(key): _encodable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(inner) for inner in value]
    return value
