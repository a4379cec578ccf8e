"""pass@k and pass^k against their papers and against every choice of k tries."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.statistics.passk import pass_at_k, pass_hat_k

tries_right_k = st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n)))


def from_the_paper(n: int, c: int, k: int) -> float:
    """Chen et al. (2021), arXiv:2107.03374, figure 3: the numerically stable form."""
    return 1.0 if n - c < k else float(1 - np.prod(1 - k / np.arange(n - c + 1, n + 1)))


@given(tries_right_k)
def test_both_are_the_share_of_all_choices(drawn: tuple[int, int, int]) -> None:
    n, c, k = drawn
    choices = list(combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, choices)) / len(choices))
    assert pass_hat_k(n, c, k) == pytest.approx(sum(map(all, choices)) / len(choices))
    assert pass_at_k(n, c, k) == pytest.approx(from_the_paper(n, c, k))


def test_the_paper_s_own_setting() -> None:
    """200 samples a problem, as in HumanEval's evaluation; pass@1 is the plain share."""
    assert pass_at_k(200, 30, 1) == pytest.approx(0.15)
    assert pass_at_k(200, 30, 100) == pytest.approx(from_the_paper(200, 30, 100))
    assert pass_hat_k(8, 6, 4) == pytest.approx(15 / 70)


def test_fewer_tries_than_k_have_no_estimate() -> None:
    assert pass_at_k(2, 1, 3) is None
    assert pass_hat_k(0, 0, 1) is None


@pytest.mark.parametrize("impossible", [(2, 3, 1), (2, -1, 1), (2, 1, 0)])
def test_impossible_counts_are_refused(impossible: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="tries"):
        pass_at_k(*impossible)
    with pytest.raises(ValueError, match="tries"):
        pass_hat_k(*impossible)
