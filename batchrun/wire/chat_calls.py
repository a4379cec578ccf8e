"""The pieces of tool calls in a chat completion → the calls that they are pieces of.

In a whole message every item of the list is a call. In a stream a piece continues the call of its index, or the last
one where it has none; but some gateways number every call 0, some leave out the id or send one for all, and some repeat
id and name with every piece. So no index is believed against the id, the name and the arguments so far: `_is_another`
has the rules. Refuses to know what else a message holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from batchrun.records import ToolUse
from batchrun.wire.arguments import tool_use
from batchrun.wire.spoiled import bounded

_MARKS: Final = re.compile(r'\\.?|["{}]', re.DOTALL).findall
"""What tells where an object ends: quotes, braces, and escapes so that they are not taken for quotes."""


class Piece(Struct, frozen=True, kw_only=True, gc=False):
    """What one item of a list of calls says; without an index, an id or a name these are None, None and ''."""

    index: int | None
    id: str | None
    name: str
    arguments: str


class Call:
    """One tool call as it grows."""

    __slots__ = ("_closed", "_escaping", "_opened", "_quoted", "_read", "id", "name", "parts")

    def __init__(self) -> None:
        """Begin with nothing."""
        self.id: str | None = None
        self.name = ""
        self.parts: list[str] = []
        self._read = 0  # how many of the parts `has_ended` has read, and where they left it:
        self._opened = self._closed = 0  # braces outside strings
        self._quoted = False
        self._escaping = ""

    def add(self, piece: Piece) -> None:
        """Grow by one piece; the first id and the first name are the call's."""
        self.id = self.id or piece.id
        self.name = self.name or piece.name
        self.parts.append(piece.arguments)

    def has_ended(self) -> bool:
        """Tell whether the arguments so far are a whole object; no part is read twice, however often this is asked."""
        marks = _MARKS(self._escaping + "".join(self.parts[self._read :]))
        self._read = len(self.parts)
        self._escaping = marks.pop() if marks and marks[-1] == "\\" else ""
        for mark in marks:
            if mark == '"':
                self._quoted = not self._quoted
            elif not self._quoted:
                self._opened += mark == "{"
                self._closed += mark == "}"
        return 0 < self._opened == self._closed and not self._quoted


class Calls:
    """The calls of one completion, in the order in which they began."""

    __slots__ = ("all", "by_index")

    def __init__(self) -> None:
        """Begin with none."""
        self.all: list[Call] = []
        self.by_index: dict[int, Call] = {}

    def whole(self, pieces: Iterable[Piece]) -> None:
        """Add the calls of a whole message: each item is one, whatever its index and id."""
        for piece in pieces:
            self._begin(piece).add(piece)

    def delta(self, pieces: Iterable[Piece]) -> None:
        """Add the pieces of one delta; no call is named twice in it."""
        named: set[Call] = set()
        for piece in pieces:
            call = self.by_index.get(piece.index) if piece.index is not None else self.all[-1] if self.all else None
            if call is None or (piece.name and call in named) or _is_another(call, piece):
                call = self._begin(piece)
            call.add(piece)
            if piece.name:
                named.add(call)

    def tool_uses(self, *, cut: bool) -> tuple[ToolUse, ...]:
        """Parse the arguments of every call, now that no more can come; `cut`: the model was stopped in the last one."""
        last = self.all[-1] if self.all and cut else None
        return tuple(tool_use(call.id, call.name, "".join(call.parts), cut=call is last) for call in self.all)

    def _begin(self, piece: Piece) -> Call:
        bounded(len(self.all))
        call = Call()
        self.all.append(call)
        if piece.index is not None:
            self.by_index[piece.index] = call
        return call


def _is_another(call: Call, piece: Piece) -> bool:
    """Tell whether a piece is not of the call that it would continue.

    A piece with an id of its own is of another call, unless it has an index and no name. So is one with a name of its
    own, and one that repeats the name after the arguments have ended; but if it brings none it only repeats what was
    said, where the call has an id: another call would have one too.
    """
    if piece.id is not None and call.id is not None and piece.id != call.id:
        return bool(piece.name) or piece.index is None
    if not piece.name or not call.name:
        return False
    if piece.name != call.name:
        return True
    return (call.id is None or bool(piece.arguments.strip())) and call.has_ended()
