"""A planted regression is seen where it was planted, and noise or an outage is not one."""

import math

import numpy as np
import pytest

from batchrun.statistics.drift import change_points, drift


def test_a_run_worked_out_by_hand() -> None:
    """Baseline 0.9, 0.92, 0.88: mean 0.9, sd 0.02; one more run is predicted within 0.02 · √(4/3)."""
    got = drift(0.85, [0.9, 0.92, 0.88])
    assert got is not None
    assert got.z == pytest.approx(-0.05 / (0.02 * (4 / 3) ** 0.5))
    assert (got.baseline, got.sd) == pytest.approx((0.9, 0.02))
    assert got.runs == 3


def test_only_the_last_runs_are_the_baseline() -> None:
    got = drift(0.5, [0.9] * 20 + [0.5, 0.51, 0.49], window=3)
    assert got is not None
    assert got.baseline == pytest.approx(0.5)
    assert got.z == pytest.approx(0)


def test_the_run_s_own_sampling_error_bounds_the_spread_from_below() -> None:
    calm = [0.9, 0.9, 0.9001]
    loud, quiet = drift(0.88, calm), drift(0.88, calm, se=0.02)
    assert loud is not None
    assert quiet is not None
    assert abs(loud.z) > 100
    assert abs(quiet.z) < 1


def test_an_outage_is_left_out_and_not_counted_as_0() -> None:
    history = [0.9, None, 0.91, 0.89, None]
    got = drift(0.9, history)
    assert got is not None
    assert got.runs == 3
    assert drift(None, history) is None


def test_too_short_a_past_says_nothing_and_one_without_spread_all() -> None:
    assert drift(0.5, [0.9, 0.9]) is None
    same = drift(0.9, [0.9, 0.9, 0.9])
    assert same is not None
    assert same.z == 0
    for value, z in ((0.5, -math.inf), (1.0, math.inf)):
        moved = drift(value, [0.9, 0.9, 0.9])
        assert moved is not None
        assert moved.z == z


def test_a_week_with_a_planted_regression_and_an_outage_changes_once_where_it_was_planted() -> None:
    rng = np.random.default_rng(2)
    before, after = rng.normal(0.9, 0.01, 20), rng.normal(0.84, 0.01, 10)
    assert change_points([*before[:10], None, None, *before[10:], *after]) == [22]


def test_noise_alone_seldom_changes() -> None:
    rng = np.random.default_rng(3)
    assert sum(bool(change_points(rng.normal(0.9, 0.02, 40).tolist())) for _ in range(200)) <= 20


def test_two_changes_are_two() -> None:
    rng = np.random.default_rng(4)
    levels = [0.9] * 15 + [0.8] * 15 + [0.95] * 15
    assert change_points((np.asarray(levels) + rng.normal(0, 0.005, 45)).tolist()) == [15, 30]


def test_one_run_alone_is_no_new_level() -> None:
    assert change_points([0.9, 0.91, 0.89, 0.9, 0.9, 0.91, 0.4]) == []
    assert change_points([0.9, 0.91, 0.89, 0.9, 0.9, 0.91, 0.4, 0.41]) == [6]


def test_a_step_without_any_noise_is_found_and_a_constant_has_none() -> None:
    assert change_points([0.9] * 10 + [0.7] * 10) == [10]
    assert change_points([0.9] * 50) == []
    assert change_points([1e9 / 3] * 50) == []


def test_a_short_history_has_no_change() -> None:
    assert change_points([]) == []
    assert change_points([0.1]) == []
    assert change_points([0.1, 0.1, 0.9, 0.9, 0.9]) == []


def test_the_noise_and_the_penalty_may_be_told() -> None:
    values = [0.9] * 10 + [0.89] * 10
    assert change_points(values) == [10]
    assert change_points(values, sd=0.05) == []
    assert change_points(values, sd=0.05, penalty=0.1) == [10]
