"""A JSON file that is one array of objects (or objects one after another) in, `Record`s out.

Many public datasets are one pretty-printed array. Items are cut out of a sliding window of text and then
read like a line of JSONL, so memory is one window and one item. It refuses to guess across a broken
item: what follows it cannot be told apart, so the file is refused there. An item that is JSON and no row spoils itself alone.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Generator, Iterable, Iterator
from typing import Final

import msgspec

from batchrun.errors import DatasetError, Problem
from batchrun.sources.lines import ESCAPED
from batchrun.sources.record import Record, split_object

_SPACE: Final = re.compile(r"[\s,]*")
_scan: Final = json.JSONDecoder(parse_int=len, parse_float=len).raw_decode


def records(pieces: Iterable[bytes], *, file: str, index: int = 0, skip: int = 0) -> Generator[Record, None, int]:
    """Yield the objects of one file; `index` is the number of the first, `skip` of them are passed over.

    Returns the number of the row after the last. Raises `DatasetError` where the text is no JSON.
    """
    at = index
    line = 1
    try:
        for text, line in _items(pieces):
            if at >= index + skip:
                yield _record(text, file, at, line)
            at += 1
    except (_Broken, RecursionError) as error:
        problem = _problem(file, at, getattr(error, "line", line), str(error))
        raise DatasetError([problem]) from None
    return at


def _record(text: str, file: str, at: int, line: int) -> Record:
    """Return one item as a row; one that is none is a problem."""
    try:
        return Record(index=at, file=file, line=line, fields=split_object(text.encode()))
    except UnicodeEncodeError:
        problem = _problem(file, at, line, "is not UTF-8")
    except msgspec.ValidationError:
        problem = _problem(file, at, line, "an item is not a JSON object")
    except (msgspec.DecodeError, RecursionError) as error:
        problem = _problem(file, at, line, f"is not valid JSON: {error}")
    return Record(index=at, file=file, line=line, fields={}, problem=problem)


class _Broken(ValueError):
    """The text is no JSON from here on; `line` is where."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def _items(pieces: Iterable[bytes]) -> Iterator[tuple[str, int]]:
    """Yield the text of each item and the line it begins on."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
    source = iter(pieces)
    window, line, opened, closed = "", 1, False, False
    ended = False
    while True:
        here = 0
        while True:
            start = _after_space(window, here)
            line += window.count("\n", here, start)
            here = start
            if start == len(window):
                break
            if window[start] == "[" and not opened:
                opened, here = True, start + 1
            elif window[start] == "]" and opened and not closed:
                closed, here = True, start + 1
            elif closed:
                raise _Broken("there is something after the end of the array", line)
            else:
                end = _end(window, start, line, final=ended)
                if end is None:
                    break
                yield window[start:end], line
                line += window.count("\n", start, end)
                here = end
        window = window[here:]
        if ended:
            break
        piece = next(source, None)
        ended = piece is None
        window += decoder.decode(piece or b"", final=ended)
    if opened and not closed:
        raise _Broken("the array is not closed: the file ends too early", line)


def _after_space(window: str, at: int) -> int:
    """Return the place after white space and commas."""
    match = _SPACE.match(window, at)
    return match.end() if match else at


def _end(window: str, start: int, line: int, *, final: bool) -> int | None:
    """Return where the item that begins at `start` ends, None where the window does not reach that far."""
    try:
        return _scan(window, start)[1]
    except json.JSONDecodeError as error:
        cut = error.pos >= len(window) - 8 or error.msg.startswith("Unterminated string")
        if cut and not final:
            return None
        other = ESCAPED.match(window, error.pos) is not None
        message = "is not UTF-8" if other else f"is not valid JSON: {error.msg} at column {error.colno}"
        raise _Broken(message, line + window.count("\n", start, error.pos)) from None


def _problem(file: str, at: int, line: int, message: str) -> Problem:
    return Problem(
        message=message, file=file, row=at, line=line, code="broken-json", hint="the file must be one array of objects"
    )
