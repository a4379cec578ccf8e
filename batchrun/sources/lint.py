"""What the endpoint would refuse, found before anything is sent: tools and messages, as JSON text.

Rules are those the Messages API states: tool and parameter name patterns, `input_schema` an object
schema of JSON Schema 2020-12, roles in turn, every `tool_use` answered at the head of the next turn, its id
said once in its own. Distinct tools are judged once. It refuses to know rows, files and endpoints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, NoReturn

import jsonschema_rs
import msgspec
from msgspec import Struct

TOOL_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,128}")
PARAMETER_NAME: Final = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
NEAR_EMPTY_BYTES: Final = 3
"""A prompt of fewer UTF-8 bytes is two letters at most: hardly a question."""

MAX_REMEMBERED: Final = 4096


class Finding(Struct, frozen=True, kw_only=True):
    """One thing wrong with a field: `field` may go deeper than the row's own, as in `tools[1].name`."""

    field: str
    code: str
    message: str
    hint: str | None = None
    severity: str = "error"


class _Block(Struct):
    """The parts of a content block that rules speak of."""

    type: str
    text: str | None = None
    id: str | None = None
    name: str | None = None
    tool_use_id: str | None = None


class _Message(Struct):
    """One message."""

    role: str
    content: str | list[_Block]


_messages: Final = msgspec.json.Decoder(list[_Message]).decode
_anything: Final = msgspec.json.Decoder().decode


class ToolLint:
    """Judges tools, remembering the verdict on each distinct text."""

    def __init__(self) -> None:
        """Start with none judged."""
        self._known: dict[bytes, tuple[tuple[Finding, ...], frozenset[str]]] = {}
        self.distinct = 0

    def findings(self, tools: bytes) -> tuple[Finding, ...]:
        """Return what is wrong with a row's tools."""
        return self._judged(tools)[0]

    def names(self, tools: bytes) -> frozenset[str]:
        """Return the names of the tools."""
        return self._judged(tools)[1]

    def _judged(self, tools: bytes) -> tuple[tuple[Finding, ...], frozenset[str]]:
        known = self._known.get(tools)
        if known is None:
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            value = _decoded(tools)
            items = value if isinstance(value, list) else []
            names = frozenset(str(tool.get("name")) for tool in items if isinstance(tool, dict))
            known = self._known[tools] = (tuple(_tools_findings(value)), names)
            self.distinct += 1
        return known


def message_findings(text: bytes) -> list[Finding]:
    """Return what is wrong with a row's messages."""
    try:
        messages = _messages(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        what, _, place = str(error).partition(" - at `$")
        return [Finding(field="messages" + place.rstrip("`"), code="message-shape", message=_lowered(what))]
    if _is_one_question(messages):
        return []
    return list(_turn_findings(messages)) or list(_size_findings(messages))


def _is_one_question(messages: Sequence[_Message]) -> bool:
    """Tell whether this is the usual row: one turn of the user's, in words, of which there are enough."""
    if len(messages) != 1:
        return False
    asked = messages[0]
    return asked.role == "user" and isinstance(asked.content, str) and len(asked.content.strip()) >= NEAR_EMPTY_BYTES


def choice_findings(choice: bytes, tools: frozenset[str]) -> list[Finding]:
    """Return what is wrong with a `tool_choice`, given the names of the tools there are."""
    value = _decoded(choice)
    if not isinstance(value, dict) or value.get("type") not in ("auto", "any", "tool", "none"):
        message = "`type` must be auto, any, tool or none"
        return [Finding(field="tool_choice", code="tool-choice", message=message)]
    if value["type"] == "tool" and value.get("name") not in tuple(tools):
        return [
            Finding(field="tool_choice", code="tool-choice", message=f"names {value.get('name')!r}, which is no tool of the row")
        ]
    return []


def _tools_findings(tools: Any) -> Iterator[Finding]:
    """Yield what is wrong with a list of tools."""
    if not isinstance(tools, list):
        yield Finding(field="tools", code="tools-not-a-list", message="must be a list of tools")
        return
    seen: dict[str, int] = {}
    for at, tool in enumerate(tools):
        where = f"tools[{at}]"
        if not isinstance(tool, dict):
            yield Finding(field=where, code="tool-shape", message="must be an object")
            continue
        name = tool.get("name")
        if isinstance(name, str) and name in seen:
            yield Finding(
                field=f"{where}.name", code="duplicate-tool", message=f"{name!r} is the name of tools[{seen[name]}] too"
            )
        elif isinstance(name, str):
            seen[name] = at
        yield from _tool_findings(tool, where)


def _tool_findings(tool: dict[str, Any], where: str) -> Iterator[Finding]:
    """Yield what is wrong with one tool; a server tool (one with a dated `type`) has no schema of ours."""
    if isinstance(tool.get("function"), dict) or tool.get("type") == "function":
        hint = 'format = "openai", or `batchrun convert --from openai`'
        yield Finding(field=where, code="tool-shape", message="is in the OpenAI form", hint=hint)
        return
    name = tool.get("name")
    if not isinstance(name, str) or not TOOL_NAME.fullmatch(name):
        message = f"{name!r} is a name the API refuses" if name is not None else "is missing"
        hint = "1 to 128 of a-z, A-Z, 0-9, _ and -"
        yield Finding(field=f"{where}.name", code="illegal-tool-name", message=message, hint=hint)
    kind = tool.get("type") or "custom"
    if not isinstance(kind, str):
        yield Finding(field=f"{where}.type", code="tool-shape", message="must be a string")
    if kind != "custom":
        return
    if "input_schema" not in tool:
        hint = '`{"type": "object", "properties": {}}` for a tool without arguments'
        yield Finding(field=f"{where}.input_schema", code="tool-without-schema", message="is missing", hint=hint)
        return
    yield from _schema_findings(tool["input_schema"], f"{where}.input_schema")


def _schema_findings(schema: Any, where: str) -> Iterator[Finding]:
    """Yield what is wrong with an `input_schema`."""
    if not isinstance(schema, dict) or schema.get("type") != "object":
        yield Finding(field=where, code="invalid-schema", message='must be an object schema, with `"type": "object"`')
        return
    try:
        jsonschema_rs.Draft202012Validator(schema, retriever=_refuse)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in getattr(error, "instance_path", []))
        message = f"is not valid JSON Schema 2020-12: {getattr(error, 'message', error)}"
        yield Finding(field=where + path, code="invalid-schema", message=message)
        return
    for name in schema.get("properties", {}):
        if not PARAMETER_NAME.fullmatch(name):
            message, hint = f"{name!r} is a parameter name the API refuses", "1 to 64 of a-z, A-Z, 0-9, _, . and -"
            yield Finding(field=f"{where}.properties", code="illegal-parameter-name", message=message, hint=hint)


def _turn_findings(messages: Sequence[_Message]) -> Iterator[Finding]:
    """Yield what is wrong with the order of roles, and with calls and their results."""
    if messages and messages[0].role == "assistant":
        yield Finding(field="messages[0].role", code="message-order", message="the first message must be the user's")
    open_ids: set[str] = set()
    for at, message in enumerate(messages):
        if message.role not in {"user", "assistant"}:
            hint = "put its text in the field `system`" if message.role == "system" else None
            yield Finding(
                field=f"messages[{at}].role", code="message-role", message=f"{message.role!r} is no role here", hint=hint
            )
            return
        if isinstance(message.content, str) and not open_ids:
            continue
        blocks = message.content if isinstance(message.content, list) else ()
        answered = {block.tool_use_id for block in blocks if block.type == "tool_result" and block.tool_use_id}
        if open_ids - answered:
            missing = ", ".join(sorted(open_ids - answered))
            yield Finding(
                field=f"messages[{at}]", code="tool-result-missing", message=f"must begin with the results of {missing}"
            )
        if answered - open_ids:
            orphans = ", ".join(sorted(answered - open_ids))
            yield Finding(
                field=f"messages[{at}]", code="tool-result-orphan", message=f"holds results of no call before it: {orphans}"
            )
        yield from _block_findings(blocks, f"messages[{at}]")
        open_ids = {block.id for block in blocks if block.type == "tool_use" and block.id}
    if open_ids:
        yield Finding(
            field="messages", code="tool-result-missing", message=f"ends without the results of {', '.join(sorted(open_ids))}"
        )


def _block_findings(blocks: Sequence[_Block], where: str) -> Iterator[Finding]:
    """Yield what is wrong with the calls of one message among themselves, and with the place of results in it."""
    called: set[str] = set()
    for at, block in enumerate(blocks):
        place = f"{where}.content[{at}]"
        if block.type == "tool_use" and block.id:
            if block.id in called:
                yield Finding(
                    field=f"{place}.id", code="duplicate-call-id", message=f"{block.id!r} is the id of a call before it too"
                )
            called.add(block.id)
        elif block.type == "tool_result" and at and blocks[at - 1].type != "tool_result":
            hint = "move it before the other blocks of its message"
            yield Finding(field=place, code="tool-result-late", message="comes after a block that is no result", hint=hint)


def _size_findings(messages: Sequence[_Message]) -> Iterator[Finding]:
    """Yield messages without a word, and a last user turn that is hardly a question."""
    for at, message in enumerate(messages):
        last = at == len(messages) - 1
        if not message.content and not (last and message.role == "assistant"):
            yield Finding(field=f"messages[{at}].content", code="empty-message", message="is empty")
            return
    asked = next((message for message in reversed(messages) if message.role == "user"), None)
    if asked is None:
        return
    content = asked.content
    if isinstance(content, list) and any(block.type != "text" for block in content):
        return
    words = content if isinstance(content, str) else "".join(block.text or "" for block in content)
    size = len(words.strip().encode())
    if size == 0:
        yield Finding(field="messages", code="empty-message", message="the last user turn is blank")
    elif size < NEAR_EMPTY_BYTES:
        hardly = f"the last user turn is {words.strip()!r}: hardly a question"
        yield Finding(field="messages", code="near-empty-prompt", message=hardly, severity="warning")


def _decoded(text: bytes) -> Any:
    """Return the value of JSON text, None where it is none."""
    try:
        return _anything(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


def _lowered(text: str) -> str:
    """Return a library's sentence in this house's lower case."""
    return text[:1].lower() + text[1:]


def _refuse(uri: str) -> NoReturn:
    """Fetch nothing: a schema must be whole in itself."""
    raise ValueError(f"it refers to {uri}, and nothing is fetched")
