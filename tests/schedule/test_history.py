"""The memory of a job: a row a run, replaced when the run is resumed; who may write it; the baseline; trends."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from batchrun.errors import RunLocked, StorageError, UsageError
from batchrun.job import with_overrides
from batchrun.prepare import load_job
from batchrun.schedule.history import Home, commit_of, failed_rows, rows_of
from batchrun.schedule.trend import changes, remark, sparkline, trends
from batchrun.storage.folder import RunFolder

from .conftest import Record, job, summary_of


def test_a_run_is_a_row_with_its_figures(home: Home, record: Record) -> None:
    record(0, right=90)
    (row,) = home.rows()
    assert row["run_id"] == "20250301T060000Z-000000"
    assert (row["model"], row["exit_code"], row["rows"], row["errored"]) == ("m", 0, 100, 0)
    assert (row["accuracy"], row["accuracy_low"]) == (0.9, pytest.approx(0.84))
    assert row["cost_usd"] == Decimal("0.500000000")
    assert row["outcomes"] == '{"correct":90,"wrong_call":10}'
    assert row["started_at"] == datetime(2025, 3, 1, 6, tzinfo=UTC)
    assert row["gates_passed"] is None


def test_rows_are_read_oldest_first_and_a_resumed_run_replaces_its_row(home: Home, record: Record) -> None:
    record(1, exit_code=143)
    record(0)
    record(1, exit_code=0)
    assert [(row["run_id"][:8], row["exit_code"]) for row in home.rows()] == [("20250301", 0), ("20250302", 0)]


def test_gates_are_in_the_row(home: Home) -> None:
    summary = {**summary_of(0), "gates": [{"name": "min_accuracy", "passed": False, "detail": "…"}]}
    home.record(rows_of(summary, exit_code=8, finished=datetime.now(UTC), environ={"GITHUB_SHA": "abc"}))
    (row,) = home.rows()
    assert row["gates_passed"] is False
    assert row["git_commit"] == "abc"
    assert remark(row) == "failed: min_accuracy"


def test_a_commit_is_what_the_environment_says() -> None:
    assert commit_of({}) is None
    assert commit_of({"GIT_COMMIT": "1", "CI_COMMIT_SHA": "2"}) == "1"


def test_a_relative_path_seen_from_a_removed_folder_is_an_error_of_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(StorageError, match="r/e: cannot find"):
        Home.of(with_overrides(job(), [("out", "r/e")]), tmp_path)
    with pytest.raises(StorageError, match=r"rows\.jsonl: cannot find"):
        load_job("rows.jsonl", overrides=[("request.model", ["m"])])
    assert load_job(f"{tmp_path}/rows.jsonl", overrides=[("request.model", ["m"])]).dataset == f"{tmp_path}/rows.jsonl"


def test_a_failure_before_the_first_call_is_a_row_without_figures(home: Home, record: Record) -> None:
    record(0)
    moment = datetime(2025, 3, 2, 6, tzinfo=UTC)
    home.record(failed_rows(job(), "20250302T060000Z-ffffff", "no dataset", exit_code=2, moment=moment, simulated=False))
    row = home.rows()[-1]
    assert (row["exit_code"], row["stopped"], row["accuracy"]) == (2, "no dataset", None)
    assert remark(row) == "no dataset"


def test_no_history_is_no_rows_and_a_broken_one_is_an_error(home: Home) -> None:
    assert home.rows() == []
    home.path.mkdir(parents=True)
    home.table.write_bytes(b"PAR1 no")
    with pytest.raises(StorageError):
        home.rows()


def test_the_home_of_a_job(tmp_path: Path) -> None:
    """Runs go home by themselves and when they are resumed; with `--out` elsewhere they leave no trace there."""
    root = tmp_path / "reports"
    assert Home.of(job(), root) == Home(path=root / "nightly")
    resumed = with_overrides(job(), [("out", str(root / "nightly" / "20250301T060000Z-000000"))])
    assert Home.of(resumed, Path("elsewhere")) == Home(path=root / "nightly")
    for out in (str(tmp_path / "x"), "s3://bucket/nightly/x"):
        assert Home.of(with_overrides(job(), [("out", out)]), root) == Home(path=root / "nightly", owned=False)


def test_one_run_of_a_job_at_a_time(home: Home) -> None:
    with home.lock(), pytest.raises(RunLocked) as caught:
        home.lock()
    assert "nightly" in str(caught.value)
    assert "process" in str(caught.value)
    home.lock().release()


def test_the_baseline_is_a_run_with_results(home: Home, record: Record) -> None:
    summary = record(0)
    assert home.baseline() is None
    home.set_baseline(summary["run_id"])
    assert home.baseline() == summary["run_id"]
    with pytest.raises(UsageError):
        home.set_baseline("20990101T000000Z-000000")
    stopped = RunFolder(home.path / record(1, exit_code=6)["run_id"])
    stopped.write_manifest(msgspec.structs.replace(stopped.read_manifest(), state="stopped"))
    with pytest.raises(UsageError, match="is not a finished run"):
        home.set_baseline(stopped.run_id)
    home.set_baseline(None)
    assert home.baseline() is None
    home.baseline_file.write_text("[]")
    with pytest.raises(StorageError):
        home.baseline()


def test_a_trend_has_a_bar_a_run_and_a_dot_where_a_run_says_nothing(home: Home, record: Record) -> None:
    record(0, right=80)
    record(1, right=30, errored=60, exit_code=5)
    record(2, right=90)
    accuracy, cost, latency = trends(home.rows())
    assert (accuracy.name, accuracy.line, accuracy.words) == ("accuracy", "▁·█", "80.0% → 90.0%")
    assert (cost.name, cost.words) == ("cost a row", "$0.00500 → $0.00500")
    assert latency.line == "▄·▄"
    assert sparkline([]) == ""


def test_a_regression_is_a_change_and_an_outage_is_none(home: Home, record: Record) -> None:
    """Ten good days with an outage among them; then the model gets worse."""
    for day in range(10):
        outage = day == 4
        record(day, right=20 if outage else 90 + day % 2, errored=70 if outage else 0, exit_code=5 if outage else 0)
    assert changes(home.rows()) == []
    for day in range(10, 15):
        record(day, right=70 + day % 2, exit_code=8)
    (change,) = changes(home.rows())
    assert change.name == "accuracy"
    assert change.run_id.startswith("20250311")
    assert change.words.endswith("90.6% → 70.4%")
    assert remark(home.rows()[4]) == "no answer to 70 of 100 rows: outside accuracy"


def test_a_history_of_failures_alone_has_no_level(home: Home, record: Record) -> None:
    record(0, exit_code=143)
    assert changes(home.rows()) == []
    assert trends(home.rows())[0].words == "no run has one"
