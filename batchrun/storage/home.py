"""Where a worker lands what it collects, given where the driver of its run has the run's folder.

The driver leaves a mark in the folder while the workers are at work. Who reads it at the same path sees that very
folder, on the same machine or through a shared file system, and writes its segments there. Who does not gets a folder
of its own on its own disk, which is copied to the bucket that the run lives in; where the run lives in none there is
no way for its answers to reach the run, and it is refused.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from batchrun.errors import UsageError
from batchrun.storage.atomic import write_text
from batchrun.storage.folder import RunFolder
from batchrun.storage.lock import Lock
from batchrun.storage.trouble import translated

if TYPE_CHECKING:
    from batchrun.storage.mirror import Mirror

MARK_NAME: Final = ".driver"


class Home(Struct, frozen=True, kw_only=True):
    """The run's folder as its driver sees it: its path, the mark in it, the bucket that it is copied to."""

    folder: str
    mark: str
    place: str | None = None

    @property
    def is_seen(self) -> bool:
        """Whether this process sees the same folder."""
        try:
            return (Path(self.folder) / MARK_NAME).read_bytes() == self.mark.encode()
        except OSError:
            return False

    def require(self) -> None:
        """Raise `UsageError` where what lands in this process cannot reach the run."""
        if self.place is None and not self.is_seen:
            raise UsageError(
                f"{socket.gethostname()} does not see the run's folder {self.folder}",
                hint="give `out` a folder that all machines share, under one path, or a bucket: --out s3://BUCKET/FOLDER; "
                "or stay on this machine: --set engine.kind=local",
            )


@contextmanager
def home_of(folder: Path, place: str | None) -> Iterator[Home]:
    """Make the local folder of a run, copied to the bucket folder `place` if that is told, known to its workers."""
    home = Home(folder=str(folder.absolute()), mark=secrets.token_hex(4), place=place)
    write_text(folder / MARK_NAME, home.mark)
    try:
        yield home
    finally:
        with translated(folder):
            (folder / MARK_NAME).unlink(missing_ok=True)


class Desk:
    """A worker's place: the folder that its journal is in, and the name of its segments there. Close it."""

    def __init__(self, home: Home, worker: str) -> None:
        """Take the run's own folder, or make one. Raises `UsageError` where neither serves, `StorageError`."""
        home.require()
        self._held = ExitStack()
        self._mirror: Mirror | None = None
        self.folder, self.writer = RunFolder(Path(home.folder)), worker
        if home.place is not None:
            self.writer = f"{worker}-{home.mark}"  # an earlier session's worker of that name may have segments elsewhere
            if not home.is_seen:
                self._sit_apart(home.place)

    def _sit_apart(self, place: str) -> None:
        """Make a folder on this machine's disk, copied to `place`."""
        from batchrun.storage.mirror import ALIVE_NAME, Mirror, spool_folder, workers_folder  # noqa: PLC0415 - brings Arrow

        path = workers_folder(spool_folder(place, os.environ)) / self.writer
        self._held.enter_context(Lock(path / ALIVE_NAME))
        self.folder, self._mirror = RunFolder(path), Mirror(path, place)

    def send(self) -> None:
        """Have what is in the journal's files reach the run. Raises `StorageError`."""
        if self._mirror is not None:
            self._mirror.push()

    def close(self) -> None:
        """Send the rest, once the journal is closed, and leave nothing here that has arrived. Raises `StorageError`."""
        with self._held:
            if self._mirror is not None:
                self._mirror.close()
                shutil.rmtree(self.folder.path, ignore_errors=True)
                self._mirror = None
