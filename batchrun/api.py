"""The program as a library: jobs in, finished runs out, for scripts and notebooks.

Each function is what the command of its name does, without printing or exiting: it returns a value or raises a
`BatchrunError`. `run` may be called anywhere, inside a running event loop too (a notebook has one): the calls are made on a
thread with a loop of its own. A plain run writes its folder and nothing else; the job's lock, gates, history and
notifications come with `supervise=True`, as on the command line. The credential comes from the environment.

    >>> import batchrun
    >>> run = batchrun.run("weather.toml", simulate=True, out="reports/first")
    >>> run
    <Run weather first: 3 of 3 rows, accuracy 100.0% [43.9%, 100.0%], $...>
"""

from __future__ import annotations

import asyncio
import contextvars
import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from batchrun.engine.stopping import StopSignal
from batchrun.errors import BatchrunError, UsageError
from batchrun.job import Job, parse_job, with_overrides
from batchrun.prepare import Options, local_folder, resumable
from batchrun.prepare import load_job as read_job
from batchrun.report.comparison import compare_runs, read_summary
from batchrun.report.words import interval, milliseconds, money
from batchrun.run import run as run_plainly

if TYPE_CHECKING:
    import polars as pl

    from batchrun.answers import Marked
    from batchrun.collect import Show
    from batchrun.statistics.compare import Comparison

Overrides = Mapping[str, object]
"""Values laid over a job by their key path, as `--set` does: `{"limits.rpm": 600, "select.limit": 20}`."""

Result = TypeVar("Result")
_CELL: Final = 'style="text-align:right"'


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Run:
    """A run's folder and what came of it. A notebook shows it as a table.

    `summary` is `summary.json`. `error` is why the run ended before its rows did, or what is wrong with its end (under
    supervision: a failed gate, too many errors); None: nothing. `warnings` are sentences about what went wrong beside it.

        >>> run = batchrun.open_run("reports/first")
        >>> run.accuracy, run.rows["scored"], run.error
        (1.0, 3, None)
        >>> run.results(["id", "outcome"]).to_dicts()[0]
        {'id': 'oslo', 'outcome': 'correct'}
    """

    folder: Path
    summary: Mapping[str, Any]
    error: BatchrunError | None = None
    warnings: tuple[str, ...] = ()

    @property
    def run_id(self) -> str:
        """The run's name; sorts by time."""
        return str(self.summary["run_id"])

    @property
    def rows(self) -> Mapping[str, int]:
        """Counts of (row, model, repeat): `total`, `landed`, `scored`, `correct`, `errored` and others."""
        counts: Mapping[str, int] = self.summary["rows"]
        return counts

    @property
    def accuracy(self) -> float | None:
        """Share of correct rows among those scored, over all models; None where none is. By model: `summary["models"]`."""
        return self.rows["correct"] / self.rows["scored"] if self.rows["scored"] else None

    @property
    def cost_usd(self) -> Decimal | None:
        """What the run cost, in US dollars; None where no price is known."""
        total = self.summary["cost"]["total"]
        return None if total is None else Decimal(str(total))

    def results(self, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Return `results.parquet`, a line a (row, model, repeat), with these columns or all.

        Raises `OSError` where there is none, and `UsageError` for a column that it does not have.
        """
        import polars as pl  # noqa: PLC0415 - a third of a second that only readers of rows need

        if columns is None:
            return pl.read_parquet(self.folder / "results.parquet")
        known = list(pl.read_parquet_schema(self.folder / "results.parquet"))
        for name in columns:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"its columns: {', '.join(known)}"
                raise UsageError(f"results.parquet has no column {name!r}", hint=hint)
        return pl.read_parquet(self.folder / "results.parquet", columns=list(columns))

    def raise_for_error(self) -> Run:
        """Return the run itself, or raise its `error`."""
        if self.error is not None:
            raise self.error
        return self

    def __repr__(self) -> str:
        """Show the figures that matter on one line."""
        models = self.summary["models"]
        parts = [f"{self.rows['landed']:,} of {self.rows['total']:,} rows"]
        parts += [f"accuracy {interval(models[0]['accuracy'])}"] if len(models) == 1 else [f"{len(models)} models"]
        parts += [money(self.cost_usd)] if self.cost_usd is not None else []
        parts += [f"error: {self.error}"] if self.error is not None else []
        return f"<Run {self.summary['job']} {self.run_id}: {', '.join(parts)}>"

    def _repr_html_(self) -> str:
        """Show a table, a model a column; every text in it is escaped."""
        head = f"<b>{escape(str(self.summary['job']))}</b> {escape(self.run_id)}" + (
            " (simulated)" if self.summary.get("simulated") else ""
        )
        names = "".join(f"<th {_CELL}>{escape(str(model['model']))}</th>" for model in self.summary["models"])
        lines = "".join(
            f"<tr><th scope='row'>{name}</th>{''.join(f'<td {_CELL}>{escape(cell)}</td>' for cell in cells)}</tr>"
            for name, cells in _figures(self.summary["models"])
        )
        wrong = "" if self.error is None else f"<p><b>{escape(type(self.error).__name__)}</b>: {escape(str(self.error))}</p>"
        table = f"<table><thead><tr><th></th>{names}</tr></thead><tbody>{lines}</tbody></table>"
        return f"<div>{head}{table}{wrong}<code>{escape(str(self.folder))}</code></div>"


def load_job(source: str | os.PathLike[str], overrides: Overrides | None = None) -> Job:
    """Return the job of a job file, or of a dataset with `overrides` that name a model.

    Raises `JobError` with every problem, `UsageError` where the file cannot be read.

        >>> job = batchrun.load_job("weather.toml", {"limits.rpm": 600})
        >>> job.name, job.limits.rpm
        ('weather', 600.0)
    """
    return read_job(os.fspath(source), overrides=tuple((overrides or {}).items()), environ=os.environ)


def run(
    job: Job | str | os.PathLike[str],
    *,
    overrides: Overrides | None = None,
    out: str | os.PathLike[str] | None = None,
    simulate: bool = False,
    supervise: bool = False,
    show: Show | None = None,
) -> Run:
    """Run a job, a job file or a dataset: call, score, price, report; go on with the run in `out` where there is one.

    `simulate` calls a local endpoint: no key, no cost. `supervise` adds the job's lock, gates, history and notifications.
    `show` is called four times a second with the progress and the number of calls. Raises a `BatchrunError` for what keeps
    a run from starting or writing; one that was stopped comes back with its `error`. The first Ctrl-C lets the calls in
    flight end and saves, the second stops at once; then `KeyboardInterrupt` is raised and the run can be resumed.

        >>> job = batchrun.load_job("weather.toml", {"select.limit": 2})
        >>> batchrun.run(job, simulate=True, out="reports/two").rows["landed"]
        2
    """
    prepared = _prepared(job, overrides, out, simulate=simulate)
    return _on_a_thread(lambda stop: _run(*prepared, stop, show, supervise=supervise))


async def arun(
    job: Job | str | os.PathLike[str],
    *,
    overrides: Overrides | None = None,
    out: str | os.PathLike[str] | None = None,
    simulate: bool = False,
    supervise: bool = False,
    show: Show | None = None,
) -> Run:
    """Run as `run` does, without holding up the event loop; `show` is called on another thread.

    Cancelling lets the calls in flight end and saves, before it is raised; cancelling again stops at once.

        >>> import asyncio
        >>> run = asyncio.run(batchrun.arun("weather.toml", simulate=True, out="reports/async"))
        >>> run.rows["correct"]
        3
    """
    prepared = _prepared(job, overrides, out, simulate=simulate)
    stop = _ThreadStop()
    work = asyncio.ensure_future(asyncio.to_thread(lambda: _run(*prepared, stop, show, supervise=supervise)))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.ask()
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError:
            stop.ask()
            await asyncio.wait({work})
        if not work.cancelled():
            work.exception()  # seen: what is raised is the cancellation
        raise


def resume(
    folder: str | os.PathLike[str], *, overrides: Overrides | None = None, retry_errors: bool = False, supervise: bool = False
) -> Run:
    """Go on with the run in `folder`: only the calls that are missing are made; with `retry_errors` those that errored again.

    >>> batchrun.resume("reports/first").rows["landed"]
    3
    """
    job, options = resumable(folder, overrides=tuple((overrides or {}).items()), retry_errors=retry_errors)
    return _on_a_thread(lambda stop: _run(job, options, stop, None, supervise=supervise))


def open_run(folder: str | os.PathLike[str]) -> Run:
    """Return a finished run by its folder. Raises `UsageError` where it is none."""
    summary = read_summary(Path(folder))
    stopped = summary.get("stopped")
    return Run(folder=Path(folder), summary=summary, error=None if stopped is None else BatchrunError(str(stopped)))


def score(run: Run | str | os.PathLike[str], overrides: Overrides | None = None) -> Run:
    """Score a run again, in place and without a call: another profile, a scorer of your own, other prices, other gates.

    The run may be in a bucket: its address is a folder's equal here.

    >>> batchrun.score("reports/first", {"scoring.profile": "exact"}).summary["profile"]
    'exact'
    """
    place = os.fspath(run.folder if isinstance(run, Run) else run)
    from batchrun.schedule.supervise import score_again  # noqa: PLC0415 - history and gates are for who asks for them

    summary, failed = score_again(place, tuple((overrides or {}).items()))
    return Run(folder=local_folder(place), summary=summary, error=failed)


def score_file(
    file: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    overrides: Overrides | None = None,
    columns: Mapping[str, str] | None = None,
) -> Marked:
    """Score a Parquet or JSONL file with `expected`, `tools` and `tool_calls`; the verdicts go into `out`, a file of its kind.

    `columns` maps our names to the file's. `out` is by default the file with `.scored` in its name.

        >>> batchrun.score_file("answers.jsonl").accuracy["value"]
        0.5
    """
    from batchrun.answers import score_file as mark  # noqa: PLC0415 - the scorers are loaded when they are needed

    source = Path(file)
    spec = parse_job("", default_name="score", default_dataset="none", overrides=tuple((overrides or {}).items())).scoring
    return mark(source, Path(out) if out is not None else source.with_name(f"{source.stem}.scored{source.suffix}"), spec, columns)


def compare(
    before: Run | str | os.PathLike[str], after: Run | str | os.PathLike[str], *, alpha: float = 0.05, any_dataset: bool = False
) -> Comparison:
    """Compare two runs over the rows they share: difference with its interval, paired test, rows lost and gained.

    >>> comparison = batchrun.compare("reports/first", "reports/async")
    >>> comparison.shared, comparison.worse()
    (3, False)
    """
    return compare_runs(read_summary(_folder(before)), read_summary(_folder(after)), alpha=alpha, any_dataset=any_dataset)


class _ThreadStop(StopSignal):
    """A stop signal that may be asked from another thread than the event loop's."""

    def __init__(self) -> None:
        super().__init__()
        self._loop: asyncio.AbstractEventLoop | None = None

    def listen(self, heard: Callable[[], None] | None) -> None:
        """Remember whose loop is to be told."""
        self._loop = None if heard is None else asyncio.get_running_loop()
        super().listen(heard)

    def ask(self) -> None:
        """Ask once more."""
        loop = self._loop
        if loop is None:
            self.request()  # nobody listens yet, or any more
        else:
            loop.call_soon_threadsafe(self.request)


def _prepared(
    job: Job | str | os.PathLike[str], overrides: Overrides | None, out: str | os.PathLike[str] | None, *, simulate: bool
) -> tuple[Job, Options]:
    """Return the job with everything laid over it, and how it is run."""
    given = {**(overrides or {}), **({} if out is None else {"out": os.fspath(out)})}
    if isinstance(job, Job):
        return (with_overrides(job, tuple(given.items())) if given else job), Options(simulate=simulate)
    file = os.fspath(job)
    return load_job(file, given), Options(simulate=simulate, job_file=file if file.endswith(".toml") else None)


def _run(job: Job, options: Options, stop: StopSignal, show: Show | None, *, supervise: bool) -> Run:
    """Run to the end, on this thread."""
    if not supervise:
        result = run_plainly(job, options, stop=stop, show=show)
        return Run(folder=result.folder, summary=result.summary, error=result.stopped)
    from batchrun.schedule.supervise import Supervisor  # noqa: PLC0415 - history and gates are for who asks for them

    supervisor = Supervisor(job, options)
    ended = supervisor.run(stop=stop, show=show)
    result = ended.result
    return Run(folder=result.folder, summary=result.summary, error=ended.error, warnings=tuple(supervisor.warnings))


def _on_a_thread(work: Callable[[StopSignal], Result]) -> Result:
    """Do `work` on a thread of its own, in this one's context, and wait for it."""
    stop, interrupt = _ThreadStop(), None
    with ThreadPoolExecutor(1, thread_name_prefix="batchrun") as pool:
        future = pool.submit(contextvars.copy_context().run, work, stop)
        while True:
            try:
                result = future.result()
            except KeyboardInterrupt as error:
                interrupt = error
                stop.ask()
            else:
                break
    if interrupt is not None:
        raise interrupt
    return result


def _folder(run: Run | str | os.PathLike[str]) -> Path:
    return run.folder if isinstance(run, Run) else Path(run)


def _figures(models: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Return the lines of the table: a name and a cell a model."""
    return [
        ("rows", [f"{model['rows']['landed']:,}" for model in models]),
        ("accuracy", [interval(model["accuracy"]) for model in models]),
        ("no answer", [f"{model['rows']['landed'] - model['rows']['succeeded']:,}" for model in models]),
        ("cost", [money(model["cost"]["total_usd"]) for model in models]),
        ("first token p50", [milliseconds(model["ttft_ms"]["p50"]) for model in models]),
        ("latency p50 / p95", [" / ".join(milliseconds(model["latency_ms"][q]) for q in ("p50", "p95")) for model in models]),
    ]
