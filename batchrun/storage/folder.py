"""The folder of a run: where each of its files is, made, found, locked.

Layout is contract 5's. A run's name sorts by the time it began. This module knows names and who may write;
what is inside the files is `manifest`'s, `journal`'s and `results`' business.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

from msgspec import Struct

from batchrun.errors import StorageError, UsageError
from batchrun.records import Secret
from batchrun.storage.atomic import PARTIAL
from batchrun.storage.index import AGAIN
from batchrun.storage.journal import RESERVE_SUFFIX, Journal, JournalIndex
from batchrun.storage.lock import Lock
from batchrun.storage.manifest import Identity, Manifest, read_manifest, require_same, write_manifest
from batchrun.storage.segment import SUFFIX
from batchrun.storage.trouble import translated

LOCK_NAME = "lock"
MANIFEST_NAME = "run.json"
BATCHES_NAME = "batches.jsonl"
OWN = frozenset({MANIFEST_NAME, LOCK_NAME, "journal", BATCHES_NAME, "results.parquet", "cost.parquet", "summary.json"})
"""What a run's folder keeps and nothing but the run may write."""
_LEFT: Final = re.compile(rf"\..+(\.\d+{re.escape(PARTIAL)}|-\d+{re.escape(RESERVE_SUFFIX)})")
"""What processes that were killed leave: `.results.parquet.4711.partial`, `.w1-000001.reserve`."""


def new_run_id(now: datetime, entropy: bytes) -> str:
    """Return a run's name: the instant in UTC, then six hex digits of `entropy` against two runs in one second."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{entropy.hex()[:6]:0>6}"


def require_outside(out: Path) -> None:
    """Raise `UsageError` where `out` is one of a run's own files: what it holds was paid for. Raises `StorageError`."""
    with translated(out, "find"):
        real = Path(os.path.realpath(out))
        for part in (real, *real.parents):
            if part.name in OWN and (part.parent / MANIFEST_NAME).is_file():
                raise UsageError(f"{out}: is a file of the run in {part.parent}", hint="name another file")


class RunFolder(Struct, frozen=True):
    """The paths of one run."""

    path: Path

    @classmethod
    def create(cls, root: Path, job_name: str, run_id: str) -> Self:
        """Make `root/job_name/run_id`. Raises `UsageError` for a name that is no folder name, `StorageError`."""
        if not job_name or job_name in {".", ".."} or any(c in job_name for c in "/\\\0"):
            raise UsageError(f"job name {job_name!r} cannot name a folder", hint="use letters, digits, `-` and `_`")
        return cls.create_at(root / job_name / run_id)

    @classmethod
    def create_at(cls, path: Path) -> Self:
        """Make the folder `path` (`--out`), or use it if it is there: empty, or a run of ours. Raises `StorageError`."""
        with translated(path, "create"):
            path.mkdir(parents=True, exist_ok=True)
            foreign = next((entry for entry in path.iterdir() if not entry.name.startswith(".")), None)
        folder = cls(path)
        if foreign is not None and not (folder.manifest.exists() or folder.lock_file.exists() or folder.journal.exists()):
            raise UsageError(f"{path}: has other files in it ({foreign.name})", hint="give --out an empty folder, or a run's")
        return folder

    @classmethod
    def open(cls, path: Path) -> Self:
        """Return the folder of an existing run. Raises `UsageError` when `path` is none."""
        folder = cls(path.parent if path.name == MANIFEST_NAME else path)
        folder.read_manifest()
        return folder

    @property
    def run_id(self) -> str:
        """Return the run's name: the folder's."""
        return self.path.resolve().name

    @property
    def manifest(self) -> Path:
        """`run.json`."""
        return self.path / MANIFEST_NAME

    @property
    def journal(self) -> Path:
        """The folder of journal segments."""
        return self.path / "journal"

    @property
    def batches(self) -> Path:
        """The ledger of the batches submitted; not there where there were none."""
        return self.path / BATCHES_NAME

    @property
    def lock_file(self) -> Path:
        """The file that the run's owner holds."""
        return self.path / LOCK_NAME

    @property
    def results(self) -> Path:
        """`results.parquet`."""
        return self.path / "results.parquet"

    @property
    def cost(self) -> Path:
        """`cost.parquet`."""
        return self.path / "cost.parquet"

    @property
    def summary(self) -> Path:
        """`summary.json`."""
        return self.path / "summary.json"

    @property
    def report(self) -> Path:
        """`report.html`."""
        return self.path / "report.html"

    @property
    def junit(self) -> Path:
        """`junit.xml`."""
        return self.path / "junit.xml"

    def lock(self) -> Lock:
        """Become the run's one writer. Raises `RunLocked` (exit 7), naming the owner, and `StorageError`.

        What earlier ones left half written when they were killed is removed: it can be of nobody's now.
        """
        lock = Lock(self.lock_file)
        try:
            self._clear_up()
        except BaseException:
            lock.release()
            raise
        return lock

    def _clear_up(self) -> None:
        """Remove what killed writers left."""
        for folder in filter(Path.is_dir, (self.path, self.journal)):
            with translated(folder, "clear up"):
                for left in [path for path in folder.iterdir() if _LEFT.fullmatch(path.name)]:
                    left.unlink(missing_ok=True)

    def read_manifest(self) -> Manifest:
        """Return what `run.json` says. Raises `UsageError` when it is missing, `StorageError` when it is broken."""
        return read_manifest(self.manifest)

    def write_manifest(self, manifest: Manifest) -> None:
        """Replace `run.json`, whole or not at all. Raises `StorageError`."""
        write_manifest(self.manifest, manifest)

    def require_same(self, now: Identity, *, force: bool = False) -> None:
        """Raise `UsageError` if the journal here holds answers to something else than `now`, or with `force` to another place."""
        require_same(self.read_manifest().identity, now, force=force)

    def require_new(self) -> None:
        """Raise `UsageError` if answers lie here and nothing says to what: `run.json` is gone, so they are nobody's."""
        with translated(self.journal, "read"):
            written = any(path.stat().st_size for path in self.journal.glob(f"*{SUFFIX}"))
        if written:
            raise UsageError(
                f"{self.path}: has a journal and no {MANIFEST_NAME}, so nothing says which run its answers are of",
                hint="give --out another folder, or put its run.json back",
            )

    def open_journal(self, writer: str = "local", *, secrets: Sequence[Secret] = ()) -> Journal:
        """Begin a segment of this run's journal, which `secrets` never reach. Raises `StorageError`."""
        return Journal(self.journal, writer=writer, secrets=secrets)

    def open_index(self, *, again: Collection[str] = AGAIN, seal: bool = True) -> JournalIndex:
        """Open what has landed so far; rows that ended in a status of `again` have not. Raises `StorageError`."""
        return JournalIndex(self.journal, again=again, seal=seal)


def runs_of(root: Path, job_name: str) -> Iterator[RunFolder]:
    """Yield the runs of a job under `root`, oldest first. Raises `StorageError`."""
    parent = root / job_name
    try:
        names = sorted(entry.name for entry in parent.iterdir() if (entry / MANIFEST_NAME).is_file())
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"{parent}: cannot list: {error.strerror}") from error
    for name in names:
        yield RunFolder(parent / name)
