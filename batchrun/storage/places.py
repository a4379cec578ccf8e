"""Where files are: one way to read, list and write local paths, buckets and addresses.

`s3://`, `gs://`, `az://` and `abfs://` go through Arrow's own file systems, `hf://` through fsspec (an extra),
`https://` (read only) through the standard library, fetched into a temporary file so that it can be read from
anywhere in it. Credentials come from where each service's own tools look for them; nothing is configured here:

    s3    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE, ~/.aws, instance roles;
          AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, AWS_REGION or AWS_DEFAULT_REGION
    gs    GOOGLE_APPLICATION_CREDENTIALS, gcloud's login, the machine's account; STORAGE_EMULATOR_HOST
    az    AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN, or
          AZURE_STORAGE_CONNECTION_STRING, which may name another endpoint; else the usual chain
    hf    HF_TOKEN, or huggingface-cli's login

A write is whole or does not show: everything is spooled locally first and uploaded once it is complete.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, Final, cast
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from batchrun.errors import StorageError, UsageError
from batchrun.storage import clouds
from batchrun.storage.atomic import replacing
from batchrun.storage.clouds import translated as cloud_errors
from batchrun.storage.trouble import translated

_READ_S: Final = 60
_ATTEMPTS: Final = 5
_PAUSE_S: Final = 0.2
_CHUNK: Final = 1 << 20
_WEB: Final = frozenset({"http", "https"})
_KNOWN: Final = ("s3", "gs", "gcs", "az", "abfs", "abfss", "hf", "https", "http", "file")
_WILD: Final = frozenset("*?[")
_FIXED: Final = _WEB | {clouds.HUB}
"""Where a file once written is not written again and again: the hub would keep each time as a commit."""


def scheme_of(place: str) -> str:
    """Return the scheme of `place` in lower case, `file` for a local path. Raises `UsageError` for one nobody knows."""
    head, separator, _ = place.partition("://")
    if not separator:
        return "file"
    scheme = head.lower()
    if scheme not in _KNOWN:
        raise UsageError(
            f"{place}: cannot read or write {scheme}:// places", hint=f"known: a path, {', '.join(f'{s}://' for s in _KNOWN)}"
        )
    return scheme


def is_remote(place: str) -> bool:
    """Return whether `place` is anything but a local path."""
    return scheme_of(place) != "file"


def require_growing(place: str) -> None:
    """Raise `UsageError` where a run, whose files grow as it goes, cannot live at `place`."""
    if scheme_of(place) in _FIXED:
        hint = "--out takes a folder, s3://, gs:// or az://; `batchrun convert` and `batchrun export` write single files"
        raise UsageError(f"{place}: a run cannot be written there", hint=hint)


def local_path(place: str) -> Path:
    """Return the path of a local `place`, given as a path or as `file://`."""
    return Path(urlsplit(place).path if place.lower().startswith("file://") else place)


def join(place: str, *names: str) -> str:
    """Return `place` with `names` under it."""
    return "/".join((place.rstrip("/"), *names))


def filesystem(place: str) -> tuple[fs.FileSystem, str]:
    """Return (Arrow file system, path in it) for any place but a web address, as `pyarrow.dataset` takes them.

    Raises `MissingExtra`, `UsageError`, `StorageError`.
    """
    scheme = scheme_of(place)
    if scheme in _WEB:
        raise UsageError(f"{place}: a web address can be read, not listed or written", hint="name one file")
    if scheme == "file":
        return fs.LocalFileSystem(), str(local_path(place).absolute())
    with cloud_errors(place, "reach"):
        return clouds.filesystem(scheme, place.partition("://")[2])


def open_input(place: str) -> BinaryIO:
    """Return a seekable binary file with what is at `place`. Raises `StorageError` when it cannot be read."""
    scheme = scheme_of(place)
    if scheme in _WEB:
        return _download(place)
    if scheme == "file":
        with translated(place, "read"):
            return local_path(place).open("rb")
    with cloud_errors(place, "read"):
        system, path = filesystem(place)
        return cast("BinaryIO", system.open_input_file(path))


@contextlib.contextmanager
def open_output(place: str) -> Iterator[BinaryIO]:
    """Hand out a binary file to fill; it appears at `place`, whole, when the block ends well.

    Raises `StorageError`, and `UsageError` for a place that names no file.
    """
    if not is_remote(place):
        if not local_path(place).name:
            raise UsageError(f"{place!r} names no file", hint="give the file's name")
        with replacing(local_path(place)) as partial:
            with translated(place):
                file = partial.open("wb")
            with file:
                yield file
        return
    with _spool(place) as spooled:
        yield cast("BinaryIO", spooled)
        spooled.flush()
        upload(Path(spooled.name), place)


def upload(path: Path, place: str) -> None:
    """Copy the local file at `path` to `place`, whole or not at all. Raises `StorageError`.

    Most buckets show an object once its upload is complete. Azure's shows an empty one from the beginning, so there it is
    sent to a hidden name beside, and copied to its own by the service.
    """
    import shutil  # noqa: PLC0415 - as all that only copies, fetches and spools: a run between local files needs none of it

    if not is_remote(place):
        with translated(place), path.open("rb") as source, open_output(place) as copy:
            shutil.copyfileobj(source, copy, _CHUNK)
        return
    system, target = filesystem(place)
    with cloud_errors(place, "write"), path.open("rb") as source:
        if scheme_of(place) not in clouds.AZURE:
            _put(source, system, target, place)
            return
        folder, _, name = target.rpartition("/")
        beside = f"{folder}/.{name}.partial"
        _put(source, system, beside, place)
        try:
            system.copy_file(beside, target)
        finally:
            system.delete_file(beside)


def _put(source: BinaryIO, system: fs.FileSystem, target: str, place: str) -> None:
    """Copy a local file to `target`; should a part of it show there, its size gives it away and it is taken back."""
    size = os.fstat(source.fileno()).st_size
    try:
        with system.open_output_stream(target) as stream:
            _copy(source, stream, size)
    except BaseException:
        with contextlib.suppress(OSError, pa.ArrowException):  # what went wrong first is what is told
            _take_back(system, target, size)
        raise
    if _take_back(system, target, size):
        raise StorageError(f"{place}: was not taken whole", hint="the local copy is complete: try again")


def _take_back(system: fs.FileSystem, target: str, size: int) -> bool:
    """Remove what is at `target` where it is not `size` bytes; return whether it was not."""
    info = system.get_file_info(target)
    cut = info.type == fs.FileType.File and info.size != size
    if cut:
        system.delete_file(target)
    return bool(cut)


def _copy(source: BinaryIO, target: Any, size: int) -> None:
    """Copy `size` bytes: of a file that grows meanwhile, as much as it had at first."""
    while size > 0 and (chunk := source.read(min(_CHUNK, size))):
        target.write(chunk)
        size -= len(chunk)


def download(place: str, path: Path) -> None:
    """Copy what is at `place` to the local `path`, whole or not at all. Raises `StorageError`."""
    import shutil  # noqa: PLC0415 - as in `upload`

    with open_input(place) as source, replacing(path) as partial, cloud_errors(place, "read"), partial.open("wb") as target:
        shutil.copyfileobj(source, target, _CHUNK)


def exists(place: str) -> bool:
    """Return whether there is a file or folder at `place`. Raises `StorageError` when that cannot be told."""
    if scheme_of(place) in _WEB:
        with contextlib.suppress(StorageError), open_input(place):
            return True
        return False
    with cloud_errors(place, "reach"):
        system, path = filesystem(place)
        return bool(system.get_file_info(path.rstrip("/")).type != fs.FileType.NotFound)


def size(place: str) -> int:
    """Return the bytes of the file at `place`. Raises `StorageError` when there is none."""
    with cloud_errors(place, "read"):
        system, path = filesystem(place)
        info = system.get_file_info(path)
    if info.type != fs.FileType.File:
        raise StorageError(f"{place}: there is no such file", hint="check the path")
    return int(info.size)


def glob(place: str) -> list[str]:
    """Return the files at `place`, sorted: itself, all files in a folder, or the matches of `*`, `?`, `[…]` (`**`: any depth).

    Hidden files are left out, as is whatever begins with `_`. An empty list means there is none.
    Raises `StorageError` when the place cannot be listed.
    """
    if scheme_of(place) in _WEB:
        return [place]
    with cloud_errors(place, "list"):
        system, path = filesystem(place)
        prefix = place[: place.index("://") + 3] if "://" in place else ""
        if not _WILD & set(path):
            info = system.get_file_info(path.rstrip("/"))
            if info.type == fs.FileType.File:
                return [place]
            return [] if info.type == fs.FileType.NotFound else [prefix + found for found in _files(system, path.rstrip("/"))]
        fixed = path[: min(path.index(c) for c in _WILD if c in path)].rpartition("/")[0]
        return [prefix + found for found in _files(system, fixed or "/") if _matches(found, path)]


def remove(place: str) -> None:
    """Remove the file at `place`, if it is there. Raises `StorageError`."""
    with cloud_errors(place, "remove"):
        system, path = filesystem(place)
        if system.get_file_info(path).type == fs.FileType.File:
            system.delete_file(path)


def _files(system: fs.FileSystem, folder: str) -> list[str]:
    """Return the paths of every file under `folder`, sorted, hidden ones left out."""
    found = system.get_file_info(fs.FileSelector(folder, recursive=True, allow_not_found=True))
    names = [info.path for info in found if info.type == fs.FileType.File]
    return sorted(name for name in names if not any(part[:1] in "._" for part in name[len(folder) :].strip("/").split("/")))


def _matches(path: str, pattern: str) -> bool:
    """Return whether `path` matches `pattern` part by part; `**` stands for any number of folders."""
    return _match_parts(path.split("/"), pattern.split("/"))


def _match_parts(parts: list[str], patterns: list[str]) -> bool:
    """Match the parts of a path against those of a pattern."""
    if not patterns:
        return not parts
    if patterns[0] == "**":
        return any(_match_parts(parts[skip:], patterns[1:]) for skip in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], patterns[0]) and _match_parts(parts[1:], patterns[1:])


def _spool(place: str) -> IO[bytes]:
    """Return a named temporary file on the local disk."""
    import tempfile  # noqa: PLC0415 - as in `upload`

    with translated(place, "spool"):
        return cast("IO[bytes]", tempfile.NamedTemporaryFile(prefix="batchrun-", buffering=_CHUNK))


def _download(address: str) -> BinaryIO:
    """Fetch `address` into a temporary file that disappears when closed; try again where a connection breaks."""
    import urllib.error  # noqa: PLC0415 - as in `upload`

    shown = address.partition("?")[0].rpartition("@")[2]  # a query or a user part may be a credential
    for attempt in range(1, _ATTEMPTS + 1):
        spooled = _spool(shown)
        try:
            _fetch(address, spooled)
        except OSError as error:
            spooled.close()
            code = None
            if isinstance(error, urllib.error.HTTPError):
                code = error.code
                error.close()
            if attempt == _ATTEMPTS or (code is not None and code < 500):
                reason = f"HTTP {code}" if code else getattr(error, "reason", None) or error
                raise StorageError(f"{shown}: cannot read: {reason}", hint="check the address and the network") from None
            time.sleep(_PAUSE_S * attempt)
        except BaseException:
            spooled.close()
            raise
        else:
            spooled.seek(0)
            return cast("BinaryIO", spooled)
    raise AssertionError("the last attempt returns or raises")


def _fetch(address: str, target: IO[bytes]) -> None:
    """Copy the body at `address` to `target`; a body shorter than announced is a `ConnectionError`."""
    import shutil  # noqa: PLC0415 - as in `upload`
    import urllib.request  # noqa: PLC0415

    with urllib.request.urlopen(address, timeout=_READ_S) as answer:  # noqa: S310  # the scheme is http(s): `scheme_of` saw to it
        announced = answer.headers.get("Content-Length")
        shutil.copyfileobj(answer, target, _CHUNK)
    if announced is not None and target.tell() != int(announced):
        raise ConnectionError(f"ended after {target.tell()} of {announced} bytes")
