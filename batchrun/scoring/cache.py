"""A bounded memory of what was parsed from equal texts: a million rows have a few hundred tool sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

Parsed = TypeVar("Parsed")

MAX_ENTRIES: Final = 4096
FEW: Final = 512
"""Room for texts that may differ in every row: large enough for those that repeat, small enough to stay at hand."""


class Cache(Generic[Parsed]):
    """`get(text)` parses a text once; when full it starts anew, which is cheaper than keeping an order of use."""

    __slots__ = ("_found", "_most", "_parse")

    def __init__(self, parse: Callable[[bytes | str], Parsed], *, most: int = MAX_ENTRIES) -> None:
        """Remember at most so many results of `parse`, which must be pure."""
        self._parse, self._most = parse, most
        self._found: dict[bytes | str, Parsed] = {}

    def get(self, text: bytes | str) -> Parsed:
        """Return what `parse` makes of `text`."""
        found = self._found.get(text)
        if found is None:
            if len(self._found) >= self._most:
                self._found.clear()
            found = self._found[text] = self._parse(text)
        return found
