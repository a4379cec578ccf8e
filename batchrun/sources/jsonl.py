"""JSON Lines in, `Record`s out: one object a line, its members kept as the text they were.

A line is parsed once, to its top level alone; memory is one chunk and one line, whatever the file's
size. Blank lines are passed over but counted, CRLF and a BOM are tolerated. A line that is broken is a
record with a problem (line and column), not an exception: the reader after it goes on.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Final

import msgspec

from batchrun.errors import Problem
from batchrun.sources.lines import blocks, line_end
from batchrun.sources.record import Line, Record, Row

_SPACE: Final = ord(" ")

_decode: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def records(
    pieces: Iterable[bytes], *, file: str, index: int = 0, skip: int = 0, done: bytes = b""
) -> Generator[Record, None, int]:
    """Yield the rows of one file; `index` is the number of its first row.

    The first `skip` rows, and those whose number is the place of a 1 in `done`, are passed over undecoded: a resumed
    run does not pay for what is done. Returns the number of the row after the last.
    """
    rows = lines(pieces, file=file, index=index, skip=skip, done=done)
    while True:
        try:
            row = next(rows)
        except StopIteration as stop:
            return int(stop.value)
        yield record_of(row)


def lines(pieces: Iterable[bytes], *, file: str, index: int = 0, skip: int = 0, done: bytes = b"") -> Generator[Row, None, int]:
    """Yield the rows as `records` does, each an undecoded line; what ends the file early comes as a record with its problem."""
    at, number = index, 0
    wanted = _wanted(at, index + skip, done)
    try:
        for text, begin, end in blocks(pieces):
            start = begin
            while start < end:
                if at < wanted:
                    start, rows, passed = _passed_over(text, start, end, wanted - at)
                    at, number = at + rows, number + passed
                    continue
                stop = line_end(text, start, end)
                line = text[start:stop]
                start, number = stop + 1, number + 1
                if not line or line.isspace():
                    continue
                yield Line(index=at, file=file, line=number, text=line)
                at += 1
                if at < len(done):
                    wanted = _wanted(at, 0, done)
    except ValueError as error:
        yield _broken(file, at, number + 1, str(error))
        at += 1
    return at


def _wanted(at: int, first: int, done: bytes) -> int:
    """Return the number of the first row from `at` on that is to be read: not below `first`, and not done."""
    at = max(at, first)
    if at >= len(done) or not done[at]:
        return at
    found = done.find(b"\0", at)
    return len(done) if found < 0 else found


def _passed_over(text: bytes, start: int, end: int, most: int) -> tuple[int, int, int]:
    """Return where the lines after the next `most` rows begin, and how many rows and lines there were up to there."""
    rows = passed = 0
    while start < end and rows < most:
        stop = text.find(b"\n", start, end)  # `line_end`, without a call a row
        if stop < 0:
            stop = end
        if text[start] > _SPACE or text[start:stop].strip():
            rows += 1
        passed += 1
        start = stop + 1
    return start, rows, passed


def is_object(line: bytes) -> bool:
    """Tell whether a line is one JSON object."""
    try:
        _decode(line)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return True


def record_of(row: Row) -> Record:
    """Return the record of one line; one that is a record already, as it is."""
    if isinstance(row, Record):
        return row
    try:
        fields = _decode(row.text)
        row.text.decode()
    except msgspec.ValidationError:
        return _broken(row.file, row.index, row.line, "is not a JSON object", code="not-an-object")
    except msgspec.DecodeError as error:
        return _broken(row.file, row.index, row.line, malformed(row.text, error))
    except UnicodeDecodeError as error:
        message = f"is not UTF-8 (byte {error.start + 1} of the line)"
        return _broken(row.file, row.index, row.line, message, code="not-utf8")
    except RecursionError:
        return _broken(row.file, row.index, row.line, "is nested too deeply")
    return Record(index=row.index, file=row.file, line=row.line, fields=fields)


def malformed(text: bytes, error: Exception) -> str:
    """Return what is wrong with a JSON text, in words and with its column (1-based, in characters)."""
    what, _, place = str(error).partition(" (byte ")
    what = what.removeprefix("JSON is malformed: ")
    if place:
        column = len(text[: int(place.rstrip(")"))].decode("utf-8", "replace")) + 1
        return f"is not valid JSON: {what} at column {column}"
    if b"\\ud" in text.lower() and text.rstrip().endswith((b"}", b"]")):
        return "is not valid JSON: half of a surrogate pair (\\ud800 to \\udfff) stands alone"
    return "is not valid JSON: it ends too early"


def _broken(file: str, at: int, number: int, message: str, *, code: str = "broken-json") -> Record:
    """Return the record that says why a line is none."""
    problem = Problem(message=message, file=file, row=at, line=number, code=code, hint="each line must be one JSON object")
    return Record(index=at, file=file, line=number, fields={}, problem=problem)
