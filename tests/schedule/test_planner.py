"""Days of a scheduler, moved by hand: what is started when, through outages, overlaps, full houses and wrong clocks."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.job import Schedule
from batchrun.schedule.planner import Memory, Room, Timetable, ended, next_time, noticed, recovered, started, to_start
from batchrun.schedule.times import MOST_DUE, Times

HOUR = timedelta(hours=1)
START = datetime(2025, 3, 1, 0, 30, tzinfo=UTC)


def table(name: str = "job", *, endpoint: str = "a", **schedule: Any) -> Timetable:
    asked = Schedule(**{"cron": "0 * * * *", **schedule})
    return Timetable(name=name, times=Times(asked), catch_up=asked.catch_up, jitter_s=asked.jitter_s, endpoint=endpoint)


@dataclass
class Day:
    """A scheduler whose clock is turned by hand and whose runs take as long as they are told to."""

    tables: list[Timetable]
    room: Room = field(default_factory=lambda: Room(jobs=4, per_endpoint=4))
    takes: timedelta = timedelta(minutes=5)
    now: datetime = START
    memories: dict[str, Memory] = field(default_factory=dict)
    starts: list[tuple[str, datetime, datetime]] = field(default_factory=list)
    going: list[tuple[datetime, str]] = field(default_factory=list)
    codes: dict[str, int] = field(default_factory=dict)

    def look(self) -> None:
        """One turn of the scheduler's loop."""
        while self.going and self.going[0][0] <= self.now:
            _, name = heapq.heappop(self.going)
            self.memories[name] = ended(self.table(name), self.memories[name], self.codes.get(name, 0), self.now)
        for each in self.tables:
            self.memories[each.name] = noticed(each, self.memories.get(each.name), self.now)
        for name, due in to_start(self.tables, self.memories, self.now, self.room):
            self.memories[name] = started(self.memories[name], self.now)
            self.starts.append((name, due, self.now))
            heapq.heappush(self.going, (self.now + self.takes, name))

    def table(self, name: str) -> Timetable:
        """The timetable of a job."""
        return next(each for each in self.tables if each.name == name)

    def pass_time(self, span: timedelta, step: timedelta = timedelta(minutes=1)) -> None:
        """Let time pass while the scheduler looks at every step."""
        until = self.now + span
        self.look()
        while self.now < until:
            self.now += step
            self.look()

    def sleep(self, span: timedelta) -> None:
        """Let time pass while nobody looks; runs that went on are over."""
        self.now += span

    def dues(self, name: str = "job") -> list[str]:
        """For which times a job was started."""
        return [due.strftime("%d %H:%M") for each, due, _ in self.starts if each == name]


def test_a_job_seen_for_the_first_time_owes_nothing_of_its_past() -> None:
    day = Day([table()])
    day.pass_time(timedelta(minutes=29))
    assert day.starts == []
    day.pass_time(2 * HOUR)
    assert day.dues() == ["01 01:00", "01 02:00"]


@pytest.mark.parametrize(
    ("catch_up", "caught_up"),
    [("skip", []), ("latest", ["01 05:00"]), ("all", ["01 02:00", "01 03:00", "01 04:00", "01 05:00"])],
)
def test_missed_times_are_caught_up_as_the_job_says(catch_up: str, caught_up: list[str]) -> None:
    """The machine sleeps from 01:30 to 05:30."""
    day = Day([table(catch_up=catch_up)])
    day.pass_time(HOUR)
    day.sleep(4 * HOUR)
    day.pass_time(HOUR)
    assert day.dues() == ["01 01:00", *caught_up, "01 06:00"]
    assert day.memories["job"].missed == 4 - len(caught_up)


@pytest.mark.parametrize(("catch_up", "starts"), [("skip", 3), ("latest", 3), ("all", 3)])
def test_a_run_longer_than_its_interval_never_overlaps_itself(catch_up: str, starts: int) -> None:
    """Runs of 90 minutes, due every hour, for 4 hours: one after the other, however many are owed."""
    day = Day([table(catch_up=catch_up)], takes=timedelta(minutes=90))
    day.pass_time(4 * HOUR)
    begun = [at for _, _, at in day.starts]
    assert all(later - earlier >= timedelta(minutes=90) for earlier, later in pairwise(begun))
    assert len(begun) <= starts


def test_with_skip_a_time_that_falls_into_a_run_is_left_out_for_good() -> None:
    day = Day([table(catch_up="skip")], takes=timedelta(minutes=90))
    day.pass_time(4 * HOUR)
    assert day.dues() == ["01 01:00", "01 03:00"]


def test_with_all_every_time_is_run_in_order_in_the_end() -> None:
    day = Day([table(catch_up="all")], takes=timedelta(minutes=90))
    day.pass_time(6 * HOUR)
    assert day.dues() == ["01 01:00", "01 02:00", "01 03:00", "01 04:00"]


def test_what_all_owes_is_bounded() -> None:
    day = Day([table(catch_up="all", cron="* * * * *")])
    day.look()
    day.sleep(timedelta(days=20))
    day.look()
    assert len(day.memories["job"].owed) == MOST_DUE - 1  # one has started


def test_a_clock_put_back_an_hour_runs_nothing_twice() -> None:
    day = Day([table()])
    day.pass_time(3 * HOUR)
    day.now -= HOUR
    day.pass_time(3 * HOUR)
    assert day.dues() == ["01 01:00", "01 02:00", "01 03:00", "01 04:00", "01 05:00"]


def test_a_clock_put_forward_a_day_is_a_missed_day() -> None:
    day = Day([table(catch_up="latest")])
    day.pass_time(HOUR)
    day.now += timedelta(days=1)
    day.pass_time(timedelta(minutes=10))
    assert day.dues() == ["01 01:00", "02 01:00"]


def test_a_clock_that_was_years_ahead_and_is_set_right_does_not_stop_the_job() -> None:
    day = Day([table()])
    day.now = START + timedelta(days=3650)
    day.pass_time(HOUR)
    day.now = START
    day.pass_time(2 * HOUR)
    assert day.dues()[-2:] == ["01 01:00", "01 02:00"]


def test_the_night_the_clocks_change_every_job_runs_once() -> None:
    """A week around both changes in Berlin: seven runs each, one a local day."""
    for first in (datetime(2025, 3, 27, 12, tzinfo=UTC), datetime(2025, 10, 23, 12, tzinfo=UTC)):
        day = Day([table(cron="30 2 * * *", timezone="Europe/Berlin")], now=first)
        day.pass_time(timedelta(days=7), timedelta(minutes=10))
        assert len(day.starts) == 7
        assert len(set(day.dues())) == 7


def test_so_many_jobs_at_once_and_the_longest_owed_first() -> None:
    day = Day([table("a"), table("b", cron="1 * * * *"), table("c", cron="2 * * * *")], room=Room(jobs=1, per_endpoint=4))
    day.takes = timedelta(minutes=10)
    day.pass_time(HOUR)
    assert [(name, at.minute) for name, _, at in day.starts] == [("a", 0), ("b", 10), ("c", 20)]


def test_one_job_at_a_time_on_one_endpoint() -> None:
    day = Day([table("a"), table("b"), table("c", endpoint="other")], room=Room(jobs=4, per_endpoint=1))
    day.pass_time(HOUR)
    assert [(name, at.minute) for name, _, at in day.starts] == [("a", 0), ("c", 0), ("b", 5)]


def test_jitter_longer_than_the_interval_drops_no_run() -> None:
    often = table(cron="*/10 * * * *", jitter_s=3600)
    dues = often.times.between(START, START + 24 * HOUR)
    assert all(due <= often.begins(due) < due + timedelta(minutes=10) for due in dues)
    assert len({often.begins(due) - due for due in dues}) > 50


def test_jitter_delays_by_its_bound_at_most_and_always_the_same() -> None:
    spread = table(jitter_s=600)
    due = datetime(2025, 3, 1, 1, tzinfo=UTC)
    delays = {(spread.begins(due + hours * HOUR) - due - hours * HOUR).total_seconds() for hours in range(50)}
    assert all(0 <= delay < 600 for delay in delays)
    assert len(delays) == 50
    assert spread.begins(due) == table(jitter_s=600).begins(due)
    day = Day([spread])
    day.pass_time(HOUR)
    assert [at >= spread.begins(at.replace(minute=0)) for _, _, at in day.starts] == [True]


def test_the_next_time_is_what_is_owed_or_else_due() -> None:
    hourly = table()
    memory = noticed(hourly, None, START)
    assert next_time(hourly, memory, START) == datetime(2025, 3, 1, 1, tzinfo=UTC)
    late = noticed(hourly, memory, START + 3 * HOUR)
    assert next_time(hourly, late, START + 3 * HOUR) == datetime(2025, 3, 1, 3, tzinfo=UTC)


def owing(catch_up: str = "latest") -> tuple[Timetable, Memory, datetime]:
    """A job whose run has just begun."""
    hourly = table(catch_up=catch_up)
    now = START + HOUR
    return hourly, started(noticed(hourly, noticed(hourly, None, START), START + timedelta(minutes=30)), now), now


def test_a_run_that_found_the_job_locked_is_owed_again_in_a_minute() -> None:
    hourly, memory, now = owing()
    memory = ended(hourly, memory, 7, now)
    room = Room(jobs=1, per_endpoint=1)
    assert to_start([hourly], {"job": memory}, now + timedelta(seconds=59), room) == []
    assert len(to_start([hourly], {"job": memory}, now + timedelta(seconds=60), room)) == 1
    assert memory.again_since is None
    hourly, memory, now = owing("skip")
    assert ended(hourly, memory, 7, now).owed == ()


def test_a_run_cut_short_by_the_schedulers_end_is_owed_to_its_successor() -> None:
    hourly, memory, now = owing()
    stopped = ended(hourly, memory, 143, now + timedelta(minutes=1), draining=True)
    assert stopped.owed == (datetime(2025, 3, 1, 1, tzinfo=UTC),)
    assert stopped.again_since == now
    assert ended(hourly, memory, 137, now, draining=True).owed == stopped.owed  # it did not drain in time
    assert ended(hourly, memory, 143, now).owed == ()  # a person stopped it
    assert ended(hourly, memory, 6, now, draining=True).owed == ()  # it stopped itself


def test_a_run_that_was_killed_is_gone_on_with_once() -> None:
    """What had landed was paid for: a new run would pay for it again."""
    hourly, memory, now = owing()
    over = now + timedelta(minutes=5)
    again = ended(hourly, memory, 137, over)
    assert (again.owed, again.again_since) == ((datetime(2025, 3, 1, 1, tzinfo=UTC),), now)
    room = Room(jobs=1, per_endpoint=1)
    assert to_start([hourly], {"job": again}, over + timedelta(seconds=59), room) == []
    begun = started(again, over + timedelta(seconds=60))
    assert ended(hourly, begun, 137, over + timedelta(minutes=2)).owed == ()
    hourly, memory, now = owing("skip")
    assert ended(hourly, memory, 139, now).owed == ()


def test_a_run_whose_scheduler_was_killed_is_owed_and_remembers_when_it_began() -> None:
    hourly, memory, now = owing()
    after = recovered(hourly, memory)
    assert (after.running, after.again_since, len(after.owed)) == (None, now, 1)
    locked = ended(hourly, started(after, now + HOUR), 7, now + HOUR)
    assert locked.again_since == now  # its process still goes on: the same run is meant a minute later
    hourly, memory, _ = owing("skip")
    assert recovered(hourly, memory).owed == ()


def test_a_later_due_time_takes_the_place_of_an_interrupted_run() -> None:
    hourly, memory, now = owing()
    later = noticed(hourly, recovered(hourly, memory), now + 2 * HOUR)
    assert later.owed == (datetime(2025, 3, 1, 3, tzinfo=UTC),)
    assert later.again_since is None


def test_nothing_ends_that_was_not_running() -> None:
    memory = Memory(settled=START)
    assert ended(table(), memory, 0, START) is memory
    assert recovered(table(), memory) is memory


@given(
    steps=st.lists(st.integers(-90, 600), min_size=1, max_size=40),
    catch_up=st.sampled_from(["skip", "latest", "all"]),
)
def test_no_due_time_is_ever_started_twice_or_early(steps: list[int], catch_up: str) -> None:
    """Whatever the clock does within a day: every start is of a due time that has come, and of each at most once."""
    day = Day([table(catch_up=catch_up, cron="*/7 * * * *")])
    day.look()
    for minutes in steps:
        day.now += timedelta(minutes=minutes)
        day.look()
    dues = [due for _, due, _ in day.starts]
    assert len(set(dues)) == len(dues)
    assert dues == sorted(dues)
    assert all(due <= at for _, due, at in day.starts)
