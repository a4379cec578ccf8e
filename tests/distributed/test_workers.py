"""`--workers N` on one machine: the same results as one process, one set of limits, and any of the processes may die."""

import functools
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batchrun.errors import MissingExtra
from batchrun.job import Faults, Simulate
from batchrun.simulator import process

TOOL = {
    "name": "note",
    "description": "Keep a number.",
    "input_schema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
}
PATIENCE_S = 60.0
SIMULATED = "[simulate]\nfirst_byte_ms = 20\ntoken_ms = 0"
LOST = 80  # answers of 200 ms, at most: what may not have reached a journal
CLOCKS = ("queued_ms", "ttft_ms", "first_call_ms", "latency_ms", "started_at", "request_id", "message_id")


def wait_until(true: Callable[[], bool], why: str) -> None:
    """Wait for something that must happen."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, why
        time.sleep(0.02)


@dataclass
class Bench:
    """A folder, a dataset, an endpoint, and the means to run a job against them."""

    folder: Path
    base_url: str
    access_log: Path

    def write_rows(self, count: int) -> None:
        """Write a dataset; each row has a body of its own."""
        rows = (
            {"id": f"row-{n}", "prompt": f"Keep {n}.", "tools": [TOOL], "expected": [{"name": "note", "arguments": {"n": n}}]}
            for n in range(count)
        )
        (self.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def job(self, name: str, *lines: str) -> Path:
        """Write a job file; its run goes to the folder `name`."""
        path = self.folder / f"{name}.toml"
        base = (
            f'dataset = "rows.jsonl"\nout = "{self.folder / name}"',
            f'[endpoint]\nbase_url = "{self.base_url}"\nauth = "none"',
            '[request]\nmodel = ["model-a", "model-b"]\nmax_tokens = 100',
        )
        path.write_text("\n".join((*base, *lines)) + "\n")
        return path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the command."""
        return subprocess.Popen(
            [sys.executable, "-m", "batchrun", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            start_new_session=True,
        )

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run the command to its end and return what it said on stderr."""
        return self.end(self.start(*arguments), code=code)

    def end(self, command: subprocess.Popen[str], *, code: int) -> str:
        """Wait for the command's end and return what it said on stderr."""
        said, complained = command.communicate(timeout=PATIENCE_S)
        assert command.returncode == code, said + complained
        return complained

    def asked(self) -> int:
        """Return how many requests the endpoint has logged: it flushes every second."""
        return self.access_log.read_bytes().count(b"\n") if self.access_log.exists() else 0

    def landed(self, run: str) -> int:
        """Return how many bytes the journal of a run has."""
        return sum(path.stat().st_size for path in (self.folder / run / "journal").glob("*.journal"))

    def writers(self, run: str) -> set[str]:
        """Return who wrote segments of a run's journal."""
        return {path.name.partition("-")[0] for path in (self.folder / run / "journal").glob("*.journal")}

    def results(self, run: str) -> list[dict[str, Any]]:
        """Return the lines of a run's results."""
        rows: list[dict[str, Any]] = pq.read_table(self.folder / run / "results.parquet").to_pylist()
        return rows

    def manifest(self, run: str) -> Any:
        """Return a run's manifest."""
        return json.loads((self.folder / run / "run.json").read_text())

    def assert_every_row_once(self, run: str, rows: int) -> None:
        """Each (row, model) is in the results once, with an answer."""
        results = self.results(run)
        assert Counter(row["status"] for row in results) == {"succeeded": 2 * rows}
        assert len({(row["id"], row["model"]) for row in results}) == 2 * rows


def without_clocks(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return result lines without the columns that are the endpoint's or the moment's."""
    kept = [{name: value for name, value in row.items() if name not in CLOCKS} for row in rows]
    for row in kept:
        for call in row["tool_calls"]:
            call.pop("id")
    return kept


def has_asked(bench: Bench, count: int) -> bool:
    """Whether the endpoint has logged so many requests."""
    return bench.asked() >= count


def children(pid: int) -> list[int]:
    """Return the worker processes of a run."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found if b"batchrun.worker" in _command_line(int(child))]


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def is_running(pid: int) -> bool:
    """Whether the process is a worker that has not ended."""
    return b"batchrun.worker" in _command_line(pid)


def make_bench(folder: Path, **simulated: Any) -> Iterator[Bench]:
    """Yield a bench with an endpoint."""
    log = folder / "access.jsonl"
    with process.start(Simulate(**{"token_ms": 0, "first_byte_ms": 20, **simulated}), access_log=log) as endpoint:
        yield Bench(folder, endpoint.base_url, log)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """An endpoint that answers everything within 20 ms."""
    yield from make_bench(tmp_path)


@pytest.fixture
def failing_bench(tmp_path: Path) -> Iterator[Bench]:
    """An endpoint that answers nothing."""
    yield from make_bench(tmp_path, faults=Faults(http_500=1.0))


def kill(pid: int) -> None:
    """Kill as nothing can be caught."""
    os.kill(pid, signal.SIGKILL)


def test_two_workers_give_the_results_of_one_process(tmp_path: Path) -> None:
    """Every column but the clocks and the endpoint's ids is equal, and so are the reports' figures."""
    bench = Bench(tmp_path, "http://127.0.0.1:9", tmp_path / "none")
    bench.write_rows(150)
    bench.run("run", str(bench.job("one", SIMULATED)), "--simulate")
    slowly = "[limits]\nconcurrency = 4"  # or the first worker may be done before the second has begun
    bench.run("run", str(bench.job("two", slowly, SIMULATED)), "--simulate", "--workers", "2")
    assert without_clocks(bench.results("two")) == without_clocks(bench.results("one"))
    assert bench.writers("two") == {"w1", "w2"}
    one, two = (json.loads((tmp_path / run / "summary.json").read_text()) for run in ("one", "two"))
    assert two["rows"] == one["rows"]
    assert two["sessions"][0]["sent"] == 300


def test_repeats_and_selections_are_shared_out_like_any(tmp_path: Path) -> None:
    """Which repeat gets which answer is the endpoint's business: it answers the same prompt by how often it was asked before."""
    bench = Bench(tmp_path, "http://127.0.0.1:9", tmp_path / "none")
    bench.write_rows(60)
    more = ('repeat = 2\n[select]\nwhere = "index >= 30"\n[limits]\nconcurrency = 8', SIMULATED)
    for run, workers in (("one", "1"), ("three", "3")):
        bench.run("run", str(bench.job(run, *more)), "--simulate", "--workers", workers)
    one, three = (without_clocks(bench.results(run)) for run in ("one", "three"))
    assert [(row["index"], row["model"], row.pop("repeat")) for row in three] == [
        (row["index"], row["model"], row.pop("repeat")) for row in one
    ]
    assert sorted(map(repr, three)) == sorted(map(repr, one))
    assert len(three) == 30 * 4


def test_a_killed_worker_is_replaced_and_every_row_is_answered_once(bench: Bench) -> None:
    """Only what was in flight at the worker that died is asked again."""
    bench.write_rows(400)
    command = bench.start("run", str(bench.job("run", "[limits]\nconcurrency = 16")), "--workers", "2")
    wait_until(lambda: bench.landed("run") > 20_000, "nothing lands")
    kill(children(command.pid)[0])
    bench.end(command, code=0)
    bench.assert_every_row_once("run", 400)
    assert bench.writers("run") == {"w1", "w2", "w3"}
    wait_until(lambda: bench.asked() >= 800, "the log is not written")
    assert bench.asked() <= 800 + 8 + LOST


def test_a_killed_driver_takes_its_workers_along_and_the_run_is_resumed(bench: Bench) -> None:
    bench.write_rows(400)
    command = bench.start("run", str(bench.job("run", "[limits]\nconcurrency = 16")), "--workers", "2")
    wait_until(lambda: bench.landed("run") > 20_000, "nothing lands")
    workers = children(command.pid)
    kill(command.pid)
    command.communicate(timeout=PATIENCE_S)
    wait_until(lambda: not any(is_running(pid) for pid in workers), "workers go on without a driver")
    bench.run("resume", "run")
    bench.assert_every_row_once("run", 400)
    wait_until(lambda: bench.asked() >= 800, "the log is not written")
    assert bench.asked() <= 800 + 16 + LOST


def test_a_signal_drains_all_workers_and_nothing_is_asked_twice(bench: Bench) -> None:
    bench.write_rows(400)
    command = bench.start("run", str(bench.job("run", "[limits]\nconcurrency = 16")), "--workers", "2")
    wait_until(lambda: bench.landed("run") > 20_000, "nothing lands")
    command.send_signal(signal.SIGTERM)
    bench.end(command, code=143)
    assert bench.manifest("run")["state"] == "stopped"
    assert 0 < len(bench.results("run")) < 800
    bench.run("resume", "run")
    bench.assert_every_row_once("run", 400)
    wait_until(lambda: bench.asked() >= 800, "the log is not written")
    assert bench.asked() == 800


def test_the_rate_is_shared(bench: Bench) -> None:
    """By the endpoint's own log: 2 and 4 workers keep one rate, in any two seconds, and use it."""
    bench.write_rows(150)
    for workers in (2, 4):
        before = bench.asked()
        job = bench.job(f"run-{workers}", "[limits]\nrpm = 6000\nconcurrency = 32")
        bench.run("run", str(job), "--workers", str(workers))
        wait_until(functools.partial(has_asked, bench, before + 300), "the log is not written")
        times = sorted(json.loads(line)["at"] for line in bench.access_log.read_text().splitlines()[before:])
        assert max(bisect_left(times, at + 2.0) - place for place, at in enumerate(times)) <= 200 + 2 * 20 + workers
        assert times[-1] - times[0] < 300 / 100 * 1.5  # on a machine that does other things as well


PRICE = '[[prices.models]]\nmodel = "{}"\ninput = 0\noutput = 1000'


def test_the_budget_is_shared(bench: Bench) -> None:
    """A hundred tokens may cost 10 cents: two workers stop at the budget, below it, and most of it was used."""
    bench.write_rows(300)
    prices = (PRICE.format("model-a"), PRICE.format("model-b"))
    job = bench.job("run", "[limits]\nconcurrency = 8\nmax_cost_usd = 3.00", *prices)
    said = bench.run("run", str(job), "--workers", "2", code=6)
    assert "budget" in said
    spent = sum(row["cost_usd"] for row in bench.results("run"))
    assert 2.5 < spent <= 3
    bench.run("resume", "run", "--set", "limits.max_cost_usd=100")
    bench.assert_every_row_once("run", 300)


def test_errors_of_all_workers_stop_the_run(failing_bench: Bench) -> None:
    failing_bench.write_rows(100)
    limits = "[limits]\nconcurrency = 8\nmax_attempts = 1\nmax_consecutive_errors = 10000"
    said = failing_bench.run("run", str(failing_bench.job("run", limits)), "--workers", "2", code=5)
    assert "max_error_rate" in said


class Refusing(BaseHTTPRequestHandler):
    """Refuses the credential of every call."""

    protocol_version = "HTTP/1.1"
    asked = 0

    def do_POST(self) -> None:
        """Answer 401."""
        type(self).asked += 1
        self.rfile.read(int(self.headers["content-length"]))
        body = b'{"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}}'
        self.send_response(401)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_refused_worker_stops_all_and_the_credential_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "sk-" + "s3cret" * 5
    monkeypatch.setenv("ANTHROPIC_API_KEY", secret)
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        bench = Bench(tmp_path, f"http://127.0.0.1:{server.server_port}", tmp_path / "none")
        bench.write_rows(500)
        job = bench.job("run", "[limits]\nconcurrency = 8")
        job.write_text(job.read_text().replace('auth = "none"', 'auth = "x-api-key"'))
        said = bench.run("run", str(job), "--workers", "2", code=3)
        server.shutdown()
    assert "invalid x-api-key" in said
    assert secret not in said
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert Refusing.asked <= 30


has_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'batchrun[ray]'")
RAY = '[engine]\nkind = "ray"\nworkers = 2'


@has_ray
def test_ray_gives_the_results_of_one_process(tmp_path: Path) -> None:
    """A cluster of this machine alone: every column but the clocks and the endpoint's ids is equal."""
    bench = Bench(tmp_path, "http://127.0.0.1:9", tmp_path / "none")
    bench.write_rows(200)
    bench.run("run", str(bench.job("one", SIMULATED)), "--simulate")
    bench.run("run", str(bench.job("ray", SIMULATED, RAY, "[limits]\nrpm = 4000")), "--simulate")
    assert without_clocks(bench.results("ray")) == without_clocks(bench.results("one"))
    assert bench.writers("ray") == {"w1", "w2"}


@has_ray
def test_a_killed_actor_is_replaced_and_a_killed_driver_resumed(bench: Bench) -> None:
    """First a worker's process dies, then the driver's; every row is answered once in the end."""
    bench.write_rows(600)
    command = bench.start("run", str(bench.job("run", RAY, "[limits]\nconcurrency = 8\nrpm = 6000")))
    wait_until(lambda: bench.landed("run") > 20_000, "nothing lands")
    journal = bench.folder / "run" / "journal"
    wait_until(lambda: len(actors(journal)) == 2, "not both actors have begun")
    kill(actors(journal)[0])
    wait_until(lambda: "w3" in bench.writers("run"), "nobody takes its place")
    kill(command.pid)
    command.communicate(timeout=PATIENCE_S)
    wait_until(lambda: not actors(journal), "actors go on without a driver")
    bench.run("resume", "run", "--set", "engine.kind=local")
    bench.assert_every_row_once("run", 600)


def actors(journal: Path) -> list[int]:
    """Return the actors that write to a journal."""
    found = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal())
    return [pid for pid in found if b"ray::WorkerActor" in _command_line(pid) and _writes_to(pid, journal)]


def _writes_to(pid: int, journal: Path) -> bool:
    """Whether a process has a file of the folder open."""
    try:
        return any(one.readlink().parent == journal for one in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "batchrun.cluster", raising=False)
    with pytest.raises(MissingExtra) as raised:
        importlib.import_module("batchrun.cluster")
    assert raised.value.hint == "pip install 'batchrun[ray]'"
