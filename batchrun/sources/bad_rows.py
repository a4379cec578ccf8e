"""Which rows cannot be run and why, in a few bytes a row: a dataset may have a million of them.

Reasons say nearly the same of neighbouring rows, so those of a stretch of rows are kept together, compressed; the
stretch at hand lies open. In this form they are also told to other processes. It refuses to know what is wrong with a row.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

STRETCH: Final = 1 << 12
"""Rows whose reasons are kept together."""

READERS: Final = 4
"""Passes over one dataset at the same time that find their stretch open."""

Blocks = dict[int, bytes]
"""Compressed reasons by the number of their stretch."""

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(dict[int, str]).decode


class BadRows(Mapping[int, str]):
    """The reason of each bad row by the row's number. It is filled first and read then."""

    def __init__(self, blocks: Blocks | None = None) -> None:
        """Hold what another's `blocks` hold, or nothing."""
        self._blocks: Blocks = dict(blocks or {})
        self._count = sum(len(_opened(block)) for block in self._blocks.values())
        self._number = -1
        self._open: dict[int, str] = {}

    def add(self, row: int, reason: str) -> None:
        """Remember why a row cannot be run; of several reasons the first stays."""
        number = row // STRETCH
        if number != self._number:
            self._close()
            block = self._blocks.pop(number, None)
            self._number, self._open = number, {} if block is None else dict(_opened(block))
        if row not in self._open:
            self._open[row] = reason
            self._count += 1

    @property
    def blocks(self) -> Blocks:
        """Return all of it as it can be sent."""
        self._close()
        return self._blocks

    def _close(self) -> None:
        """Compress the open stretch."""
        if self._open:
            import zstandard  # noqa: PLC0415 - few datasets have bad rows, and every start would pay for it

            self._blocks[self._number] = zstandard.ZstdCompressor(level=1).compress(_encode(self._open))
        self._number, self._open = -1, {}

    def __getitem__(self, row: int) -> str:
        block = self.blocks.get(row // STRETCH)
        if block is None:
            raise KeyError(row)
        return _opened(block)[row]

    def __iter__(self) -> Iterator[int]:
        for _, block in sorted(self.blocks.items()):
            yield from sorted(_opened(block))

    def __len__(self) -> int:
        return self._count


@functools.lru_cache(maxsize=READERS)
def _opened(block: bytes) -> dict[int, str]:
    """Return the reasons of one stretch."""
    import zstandard  # noqa: PLC0415 - see above

    return _decode(zstandard.ZstdDecompressor().decompress(block))
