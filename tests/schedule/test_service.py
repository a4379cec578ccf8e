"""The scheduler with real processes: starts, ends, drains, takes over what another left behind."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from batchrun.errors import RunLocked, StorageError
from batchrun.schedule.entry import Entry, entries
from batchrun.schedule.history import Home
from batchrun.schedule.planner import Memory, Room, Running
from batchrun.schedule.service import Scheduler, Settings, left_behind
from batchrun.schedule.state import State, StateFile
from batchrun.schedule.status import lines, metrics, page, status
from batchrun.schedule.status_page import served

from .conftest import BEGAN, Record, job

PATIENCE_S = 20.0
SLEEPER = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
open(sys.argv[1], "w").close()
time.sleep(60)
"""


class Scripted(Entry, frozen=True, kw_only=True):
    """An entry whose run is a few lines of Python."""

    code: str
    argument: str = ""

    def command(self, resume: Path | None = None) -> list[str]:
        """Run the lines, with the folder to go on with as a second argument."""
        return [sys.executable, "-c", self.code, self.argument, str(resume or "")]


def scripted(code: str, name: str = "nightly", schedule: str = "every_s = 1", argument: str = "") -> Scripted:
    (entry,) = entries([(f"{name}.toml", job(f"[schedule]\n{schedule}", name))])
    return Scripted(file=entry.file, job=entry.job, table=entry.table, code=code, argument=argument)


async def until(true: Callable[[], bool]) -> None:
    """Wait for another process, as long as the block around allows."""
    while not true():  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0.01)


class Run:
    """A scheduler at work, and what it said."""

    def __init__(self, root: Path, *scripts: Entry, grace_s: float = 10, clock: Callable[[], datetime] | None = None) -> None:
        self.said: list[str] = []
        settings = Settings(root=root, room=Room(jobs=4, per_endpoint=4), grace_s=grace_s)
        given = {} if clock is None else {"clock": clock}
        self.scheduler = Scheduler(scripts, settings, log=self.said.append, **given)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[Run]:
        """Let it work while the block lasts, then stop it."""
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            group.create_task(self.scheduler.serve())
            yield self
            if not self.scheduler._stops:
                self.scheduler.stop()

    async def until(self, words: str) -> None:
        """Wait for it to say something."""
        await until(lambda: any(words in line for line in self.said))


async def test_a_job_runs_when_it_is_due_and_its_end_is_remembered(tmp_path: Path) -> None:
    async with Run(tmp_path, scripted("raise SystemExit(8)")).working() as run:
        await run.until("ended with 8 (a gate failed)")
    state = StateFile(tmp_path).read()
    assert state is not None
    memory = state.jobs["nightly"]
    assert memory.last is not None
    assert (memory.last.exit_code, memory.running) == (8, None)
    assert memory.last.due.microsecond == 0
    assert StateFile(tmp_path).owner() is None


def told(folder: Path) -> str:
    """Return the lines of a job's [notify] that keep what it is told in a file."""
    keeper = f"import pathlib, sys; pathlib.Path({str(folder / 'told.json')!r}).write_text(sys.stdin.read())"
    return f"[notify]\non = 'failure'\ncommand = {json.dumps([sys.executable, '-c', keeper])}"


async def test_a_killed_run_is_counted_as_the_shell_counts_it_and_told_of(tmp_path: Path) -> None:
    """It could say nothing itself."""
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    async with Run(tmp_path, scripted(code, schedule=f"every_s = 1\n{told(tmp_path)}")).working() as run:
        await run.until("ended with 137 (failed)")
    assert "killed by signal 9" in json.loads((tmp_path / "told.json").read_text())["reason"]


async def test_a_job_file_that_was_broken_since_is_told_of_by_the_job_as_it_was(tmp_path: Path) -> None:
    broken = tmp_path / "nightly.toml"
    broken.write_text('dataset = "d.jsonl"\n[limits]\nconcurency = 3\n')
    job_as_it_was = scripted("raise SystemExit(2)", schedule=f"every_s = 1\n{told(tmp_path)}")
    async with Run(tmp_path, msgspec.structs.replace(job_as_it_was, file=str(broken))).working() as run:
        await run.until("ended with 2")
    assert "concurency" in json.loads((tmp_path / "told.json").read_text())["reason"]


async def test_a_program_that_is_not_there_is_a_failed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    async with Run(tmp_path, scripted("")).working() as run:
        await run.until("cannot be started: No such file or directory")
        await run.until("ended with 1")


async def test_stopping_drains_and_the_next_scheduler_goes_on(tmp_path: Path) -> None:
    """The run gets one SIGTERM; what it leaves unfinished is owed, and started again at once."""
    up = tmp_path / "up"
    run = Run(tmp_path, scripted(SLEEPER, schedule="every_s = 1", argument=str(up)))
    async with run.working():
        await until(up.exists)
        run.scheduler.stop()
    assert any("ended with 143 (interrupted)" in line for line in run.said)
    state = StateFile(tmp_path).read()
    assert state is not None
    assert state.jobs["nightly"].owed
    async with Run(tmp_path, scripted("", schedule="every_s = 3600")).working() as successor:
        await successor.until("ended with 0")


async def test_a_run_that_does_not_drain_is_ended_after_the_grace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchrun.schedule.service.LAST_GRACE_S", 0.2)
    up = tmp_path / "up"
    deaf = SLEEPER.replace("lambda *_: sys.exit(143)", "signal.SIG_IGN")
    run = Run(tmp_path, scripted(deaf, argument=str(up)), grace_s=0.2)
    async with run.working():
        await until(up.exists)
        run.scheduler.stop()
    assert any("ended with 137" in line for line in run.said)


async def test_a_run_far_past_its_deadline_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchrun.schedule.service.OVERDUE_S", 0.1)
    slow = scripted("import time; time.sleep(60)", schedule="every_s = 1\ndeadline_s = 0.1\n[limits]\ngrace_s = 0")
    async with Run(tmp_path, slow).working() as run:
        await run.until("is long past its deadline; sending SIGTERM")
        await run.until("ended with 143")


async def test_one_scheduler_a_folder(tmp_path: Path) -> None:
    async with Run(tmp_path, scripted("", schedule="every_s = 3600")).working():
        await asyncio.sleep(0)
        with pytest.raises(RunLocked) as caught:
            await Run(tmp_path, scripted("")).scheduler.serve()
        assert caught.value.hint is not None
        assert StateFile(tmp_path).owner() is not None


async def test_a_state_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    file.path.parent.mkdir(parents=True)
    file.path.write_text("{")
    with pytest.raises(StorageError, match="is not valid"):
        await Run(tmp_path, scripted("")).scheduler.serve()


def left_running(root: Path) -> Memory:
    """The state of a scheduler that was killed while a run of the job was on its way."""
    running = Running(due=BEGAN, started=BEGAN, first_started=BEGAN, pid=1)
    memory = Memory(settled=BEGAN, running=running)
    StateFile(root).write(State(saved_at=BEGAN, jobs={"nightly": memory}))
    return memory


async def test_a_run_that_outlived_its_scheduler_is_not_run_again(home: Home, record: Record) -> None:
    root = home.path.parent
    record(0, exit_code=8)
    left_running(root)
    entry = scripted("raise SystemExit(1)", schedule='cron = "0 6 * * *"')
    async with Run(root, entry, clock=lambda: BEGAN + timedelta(minutes=5)).working() as run:
        await run.until("ended with 8")
    assert not any("started for" in line for line in run.said)


async def test_a_run_that_died_with_its_scheduler_is_gone_on_with(home: Home, record: Record, tmp_path: Path) -> None:
    root, out = home.path.parent, tmp_path / "folder"
    summary = record(0, exit_code=143)
    left_running(root)
    code = "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"
    entry = scripted(code, schedule='cron = "0 6 * * *"', argument=str(out))
    async with Run(root, entry, clock=lambda: BEGAN + timedelta(minutes=5)).working() as run:
        await run.until("ended with 0")
    assert any("goes on for 2025-03-01T06:00:00+00:00" in line for line in run.said)
    assert out.read_text().endswith(summary["run_id"])


def test_what_became_of_a_run(home: Home, record: Record) -> None:
    assert left_behind(home, BEGAN) == (None, None)
    record(0)
    assert left_behind(home, BEGAN + timedelta(hours=1)) == (None, None)
    assert left_behind(home, BEGAN) == (0, None)


def state_of(root: Path, memory: Memory) -> dict[str, object]:
    entry = scripted("", schedule='cron = "0 6 * * *"')
    return status([entry], {"nightly": memory}, root, BEGAN + timedelta(minutes=1), owner="process 1 on host")


def test_the_status_says_what_is_next_running_and_last(home: Home, record: Record) -> None:
    record(0)
    memory = Memory(settled=BEGAN, running=Running(due=BEGAN, started=BEGAN, first_started=BEGAN, pid=7), exits={"0": 3})
    state = state_of(home.path.parent, memory)
    head, _, line = lines(state)
    assert head.endswith("run by process 1 on host")
    assert line.split("  ")[:2] == ["nightly", "0 6 * * * UTC"]
    assert "2025-03-02 06:00:00Z" in line
    assert "since 2025-03-01 06:00:00Z" in line
    assert "90.0% [84.0%, 96.0%]" in line
    text = metrics(state)
    assert 'batchrun_schedule_runs_total{job="nightly",exit_code="0"} 3' in text
    assert 'batchrun_schedule_running{job="nightly"} 1' in text
    assert 'batchrun_schedule_last_accuracy_ratio{job="nightly",model="m"} 0.9' in text
    assert "<td>nightly</td>" in page(state)


async def asked(port: int, request: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.encode())
    answer = (await asyncio.wait_for(reader.read(), PATIENCE_S)).decode()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_the_status_page_answers_on_loopback_by_a_loopback_name_only(tmp_path: Path) -> None:
    state = state_of(tmp_path, Memory(settled=datetime.now(UTC)))
    async with served(0, lambda: state) as port:

        async def get(path: str, host: str = "localhost:1", method: str = "GET") -> str:
            return await asked(port, f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")

        assert "200 OK" in await get("/")
        assert '"schema_version":1' in await get("/status.json?x=1")
        assert "# TYPE batchrun_schedule_running gauge" in await get("/metrics", "127.0.0.1")
        assert "404" in await get("/etc")
        assert "405" in await get("/", method="POST")
        assert "403" in await get("/", "rebound.example")
        assert await asked(port, "nonsense\r\n\r\n") == ""
        assert await asked(port, "GET / HTTP/1.1\r\n" + "a: b\r\n" * 200) == ""


def test_signals_have_the_numbers_that_exit_codes_are_made_of() -> None:
    assert (128 + signal.SIGINT, 128 + signal.SIGTERM) == (130, 143)
