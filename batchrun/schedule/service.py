"""The scheduler as a process: asks the planner what to start, starts it as a child, and remembers how it ended.

A run is a child process, `python -m batchrun run JOB`: a crash of one is no crash of all, and it takes the same lock, gates
and exit codes as a run by hand. Children lead sessions of their own, so that a signal reaches them once, through us: the
first asks every run to drain and save, the second to stop at once. A run that outlives its deadline by far is ended. The
clock is asked often and slept on shortly, so that a machine that slept or a clock that was set is noticed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from batchrun.errors import BatchrunError, JobError, StorageError
from batchrun.job import parse_set
from batchrun.prepare import Options, load_job
from batchrun.report.words import duration
from batchrun.schedule.entry import Entry
from batchrun.schedule.history import Home
from batchrun.schedule.notify import STOPPED_BY_HAND
from batchrun.schedule.planner import SIGNALLED, Memory, Room, ended, killed, next_time, noticed, recovered, started, to_start
from batchrun.schedule.retention import begun_since
from batchrun.schedule.state import State, StateFile
from batchrun.schedule.supervise import Supervisor

LONGEST_SLEEP_S: Final = 15.0
OVERDUE_S: Final = 300.0
"""How long after its deadline and grace a run may still write its files before it is ended."""
LAST_GRACE_S: Final = 30.0

MEANING: Final = {
    0: "done",
    2: "bad job or dataset: nothing was sent",
    3: "the endpoint refuses",
    4: "storage",
    5: "too many errors",
    6: "stopped at its budget or deadline",
    7: "another run of the job goes on",
    8: "a gate failed",
    130: "interrupted",
    143: "interrupted",
}


class Settings(Struct, frozen=True, kw_only=True):
    """How the scheduler runs: places, and how long runs may drain when it is told to stop."""

    root: Path
    room: Room
    grace_s: float = 300.0


class Scheduler:
    """Runs the jobs of its entries by their timetables, until it is told to stop."""

    def __init__(
        self,
        entries: Sequence[Entry],
        settings: Settings,
        *,
        log: Callable[[str], None],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Prepare; `serve` does the rest. `log` is told one line at a time."""
        self.entries = {entry.table.name: entry for entry in entries}
        self.settings = settings
        self.memories: dict[str, Memory] = {}
        self._log, self._clock = log, clock
        self._file = StateFile(settings.root)
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._stops = 0
        self._changed = asyncio.Event()

    def stop(self) -> None:
        """Stop: start nothing more and drain the runs; asked again, stop them at once. For a handler of the loop's signals."""
        self._stops += 1
        self._changed.set()
        for child in self._children.values():
            _signal(child, signal.SIGTERM)

    async def serve(self) -> None:
        """Run jobs until `stop`. Raises `RunLocked` where another scheduler works in the folder, and `StorageError`."""
        with self._file.lock():
            self._remember()
            try:
                async with asyncio.TaskGroup() as group:
                    while not self._stops:
                        self._changed.clear()
                        for name in self._look():
                            group.create_task(self._run(self.entries[name], self.memories[name].again_since))
                            self._update(name, started(self.memories[name], self._clock()))
                        await self._pause(self._until_next())
                    group.create_task(self._drain())
            except BaseExceptionGroup as failed:
                raise _first(failed) from None

    def next_times(self) -> dict[str, datetime | None]:
        """Return when each job's next run begins."""
        now = self._clock()
        return {name: next_time(self.entries[name].table, memory, now) for name, memory in self.memories.items()}

    def _remember(self) -> None:
        """Take up what the scheduler before left behind."""
        state = self._file.read()
        now = self._clock()
        for name, entry in self.entries.items():
            memory = state.jobs.get(name) if state is not None else None
            self.memories[name] = noticed(entry.table, None if memory is None else recovered(entry.table, memory), now)
        self._save()

    def _look(self) -> list[str]:
        """Take notice of what has become due; return the jobs to start now."""
        now = self._clock()
        tables = [entry.table for entry in self.entries.values()]
        for table in tables:
            self.memories[table.name] = noticed(table, self.memories[table.name], now)
        return [name for name, _ in to_start(tables, self.memories, now, self.settings.room)]

    def _until_next(self) -> float:
        """Return the seconds until something begins by itself, at most a few."""
        now = self._clock()
        waits = [(at - now).total_seconds() for at in self.next_times().values() if at is not None and at > now]
        return min([LONGEST_SLEEP_S, *waits])

    async def _pause(self, seconds: float) -> None:
        """Wait for the time to pass, a run to end, or a signal."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)

    async def _run(self, entry: Entry, since: datetime | None) -> None:
        """Run a job whose start was noted, and note how it ended."""
        name = entry.table.name
        try:
            code = await self._child(entry, since)
        except BatchrunError as error:
            self._log(f"{name}: {error}")
            code = error.exit_code
        if (silent := _silent(entry, code)) is not None and not self._stops:
            await asyncio.to_thread(self._tell, entry, silent)
        now = self._clock()
        run = self.memories[name].running
        self._update(name, ended(entry.table, self.memories[name], code, now, draining=bool(self._stops)))
        following = next_time(entry.table, self.memories[name], now)
        took = f" after {duration((now - run.started).total_seconds())}" if run is not None else ""
        after = "never" if following is None else following.isoformat(timespec="seconds")
        self._log(f"{name}: ended with {code} ({MEANING.get(code, 'failed')}){took}; next {after}")
        self._changed.set()

    def _tell(self, entry: Entry, error: BatchrunError) -> None:
        """Keep and tell what the process of a run could not: a scheduled job must not fail in silence."""
        supervisor = Supervisor(entry.job, Options(root=self.settings.root, simulate=entry.simulate))
        try:
            supervisor.broken(error)
        except BatchrunError as failed:
            supervisor.warnings.append(str(failed))
        for line in (str(error), *supervisor.warnings):
            self._log(f"{entry.table.name}: {line}")

    async def _child(self, entry: Entry, since: datetime | None) -> int:
        """Start the process of a run and wait for it; return its exit code as a shell counts it."""
        name, folder = entry.table.name, None
        if since is not None:
            code, folder = left_behind(Home.of(entry.job, self.settings.root), since)
            if code is not None:
                return code
        quiet = asyncio.subprocess.DEVNULL
        try:
            child = await asyncio.create_subprocess_exec(
                *entry.command(folder), stdin=quiet, stdout=quiet, start_new_session=True
            )
        except OSError as error:
            self._log(f"{name}: cannot be started: {error.strerror}")
            return 1
        self._children[name] = child
        memory = self.memories[name]
        if memory.running is not None:
            running = msgspec.structs.replace(memory.running, pid=child.pid)
            self._update(name, msgspec.structs.replace(memory, running=running))
            due = running.due.isoformat(timespec="seconds")
            self._log(f"{name}: {'goes on' if folder else 'started'} for {due}, process {child.pid}")
        if self._stops:
            _signal(child, signal.SIGTERM)
        try:
            return await self._watched(child, entry)
        finally:
            del self._children[name]

    async def _watched(self, child: asyncio.subprocess.Process, entry: Entry) -> int:
        """Wait for the child; end it when it is long past its deadline."""
        limits = entry.job.limits
        bounds = [bound for bound in (entry.job.schedule.deadline_s, limits.deadline_s) if bound is not None]
        steps: list[tuple[float | None, signal.Signals]] = [(None, signal.SIGTERM)]
        if bounds:
            steps = [
                (min(bounds) + limits.grace_s + OVERDUE_S, signal.SIGTERM),
                (OVERDUE_S, signal.SIGKILL),
                (None, signal.SIGKILL),
            ]
        for seconds, number in steps:
            with contextlib.suppress(TimeoutError):
                code = await asyncio.wait_for(child.wait(), seconds)
                return code if code >= 0 else 128 - code
            self._log(f"{entry.table.name}: is long past its deadline; sending {number.name}")
            _signal(child, number)
        raise AssertionError("the last wait has no bound")

    async def _drain(self) -> None:
        """Wait for the runs to save what they have; ask again after the grace, then end them."""
        if self._busy():
            self._log(f"stopping: the runs drain, for at most {duration(self.settings.grace_s)}")
        for seconds, number in ((self.settings.grace_s, signal.SIGTERM), (LAST_GRACE_S, signal.SIGKILL)):
            until = asyncio.get_running_loop().time() + seconds
            while self._busy() and (left := until - asyncio.get_running_loop().time()) > 0:
                self._changed.clear()
                await self._pause(left)
            for child in self._children.values():
                _signal(child, number)

    def _busy(self) -> bool:
        """Whether any run goes on."""
        return any(memory.running is not None for memory in self.memories.values())

    def _update(self, name: str, memory: Memory) -> None:
        """Remember, on disk too; a full disk is no reason to run no jobs."""
        self.memories[name] = memory
        try:
            self._save()
        except StorageError as error:
            self._log(f"warning: {error}")

    def _save(self) -> None:
        self._file.write(State(saved_at=self._clock(), jobs=self.memories))


def left_behind(home: Home, since: datetime) -> tuple[int | None, Path | None]:
    """Return what became of the run that began at `since`: its exit code, or else the folder to go on with, or neither.

    Its scheduler is gone, but it may have come to its end by itself. Raises `StorageError`.
    """
    folder = next(begun_since(home, since - timedelta(seconds=1)), None)
    if folder is None:
        return None, None
    codes = [int(row["exit_code"]) for row in home.rows() if row["run_id"] == folder.run_id]
    if codes and codes[0] not in STOPPED_BY_HAND:
        return codes[0], None
    return None, folder.path


def _silent(entry: Entry, exit_code: int) -> BatchrunError | None:
    """Return why a run ended that could tell nobody: it was killed, or its job file cannot be read any more."""
    if killed(exit_code):
        return BatchrunError(f"the process of the run was killed by signal {exit_code - SIGNALLED}")
    if exit_code == JobError.exit_code:
        try:
            load_job(entry.file, overrides=[parse_set(one) for one in entry.overrides], environ=os.environ)
        except BatchrunError as error:
            return error
    return None


def _signal(child: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        child.send_signal(number)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error of a group, one of the tree before any other."""
    flat = [_first(error) if isinstance(error, BaseExceptionGroup) else error for error in group.exceptions]
    return next((error for error in flat if isinstance(error, BatchrunError)), flat[0])
