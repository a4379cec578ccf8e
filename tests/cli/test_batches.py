"""`request.mode = "batches"` through the command: run, interrupt, resume, cancel; what the endpoint saw and what it cost."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from batchrun.job import Simulate
from batchrun.simulator import process

ROWS = 40
MODEL = "claude-sonnet-4-20250514"
Started = tuple[str, Path]


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Started]:
    """An endpoint whose batches take three seconds, and its access log."""
    log = tmp_path / "access.jsonl"
    with process.start(Simulate(first_byte_ms=1000, token_ms=0), access_log=log) as simulated:
        yield simulated.base_url, log


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'{{"id": "r{n}", "prompt": "say {n}", "expected": []}}\n' for n in range(ROWS)))
    return path


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "batchrun", *args]


def run(*args: str) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run(command(*args, "--json"), capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, json.loads(done.stdout) if done.stdout.startswith("{") else {}, done.stderr


def begin(dataset: Path, base_url: str, out: Path) -> list[str]:
    mode = ("--set", "request.mode=batches", "--set", "endpoint.auth=none")
    return ["run", str(dataset), "--model", MODEL, "--base-url", base_url, "--out", str(out), *mode]


def interrupted(args: list[str], out: Path) -> tuple[int, str]:
    """Start a run and send SIGINT once it has submitted its batch; return its exit code and stderr."""
    child = subprocess.Popen(command(*args), stderr=subprocess.PIPE, text=True)
    ledger, deadline = out / "batches.jsonl", time.monotonic() + 30
    while not (ledger.exists() and '"submitted"' in ledger.read_text()):
        assert time.monotonic() < deadline
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    _, words = child.communicate(timeout=30)
    return child.returncode, words


def submissions(log: Path) -> int:
    time.sleep(1.2)  # the log is flushed each second
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return sum((line["method"], line["path"], line["status"]) == ("POST", "/v1/messages/batches", 200) for line in lines)


def test_a_run_through_batches_gives_the_files_of_any_run_at_half_the_price(
    endpoint: Started, dataset: Path, tmp_path: Path
) -> None:
    base_url, log = endpoint
    code, summary, words = run(*begin(dataset, base_url, tmp_path / "run"))
    assert code == 0, words
    assert summary["rows"]["succeeded"] == ROWS
    rows = pl.read_parquet(tmp_path / "run" / "results.parquet")
    assert rows["index"].to_list() == list(range(ROWS)), "in input order, whatever order the results came in"
    assert rows["latency_ms"].null_count() == rows["ttft_ms"].null_count() == rows["queued_ms"].null_count() == ROWS
    assert rows["started_at"].null_count() == 0
    full = (rows["input_tokens"] * 3 + rows["output_tokens"] * 15) / 1_000_000  # dollars, at the model's list price
    assert float(summary["models"][0]["cost"]["total_usd"]) == pytest.approx(full.sum() / 2)
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert len(manifest["notes"]["sessions"][0]["batches"]) == 1
    assert submissions(log) == 1


def test_ctrl_c_leaves_the_batch_at_work_and_resume_fetches_it(endpoint: Started, dataset: Path, tmp_path: Path) -> None:
    base_url, log = endpoint
    out = tmp_path / "run"
    code, words = interrupted(begin(dataset, base_url, out), out)
    assert code == 130
    assert f"batchrun resume {out}" in words
    assert f"batchrun cancel {out}" in words
    code, summary, _ = run("resume", str(out))
    assert code == 0
    assert summary["rows"]["succeeded"] == ROWS
    assert submissions(log) == 1


def test_cancel_lands_what_is_there_and_resume_makes_the_rest(endpoint: Started, dataset: Path, tmp_path: Path) -> None:
    base_url, log = endpoint
    out = tmp_path / "run"
    interrupted(begin(dataset, base_url, out), out)
    code, summary, _ = run("cancel", str(out))
    assert code == 0
    assert summary["rows"]["canceled"] > 0
    assert summary["rows"]["canceled"] + summary["rows"]["succeeded"] == ROWS
    code, resumed, _ = run("resume", str(out))
    assert code == 0
    assert resumed["rows"]["succeeded"] == ROWS
    assert submissions(log) == 2


def test_cancel_beside_a_live_run_has_that_run_land_it(endpoint: Started, dataset: Path, tmp_path: Path) -> None:
    base_url, _ = endpoint
    out = tmp_path / "run"
    live = subprocess.Popen(command(*begin(dataset, base_url, out)), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not ((out / "batches.jsonl").exists() and '"submitted"' in (out / "batches.jsonl").read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    code, _, words = run("cancel", str(out))
    assert code == 0, words
    assert "asked for 1 batches to be stopped" in words
    _, said = live.communicate(timeout=30)
    assert "was cancelled" in said
    assert live.returncode == 130


def test_an_interrupted_pilot_says_where_its_batch_is_and_what_going_on_means(
    endpoint: Started, dataset: Path, tmp_path: Path
) -> None:
    base_url, log = endpoint
    out = tmp_path / "pilot"
    pilot = ["estimate", *begin(dataset, base_url, out)[1:], "--pilot", "10", "--count-tokens", "off"]
    code, words = interrupted(pilot, out)
    assert code == 130
    assert "not fetched: 1 (10 calls)" in words
    assert f"batchrun cancel {out}" in words
    assert f"`batchrun resume {out}` makes all {ROWS} calls of the run and not the pilot's alone" in words
    code, summary, _ = run("resume", str(out))
    assert code == 0
    assert summary["rows"]["succeeded"] == ROWS
    assert submissions(log) == 2
