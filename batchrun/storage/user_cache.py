"""What takes long to make and can be made again, kept for the next command under the user's cache folder.

`$XDG_CACHE_HOME/batchrun`, or `~/.cache/batchrun`. Nothing depends on it: a folder that cannot be read or written, or that
others can write to, a file that is missing, damaged or of another time is as good as none, and nobody is told. Whoever
keeps something says with it what it was made of (`made_of`), and gets it back only for the same. A file is replaced whole,
so commands that run at the same time may share it; its beginning is the check of its end, so one that a power cut left
half-written is known.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

_CHECK: Final = 4  # bytes of CRC-32 before the content


def kept(name: str, made_of: bytes) -> bytes | None:
    """Return what was kept as `name` when it was made of the same, else None."""
    folder = _folder()
    if folder is None:
        return None
    try:
        content = (folder / name).read_bytes() if _is_ours(folder) else b""
    except OSError:
        return None
    head = _head(made_of)
    sound = content[:_CHECK] == _check(content[_CHECK:])
    return content[_CHECK + len(head) :] if sound and content.startswith(head, _CHECK) else None


def keep(name: str, made_of: bytes, content: bytes) -> None:
    """Keep `content` as `name`, in place of what may be there; where that cannot be, do nothing."""
    import tempfile  # noqa: PLC0415 - only the first command writes

    folder = _folder()
    if folder is None or not folder.parent.parent.is_dir():  # a home that is not there is not made
        return
    whole = _head(made_of) + content
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(folder):
            return
        descriptor, partial = tempfile.mkstemp(dir=folder, prefix=f".{name}.")
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor has no path
                file.write(_check(whole) + whole)
            Path(partial).replace(folder / name)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise


def fingerprint(paths: Iterable[Path]) -> bytes | None:
    """Return 8 bytes that stand for the contents of these files; None where one cannot be read (a zipped package, say)."""
    crc, size = 0, 0
    try:
        for path in paths:
            content = path.read_bytes()
            crc, size = zlib.crc32(content, crc), size + len(content)
    except OSError:
        return None
    return crc.to_bytes(4, "big") + (size & 0xFFFFFFFF).to_bytes(4, "big")


def _folder() -> Path | None:
    """Return the folder, None where the user has none; a relative `XDG_CACHE_HOME` counts as none, as its specification says."""
    root = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if root.is_absolute():
        return root / "batchrun"
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.home raises where there is none
    return home / ".cache" / "batchrun" if home.is_absolute() else None


def _is_ours(folder: Path) -> bool:
    """Tell whether nobody else can write there: what is kept may be code, and prices are money."""
    status = folder.stat()
    return not hasattr(os, "geteuid") or (status.st_uid == os.geteuid() and not status.st_mode & 0o022)


def _head(made_of: bytes) -> bytes:
    """Return what it was made of (at most 255 bytes), so that it ends where it ends."""
    return bytes([len(made_of)]) + made_of


def _check(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(_CHECK, "big")
