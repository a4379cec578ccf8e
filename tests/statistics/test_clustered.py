"""Clustered errors against Miller's formula and `statsmodels`, in one pass and merged."""

from collections.abc import Sequence

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st

from batchrun.statistics.clustered import ClusteredMean, Estimate
from batchrun.statistics.proportions import wilson

rows_ = st.lists(st.tuples(st.floats(-100, 100), st.none() | st.sampled_from("abcdef")), min_size=2, max_size=40)


def clustered_mean(values: list[float], clusters: Sequence[str | None] | None = None) -> Estimate | None:
    """The mean of row values with its error."""
    mean = ClusteredMean()
    for value, cluster in zip(values, clusters or [None] * len(values), strict=True):
        mean.add(value, cluster)
    return mean.estimate()


def millers_error(values: list[float], clusters: list[str]) -> float:
    """Miller (2024), arXiv:2411.00640, equation 4, as it is printed: a double sum within each cluster."""
    n, mean = len(values), sum(values) / len(values)
    total = sum((values[i] - mean) * (values[j] - mean) for i in range(n) for j in range(n) if clusters[i] == clusters[j])
    return float(np.sqrt(max(total, 0)) / n)


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from("abcd")), min_size=2, max_size=30))
def test_the_error_is_miller_s_with_the_small_cluster_correction(rows: list[tuple[float, str]]) -> None:
    values, clusters = [value for value, _ in rows], [cluster for _, cluster in rows]
    groups = len(set(clusters))
    got = clustered_mean(values, clusters)
    assert got is not None
    if groups == 1:
        assert (got.se, got.interval) == (None, None)
    else:
        assert got.se == pytest.approx(millers_error(values, clusters) * np.sqrt(groups / (groups - 1)), abs=1e-7)


def test_statsmodels_gives_the_same_error_and_interval() -> None:
    """A regression on a constant with `cov_type="cluster"` and its small-sample correction, t on G − 1."""
    rng = np.random.default_rng(3)
    clusters = rng.integers(0, 12, 200)
    values = (rng.random(200) < 0.6 + 0.03 * clusters).astype(float)
    fit = sm.OLS(values, np.ones(200)).fit(cov_type="cluster", cov_kwds={"groups": clusters, "use_correction": True}, use_t=True)
    got = clustered_mean(values.tolist(), [str(cluster) for cluster in clusters])
    assert got is not None
    assert got.interval is not None
    assert (got.n, got.clusters) == (200, 12)
    assert got.se == pytest.approx(fit.bse[0])
    assert tuple(got.interval) == pytest.approx(tuple(fit.conf_int()[0]))


def test_rows_without_clusters_have_the_ordinary_error() -> None:
    values = [1.0, 0.0, 0.0, 1.0, 1.0, 0.5]
    got = clustered_mean(values)
    assert got is not None
    assert got.se == pytest.approx(np.std(values, ddof=1) / np.sqrt(6))


@given(rows_, rows_, st.randoms(use_true_random=False))
def test_any_order_and_any_split_say_the_same(
    first: list[tuple[float, str | None]], second: list[tuple[float, str | None]], random: object
) -> None:
    whole, one, other = ClusteredMean(), ClusteredMean(), ClusteredMean()
    shuffled = first + second
    random.shuffle(shuffled)  # type: ignore[attr-defined] # hypothesis hands a Random
    for value, cluster in shuffled:
        whole.add(value, cluster)
    for part, rows in ((one, first), (other, second)):
        for value, cluster in rows:
            part.add(value, cluster)
    one.merge(other)
    a, b = whole.estimate(), one.estimate()
    assert a is not None
    assert b is not None
    assert (a.n, a.clusters) == (b.n, b.clusters)
    assert a.value == pytest.approx(b.value, abs=1e-9)
    assert (a.se is None) == (b.se is None)
    if a.se is not None:
        assert a.se == pytest.approx(b.se, abs=1e-9)


def test_merging_nothing_changes_nothing() -> None:
    mean = ClusteredMean()
    mean.add(1.0)
    mean.add(0.0)
    before = mean.estimate()
    mean.merge(ClusteredMean())
    assert mean.estimate() == before


def test_a_large_offset_does_not_eat_the_error() -> None:
    """Timestamps around 1e9 with a spread of 1: a naive sum of squares would lose it."""
    values = [1e9 + step for step in (0.0, 1.0, 2.0, 3.0)]
    got = clustered_mean(values)
    assert got is not None
    assert got.se == pytest.approx(np.std([0, 1, 2, 3], ddof=1) / 2)


def test_repeats_are_averaged_within_the_row_and_unknown_ones_left_out() -> None:
    mean = ClusteredMean()
    mean.add_row([1.0, 0.0, None, 1.0])
    mean.add_row([0.0])
    mean.add_row([None, None])
    got = mean.estimate()
    assert got is not None
    assert got.n == 2
    assert got.value == pytest.approx(1 / 3)


def test_no_rows_no_mean() -> None:
    assert ClusteredMean().estimate() is None
    assert ClusteredMean().proportion() is None
    assert clustered_mean([]) is None


def test_independent_verdicts_have_wilson_s_interval() -> None:
    mean = ClusteredMean()
    for value in [1.0] * 81 + [0.0] * 182:
        mean.add(value)
    got = mean.proportion()
    assert got is not None
    assert got.interval == pytest.approx(wilson(81, 263))


def test_a_proportion_s_interval_stays_within_0_and_1_and_has_a_width() -> None:
    """All right in 20 clusters of 5 tells as much as 20 rows, not as 100."""
    mean = ClusteredMean()
    for place in range(100):
        mean.add(1.0, f"c{place % 20}")
    got = mean.proportion()
    assert got is not None
    assert got.interval == pytest.approx(wilson(20, 20))


def test_dependence_widens_a_proportion_s_interval_and_independence_hardly() -> None:
    together, apart = ClusteredMean(), ClusteredMean()
    for place in range(200):
        together.add(float(place // 10 % 2), f"c{place // 10}")
        apart.add(float(place % 2), f"c{place // 10}")
    wide, narrow, plain = together.proportion(), apart.proportion(), wilson(100, 200)
    assert wide is not None
    assert narrow is not None
    assert plain is not None
    assert wide.interval is not None
    assert narrow.interval is not None
    assert wide.interval.half_width > 2 * plain.half_width
    assert narrow.interval.half_width == pytest.approx(wilson(10, 20).half_width, rel=0.01)  # type: ignore[union-attr] # no spread between clusters: 20 of them


def test_repeats_narrow_a_proportion_s_interval_but_not_beyond_their_number() -> None:
    mean = ClusteredMean()
    for place in range(50):
        mean.add_row([1.0, 0.0] if place % 25 else [1.0, 1.0])
    got = mean.proportion()
    assert got is not None
    assert got.interval is not None
    assert got.interval == pytest.approx(wilson(52, 100), abs=1e-9)


def test_one_cluster_has_a_mean_and_no_interval() -> None:
    mean = ClusteredMean()
    mean.add(1.0, "a")
    mean.add(0.0, "a")
    got = mean.proportion()
    assert got is not None
    assert (got.value, got.se, got.interval) == (0.5, None, None)


def test_what_is_no_proportion_is_refused() -> None:
    mean = ClusteredMean()
    mean.add(1.5)
    with pytest.raises(ValueError, match="no proportion"):
        mean.proportion()


def test_intervals_cover_at_their_rate_with_few_clusters() -> None:
    """400 runs of 15 clusters of 8 rows whose difficulty is shared: 95 % nominal."""
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(400):
        mean = ClusteredMean()
        for cluster in range(15):
            ease = rng.beta(8, 2)
            for verdict in rng.random(8) < ease:
                mean.add(float(verdict), str(cluster))
        got = mean.proportion()
        assert got is not None
        assert got.interval is not None
        held += got.interval.low <= 0.8 <= got.interval.high
    assert 0.92 <= held / 400 <= 0.98
