"""A dataset's location in, its files out: one file, a folder's data files, or a glob's, in name order.

Local files are opened as they are; buckets, hubs and web addresses through `storage.places`. What was
fetched from the web is kept in a temporary file for the life of the process, so that every pass reads
the same bytes. It refuses to know what is in a file: `containers` looks at that.
"""

from __future__ import annotations

import glob
import hashlib
import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Self, cast

from batchrun.errors import StorageError, UsageError

if TYPE_CHECKING:
    from types import ModuleType

DATA_SUFFIXES: Final = (".jsonl", ".ndjson", ".json", ".parquet", ".pq", ".csv", ".tsv")
PACKED: Final = (".gz", ".zst")

LOCAL_PIECE: Final = 1 << 18
REMOTE_PIECE: Final = 1 << 22

_WEB: Final = ("https://", "http://")


class Part:
    """One file of a dataset: `name` is what messages call it, `size` its bytes (None: not told)."""

    def __init__(self, name: str, size: int | None = None, *, address: str | None = None) -> None:
        """Name the file; nothing is opened yet. `address` is where it is, if its name does not say all of that."""
        self.name = name
        self.size = size
        self._address = name if address is None else address
        self._fetched: BinaryIO | None = None

    @property
    def remote(self) -> bool:
        """Whether it is on another machine."""
        return _is_remote(self.name)

    @property
    def piece(self) -> int:
        """How many bytes to ask for at once: on another machine each time costs a round trip."""
        return REMOTE_PIECE if self.remote and self._fetched is None else LOCAL_PIECE

    def open(self) -> BinaryIO:
        """Open the file for reading bytes from its start; raises `StorageError` where that fails."""
        if self._fetched is not None:
            return Path(self._fetched.name).open("rb", buffering=0)
        if self.remote:
            stream: BinaryIO = _remote().open_input(self._address)
            if self.name.startswith(_WEB):
                self._fetched = stream
                weakref.finalize(self, stream.close)  # and with that removed, in whatever circle of references this ends
                return self.open()
            return stream
        try:
            return Path(self.name).open("rb", buffering=0)
        except OSError as error:
            raise StorageError(f"{self.name}: cannot be read: {error.strerror or error}") from None


class HashedPart(Part):
    """A file that is hashed while it is read: `sha256` is its content's hash, once a reader has come to the end of it."""

    def __init__(self, part: Part) -> None:
        """Stand for `part`."""
        super().__init__(part.name, part.size)
        self._part = part
        self.sha256: str | None = None

    def open(self) -> BinaryIO:
        """Open the file as the part itself does, for reading from its start to its end and no other way."""
        return cast("BinaryIO", _HashedStream(self._part.open(), self))


class _HashedStream:
    """As much of a binary stream as reading one after the other needs."""

    def __init__(self, stream: BinaryIO, part: HashedPart) -> None:
        self._stream, self._part = stream, part
        self._hasher = hashlib.sha256()

    def read(self, size: int) -> bytes:
        """Return the next bytes; none at the end, when the hash is known."""
        piece = self._stream.read(size)
        if piece:
            self._hasher.update(piece)
        else:
            self._part.sha256 = self._hasher.hexdigest()
        return piece

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_told: object) -> None:
        self._stream.close()


def resolve(location: str) -> tuple[Part, ...]:
    """Return the files of `location`, sorted by name.

    A folder stands for the data files in it, at any depth, leaving out names that begin with a dot or an
    underscore. Raises `UsageError` where there is none, `StorageError` where a place cannot be listed.
    """
    if _is_remote(location):
        return _remote_parts(location)
    local = location.removeprefix("file://")
    path = Path(local)
    if path.is_file():
        found = [local]
    elif path.is_dir():
        found = sorted(_data_files(local))
    elif glob.has_magic(local):
        found = sorted(name for name in glob.glob(local, recursive=True) if Path(name).is_file())  # noqa: PTH207 -- a pattern may be absolute
    else:
        raise UsageError(f"{location}: there is no such file", hint="the dataset's path is relative to the job file")
    if not found:
        raise _nothing(location)
    return tuple(Part(name, Path(name).stat().st_size) for name in found)


def beside(name: str) -> Part | None:
    """Return the one file called `name`, None where there is none."""
    if _is_remote(name):
        return Part(name) if not name.startswith(_WEB) and _remote().exists(name) else None
    path = Path(name)
    return Part(name, path.stat().st_size) if path.is_file() else None


def suffix(name: str) -> str:
    """Return the lower-case suffix that tells a file's kind, a packing suffix left out."""
    lowered = name.lower().partition("?")[0]
    for packing in PACKED:
        lowered = lowered.removesuffix(packing)
    return os.path.splitext(lowered)[1]  # noqa: PTH122 -- the name may be a URL, which no Path survives


def _data_files(folder: str) -> list[str]:
    """Return the data files under a local folder."""
    found = []
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        found += [os.path.join(here, name) for name in files if not name.startswith((".", "_")) and suffix(name) in DATA_SUFFIXES]  # noqa: PTH118 -- names, not paths
    return found


def _is_remote(name: str) -> bool:
    """Tell whether a place is an address and not a path."""
    return "://" in name and not name.startswith("file://")


def _remote() -> ModuleType:
    """Return the room's door to other machines; it costs Arrow's import, which local JSONL need not pay."""
    from batchrun.storage import places  # noqa: PLC0415 -- see above

    return places


def _remote_parts(location: str) -> tuple[Part, ...]:
    """Return the files at an address: itself, a folder's data files, or a pattern's matches."""
    from batchrun.storage.manifest import public_location, without_credentials  # noqa: PLC0415 -- as in `_remote`

    if location.startswith(_WEB):
        if without_credentials(location) != location:
            hint = "use a signed address, or fetch the file and name it"
            raise UsageError(f"{public_location(without_credentials(location))}: takes no name and password", hint=hint)
        return (Part(public_location(location), address=location),)
    places = _remote()
    found: list[str] = places.glob(location)
    if not found and not glob.has_magic(location):
        hint = "check the address, and the credentials in the environment: what they may not see is not there"
        raise UsageError(f"{location}: there is no such file or folder", hint=hint)
    if found != [location] and not glob.has_magic(location):
        found = [name for name in found if suffix(name) in DATA_SUFFIXES]
    if not found:
        raise _nothing(location)
    return tuple(Part(name, places.size(name)) for name in found)


def _nothing(location: str) -> UsageError:
    """Return the error of a location without a data file."""
    return UsageError(f"{location}: holds no data file", hint=f"names end in {', '.join(DATA_SUFFIXES)}, also with .gz or .zst")
