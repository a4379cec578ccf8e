"""A run in a bucket in, a copy of it on this machine's disk out, for what only reads runs.

The copy lasts as long as it is needed and is always fresh: what a run on this machine has spooled may be older than what
another machine has made of it since.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from batchrun.errors import UsageError
from batchrun.storage import places
from batchrun.storage.folder import LOCK_NAME, MANIFEST_NAME
from batchrun.storage.trouble import translated

JOURNAL = "journal/"


@contextmanager
def fetched(place: str, *, journal: bool = False) -> Iterator[Path]:
    """Hand out a folder with the files of the run at `place`, its journal too if that is asked for; gone afterwards.

    Raises `UsageError` where there is no run, `StorageError` where it cannot be read.
    """
    base = place.rstrip("/")
    names = [found[len(base) + 1 :] for found in places.glob(base)]
    if MANIFEST_NAME not in names:
        raise UsageError(f"{place}: there is no run", hint="check the address, and the credentials in the environment")
    with ExitStack() as stack:
        with translated(base, "spool"):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="batchrun-")), base.rpartition("/")[2])
        for name in names:
            if name != LOCK_NAME and (journal or not name.startswith(JOURNAL)):
                places.download(places.join(base, name), folder / name)
        yield folder
