"""An event stream's bytes, in any of its two forms → the state of an answer, or what spoiled it.

Bytes are only collected until it pays to look: whole blocks of events are taken apart at once, except that
nothing waits which somebody is waiting for (the first event, the first call, the end, an error). Which form it
is, each event tells by itself; the first one decides. Once the answer is complete, events that cannot be
decoded and error events are ignored, and after the end mark everything is. Refuses to know HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from batchrun.records import Reply
from batchrun.wire.answer import Answer, whole_reply
from batchrun.wire.chat import ChatState
from batchrun.wire.complaint import Complaint, find_complaint, plain
from batchrun.wire.json_text import decode_envelope
from batchrun.wire.messages import EVENTS, MessagesState
from batchrun.wire.runs import Run, events_in, take_apart
from batchrun.wire.sse import EventBuffer, bare_events, events, has_fields, is_torn, plain_data, plain_names
from batchrun.wire.status import Oddity

BATCH_BYTES: Final = 4 * 1024
"""So much is collected before it is looked at, unless something in it is waited for: about 30 events."""

SEARCHED_BYTES: Final = 2 * 1024
"""A chunk from this size on is looked at whatever is in it: to search it costs as much."""

_WHITE: Final = b" \t\r\n"
_CALL: Final = (b"tool_use",)
_CHAT_CALL: Final = (b"tool_calls", b"function_call")
CALL_MARKS: Final = _CALL + _CHAT_CALL
"""What stands in the bytes where a tool call begins, in every form."""

_MESSAGES: Final = ((b"stop", b"error", *_CALL), (b"stop", b"error"))
_CHAT: Final = ((b"DONE", b"error", *_CHAT_CALL), (b"DONE", b"error"))
"""Words that may begin something that is waited for: before the first call, and after it."""


class StreamReader:
    """Reads one event stream.

    `complete`: nothing more is worth waiting for. `seen`: some field, comment or event was there at all, so it
    is an event stream; `torn`: it ended within a line of one. `state`: the answer as far as it goes; `spoiled`:
    why it can be none.
    """

    __slots__ = (
        "_buffer",
        "_events",
        "_urgent",
        "_usual",
        "_waited_for",
        "complete",
        "first_call",
        "first_event",
        "seen",
        "spoiled",
        "state",
        "torn",
    )

    def __init__(self, *, bare_lines: bool = False) -> None:
        """`bare_lines`: newline-delimited JSON instead of server-sent events."""
        self._usual = None if bare_lines or Answer is None else Answer()  # while nothing unusual has come; after it, the buffer
        if self._usual is None:
            self._buffer = EventBuffer(bare_lines=bare_lines)
        self._events = bare_events if bare_lines else events
        self.state: MessagesState | ChatState | None = None
        self.spoiled: Complaint | Oddity | None = None
        self.seen = False
        self.torn = False
        self.complete = False
        self.first_event = False
        self.first_call = False
        self._urgent = True  # the event that has not ended yet may be one that is waited for
        self._waited_for: tuple[bytes, ...] = (b"",)  # anything at all

    @property
    def events(self) -> int:
        """How many events were applied, pings left out."""
        answer = self._usual or self.state
        return 0 if answer is None else answer.events

    @property
    def call_marks(self) -> tuple[bytes, ...]:
        """What stands in the bytes where a tool call begins, once the first event is there."""
        return _CHAT_CALL if isinstance(self.state, ChatState) else _CALL

    def push(self, chunk: bytes) -> bool:
        """Take the next bytes; tell whether events were applied."""
        usual = self._usual
        if usual is not None:
            if usual.feed(chunk):
                self.first_event, self.first_call, self.complete = usual.events > 0, usual.called, usual.closed
                return usual.seen
            chunk = self._take_over(usual)
        buffer, size = self._buffer, len(chunk)
        small = buffer.push(chunk) < BATCH_BYTES and size < SEARCHED_BYTES
        if small and not self._urgent and not buffer.holds(self._waited_for, size):
            return False
        applied = self._drain()
        if not self.complete:
            self._urgent = not applied or buffer.holds(self._waited_for, buffer.unfinished)
        return applied

    def _drain(self) -> bool:
        """Apply every event that has ended; tell whether there was one."""
        block = self._buffer.block()
        if block is None:
            return False
        items = take_apart(block) if self._events is events else None
        if items is not None:
            self._plain(items, block)
        else:
            self.seen = self.seen or has_fields(block)
            for name, data in self._events(block):
                self._event(name, data)
                if self.complete:
                    break
        self._look()
        return True

    def _take_over(self, usual: Answer) -> bytes:
        """Go on from what an answer has; return the bytes that it did not take."""
        self._usual, self._buffer = None, EventBuffer()
        if usual.seen:
            self.seen, self.state = True, MessagesState.of(usual)
            self._look()
        return usual.rest

    def whole(self) -> Reply | None:
        """Return the answer of a stream that is complete and was usual throughout; None for any other."""
        return None if self._usual is None else whole_reply(self._usual)

    def end(self) -> None:
        """Apply also what came after the last blank line: servers forget it, and a cut event is no event."""
        if self._usual is not None:
            rest = self._take_over(self._usual)
            self._buffer.push(rest)
        if self.complete:
            return
        self._drain()
        rest = self._buffer.rest()
        self.torn = is_torn(rest)
        self.seen = self.seen or self.torn or has_fields(rest)
        for name, data in self._events(rest):
            if not self.complete:
                self._exact(name, data, cut=True)
        self._look()

    def _plain(self, items: Sequence[bytes | Run], block: bytes) -> None:
        """Apply the events of a plain block: the frequent ones in one go, the others one by one."""
        self.seen = True
        place = self._taken(items, 0)
        if place == len(items) or self.complete:
            return
        place, lines, names = events_in(items[:place]), plain_data(block) or [], plain_names(block)
        while place < len(lines) and not self.complete:
            self._exact(names[place], lines[place])
            place += 1
            if not self.complete:
                place = self._taken(lines, place)

    def _taken(self, items: Sequence[bytes | Run], place: int) -> int:
        """Apply usual events from `items[place]` on; return the place of the first that is none."""
        state = self.state or MessagesState()
        after = state.take(items, place)
        if after > place:
            self.state = state
            self.complete = self.complete or state.closed
        return after

    def _event(self, name: bytes, data: bytes) -> None:
        """Apply one event of any shape."""
        if name == b"error" or not self._taken([data], 0):
            self._exact(name, data)

    def _exact(self, name: bytes, data: bytes, *, cut: bool = False) -> None:
        """Apply one event by the rules; `cut`: the stream ended before the event did."""
        data = data.strip(_WHITE)
        if data == b"[DONE]":
            self._done()
        elif data:
            answered = self.state is not None and self.state.answered
            try:
                self._apply(name, decode_envelope(data), data)
            except ValueError as error:
                if not answered and name == b"error":
                    self._spoil(plain(data))
                elif not answered and not cut:
                    self._spoil(Oddity("corrupt_event", f"an event cannot be decoded: {error}"))
            self._look()

    def _apply(self, name: bytes, event: object, data: bytes) -> None:
        """Route one decoded event; raises `SpoiledError` where the answer has a hole."""
        if not isinstance(event, dict):
            self._unknown()
            return
        kind = event.get("type")
        kind = kind if isinstance(kind, str) else name.decode("utf-8", "replace")
        chat = "choices" in event or str(event.get("object", "")).startswith("chat.completion")
        if name == b"error" or kind == "error" or event.get("error") or not (kind or chat):
            self._error(name, event)
        elif chat:
            self._apply_chat(event, data)
        else:
            self._apply_messages(kind, event, data)

    def _apply_chat(self, event: Mapping[str, Any], data: bytes) -> None:
        if self.state is None or (isinstance(self.state, MessagesState) and self.state.fresh):
            self.state = ChatState()
        if isinstance(self.state, ChatState):
            self.state.apply(event, data)
        else:
            self._unknown()

    def _apply_messages(self, kind: str, event: Mapping[str, Any], data: bytes) -> None:
        if self.state is None:
            self.state = MessagesState()
        if not isinstance(self.state, MessagesState):
            self._unknown()
        elif kind == "message":
            self.state.whole(event, data)
        else:
            self.state.apply(kind, event, data)

    def _error(self, name: bytes, event: Mapping[str, Any]) -> None:
        """Take an event that reports an error, or that is nothing we know."""
        complaint = find_complaint(event)
        if complaint is None and name == b"error":
            complaint = find_complaint({"error": event})
        if complaint is None:
            self._unknown()
        elif self.state is None or not self.state.answered:
            self._spoil(complaint)

    def _unknown(self) -> None:
        if self.state is not None:
            self.state.unknown += 1

    def _done(self) -> None:
        """Take the chat form's end mark; in the other form it is one more thing to ignore."""
        if isinstance(self.state, ChatState):
            self.state.closed = self.complete = True

    def _spoil(self, why: Complaint | Oddity) -> None:
        self.spoiled = why
        self.complete = True

    def _look(self) -> None:
        """Bring the public attributes up to date."""
        state = self.state
        if state is not None:
            self.first_event = state.events > 0
            self.first_call = state.called
            if isinstance(state, ChatState) and state.failed and not state.answered and not self.complete:
                self._spoil(state.failed)
            self.complete = self.complete or state.closed
            if self.first_event:
                self._waited_for = (_CHAT if isinstance(state, ChatState) else _MESSAGES)[self.first_call]


def is_stream_event(line: bytes) -> bool:
    """Tell whether a line that begins with `{` is, by itself, an event of one of the two streams."""
    try:
        event = decode_envelope(line)
    except ValueError:
        return False
    kind = event.get("type")
    return (isinstance(kind, str) and kind in EVENTS) or event.get("object") == "chat.completion.chunk"
