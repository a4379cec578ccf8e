"""A few sampled calls tell the total of the run, and how well."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.pricing.pilot import Key, Seen, Stratum, allocate, choose, coarsened, merged, pilot_total, stratum_of

sizes = st.dictionaries(
    st.tuples(st.sampled_from("abc"), st.integers(1, 5)),
    st.integers(1, 200).map(lambda n: Stratum(calls=n, length=n * 10.0)),
    max_size=15,
)


def a_run(seed: int, calls: int, sample: int, *, flat: bool = False) -> tuple[dict[Key, Stratum], dict[Key, list[Seen]], float]:
    """A run with known costs: its strata, what a pilot sees of it, and its total."""
    rng = np.random.default_rng(seed)
    lengths = np.exp(rng.normal(7, 0.7, calls))
    costs = np.ones(calls) if flat else lengths * 1e-6 + np.exp(rng.normal(4, 0.6, calls)) * 1e-5
    made = [(("t",) if rng.random() < 0.4 else (), float(length)) for length in lengths]
    strata: dict[Key, Stratum] = {}
    for tags, length in made:
        old = strata.get(stratum_of(tags, length), Stratum(calls=0, length=0.0))
        strata[stratum_of(tags, length)] = Stratum(calls=old.calls + 1, length=old.length + length)
    into = coarsened(strata, sample)
    strata = merged(strata, into)
    members: dict[Key, list[int]] = {}
    for place, call in enumerate(made):
        members.setdefault(into[stratum_of(*call)], []).append(place)
    chosen = choose(strata, allocate(strata, sample), seed=seed)
    seen = {
        key: [Seen(float(lengths[members[key][i]]), float(costs[members[key][i]])) for i in places]
        for key, places in chosen.items()
    }
    return strata, seen, float(costs.sum())


def test_the_interval_holds_about_as_often_as_it_says() -> None:
    """300 simulated runs of 600 skewed calls, a pilot of 60: 90 % nominal, ± 3 standard errors of the count."""
    held = 0
    for seed in range(300):
        strata, seen, actual = a_run(seed, 600, 60)
        total = pilot_total(strata, seen, seed=seed)
        assert total is not None
        assert total.low is not None
        assert total.high is not None
        held += total.low <= actual <= total.high
    assert 0.85 <= held / 300 <= 0.95


def test_the_same_seed_chooses_and_answers_the_same() -> None:
    first, again, other = a_run(1, 300, 40), a_run(1, 300, 40), a_run(2, 300, 40)
    assert first[1] == again[1]
    assert first[1] != other[1]
    assert pilot_total(first[0], first[1], seed=5) == pilot_total(again[0], again[1], seed=5)


def test_a_pilot_of_every_call_is_the_total_and_has_no_width() -> None:
    strata, seen, actual = a_run(3, 50, 50)
    total = pilot_total(strata, seen, seed=0)
    assert total is not None
    assert (total.low, total.expected, total.high) == pytest.approx((actual,) * 3)
    assert (total.sampled, total.calls) == (50, 50)


def test_calls_that_all_cost_the_same_need_no_width() -> None:
    strata, seen, actual = a_run(4, 200, 40, flat=True)
    total = pilot_total(strata, seen, seed=0)
    assert total is not None
    assert (total.low, total.expected, total.high) == pytest.approx((actual,) * 3)


def test_cost_proportional_to_length_is_known_from_the_lengths_alone() -> None:
    strata = {("", 1): Stratum(calls=100, length=5050.0)}
    total = pilot_total(strata, {("", 1): [Seen(float(n), n * 2.0) for n in (3, 20, 70, 99)]}, seed=0)
    assert total is not None
    assert total.expected == pytest.approx(10_100)
    assert total.low == pytest.approx(10_100)


def test_what_was_already_spent_bounds_the_total_from_below() -> None:
    strata = {("", 1): Stratum(calls=10, length=10.0)}
    total = pilot_total(strata, {("", 1): [Seen(1.0, value) for value in (0.0, 0.0, 0.0, 100.0, 1.0)]}, seed=1)
    assert total is not None
    assert total.low is not None
    assert total.low >= 101


def test_one_call_of_many_tells_a_total_and_no_interval() -> None:
    total = pilot_total({("", 1): Stratum(calls=10, length=10.0)}, {("", 1): [Seen(1.0, 2.0)]}, seed=0)
    assert total is not None
    assert (total.low, total.expected, total.high) == (None, 20.0, None)


def test_without_a_call_in_each_stratum_there_is_no_total() -> None:
    strata = {("", 1): Stratum(calls=10, length=10.0), ("", 2): Stratum(calls=10, length=10.0)}
    assert pilot_total(strata, {("", 1): [Seen(1.0, 2.0)]}, seed=0) is None
    assert pilot_total({}, {}, seed=0) is None


@given(sizes, st.integers(1, 400))
def test_a_pilot_draws_as_many_as_it_is_told_and_never_more_than_there_are(strata: dict[Key, Stratum], sample: int) -> None:
    """Two in each stratum come first, so a tiny pilot over many strata may be larger than asked."""
    strata = merged(strata, coarsened(strata, sample))
    drawn = allocate(strata, sample)
    least = sum(min(2, stratum.calls) for stratum in strata.values())
    assert sum(drawn.values()) == min(max(sample, least), sum(stratum.calls for stratum in strata.values()))
    assert all(min(2, strata[key].calls) <= count <= strata[key].calls for key, count in drawn.items())
    places = choose(strata, drawn, seed=sample)
    assert all(
        len(set(places[key])) == count and set(places[key]) <= set(range(strata[key].calls)) for key, count in drawn.items()
    )


@given(sizes, st.integers(1, 400))
def test_merging_strata_loses_no_call(strata: dict[Key, Stratum], sample: int) -> None:
    fewer = merged(strata, coarsened(strata, sample))
    assert sum(stratum.calls for stratum in fewer.values()) == sum(stratum.calls for stratum in strata.values())
    assert len(fewer) <= max(1, sample // 8)


def test_strata_give_up_the_tag_before_the_length() -> None:
    strata = {(tag, size): Stratum(calls=50, length=1.0) for tag in "abcd" for size in (1, 2)}
    assert len(set(coarsened(strata, 64).values())) == 8
    assert set(coarsened(strata, 32).values()) == {("", 1), ("", 2)}
    assert set(coarsened(strata, 8).values()) == {("", 0)}


def test_a_call_s_stratum_is_its_first_tag_and_its_power_of_two() -> None:
    assert stratum_of((), 0) == ("", 1)
    assert stratum_of(("x", "y"), 1023) == ("x", 10)
    assert stratum_of(("x",), 1024) == ("x", 11)


def test_longer_strata_are_sampled_more() -> None:
    strata = {("", 1): Stratum(calls=1000, length=1000.0), ("", 5): Stratum(calls=1000, length=9000.0)}
    assert allocate(strata, 100) == {("", 1): 11, ("", 5): 89}
