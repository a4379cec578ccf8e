"""The fields of one HTTP head, as the parser tells them one by one: in C, where that was built."""

from __future__ import annotations

from typing import Final

try:
    from batchrun.transport.own import _fields
except ImportError:
    _fields = None  # type: ignore[assignment]


class PythonFields:
    """The first `most` fields of a head; none that comes once it is `closed`.

    `values` has them by their names in lower case, those of one name in one value, joined with a comma (RFC 9110, 5.3).
    `count` and `size` (bytes) are of all that came.
    """

    __slots__ = ("_most", "closed", "count", "size", "values")

    def __init__(self, most: int) -> None:
        """Begin with none."""
        self._most = most
        self.values: dict[str, str] = {}
        self.count = 0
        self.size = 0
        self.closed = False

    def add(self, name: bytes, value: bytes) -> None:
        """Take the next field."""
        if self.closed:
            return
        self.count += 1
        self.size += len(name) + len(value) + 4
        if self.count > self._most:
            return
        key, text = name.lower().decode("latin-1"), value.decode("latin-1").strip(" \t")
        self.values[key] = f"{self.values[key]}, {text}" if key in self.values else text


Fields: Final[type[PythonFields]] = PythonFields if _fields is None else _fields.Fields
"""The faster of the two that is there."""
