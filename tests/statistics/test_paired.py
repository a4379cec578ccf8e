"""Paired tests against their published examples and against scipy and statsmodels."""

from statistics import NormalDist

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import normal_power

from batchrun.statistics.clustered import ClusteredMean, Estimate
from batchrun.statistics.paired import holm, mcnemar, minimal_detectable, newcombe, rows_needed, sign_test, t_test

flips = st.integers(0, 300)


def mean_of(values: list[float]) -> Estimate:
    """The mean of independent rows."""
    mean = ClusteredMean()
    for value in values:
        mean.add(value)
    got = mean.estimate()
    assert got is not None
    return got


def test_mcnemar_s_published_example() -> None:
    """Bentur et al. (2009) in Fagerland, Lydersen & Laake (2013), BMC Med Res Methodol 13:91: 1 and 7 flips of 21 children."""
    assert mcnemar(1, 7) == pytest.approx(0.0703, abs=5e-5)
    assert mcnemar(1, 7, mid_p=True) == pytest.approx(0.0391, abs=5e-5)


@given(flips, flips)
def test_mcnemar_is_the_exact_binomial_test_whichever_run_comes_first(lost: int, gained: int) -> None:
    p = mcnemar(lost, gained)
    assert p == mcnemar(gained, lost)
    assert p == pytest.approx(their_mcnemar([[0, lost], [gained, 0]], exact=True).pvalue)
    if lost + gained:
        assert p == pytest.approx(scipy.stats.binomtest(lost, lost + gained).pvalue)
    assert 0 < mcnemar(lost, gained, mid_p=True) <= 1
    assert mcnemar(lost, gained, mid_p=True) < p or lost == gained


def test_no_flips_are_no_evidence_and_negative_ones_are_refused() -> None:
    assert (mcnemar(0, 0), mcnemar(0, 0, mid_p=True)) == (1.0, 0.5)
    with pytest.raises(ValueError, match="lost"):
        mcnemar(-1, 2)


def test_many_flips_do_not_overflow() -> None:
    assert mcnemar(500_000, 505_000) == pytest.approx(scipy.stats.binomtest(500_000, 1_005_000).pvalue)


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        (
            (14, 5, 0, 22),
            -0.226,
            -0.011,
        ),  # Altman et al. (2000), Statistics with Confidence, table 6.2: 0.011 to 0.226 the other way
        ((36, 12, 2, 0), -0.3404, -0.0569),  # Newcombe (1998), Statistics in Medicine 17:2635, table II, method 10
        (
            (1, 1, 7, 12),
            0.026,
            0.507,
        ),  # Fagerland, Lydersen & Laake (2017), Statistical Analysis of Contingency Tables, chapter 8
    ],
)
def test_newcombe_s_published_examples(table: tuple[int, int, int, int], low: float, high: float) -> None:
    interval = newcombe(table)
    assert interval is not None
    assert interval == pytest.approx((low, high), abs=6e-4)


def test_newcombe_has_a_width_where_nothing_flipped() -> None:
    for table in ((10, 0, 0, 0), (0, 0, 0, 10), (5, 0, 0, 5)):
        interval = newcombe(table)
        assert interval is not None
        assert interval.low == pytest.approx(-interval.high)
        assert interval.high > 0.1
    assert newcombe((0, 0, 0, 0)) is None


@given(st.tuples(*[st.integers(0, 40)] * 4).filter(any))
def test_newcombe_holds_the_difference_within_minus_1_and_1_and_mirrors(table: tuple[int, int, int, int]) -> None:
    both, lost, gained, neither = table
    interval, mirrored = newcombe(table), newcombe((both, gained, lost, neither))
    assert interval is not None
    assert mirrored is not None
    assert -1 - 1e-9 <= interval.low <= (gained - lost) / sum(table) + 1e-9
    assert (gained - lost) / sum(table) - 1e-9 <= interval.high <= 1 + 1e-9
    assert (interval.low, interval.high) == pytest.approx((-mirrored.high, -mirrored.low))


def test_a_negative_correlation_widens_newcombe_s_interval() -> None:
    apart, alike = newcombe((0, 10, 10, 0)), newcombe((10, 0, 0, 10))
    assert apart is not None
    assert alike is not None
    assert apart.half_width > alike.half_width


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30), st.data())
def test_the_t_test_is_the_one_sample_t_of_differences(before: list[float], data: st.DataObject) -> None:
    after = data.draw(st.lists(st.floats(0, 1), min_size=len(before), max_size=len(before)))
    gaps = np.subtract(after, before)
    got = mean_of(gaps.tolist())
    assert got.value == pytest.approx(gaps.mean(), abs=1e-12)
    if np.ptp(gaps) > 1e-6:
        theirs = scipy.stats.ttest_rel(after, before)
        assert t_test(got) == pytest.approx(theirs.pvalue, abs=1e-9)
        assert got.interval == pytest.approx(tuple(theirs.confidence_interval()), abs=1e-9)


def test_without_a_spread_there_is_no_t_test() -> None:
    for values in ([1.0], [1.0, 1.0], [1 / 3, 1 / 3 + 1e-16, 1 / 3]):
        assert t_test(mean_of(values)) is None


def test_clusters_that_all_move_alike_are_judged_by_their_number() -> None:
    assert [sign_test(mean_of([-0.5] * count)) for count in (1, 2, 6)] == [1.0, 0.5, 2 / 64]
    assert sign_test(mean_of([0.0] * 6)) == 1.0


def test_holm_s_textbook_example() -> None:
    """Four values of p: 0.01, 0.04, 0.03, 0.005: adjusted 0.03, 0.06, 0.06, 0.02."""
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert list(adjusted) == ["a", "b", "c", "d"]
    assert list(adjusted.values()) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_agrees_with_statsmodels(values: list[float]) -> None:
    ours = holm({str(place): p for place, p in enumerate(values)})
    assert list(ours.values()) == pytest.approx(list(multipletests(values, method="holm")[1]))
    assert holm({}) == {}


@given(st.floats(0.001, 0.5), st.floats(0.001, 0.2), st.floats(0.5, 0.99))
def test_the_detectable_difference_is_found_with_the_stated_power(se: float, alpha: float, power: float) -> None:
    """`statsmodels`' power of a z test, which counts the tail on the wrong side too."""
    found = minimal_detectable(se, alpha=alpha, power=power)
    assert found is not None
    wrong_side = NormalDist().cdf(-NormalDist().inv_cdf(1 - alpha / 2) - found / se)
    assert normal_power(found / se, 1, alpha) == pytest.approx(power + wrong_side)


def test_without_an_error_nothing_is_said_about_detectability() -> None:
    assert minimal_detectable(None) is None
    assert minimal_detectable(0.0) is None


def test_half_the_difference_needs_four_times_the_rows() -> None:
    assert rows_needed(250, 0.04, 0.02) == 1000
    assert rows_needed(250, 0.04, 0.03) == 445
