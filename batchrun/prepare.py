"""A job file, an environment and flags → what a run is made of; all that can be wrong is found before money is spent.

`load_job` makes the one `Job`, `resumable` makes it again from a run's folder; `prepared` opens the dataset, the prices and
the run's folder, holds its lock and reads every row once. It calls no endpoint and writes nothing but `run.json`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from batchrun.errors import JobError, Problem, UsageError
from batchrun.job import Job, parse_job, to_builtins, with_overrides
from batchrun.storage.trouble import translated

if TYPE_CHECKING:
    from batchrun.pricing.book import PriceBook
    from batchrun.sources import Dataset
    from batchrun.sources.check import CheckReport
    from batchrun.storage.folder import RunFolder
    from batchrun.storage.manifest import Manifest

_REMOTE = "://"
REPORTS = Path("reports")


class Parts(Struct, frozen=True, kw_only=True):
    """What a run is made of once it is prepared; its lock is held."""

    job: Job
    folder: RunFolder
    dataset: Dataset
    book: PriceBook
    manifest: Manifest
    ended: bool  # an earlier session came to the run's end
    place: str | None = None  # the bucket folder that the run is mirrored to


class Options(Struct, frozen=True, kw_only=True):
    """How a run is started, apart from what the job says."""

    simulate: bool = False
    force: bool = False  # go on though dataset or request changed, where answers stay beside their rows
    retry_errors: bool = False
    job_file: str | None = None
    root: Path = REPORTS
    only: frozenset[int] | None = None  # the ordinals to call (a pilot); None: all
    resubmit: bool = False  # with `mode = "batches"`: make calls anew whose batch cannot be found
    cancel: bool = False  # … stop the batches at work and land what they have, submit nothing


def load_job(source: str, *, overrides: Sequence[tuple[str, object]] = (), environ: Mapping[str, str] | None = None) -> Job:
    """Return the job of `source`: a job file (`.toml`), or a dataset that becomes a job of its own.

    Order: default < job file < environment (`ANTHROPIC_BASE_URL`) < `overrides`. The dataset's path is
    made absolute here, from the job file's folder. Raises `JobError` with every problem, `UsageError` when
    the file cannot be read.
    """
    layered: list[tuple[str, object]] = []
    if base_url := (environ or {}).get("ANTHROPIC_BASE_URL"):
        layered.append(("endpoint.base_url", base_url))
    layered.extend(overrides)
    if not source.endswith(".toml"):
        name, hint = _name_of(source), f"batchrun run {source} --model MODEL"
        dataset = _absolute(source, Path())
        return parse_job("", file=source, overrides=layered, default_name=name, default_dataset=dataset, model_hint=hint)
    path, hint = Path(source), '[request] model = ["…"], or --model MODEL'
    job = parse_job(_read(path), file=source, overrides=layered, default_name=path.stem, model_hint=hint)
    return msgspec.structs.replace(job, dataset=_absolute(job.dataset, path.parent))


def _read(path: Path) -> str:
    """Return the job file's text."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such job file", hint="batchrun init writes one to start from") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None


def _absolute(location: str, base: Path) -> str:
    """Return a local path as an absolute one, seen from `base`; an address as it is. Raises `StorageError`."""
    if _REMOTE in location:
        return location
    with translated(location, "find"):  # a relative path seen from a folder that was removed
        return os.path.normpath((base / Path(location).expanduser()).absolute())


def _name_of(location: str) -> str:
    """Return a job name made of a dataset's file name."""
    stem = location.rstrip("/").rpartition("/")[2].partition(".")[0]
    kept = "".join(c if c.isalnum() or c in "-_" else "-" for c in stem).strip("-")
    return kept or "dataset"


def resumable(
    run: str | os.PathLike[str],
    *,
    overrides: Sequence[tuple[str, object]] = (),
    force: bool = False,
    retry_errors: bool = False,
) -> tuple[Job, Options]:
    """Return the job and the options that go on with the run in a folder, on this machine's disk or in a bucket.

    What `run.json` does not keep because it may be a secret is taken from the job file again. Raises `UsageError`
    where the folder is no run's, or the job file is gone or has no such value.
    """
    from batchrun.storage.folder import RunFolder  # noqa: PLC0415 - loaded when a run begins
    from batchrun.storage.places import is_remote  # noqa: PLC0415

    place = os.fspath(run)
    path, remote = local_folder(place), is_remote(place)
    if remote:
        from batchrun.storage.mirror import pull  # noqa: PLC0415 - only for a run in a bucket

        pull(place, path)
        if not RunFolder(path).manifest.exists():
            raise UsageError(f"{place}: there is no run", hint="check the address, and the credentials in the environment")
    folder = RunFolder.open(path)
    manifest = folder.read_manifest()
    given = {key for key, _ in overrides}
    missing = [key for key in manifest.left_out if key not in given]
    taken: list[tuple[str, object]] = []
    if missing:
        original = to_builtins(load_job(manifest.job_file)) if manifest.job_file and Path(manifest.job_file).exists() else {}
        taken = [(key, value) for key in missing if (value := _at(original, key)) is not None]
        if lost := [key for key in missing if key not in dict(taken)]:
            hint = " ".join(f"--set {key}=…" for key in lost)
            why = "and the job file has no such value" if original else "and the job file is gone"
            raise UsageError(f"{run}: run.json does not keep {', '.join(lost)} {why}: it may be a secret", hint=hint)
    job = with_overrides(manifest.resolved_job(), [*taken, ("out", place if remote else str(folder.path)), *overrides])
    options = Options(simulate=manifest.simulated, force=force, retry_errors=retry_errors, job_file=manifest.job_file)
    return job, options


def _at(table: dict[str, Any], path: str) -> object:
    """Return the value at a dotted path, or None; a header's name may hold dots itself, so the last part is the rest."""
    *parents, last = path.split(".", 2)
    here: Any = table
    for key in parents:
        here = here.get(key, {})
    return here.get(last)


@contextmanager
def prepared(job: Job, options: Options) -> Iterator[Parts]:
    """Open all that a run needs, and hold its lock: everything that can be wrong is found here, before money is spent."""
    from batchrun.storage.folder import RunFolder, new_run_id  # noqa: PLC0415
    from batchrun.storage.manifest import Identity  # noqa: PLC0415

    dataset = open_job_dataset(job)
    book = book_of(job)
    now = datetime.now(UTC)
    path, place = _where(job, options, lambda: new_run_id(now, os.urandom(3)))
    if place is not None:
        from batchrun.storage.folder import LOCK_NAME  # noqa: PLC0415 - only for a run in a bucket
        from batchrun.storage.mirror import Mirror, pull  # noqa: PLC0415
        from batchrun.storage.places import join, require_growing, upload  # noqa: PLC0415

        require_growing(place)
        pull(place, path)
    checked = None if path.exists() else _require_sendable(job, dataset)  # nothing is made for a run that cannot begin
    folder = RunFolder.create_at(path)
    with ExitStack() as stack:
        stack.enter_context(folder.lock())
        if place is not None:
            upload(folder.lock_file, join(place, LOCK_NAME))  # what cannot be written is told now, and others see who is here
            stack.enter_context(Mirror(folder.path, place))
        before, stamp = folder.read_manifest() if folder.manifest.exists() else None, dataset.stamp()
        if before is not None and dataset.skips_bad_rows:
            _require_sendable(job, dataset)  # which rows are bad is not kept
        if before is not None:
            dataset.trust(before.notes.get("dataset_files"), before.identity.dataset)
        identity = Identity.of(job, dataset.digest(), simulated=options.simulate)
        told: dict[str, Any] = {}
        if before is not None:
            manifest = before
            folder.require_same(identity, force=options.force)
            if identity.dataset != before.identity.dataset:
                told["asked"] = _kept_rows(job, dataset, before)
        else:
            folder.require_new()
            manifest = _new_manifest(job, options, folder, identity, now)
            told["asked"] = _asked(checked or _require_sendable(job, dataset))
        rows = dataset.count()
        if stamp is not None and identity.dataset == manifest.identity.dataset:
            told["dataset_files"] = stamp
        manifest = msgspec.structs.replace(
            manifest,
            dataset_rows=manifest.dataset_rows if rows is None else rows,
            state="running",
            notes={**manifest.notes, **told},
        )
        folder.write_manifest(manifest)
        ended = before is not None and before.state == "finished"
        yield Parts(job=job, folder=folder, dataset=dataset, book=book, manifest=manifest, ended=ended, place=place)


def _where(job: Job, options: Options, new_name: Callable[[], str]) -> tuple[Path, str | None]:
    """Return the local folder of the run, and the bucket folder that it is mirrored to, where `out` is an address."""
    from batchrun.storage.places import is_remote  # noqa: PLC0415 - loaded when a run begins

    if job.out is None:
        return options.root / job.name / new_name(), None
    return local_folder(job.out), job.out if is_remote(job.out) else None


def local_folder(out: str) -> Path:
    """Return the folder on this machine's disk of the run at `out`, a folder or an address in a bucket."""
    from batchrun.storage.places import is_remote, local_path  # noqa: PLC0415 - loaded when a run begins

    if not is_remote(out):
        return local_path(out)
    from batchrun.storage.mirror import spool_folder  # noqa: PLC0415 - only for a run in a bucket

    return spool_folder(out, os.environ)


def book_of(job: Job) -> PriceBook:
    """Return the prices of the job: its own table over its price file over the library's."""
    from batchrun.pricing.book import open_book  # noqa: PLC0415 - loaded when a run begins
    from batchrun.storage.price_list import PriceList  # noqa: PLC0415

    return open_book(job.prices, file_text=_price_text(job.prices.file) if job.prices.file else None, look_up=PriceList())


def _price_text(file: str) -> str:
    """Return the text of a price file. Raises `JobError`."""
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"{file} cannot be read: {error.strerror if isinstance(error, OSError) else error}"
        hint = "a relative path begins at the folder in which batchrun is started"
        raise JobError([Problem(message=message, field="prices.file", hint=hint)]) from None


def require_prices(job: Job, book: PriceBook) -> None:
    """Raise `JobError` where a budget is to be kept and a model has no price: nobody could know when it is spent."""
    if job.limits.max_cost_usd is None or job.limits.allow_unpriced:
        return
    unpriced = [model for model in job.request.model if book.tariff(model, time.time_ns() // 1000) is None]
    if unpriced:
        message = (
            f"no price is known for {', '.join(unpriced)}, so limits.max_cost_usd = {job.limits.max_cost_usd} cannot be kept"
        )
        hint = (
            "give its price under [[prices.models]], or the name it is priced as (--set prices.aliases.NAME=…), "
            "or go on without: --allow-unpriced"
        )
        raise JobError([Problem(message=message, field="request.model", hint=hint)])


def open_job_dataset(job: Job) -> Dataset:
    """Return the rows that the job runs, opened as it says."""
    from batchrun.sources import open_dataset  # noqa: PLC0415 - loaded when a run begins

    return open_dataset(job.dataset, format=job.format, columns=job.columns, select=job.select, on_bad_row=job.on_bad_row)


def _require_sendable(job: Job, dataset: Dataset, *, first: int = 0) -> CheckReport:
    """Read the whole dataset once and raise `DatasetError` with all its problems, before anything is sent.

    Where bad rows are skipped, what is wrong with a row is kept for its line in the results; a problem of the request or of the
    whole dataset is raised all the same, and so is a dataset without one good row.
    """
    from batchrun.sources.check import check_dataset  # noqa: PLC0415 - loaded when a run begins

    own_scorer = job.scoring.scorer is not None
    report = check_dataset(dataset, job.request, endpoint=job.endpoint, own_scorer=own_scorer, hashing=True, first=first)
    if not (dataset.skips_bad_rows and report.some_ok):
        report.raise_for_errors()
    return report


def _asked(report: CheckReport) -> dict[str, Any]:
    """Return which rows a run asks, in so few bytes that its manifest can keep it."""
    return {"rows": report.rows, "hash": report.asked}


def _kept_rows(job: Job, dataset: Dataset, before: Manifest) -> dict[str, Any]:
    """Return which rows a changed dataset asks. Raises `UsageError` unless it begins with all the rows of before.

    Answers are kept by the place of their row: beside another row they would be scored as if they were its own.
    """
    from batchrun.storage.manifest import KEPT_ROWS  # noqa: PLC0415 - loaded when a run begins

    kept = before.notes.get("asked")
    if kept is None:
        raise UsageError(
            "this run cannot be resumed: the dataset changed, and the run began before its manifest kept which rows it asks",
            hint="begin a new run (--out with another folder), or put the dataset back",
        )
    report = _require_sendable(job, dataset, first=kept["rows"])
    if report.asked_first != kept["hash"]:
        raise UsageError(
            "this run cannot be resumed: rows were replaced, moved or taken away since it began, and its answers would stand "
            "beside other rows",
            hint=f"begin a new run (--out with another folder), or put the rows back: --force goes on where {KEPT_ROWS}",
        )
    return _asked(report)


def _new_manifest(job: Job, options: Options, folder: RunFolder, identity: Any, now: datetime) -> Manifest:
    from batchrun.storage.estimates import kept_estimate  # noqa: PLC0415 - loaded when a run begins
    from batchrun.storage.manifest import Manifest, public_job  # noqa: PLC0415

    kept, left_out = public_job(job)
    estimate = kept_estimate(options.root, identity)
    return Manifest(
        run_id=folder.run_id,
        job_name=job.name,
        job=kept,
        identity=identity,
        state="running",
        started_at=now.isoformat(timespec="seconds"),
        job_file=options.job_file,
        left_out=left_out,
        dataset=kept["dataset"],
        simulated=options.simulate,
        notes={"estimate": estimate} if estimate is not None else {},
    )


@contextmanager
def endpoint(job: Job, dataset: Dataset, options: Options) -> Iterator[Job]:
    """Yield the job with the address that is called: its own, or that of a simulated endpoint that lives as long."""
    if not options.simulate:
        yield job
        return
    from batchrun.simulator import answers_of, process  # noqa: PLC0415 - only where it is asked for

    with process.start(job.simulate, answers_of(dataset.samples())) as simulated:
        called = msgspec.structs.replace(
            job.endpoint, base_url=simulated.base_url, auth="none", proxy=None, transport="own", http2=False
        )
        yield msgspec.structs.replace(job, endpoint=called)
