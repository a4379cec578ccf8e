"""The members of a line of JSON whose fields are all the contract's own: in C, where that was built.

A line gives them all or None: then it is not such a line, or there is something wrong with it, and whoever knows every
kind of line tells which. What C refuses is asked of msgspec, which knows more.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

try:
    from batchrun.sources import _members
except ImportError:
    _members = None  # type: ignore[assignment]

Text = bytes | None

Members = tuple[str | None, Text, Text, Text, Text, Text, Text, Text, str | None, tuple[str, ...]]
"""`id`, `messages`, `prompt`, `system`, `tools`, `tool_choice`, `params`, `expected`, `cluster`, `tags`.

Names are decoded, the others JSON text; None is null, or not there.
"""

_NULL: Final = msgspec.Raw(b"null")


class _Usual(Struct, forbid_unknown_fields=True, gc=False):
    """A line whose fields are all the contract's own, names and tags being strings."""

    id: str | None = None
    messages: msgspec.Raw = _NULL
    prompt: msgspec.Raw = _NULL
    system: msgspec.Raw = _NULL
    tools: msgspec.Raw = _NULL
    tool_choice: msgspec.Raw = _NULL
    params: msgspec.Raw = _NULL
    expected: msgspec.Raw = _NULL
    cluster: str | None = None
    tags: tuple[str, ...] | None = None


_decode: Final = msgspec.json.Decoder(_Usual).decode


def members_of(line: bytes, tools: bytes) -> Members | None:
    """Return a line's members, None where it is not usual; `tools` are those of a line before, in which case they are kept."""
    if _members is not None and (found := _members.members_of(line, tools)) is not None:
        return found
    return by_msgspec(line)


def by_msgspec(line: bytes) -> Members | None:
    """Do as `members_of` does, without the extension."""
    try:
        told = _decode(line)
        if not line.isascii():
            line.decode()  # it may not be UTF-8
        return (
            told.id,
            _begun(told.messages, b"["),
            _begun(told.prompt, b'"'),
            _begun(told.system, b'"['),
            _begun(told.tools, b"["),
            _begun(told.tool_choice, b"{"),
            _begun(told.params, b"{"),
            _begun(told.expected, b"[{"),
            told.cluster,
            told.tags or (),
        )
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _begun(raw: msgspec.Raw, starts: bytes) -> bytes | None:
    """Return a member's text, which begins as one of `starts` does, None where it is null or not there.

    Raises `msgspec.ValidationError`, as the decoder does.
    """
    if raw is _NULL:
        return None
    text = bytes(raw)
    if text[0] in starts:
        return text
    if text == b"null":
        return None
    raise msgspec.ValidationError("it is something else")
