"""Chat-form conversations in (system, user, assistant, tool messages), the Messages API's form out.

Tool calls become `tool_use` blocks and tool messages `tool_result` blocks, parallel ones merged into one
user turn right after the calls; turns of one role in a row are merged. Each way in which the two forms
differ is a named note. It refuses to know which dataset the conversation came from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from batchrun.sources.format import Fields, Notes, Unconvertible
from batchrun.sources.names import Names
from batchrun.sources.schemas import Schema, parameters_schema

Block = dict[str, Any]

_NOT_IN_ID: Final = re.compile(r"[^a-zA-Z0-9_-]")
_DATA_URL: Final = re.compile(r"data:([\w/+.-]+);base64,(.*)", re.DOTALL)


class Call(Struct, frozen=True, kw_only=True):
    """One call that an assistant made, under the names that the dataset has."""

    name: str
    arguments: dict[str, Any]
    id: str | None = None


class Turn(Struct, frozen=True, kw_only=True):
    """One message of a conversation: `role` is system, user, assistant or tool.

    `text` is its words; `blocks` stands for content that is more than words. `call_id` and `name` tell
    which call a tool's answer belongs to, where that is told.
    """

    role: str
    text: str = ""
    blocks: tuple[Block, ...] = ()
    calls: tuple[Call, ...] = ()
    call_id: str | None = None
    name: str | None = None


def row_of(turns: Sequence[Turn], tools: Sequence[Mapping[str, Any]], notes: Notes) -> Fields:
    """Return a row whose expected answer is the last turn that calls a tool (or, without one, the last answer).

    What comes after that turn is left out, and noted. Without tools nothing is expected. `tools` are
    `{name, description, parameters}` under the dataset's names.
    """
    names = Names()
    made = [tool_of(tool, names, notes) for tool in tools]
    asked, answer = cut(turns, notes)
    system, messages = to_messages(asked, names, notes)
    expected = None
    if answer is not None and made:
        expected = [expected_call(call, names) for call in answer.calls]
    return {
        "system": system,
        "messages": messages,
        "tools": made or None,
        "expected": expected,
        "name_map": names.changes(),
    }


def cut(turns: Sequence[Turn], notes: Notes) -> tuple[Sequence[Turn], Turn | None]:
    """Return the turns before the answer that is expected, and that answer; None where the user has the last word."""
    answers = [at for at, turn in enumerate(turns) if turn.role == "assistant"]
    calling = [at for at in answers if turns[at].calls]
    if calling:
        at = calling[-1]
    elif answers and answers[-1] == len(turns) - 1:
        at = answers[-1]
    else:
        return turns, None
    if at < len(turns) - 1:
        notes.lossy("later-turns-left-out")
    return turns[:at], turns[at]


def tool_of(tool: Mapping[str, Any], names: Names, notes: Notes) -> dict[str, Any]:
    """Return one tool as the Messages API has it."""
    old = tool.get("name")
    if not isinstance(old, str) or not old:
        raise Unconvertible("a tool has no name")
    schema = parameters_schema(tool.get("parameters"), notes)
    new = names.tool(old)
    if new != old:
        notes.lossy("name-changed")
    made: dict[str, Any] = {"name": new}
    if tool.get("description"):
        made["description"] = str(tool["description"])
    made["input_schema"] = _renamed(schema, old, names, notes)
    return made


def expected_call(call: Call, names: Names) -> dict[str, Any]:
    """Return one call as `expected` has it, under valid names."""
    arguments = names.arguments(call.name, call.arguments)
    if any(map(_reads_as_matcher, arguments.values())):
        raise Unconvertible(
            f"an argument of {call.name!r} is an object whose keys all begin with `$`: it would be read as a matcher"
        )
    return {"name": names.tool(call.name), "arguments": arguments}


def arguments_of(value: Any, name: str) -> dict[str, Any]:
    """Return the arguments of a call, given as an object or as JSON text."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value) if value.strip() else {}
        except (msgspec.MsgspecError, RecursionError):
            raise Unconvertible(f"the arguments of {name!r} are not valid JSON") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Unconvertible(f"the arguments of {name!r} are no object")
    return value


def to_messages(turns: Iterable[Turn], names: Names, notes: Notes) -> tuple[str | None, list[dict[str, Any]]]:
    """Return (system, messages); raises `Unconvertible` where nothing is asked of the model."""
    writer = _Writer(names, notes)
    for turn in turns:
        writer.add(turn)
    writer.answer_open_calls()
    if not writer.messages or writer.messages[-1]["role"] != "user":
        raise Unconvertible("the conversation has no user turn to answer")
    system = "\n\n".join(writer.system)
    return system or None, [_simplified(message) for message in writer.messages]


class _Writer:
    """Appends turns to messages, merging turns of one role and pairing calls with their results."""

    def __init__(self, names: Names, notes: Notes) -> None:
        self.system: list[str] = []
        self.messages: list[dict[str, Any]] = []
        self._open: list[tuple[str, str | None, str]] = []  # (our id, the dataset's id, tool name) not yet answered
        self._names = names
        self._notes = notes
        self._made = 0
        self._used: set[str] = set()

    def add(self, turn: Turn) -> None:
        """Append one turn."""
        if turn.role == "system":
            if self.messages:
                self._notes.lossy("late-system-message-moved-up")
            if turn.text.strip():
                self.system.append(turn.text)
        elif turn.role == "tool":
            self._result(turn)
        elif turn.role == "assistant":
            self._assistant(turn)
        elif turn.role == "user":
            self.answer_open_calls()
            self._put("user", _content(turn))
        else:
            raise Unconvertible(f"a message has the role {turn.role!r}")

    def answer_open_calls(self) -> None:
        """Give every call that was never answered an empty result: the API wants one for each."""
        for our_id, _, _ in self._open:
            self._notes.lossy("missing-tool-result-made")
            self._put("user", [{"type": "tool_result", "tool_use_id": our_id, "content": ""}])
        self._open = []

    def _assistant(self, turn: Turn) -> None:
        """Append an assistant's turn, its calls numbered where they have no usable id."""
        self.answer_open_calls()
        blocks = _content(turn)
        if not self.messages and (blocks or turn.calls):
            self._notes.lossy("leading-assistant-turn-left-out")
            return
        for call in turn.calls:
            self._made += 1
            our_id = _NOT_IN_ID.sub("_", call.id) if call.id else f"toolu_{self._made:02d}"
            if our_id in self._used:
                our_id = f"{our_id}_{self._made:02d}"
            self._used.add(our_id)
            self._open.append((our_id, call.id, call.name))
            arguments = self._names.arguments(call.name, call.arguments)
            blocks.append({"type": "tool_use", "id": our_id, "name": self._names.tool(call.name), "input": arguments})
        self._put("assistant", blocks)

    def _result(self, turn: Turn) -> None:
        """Append a tool's answer to the call it belongs to: by id, by name, else the first one open."""
        match = (
            next((item for item in self._open if turn.call_id and item[1] == turn.call_id), None)
            or next((item for item in self._open if turn.name and item[2] == turn.name), None)
            or next(iter(self._open), None)
        )
        if match is None:
            self._notes.lossy("tool-result-without-call-made-text")
            self._put("user", _content(turn))
            return
        self._open.remove(match)
        content: Any = list(turn.blocks) if turn.blocks else turn.text
        self._put("user", [{"type": "tool_result", "tool_use_id": match[0], "content": content}])

    def _put(self, role: str, blocks: list[Block]) -> None:
        """Append blocks to the last message of this role, or begin one."""
        if not blocks:
            return
        if self.messages and self.messages[-1]["role"] == role:
            self.messages[-1]["content"].extend(blocks)
        else:
            self.messages.append({"role": role, "content": blocks})


def content_blocks(parts: Sequence[Any]) -> tuple[Block, ...]:
    """Return the content parts of the chat form as blocks: text and images; others cannot be sent."""
    blocks: list[Block] = []
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if isinstance(part, str) or kind in {"text", "input_text", "output_text"}:
            blocks.append({"type": "text", "text": part if isinstance(part, str) else part["text"]})
        elif kind == "image_url":
            blocks.append(_image(part["image_url"]))
        elif kind == "refusal":
            blocks.append({"type": "text", "text": part["refusal"]})
        else:
            raise Unconvertible(f"a content part has the type {kind!r}")
    return tuple(blocks)


def _image(source: Any) -> Block:
    """Return an image block of the chat form's `image_url`."""
    url = source.get("url") if isinstance(source, Mapping) else source
    if not isinstance(url, str):
        raise Unconvertible("an image has no URL")
    match = _DATA_URL.fullmatch(url)
    if match is None:
        return {"type": "image", "source": {"type": "url", "url": url}}
    return {"type": "image", "source": {"type": "base64", "media_type": match[1], "data": match[2]}}


def _content(turn: Turn) -> list[Block]:
    """Return the turn's words and other blocks; the API refuses text blocks without a word."""
    blocks = list(turn.blocks) or [{"type": "text", "text": turn.text}]
    return [block for block in blocks if block["type"] != "text" or block["text"].strip()]


def _simplified(message: dict[str, Any]) -> dict[str, Any]:
    """Return the message with one lone text block as plain text."""
    content = message["content"]
    if len(content) == 1 and content[0]["type"] == "text":
        return {"role": message["role"], "content": content[0]["text"]}
    return message


def _renamed(schema: Schema, tool: str, names: Names, notes: Notes) -> Schema:
    """Return a tool's schema with valid parameter names."""
    properties = schema["properties"]
    renamed = {names.parameter(tool, name): inner for name, inner in properties.items()}
    if renamed.keys() != properties.keys():
        notes.lossy("name-changed")
    made = {**schema, "properties": renamed}
    if "required" in schema:
        made["required"] = [names.parameter(tool, name) for name in schema["required"]]
    return made


def _reads_as_matcher(value: Any) -> bool:
    """Tell whether a literal holds an object that contract 3 reads as a matcher."""
    if isinstance(value, dict):
        return (bool(value) and all(key.startswith("$") for key in value)) or any(map(_reads_as_matcher, value.values()))
    return isinstance(value, list) and any(map(_reads_as_matcher, value))
