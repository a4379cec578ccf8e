"""Quantiles within 1 %, whatever the order and the split."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.statistics.histogram import LogHistogram

numbers = st.lists(st.floats(0, 1e9, allow_subnormal=False), min_size=1, max_size=100)
SHARES = [0.0, 0.01, 0.25, 0.5, 0.9, 0.95, 0.99, 1.0]


def filled(values: list[float]) -> LogHistogram:
    """A histogram of these."""
    histogram = LogHistogram()
    for value in values:
        histogram.add(value)
    return histogram


@given(numbers)
def test_every_quantile_is_within_1_percent_of_the_exact_one(values: list[float]) -> None:
    exact = np.quantile(values, SHARES, method="inverted_cdf")
    assert filled(values).quantiles(SHARES) == pytest.approx(exact.tolist(), rel=0.01)


@given(numbers, numbers)
def test_merging_and_adding_arrays_count_the_same(first: list[float], second: list[float]) -> None:
    merged, array = filled(first), LogHistogram()
    merged.merge(filled(second))
    array.add_many(np.asarray(first + second))
    assert (merged.zeros, merged.lowest, merged.highest, merged.n) == (array.zeros, array.lowest, array.highest, array.n)
    assert merged.quantiles(SHARES) == pytest.approx(
        array.quantiles(SHARES), rel=0.021
    )  # a value on an edge may fall to either side
    assert merged.mean == pytest.approx(array.mean)


@given(numbers)
def test_it_survives_json(values: list[float]) -> None:
    histogram = filled(values)
    again = LogHistogram.from_builtins(json.loads(json.dumps(histogram.to_builtins())))
    assert again.quantiles(SHARES) == histogram.quantiles(SHARES)
    assert again.bars() == histogram.bars()
    assert (again.n, again.mean) == (histogram.n, histogram.mean)


def test_nothing_has_no_quantile_and_survives_json() -> None:
    empty = LogHistogram.from_builtins(json.loads(json.dumps(LogHistogram().to_builtins())))
    assert (empty.n, empty.mean, empty.quantile(0.5), empty.bars()) == (0, None, None, [])
    empty.add_many([])
    empty.merge(LogHistogram())
    assert empty.quantiles([0.1, 0.9]) == [None, None]


def test_bars_hold_every_number_once() -> None:
    histogram = filled([0.0, 0.0, 100.0, 100.5, 7.0])
    histogram.add(7.0, times=3)
    bars = histogram.bars()
    assert bars[0] == (0.0, 0.0, 2)
    assert sum(count for _, _, count in bars) == histogram.n == 8
    assert all(low <= high for low, high, _ in bars)
    assert histogram.mean == pytest.approx((200.5 + 28) / 8)


def test_a_million_numbers_need_a_few_hundred_counts() -> None:
    values = np.random.default_rng(1).lognormal(6, 1, 1_000_000)
    histogram = LogHistogram()
    histogram.add_many(values)
    assert len(histogram.counts) < 700
    assert histogram.quantile(0.95) == pytest.approx(np.quantile(values, 0.95), rel=0.01)


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf")])
def test_what_is_no_duration_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="not"):
        LogHistogram().add(wrong)
    with pytest.raises(ValueError, match="not"):
        LogHistogram().add_many([1.0, wrong])


def test_an_array_with_weights_equals_each_number_so_often() -> None:
    weighted, repeated = LogHistogram(), LogHistogram()
    weighted.add_many([0.0, 2.0, 3.0, 2.0], [2, 1, 3, 4])
    for value, times in ((0.0, 2), (2.0, 5), (3.0, 3)):
        repeated.add(value, times)
    assert weighted.to_builtins() == repeated.to_builtins()
