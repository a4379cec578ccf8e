"""A run whose folder is a bucket: it lives on the local disk and is copied up as it grows.

Buckets have no append and no sync, so an answer lands locally first, exactly as in any other run, and the
changed files go up every `EVERY_S` seconds and at the end. A segment only grows, so a copy of it taken at any
moment is a valid journal, and a longer one is a newer one. What this means: a killed process loses nothing as
long as the machine's disk lives; a lost machine loses at most what landed since the last copy. Resuming
elsewhere begins with `pull`. A worker on another machine than the run's driver does the same with a folder of
its own (`workers_folder`). What dead ones had no time to copy goes up when their machine next has part in the run.
Another machine's live run is known by the heartbeat in the copied lock file; two runs that begin on one
bucket folder within the same `EVERY_S` seconds on different machines are not told apart.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from batchrun.errors import RunLocked, StorageError
from batchrun.storage import in_flight, places, segment
from batchrun.storage.folder import BATCHES_NAME, LOCK_NAME, MANIFEST_NAME
from batchrun.storage.lock import Lock, Owner, is_alive, owner_of
from batchrun.storage.trouble import translated

EVERY_S: Final = 20.0
ALIVE_NAME: Final = ".alive"
"""The lock in a worker's folder, held while it lives."""

GROWING: Final = frozenset({segment.SUFFIX, segment.INDEX_SUFFIX})
TO_RESUME: Final = (MANIFEST_NAME, BATCHES_NAME)
"""What a run needs beside its journal to be gone on with: what it is, and which batches it has submitted."""


def spool_folder(place: str, environ: Mapping[str, str]) -> Path:
    """Return the local folder of the run at `place`: always the same one, under `BATCHRUN_SPOOL` or the user's cache."""
    cache = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = Path(environ["BATCHRUN_SPOOL"]) if environ.get("BATCHRUN_SPOOL") else cache / "batchrun" / "runs"
    return root / hashlib.sha256(place.rstrip("/").encode()).hexdigest()[:16] / place.rstrip("/").rpartition("/")[2]


def workers_folder(spool: Path) -> Path:
    """Return where workers keep their folders on this machine if it is not the driver's, whose run is spooled at `spool`."""
    return spool.parent / ".workers"


class Mirror:
    """Keeps the bucket folder `place` a copy of the local run folder `folder`, from a thread of its own.

    An upload that fails is tried again the next time; the last, in `close`, raises. A segment that is there and no
    shorter was copied before, by somebody else if it was pulled from there: it stays, so only its writer ever replaces it.
    """

    def __init__(self, folder: Path, place: str, *, every_s: float = EVERY_S) -> None:
        """Begin to copy. The journal folder may not exist yet."""
        self.error: StorageError | None = None
        self._folder, self._place, self._every_s = folder, place.rstrip("/"), every_s
        self._copied: dict[str, tuple[int, int]] = {}
        self._pushing = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)
        self._thread.start()

    def push(self) -> int:
        """Copy what changed since the last time, the manifest last; return how many files. Raises `StorageError`."""
        copied = 0
        with self._pushing:
            for name, path in self._changed():
                with translated(path, "read"):
                    stat = path.stat()
                there = places.join(self._place, name)
                if path.suffix not in GROWING or _size(there) < stat.st_size:
                    places.upload(path, there)
                    copied += 1
                self._copied[name] = (stat.st_size, stat.st_mtime_ns)
        return copied

    def close(self) -> None:
        """Copy the rest and let go of the bucket. Raises `StorageError`."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._thread.join()
        self.push()
        if (self._folder / LOCK_NAME).exists():
            places.remove(places.join(self._place, LOCK_NAME))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.close()
        except StorageError as failure:
            if error is None:
                raise
            error.add_note(str(failure))

    def _run(self) -> None:
        """The copying thread."""
        while not self._closing.wait(self._every_s):
            try:
                self.push()
            except StorageError as error:
                self.error = error
            else:
                self.error = None

    def _changed(self) -> list[tuple[str, Path]]:
        """Return (name in the folder, path) of every file to copy, in the order to copy them."""
        found = []
        with translated(self._folder, "read"):
            for path in self._folder.rglob("*"):
                name = path.relative_to(self._folder).as_posix()
                if not path.is_file() or path.name.startswith("."):
                    continue
                stat = path.stat()
                if self._copied.get(name) != (stat.st_size, stat.st_mtime_ns):
                    found.append((name, path))
        return sorted(found, key=lambda pair: (pair[0] == MANIFEST_NAME, pair[0]))


def pull(place: str, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
    """Bring the manifest, the journal and the submitted batches of the run at `place` to the local `folder`, to resume it here.

    What is there already and at least as long is newer, and stays; what was left on this machine goes up first.
    Raises `RunLocked` when another machine, or a process of this one that spools elsewhere, is at work on it, `StorageError`
    when the place cannot be read.
    """
    owner = _remote_owner(places.join(place, LOCK_NAME))
    if owner is not None and is_alive(owner, clock(), locks_work=_spools_at(folder, owner)):
        raise RunLocked(f"{place}: is in use by {owner}", hint="wait for it to end, or give --out another folder")
    send_left(place, folder)
    pull_journal(place, folder)
    for name in TO_RESUME:
        if places.exists(places.join(place, name)):
            _fetch(places.join(place, name), folder / name)


def pull_journal(place: str, folder: Path) -> None:
    """Bring every segment of the run at `place` to the local `folder`, as far as it has come. Raises `StorageError`."""
    prefix = len(place.rstrip("/")) + 1
    for found in places.glob(places.join(place, "journal")):
        _fetch(found, folder / found[prefix:])


def send_left(place: str, spool: Path) -> int:
    """Copy up what a driver and workers that died left on this machine; return of how many. Raises `StorageError`.

    Those that are alive are left alone. The folders of workers are gone then.
    """
    locks = [(spool, spool / LOCK_NAME), *((left, left / ALIVE_NAME) for left in workers_folder(spool).glob("*/"))]
    sent = 0
    for left, lock in locks:
        if not (left / "journal").is_dir():
            continue
        with suppress(RunLocked), Lock(lock):
            Mirror(left / "journal", places.join(place, "journal")).close()
            for name, amounts in in_flight.files(left / "journal").items():
                places.upload(amounts, places.join(place, "journal", name))
            if left != spool:
                shutil.rmtree(left)
            sent += 1
    return sent


def _fetch(place: str, target: Path) -> None:
    """Bring one file here, unless what is here is as long."""
    if not target.exists() or target.stat().st_size < places.size(place):
        places.download(place, target)


def _size(place: str) -> int:
    """Return the bytes of the file at `place`, -1 where there is none."""
    return places.size(place) if places.exists(place) else -1


def _spools_at(folder: Path, owner: Owner) -> bool:
    """Return whether a run's owner signed the lock of the local `folder`, too: `flock` tells there whether it lives."""
    signed = owner_of(folder / LOCK_NAME)
    return signed is not None and (signed.host, signed.pid, signed.started) == (owner.host, owner.pid, owner.started)


def _remote_owner(place: str) -> Owner | None:
    """Return who signed the copied lock file; None when nobody did."""
    if not places.exists(place):
        return None
    with places.open_input(place) as file:
        content = file.read()
    try:
        return msgspec.json.decode(content, type=Owner)
    except msgspec.DecodeError:
        return None
