"""A server-sent event stream, pushed in as bytes → blocks of whole events → events.

The rules are the WHATWG's: lines end at LF, CRLF or CR and at nothing else (U+2028 and U+0085 are data); a
blank line ends an event; `data` lines join with LF; one space after the colon is dropped; comments, `id` and
`retry` carry nothing for us. One rule of our own: a line that begins with `{`, which no field can, is an
event by itself, because some gateways stream bare JSON lines.

Two steps, for speed. `EventBuffer` turns line ends into LF and hands out everything up to the last blank
line as one block, touching each byte once whatever the chunks were. `plain_data` then takes a whole block
apart with one regular expression where it holds nothing but the usual `event:` and `data:` pairs; `events`
takes any block apart by the rules. Bytes stay bytes: nothing here decodes UTF-8 or JSON. The unfinished
event is bounded by whoever bounds the reply.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html §9.2.5-6.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

MAX_WORD: Final = 16
"""Longest word that `EventBuffer.holds` finds across chunks."""

_PLAIN: Final = re.compile(rb"(?:event: ?+[^e\n].*+\n)?data: ?+(\{.*\} *+|\[DONE\])\n\n|[\s\S]+").findall
_NAMES: Final = re.compile(rb"\n(?:event: ?(.*)\n)?data:").findall
_FIELDS: Final = frozenset({b"data", b"event", b"id", b"retry"})


class Event(NamedTuple):
    """One event: its name (b"" where none was given) and its data, lines joined with LF."""

    name: bytes
    data: bytes


class EventBuffer:
    """Holds what has arrived of a stream until the event it belongs to has ended."""

    __slots__ = ("_after_cr", "_bytes", "_mark", "_overlap", "_searched")

    def __init__(self, *, bare_lines: bool = False) -> None:
        """With `bare_lines` each line is an event by itself (newline-delimited JSON) and ends a block."""
        self._bytes = bytearray(b"\n")  # so that the first line, too, follows an LF
        self._mark = b"\n" if bare_lines else b"\n\n"
        self._overlap = len(self._mark) - 1  # so much of a mark may have been searched already
        self._searched = 1  # where the bytes begin that no search has seen
        self._after_cr = False

    @property
    def unfinished(self) -> int:
        """Return the length of what has not ended, in bytes."""
        return len(self._bytes)

    def push(self, chunk: bytes) -> int:
        """Take in the next bytes of the stream; return how many are held that no search has seen yet."""
        if self._after_cr or b"\r" in chunk:
            chunk = self._with_lf(chunk)
        self._bytes += chunk
        return len(self._bytes) - self._searched

    def holds(self, words: tuple[bytes, ...], within: int) -> bool:
        """Tell whether one of `words` is in the last `within` bytes, also where it began just before them."""
        start = max(0, len(self._bytes) - within - MAX_WORD)
        find = self._bytes.find
        for word in words:  # noqa: SIM110  # any() makes a generator: this runs for every chunk
            if find(word, start) >= 0:
                return True
        return False

    def block(self) -> bytes | None:
        """Return every event that has ended, as one block that begins with LF, or None where none has."""
        data = self._bytes
        end = data.rfind(self._mark, self._searched - self._overlap)
        if end < 0:
            self._searched = len(data)
            return None
        end += len(self._mark)
        block = bytes(data) if end == len(data) else bytes(memoryview(data)[:end])
        del data[: end - 1]  # the last LF stays: it is the one the next block begins with
        self._searched = len(data)
        return block

    def rest(self) -> bytes:
        """Return what has not ended; for when the stream has."""
        return bytes(self._bytes)

    def _with_lf(self, chunk: bytes) -> bytes:
        """Turn CRLF and CR into LF, also where a chunk ended between the two."""
        if not chunk:
            return chunk
        after_cr, self._after_cr = self._after_cr, chunk.endswith(b"\r")
        if after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def plain_data(block: bytes) -> list[bytes] | None:
    """Return the data of each event of a block made of `event:` lines and `data: {…}` (or `[DONE]`) alone, else None.

    Exact, not a guess: matches follow each other without a gap, and what is no such event is one last match, the rest
    of the block, with no data.
    """
    data = _PLAIN(block, 1)
    return data if data and data[-1] else None


def plain_names(block: bytes) -> list[bytes]:
    """Return the name of each event of a block that `plain_data` took apart, b"" where it has none."""
    return _NAMES(block)


def events(block: bytes) -> Iterator[Event]:
    """Yield the events of a block; one that has no blank line after it counts too (the stream may be over)."""
    name = b""
    data: list[bytes] = []
    for line in block.split(b"\n"):
        if line.startswith(b"{"):
            yield Event(name, line)
            continue
        if not line:
            if data:
                yield Event(name, b"\n".join(data))
            name, data = b"", []
            continue
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    if data:
        yield Event(name, b"\n".join(data))


def bare_events(block: bytes) -> Iterator[Event]:
    """Yield the events of a block of newline-delimited JSON: every line that is not empty is one."""
    for line in block.split(b"\n"):
        if line:
            yield Event(b"", line.removeprefix(b"data:"))


def has_fields(block: bytes) -> bool:
    """Tell whether any line of a block is a field or a comment of an event stream, or a bare event."""
    return any(line.startswith((b":", b"{")) or line.partition(b":")[0] in _FIELDS for line in block.split(b"\n") if line)


def is_torn(rest: bytes) -> bool:
    """Tell whether what came after the last event may be the beginning of a field or comment, and of nothing else."""
    line = rest.rpartition(b"\n")[2]
    return bool(line) and (has_fields(line) or any(field.startswith(line) for field in _FIELDS))
