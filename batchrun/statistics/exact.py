"""Floats in, their sum without any rounding out: the same one in whatever order and parts they came.

A float is a whole number over a power of two, so a sum of floats is one too, and Python's integers hold it. Figures of a
run are made of such sums, so that they do not depend on who added which rows; only what is shown is rounded, once.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Self


class ExactSum:
    """Σ value · times, as `units` / 2**`places`."""

    __slots__ = ("places", "units")

    def __init__(self) -> None:
        """Begin with 0."""
        self.units = self.places = 0

    def add(self, value: float, times: int = 1) -> None:
        """Add a finite number, `times` over."""
        units, denominator = value.as_integer_ratio()
        self._add(units * times, denominator.bit_length() - 1)

    def add_square(self, value: float, times: int = 1) -> None:
        """Add the square of a finite number, `times` over."""
        units, denominator = value.as_integer_ratio()
        self._add(units * units * times, 2 * (denominator.bit_length() - 1))

    def merge(self, other: Self) -> None:
        """Add another sum."""
        self._add(other.units, other.places)

    def over(self, count: int) -> float:
        """Return the sum divided by `count`, rounded once."""
        return self.units / (count << self.places)

    @property
    def fraction(self) -> Fraction:
        """Return the sum as it is."""
        return Fraction(self.units, 1 << self.places)

    def _add(self, units: int, places: int) -> None:
        """Add units of 2**-places."""
        if places > self.places:
            self.units <<= places - self.places
            self.places = places
        self.units += units << (self.places - places)
