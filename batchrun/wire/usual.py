"""The events that a Messages stream is usually made of, as msgspec structs: lines of JSON in, structs out.

What these structs cannot hold (another type, a field of another kind, text that is not strict JSON) is refused by the
decoder, and what they must not decide shows in their fields; either is then read by `MessagesState.apply`, which
takes anything. Fields that nobody looks at are skipped over undecoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from batchrun.wire.json_text import MAX_DEPTH, nested_deeper


class Text(Struct, tag="text_delta", gc=False):
    """A part of a text block."""

    text: str


class Json(Struct, tag="input_json_delta", rename={"text": "partial_json"}, gc=False):
    """A part of a tool call's arguments."""

    text: str


class Thinking(Struct, tag="thinking_delta", rename={"text": "thinking"}, gc=False):
    """A part of a thinking block."""

    text: str


class Signature(Struct, tag="signature_delta", gc=False):
    """Nothing in it is ours."""


class Citations(Struct, tag="citations_delta", gc=False):
    """Nor in this."""


class Compaction(Struct, tag="compaction_delta", gc=False):
    """Nor in this."""


class BlockDelta(Struct, tag="content_block_delta", gc=False):
    """A part of the block at `index`."""

    index: int
    delta: Text | Json | Thinking | Signature | Citations | Compaction


class BlockStop(Struct, tag="content_block_stop", gc=False):
    """The end of the block at `index`."""

    index: int


class Ping(Struct, tag="ping", gc=False):
    """Nothing."""


class _Routed(Struct, gc=False):
    """It may be another event than its type says, an error or a chunk in chat form: such a one is refused."""

    error: None = None
    choices: UnsetType = UNSET
    object: None = None


class Message(Struct, gc=False):
    """What the beginning of an answer tells that is ours."""

    id: Any = None
    model: Any = None
    usage: Any = None


class MessageStart(_Routed, tag="message_start", kw_only=True, gc=False):
    """The beginning of the answer."""

    message: Message


class TextBlock(Struct, tag="text", gc=False):
    """A text block as it begins."""

    text: str = ""


class ThinkingBlock(Struct, tag="thinking", rename={"text": "thinking"}, gc=False):
    """A thinking block as it begins."""

    text: str = ""


class ToolBlock(Struct, tag="tool_use", kw_only=True, gc=False):
    """A tool call as it begins, its arguments still to come."""

    id: str
    name: str
    input: dict[str, Any] = {}


class BlockStart(_Routed, tag="content_block_start", kw_only=True, gc=False):
    """The beginning of the block at `index`."""

    index: int
    content_block: TextBlock | ThinkingBlock | ToolBlock


class Stop(Struct, gc=False):
    """Why the answer ended."""

    stop_reason: Any = None
    stop_sequence: Any = None


class MessageDelta(_Routed, tag="message_delta", kw_only=True, gc=False):
    """Why the answer ended, and the usage so far."""

    delta: Stop
    usage: dict[str, Any] | None = None


class MessageStop(_Routed, tag="message_stop", rename={"metrics": "amazon-bedrock-invocationMetrics"}, kw_only=True, gc=False):
    """The end of the answer; gateways add a usage."""

    usage: Any = None
    metrics: Any = None


Event = BlockDelta | BlockStop | Ping | MessageStart | BlockStart | MessageDelta | MessageStop
DELTA_OF: Final = {"text": Text, "tool_use": Json, "thinking": Thinking}
SILENT_DELTAS: Final = frozenset({Signature, Citations, Compaction})

_SURELY_SHALLOW: Final = 2 * MAX_DEPTH  # bytes: what is opened more often than that needs more to be closed
_REFUSED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_decoder: Final[msgspec.json.Decoder[Event]] = msgspec.json.Decoder(Event)
_decode, _decode_lines = _decoder.decode, _decoder.decode_lines


def read_all(lines: Sequence[bytes]) -> list[Event] | None:
    """Return the event of each of `lines`, which are `{…}` without a line end; None where one is not usual.

    In one call of the decoder, because a call costs more than an event. Exact, although to the decoder a line end is
    a blank: `}` and then `{` can only stand between two values, never within one, so that each line holds one event
    or more, and where there are as many events as lines, just one.
    """
    for line in lines:
        if len(line) > _SURELY_SHALLOW and nested_deeper(line):
            return None
    try:
        found = _decode_lines(b"\n".join(lines))
    except _REFUSED:
        return None
    return found if len(found) == len(lines) else None


def read(line: bytes) -> Event | None:
    """Return the event of one line, None where it is not usual."""
    if len(line) > _SURELY_SHALLOW and nested_deeper(line):
        return None
    try:
        return _decode(line)
    except _REFUSED:
        return None
