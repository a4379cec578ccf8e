"""A journal folder in, answers to "has this row landed?" and "what came back for it?" out.

Opening reads tables, never JSON: the `.idx` of each finished segment, and the one segment that a killed
writer left behind in full. What stays in memory is a byte a row and the range of ordinals of each segment;
attempts are found window by window and read from disk as they are asked for, neighbours together, so memory does not
grow with the journal. Segments of several writers are one journal: a row has landed if it has in any of them.
"""

from __future__ import annotations

import os
import zlib
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from decimal import Decimal
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from batchrun.errors import StorageError
from batchrun.records import Attempt, Usage
from batchrun.storage import segment
from batchrun.storage.segment import Table
from batchrun.storage.trouble import translated

AGAIN: Final = frozenset({"canceled", "expired"})
"""A row that ended so has no answer and no verdict: a resumed run asks again."""

WINDOW: Final = 1 << 15
_OPEN_FILES: Final = 32
GAP_BYTES: Final = 16 << 10
"""So much between two records is read and thrown away rather than read around."""
READ_BYTES: Final = 4 << 20
"""What is read at once, where one record is not longer by itself."""


class _Segment(Struct, frozen=True, kw_only=True):
    """One segment: its path, the lowest and highest ordinal in it, and its table where no `.idx` holds it."""

    path: Path
    low: int
    high: int
    table: Table | None


class Spend(Struct, frozen=True, kw_only=True, gc=False):
    """What one attempt used, for pricing again without decoding the rest of it."""

    ordinal: int
    final: bool
    model: str
    usage: Usage | None
    started_at_us: int | None
    cached_from: str | None


class _Used(Struct, kw_only=True):
    """The part of a reply or a failure that was billed."""

    usage: Usage | None = None


class _SpendRecord(Struct, kw_only=True):
    """The part of an attempt's record that a price depends on."""

    ordinal: int
    final: bool
    model: str
    reply: _Used | None = None
    failure: _Used | None = None
    started_at_us: int | None = None
    cached_from: str | None = None


class JournalIndex:
    """What a journal holds, by ordinal. Not for use by several threads at once.

    `again` names the statuses of a final attempt that do not count as landed. `seal=False` leaves the folder
    untouched (for a reader beside a live writer). Raises `StorageError` when the journal cannot be read.
    """

    def __init__(self, folder: Path | None, *, again: Collection[str] = AGAIN, seal: bool = True) -> None:
        """Read the tables of every segment in `folder`; one that is not there, or None, is an empty journal."""
        self.folder = Path(os.devnull) if folder is None else folder
        self.records = 0
        self._bits = bytearray()
        self._spent_nano = self._unpriced = 0
        self._segments: list[_Segment] = []
        self._files: OrderedDict[Path, int] = OrderedDict()
        self._window = _WindowOfAttempts.empty()
        self._attempt = msgspec.json.Decoder(Attempt).decode
        landing_flags = {place << 1 | segment.FINAL for place, status in enumerate(segment.STATUSES) if status not in again}
        for path in sorted(folder.glob(f"*{segment.SUFFIX}")) if folder is not None else ():
            self._take(path, landing_flags, seal=seal)

    @property
    def count(self) -> int:
        """Return how many rows have landed."""
        return self._bits.count(1)

    @property
    def last(self) -> int:
        """Return the highest ordinal with a record, -1 where there is none."""
        return max((part.high for part in self._segments), default=-1)

    @property
    def spent(self) -> tuple[Decimal, int]:
        """Return (dollars told at `Journal.append`, attempts of which no cost was told)."""
        return Decimal(self._spent_nano).scaleb(-9), self._unpriced

    def landed(self, ordinal: int) -> bool:
        """Return whether the row `ordinal` needs no further call."""
        return ordinal < len(self._bits) and self._bits[ordinal] == 1

    def landed_mask(self, size: int) -> NDArray[np.bool_]:
        """Return `landed` of the ordinals below `size`, at once."""
        mask = np.zeros(size, np.bool_)
        known = np.frombuffer(self._bits, np.bool_)[:size]
        mask[: len(known)] = known
        return mask

    def told(self) -> bytes:
        """Return which rows have landed, for the index of a process that does not have the journal: see `hear`."""
        return zlib.compress(np.packbits(np.frombuffer(self._bits, np.bool_)).tobytes(), level=1)

    def hear(self, told: bytes) -> None:
        """Take for landed, too, the rows that have landed according to `told`."""
        landed = np.unpackbits(np.frombuffer(zlib.decompress(told), np.uint8))
        self._bits.extend(bytes(max(0, len(landed) - len(self._bits))))
        np.frombuffer(self._bits, np.uint8)[: len(landed)] |= landed

    def attempts(self, ordinal: int) -> list[Attempt]:
        """Return the journalled attempts of one row, oldest first within a writer. Cheap in ordinal order."""
        return self.attempts_of([ordinal])[0]

    def attempts_of(self, ordinals: Sequence[int]) -> list[list[Attempt]]:
        """Return the attempts of each of `ordinals`, which ascend; neighbours are read together."""
        found: list[list[Attempt]] = []
        start = 0
        while start < len(ordinals):
            window = self._window_at(ordinals[start])
            stop = bisect_left(ordinals, window.first + WINDOW, lo=start)
            found += self._attempts_in(window, [ordinal - window.first for ordinal in ordinals[start:stop]])
            start = stop
        return found

    def bytes_of(self, first: int, stop: int) -> int:
        """Return how many bytes the records of the ordinals from `first` to before `stop` have."""
        size = 0
        while first < stop:
            window = self._window_at(first)
            end = min(stop, window.first + WINDOW)
            starts, before = window.starts, window.bytes_before
            size += before[starts[end - window.first]] - before[starts[first - window.first]]
            first = end
        return size

    def __iter__(self) -> Iterator[Attempt]:
        """Yield every attempt of the journal, segment by segment."""
        for payload in self._payloads():
            yield self._attempt(payload)

    def spends(self) -> Iterator[Spend]:
        """Yield what every attempt used, for adding up money exactly; decodes only that much of each."""
        decode = msgspec.json.Decoder(_SpendRecord).decode
        for payload in self._payloads():
            record = decode(payload)
            used = record.reply or record.failure or _Used()
            yield Spend(
                ordinal=record.ordinal,
                final=record.final,
                model=record.model,
                usage=used.usage,
                started_at_us=record.started_at_us,
                cached_from=record.cached_from,
            )

    def close(self) -> None:
        """Close the open segments."""
        while self._files:
            os.close(self._files.popitem()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _take(self, path: Path, landing_flags: set[int], *, seal: bool) -> None:
        """Add one segment: its landed rows, its costs, its range."""
        table = segment.read_index(path)
        kept = None
        if table is None:
            table, size = segment.scan(path)
            if not (seal and _sealed(path, table, size)):
                kept = table
        if not len(table):
            return
        ordinals = table["ordinal"]
        low, high = int(ordinals.min()), int(ordinals.max())
        if high >= len(self._bits):
            self._bits.extend(bytes(max(high + 1 - len(self._bits), len(self._bits) // 4)))
        np.frombuffer(self._bits, np.uint8)[ordinals[np.isin(table["flags"], list(landing_flags))]] = 1
        told = table["cost"] >= 0
        self._spent_nano += int(table["cost"][told].sum())
        self._unpriced += int((~told).sum())
        self.records += len(table)
        self._segments.append(_Segment(path=path, low=low, high=high, table=kept))

    def _window_at(self, ordinal: int) -> _WindowOfAttempts:
        """Return the window that `ordinal` lies in."""
        if not self._window.first <= ordinal < self._window.first + WINDOW:
            self._window = self._load_window(ordinal // WINDOW * WINDOW)
        return self._window

    def _load_window(self, first: int) -> _WindowOfAttempts:
        """Find the records of the `WINDOW` ordinals from `first` on."""
        paths: list[Path] = []
        tables, which = [], []
        for part in self._segments:
            if part.low >= first + WINDOW or part.high < first:
                continue
            table = _table(part)
            ordinals = table["ordinal"]
            found = table[(ordinals >= first) & (ordinals < first + WINDOW)]
            tables.append(found)
            which.append(np.full(len(found), len(paths), np.int32))
            paths.append(part.path)
        if not tables:
            return _WindowOfAttempts.empty(first)
        entries, owners = np.concatenate(tables), np.concatenate(which)
        order = np.argsort(entries["ordinal"], kind="stable")
        entries = entries[order]
        starts = np.searchsorted(entries["ordinal"], np.arange(first, first + WINDOW + 1))
        before = np.concatenate((np.zeros(1, np.int64), np.cumsum(entries["length"], dtype=np.int64)))
        return _WindowOfAttempts(
            first=first, starts=starts.tolist(), bytes_before=before.tolist(), entries=entries, which=owners[order], paths=paths
        )

    def _attempts_in(self, window: _WindowOfAttempts, places: Sequence[int]) -> list[list[Attempt]]:
        """Return the attempts of some places in a window."""
        starts = window.starts
        counts = [starts[place + 1] - starts[place] for place in places]
        records = iter(self._records(window, [row for place in places for row in range(starts[place], starts[place + 1])]))
        return [list(islice(records, count)) for count in counts]

    def _records(self, window: _WindowOfAttempts, rows: Sequence[int]) -> list[Attempt]:
        """Decode some records of a window, reading those that lie together at once."""
        entries, which = window.entries[rows], window.which[rows]
        owners, offsets, lengths, crcs = (part.tolist() for part in (which, entries["offset"], entries["length"], entries["crc"]))
        order = np.lexsort((entries["offset"], which)).tolist()
        decode, crc32 = self._attempt, zlib.crc32
        records: list[Any] = [None] * len(offsets)
        for run in _runs(order, owners, offsets, lengths):
            path, start, last = window.paths[owners[run[0]]], offsets[run[0]], run[-1]
            block = self._block(path, start, offsets[last] + lengths[last] - start)
            for row in run:
                at = offsets[row] - start
                payload = block[at : at + lengths[row]]
                if crc32(payload) != crcs[row]:
                    raise _damaged(path, offsets[row])
                records[row] = decode(payload)
        return records

    def _block(self, path: Path, offset: int, length: int) -> memoryview:
        """Return so many bytes of a segment, fewer at its end."""
        with translated(path, "read"):
            return memoryview(os.pread(self._descriptor(path), length, offset))

    def _read(self, path: Path, entry: tuple[int, int, int]) -> memoryview:
        """Return one record's JSON, checked."""
        offset, length, crc = entry
        payload = self._block(path, offset, length)
        if zlib.crc32(payload) != crc:
            raise _damaged(path, offset)
        return payload

    def _payloads(self) -> Iterator[memoryview]:
        """Yield every record's JSON, segment by segment."""
        for part in self._segments:
            table = _table(part)
            for entry in _locations(table):
                yield self._read(part.path, entry)

    def _descriptor(self, path: Path) -> int:
        """Return an open descriptor of a segment; the least recently used is closed when there are many."""
        descriptor = self._files.get(path)
        if descriptor is None:
            if len(self._files) >= _OPEN_FILES:
                os.close(self._files.popitem(last=False)[1])
            descriptor = self._files[path] = os.open(path, os.O_RDONLY)
        else:
            self._files.move_to_end(path)
        return descriptor


class _WindowOfAttempts(Struct, frozen=True, kw_only=True):
    """The records of `WINDOW` ordinals from `first`: those of the n-th are `starts[n]` to `starts[n + 1]`."""

    first: int
    starts: Sequence[int]
    bytes_before: Sequence[int]  # of the records before each one, and of all
    entries: Table
    which: NDArray[np.int32]  # place in `paths` of the segment that holds it
    paths: list[Path]

    @classmethod
    def empty(cls, first: int = -WINDOW) -> Self:
        """Return a window with nothing in it."""
        entries, which = np.empty(0, segment.ENTRY), np.empty(0, np.int32)
        return cls(first=first, starts=bytes(WINDOW + 1), bytes_before=[0], entries=entries, which=which, paths=[])


def _runs(order: Sequence[int], owners: Sequence[int], offsets: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Cut records, ordered by their places on disk, so that those of one run are worth reading with one call."""
    run: list[int] = []
    start = end = 0
    for row in order:
        offset, length = offsets[row], lengths[row]
        if run and (owners[row] != owners[run[0]] or offset - end > GAP_BYTES or offset + length - start > READ_BYTES):
            yield run
            run = []
        if not run:
            start = offset
        run.append(row)
        end = offset + length
    if run:
        yield run


def landing(attempts: Sequence[Attempt]) -> Attempt | None:
    """Return the attempt that is the row's outcome: an answer before an error, an error before a row to ask again.

    None when no attempt is final. The others that were billed are waste.
    """
    if len(attempts) == 1:
        return attempts[0] if attempts[0].final else None
    finals = [attempt for attempt in attempts if attempt.final]
    return min(finals, key=lambda attempt: segment.STATUSES.index(attempt.status), default=None)


def _table(part: _Segment) -> Table:
    """Return a segment's table again."""
    if part.table is not None:
        return part.table
    table = segment.read_index(part.path)
    return segment.scan(part.path)[0] if table is None else table


def _locations(table: Table) -> list[tuple[int, int, int]]:
    """Return (offset, length, CRC) of each record in the table."""
    return list(zip(table["offset"].tolist(), table["length"].tolist(), table["crc"].tolist(), strict=True))


def _sealed(path: Path, table: Table, size: int) -> bool:
    """Write the `.idx` that a killed writer left out; False where the folder cannot be written."""
    try:
        segment.write_index(path, table.tobytes(), size)
    except (OSError, StorageError):
        return False
    return True


def _damaged(path: Path, offset: int) -> StorageError:
    """Return the error for a record that changed after it was written."""
    name = path.with_suffix(segment.INDEX_SUFFIX).name
    hint = f"remove {name} beside it, then `batchrun resume` asks again for what is lost"
    return StorageError(f"{path}: the record at byte {offset} is damaged", hint=hint)
