"""Bytes of a file, compressed or not, in bounded pieces: chunks out of files, lines out of chunks.

A line ends at LF and nowhere else (U+2028 and a lone CR may stand in data). A compressed file that ends
early is an error here and not a short dataset. It refuses to know what a line means.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final

from batchrun.errors import DatasetError, Problem, StorageError

CHUNK: Final = 1 << 18
MAX_LINE: Final = 1 << 28
"""A longer line (256 MiB) is no JSON line: the file is another thing, and it may not fill memory."""

BOM: Final = b"\xef\xbb\xbf"

ESCAPED: Final = re.compile("[\udc80-\udcff]")
"""A byte that is no UTF-8, in text that was decoded with `surrogateescape`."""


class _Broken(Exception):
    """The compressed form is not whole."""


def chunks(stream: BinaryIO, name: str, size: int = CHUNK) -> Iterator[bytes]:
    """Yield the content of `stream`, read `size` bytes at a time, decompressed where its first bytes say gzip or zstd.

    Raises `DatasetError` where the compressed form is broken or cut, `StorageError` where it cannot be read.
    """
    try:
        head = stream.read(size)
        if head.startswith(b"\x1f\x8b"):
            yield from _gunzip(stream, head, size)
        elif head.startswith(b"\x28\xb5\x2f\xfd"):
            yield from _unzstd(stream, head, size)
        else:
            while head:
                yield head
                head = stream.read(size)
    except (zlib.error, _Broken) as error:
        raise DatasetError(
            [Problem(message=f"the compressed file is broken or cut: {error}", file=name, code="broken-file")]
        ) from None
    except OSError as error:
        raise StorageError(f"{name}: cannot be read: {error.strerror or error}") from None


def blocks(pieces: Iterable[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """Yield `(text, start, end)`: `text[start:end]` is some whole lines, each with its LF; the very last may have none.

    Most of a file stays where it was read; only a line that two pieces share is put together. A BOM at the very start
    is dropped. Raises `ValueError` at a line longer than `MAX_LINE` bytes.
    """
    held: list[bytes] = []
    size = 0
    bom = BOM  # looked for in the first line alone; the first piece may end inside it
    for piece in pieces:
        start = piece.find(b"\n") + 1
        if start:
            held.append(piece[:start])
            first = b"".join(held).removeprefix(bom)
            held, size, bom = [], 0, b""
            yield first, 0, len(first)
            end = piece.rfind(b"\n") + 1
            if start < end:
                yield piece, start, end
            start = end
        if start < len(piece):
            held.append(piece[start:])
            size += len(piece) - start
            if size > MAX_LINE:
                raise ValueError(f"a line is longer than {MAX_LINE >> 20} MiB")
    if held:
        last = b"".join(held).removeprefix(bom)
        yield last, 0, len(last)


def lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield each line without its LF; the last one need not have any. As `blocks` otherwise."""
    for text, begin, end in blocks(pieces):
        start = begin
        while start < end:
            stop = line_end(text, start, end)
            yield text[start:stop]
            start = stop + 1


def line_end(text: bytes, start: int, end: int) -> int:
    """Return where the line that begins at `start` ends: the place of its LF, or `end`."""
    stop = text.find(b"\n", start, end)
    return end if stop < 0 else stop


def _gunzip(stream: BinaryIO, head: bytes, size: int) -> Iterator[bytes]:
    """Yield the content of all gzip members, at most `CHUNK` bytes at a time."""
    decoder = zlib.decompressobj(wbits=31)
    pending = head
    while pending or (pending := stream.read(size)):
        if decoder.eof:
            pending = pending.lstrip(b"\0")  # padding between members is allowed, RFC 1952
            if not pending:
                continue
            decoder = zlib.decompressobj(wbits=31)
        piece = decoder.decompress(pending, CHUNK)
        pending = decoder.unconsumed_tail or decoder.unused_data
        if piece:
            yield piece
    if not decoder.eof:
        raise _Broken("it ends before its end mark")


def _unzstd(stream: BinaryIO, head: bytes, size: int) -> Iterator[bytes]:
    """Yield the content of all zstd frames."""
    import zstandard  # noqa: PLC0415 - few files need it, and every start would pay for it

    factory = zstandard.ZstdDecompressor()
    decoder = factory.decompressobj()
    pending = head
    while pending or (pending := stream.read(size)):
        if decoder.eof:
            decoder = factory.decompressobj()
        try:
            piece = decoder.decompress(pending)
        except zstandard.ZstdError as error:
            raise _Broken(str(error)) from None
        pending = decoder.unused_data
        if piece:
            yield piece
    if not decoder.eof:
        raise _Broken("it ends before its end mark")
