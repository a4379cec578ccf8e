"""An answer for as long as it comes in usual events, which is nearly always to its end: read in C, where that was built.

It is fed a stream's bytes and keeps what `MessagesState` would. At the first bytes that are not surely usual it takes no
more; `MessagesState.of` goes on from what it has, and its `rest` begins with the event that it did not take.
"""

from __future__ import annotations

from typing import Final

try:
    from batchrun.wire._answer import Answer, surely_strict
except ImportError:
    Answer = None  # type: ignore[assignment,misc]

    def surely_strict(text: str, /) -> bool:  # noqa: ARG001 - the signature of the one in C
        """Tell whether a text is surely an object of strict JSON, no name in it twice and no character told by its number."""
        return False


__all__ = ["KIND_NAMES", "Answer", "surely_strict"]

KIND_NAMES: Final = ("text", "tool_use", "thinking")
"""The names of the kinds of blocks that it tells by their place here."""
