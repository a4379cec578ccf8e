"""One run of a job from its lock to its exit code: what `batchrun run`, `resume` and the scheduler's children all go through.

In this order: whether the job can be run, its lock (at most one run of a job at a time), the run, its gates, its exit code,
its row in the history, old runs removed, somebody told. What stopped a run outranks what is wrong with its figures: 3, 4, 6,
130 and 143 come first (4 also where rows are missing and nothing says why), then 5 (too many errors), then 8 (a gate). Once
the run has ended nothing here changes its outcome: what fails after that is a warning.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from batchrun.errors import BatchrunError, RunLocked, StorageError, TooManyErrors
from batchrun.fitting import require_fit
from batchrun.prepare import Options, resumable
from batchrun.report.words import percent
from batchrun.run import RunResult, rescore, run_fitted
from batchrun.schedule import notify
from batchrun.schedule.checks import checks
from batchrun.schedule.gates import Verdict, require
from batchrun.schedule.history import Home, failed_rows, rows_of, runs
from batchrun.schedule.retention import prune
from batchrun.schedule.verdicts import described, plain, verdicts
from batchrun.storage.folder import new_run_id

if TYPE_CHECKING:
    from batchrun.collect import Show
    from batchrun.engine.stopping import StopSignal
    from batchrun.job import Job


class Ended(Struct, frozen=True, kw_only=True):
    """A run that has ended: its result (the gates are in its summary), and what the shell is to be told."""

    result: RunResult
    error: BatchrunError | None  # None: exit 0

    @property
    def exit_code(self) -> int:
        """The contract's exit code."""
        return 0 if self.error is None else self.error.exit_code


class Judging:
    """Judges the gates when the results are written, and remembers. A gate that cannot be judged has not held."""

    def __init__(self, job: Job, home: Home) -> None:
        """Judge by the gates of `job`, against the runs at `home`."""
        self.job = job
        self.home = home
        self.found: list[Verdict] = []
        self.error: BatchrunError | None = None

    def __call__(self, summary: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
        """Return the verdicts as plain values."""
        try:
            self.found = verdicts(self.job.gate, self.home, {**summary, "folder": str(folder)})
        except BatchrunError as error:
            self.error = error
        return plain(self.found)


class Supervisor:
    """Runs one job once, and sees to everything that goes with it. `warnings` are for stderr, whether it raises or not."""

    def __init__(self, job: Job, options: Options, environ: Mapping[str, str] = os.environ) -> None:
        """Run `job` as `options` say; the environment has the credential and where notices go."""
        self.job = job
        self.options = options
        self.environ = environ
        self.warnings: list[str] = []

    def run(self, *, show: Show | None = None, stop: StopSignal | None = None) -> Ended:
        """Run it under the job's lock.

        Raises a `BatchrunError` for what keeps the run from starting, `RunLocked` while another run of the job goes on;
        a run that started always comes back as `Ended`, with its error in it.
        """
        home = Home.of(self.job, self.options.root)
        self._fit(home)
        with home.lock() if home.owned else nullcontext():
            before = self._previous(home)
            try:
                judge = Judging(self.job, home)
                result = run_fitted(self.job, self.options, environ=self.environ, show=show, stop=stop, judge=judge)
            except Exception as error:
                self._failed(home, error, before)
                raise
            return self._concluded(home, result, before, judge)

    def broken(self, error: BatchrunError) -> None:
        """Keep and tell that a run came to no end of its own: for whoever started its process."""
        home = Home.of(self.job, self.options.root)
        self._failed(home, error, self._previous(home))

    def _fit(self, home: Home) -> None:
        """Raise what keeps the run from starting, before a folder is made for it; of a job that has one it is kept and told."""
        try:
            require_fit(self.job, self.options, self.environ, checks(self.job, self.options.root))
        except Exception as error:
            with home.lock() if home.owned and home.path.exists() else nullcontext():
                self._failed(home, error, self._previous(home))
            raise

    def _concluded(self, home: Home, result: RunResult, before: int | None, judge: Judging) -> Ended:
        """Keep and tell how a run has ended."""
        stopped = result.stopped or (_missing(result.summary) if self.options.only is None else None)
        error = stopped or judge.error or _outcome(self.job, result.summary, judge.found)
        code = 0 if error is None else error.exit_code
        now = datetime.now(UTC)
        if home.owned:
            self._attempt(lambda: home.record(rows_of(result.summary, exit_code=code, finished=now, environ=self.environ)))
            self._attempt(lambda: prune(self.job, home, now, current=str(result.summary["run_id"])))
        self._tell(result.summary, code, before, error)
        return Ended(result=result, error=error)

    def _failed(self, home: Home, raised: Exception, before: int | None) -> None:
        """Keep and tell that a run did not begin, or broke: a scheduled job must not fail in silence."""
        if isinstance(raised, RunLocked):
            return
        error = raised if isinstance(raised, BatchrunError) else BatchrunError(f"unexpected {type(raised).__name__}")
        now = datetime.now(UTC)
        if home.owned and home.table.exists():
            rows = failed_rows(
                self.job,
                new_run_id(now, os.urandom(3)),
                described(error),
                exit_code=error.exit_code,
                moment=now,
                simulated=self.options.simulate,
            )
            self._attempt(lambda: home.record(rows))
        about = {"job": self.job.name, "simulated": self.options.simulate, "started_at": now.isoformat(timespec="seconds")}
        self._tell(about, error.exit_code, before, error)

    def _previous(self, home: Home) -> int | None:
        """Return how the run before this one ended, of the same kind (simulated or real)."""
        found = [rows[0] for rows in runs(home.rows()).values() if rows[0]["simulated"] == self.options.simulate]
        return notify.last_exit([row["exit_code"] for row in found])

    def _tell(self, summary: Mapping[str, Any], code: int, before: int | None, error: BatchrunError | None) -> None:
        """Notify whom the job names."""
        event = notify.event_of(code, before)
        if notify.wanted(self.job.notify, event):
            reason = None if error is None else described(error)
            told = notify.message(summary, event, exit_code=code, reason=reason)
            self.warnings += notify.tell(self.job.notify, told, environ=self.environ)

    def _attempt(self, step: Callable[[], object]) -> None:
        """Do one thing whose failure must not change how the run ended."""
        try:
            step()
        except BatchrunError as error:
            self.warnings.append(described(error))


def score_again(
    folder: str | os.PathLike[str], overrides: Sequence[tuple[str, object]] = ()
) -> tuple[dict[str, Any], BatchrunError | None]:
    """Score a run again, on disk or in a bucket, and judge its gates anew; return its summary and the gate that has not held.

    The history keeps what the run was when it ended. Raises `UsageError` where the folder is no run's.
    """
    job, options = resumable(folder, overrides=overrides)
    judge = Judging(job, Home.of(job, options.root))
    summary = rescore(job, options, judge)
    return summary, judge.error or _failed_gate(judge.found)


def _missing(summary: Mapping[str, Any]) -> StorageError | None:
    """Return what is wrong with a run that nothing stopped and that has not landed all its rows: what it wrote is gone.

    Rows that `stop_when` made superfluous are not missing.
    """
    rows = summary["rows"]
    missing = rows["total"] - rows["landed"]
    if missing <= 0 or summary.get("stop_when", {}).get("known", False):
        return None
    words = f"the run came to its end and {missing:,} of {rows['total']:,} rows are not in its journal: was it removed?"
    return StorageError(words, hint="`batchrun resume RUN` calls them again, and pays for them again")


def _outcome(job: Job, summary: Mapping[str, Any], found: list[Verdict]) -> BatchrunError | None:
    """Return what is wrong with a run all of whose rows have landed: too many errors before a failed gate."""
    rows = summary["rows"]
    landed, errored = rows["landed"], rows["landed"] - rows["succeeded"]
    most = job.limits.max_error_rate
    if landed and errored / landed > most:
        share = f"{errored:,} of {landed:,} rows errored ({percent(errored / landed)})"
        hint = "`batchrun resume RUN --retry-errors` calls them again"
        return TooManyErrors(f"done, but {share}, more than max_error_rate = {most:g} allows", hint=hint)
    return _failed_gate(found)


def _failed_gate(found: list[Verdict]) -> BatchrunError | None:
    """Return what the gates that have not held say."""
    try:
        require(found)
    except BatchrunError as failed:
        return failed
    return None
