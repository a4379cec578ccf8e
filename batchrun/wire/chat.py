"""Chat completion chunks, or one whole chat completion → the state of an answer → `records.Reply`.

Mapped to the Messages API's words: finish reasons, usage names, calls in the order of their index with the
arguments as JSON text. Choice 0 is the answer; all choices are kept as JSON text (`completions`), and so are
token log-probabilities, the chunks' lists joined. Reasoning never enters the text; a refusal does, where there
is no other text, with the warning `refusal`.

`take` decodes the frequent chunk (one choice, some content or one piece of arguments) into structs and stops
at the first that is anything else; `apply` takes any chunk, or a whole completion, as a decoded object.
Refuses to know bytes, SSE and HTTP.

Source: OpenAI API reference, "Chat completion object" and "Chat completion chunk object".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from batchrun.records import Form, Reply, ToolUse
from batchrun.wire.arguments import tool_use
from batchrun.wire.json_text import MAX_DEPTH, encode, encode_as_came, joined_surrogates, nested_deeper, raw_at, raw_items
from batchrun.wire.runs import Run
from batchrun.wire.spoiled import bounded
from batchrun.wire.usage import merge_usage, split_usage

STOP_REASONS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
"""Finish reasons in the Messages API's words; others pass through."""


class _Function(Struct, gc=False):
    arguments: str
    name: None = None


class _Call(Struct, gc=False):
    index: int
    function: _Function
    id: None = None


class _Delta(Struct, gc=False):
    content: str | None = None
    tool_calls: tuple[_Call] | None = None
    role: str | None = None
    reasoning: None = None
    reasoning_content: None = None
    function_call: None = None
    refusal: None = None


class _Choice(Struct, gc=False):
    delta: _Delta
    index: int
    finish_reason: None = None
    logprobs: None = None
    message: None = None


class _Chunk(Struct, gc=False):
    """A chunk that says nothing but "here is more of choice 0 to n"; any other fails to decode as one."""

    choices: tuple[_Choice]
    usage: None = None
    error: None = None


_decode: Final = msgspec.json.Decoder(_Chunk).decode
_NOT_FREQUENT: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _CallState:
    """One tool call as it grows."""

    __slots__ = ("id", "name", "parts")

    def __init__(self) -> None:
        self.id: str | None = None
        self.name = ""
        self.parts: list[str] = []


class _ChoiceState:
    """One completion as it grows."""

    __slots__ = ("by_index", "calls", "finish", "logprobs", "reasoning", "refusal", "role", "text")

    def __init__(self) -> None:
        self.role = "assistant"
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.refusal: list[str] = []
        self.calls: list[_CallState] = []
        self.by_index: dict[int, _CallState] = {}
        self.finish: str | None = None
        self.logprobs: dict[str, Any] = {}

    def tool_uses(self) -> tuple[ToolUse, ...]:
        """Parse the arguments of every call, now that no more can come."""
        last = self.calls[-1] if self.calls and self.finish == "length" else None
        return tuple(tool_use(call.id, call.name, "".join(call.parts), cut=call is last) for call in self.calls)

    def as_json(self, index: int) -> dict[str, Any]:
        """Return the completion in the shape of a chat completion's `choices` item."""
        message: dict[str, Any] = {"role": self.role, "content": "".join(self.text) or None}
        if self.reasoning:
            message["reasoning_content"] = "".join(self.reasoning)
        if self.refusal:
            message["refusal"] = "".join(self.refusal)
        if self.calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": "".join(call.parts)}}
                for call in self.calls
            ]
        choice = {"index": index, "message": message, "finish_reason": self.finish}
        return {**choice, "logprobs": self.logprobs} if self.logprobs else choice


class ChatState:
    """An answer in chat form as far as it has arrived."""

    __slots__ = ("_choices", "_id", "_model", "called", "closed", "events", "failed", "unknown", "usage")

    def __init__(self) -> None:
        """Begin with nothing."""
        self._choices: dict[int, _ChoiceState] = {}
        self._id: str | None = None
        self._model: str | None = None
        self.usage: dict[str, Any] = {}
        self.closed = False  # [DONE] was seen: set by the reader of the stream
        self.called = False  # a tool call has begun
        self.failed = False  # the answer's finish reason is "error"
        self.events = 0
        self.unknown = 0

    @property
    def answered(self) -> bool:
        """Tell whether the answer (the choice of lowest index) has its finish reason."""
        return bool(self._choices) and self._choices[min(self._choices)].finish is not None

    @property
    def empty(self) -> bool:
        """Tell whether no choice has arrived at all."""
        return not self._choices

    def take(self, items: Sequence[bytes | Run], at: int) -> int:
        """Apply frequent chunks from `items[at]` on; return the place of the first that `apply` must see, or that is no chunk."""
        choices, decode = self._choices, _decode
        for place in range(at, len(items)):
            line = items[place]
            if isinstance(line, tuple) or (len(line) > 2 * MAX_DEPTH and nested_deeper(line)):
                return place
            try:
                chunk = decode(line)
            except _NOT_FREQUENT:
                return place
            choice = chunk.choices[0]
            state, delta = choices.get(choice.index), choice.delta
            if state is None:
                return place
            if delta.tool_calls is not None:
                piece = delta.tool_calls[0]
                call = state.by_index.get(piece.index)
                if call is None:
                    return place
                call.parts.append(piece.function.arguments)
            if delta.content:
                state.text.append(delta.content)
            self.events += 1
        return len(items)

    def apply(self, chunk: Mapping[str, Any], text: bytes) -> None:
        """Apply one chunk, or a whole completion, of any shape; `text` is its JSON."""
        self.events += 1
        self._id = self._id or _string(chunk.get("id"))
        self._model = self._model or _string(chunk.get("model"))
        merge_usage(self.usage, chunk.get("usage"))
        choices = chunk.get("choices")
        for place, choice in enumerate(choices if isinstance(choices, list) else []):
            if isinstance(choice, Mapping):
                self._choice(choice, place, text)
            else:
                self.unknown += 1

    def reply(self, form: Form, text: bytes = b"") -> Reply:
        """Return the answer; call it when `answered`. `text` is the JSON of a whole completion."""
        answer = self._choices[min(self._choices)]
        finish = answer.finish or ""
        uses = answer.tool_uses()
        warnings = []
        if any(choice.finish is None for choice in self._choices.values()):
            warnings.append("unfinished_choice")
        if answer.refusal:
            warnings.append("refusal")
        if any(not use.name for use in uses):
            warnings.append("empty_tool_name")
        return Reply(
            form=form,
            text=joined_surrogates("".join(answer.text) or "".join(answer.refusal)),
            thinking=joined_surrogates("".join(answer.reasoning)) if answer.reasoning else None,
            tool_uses=uses,
            stop_reason=joined_surrogates(STOP_REASONS.get(finish, finish)),
            usage=split_usage(self.usage),
            message_id=self._id,
            model=self._model,
            completions=self._completions(text),
            logprobs=encode(answer.logprobs) if answer.logprobs else None,
            warnings=tuple(warnings),
            unknown=self.unknown,
        )

    def _completions(self, text: bytes) -> str | None:
        """Return all choices as JSON text, where there are several: as they came, or put together from chunks."""
        if len(self._choices) < 2:
            return None
        exact = raw_at(text, ("choices",)) if text else None
        if exact is not None:
            return exact.decode("utf-8", "replace")
        return encode([state.as_json(index) for index, state in sorted(self._choices.items())])

    def _choice(self, choice: Mapping[str, Any], place: int, text: bytes) -> None:
        index = choice.get("index")
        index = index if isinstance(index, int) and not isinstance(index, bool) else place
        if index not in self._choices:
            bounded(len(self._choices))
            self._choices[index] = _ChoiceState()
        state = self._choices[index]
        for field in ("delta", "message"):
            message = choice.get(field)
            if isinstance(message, Mapping):
                self._message(state, message, (text, ("choices", place, field)))
        _merge_logprobs(state.logprobs, choice.get("logprobs"))
        finish = choice.get("finish_reason")
        if isinstance(finish, str) and finish:
            if finish == "error" and index == min(self._choices):
                self.failed = True
            else:
                state.finish = finish

    def _message(self, state: _ChoiceState, message: Mapping[str, Any], source: tuple[bytes, tuple[str | int, ...]]) -> None:
        """Add one delta, or a whole message; `source` is the JSON text and the message's path in it."""
        text, path = source
        state.role = _string(message.get("role")) or state.role
        _add_content(state, message.get("content"))
        _extend(state.reasoning, message.get("reasoning_content") or message.get("reasoning"))
        _extend(state.refusal, message.get("refusal"))
        calls = message.get("tool_calls")
        if isinstance(calls, list) and calls:
            raws = raw_items(text, (*path, "tool_calls")) if any(_has_object_arguments(call) for call in calls) else []
            for place, call in enumerate(calls):
                self._call(state, call, raws[place] if place < len(raws) else b"")
        elif isinstance(message.get("function_call"), Mapping):  # the form before `tool_calls`
            exact = raw_at(text, (*path, "function_call")) or b""
            self._call(state, {"index": 0, "function": message["function_call"]}, b'{"function":%b}' % exact)

    def _call(self, state: _ChoiceState, piece: object, raw: bytes) -> None:
        """Add one piece of a call: to the call of its index, to the last one, or as a new one."""
        if not isinstance(piece, Mapping):
            self.unknown += 1
            return
        self.called = True
        function = piece.get("function")
        function = function if isinstance(function, Mapping) else piece
        name, call_id = _string(function.get("name")) or "", _string(piece.get("id"))
        call = _same_call(state, piece.get("index"), call_id or None, name)
        call.id = call.id or call_id or None
        call.name = call.name or name
        call.parts.append(_arguments(function.get("arguments"), raw))


def _same_call(state: _ChoiceState, index: object, call_id: str | None, name: str) -> _CallState:
    """Return the call that a piece continues, or a new one.

    A new id together with a name begins a new call even under an old index: some gateways number every
    call 0. Without an index a piece continues the last call unless a new id comes, or a name with nothing
    to continue.
    """
    number = index if isinstance(index, int) and not isinstance(index, bool) else None
    call = state.by_index.get(number) if number is not None else state.calls[-1] if state.calls else None
    if call is None or _is_another(call, number, call_id, name):
        bounded(len(state.calls))
        call = _CallState()
        state.calls.append(call)
        if number is not None:
            state.by_index[number] = call
    return call


def _is_another(call: _CallState, number: int | None, call_id: str | None, name: str) -> bool:
    """Tell whether a piece with this index, id and name is not of the call that it would continue."""
    if call_id is not None:
        return call.id is not None and call_id != call.id and bool(name or number is None)
    return number is None and bool(name) and any(call.parts)


def _add_content(state: _ChoiceState, content: object) -> None:
    """Add a message's content: text, or a list of typed parts."""
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, Mapping):
            kind = part.get("type")
            if kind in {"thinking", "reasoning"}:
                _extend(state.reasoning, part.get(kind) or part.get("text"))
            elif kind == "refusal":
                _extend(state.refusal, part.get("refusal"))
            else:
                _extend(state.text, part.get("text"))
        else:
            _extend(state.text, part)


def _extend(parts: list[str], value: object) -> None:
    """Add text, or the texts of a list of parts; anything else adds nothing."""
    if isinstance(value, str) and value:
        parts.append(value)
    elif isinstance(value, list):
        parts.extend(part["text"] for part in value if isinstance(part, Mapping) and isinstance(part.get("text"), str))


def _arguments(value: object, raw: bytes) -> str:
    """Return a piece of arguments as JSON text; some servers send the object itself instead of its text."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    exact = raw_at(raw, ("function", "arguments"))
    return exact.decode("utf-8", "replace") if exact is not None else encode_as_came(value)


def _has_object_arguments(call: object) -> bool:
    function = call.get("function") if isinstance(call, Mapping) else None
    return isinstance(function, Mapping) and not isinstance(function.get("arguments"), str | None)


def _merge_logprobs(into: dict[str, Any], later: object) -> None:
    """Join the token lists of one chunk to those before it; anything that is no list replaces."""
    for key, value in later.items() if isinstance(later, Mapping) else ():
        if isinstance(value, list) and isinstance(into.get(key), list):
            into[key] += value
        elif value is not None:
            into[key] = list(value) if isinstance(value, list) else value


def _string(value: object) -> str | None:
    return joined_surrogates(value) if isinstance(value, str) else None
