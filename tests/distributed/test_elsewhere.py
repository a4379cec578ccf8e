"""Workers on other machines than the driver's: as processes of this one that do not see the run's folder."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs as pa_fs
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from batchrun.errors import UsageError
from batchrun.job import Job, RequestSpec
from batchrun.sources import open_dataset
from batchrun.storage.home import home_of
from batchrun.storage.index import JournalIndex
from batchrun.worker import Order, needed, of_storage, require_able
from tests.distributed.test_workers import (
    LOST,
    RAY,
    SIMULATED,
    Bench,
    children,
    has_ray,
    is_running,
    kill,
    make_bench,
    wait_until,
    without_clocks,
)

ELSEWHERE = textwrap.dedent("""
    import sys
    from contextlib import contextmanager
    from msgspec.structs import replace

    from batchrun import distribute
    from batchrun.cli import main

    home_of = distribute.home_of

    @contextmanager
    def elsewhere(folder, place):
        with home_of(folder, place) as home:
            yield replace(home, folder="/nowhere/" + folder.name)

    distribute.home_of = elsewhere
    main(sys.argv[1:])
""")
"""The command, whose workers look for the run's folder where there is none."""


class Elsewhere(Bench):
    """A bench whose workers are on other machines."""

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the command."""
        return subprocess.Popen(
            [sys.executable, "-c", ELSEWHERE, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            start_new_session=True,
        )

    def apart(self) -> list[Path]:
        """Return the segments on the workers' machines."""
        return list(self.folder.glob("spool/*/.workers/*/journal/*.journal"))

    def has_landed(self, size: int) -> bool:
        """Whether so many bytes have landed there."""
        return sum(path.stat().st_size for path in self.apart()) > size


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Elsewhere]:
    """An endpoint that answers everything within 20 ms."""
    for made in make_bench(tmp_path):
        yield Elsewhere(made.folder, made.base_url, made.access_log)


def assert_every_row_once(bucket: pa_fs.FileSystem, rows: int) -> None:
    """Each (row, model) is in the results once, with an answer."""
    results = pq.read_table(bucket.open_input_file("data/run/results.parquet"), columns=["id", "model", "status"]).to_pylist()
    assert len(results) == len({(row["id"], row["model"]) for row in results}) == 2 * rows
    assert {row["status"] for row in results} == {"succeeded"}


def test_their_answers_reach_a_run_in_a_bucket(tmp_path: Path, bucket: pa_fs.FileSystem) -> None:
    """The results are those of one process; gone on with where nothing is, no call is left to make."""
    nowhere = "http://127.0.0.1:9"
    bench, here = Elsewhere(tmp_path, nowhere, tmp_path / "none"), Bench(tmp_path, nowhere, tmp_path / "none")
    bench.write_rows(150)
    here.run("run", str(here.job("one", SIMULATED)), "--simulate")
    bench.run("run", str(bench.job("run", SIMULATED)), "--simulate", "--workers", "2", "--out", "s3://data/run")
    results = pq.read_table(bucket.open_input_file("data/run/results.parquet")).to_pylist()
    assert without_clocks(results) == without_clocks(here.results("one"))
    assert not bench.apart(), "what has arrived is not kept"
    segments = {info.base_name for info in bucket.get_file_info(pa_fs.FileSelector("data/run/journal"))}
    assert set() < {name.partition("-")[0] for name in segments} <= {"w1", "w2"}  # one may have come too late for any row
    shutil.rmtree(tmp_path / "spool")
    bench.run("resume", "s3://data/run")
    assert {info.base_name for info in bucket.get_file_info(pa_fs.FileSelector("data/run/journal"))} == segments


def test_what_a_killed_one_had_not_sent_is_asked_again(bench: Elsewhere, bucket: pa_fs.FileSystem) -> None:
    bench.write_rows(400)
    job = str(bench.job("run", "[limits]\nconcurrency = 16"))
    command = bench.start("run", job, "--workers", "2", "--out", "s3://data/run")
    wait_until(lambda: bench.has_landed(20_000), "nothing lands")
    kill(children(command.pid)[0])
    bench.end(command, code=0)
    assert_every_row_once(bucket, 400)
    assert len(bench.apart()) == 1, "it stays where it landed"


def test_a_killed_driver_is_followed_by_one_that_has_all_that_landed(bench: Elsewhere, bucket: pa_fs.FileSystem) -> None:
    """The workers end as soon as they notice; what they had no time to send goes up when their machine goes on with the run."""
    bench.write_rows(400)
    job = str(bench.job("run", "[limits]\nconcurrency = 16"))
    command = bench.start("run", job, "--workers", "2", "--out", "s3://data/run")
    wait_until(lambda: bench.has_landed(20_000), "nothing lands")
    workers = children(command.pid)
    kill(workers[0])
    kill(command.pid)
    command.communicate(timeout=60)
    wait_until(lambda: not any(is_running(pid) for pid in workers), "workers go on without a driver")
    bench.run("resume", "s3://data/run")
    assert_every_row_once(bucket, 400)
    wait_until(lambda: bench.asked() >= 800, "the log is not written")
    assert bench.asked() <= 800 + 16 + LOST
    assert not bench.apart()


def test_a_run_on_this_disk_alone_is_refused_before_any_call(bench: Elsewhere) -> None:
    bench.write_rows(40)
    said = bench.run("run", str(bench.job("run")), "--workers", "2", code=2)
    assert "does not see the run's folder" in said
    assert "--out s3://" in said
    assert bench.asked() == 0


@has_ray
def test_actors_elsewhere_land_in_the_bucket_though_one_is_killed(bench: Elsewhere, bucket: pa_fs.FileSystem) -> None:
    """What the dead one had not sent is asked again, and its place is taken."""
    bench.write_rows(500)
    command = bench.start("run", str(bench.job("run", RAY, "[limits]\nconcurrency = 8\nrpm = 6000")), "--out", "s3://data/run")
    wait_until(lambda: len(bench.apart()) == 2 and bench.has_landed(20_000), "not both actors have begun")
    kill(next(pid for pid in actors() if holds(pid, bench.apart()[0])))
    bench.end(command, code=0)
    assert_every_row_once(bucket, 500)
    segments = {info.base_name for info in bucket.get_file_info(pa_fs.FileSelector("data/run/journal"))}
    assert {"w3"} < {name.partition("-")[0] for name in segments}


@has_ray
def test_a_cluster_that_does_not_share_the_folder_is_refused_before_any_call(bench: Elsewhere) -> None:
    bench.write_rows(40)
    said = bench.run("run", str(bench.job("run", RAY)), code=2)
    assert "of the Ray cluster cannot work on this run" in said
    assert "does not see the run's folder" in said
    assert bench.asked() == 0


def actors() -> list[int]:
    """Return the actors of this machine."""
    found = (path for path in Path("/proc").iterdir() if path.name.isdecimal())
    return [int(path.name) for path in found if b"ray::WorkerActor" in _read(path / "cmdline")]


def holds(pid: int, path: Path) -> bool:
    """Whether a process has a file open."""
    try:
        return any(os.path.realpath(link) == str(path) for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


class Machine:
    """A driver's machine and another one, with a run and a dataset."""

    def __init__(self, folder: Path, order: Order) -> None:
        """Keep the driver's view."""
        self.rows = folder / "rows.jsonl"
        self.order = order

    def refuses(self, *, thorough: bool = True) -> str:
        """Return why the machine cannot do its part, "" where it can."""
        try:
            require_able(self.order, thorough=thorough)
        except UsageError as refused:
            return f"{refused} | {refused.hint}"
        return ""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine that can."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": str(n)}) + "\n" for n in range(10, 20)))
    dataset = open_dataset(str(rows))
    job = Job(name="j", dataset=str(rows), request=RequestSpec(model=("m",)))
    with home_of(tmp_path, None) as home:
        order = Order(
            name="w0",
            workers=1,
            job=job,
            home=home,
            environ={},
            price_text=None,
            bad_rows={},
            landed=JournalIndex(None).told(),
            stamp=dataset.stamp(),
            digest=dataset.digest(),
            retry_errors=False,
        )
        yield Machine(tmp_path, order)


def test_a_machine_with_a_copy_of_the_dataset_is_able(machine: Machine) -> None:
    """The same bytes, at another time; an address is read by whoever can."""
    assert machine.refuses() == ""
    os.utime(machine.rows, (1, 1))
    assert machine.refuses() == ""
    machine.order = replace(machine.order, stamp=None)
    assert machine.refuses() == ""


def test_a_machine_with_another_dataset_is_not(machine: Machine) -> None:
    """Of another size it is told at once, of the same size by its content, at the survey."""
    content = machine.rows.read_text()
    machine.rows.write_text(content.replace("10", "99"))
    assert "is another dataset on" in machine.refuses()
    assert machine.refuses(thorough=False) == ""
    machine.rows.write_text(content + content)
    assert "is another dataset on" in machine.refuses(thorough=False)
    machine.rows.unlink()
    assert "there is no such file | put it in a folder that all machines share" in machine.refuses(thorough=False)


def test_an_endpoint_of_the_drivers_machine_alone_is_told(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        job = machine.order.job
        endpoint = replace(job.endpoint, base_url=f"http://127.0.0.1:{port}")
        machine.order = replace(machine.order, job=replace(job, endpoint=endpoint))
        assert machine.refuses() == ""
    assert f"nothing answers at http://127.0.0.1:{port} on {socket.gethostname()}" in machine.refuses()
    assert machine.refuses(thorough=False) == ""


def test_what_leads_to_a_bucket_goes_with_the_order() -> None:
    environ = {"AWS_ACCESS_KEY_ID": "a", "HF_TOKEN": "h", "HOME": "/root", "ANTHROPIC_API_KEY": "k"}
    assert needed(environ) == {"AWS_ACCESS_KEY_ID": "a", "HF_TOKEN": "h", "ANTHROPIC_API_KEY": "k"}
    assert of_storage(environ) == {"AWS_ACCESS_KEY_ID": "a", "HF_TOKEN": "h"}
