"""Turns the bytes of one HTTP/1.1 reply into a receiver's calls.

A push parser around httptools (llhttp): `feed` what was read, get None (more to come) or how the reply
ended. Interim (1xx) heads are dropped. All the body bytes of one read are handed over in one piece, so a
receiver is called once a read and not once a chunk; unless they had gathered and one of their times matters.
Everything is bounded: head, header count, body, and the framing around it (chunk extensions, trailers, tiny
chunks). As lenient as h11 is, so that both transports read the same: bare LF, blanks after a chunk size, a
Content-Length beside chunking (which wins).

It refuses to know sockets, clocks and time-outs: the time of a read is an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import httptools

from batchrun.records import Ended
from batchrun.transport.base import COMPLETE, ENOUGH, MAX_HEAD_BYTES, MAX_HEADERS, Receiver, brief, ended_by_loss
from batchrun.transport.own.fields import Fields

_FRAMING_PER_BYTE: Final = 32
"""Bytes of framing allowed for each byte of body: one-byte chunks have 5, with a small extension 20."""

_HEAD_TOO_LARGE: Final = Ended(
    how="too_large", message=f"the reply's head is over {MAX_HEAD_BYTES} bytes or {MAX_HEADERS} fields"
)
_FRAMING_TOO_LARGE: Final = Ended(how="too_large", message="the reply is all chunk framing and no content")


class ReplyReader:
    """Reads one reply. `raw` counts the bytes fed, `body` those handed over; `reusable` is true after a clean end.

    `pieces` is how many the body has come in: chunks, in a chunked reply.
    """

    __slots__ = (
        "_complete",
        "_fields",
        "_head_due",
        "_interim",
        "_max_body",
        "_parser",
        "_parts",
        "_receiver",
        "_status",
        "_until_close",
        "body",
        "on_body",
        "on_header",
        "pieces",
        "raw",
        "reusable",
    )

    def __init__(self, receiver: Receiver, max_body: int) -> None:
        """Read for `receiver`, at most `max_body` bytes of content."""
        self._receiver = receiver
        self._max_body = max_body
        self._parts: list[bytes] = []
        self.on_body = self._parts.append  # called by the parser, as all on_… are
        self._fields = Fields(MAX_HEADERS)  # of the last head, an interim one or the final one; those of trailers are dropped
        self.on_header = self._fields.add
        self._status = 0  # 0 until the final head is whole
        self._head_due = False
        self._interim = False
        self._until_close = False
        self._complete = False
        self.pieces = 0
        self.raw = 0
        self.body = 0
        self.reusable = False
        # A parser of its own for each reply: a parser keeps a reply's last trailer and would give it to the next.
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(
            lenient_chunked_length=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )

    def feed(self, data: memoryview, at: float, times: Sequence[float] = ()) -> Ended | None:
        """Take what was read; return how the reply ended, or None while it goes on.

        It came at the time `at`, or had gathered: then `times` are its arrivals' and `at` is the last.
        """
        parser = self._parser
        if parser is None:
            return None
        self.raw += len(data)
        broken: Exception | None = None
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            broken = error
        fields = self._fields
        if fields.count > MAX_HEADERS or fields.size > MAX_HEAD_BYTES:
            return _HEAD_TOO_LARGE
        if self._head_due:
            self._head_due = False
            self._receiver.head(self._status, fields.values, at)
        parts = self._parts
        self.pieces += len(parts)
        if parts:
            ended = self._hand_over_timed(times) if times and self._receiver.eager else None
            if parts and ended is None:
                ended = self._hand_over(parts[0] if len(parts) == 1 else b"".join(parts), at)
            parts.clear()
            if ended is not None:
                return ended
        if self._complete:
            self.reusable = self.reusable and broken is None
            return COMPLETE
        if broken is not None:
            return ENOUGH if self._receiver.done else Ended(how="bad_http", message=f"not HTTP: {brief(broken)}")
        return self._over_bounds()

    def end_of_stream(self, error: BaseException | None) -> Ended:
        """Return how the reply ends where the connection does, in order (None) or by an error."""
        if error is None and self._until_close and self._status:
            return COMPLETE
        return ended_by_loss(error)

    def close(self) -> None:
        """Let go of the parser, which refers back to this reader."""
        self._parser = None
        del self.on_body

    def _hand_over_timed(self, times: Sequence[float]) -> Ended | None:
        """Give the receiver, each at its time, the parts up to the last that matters; the rest is left in `_parts`."""
        parts, receiver = self._parts, self._receiver
        total, place, ended = len(parts), self._first_that_matters(), None
        if place == total:
            return None
        if place:
            ended = self._hand_over(b"".join(parts[:place]), arrival_of(place - 1, total, times))
        while place < total and receiver.eager and ended is None:
            ended = self._hand_over(parts[place], arrival_of(place, total, times))
            place += 1
        del parts[:place]
        return ended

    def _first_that_matters(self) -> int:
        """Return the place of the first part in which a mark of the receiver begins; how many there are, where there is none."""
        parts = self._parts
        left = first_mark(b"".join(parts), self._receiver.marks)
        if left is None:
            return len(parts)
        for place, part in enumerate(parts):
            if left < len(part):
                return place
            left -= len(part)
        return len(parts)

    def _hand_over(self, chunk: bytes, at: float) -> Ended | None:
        """Give body bytes to the receiver; past the bound, only what is within it."""
        room = self._max_body - self.body
        self.body += len(chunk)
        if len(chunk) <= room:
            self._receiver.data(chunk, at)
            return None
        if room > 0:
            self._receiver.data(chunk[:room], at)
        if self._receiver.done:
            return ENOUGH
        return Ended(how="too_large", message=f"the reply is over {self._max_body} bytes (endpoint.max_reply_mb)")

    def _over_bounds(self) -> Ended | None:
        """Tell what has grown past its bound without being content."""
        if not self._status:
            return _HEAD_TOO_LARGE if self.raw > MAX_HEAD_BYTES else None
        return _FRAMING_TOO_LARGE if self.raw > 2 * MAX_HEAD_BYTES + _FRAMING_PER_BYTE * self.body else None

    def on_message_begin(self) -> None:
        """Stop at a second reply behind the first: nobody asked for it."""
        if self._complete:
            raise ValueError("bytes after the end of the reply")

    def on_headers_complete(self) -> None:
        """Take a whole head: an interim one is dropped, the final one is due to the receiver."""
        if self._parser is None:
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self._interim = True
            self._fields.values.clear()
            return
        self._status = status
        self._head_due = True
        self._fields.closed = True
        headers = self._fields.values
        chunked = headers.get("transfer-encoding", "").lower().endswith("chunked")
        self._until_close = not chunked and "content-length" not in headers

    def on_message_complete(self) -> None:
        """Note the end that the framing tells, of the reply or of an interim head."""
        if self._interim:
            self._interim = False
        elif self._parser is not None:
            self._complete = True
            self.reusable = self._parser.should_keep_alive() and not self._ambiguous()

    def _ambiguous(self) -> bool:
        """Tell whether two framings were given: what follows on such a connection cannot be trusted."""
        headers = self._fields.values
        return "transfer-encoding" in headers and "content-length" in headers


def first_mark(data: bytes | memoryview, marks: Sequence[bytes]) -> int | None:
    """Return where the first of `marks` begins, or None where there is none; without any, every byte may matter: 0."""
    if not marks:
        return 0
    read = bytes(data)
    return min((found for mark in marks if (found := read.find(mark)) >= 0), default=None)


def arrival_of(piece: int, pieces: int, times: Sequence[float]) -> float:
    """Return when one of so many pieces came, by the arrivals' times: exact where they are as many.

    Else as if the pieces had been spread evenly over the arrivals, of which one may have brought several.
    """
    place = min(max((piece + 0.5) * len(times) / pieces - 0.5, 0.0), len(times) - 1.0)
    before = int(place)
    after = min(before + 1, len(times) - 1)
    return times[before] + (place - before) * (times[after] - times[before])
