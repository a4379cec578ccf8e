"""A run's folder: its name, its lock, its manifest."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest

from batchrun.errors import RunLocked, StorageError, UsageError
from batchrun.job import Job, parse_job
from batchrun.records import Attempt
from batchrun.storage import lock as lock_module
from batchrun.storage.atomic import write_text
from batchrun.storage.folder import RunFolder, new_run_id, runs_of
from batchrun.storage.lock import STALE_S, Lock, Owner, owner_of
from batchrun.storage.manifest import LEFT_OUT, Counts, Identity, Manifest, public_job, public_location, without_credentials

NOW = datetime(2026, 11, 22, 15, 30, tzinfo=UTC)


def job(**overrides: object) -> Job:
    """Return a job with `overrides` (`a__b` for the path a.b)."""
    paths = [(path.replace("__", "."), value) for path, value in overrides.items()]
    return parse_job('name = "weather"\ndataset = "rows.jsonl"\n[request]\nmodel = ["m"]', overrides=paths)


def manifest(**fields: object) -> Manifest:
    """Return a manifest of a run that has begun."""
    kept, left_out = public_job(job())
    values: dict[str, object] = {
        "run_id": "20261122T153000Z-abc123",
        "job_name": "weather",
        "job": kept,
        "left_out": left_out,
        "identity": Identity.of(job(), "d1", simulated=False),
        "state": "running",
        "started_at": NOW.isoformat(),
    }
    return Manifest(**{**values, **fields})  # type: ignore[arg-type]  # one dict of several types


def test_run_names_sort_by_time() -> None:
    """In UTC wherever the clock is, and two of one second differ."""
    assert new_run_id(NOW, b"\xab\xc1\x23") == "20261122T153000Z-abc123"
    assert new_run_id(NOW.astimezone(timezone(timedelta(hours=9))), b"\x00") == "20261122T153000Z-000000"[:-6] + "000000"
    names = [new_run_id(NOW + timedelta(seconds=step), bytes([255 - step])) for step in range(100)]
    assert names == sorted(names)


def test_the_layout_is_the_contracts(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "weather", "20261122T153000Z-abc123")
    assert folder.path == tmp_path / "weather" / "20261122T153000Z-abc123"
    assert folder.run_id == "20261122T153000Z-abc123"
    files = [folder.manifest, folder.journal, folder.results, folder.cost, folder.summary, folder.report, folder.junit]
    assert [path.name for path in files] == [
        "run.json",
        "journal",
        "results.parquet",
        "cost.parquet",
        "summary.json",
        "report.html",
        "junit.xml",
    ]


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\\b", "a\0b"])
def test_a_job_name_cannot_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        RunFolder.create(tmp_path, name, "x")


def test_a_folder_of_something_else_is_not_taken(tmp_path: Path) -> None:
    """`--out` takes an empty folder or a run's, never one whose files we might mix with or overwrite."""
    folder = RunFolder.create_at(tmp_path / "out")
    folder.write_manifest(manifest())
    assert RunFolder.create_at(tmp_path / "out") == folder
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "results.parquet").write_text("mine")
    with pytest.raises(UsageError, match=r"results\.parquet"):
        RunFolder.create_at(tmp_path / "precious")


def test_a_run_is_opened_by_its_folder_or_its_manifest(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "weather", "a")
    folder.write_manifest(manifest(counts=Counts(total=10, landed=3)))
    assert RunFolder.open(folder.path) == RunFolder.open(folder.manifest) == folder
    stored = folder.read_manifest()
    assert stored == manifest(counts=Counts(total=10, landed=3))
    assert stored.resolved_job() == job()
    with pytest.raises(UsageError, match="not the folder of a run"):
        RunFolder.open(tmp_path)


def test_a_run_opens_its_journal(tmp_path: Path, attempt: Callable[..., Attempt]) -> None:
    folder = RunFolder.create(tmp_path, "weather", "a")
    with folder.open_journal("shard-0003") as journal:
        journal.append(attempt(0))
    assert (folder.journal / "shard-0003-000001.journal").is_file()
    with folder.open_index() as index:
        assert index.landed(0)


def test_a_journal_without_a_manifest_is_nobodys(tmp_path: Path, attempt: Callable[..., Attempt]) -> None:
    """Segments in which nothing was written say nothing, and a run that has just begun has none."""
    folder = RunFolder.create(tmp_path, "weather", "a")
    folder.require_new()
    folder.journal.mkdir()
    (folder.journal / "local-000001.journal").touch()
    folder.require_new()
    with folder.open_journal() as journal:
        journal.append(attempt(0))
    with pytest.raises(UsageError, match=r"no run\.json") as caught:
        folder.require_new()
    assert "--out another folder" in str(caught.value.hint)


def test_runs_of_a_job_are_listed_oldest_first(tmp_path: Path) -> None:
    for name in ("20261122T2", "20261122T1"):
        RunFolder.create(tmp_path, "weather", name).write_manifest(manifest())
    RunFolder.create(tmp_path, "weather", "20261122T0")  # began and never got as far as a manifest
    assert [folder.run_id for folder in runs_of(tmp_path, "weather")] == ["20261122T1", "20261122T2"]
    assert list(runs_of(tmp_path, "other")) == []
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError):
        list(runs_of(tmp_path, "file"))


def test_a_folder_that_cannot_be_made_is_exit_4(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError) as caught:
        RunFolder.create(tmp_path / "file", "weather", "a")
    assert caught.value.hint


def test_a_broken_or_later_manifest_is_exit_4(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "weather", "a")
    for content, message in (
        ("{", "not a manifest"),
        ('{"run_id": 1}', "not a manifest"),
        ('{"schema_version": 99}', "later version"),
    ):
        folder.manifest.write_text(content)
        with pytest.raises(StorageError, match=message):
            folder.read_manifest()


def test_unknown_fields_of_a_manifest_are_ignored(tmp_path: Path) -> None:
    """A minor version may add fields; an older reader goes on."""
    folder = RunFolder.create(tmp_path, "weather", "a")
    folder.write_manifest(manifest())
    folder.manifest.write_bytes(folder.manifest.read_bytes().replace(b'"state"', b'"new_field": {"x": 1},\n  "state"'))
    assert folder.read_manifest() == manifest()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"request__model": ["other"]}, "models"),
        ({"request__system": "Be brief."}, "request"),
        ({"request__params": {"temperature": 0}}, "request"),
        ({"request__repeat": 2}, "repeats"),
        ({"select__limit": 5}, "rows"),
    ],
)
def test_a_changed_question_is_refused_on_resume(tmp_path: Path, change: dict[str, object], word: str) -> None:
    """Answers to different questions do not go into one result unasked; the message names what changed."""
    folder = RunFolder.create(tmp_path, "weather", "a")
    folder.write_manifest(manifest())
    with pytest.raises(UsageError, match=word) as caught:
        folder.require_same(Identity.of(job(**change), "d1", simulated=False))
    assert caught.value.exit_code == 2


def test_force_mixes_questions_and_never_places(tmp_path: Path) -> None:
    """What gives an ordinal its meaning is refused all the same; the hint does not recommend what would be refused."""
    folder = RunFolder.create(tmp_path, "weather", "a")
    folder.write_manifest(manifest())
    for allowed, digest in (({"request__system": "Be brief."}, "d1"), ({"select__limit": 5}, "d1"), ({}, "d2")):
        now = Identity.of(job(**allowed), digest, simulated=False)
        folder.require_same(now, force=True)
        with pytest.raises(UsageError) as caught:
            folder.require_same(now)
        assert "resume with --force" in str(caught.value.hint)
    for change, digest in (({"request__model": ["n"]}, "d2"), ({"request__repeat": 2}, "d1"), ({"select__limit": 5}, "d2")):
        now = Identity.of(job(**change), digest, simulated=False)
        for force in (False, True):
            with pytest.raises(UsageError) as caught:
                folder.require_same(now, force=force)
            assert "resume with --force" not in str(caught.value.hint)


def test_a_changed_dataset_or_simulation_is_refused_and_a_changed_limit_is_not(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "weather", "a")
    folder.write_manifest(manifest())
    folder.require_same(
        Identity.of(job(limits__rpm=10, request__cache="auto", endpoint__base_url="http://127.0.0.1"), "d1", simulated=False)
    )
    with pytest.raises(UsageError, match="the dataset, whether it is simulated"):
        folder.require_same(Identity.of(job(), "d2", simulated=True))


def test_no_credential_reaches_the_manifest(tmp_path: Path) -> None:
    """Whatever in a job looks like one is left out, and listed so that a resumed run can ask for it."""
    leaky = job(
        endpoint__headers={"X-Api-Key": "sk-1", "authorization": "Bearer sk-2", "x-team": "blue"},
        endpoint__base_url="https://user:sk-3@gateway.example/v1?x=1",
        endpoint__proxy="http://user:sk-4@proxy.example:3128",
        notify__webhook="https://hooks.example/services/sk-5?token=sk-6",
        dataset="https://data.example/rows.jsonl?X-Amz-Date=1&X-Amz-Signature=sk-7",
    )
    kept, left_out = public_job(leaky)
    folder = RunFolder.create(tmp_path, "weather", "a")
    folder.write_manifest(manifest(job=kept, left_out=left_out))
    text = folder.manifest.read_text()
    assert "sk-" not in text
    assert "blue" in text
    assert set(left_out) == {
        "endpoint.headers.X-Api-Key",
        "endpoint.headers.authorization",
        "endpoint.base_url",
        "endpoint.proxy",
        "notify.webhook",
        "dataset",
    }
    assert folder.read_manifest().resolved_job().dataset == "https://data.example/rows.jsonl"
    assert folder.read_manifest().resolved_job().endpoint.headers["X-Api-Key"] == LEFT_OUT
    assert leaky.endpoint.headers["X-Api-Key"] == "sk-1"
    for open_to_all in ("rows.jsonl", "s3://bucket/a?b", "https://data.example/rows.jsonl?download=true"):
        assert public_location(open_to_all) == open_to_all
    assert without_credentials("https://gateway.example/v1?x=1") == "https://gateway.example/v1?x=1"


HOLD = """
import sys
from pathlib import Path
from batchrun.storage.lock import Lock
lock = Lock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.readline()
"""


def test_a_second_run_is_told_who_holds_the_folder_and_takes_over_when_that_one_dies(tmp_path: Path) -> None:
    """Exit 7 while the owner lives; `kill -9` frees the folder at once, with nothing to clean up."""
    folder = RunFolder.create(tmp_path, "weather", "a")
    command = [sys.executable, "-c", HOLD, str(folder.lock_file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RunLocked, match=f"process {other.pid} on {socket.gethostname()}") as caught:
            folder.lock()
        assert caught.value.exit_code == 7
        other.kill()
    assert owner_of(folder.lock_file) is not None
    with folder.lock() as lock:
        owner = owner_of(folder.lock_file)
        assert owner is not None
        assert owner.pid == os.getpid()
        with pytest.raises(RunLocked):
            folder.lock()
    lock.release()
    assert owner_of(folder.lock_file) is None
    folder.lock().release()


def test_what_killed_writers_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    """Half a result, room kept free by workers: gone once the lock is held, and nothing else is, nor by a second comer."""
    folder = RunFolder.create(tmp_path, "weather", "a")
    folder.journal.mkdir()
    left = [".results.parquet.4711.partial", ".junit.xml.4711.partial"]
    left += [f"journal/.{name}" for name in ("local-000001.idx.4711.partial", "w1-000001.reserve", "w1-1a2b3c4d-000002.reserve")]
    kept = ["run.json", "results.parquet.1.partial", ".notes.partial", ".reserve", "journal/w1-000001.journal"]
    kept += ["journal/.local-000001-aabb.in_flight", "journal/deeper/.x.1.partial"]
    (folder.journal / "deeper").mkdir()
    with folder.lock():
        for name in left + kept:
            (folder.path / name).write_bytes(b"x")
        with pytest.raises(RunLocked):
            folder.lock()
        assert all((folder.path / name).exists() for name in left), "they may be the owner's"
    folder.lock().release()
    found = {path.relative_to(folder.path).as_posix() for path in folder.path.rglob("*") if path.is_file()}
    assert found == {*kept, "lock"}


def test_what_cannot_be_removed_is_exit_4_and_holds_no_lock(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "weather", "a")
    stuck = folder.path / ".results.parquet.4711.partial"
    stuck.mkdir()
    with pytest.raises(StorageError, match="cannot clear up"):
        folder.lock()
    stuck.rmdir()
    folder.lock().release()


def signed(path: Path, **fields: object) -> None:
    """Put an owner's signature in the lock file at `path`."""
    values: dict[str, object] = {"host": "elsewhere", "pid": 1, "started": None, "since": 1000.0, "beat": 1000.0}
    path.write_bytes(msgspec.json.encode(Owner(**{**values, **fields})))  # type: ignore[arg-type]  # one dict of several types


def test_an_owner_on_another_machine_counts_while_its_heart_beats(tmp_path: Path) -> None:
    """Where locks do not reach across machines, the heartbeat does; an old one means dead."""
    path = tmp_path / "lock"
    signed(path)
    with pytest.raises(RunLocked, match="process 1 on elsewhere, since 1970-01-01 00:16:40Z"):
        Lock(path, clock=lambda: 1000.0 + STALE_S - 1)
    Lock(path, clock=lambda: 1000.0 + STALE_S).release()


def without_flock(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Let `flock` fail with `code`."""

    def flock(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)


def test_without_flock_the_process_table_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks: a process of that number and start time is the owner, another one is not."""
    without_flock(monkeypatch, errno.ENOLCK)
    path, host = tmp_path / "lock", socket.gethostname()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        signed(path, host=host, pid=other.pid, started=lock_module._started(other.pid))
        with pytest.raises(RunLocked):
            Lock(path)
        signed(path, host=host, pid=other.pid, started="another")
        Lock(path).release()
        signed(path, host=host, pid=other.pid)
        monkeypatch.setattr(os, "kill", _denied)
        with pytest.raises(RunLocked):
            Lock(path)
        monkeypatch.undo()
        other.communicate(b"\n")
    without_flock(monkeypatch, errno.ENOTSUP)
    signed(path, host=host, pid=other.pid)
    Lock(path).release()
    signed(path, host=host, pid=os.getpid())
    Lock(path).release()
    assert lock_module._started(2**22 + 1) is None


def _denied(*_: object) -> None:
    raise PermissionError


def test_a_disk_that_cannot_lock_is_exit_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_flock(monkeypatch, errno.EIO)
    with pytest.raises(StorageError, match="cannot lock"):
        Lock(tmp_path / "lock")
    without_flock(monkeypatch, errno.EWOULDBLOCK)
    with pytest.raises(RunLocked, match="another process"):
        Lock(tmp_path / "lock")


def test_the_heart_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signature is renewed while the lock is held, and a disk that fails does not stop the holder."""
    monkeypatch.setattr(lock_module, "BEAT_EVERY_S", 0.001)
    ticks = iter(range(10**9))
    with Lock(tmp_path / "lock", clock=lambda: float(next(ticks))):
        for _ in range(1000):
            owner = owner_of(tmp_path / "lock")
            if owner is not None and owner.beat > 1:
                break
            time.sleep(0.005)
        else:
            pytest.fail("the heartbeat was never renewed")

        def failing(*_: object) -> int:
            raise OSError(errno.EIO, "I/O error")

        monkeypatch.setattr(os, "pwrite", failing)
        time.sleep(0.01)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "summary.json"
    write_text(path, "old \ud800")
    assert path.read_text() == "old \ufffd"

    def failing(_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(StorageError, match="No space left"):
        write_text(path, "new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["summary.json"]
    assert path.read_text() == "old \ufffd"
