"""A RUN or a FILE as it is typed, a path or an address in a bucket: the folder to read, the file to write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click


def run_folder(run: str, *, journal: bool = False) -> Path:
    """Return the folder of RUN; of one in a bucket a copy, with its journal if that is asked for, until the command ends."""
    if "://" not in run:
        return Path(run)
    from batchrun.storage.fetched import fetched

    return click.get_current_context().with_resource(fetched(run, journal=journal))


def name_of(run: str, folder: Path) -> str:
    """Return what RUN is called to whoever typed it: never the place of a copy."""
    return run.rstrip("/") if "://" in run else str(folder)


@contextmanager
def written(file: str) -> Iterator[BinaryIO]:
    """Hand out a binary file to fill; it appears at FILE, whole, when the block ends well. Raises `StorageError`."""
    if "://" in file:
        from batchrun.storage.places import open_output

        with open_output(file) as stream:
            yield stream
        return
    from batchrun.storage.atomic import replacing

    with replacing(Path(file)) as partial, partial.open("wb") as stream:
        yield stream
