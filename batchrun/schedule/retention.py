"""Old runs make room for new ones: `[history] keep_runs` and `keep_days`, the newest that either of them keeps.

Never removed, nor counted: a run that was stopped with answers or batches that were paid for, which `resume` goes on with.
Never removed either: the last good run and the baseline (the next run is held against them), the run a gate names, and a
run somebody works on. Their rows in `history.parquet` stay for all runs. A folder is renamed out of sight first, so that a
removal that is cut short leaves no half run; the next one clears it away.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from batchrun.errors import BatchrunError, RunLocked
from batchrun.job import Job
from batchrun.schedule.history import Home, runs
from batchrun.storage.folder import RunFolder, runs_of
from batchrun.storage.segment import SUFFIX
from batchrun.storage.trouble import translated

REMOVED: Final = ".removed-"


def prune(job: Job, home: Home, now: datetime, *, current: str) -> list[str]:
    """Remove the runs that neither rule keeps; return their names. Raises `StorageError`."""
    for left in home.path.glob(f"{REMOVED}*"):
        _discard(left)
    rules = job.history
    if rules.keep_runs is None and rules.keep_days is None:
        return []
    kept = _protected(job, home) | {current}
    folders = [
        folder for folder in runs_of(home.path.parent, home.path.name) if not (folder.path.is_symlink() or _goes_on(folder))
    ]
    if rules.keep_runs is not None:
        kept |= {folder.path.name for folder in folders[-rules.keep_runs :]}
    if rules.keep_days is not None:
        since = (now - timedelta(days=rules.keep_days)).isoformat()
        kept |= {folder.path.name for folder in folders if _begun(folder) >= since}
    return [folder.path.name for folder in folders if folder.path.name not in kept and _remove(folder, job.name)]


def _goes_on(folder: RunFolder) -> bool:
    """Tell whether a run has something that was paid for and has not come to its end."""
    try:
        manifest = folder.read_manifest()
    except BatchrunError:
        return False  # `_begun` judges it
    if manifest.state == "finished" or manifest.simulated:
        return False
    if manifest.state == "running":  # it was killed: nobody counted
        return any(folder.journal.glob(f"*{SUFFIX}")) or folder.batches.exists()
    return manifest.counts.succeeded > 0 or folder.batches.exists()


def _begun(folder: RunFolder) -> str:
    """Return when a run began, in ISO 8601 and UTC; for ever, where that cannot be read: what is not known is kept."""
    try:
        return datetime.fromisoformat(folder.read_manifest().started_at).isoformat()
    except (BatchrunError, ValueError):
        return "9999"


def _protected(job: Job, home: Home) -> set[str]:
    """Return the runs that later ones are held against: the last good one, real and simulated of each set of models."""
    good: dict[tuple[bool, frozenset[str]], str] = {}
    for run_id, rows in runs(home.rows()).items():
        if all(row["exit_code"] == 0 for row in rows):
            good[bool(rows[0]["simulated"]), frozenset(str(row["model"]) for row in rows)] = run_id
    named = job.gate.no_regression.against if job.gate.no_regression is not None else ""
    return {*good.values(), home.baseline() or "", Path(named).name}


def _remove(folder: RunFolder, job_name: str) -> bool:
    """Remove one run unless somebody works on it or it is another job's; say whether it is gone."""
    try:
        with folder.lock():
            if folder.read_manifest().job_name != job_name:
                return False
            hidden = folder.path.with_name(REMOVED + folder.path.name)
            with translated(folder.path, "remove"):
                folder.path.rename(hidden)
    except RunLocked:
        return False
    _discard(hidden)
    return True


def _discard(path: Path) -> None:
    """Remove a folder as far as that can be; the next run removes what is left."""
    import shutil  # noqa: PLC0415 - few runs remove one

    shutil.rmtree(path, ignore_errors=True)


def begun_since(home: Home, since: datetime) -> Iterator[RunFolder]:
    """Yield the runs of the job that began at `since` or later, newest first."""
    for folder in reversed(list(runs_of(home.path.parent, home.path.name))):
        if _begun(folder) >= since.isoformat(timespec="seconds"):
            yield folder
