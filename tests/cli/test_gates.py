"""A job's runs over time through the command line: gates, history, overlap and the order of exit codes, on simulated runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60
JOB = f"""
name = "nightly"
dataset = "{ROOT / "datasets" / "weather.jsonl"}"
[request]
model = "claude-sonnet-4-20250514"
[limits]
max_error_rate = 0.1
max_attempts = 1
[gate]
min_accuracy = 0.2
no_regression = {{ against = "last", alpha = 0.05 }}
[simulate]
seed = 1
accuracy = 0.95
first_byte_ms = 0
token_ms = 0
"""
WORSE = ("simulate.accuracy=0.3",)
OUTAGE = ("simulate.faults.500=0.25",)
BLACKOUT = ("simulate.faults.500=0.7",)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a job file in it, from which the command is run."""
    (tmp_path / "nightly.toml").write_text(JOB)
    return tmp_path


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "batchrun", *words]


def batchrun(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), cwd=place, capture_output=True, text=True, check=False, timeout=PATIENCE_S)


def ran(place: Path, sets: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    flags = [part for assignment in sets for part in ("--set", assignment)]
    return batchrun(place, "run", "nightly.toml", "--simulate", "--json", "-q", *flags)


def history(place: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(batchrun(place, "history", "nightly", "--json").stdout)
    return value


def test_a_week_with_an_outage_and_a_regression(place: Path) -> None:
    """The outage ends with 5 and is no regression; the regression ends with 8, and so again until a good run."""
    week = [(), BLACKOUT, OUTAGE, (), WORSE, WORSE, ()]
    done = [ran(place, sets) for sets in week]
    assert [each.returncode for each in done] == [0, 5, 5, 0, 8, 8, 0], done[2].stderr + done[4].stderr
    outage, regression = done[2], done[4]
    assert "rows errored" in outage.stderr
    assert "regression" not in outage.stderr
    gates = {gate["name"]: gate for gate in json.loads(outage.stdout)["gates"]}
    assert gates["no_regression"]["passed"]
    assert regression.stderr.startswith("error: gate no_regression failed: -")
    assert "over 26 shared rows, p = " in regression.stderr
    rows = history(place)["runs"]
    assert [row["exit_code"] for row in rows] == [0, 5, 5, 0, 8, 8, 0]
    assert rows[2]["errored"] > 5
    assert json.loads(rows[2]["outcomes"])["infra_error"] == rows[2]["errored"]
    table = batchrun(place, "history", "nightly").stdout
    assert "failed: no_regression" in table
    assert "rows: outside accuracy" in table
    assert batchrun(place, "history", "nightly", "--html", "history.html").stdout == "history.html\n"
    assert rows[-1]["run_id"] in (place / "history.html").read_text()


def test_the_gates_are_in_the_summary_and_on_the_page(place: Path) -> None:
    done = ran(place, ["gate.max_p95_latency_ms=0.001"])
    assert done.returncode == 8
    (folder,) = (path for path in (place / "reports" / "nightly").iterdir() if path.is_dir())
    gate = json.loads((folder / "summary.json").read_text())["gates"][1]
    assert (gate["name"], gate["passed"]) == ("max_p95_latency_ms", False)
    assert "max_p95_latency_ms" in (folder / "report.html").read_text()


def test_a_baseline_is_set_compared_with_and_unset(place: Path) -> None:
    ran(place)
    run = history(place)["runs"][0]["run_id"]
    assert batchrun(place, "history", "nightly.toml", "--baseline", f"reports/nightly/{run}").stdout == f"baseline: {run}\n"
    against = 'gate.no_regression.against="baseline"'
    assert ran(place, [against, *WORSE]).returncode == 8
    assert batchrun(place, "history", "reports/nightly", "--no-baseline").stdout == "baseline: none\n"
    assert ran(place, [against, *WORSE]).returncode == 0


def test_a_gate_against_a_run_that_is_not_there_is_found_out_before_anything_is_sent(place: Path) -> None:
    done = ran(place, ['gate.no_regression.against="reports/nowhere"'])
    assert done.returncode == 2
    assert "there is no finished run reports/nowhere" in done.stderr
    assert not (place / "reports").exists()


def test_a_failure_before_the_first_call_is_remembered_and_told(place: Path) -> None:
    """A scheduled job whose dataset is gone must not fail in silence; and its recovery is told too."""
    told = place / "told.jsonl"
    script = f"import sys; open({str(told)!r}, 'a').write(sys.stdin.read() + chr(10))"
    notify = [f"notify.command={json.dumps([sys.executable, '-c', script])}", 'notify.on=["failure", "recovery"]']
    assert ran(place, notify).returncode == 0
    assert ran(place, [*notify, "dataset=gone.jsonl"]).returncode == 2
    assert ran(place, notify).returncode == 0
    assert ran(place, notify).returncode == 0
    assert [(json.loads(line)["event"], json.loads(line)["exit_code"]) for line in told.read_text().splitlines()] == [
        ("failure", 2),
        ("recovery", 0),
    ]
    assert [row["exit_code"] for row in history(place)["runs"]] == [0, 2, 0, 0]


def test_a_notification_that_fails_is_a_warning_and_changes_no_exit_code(place: Path) -> None:
    done = ran(place, ['notify.webhook="http://127.0.0.1:1/T000/SECRET"', "notify.on=always", "notify.retries=0"])
    assert done.returncode == 0
    assert "warning: the notification webhook failed: 127.0.0.1 cannot be reached" in done.stderr
    written = [path.read_bytes() for path in place.rglob("*") if path.is_file()]
    assert "T000/SECRET" not in done.stderr + done.stdout
    assert not any(b"T000/SECRET" in content for content in written)


def test_runs_of_one_job_do_not_overlap_and_a_killed_one_holds_nobody_up(place: Path) -> None:
    slow = ("--set", "simulate.first_byte_ms=20000", "--set", "limits.grace_s=0")
    words = command("run", "nightly.toml", "--simulate", "-q", *slow)
    with subprocess.Popen(words, cwd=place, start_new_session=True, stderr=subprocess.DEVNULL) as first:
        try:
            _until(lambda: len(list(place.glob("reports/nightly/*/journal/*"))) > 0)
            second = ran(place)
            assert second.returncode == 7
            assert f"is in use by process {first.pid} on" in second.stderr
            assert ran(place, ["out=elsewhere"]).returncode == 0
        finally:
            os.killpg(first.pid, signal.SIGKILL)
    assert ran(place).returncode == 0


def test_a_stopped_run_is_a_row_that_its_resumption_replaces(place: Path) -> None:
    slow = ("--set", "simulate.first_byte_ms=20000", "--set", "limits.grace_s=0")
    with subprocess.Popen(
        command("run", "nightly.toml", "--simulate", "-q", *slow), cwd=place, stderr=subprocess.DEVNULL
    ) as first:
        _until(lambda: len(list(place.glob("reports/nightly/*/journal/*"))) > 0)
        time.sleep(0.5)  # its signal handlers are set after the journal is opened
        first.terminate()
        assert first.wait(PATIENCE_S) == 143
    (row,) = history(place)["runs"]
    assert (row["exit_code"], row["stopped"], row["gates"]) == (143, "stopped by SIGTERM", None)
    done = batchrun(place, "resume", f"reports/nightly/{row['run_id']}", "-q", "--set", "simulate.first_byte_ms=0")
    assert done.returncode == 0, done.stderr
    (row,) = history(place)["runs"]
    assert (row["exit_code"], row["gates_passed"]) == (0, True)


def test_old_runs_go_and_the_last_good_one_stays(place: Path) -> None:
    keep = ["history.keep_runs=1"]
    assert ran(place, keep).returncode == 0
    good = history(place)["runs"][0]["run_id"]
    for _ in range(2):
        assert ran(place, [*keep, "gate.max_p95_latency_ms=0.001"]).returncode == 8
    runs = history(place)["runs"]
    kept = {path.name for path in (place / "reports" / "nightly").iterdir() if path.is_dir()}
    assert kept == {good, runs[-1]["run_id"]}
    assert len(runs) == 3


def test_a_job_without_a_history_says_so(place: Path) -> None:
    done = batchrun(place, "history", "nightly")
    assert done.returncode == 2
    assert "there is no history" in done.stderr


def _until(true: Any) -> None:
    """Wait for another process, for a bounded time."""
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_run_that_is_scored_again_is_judged_again(place: Path) -> None:
    """`score RUN` keeps the gates, against the runs before this one, and exits as they say."""
    assert ran(place).returncode == 0
    assert ran(place, WORSE).returncode == 8
    assert ran(place).returncode == 0
    first, worse, _ = (place / "reports" / "nightly" / run["run_id"] for run in history(place)["runs"])
    kept = json.loads((worse / "summary.json").read_text())["gates"]
    again = batchrun(place, "score", str(worse))
    assert again.returncode == 8
    assert "gate no_regression failed" in again.stderr
    assert json.loads((worse / "summary.json").read_text())["gates"] == kept
    assert batchrun(place, "score", str(first), "--set", "gate.max_p95_latency_ms=0.001").returncode == 8
    assert batchrun(place, "score", str(first), "--set", "gate.max_p95_latency_ms=60000").returncode == 0
    assert len(history(place)["runs"]) == 3
