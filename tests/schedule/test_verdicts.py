"""What a run is held against, and that a provider's outage is never a model's regression."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from batchrun.errors import GateFailed, UsageError
from batchrun.job import Gate
from batchrun.schedule.gates import Verdict, judge, require
from batchrun.schedule.history import Home
from batchrun.schedule.verdicts import reference, standard_error, verdicts

from .conftest import Record, job


def gate(text: str) -> Gate:
    return job(f"[gate]\n{text}").gate


REGRESSION = gate('no_regression = { against = "last", alpha = 0.05 }')


def only(found: list[Verdict]) -> Verdict:
    (verdict,) = found
    return verdict


def test_the_first_run_has_nothing_to_lose(home: Home, record: Record) -> None:
    verdict = only(verdicts(REGRESSION, home, record(0)))
    assert (verdict.passed, verdict.detail) == (True, "there is no earlier good run yet")


def test_a_significant_loss_on_shared_rows_fails(home: Home, record: Record) -> None:
    record(0, right=90)
    verdict = only(verdicts(REGRESSION, home, record(1, right=70)))
    assert not verdict.passed
    assert "-20.0% against 20250301T060000Z-000000 over 100 shared rows, p = " in verdict.detail


def test_a_loss_within_noise_passes(home: Home, record: Record) -> None:
    record(0, right=90)
    assert only(verdicts(REGRESSION, home, record(1, right=87))).passed


def test_an_outage_is_not_called_a_regression(home: Home, record: Record) -> None:
    """Half of the rows have no answer; the others are answered as ever."""
    record(0, right=90)
    outage = record(1, right=45, errored=50)
    assert only(verdicts(REGRESSION, home, outage)).passed
    assert not only(verdicts(gate("max_error_rate = 0.05"), home, outage)).passed


def test_a_total_outage_is_no_regression_and_no_pass_of_an_accuracy_gate(home: Home, record: Record) -> None:
    record(0, right=90)
    outage = record(1, right=0, errored=100)
    assert only(verdicts(REGRESSION, home, outage)).passed
    assert not only(verdicts(gate("min_accuracy = 0.5"), home, outage)).passed
    assert not only(verdicts(gate("max_drift_sd = 3"), home, outage)).passed


def test_last_is_the_last_good_run_of_the_same_kind_with_results(home: Home, record: Record) -> None:
    good = record(0, right=90)
    record(1, right=60, exit_code=8)
    record(2, right=60, exit_code=5, errored=10)
    record(3, right=60, simulated=True)
    record(4, right=60, results=False)
    chosen = reference(REGRESSION, home, record(5))
    assert chosen.folder is not None
    assert chosen.folder.name == good["run_id"]


def test_last_prefers_the_same_dataset_and_says_when_there_is_only_another(home: Home, record: Record) -> None:
    same = record(0, digest="d2")
    record(1, digest="d1")
    now = record(2, digest="d2")
    assert reference(REGRESSION, home, now).folder == home.path / same["run_id"]
    changed = record(3, digest="d3")
    assert "the dataset has changed since" in only(verdicts(REGRESSION, home, changed)).detail


def test_the_baseline_and_a_named_run(home: Home, record: Record, tmp_path: Path) -> None:
    first, second = record(0, right=90), record(1, right=70)
    now = record(2, right=70)
    against_baseline = gate('no_regression = { against = "baseline" }')
    assert "no baseline is set" in only(verdicts(against_baseline, home, now)).detail
    home.set_baseline(first["run_id"])
    assert not only(verdicts(against_baseline, home, now)).passed
    for name in (second["run_id"], str(home.path / second["run_id"])):
        assert only(verdicts(gate(f'no_regression = {{ against = "{name}" }}'), home, now)).passed
    with pytest.raises(UsageError):
        reference(gate(f'no_regression = {{ against = "{tmp_path}/none" }}'), home)


def test_a_run_of_which_nothing_can_be_held_against_the_chosen_one_fails(home: Home, record: Record) -> None:
    """Else a gate stays green for ever once the ids have changed. An outage passes still: it has a gate of its own."""
    outage, good = record(0, right=0, errored=100), record(1, right=90)
    against_outage = gate(f'no_regression = {{ against = "{outage["run_id"]}" }}')
    verdict = only(verdicts(against_outage, home, record(2, right=90)))
    assert not verdict.passed
    assert verdict.detail.startswith("no row has a verdict in both this run and")
    assert only(verdicts(against_outage, home, record(3, right=0, errored=100))).passed
    results = home.path / good["run_id"] / "results.parquet"
    pl.read_parquet(results).with_columns(id="x" + pl.col("id")).write_parquet(results)
    verdict = only(verdicts(gate(f'no_regression = {{ against = "{good["run_id"]}" }}'), home, record(4, right=90)))
    assert not verdict.passed
    assert "the two runs share no row" in verdict.detail


def test_the_last_run_having_no_row_of_this_ones_is_no_loss(home: Home, record: Record) -> None:
    """The dataset was replaced: this run is the first of its kind, and the one that the next is held against."""
    good = record(0, digest="d1")
    results = home.path / good["run_id"] / "results.parquet"
    pl.read_parquet(results).with_columns(id="x" + pl.col("id")).write_parquet(results)
    assert only(verdicts(REGRESSION, home, record(1, digest="d2"))).passed


def test_drift_is_measured_against_the_runs_before(home: Home, record: Record) -> None:
    drifting = gate("max_drift_sd = 3")
    for day in range(3):
        assert only(verdicts(drifting, home, record(day, right=90 + day % 2))).passed
    record(3, right=20, errored=50, exit_code=5)
    record(4, right=10, digest="d2")
    verdict = only(verdicts(drifting, home, record(5, right=60)))
    assert not verdict.passed
    assert "from 90.3%, the mean of 3 runs" in verdict.detail
    assert only(verdicts(drifting, home, record(6, right=89))).passed


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        ("min_accuracy = 0.9", True),
        ("min_accuracy = 0.91", False),
        ('min_accuracy = 0.85\non = "lower"', False),
        ('min_accuracy = 0.84\non = "lower"', True),
        ("max_error_rate = 0", True),
        ("max_cost_usd = 0.5", True),
        ("max_cost_usd = 0.49", False),
        ("max_p95_latency_ms = 200", True),
        ("max_p95_latency_ms = 199", False),
    ],
)
def test_figures_against_their_bounds(home: Home, record: Record, text: str, passed: bool) -> None:  # noqa: FBT001 - a parameter of the table above
    assert only(verdicts(gate(text), home, record(0, right=90))).passed is passed


def test_an_accuracy_gate_says_which_end_it_is_held_to(home: Home, record: Record) -> None:
    summary = record(0, right=90)
    assert only(verdicts(gate("min_accuracy = 0.5"), home, summary)).detail.startswith("accuracy is 90.0%")
    lower = only(verdicts(gate('min_accuracy = 0.5\non = "lower"'), home, summary)).detail
    assert lower.startswith("the interval's lower end is 84.0%")


def test_every_failed_gate_is_a_line(home: Home, record: Record) -> None:
    found = verdicts(gate("min_accuracy = 0.99\nmax_cost_usd = 0.1\nmax_error_rate = 0.5"), home, record(0))
    with pytest.raises(GateFailed) as caught:
        require(found)
    assert [line.split()[1] for line in str(caught.value).splitlines()] == ["min_accuracy", "max_cost_usd"]
    require([])


def test_a_standard_error_is_read_off_an_interval() -> None:
    assert standard_error({"low": 0.8, "high": 1.0, "confidence": 0.95}) == pytest.approx(0.05102, abs=1e-5)
    assert standard_error({"low": None, "high": None, "confidence": 0.95}) is None


def test_an_accuracy_is_not_failed_for_what_floats_leave_out() -> None:
    """Twelve of fifteen, as the mean of five means of three."""
    accuracy = {"value": 0.7999999999999999, "low": 0.5, "high": 0.9, "n": 5, "confidence": 0.95}
    summary = {"models": [{"model": "m", "accuracy": accuracy}]}
    assert only(judge(gate("min_accuracy = 0.8"), summary)).passed
    assert not only(judge(gate("min_accuracy = 0.80001"), summary)).passed


def test_a_cost_that_is_not_all_known_says_so() -> None:
    cost = {"total": "0.5", "unpriced": {}, "waste_unknown": 2}
    verdict = only(judge(gate("max_cost_usd = 1.0"), {"models": [], "cost": cost}))
    assert (verdict.passed, verdict.detail) == (
        True,
        "cost is $0.500 of at most $1.00; what was wasted is not all known (rows: 2)",
    )
