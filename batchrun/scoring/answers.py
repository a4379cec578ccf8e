"""A `Reply` → the calls in it, decoded and held against the tools: what both judges read.

Arguments that the wire found broken, or that do not decode here, are `None` with the reason. `reply_from_calls` makes
a reply of the calls of an answers file made elsewhere, `{name, input}` or as they are often kept: `{name, arguments}`, or
those two in a `function`. This module refuses to know what was expected.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from batchrun.records import Reply, ToolUse, Usage
from batchrun.scoring.schema import Tool, ToolSet
from batchrun.scoring.values import MAX_ANSWER_DEPTH, Json, NotJson, decode
from batchrun.wire.arguments import Parsed, parse_arguments

_encoder: Final = msgspec.json.Encoder(decimal_format="number")
_items: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


class NoArguments(Exception):
    """A call has no field that holds arguments: its file is in another form, and the model is not to blame."""


class Call(Struct, frozen=True, gc=False):
    """One call made: its 1-based number, name and arguments; `error` says why there are no arguments."""

    number: int
    name: str
    arguments: dict[str, Json] | None
    error: str | None
    tool: Tool | None
    valid: bool  # keeps its tool's schema, or there is none to keep

    @property
    def order(self) -> str:
        """A text to sort by, so that the order in which equal names were called does not matter."""
        return json.dumps(self.arguments, sort_keys=True)


def read_calls(reply: Reply, tools: ToolSet) -> list[Call]:
    """Return the calls of a reply in its order."""
    return [_call(number, use, tools.tools.get(use.name)) for number, use in enumerate(reply.tool_uses, 1)]


def reply_from_calls(calls: Any, *, text: str | None = None, stop_reason: str | None = None) -> Reply:
    """Return a reply with these calls, `{name, input}` each (or the JSON text of them), `input` an object or its JSON text.

    `{name, arguments}` is read alike, and `{"function": {name, arguments}}`; a call that has none of them raises `NoArguments`.
    Fields of a `results.parquet` call (`id`, `raw`, `error`) are kept. What is no list is the one call; None is none. A call
    that is no object is a call with broken arguments. `stop_reason` None: not told.
    """
    if isinstance(calls, str):
        calls = _spelled(calls)
    listed = calls if isinstance(calls, list | tuple) else () if calls is None else (calls,)
    uses = tuple(_use(number, call) for number, call in enumerate(listed, 1))
    return Reply(form="anthropic_json", text=text or "", tool_uses=uses, stop_reason=stop_reason, usage=Usage())


def _call(number: int, use: ToolUse, tool: Tool | None) -> Call:
    """Decode one call's arguments and check them."""
    arguments, error = None, use.error or "invalid_json"
    if use.input is not None:
        try:
            arguments, error = decode(use.input, depth=MAX_ANSWER_DEPTH), ""
        except NotJson as reason:
            error = f"invalid_json: {reason}"
        if not error and type(arguments) is not dict:
            arguments, error = None, "not_object"
    valid = arguments is not None and (tool is None or tool.valid(arguments))
    return Call(number, use.name, arguments, error or None, tool, valid)


def _spelled(text: str) -> Any:
    """Return the calls that a text spells; one with a key that is there twice has broken arguments, as on the wire."""
    if not text.strip():
        return None
    try:
        calls = decode(text, depth=MAX_ANSWER_DEPTH)
    except NotJson:
        return [None]
    if calls is None:
        return None
    if not isinstance(calls, list):
        text, calls = f"[{text}]", [calls]
    return [_strict(call, bytes(item).decode()) for call, item in zip(calls, _items(text), strict=True)]


def _strict(call: Any, text: str) -> Any:
    """Return a call, or in its place one whose arguments are broken where its text breaks the wire's rules."""
    if (
        isinstance(call, dict)
        and any(value is not None for value in _arguments(call))
        and parse_arguments(text).error == "invalid_json"
    ):
        return {"name": _name(call), "input": None, "error": "invalid_json"}
    return call


def _use(number: int, call: Any) -> ToolUse:
    """Read one call of an answers file, its arguments as strictly as the wire does."""
    if not isinstance(call, Mapping):
        return ToolUse(id=None, name="", input=None, error="not_object")
    told = {field: value for field in ("id", "raw", "error") if isinstance(value := call.get(field), str)}
    held = _arguments(call)
    if not held and not told.keys() & {"raw", "error"}:
        raise NoArguments(f"call {number} has no `input`")
    name, given = _name(call), next((value for value in held if value is not None), None)
    if given is None or (isinstance(given, str) and "raw" in told):  # a run's own call: parsed when it arrived
        return ToolUse(id=told.get("id"), name=name, input=given, raw=told.get("raw"), error=told.get("error"))
    text, error = parse_arguments(given) if isinstance(given, str) else _encoded(given)
    return ToolUse(id=told.get("id"), name=name, input=text, error=error)


def _arguments(call: Mapping[str, Any]) -> list[Any]:
    """Return what the fields of a call that hold arguments have, nulls included: a table has each field in each call."""
    function = call.get("function")
    inside = function if isinstance(function, Mapping) else {}
    return [holder[field] for holder, field in ((call, "input"), (call, "arguments"), (inside, "arguments")) if field in holder]


def _name(call: Mapping[str, Any]) -> str:
    """Return a call's name, also one in its `function`; '' where there is none."""
    function = call.get("function")
    names = (call.get("name"), function.get("name") if isinstance(function, Mapping) else None)
    return next((name for name in names if isinstance(name, str)), "")


def _encoded(value: object) -> Parsed:
    try:
        return Parsed(_encoder.encode(value).decode(), None)
    except (TypeError, ValueError, RecursionError):
        return Parsed(None, "invalid_json")
