"""The composition root: a job → a finished run folder.

`fitting` refuses a job that cannot be run, before anything is made; `prepare` opens what a run is made of; `collect` is the
half that spends money and survives `kill -9`; `finish` is the half that is free and can be repeated. `run` is all of it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from batchrun import __version__
from batchrun.errors import BatchrunError
from batchrun.fitting import require_fit
from batchrun.job import Job
from batchrun.prepare import Options, Parts, endpoint, local_folder, prepared

if TYPE_CHECKING:
    from batchrun.collect import Show
    from batchrun.engine.stopping import StopSignal
    from batchrun.engine.telemetry import EngineSummary
    from batchrun.finish import Judge, Others
    from batchrun.sources import Dataset


class RunResult(Struct, frozen=True, kw_only=True):
    """What became of a run. `stopped` is why it ended early, None when every row has landed."""

    folder: Path
    summary: dict[str, Any]
    stopped: BatchrunError | None = None


def run(
    job: Job,
    options: Options | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    show: Show | None = None,
    stop: StopSignal | None = None,
    judge: Judge | None = None,
) -> RunResult:
    """Collect and finish one run of `job`; go on with it where `job.out` is the folder of a stopped one.

    Raises a `BatchrunError` for what keeps a run from starting or from writing; a run that starts and is stopped
    (budget, signal, a refusing endpoint) is finished as far as it came and says why in `stopped`. `judge` gives the
    verdicts of the gates for the summary of a run that came to its end.
    """
    options = options or Options()
    require_fit(job, options, environ)
    return run_fitted(job, options, environ=environ, show=show, stop=stop, judge=judge)


def run_fitted(
    job: Job,
    options: Options,
    *,
    environ: Mapping[str, str] = os.environ,
    show: Show | None = None,
    stop: StopSignal | None = None,
    judge: Judge | None = None,
) -> RunResult:
    """Run as `run` does a job that has been through `require_fit`."""
    from batchrun.collect import Plan  # noqa: PLC0415 - the engine is loaded when a run begins, not with this module
    from batchrun.observe.observing import observing  # noqa: PLC0415

    with (
        ExitStack() as hearing,
        prepared(job, options) as parts,
        _cluster(job),
        observing(job, parts.folder.run_id, environ) as observer,
    ):
        began = time.monotonic()
        with endpoint(job, parts.dataset, options) as called:
            plan = Plan(
                job=called,
                dataset=parts.dataset,
                folder=parts.folder,
                book=parts.book,
                environ=environ,
                retry_errors=options.retry_errors,
                only=options.only,
                resubmit=options.resubmit or options.simulate,  # a simulated endpoint forgets, and nothing was paid
                cancel=options.cancel,
                observer=observer,
            )
            observer.started(called, str(parts.folder.path))
            asked = stop or hearing.enter_context(_signals(parts.place or str(parts.folder.path)))
            engine = _collected(plan, asked, show, hear=stop is None)
        summary = _finished(parts, engine, time.monotonic() - began, judge)
        stopped = engine.stopped
        if stopped is None and stop is None and asked.requests:
            stopped = asked.too_late()
        observer.finished(summary, stopped)
        return RunResult(folder=parts.folder.path, summary=summary, stopped=stopped)


@contextmanager
def _signals(place: str) -> Iterator[StopSignal]:
    """Hear SIGINT and SIGTERM while the event loop does not: as it begins and ends, and while the files are written.

    The first is remembered, and what is being written comes to its end; any further one breaks it off, as `Interrupted`.
    """
    from batchrun.engine.stopping import StopSignal  # noqa: PLC0415 - the engine is loaded when a run begins

    heard = StopSignal()

    def hear(number: int, _: object) -> None:
        heard.request(number)
        if heard.requests > 1:
            raise KeyboardInterrupt  # not one of ours: those are caught on the way, as what is wrong with a gate or a bucket

    with ExitStack() as stack:
        for number in (signal.SIGINT, signal.SIGTERM):
            stack.callback(signal.signal, number, signal.signal(number, hear) or signal.SIG_DFL)
        try:
            yield heard
        except KeyboardInterrupt:
            raise heard.unwritten(place) from None


def _cluster(job: Job) -> AbstractContextManager[None]:
    """Hold the connection to the job's cluster, where it names one, for as long as both halves of a run need it."""
    if job.engine.kind != "ray":
        return nullcontext()
    from batchrun.distribute import connected  # noqa: PLC0415 - loaded when a run begins

    return connected(job)


def cancel_batches(job: Job, *, environ: Mapping[str, str] = os.environ) -> int:
    """Ask for the batches of the run at `job.out` to be stopped, though another process on this machine works on it.

    Returns how many they are. That process sees that they were cancelled, lands what they have and submits nothing more.
    Raises `EndpointRefused`.
    """
    from batchrun.collect import cancel_at_work  # noqa: PLC0415 - loaded when it is needed
    from batchrun.transport.loop import run as run_loop  # noqa: PLC0415

    return run_loop(cancel_at_work(job, local_folder(str(job.out)), environ))


def rescore(job: Job, options: Options, judge: Judge | None = None) -> dict[str, Any]:
    """Finish a run again, in place and without a call: other scoring, other prices. `resumable` gives `job` and `options`.

    `judge` gives the verdicts of the gates, where the run came to its end. Raises `UsageError` where the dataset has changed.
    """
    with prepared(job, options) as parts:
        return _finished(parts, None, 0.0, judge if parts.ended else None)


def _collected(plan: Any, stop: StopSignal, show: Show | None, *, hear: bool) -> EngineSummary:
    """Run the collecting half to its end on an event loop of its own, which may `hear` signals for `stop`."""
    from batchrun.collect import collect, signals  # noqa: PLC0415 - loaded when a run begins
    from batchrun.transport.loop import run as run_loop  # noqa: PLC0415

    if _is_shared(plan):
        from batchrun.distribute import distribute as collect_all  # noqa: PLC0415
    else:
        collect_all = collect

    async def main() -> EngineSummary:
        with signals(stop) if hear else nullcontext():
            return await collect_all(plan, stop=stop, show=show)

    return run_loop(main())


def _is_shared(plan: Any) -> bool:
    """Whether several processes share the calls: not those of a pilot, nor batches, which are few requests."""
    job = plan.job
    return (job.engine.kind == "ray" or job.engine.workers > 1) and plan.only is None and job.request.mode == "messages"


def _finished(parts: Parts, engine: EngineSummary | None, session_s: float, judge: Judge | None = None) -> dict[str, Any]:
    """Write the files of the run, as far as it came, and what it knows of itself into `run.json`."""
    from batchrun.finish import About, finish  # noqa: PLC0415 - loaded when a run ends
    from batchrun.storage.manifest import Counts, public_job, public_location  # noqa: PLC0415

    job, folder, manifest = parts.job, parts.folder, parts.manifest
    sessions = list(manifest.notes.get("sessions", []))
    if engine is not None and (engine.progress.sent or not parts.ended):  # a look at a finished run took none of its time
        sessions.append(_session(engine, session_s))
    wall_s = sum(session["wall_s"] for session in sessions)
    stopped = str(engine.stopped) if engine is not None and engine.stopped is not None else None
    dataset_rows = parts.dataset.count()
    dataset_rows = manifest.dataset_rows if dataset_rows is None else dataset_rows
    total = (dataset_rows or 0) * len(job.request.model) * job.request.repeat
    about = {
        "job": job.name,
        "run_id": folder.run_id,
        "folder": parts.place or str(folder.path),
        "batchrun_version": __version__,
        "started_at": manifest.started_at,
        "simulated": manifest.simulated,
        "stopped": stopped,
        "dataset": public_location(job.dataset),
        "dataset_digest": manifest.identity.dataset,
        "base_url": job.endpoint.base_url,
        "profile": job.scoring.scorer or job.scoring.profile,
        "wall_s": wall_s,
        "calls_per_s": sum(session["sent"] for session in sessions) / wall_s if wall_s else None,
        "sessions": sessions,
        "estimate": manifest.notes.get("estimate"),
    }
    summary = finish(
        job,
        folder,
        parts.dataset.samples,
        parts.book,
        About(facts=about, expected_rows=total, judge=judge if stopped is None else None),
        _others(job, parts.dataset),
    )
    rows, known = summary["rows"], summary.get("stop_when", {}).get("known", False)
    counts = {name: rows[name] for name in ("total", "landed", "succeeded", "errored", "canceled", "expired")}
    finished = msgspec.structs.replace(
        manifest,
        state="finished" if rows["landed"] >= total or known else "stopped",
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        job=public_job(job)[0],
        dataset_rows=dataset_rows,
        counts=msgspec.convert(counts, Counts),
        stopped_because="the answer is known" if known and stopped is None else stopped,
        price_book=parts.book.snapshot()["library"],
        notes={**manifest.notes, "sessions": sessions, "prices": parts.book.snapshot()},
    )
    folder.write_manifest(finished)
    return summary


def _others(job: Job, dataset: Dataset) -> Others | None:
    """Return who shares the finishing, None where this process does it alone."""
    if job.engine.kind == "local" and job.engine.workers == 1:
        return None
    from batchrun.distribute import finishers  # noqa: PLC0415 - loaded where it is asked for

    return finishers(job, dataset.bad_rows.blocks)


def _session(engine: EngineSummary, wall_s: float) -> dict[str, Any]:
    """Return what one session of the engine did, as plain values for the manifest and the report."""
    plain: dict[str, Any] = msgspec.to_builtins(
        {
            "wall_s": wall_s,
            "sent": engine.progress.sent,
            "retries": engine.progress.retries,
            "refused": engine.progress.refused,
            "stopped": None if engine.stopped is None else str(engine.stopped),
            "concurrency": engine.concurrency,
            "timeline_width_s": engine.timeline_width_s,
            "timeline": engine.timeline,
            "distributions": engine.distributions,
            "rate_used": engine.rate_used,
            **({"batches": engine.batches} if engine.batches else {}),
        },
        str_keys=True,
    )
    return plain
