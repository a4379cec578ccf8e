"""`scoring.stop_when` through the command: fewer calls, exit 0, an honest interval, resumable, the same for the same seed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from batchrun.errors import JobError
from batchrun.job import parse_job

ROWS = 1500
TOOL = {"name": "f", "input_schema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}}
QUICK = ("--set", "simulate.first_byte_ms=2", "--set", "simulate.token_ms=0", "--set", "simulate.faults={500=0.01}")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows that the draw must come from all over."""
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    rows = (
        {"id": f"r{n}", "prompt": f"say {n}", "tools": [TOOL], "expected": [{"name": "f", "arguments": {"n": n}}]}
        for n in range(ROWS)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def batchrun(*args: str) -> tuple[int, dict[str, Any], str]:
    """Run the command; return its exit code, the summary on stdout, and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "batchrun", *args, "--json"], capture_output=True, text=True, check=False, timeout=100
    )
    return done.returncode, json.loads(done.stdout) if done.stdout.startswith("{") else {}, done.stderr


def start(dataset: Path, out: Path, *args: str) -> tuple[int, dict[str, Any], str]:
    return batchrun("run", str(dataset), "--model", "claude-sonnet-4-20250514", "--simulate", "--out", str(out), *QUICK, *args)


def answered(out: Path) -> list[int]:
    return pl.read_parquet(out / "results.parquet", columns=["index"])["index"].to_list()


def test_it_stops_early_says_what_that_saved_and_names_the_interval(dataset: Path, tmp_path: Path) -> None:
    # Without faults: a row that waits for its next try holds back the verdicts drawn after it, and calls go on meanwhile.
    quiet = ("--set", "simulate.faults={}", "--set", "limits.concurrency=16")
    code, summary, words = start(dataset, tmp_path / "run", "--set", "scoring.stop_when.ci_half_width=0.06", *quiet)
    assert code == 0
    early = summary["stop_when"]
    calls = early["calls"]
    assert early["known"] is True
    assert calls["planned"] == ROWS
    assert 100 < calls["made"] == len(answered(tmp_path / "run")) < 700
    assert calls["saved"] == ROWS - calls["made"]
    assert float(early["saved_usd"]) > float(summary["models"][0]["cost"]["total_usd"])
    own, ordinary = summary["models"][0]["accuracy"], summary["models"][0]["accuracy_if_not_stopped"]
    assert (own["high"] - own["low"]) / 2 <= 0.06
    assert own["low"] < own["value"] < own["high"]
    assert "confidence sequence" in own["method"]
    assert "not valid where a run may stop early" in ordinary["method"]
    assert own["high"] - own["low"] > ordinary["high"] - ordinary["low"]
    assert "the answer is known" in words
    assert f"saved {calls['saved']:,} calls" in words
    assert "still to be made" not in words
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert manifest["state"] == "finished"
    assert manifest["stopped_because"] == "the answer is known"
    rows = answered(tmp_path / "run")
    assert sum(row >= ROWS // 2 for row in rows) / len(rows) == pytest.approx(0.5, abs=0.12), "rows from all over the dataset"


def test_a_finished_one_resumed_makes_no_call_and_a_narrower_rule_goes_on_with_the_same_draw(
    dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    _, first, _ = start(dataset, out, "--set", "scoring.stop_when.ci_half_width=0.1")
    code, again, _ = batchrun("resume", str(out))
    assert code == 0
    assert [session["sent"] for session in again["sessions"]] == [first["stop_when"]["calls"]["made"]]
    assert again["wall_s"] == first["wall_s"], "it took no longer for being looked at again"
    assert again["stop_when"] == first["stop_when"]
    assert again["models"][0]["accuracy"] == first["models"][0]["accuracy"]
    code, narrower, _ = batchrun("resume", str(out), "--set", "scoring.stop_when.ci_half_width=0.06")
    assert code == 0
    assert narrower["stop_when"]["calls"]["made"] > first["stop_when"]["calls"]["made"]
    _, straight, _ = start(dataset, tmp_path / "other", "--set", "scoring.stop_when.ci_half_width=0.06")
    shared = set(answered(out)) & set(answered(tmp_path / "other"))
    assert len(shared) >= min(len(answered(out)), straight["stop_when"]["calls"]["made"]), "both drew the same rows"


def test_a_budget_that_ends_it_first_is_said_and_resuming_goes_on(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    rule = ("--set", "scoring.stop_when.ci_half_width=0.06")
    code, summary, words = start(dataset, out, *rule, "--set", "limits.max_cost_usd=0.15")
    assert code == 6
    assert summary["stop_when"]["known"] is False
    assert summary["stop_when"]["calls"]["saved"] == 0
    assert "still to be made" in words
    code, resumed, _ = batchrun("resume", str(out), "--set", "limits.max_cost_usd=9")
    assert code == 0
    assert resumed["stop_when"]["known"] is True
    assert len(answered(out)) == len(set(answered(out))) == resumed["stop_when"]["calls"]["made"]


def test_it_stops_when_another_run_is_beaten(dataset: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    assert start(dataset, whole, "--limit", "600", "--set", "simulate.accuracy=0.95")[0] == 0
    rule = ("--set", f"scoring.stop_when.decided_against={whole}")
    code, summary, _ = start(dataset, tmp_path / "run", "--limit", "600", *rule, "--set", "simulate.accuracy=0.6")
    assert code == 0
    found = summary["stop_when"]["models"][0]
    assert found["reason"] == "decided"
    assert found["difference"]["high"] < 0
    assert summary["stop_when"]["calls"]["made"] < 300


def test_a_run_that_is_not_there_or_has_no_results_is_told_before_a_call(dataset: Path, tmp_path: Path) -> None:
    code, _, words = start(dataset, tmp_path / "run", "--set", f"scoring.stop_when.decided_against={tmp_path / 'none'}")
    assert code == 2
    assert "is not the folder of a run" in words


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[scoring]\nstop_when = {}", "nothing to stop for"),
        ("[scoring]\nstop_when = { ci_half_width = 0.1, alpha = 0 }", "more than 0"),
        ('[scoring]\nstop_when = { ci_half_width = 0.1 }\n[request]\nmode = "batches"', "one by one"),
        ("[scoring]\nstop_when = { ci_half_width = 0.1 }\n[engine]\nworkers = 2", "one process"),
    ],
)
def test_what_cannot_stop_early_is_refused(text: str, word: str) -> None:
    with pytest.raises(JobError, match=word):
        parse_job(f'name = "t"\ndataset = "d"\n{text}')
