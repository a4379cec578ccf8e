"""CSV or TSV in, `Record`s out: the first line names the columns, every value is text.

An empty cell is an absent field. A cell of a structured field holds JSON text. Quoting is strict: after a stray quote
nobody can tell where rows begin, so the file is refused there. Bytes that are not UTF-8 spoil their own row alone.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Generator, Iterable, Iterator

import msgspec

from batchrun.errors import DatasetError, Problem
from batchrun.sources.lines import ESCAPED, lines
from batchrun.sources.record import Record

_encode = msgspec.json.Encoder().encode


def records(
    pieces: Iterable[bytes], *, file: str, index: int = 0, skip: int = 0, delimiter: str = ","
) -> Generator[Record, None, int]:
    """Yield the rows under the head line; `skip` of them are passed over. Returns the number after the last.

    Raises `DatasetError` where there is no head line, where it names a column twice, and where the quoting is broken.
    """
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(_texts(pieces), delimiter=delimiter, strict=True)
    at = index
    try:
        names = _head(next(reader, []), file)
        for cells in reader:
            if not cells:
                continue
            if at >= index + skip:
                yield _record(names, cells, file, at, reader.line_num)
            at += 1
    except csv.Error as error:
        hint = "a quote inside a quoted value is written twice; rows after this one cannot be told apart"
        raise DatasetError([_broken(f"is not valid CSV: {error}", file, at, reader.line_num, hint)]) from None
    return at


def _texts(pieces: Iterable[bytes]) -> Iterator[str]:
    """Yield each line as text, its end put back: inside quotes it belongs to the value."""
    for line in lines(pieces):
        yield line.decode("utf-8", "surrogateescape") + "\n"


def _head(names: list[str], file: str) -> list[str]:
    """Return the column names, checked."""
    stripped = [name.strip() for name in names]
    if not any(stripped):
        raise DatasetError([Problem(message="has no head line that names the columns", file=file, line=1, code="no-head")])
    twice = {name for name in stripped if stripped.count(name) > 1}
    if twice:
        message = f"names a column twice: {', '.join(sorted(twice))}"
        raise DatasetError([Problem(message=message, file=file, line=1, code="no-head")])
    return stripped


def _record(names: list[str], cells: list[str], file: str, at: int, line: int) -> Record:
    """Return one row; one with more or fewer cells than there are columns is a problem."""
    if len(cells) != len(names):
        message = f"has {len(cells)} cells where the head line names {len(names)} columns"
        return Record(index=at, file=file, line=line, fields={}, problem=_broken(message, file, at, line))
    for name, cell in zip(names, cells, strict=True):
        if ESCAPED.search(cell):
            return Record(index=at, file=file, line=line, fields={}, problem=_broken(f"{name}: is not UTF-8", file, at, line))
    fields = {name: _encode(cell) for name, cell in zip(names, cells, strict=True) if cell}
    return Record(index=at, file=file, line=line, fields=fields)


def _broken(message: str, file: str, at: int, line: int, hint: str | None = None) -> Problem:
    return Problem(message=message, file=file, row=at, line=line, code="broken-csv", hint=hint)
