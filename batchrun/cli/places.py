"""A RUN as it is typed, a path or an address in a bucket: the folder to read, and what it is called."""

from __future__ import annotations

from pathlib import Path

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
