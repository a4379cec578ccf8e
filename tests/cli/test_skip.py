"""`on_bad_row = "skip"`: the good rows are run, the bad ones are in the results as errored, and nothing else is let through."""

import json
from pathlib import Path

import polars as pl
import pytest

from batchrun.cli import main

TOOL = {"name": "f", "input_schema": {"type": "object", "properties": {"n": {"type": "integer"}}}}
GOOD = {"prompt": "say 1", "tools": [TOOL], "expected": [{"name": "f", "arguments": {"n": 1}}]}
QUICK = ("--simulate", "-q", "--set", "simulate.first_byte_ms=0", "--set", "simulate.token_ms=0", "--set", "simulate.accuracy=1")


def run(dataset: Path, *args: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["run", str(dataset), "--model", "m", "--set", "on_bad_row=skip", *QUICK, *args])
    return int(ended.value.code or 0)


def test_bad_rows_are_errored_and_the_rest_is_run_also_on_resume(tmp_path: Path) -> None:
    rows = [GOOD, {"tools": [TOOL]}, {**GOOD, "prompt": "two", "tools": [{"name": "no schema"}]}, {**GOOD, "prompt": "say one"}]
    dataset = tmp_path / "rows.jsonl"
    dataset.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    out = tmp_path / "run"
    for _ in range(2):
        assert run(dataset, "--out", str(out), "--set", "limits.max_error_rate=1") == 0
        results = pl.read_parquet(out / "results.parquet")
        assert results["status"].to_list() == ["succeeded", "errored", "errored", "succeeded", "errored"]
        assert results["outcome"].to_list() == ["correct", "infra_error", "infra_error", "correct", "infra_error"]
        assert all(
            str(index) in message for index, message in results.filter(status="errored").select("index", "error_message").rows()
        )


def test_check_says_what_a_run_skips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = tmp_path / "rows.jsonl"
    dataset.write_text(json.dumps(GOOD) + "\n{broken\n")
    for policy, code, words in (("skip", 0, "1 bad rows are skipped"), ("fail", 2, "1 errors: nothing can be sent")):
        with pytest.raises(SystemExit) as ended:
            main(["check", str(dataset), "--model", "m", "--set", f"on_bad_row={policy}"])
        assert int(ended.value.code or 0) == code
        told = capsys.readouterr()
        assert words in told.err
        assert "row 1 (line 2)" in told.out


def test_a_dataset_without_one_good_row_is_no_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = tmp_path / "rows.jsonl"
    dataset.write_text('{"id": "a", "prompt": "x", "messages": []}\n{broken\n')
    assert run(dataset, "--out", str(tmp_path / "run")) == 2
    said = capsys.readouterr().err
    assert "row 0" in said
    assert "row 1" in said
    assert not (tmp_path / "run").exists()
