"""Repeats of a row, of which some were right → the chance that one of k tries, or all k, would be.

Both estimators are unbiased for any k up to the number of tries. A row with fewer tries than k has
no estimate: it is left out and None, never 0.
"""

from __future__ import annotations

from math import comb


def pass_at_k(tries: int, right: int, k: int) -> float | None:
    """Return pass@k = 1 − C(n−c, k) / C(n, k), at least one of k right: Chen et al. (2021), arXiv:2107.03374, eq. 1."""
    _check(tries, right, k)
    return None if tries < k else 1 - comb(tries - right, k) / comb(tries, k)


def pass_hat_k(tries: int, right: int, k: int) -> float | None:
    """Return pass^k = C(c, k) / C(n, k), all of k right: Yao et al. (2024), τ-bench, arXiv:2406.12045, section 5.1."""
    _check(tries, right, k)
    return None if tries < k else comb(right, k) / comb(tries, k)


def _check(tries: int, right: int, k: int) -> None:
    """Raise `ValueError` for counts that cannot be."""
    if not 0 <= right <= tries or k < 1:
        raise ValueError(f"{right} right of {tries} tries, k = {k}")
