"""Messages API events, or one whole message → the state of an answer → `records.Reply`.

The state grows event by event and forgives what gateways are known to get wrong where nothing can be lost by
it: blocks are routed by index to the end of the stream, a reused index is a new block, a repeated
`message_start` resets nothing, a delta that does not fit its block is ignored. Where something *would* be
lost, as with arguments that belong to no block, the answer is spoiled (`SpoiledError`), never shortened.

Two ways in, one meaning: `take` decodes the usual events into msgspec structs (`usual`) and stops at the first
event that is anything else; `apply` takes any event as a decoded object. An answer that was read in C until
something unusual came (`answer`) goes on here from what it has (`of`). Unknown events, blocks and deltas are
counted and ignored (the API's versioning policy). Arguments are parsed once, when the reply is made. Refuses
to know bytes, SSE and HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

from msgspec import Struct

from batchrun.records import Form, Reply
from batchrun.wire import usual
from batchrun.wire.answer import Answer, assembled, usage_of
from batchrun.wire.json_text import encode_as_came, joined_surrogates, raw_at, raw_items
from batchrun.wire.runs import KINDS, Run, decoded
from batchrun.wire.spoiled import MAX_PIECES, SpoiledError, bounded
from batchrun.wire.usage import from_bedrock, merge_usage, split_usage
from batchrun.wire.usual import BlockDelta, Ping

EVENTS: Final = frozenset(
    {"message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop", "ping"}
)
_SILENT_BLOCKS: Final = frozenset(
    {"redacted_thinking", "server_tool_use", "mcp_tool_use", "container_upload", "compaction", "fallback"}
)
_DELTA_OF: Final = {"text": "text_delta", "tool_use": "input_json_delta", "thinking": "thinking_delta"}
_TEXT_OF: Final = {"text_delta": "text", "input_json_delta": "partial_json", "thinking_delta": "thinking"}
_SILENT_DELTAS: Final = frozenset({"signature_delta", "citations_delta", "compaction_delta"})


class _Block(Struct):
    """One content block as it grows; `fits` is the struct of the deltas that belong to it, None for none."""

    kind: str
    index: int | None
    fits: type[Struct] | None
    id: object = None
    name: object = None
    parts: list[str] = []
    start_input: str = ""  # arguments given with the block itself, as JSON text
    stopped: bool = False


class MessagesState:
    """An answer in Messages form as far as it has arrived."""

    __slots__ = (
        "_at",
        "_blocks",
        "_id",
        "_model",
        "_started",
        "_stop_sequence",
        "_warnings",
        "called",
        "closed",
        "events",
        "stop_reason",
        "unknown",
        "usage",
    )

    def __init__(self) -> None:
        """Begin with nothing."""
        self._blocks: list[_Block] = []
        self._at: dict[int, _Block] = {}
        self._started = False  # message_start was seen, or a whole message
        self._id: str | None = None
        self._model: str | None = None
        self._stop_sequence: str | None = None
        self._warnings: dict[str, None] = {}
        self.usage: dict[str, Any] = {}
        self.stop_reason: str | None = None
        self.closed = False  # message_stop was seen: nothing after it counts
        self.called = False  # a tool call has begun
        self.events = 0  # pings are none
        self.unknown = 0

    @property
    def answered(self) -> bool:
        """Tell whether the answer is complete: a stop reason, or `message_stop` with every tool call ended."""
        if self.stop_reason is not None:
            return True
        return self.closed and bool(self._blocks) and all(b.stopped for b in self._blocks if b.kind == "tool_use")

    @property
    def fresh(self) -> bool:
        """Tell whether nothing but pings and unknown events has arrived."""
        return not self._started and not self._blocks and self.stop_reason is None and not self.closed

    def take(self, items: Sequence[bytes | Run], at: int) -> int:
        """Apply usual events from `items[at]` on, up to the end mark; return the place of the first that `apply` must see.

        `items` are a block's lines, as `usual.read_all` wants them, and its runs; from a later place on, or alone, lines.
        """
        index, fits = None, None  # of the block that the last delta belonged to
        after, silent = len(items), 0
        for place, event in enumerate(decoded(items, at), at):
            kind = type(event)
            if kind is BlockDelta:
                delta = event.delta
                if event.index != index or type(delta) is not fits:
                    if type(delta) in usual.SILENT_DELTAS:
                        continue
                    block = self._at.get(event.index)
                    if block is None or type(delta) is not block.fits:
                        after = place
                        break
                    index, fits, append = event.index, block.fits, block.parts.append
                append(delta.text)  # type: ignore[attr-defined]  # those that fit have text
            elif kind is Ping:
                silent += 1
            elif event is None or not _STEPS[kind](self, event):
                after = place
                break
            elif self.closed:
                silent += len(items) - (place + 1)  # what follows counts for nothing
                break
            else:
                index = None  # it may be another block's from now on
        self.events += after - at - silent
        return after

    def apply(self, kind: str, event: Mapping[str, Any], text: bytes) -> None:
        """Apply one event of any kind; `text` is its JSON. Raises `SpoiledError` where the answer has a hole."""
        if kind == "ping":
            return
        self.events += 1
        handler = _HANDLERS.get(kind)
        if handler is None:
            self.unknown += 1
        else:
            handler(self, event, text)

    def whole(self, message: Mapping[str, Any], text: bytes) -> None:
        """Apply a whole message, as it comes without streaming."""
        self.events += 1
        self._begin(message.get("id"), message.get("model"), message.get("usage"))
        content = message.get("content")
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        raws = raw_items(text, ("content",))
        for place, block in enumerate(content if isinstance(content, list) else []):
            raw = raws[place] if place < len(raws) else b""
            self._open(block, None, raw).stopped = True
        self._stop(message.get("stop_reason"), message.get("stop_sequence"))

    @classmethod
    def of(cls, answer: Answer) -> Self:
        """Return the state that an answer of usual events is in."""
        state = cls()
        state._started, state.closed = answer.started, answer.closed
        state._id, state._model = answer.id, answer.model
        state.stop_reason, state._stop_sequence = answer.stop_reason, answer.stop_sequence
        state.events = answer.events
        for kind, call_id, name, text, index, stopped in answer.blocks():
            block = state._new_block(kind, index)
            block.id, block.name, block.stopped = call_id, name, stopped
            if text:
                block.parts.append(text)
        state.usage = usage_of(answer)
        return state

    def reply(self, form: Form) -> Reply:
        """Return the answer; call it when `answered`."""
        if form == "anthropic_sse" and not self.closed:
            self._warn("missing_message_stop")
        if self.stop_reason is None:
            self._warn("missing_stop_reason")
        blocks = [(block.kind, block.id, block.name, "".join(block.parts) or block.start_input) for block in self._blocks]
        text, thinking, uses = assembled(blocks, self.stop_reason)
        if not all(use.name for use in uses):
            self._warn("empty_tool_name")
        return Reply(
            form=form,
            text=joined_surrogates(text),
            thinking=None if thinking is None else joined_surrogates(thinking),
            tool_uses=uses,
            stop_reason=self.stop_reason,
            stop_sequence=self._stop_sequence,
            usage=split_usage(self.usage),
            message_id=self._id,
            model=self._model,
            warnings=tuple(self._warnings),
            unknown=self.unknown,
        )

    def _warn(self, name: str) -> None:
        self._warnings[name] = None

    def _begin(self, message_id: object, model: object, usage: object) -> None:
        if self._started:
            self._warn("repeated_message_start")
        else:
            self._started, self._id, self._model = True, _string(message_id), _string(model)
        merge_usage(self.usage, usage)

    def _take_run(self, run: Run) -> bool:
        """Take deltas that were joined; False where their block is not there or of another kind."""
        kind, index, text, count = run
        block = self._at.get(index)
        if block is None or block.fits is not KINDS[kind]:
            return False
        block.parts.append(text)
        self.events += count - 1
        return True

    def _take_start(self, event: usual.MessageStart) -> bool:
        message = event.message
        self._begin(message.id, message.model, message.usage)
        return True

    def _take_block(self, event: usual.BlockStart) -> bool:
        """Begin a block; False where arguments came with it, whose text is to be kept, and where it is one too many."""
        given = event.content_block
        if len(self._blocks) >= MAX_PIECES:
            return False
        if type(given) is usual.ToolBlock:
            if given.input:
                return False
            block = self._new_block("tool_use", event.index)
            block.id, block.name = given.id, given.name
        else:
            block = self._new_block("text" if type(given) is usual.TextBlock else "thinking", event.index)
            _append(block, given.text)  # type: ignore[union-attr]  # a text or thinking block
        return True

    def _take_block_stop(self, event: usual.BlockStop) -> bool:
        block = self._at.get(event.index)
        if block is None:
            return False
        block.stopped = True
        return True

    def _take_delta(self, event: usual.MessageDelta) -> bool:
        self._stop(event.delta.stop_reason, event.delta.stop_sequence)
        merge_usage(self.usage, event.usage)
        return True

    def _take_stop(self, event: usual.MessageStop) -> bool:
        """End the answer; False where more usage came with it."""
        self.closed = event.usage is None and event.metrics is None
        return self.closed

    def _message_start(self, event: Mapping[str, Any], _text: bytes) -> None:
        message = event.get("message")
        told = message if isinstance(message, Mapping) else {}
        self._begin(told.get("id"), told.get("model"), told.get("usage"))

    def _block_start(self, event: Mapping[str, Any], text: bytes) -> None:
        raw = b"" if _is_empty_input(event.get("content_block")) else raw_at(text, ("content_block",)) or b""
        self._open(event.get("content_block"), _index(event), raw)

    def _open(self, content: object, index: int | None, raw: bytes) -> _Block:
        """Begin a block; `raw` is its JSON text, for arguments that came with it."""
        given = content if isinstance(content, Mapping) else {}
        kind = given.get("type")
        block = self._new_block(kind if isinstance(kind, str) else "", index)
        if block.kind == "tool_use":
            block.id, block.name = given.get("id"), given.get("name")
            block.start_input = _given_input(given, raw)
        elif block.fits is not None:
            _append(block, given.get(block.kind))
        elif block.kind not in _SILENT_BLOCKS and not block.kind.endswith("_tool_result"):
            self.unknown += 1
        return block

    def _new_block(self, kind: str, index: int | None) -> _Block:
        """Return a new block, which deltas with its index belong to from now on."""
        bounded(len(self._blocks))
        block = _Block(kind, index, usual.DELTA_OF.get(kind))
        self._blocks.append(block)
        if index is not None:
            self._at[index] = block
        if kind == "tool_use":
            self.called = True
        return block

    def _block_delta(self, event: Mapping[str, Any], _text: bytes) -> None:
        delta = event.get("delta")
        delta = delta if isinstance(delta, Mapping) else {}
        kind = delta.get("type")
        if not isinstance(kind, str):  # some gateways leave it out: the field tells
            kind = next((kind for kind, field in _TEXT_OF.items() if field in delta), "")
        if kind in _SILENT_DELTAS:
            return
        if kind not in _TEXT_OF:
            self.unknown += 1
            return
        block, part = self._routed(_index(event), kind), delta.get(_TEXT_OF[kind])
        if block is None:
            if part and kind == "input_json_delta":
                raise SpoiledError("tool arguments arrived for a block that was never begun")
        elif _DELTA_OF.get(block.kind) == kind:
            _append(block, part)
        else:
            self._warn("delta_of_another_block")

    def _routed(self, index: int | None, kind: str) -> _Block | None:
        """Return the block that a delta belongs to, begun here if it is text that nobody began; None: none."""
        last = self._blocks[-1] if self._blocks else None
        known = self._at.get(index) if index is not None else last
        if known is not None:
            return known
        if last is not None and last.index is None:
            return last
        if kind == "input_json_delta":
            return None
        self._warn("missing_block_start")
        return self._open({"type": kind.removesuffix("_delta")}, index, b"")

    def _block_stop(self, event: Mapping[str, Any], _text: bytes) -> None:
        index = _index(event)
        block = self._at.get(index) if index is not None else None
        if block is None and self._blocks and (index is None or self._blocks[-1].index is None):
            block = self._blocks[-1]
        if block is not None:
            block.stopped = True

    def _message_delta(self, event: Mapping[str, Any], _text: bytes) -> None:
        delta = event.get("delta")
        if isinstance(delta, Mapping):
            self._stop(delta.get("stop_reason"), delta.get("stop_sequence"))
        merge_usage(self.usage, event.get("usage"))

    def _stop(self, reason: object, sequence: object) -> None:
        if isinstance(reason, str) and reason:
            self.stop_reason = joined_surrogates(reason)
        if isinstance(sequence, str):
            self._stop_sequence = joined_surrogates(sequence)

    def _message_stop(self, event: Mapping[str, Any], _text: bytes) -> None:
        self.closed = True
        merge_usage(self.usage, event.get("usage"))
        merge_usage(self.usage, from_bedrock(event.get("amazon-bedrock-invocationMetrics")))


_STEPS: Final[Mapping[type, Any]] = {
    tuple: MessagesState._take_run,  # noqa: SLF001  # its own table
    usual.MessageStart: MessagesState._take_start,  # noqa: SLF001  # its own table
    usual.BlockStart: MessagesState._take_block,  # noqa: SLF001  # its own table
    usual.BlockStop: MessagesState._take_block_stop,  # noqa: SLF001  # its own table
    usual.MessageDelta: MessagesState._take_delta,  # noqa: SLF001  # its own table
    usual.MessageStop: MessagesState._take_stop,  # noqa: SLF001  # its own table
}
_HANDLERS: Final = {
    "message_start": MessagesState._message_start,  # noqa: SLF001  # its own table
    "content_block_start": MessagesState._block_start,  # noqa: SLF001  # its own table
    "content_block_delta": MessagesState._block_delta,  # noqa: SLF001  # its own table
    "content_block_stop": MessagesState._block_stop,  # noqa: SLF001  # its own table
    "message_delta": MessagesState._message_delta,  # noqa: SLF001  # its own table
    "message_stop": MessagesState._message_stop,  # noqa: SLF001  # its own table
}


def _append(block: _Block, part: object) -> None:
    if isinstance(part, str) and part:
        block.parts.append(part)


def _string(value: object) -> str | None:
    return joined_surrogates(value) if isinstance(value, str) else None


def _index(event: Mapping[str, Any]) -> int | None:
    """Return the block's index where one is told, also as digits."""
    index = event.get("index")
    if isinstance(index, str) and index.isdecimal() and len(index) < 10:
        return int(index)
    return index if isinstance(index, int) and not isinstance(index, bool) else None


def _is_empty_input(content: object) -> bool:
    return not isinstance(content, Mapping) or not content.get("input")


def _given_input(content: Mapping[str, Any], raw: bytes) -> str:
    """Return the arguments that came with the block, as JSON text; "" where there are none (`{}`, null, "")."""
    given = content.get("input")
    if isinstance(given, str):
        return given
    if given is None or given == {}:
        return ""
    exact = raw_at(raw, ("input",))
    return exact.decode("utf-8", "replace") if exact is not None else encode_as_came(given)
