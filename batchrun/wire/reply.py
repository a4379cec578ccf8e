"""The bytes of one HTTP response → a `Reply`, or a `Failure` that says why there is none.

`ReplyDecoder` is pushed the head, the body's chunks (content-encoded, as they came) and, at the end, how the
exchange ended. The form is told by the bytes and never by the content type: after a BOM and white space, `{`
or `[` begins a JSON document (or newline-delimited events), `<` a page, all the rest an event stream. One rule
decides everything: the answer is complete when its stop reason has been seen. Before that any end, error event
or event that cannot be decoded spoils it; after it, trailing damage is ignored.

The outcome is the same for every way of cutting the bytes into chunks. Memory is bounded by `max_bytes`,
decoded. Refuses to know sockets, clocks and retries: time is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from batchrun.records import Ended, Failure, Reply
from batchrun.wire import status as verdicts
from batchrun.wire.chat import ChatState
from batchrun.wire.complaint import Complaint, plain
from batchrun.wire.content import ContentDecoder, DamagedError, TooLargeError, sniffed
from batchrun.wire.document import read_document
from batchrun.wire.messages import MessagesState
from batchrun.wire.status import Oddity, Remains
from batchrun.wire.stream import CALL_MARKS, StreamReader, is_stream_event
from batchrun.wire.usage import split_usage

DEFAULT_MAX_BYTES: Final = 64 * 1024 * 1024

MAX_PARTIAL: Final = 4 * 1024
"""So much of what had arrived is kept in a failure, in bytes."""

MAX_ERROR_BODY: Final = 64 * 1024
"""So much of an error response is read; the rest is dropped."""

_BOM: Final = b"\xef\xbb\xbf"
_WHITE: Final = b" \t\r\n"

_NO_HEADERS: Final[Mapping[str, str]] = {}

_Mode = Literal["error", "start", "document", "lines", "stream", "other"]


class ReplyDecoder:
    """Decodes one response. The public attributes may be read after every `feed`; none becomes false again.

    `first_event`: an event other than a ping is there (of a body that is no stream: its first byte).
    `first_call`: a tool call has begun (JSON tells only in `finish`). `complete`: nothing more is worth
    waiting for; what is fed after it changes no answer. `events`: stream events applied so far, pings left out;
    all of them only after `finish`.
    """

    __slots__ = (
        "_beginning",
        "_body",
        "_content",
        "_count",
        "_deaf",
        "_headers",
        "_max_bytes",
        "_mode",
        "_room",
        "_spoiled",
        "_state",
        "_status",
        "_stream",
        "complete",
        "events",
        "first_call",
        "first_event",
    )

    def __init__(self, *, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        """`max_bytes` bounds the decoded body; a reply that is not complete by then fails as `too_large`."""
        self.first_event = False
        self.first_call = False
        self.complete = False
        self.events = 0
        self._max_bytes = max_bytes
        self._status: int | None = None
        self._headers = _NO_HEADERS
        self._content: ContentDecoder | None = None
        self._mode: _Mode = "start"
        self._count = 0  # decoded bytes
        self._body = bytearray()  # of what is not a stream
        self._stream: StreamReader | None = None
        self._state: MessagesState | ChatState | None = None
        self._spoiled: Complaint | Oddity | None = None
        self._beginning: list[bytes] = []  # of the decoded bytes
        self._room = min(MAX_PARTIAL, max_bytes)  # for more of it
        self._deaf = False  # not even worth keeping: damaged, or over the bound

    @property
    def call_marks(self) -> tuple[bytes, ...]:
        """What stands in the decoded bytes where a tool call begins, as far as the form is known: one of these."""
        return self._stream.call_marks if self._stream is not None and self.first_event else CALL_MARKS

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        """Take the response's head, names in lower case; once, before any `feed`."""
        self._status = status
        self._headers = headers
        if not 200 <= status < 300:
            self._mode = "error"
        if headers.get("content-encoding"):
            try:
                self._content = ContentDecoder(headers["content-encoding"], self._max_bytes + 1)
            except DamagedError as error:
                self._give_up(Oddity("not_api", str(error)))

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body, transfer-decoded and still content-encoded."""
        if self._deaf or (self.complete and self._room <= 0):
            return
        if self._content is None and self._count == 0 and (encoding := sniffed(chunk)):
            self._content = ContentDecoder(encoding, self._max_bytes + 1)
        if self._content is None:
            self._take(chunk)
            return
        try:
            for piece in self._content.feed(chunk):
                self._take(piece)
        except DamagedError as error:
            self._give_up(Oddity("corrupt_event", f"the content-encoding is damaged: {error}"))
        except TooLargeError as error:
            self._give_up(Oddity("too_large", str(error)))

    def finish(self, ended: Ended, *, now: float) -> Reply | Failure:
        """Return what the response was; once, after the last `feed`. `now` is in seconds since the epoch."""
        if self._status is None:
            return verdicts.classify_end(ended, status=None)
        if self._mode == "error":
            return verdicts.classify_http(self._status, self._headers, bytes(self._body), now=now, remains=self._remains())
        if self._stream is not None and (whole := self._stream.whole()) is not None:
            return whole
        self._end()
        if self._state is not None and self._state.answered:
            return self._reply(self._state)
        return self._failure(ended, self._status, now)

    def _take(self, chunk: bytes) -> None:
        """Take decoded bytes, up to the bound."""
        if self._room > 0:
            self._beginning.append(chunk[: self._room])
            self._room -= len(chunk)
        if self.complete:
            return
        self._count += len(chunk)
        over = self._count - self._max_bytes
        if over > 0:
            chunk = chunk[: len(chunk) - over]
        if self._stream is None:
            self._place(chunk)
        elif self._stream.push(chunk):
            self._look(self._stream)
        if over > 0 and not self.complete:
            self._give_up(Oddity("too_large", f"the reply is larger than {self._max_bytes} bytes"))

    def _place(self, chunk: bytes) -> None:
        """Put the bytes of what is no stream, as far as is known, where their mode collects them."""
        if self._mode == "error":
            self._body += chunk[: max(0, MAX_ERROR_BODY - len(self._body))]
        elif self._mode == "start":
            self._sniff(bytes(self._body) + chunk if self._body else chunk)
        else:
            self._body += chunk
            if self._mode == "lines" and b"\n" in chunk:
                self._sniff_line()

    def _sniff(self, body: bytes) -> None:
        """Tell the form by the first byte that is neither white space nor part of a BOM."""
        if _BOM.startswith(body):
            self._body[:] = body
            return
        body = body.removeprefix(_BOM).lstrip(_WHITE)
        if not body:
            self._body[:] = b" "  # as good as all that was there, and there is no BOM after it
        elif body[:1] not in b"{[<":
            self._become_stream(body, bare_lines=False)
        else:
            self._body[:] = body
            self.first_event = True
            if body[:1] != b"{":
                self._mode = "document" if body[:1] == b"[" else "other"
            else:
                self._mode = "lines"  # a document, if its first line is no event
                if b"\n" in body:
                    self._sniff_line()

    def _sniff_line(self) -> None:
        """Tell newline-delimited events from a JSON document by the first line, now that it is there."""
        if is_stream_event(bytes(self._body).partition(b"\n")[0]):
            self._become_stream(bytes(self._body), bare_lines=True)
        else:
            self._mode = "document"

    def _become_stream(self, body: bytes, *, bare_lines: bool) -> None:
        self._mode, self._stream = "stream", StreamReader(bare_lines=bare_lines)
        self._stream.push(body)
        self._body.clear()
        self._look(self._stream)

    def _look(self, stream: StreamReader) -> None:
        """Bring the public attributes up to date with the stream."""
        self.first_event = self.first_event or stream.first_event
        self.first_call = self.first_call or stream.first_call
        self.events = stream.events
        if stream.complete:
            self._spoiled = stream.spoiled
            self.complete = True

    def _give_up(self, why: Oddity) -> None:
        """Stop listening for a reason of ours; what is there already may still be an answer."""
        self._deaf = True
        if not self.complete:
            self._spoiled = why
            self.complete = True

    def _end(self) -> None:
        """Read what can be read only now that nothing more comes."""
        if self._mode == "lines" and is_stream_event(bytes(self._body).strip(_WHITE)):
            self._become_stream(bytes(self._body).strip(_WHITE), bare_lines=True)
        stream = self._stream
        if stream is not None:
            stream.end()
            self._state, self._spoiled = stream.state, stream.spoiled or self._spoiled
        elif self._mode in {"lines", "document"}:
            found = read_document(bytes(self._body).strip(_WHITE))
            if isinstance(found, MessagesState | ChatState):
                self._state = found
                found = found.failed if isinstance(found, ChatState) else None
            self._spoiled = self._spoiled or found
        if self._state is not None:
            self.first_call = self._state.called
            self.events = self._state.events if stream is not None else 0

    def _reply(self, state: MessagesState | ChatState) -> Reply:
        """Return the answer; `state` is complete."""
        stream = self._stream is not None
        if isinstance(state, ChatState):
            return state.reply("openai_sse" if stream else "openai_json", bytes(self._body))
        return state.reply("anthropic_sse" if stream else "anthropic_json")

    def _failure(self, ended: Ended, status: int, now: float) -> Failure:
        """Return why there is no answer."""
        remains = self._remains()
        if isinstance(self._spoiled, Complaint):
            return verdicts.classify_complaint(self._spoiled, status=status, headers=self._headers, now=now, remains=remains)
        oddity = self._spoiled or self._oddity(ended)
        if oddity is not None:
            return verdicts.classify_oddity(oddity, status=status, remains=remains)
        return verdicts.classify_end(ended, status=status, remains=remains)

    def _oddity(self, ended: Ended) -> Oddity | None:
        """Return what a body is that has no answer and reports no error; None: an answer that was cut."""
        stream = self._stream
        if self._mode == "other" or (stream is not None and not stream.seen):
            return Oddity("not_api", f"the reply is no API reply: {plain(self._partial()).message}")
        nothing = self._state is None or (isinstance(self._state, ChatState) and self._state.empty)
        begun = self._mode != "start" if stream is None else stream.torn
        if nothing and not begun and ended.how in {"complete", "enough"}:
            return Oddity("empty", "the reply is empty")
        return None

    def _partial(self) -> bytes:
        """Return the beginning of what had arrived."""
        return b"".join(self._beginning)

    def _remains(self) -> Remains:
        """Return what had arrived: the usage told so far, and the beginning of the text."""
        usage = split_usage(self._state.usage) if self._state is not None and self._state.usage else None
        return Remains(usage, self._partial().decode("utf-8", "replace") or None)
