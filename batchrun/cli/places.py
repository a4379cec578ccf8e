"""A RUN as it is typed, a path or an address in a bucket: the folder to read, what it is called, where nothing may be written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from batchrun.errors import UsageError


def run_folder(run: str, *, journal: bool = False) -> Path:
    """Return the folder of RUN; of one in a bucket a copy, with its journal if that is asked for, until the command ends."""
    if "://" not in run:
        return Path(run)
    from batchrun.storage.fetched import fetched

    return click.get_current_context().with_resource(fetched(run, journal=journal))


def name_of(run: str, folder: Path) -> str:
    """Return what RUN is called to whoever typed it: never the place of a copy."""
    return run.rstrip("/") if "://" in run else str(folder)


def require_another(out: str, runs: Iterable[str] = ()) -> None:
    """Raise `UsageError` where `out` is a run's own file, on this machine or in a bucket folder that is one of `runs`."""
    from batchrun.storage.folder import OWN, require_outside
    from batchrun.storage.places import is_remote, local_path

    if not is_remote(out):
        require_outside(local_path(out))
        return
    for run in runs:
        inside = out.removeprefix(f"{run.rstrip('/')}/")
        if inside != out and inside.partition("/")[0] in OWN:
            raise UsageError(f"{out}: is a file of the run in {run}", hint="name another file")
