"""What the calls in flight can cost at most, on disk before each is sent: a run that is killed cannot forget them.

Beside its journal segment a writer keeps a file of one amount, in US dollars: the worst cases of the calls that were
sent and whose outcome is not in the journal yet. It is written over in place, which `kill -9` cannot undo, and removed
in an orderly end; so the files that a later session finds are of those that were killed. Only runs with a budget have
one. A power cut may take the last change back, or all of the content: nothing is synced here. Of a run in a bucket those
of the dead are copied there when their machine is next heard of, under names that are not hidden.
"""

from __future__ import annotations

import os
import re
import shlex
from collections import deque
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from batchrun.errors import StorageError
from batchrun.storage.journal import Journal
from batchrun.storage.trouble import translated

SUFFIX: Final = ".in_flight"
_WIDTH: Final = 48  # bytes: an amount is always written over by one as long
_CONTENT: Final = re.compile(rb"(\d+(?:\.\d+)?)? *")  # nothing: no call was sent yet


class InFlight:
    """The file of one writer, open for as long as it sends. Raises `StorageError` where it cannot be written."""

    def __init__(self, journal: Journal) -> None:
        """Begin with nothing in flight, beside the segment that `journal` writes."""
        self._journal = journal
        # Not the segment's own name: one in which nothing landed is removed, and its name is given again.
        self._path = journal.path.with_name(f".{journal.path.stem}-{os.urandom(4).hex()}{SUFFIX}")
        self._amount = Decimal(0)
        self._unwritten: deque[tuple[int, Decimal]] = deque()  # (how many must be written, so that this amount is known)
        with translated(self._path):
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)

    def sent(self, worst: Decimal) -> None:
        """Note a call that is about to be sent, and forget those whose outcome is in the journal by now."""
        self._amount += worst
        unwritten = self._unwritten
        while unwritten and unwritten[0][0] <= self._journal.written:
            self._amount -= unwritten.popleft()[1]
        with translated(self._path):
            os.pwrite(self._descriptor, f"{self._amount:f}".ljust(_WIDTH).encode(), 0)

    def ended(self, worst: Decimal) -> None:
        """Note a call whose outcome is what is appended to the journal next."""
        self._unwritten.append((self._journal.appended + 1, worst))

    def close(self) -> None:
        """Remove the file: every call has ended. Raises `StorageError` where an outcome cannot be written."""
        os.close(self._descriptor)
        self._journal.flush()
        with translated(self._path, "remove"):
            self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def left_in_flight(journal: Path) -> Decimal:
    """Return what calls may have cost at most that were in flight when sessions were killed, by the folder `journal`.

    Raises `StorageError`, also where an amount is lost: whether the budget goes without it is the user's to say.
    """
    return sum(map(_amount, files(journal).values()), Decimal(0))


def _amount(path: Path) -> Decimal:
    """Return the amount in one file. Raises `StorageError`."""
    with translated(path, "read"):
        content = path.read_bytes()
    written = _CONTENT.fullmatch(content)
    if written is None:
        raise StorageError(
            f"{path}: is damaged, so what the calls in flight cost at most when their session was killed is not known",
            hint=f"rm {shlex.quote(str(path))} (and its copy, where the run is in a bucket): "
            "those calls are then left out of the budget",
        )
    return Decimal((written[1] or b"0").decode())


def files(journal: Path) -> dict[str, Path]:
    """Return the files in the folder `journal`, by names that are not hidden."""
    return {path.name.removeprefix("."): path for path in journal.glob(f"*{SUFFIX}")}
