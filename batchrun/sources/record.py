"""One dataset row between its file and its `Sample`: named JSON texts, checked and put in their places.

A `Record` maps field names to JSON text, byte for byte as it stood in the file; `Shaper` turns one into
a `Sample` by looking only at what it must. Equal `tools` become one shared object. It refuses to know
which file format the row came from, and it judges shapes alone: what a tool or an `expected` means is
for `check`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from batchrun.errors import Problem
from batchrun.records import Sample
from batchrun.sources.members import members_of

FIELDS: Final = ("id", "messages", "prompt", "system", "tools", "tool_choice", "params", "expected", "cluster", "tags")
"""The fields of a dataset row (contract 2); every other one is metadata."""

STRUCTURED: Final = frozenset({"messages", "tools", "tool_choice", "params", "expected", "tags", "system"})
"""Fields that may arrive as JSON text inside a string, in containers that have no nested values."""

ALWAYS_JSON: Final = STRUCTURED - {"tags", "system"}
"""Of these, the ones in which a string can be nothing else."""

MAX_INTERNED: Final = 4096

PATIENCE: Final = 64
"""After so many more unusual lines than usual ones, the short way is not tried again: the rows have fields of their own."""

_text: Final = msgspec.json.Decoder(str)
_texts: Final = msgspec.json.Decoder(tuple[str, ...])
_list: Final = msgspec.json.Decoder(list[msgspec.Raw])
_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_any: Final = msgspec.json.Decoder(msgspec.Raw)
_encode: Final = msgspec.json.Encoder().encode

_QUOTE: Final = ord('"')
_INTEGER = re.compile(rb"-?\d+")


class Record(Struct, frozen=True, kw_only=True, gc=False):
    """One row as read: `fields` maps names to JSON text (bytes or `msgspec.Raw`).

    `index` is the row's 0-based place in the whole dataset, `line` its 1-based line where the container
    has lines. `problem` is set for a row that could not be read or converted; its `fields` are then what
    could be read of it, for the record only.
    """

    index: int
    file: str
    fields: Mapping[str, Any]
    line: int | None = None
    problem: Problem | None = None


class Line(Struct, frozen=True, kw_only=True, gc=False):
    """One row as it lies in a JSONL file: its number, its place, and the line's bytes without the LF."""

    index: int
    file: str
    line: int
    text: bytes


Row = Record | Line
"""One row, decoded to its top level or not yet."""


class RowError(ValueError):
    """A field of a row has the wrong shape; `field` names it, `code` is the problem's stable name."""

    def __init__(self, message: str, *, field: str, code: str, hint: str | None = None) -> None:
        """Keep what `Problem` wants to know."""
        super().__init__(message)
        self.field = field
        self.code = code
        self.hint = hint


class Shaper:
    """Turns records into samples, keeping equal `tools` once.

    `lenient` containers (Parquet, CSV, mapped columns) may hold a structured field as JSON text in a
    string, and a lone string as `tags`. The text `null` and no text at all then mean that the field is absent.
    """

    def __init__(self, *, lenient: bool = False) -> None:
        """Start with nothing interned."""
        self._lenient = lenient
        self._interned: dict[bytes, bytes] = {}
        self._tools_before = b"[]"  # most rows have those of the row before: to compare costs less than to hash
        self._patience = PATIENCE

    def usual(self, row: Line) -> Sample | None:
        """Return the sample of a line that needs no closer look, None for any other: that goes the long way, by its record.

        Where `sample` looks at every member by its name, this decodes the line into its places at once.
        """
        if not self._patience:
            return None
        sample = self._at_once(row)
        if sample is None:
            self._patience -= 1
        elif self._patience < PATIENCE:
            self._patience += 1
        return sample

    def _at_once(self, row: Line) -> Sample | None:
        """Return the sample of a line of the usual fields, None where it is not one, or something is wrong with it."""
        found = members_of(row.text, self._tools_before)
        if found is None:
            return None
        name, messages, prompt, system, tools, tool_choice, params, expected, cluster, tags = found
        try:
            return Sample(
                index=row.index,
                id=str(row.index) if name is None else name,
                messages=_messages(messages, prompt),
                system=system,
                tools=None if tools is None else self._intern(tools),
                tool_choice=tool_choice,
                params=params,
                expected=expected,
                cluster=cluster,
                tags=tags,
            )
        except RowError:
            return None

    def sample(self, record: Record) -> Sample:
        """Return the sample of a readable record; raise `RowError` where its shape is wrong."""
        fields: dict[str, bytes] = {}
        rest: dict[str, bytes] = {}
        lenient = self._lenient
        for name, raw in record.fields.items():
            text = bytes(raw)
            if name not in _KNOWN:
                rest[name] = text
            elif text != b"null":
                packed = lenient and text[0] == _QUOTE and name in STRUCTURED
                held = _unwrapped(name, text) if packed else text
                if held is not None:
                    fields[name] = held
        given = fields.get
        identifier = _label(given("id"), "id")
        return Sample(
            index=record.index,
            id=str(record.index) if identifier is None else identifier,
            messages=_messages(given("messages"), given("prompt")),
            system=_of(given("system"), "system", b'"[', "a string or a list of blocks"),
            tools=None if (tools := given("tools")) is None else self._intern(tools),
            tool_choice=_of(given("tool_choice"), "tool_choice", b"{", "an object"),
            params=_of(given("params"), "params", b"{", "an object"),
            expected=_of(given("expected"), "expected", b"[{", "a list of calls or an object"),
            cluster=_label(given("cluster"), "cluster"),
            tags=() if (tags := given("tags")) is None else self._tags(tags),
            metadata=joined(rest) if rest else None,
        )

    def errors(self, record: Record) -> list[RowError]:
        """Return everything that is wrong with a record's shape, where `sample` raises the first."""
        asked = {name: record.fields[name] for name in ("messages", "prompt") if name in record.fields}
        alone = [{"prompt": b'"-"', name: raw} for name, raw in record.fields.items() if name in _KNOWN and name not in asked]
        found = [self.error(msgspec.structs.replace(record, fields=fields)) for fields in (asked, *alone)]
        return [error for error in found if error is not None]

    def error(self, record: Record) -> RowError | None:
        """Return the first thing wrong with a record's shape, None where it is sound."""
        try:
            self.sample(record)
        except RowError as error:
            return error
        return None

    def _intern(self, tools: bytes) -> bytes:
        """Return the one object that stands for these tools; a bounded table, emptied when it is full."""
        if tools == self._tools_before:
            return self._tools_before
        known = self._interned.get(tools)
        if known is not None:
            self._tools_before = known
            return known
        if not tools.startswith(b"["):
            raise RowError("must be a list of tools", field="tools", code="tools-not-a-list")
        if len(self._interned) >= MAX_INTERNED:
            self._interned.clear()
        self._interned[tools] = self._tools_before = tools
        return tools

    def _tags(self, text: bytes) -> tuple[str, ...]:
        """Return the tags; one string is one tag where the container has no lists."""
        if self._lenient and text.startswith(b'"'):
            tag = _text.decode(text)
            return (tag,) if tag else ()
        try:
            return _texts.decode(text)
        except msgspec.MsgspecError:
            raise RowError("must be a list of strings", field="tags", code="wrong-type") from None


_KNOWN = frozenset(FIELDS)


def identifier_of(record: Record) -> str:
    """Return the record's id as its sample would have it, or its index where it has no usable one."""
    raw = record.fields.get("id")
    try:
        found = None if raw is None else _label(bytes(raw), "id")
    except RowError:
        found = None
    return str(record.index) if found is None else found


def joined(members: Mapping[str, bytes]) -> bytes:
    """Return one JSON object of these members, their texts untouched."""
    return b"{" + b",".join([_key(name) + text for name, text in members.items()]) + b"}"


@functools.lru_cache(maxsize=MAX_INTERNED)
def _key(name: str) -> bytes:
    """Return a member's name and colon as JSON text."""
    return _encode(name) + b":"


def split_object(text: bytes) -> dict[str, msgspec.Raw]:
    """Return the members of one JSON object, each as the text it was; raises `msgspec.MsgspecError`."""
    return _object.decode(text)


def split_array(text: bytes) -> list[msgspec.Raw]:
    """Return the items of one JSON array, each as the text it was; raises `msgspec.MsgspecError`."""
    return _list.decode(text)


def parses(text: bytes) -> bool:
    """Tell whether `text`, which is UTF-8, is one JSON value."""
    try:
        _any.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return True


def _label(text: bytes | None, name: str) -> str | None:
    """Return a name: a string, or the digits of a whole number, as many public datasets have ids."""
    if text is None or text == b"null":
        return None
    if text.startswith(b'"'):
        return _text.decode(text)
    if _INTEGER.fullmatch(text):
        return text.decode()
    raise RowError("must be a string", field=name, code="wrong-type")


def _messages(messages: bytes | None, prompt: bytes | None) -> bytes:
    """Return the messages; a prompt becomes one user message around its own text."""
    if messages is not None and prompt is not None:
        raise RowError(
            "has both `messages` and `prompt`", field="messages", code="messages-and-prompt", hint="keep exactly one of them"
        )
    if messages is not None:
        if not messages.startswith(b"["):
            raise RowError("must be a list of messages", field="messages", code="messages-not-a-list")
        if not (messages.startswith(b"[{") or messages[1:].lstrip().startswith(b"{")):
            raise RowError("has no message", field="messages", code="no-messages")
        return messages
    if prompt is None:
        raise RowError(
            "has neither `messages` nor `prompt`",
            field="messages",
            code="no-messages",
            hint='name the column with `columns.messages = "…"` or `columns.prompt = "…"` in the job',
        )
    if not prompt.startswith(b'"'):
        raise RowError("must be a string", field="prompt", code="wrong-type", hint="a list of messages goes in `messages`")
    return b'[{"role":"user","content":' + prompt + b"}]"


def _of(text: bytes | None, name: str, starts: bytes, wanted: str) -> bytes | None:
    """Return the field's text where it begins as one of `starts` does, None where it is absent."""
    if text is None or text[0] in starts:
        return text
    raise RowError(f"must be {wanted}", field=name, code="wrong-type")


def _unwrapped(name: str, text: bytes) -> bytes | None:
    """Return the JSON that a string holds, or the text itself where it holds none; None where that is null or nothing."""
    inner = _text.decode(text).strip().encode()
    if name in ALWAYS_JSON and inner in (b"", b"null"):
        return None
    if inner[:1] not in (b"[", b"{") or (name == "system" and inner[:1] == b"{"):
        return text
    if parses(inner):
        return inner
    if name in {"system", "tags"}:
        return text  # words that happen to begin with a bracket
    raise RowError("is text that is not valid JSON", field=name, code="broken-json")
