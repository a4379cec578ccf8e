"""Due times, what is remembered of each job, and the time now → which runs to start: the scheduler without its processes.

Every due time is seen once, started at most once, and never twice: a clock that goes back (by less than a day) finds it
seen. One that was missed — the machine slept, the clock jumped, the job's last run was still going — is caught up as the
job says: not at all, the latest only, or all of them in order. Only a free place starts a run: one run a job, so many jobs
at once, so many on one endpoint. Everything here is a function of its arguments; days pass in a test by handing in days.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec
from msgspec import Struct

from batchrun.schedule.notify import STOPPED_BY_HAND
from batchrun.schedule.times import MOST_DUE, Times

ON_TIME: Final = timedelta(seconds=60)
CLOCK_WAS_WRONG: Final = timedelta(days=1)
"""A clock this far behind the last due time was wrong before: what was seen then counts no longer."""

AGAIN_AFTER: Final = timedelta(seconds=60)
CUT_SHORT: Final = STOPPED_BY_HAND | {137}  # by SIGKILL
SIGNALLED: Final = 128
"""A greater exit code, but for those `STOPPED_BY_HAND`, is that of a process that a signal has killed."""


class Running(Struct, frozen=True, kw_only=True):
    """A run on its way: for which due time, in which process (0: not known yet), since when."""

    due: datetime
    started: datetime
    pid: int = 0
    first_started: datetime  # as `started`, or when the run began that this one goes on with


class Last(Struct, frozen=True, kw_only=True):
    """How the job's last run ended."""

    due: datetime
    started: datetime
    finished: datetime
    exit_code: int


class Memory(Struct, frozen=True, kw_only=True):
    """What is remembered of one job. Due times up to `settled` have been seen; `owed` ones are still to be started."""

    settled: datetime
    owed: tuple[datetime, ...] = ()
    again_since: datetime | None = None  # the first of `owed` was started then, and its scheduler went away before its end
    not_before: datetime | None = None
    running: Running | None = None
    last: Last | None = None
    missed: int = 0
    exits: dict[str, int] = {}  # how many runs ended with each exit code


class Timetable(Struct, frozen=True, kw_only=True):
    """What the plan needs to know of one job."""

    name: str
    times: Times
    catch_up: Literal["skip", "latest", "all"] = "latest"
    jitter_s: float = 0
    endpoint: str = ""

    def begins(self, due: datetime) -> datetime:
        """Return when a run for `due` begins: after a delay that is its own and always the same.

        The delay is up to `jitter_s`, and less where another run is due sooner: it would take the place of this one.
        """
        if not self.jitter_s:
            return due
        share = int.from_bytes(hashlib.sha256(f"{self.name} {due.isoformat()}".encode()).digest()[:6]) / 2**48
        following = self.times.after(due)
        spread = timedelta(seconds=self.jitter_s)
        return due + share * (spread if following is None else min(spread, following - due))


class Room(Struct, frozen=True, kw_only=True):
    """How many runs may go on at once."""

    jobs: int
    per_endpoint: int


def noticed(table: Timetable, memory: Memory | None, now: datetime) -> Memory:
    """Return the memory with the due times that have come since it last looked. A job seen first owes nothing of its past."""
    if memory is None:
        return Memory(settled=now)
    if now < memory.settled - CLOCK_WAS_WRONG:
        owed = tuple(due for due in memory.owed if due <= now)
        return msgspec.structs.replace(memory, settled=now, owed=owed, not_before=None)
    due = table.times.between(memory.settled, now)
    if not due:
        return memory
    owed = _owed(table, memory, due, now)
    again = memory.again_since if owed[:1] == memory.owed[:1] else None
    missed = memory.missed + len(memory.owed) + len(due) - len(owed)
    return msgspec.structs.replace(memory, settled=due[-1], owed=owed, again_since=again, missed=missed)


def _owed(table: Timetable, memory: Memory, due: Sequence[datetime], now: datetime) -> tuple[datetime, ...]:
    """Return what is owed once `due` has come, by the job's policy."""
    if table.catch_up == "all":
        return (*memory.owed, *due)[-MOST_DUE:]
    if table.catch_up == "latest":
        return (due[-1],)
    free = memory.running is None and not memory.owed
    return (due[-1],) if free and now - due[-1] <= ON_TIME else memory.owed


def to_start(
    tables: Sequence[Timetable], memories: Mapping[str, Memory], now: datetime, room: Room
) -> list[tuple[str, datetime]]:
    """Return (job, due time) of the runs to start now, the longest owed first, as far as there is room."""
    running = [table for table in tables if memories[table.name].running is not None]
    busy = Counter(table.endpoint for table in running)
    free = room.jobs - len(running)
    ready = sorted(
        (memory.owed[0], table.name, table)
        for table in tables
        if (memory := memories[table.name]).owed and memory.running is None and _begins(table, memory) <= now
    )
    chosen: list[tuple[str, datetime]] = []
    for due, name, table in ready:
        if len(chosen) < free and busy[table.endpoint] < room.per_endpoint:
            busy[table.endpoint] += 1
            chosen.append((name, due))
    return chosen


def _begins(table: Timetable, memory: Memory) -> datetime:
    """Return when the first run that is owed may begin."""
    begins = table.begins(memory.owed[0])
    return begins if memory.not_before is None else max(begins, memory.not_before)


def next_time(table: Timetable, memory: Memory, now: datetime) -> datetime | None:
    """Return when the job's next run begins if nothing holds it up: one that is owed, or else the next due time."""
    if memory.owed:
        return _begins(table, memory)
    due = table.times.after(max(now, memory.settled))
    return None if due is None else table.begins(due)


def started(memory: Memory, now: datetime) -> Memory:
    """Return the memory after the first run that was owed has started."""
    running = Running(due=memory.owed[0], started=now, first_started=memory.again_since or now)
    return msgspec.structs.replace(memory, owed=memory.owed[1:], again_since=None, not_before=None, running=running)


def ended(table: Timetable, memory: Memory, exit_code: int, now: datetime, *, draining: bool = False) -> Memory:
    """Return the memory after the run has ended.

    One that found the job locked is owed again in a minute, one that was cut short because the scheduler stops
    is owed to its successor, and one that was killed is gone on with, once; all unless missed times are not caught up.
    """
    run = memory.running
    if run is None:
        return memory
    exits = {**memory.exits, str(exit_code): memory.exits.get(str(exit_code), 0) + 1}
    last = Last(due=run.due, started=run.started, finished=now, exit_code=exit_code)
    after = msgspec.structs.replace(memory, running=None, last=last, exits=exits)
    if exit_code == 7 and table.catch_up != "skip":
        again_since = run.first_started if run.first_started < run.started else None
        return _owed_again(table, after, run, not_before=now + AGAIN_AFTER, again_since=again_since)
    if draining and exit_code in CUT_SHORT and table.catch_up != "skip":
        return _owed_again(table, after, run, again_since=run.first_started)
    if not draining and killed(exit_code) and run.first_started == run.started and table.catch_up != "skip":
        return _owed_again(table, after, run, not_before=now + AGAIN_AFTER, again_since=run.first_started)
    return after


def killed(exit_code: int) -> bool:
    """Tell whether a process was killed, and could say nothing of its end."""
    return exit_code > SIGNALLED and exit_code not in STOPPED_BY_HAND


def recovered(table: Timetable, memory: Memory) -> Memory:
    """Return the memory of a scheduler that is gone: the run it had started is owed, and may be gone on with."""
    run = memory.running
    if run is None:
        return memory
    after = msgspec.structs.replace(memory, running=None)
    return after if table.catch_up == "skip" else _owed_again(table, after, run, again_since=run.first_started)


def _owed_again(
    table: Timetable, memory: Memory, run: Running, *, not_before: datetime | None = None, again_since: datetime | None = None
) -> Memory:
    """Return the memory with a run that was started owed once more, unless a later one is owed in its place."""
    if table.catch_up == "latest" and memory.owed:
        return msgspec.structs.replace(memory, missed=memory.missed + 1, not_before=not_before)
    return msgspec.structs.replace(memory, owed=(run.due, *memory.owed), not_before=not_before, again_since=again_since)
