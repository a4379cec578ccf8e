"""An answer for as long as it comes in usual events, which is nearly always to its end: read in C, where that was built.

It is fed a stream's bytes and keeps what `MessagesState` would: of each block (kind, id, name, text, index, whether it has
stopped), the `usages` as JSON text, and their merged `usage` where that is plain. At the first bytes that are not surely
usual it takes no more; `MessagesState.of` goes on from what it has, and its `rest` begins with the event that it did not
take.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from batchrun.records import Reply, ToolUse
from batchrun.wire.arguments import tool_use
from batchrun.wire.json_text import decode_envelope
from batchrun.wire.usage import merge_usage, plain_usage, split_usage

try:
    from batchrun.wire._answer import Answer
except ImportError:
    Answer = None  # type: ignore[assignment,misc]

__all__ = ["Answer", "assembled", "usage_of", "whole_reply"]

CUT_REASONS: Final = frozenset({"max_tokens", "model_context_window_exceeded"})
"""Stop reasons that may have cut the last tool call short."""


def whole_reply(answer: Answer) -> Reply | None:
    """Return an answer that came in usual events to its end; None: it did not."""
    if not answer.closed or answer.stop_reason is None:
        return None
    text, thinking, uses = assembled([block[:4] for block in answer.blocks()], answer.stop_reason)
    usage = answer.usage
    return Reply(
        form="anthropic_sse",
        text=text,
        thinking=thinking,
        tool_uses=uses,
        stop_reason=answer.stop_reason,
        stop_sequence=answer.stop_sequence,
        usage=split_usage(usage_of(answer)) if usage is None else plain_usage(usage),
        message_id=answer.id,
        model=answer.model,
    )


def assembled(
    blocks: Sequence[tuple[str, object, object, str]], stop_reason: str | None
) -> tuple[str, str | None, tuple[ToolUse, ...]]:
    """Return the text, the thinking (None: there was none) and the calls of blocks: of each its kind, id, name and text."""
    text, thinking, uses = "", None, list[ToolUse]()
    last = len(blocks) - 1 if stop_reason in CUT_REASONS else None
    for place, (kind, call_id, name, told) in enumerate(blocks):
        if kind == "tool_use":
            uses.append(tool_use(call_id, name, told, cut=place == last))
        elif kind == "text":
            text += told
        elif kind == "thinking":
            thinking = told if thinking is None else thinking + told
    return text, thinking, tuple(uses)


def usage_of(answer: Answer) -> dict[str, Any]:
    """Return the merged usage of an answer."""
    usage: dict[str, Any] = {}
    for told in answer.usages or ():
        merge_usage(usage, decode_envelope(told))
    return usage
