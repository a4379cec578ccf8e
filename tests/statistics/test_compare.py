"""Two runs row by row: who shares what, who flipped, and whether it means anything."""

import numpy as np
import pytest

from batchrun.statistics.clustered import ClusteredMean
from batchrun.statistics.compare import Answer, Comparison, Contrast, Key, compare
from batchrun.statistics.paired import holm, mcnemar, newcombe


def a_run(verdicts: str, *, model: str = "", tags: tuple[tuple[str, ...], ...] = (), clusters: str = "") -> dict[Key, Answer]:
    """One row a letter: `1` right, `0` wrong, `?` without a verdict, `-` not there."""
    letters = {"1": True, "0": False, "?": None}
    return {
        (model, f"r{place}", 0): Answer(
            correct=letters[letter],
            tags=tags[place] if tags else (),
            cluster=clusters[place] if clusters else None,
        )
        for place, letter in enumerate(verdicts)
        if letter != "-"
    }


def overall(comparison: Comparison) -> Contrast:
    """The contrast of all rows, where there is one."""
    assert comparison.overall is not None
    return comparison.overall


def test_rows_are_joined_counted_and_listed() -> None:
    got = compare(a_run("1100110?-"), a_run("10101-111"))
    assert (got.shared, got.only_before, got.only_after, got.no_verdict) == (7, 1, 1, 1)
    all_ = overall(got)
    assert all_.rows == 6
    assert all_.lost == (("", "r1"),)
    assert all_.gained == (("", "r2"), ("", "r6"))
    assert (all_.before.value, all_.after.value) == pytest.approx((0.5, 4 / 6))
    assert all_.difference.value == pytest.approx(1 / 6)


def test_independent_rows_are_decided_by_mcnemar_with_newcombe_s_interval() -> None:
    got = overall(compare(a_run("1" * 60 + "0" * 20), a_run("1" * 48 + "0" * 30 + "11")))
    assert (len(got.lost), len(got.gained), got.method) == (12, 2, "exact McNemar")
    assert got.p_value == got.mcnemar_p == mcnemar(12, 2)
    assert got.difference.interval == newcombe((48, 12, 2, 18))


def test_clustered_rows_are_decided_by_the_clustered_t() -> None:
    """A source whose every row flipped is one observation, not ten."""
    clusters = "aaaaaaaaaabcdefghij"
    before, after = a_run("1" * 19, clusters=clusters), a_run("0" * 10 + "1" * 9, clusters=clusters)
    got = compare(before, after)
    assert overall(got).mcnemar_p < 0.01
    assert overall(got).method == "paired t, clustered"
    assert overall(got).p_value == pytest.approx(0.3, abs=0.3)
    assert got.worse() is False


def test_repeats_are_averaged_within_the_row_first() -> None:
    before = {("", row, repeat): Answer(correct=True) for row in "abcd" for repeat in range(3)}
    after = {("", row, repeat): Answer(correct=row != "a" or repeat > 0) for row in "abcd" for repeat in range(3)}
    got = overall(compare(before, after))
    gaps = [-1 / 3, 0.0, 0.0, 0.0]
    assert got.rows == 4
    assert got.difference.value == pytest.approx(np.mean(gaps))
    assert got.difference.se == pytest.approx(np.std(gaps, ddof=1) / 2)
    assert got.lost == (("", "a"),)


def test_a_row_under_several_models_is_one_cluster_and_models_are_corrected_together() -> None:
    before = a_run("1" * 30, model="m") | a_run("1" * 30, model="n")
    after = a_run("0" * 8 + "1" * 22, model="m") | a_run("0" * 7 + "1" * 23, model="n")
    got = compare(before, after)
    assert (overall(got).rows, overall(got).difference.clusters) == (60, 30)
    by_name = {contrast.name: contrast for contrast in got.models}
    assert {name: contrast.p_value for name, contrast in by_name.items()} == {"m": mcnemar(8, 0), "n": mcnemar(7, 0)}
    assert {name: contrast.holm_p for name, contrast in by_name.items()} == holm({"m": mcnemar(8, 0), "n": mcnemar(7, 0)})


def test_tags_are_contrasted_and_corrected_and_one_model_is_no_family() -> None:
    tags = (("x",), ("x", "y"), ("y", "y"), ()) * 10
    got = compare(a_run("1" * 40, tags=tags), a_run("0111" * 10, tags=tags))
    assert got.models == ()
    assert [(contrast.name, contrast.rows, len(contrast.lost)) for contrast in got.tags] == [("x", 20, 10), ("y", 20, 0)]
    assert [contrast.holm_p for contrast in got.tags] == pytest.approx([2 * mcnemar(10, 0), 1.0])


def test_a_loss_must_be_significant_to_be_worse() -> None:
    small, large, gain = (
        compare(a_run(before), a_run(after))
        for before, after in (("1" * 20, "0" * 3 + "1" * 17), ("1" * 20, "0" * 8 + "1" * 12), ("0" * 20, "1" * 20))
    )
    assert (small.worse(), large.worse(), gain.worse()) == (False, True, False)
    assert large.worse(alpha=1e-6) is False


def test_without_shared_verdicts_nothing_is_said() -> None:
    got = compare(a_run("1?"), a_run("?1"))
    assert (got.shared, got.no_verdict, got.overall, got.tags, got.worse()) == (2, 2, None, (), None)
    assert compare({}, {}).overall is None


def test_a_single_source_has_a_difference_that_proves_nothing() -> None:
    got = compare(a_run("11", clusters="aa"), a_run("00", clusters="aa"))
    assert (overall(got).difference.value, overall(got).difference.interval) == (-1, None)
    assert (overall(got).detectable, overall(got).rows_for_half) == (None, None)
    assert (overall(got).p_value, got.worse()) == (1.0, False)


def repeated(rows: int, right: int) -> dict[Key, Answer]:
    """A run of rows answered three times, `right` times of which rightly."""
    return {("", f"r{row}", repeat): Answer(correct=repeat < right) for row in range(rows) for repeat in range(3)}


@pytest.mark.parametrize(
    ("before", "after", "groups"),
    [
        (a_run("1" * 16, clusters="aabbccddeeffgghh"), a_run("0" * 16, clusters="aabbccddeeffgghh"), 8),
        (repeated(16, right=2), repeated(16, right=1), 16),
    ],
)
def test_a_collapse_of_every_cluster_is_worse_though_nothing_varies(
    before: dict[Key, Answer], after: dict[Key, Answer], groups: int
) -> None:
    """No t test has a spread to go by."""
    got = compare(before, after)
    assert (overall(got).method, overall(got).difference.clusters) == ("sign test, clustered", groups)
    assert overall(got).p_value == pytest.approx(2 * 0.5**groups)
    assert (got.worse(), overall(got).difference.interval) == (True, None)
    back = compare(after, before)
    assert (overall(back).p_value, back.worse()) == (overall(got).p_value, False)


def test_where_nothing_moved_no_test_says_that_something_did() -> None:
    got = compare(a_run("1100", clusters="aabb"), a_run("1100", clusters="aabb"))
    assert (overall(got).p_value, overall(got).difference.value, got.worse()) == (1.0, 0.0, False)


def test_under_several_models_costs_and_latencies_of_a_row_move_together_too() -> None:
    rows = [("a", f"r{number}", 0) for number in range(10)] + [("b", f"r{number}", 0) for number in range(10)]
    before = {key: Answer(correct=True, cost_usd=0.0, latency_ms=0.0) for key in rows}
    after = {key: Answer(correct=True, cost_usd=float(key[1][1:]), latency_ms=float(key[1][1:])) for key in rows}
    got = compare(before, after)
    assert got.cost is not None
    assert got.cost.clusters == 10
    assert got.cost.se == pytest.approx(np.std(range(10), ddof=1) / np.sqrt(10))
    assert got.latency_ms == got.cost


def test_what_the_sample_could_have_shown() -> None:
    """Half the difference needs four times the rows."""
    rng = np.random.default_rng(1)
    before, after = ("".join("1" if right else "0" for right in rng.random(400) < 0.85) for _ in range(2))
    got = overall(compare(a_run(before), a_run(after)))
    assert got.difference.se is not None
    assert got.detectable == pytest.approx((1.959964 + 0.841621) * got.difference.se, rel=1e-5)
    assert got.rows_for_half == 1600


def test_cost_and_latency_are_compared_over_the_rows_that_have_both() -> None:
    before = {
        ("", str(row), 0): Answer(correct=True, cost_usd=1.0, latency_ms=None if row == 0 else 100.0 + row) for row in range(5)
    }
    after = {("", str(row), 0): Answer(correct=None, cost_usd=1.5, latency_ms=90.0 + row) for row in range(5)}
    got = compare(before, after)
    assert got.cost is not None
    assert got.latency_ms is not None
    assert (got.cost.value, got.cost.n) == (0.5, 5)
    assert (got.latency_ms.value, got.latency_ms.n) == (-10, 4)
    assert compare(a_run("1"), a_run("1")).cost is None


def test_the_two_accuracies_are_those_of_the_shared_rows() -> None:
    got = overall(compare(a_run("1100"), a_run("1111")))
    mean = ClusteredMean()
    for value in (1.0, 1.0, 0.0, 0.0):
        mean.add(value)
    assert got.before == mean.proportion()
