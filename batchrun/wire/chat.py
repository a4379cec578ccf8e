"""Chat completion chunks, or one whole chat completion → the state of an answer → `records.Reply`.

Mapped to the Messages API's words: finish reasons, usage names, calls in the order in which they began with the
arguments as JSON text. Choice 0 is the answer; all choices are kept as JSON text (`completions`), and so are
token log-probabilities, the chunks' lists joined. Reasoning never enters the text; a refusal does, where there
is no other text, with the warning `refusal`, and is the stop reason where there is no call either.

A chunk may carry a whole `message` beside its `delta`, or in its place: the answer so far, or all of it. What deltas
say is believed before it, and each later message replaces the one before.

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

from batchrun.records import Form, Reply
from batchrun.wire.chat_calls import Calls, Piece
from batchrun.wire.complaint import Complaint, find_complaint
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


_Source = tuple[bytes, tuple[str | int, ...]]
"""A JSON text, and the path in it of what is read."""


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


_SAYING: Final = ("content", "reasoning", "reasoning_content", "refusal", "tool_calls", "function_call")
"""The fields of which a delta that says anything has one."""

_decode: Final = msgspec.json.Decoder(_Chunk).decode
_NOT_FREQUENT: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _ChoiceState:
    """One completion as it grows."""

    __slots__ = ("calls", "finish", "logprobs", "reasoning", "refusal", "role", "streamed", "text")

    def __init__(self) -> None:
        self.role = "assistant"
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.refusal: list[str] = []
        self.calls = Calls()
        self.streamed = False  # a delta has said something
        self.finish: str | None = None
        self.logprobs: dict[str, Any] = {}

    def replace(self, later: _ChoiceState) -> None:
        """Take what a later message says in place of what the one before it said; what it leaves out stays."""
        self.role = later.role
        self.text = later.text or self.text
        self.reasoning = later.reasoning or self.reasoning
        self.refusal = later.refusal or self.refusal
        self.calls = later.calls if later.calls.all else self.calls

    def as_json(self, index: int) -> dict[str, Any]:
        """Return the completion in the shape of a chat completion's `choices` item."""
        message: dict[str, Any] = {"role": self.role, "content": "".join(self.text) or None}
        if self.reasoning:
            message["reasoning_content"] = "".join(self.reasoning)
        if self.refusal:
            message["refusal"] = "".join(self.refusal)
        if self.calls.all:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": "".join(call.parts)}}
                for call in self.calls.all
            ]
        choice = {"index": index, "message": message, "finish_reason": self.finish}
        return {**choice, "logprobs": self.logprobs} if self.logprobs else choice


class ChatState:
    """An answer in chat form as far as it has arrived."""

    __slots__ = ("_choices", "_id", "_model", "called", "closed", "events", "failed", "unknown", "usage")

    def __init__(self) -> None:
        """Begin with nothing."""
        self._choices: dict[tuple[int, int], _ChoiceState] = {}  # by index, and which one of that index in its list
        self._id: str | None = None
        self._model: str | None = None
        self.usage: dict[str, Any] = {}
        self.closed = False  # [DONE] was seen: set by the reader of the stream
        self.called = False  # a tool call has begun
        self.failed: Complaint | None = None  # the answer's finish reason is "error"
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
            state, delta = choices.get((choice.index, 0)), choice.delta
            if state is None or not state.streamed:
                return place
            if delta.tool_calls is not None:
                piece = delta.tool_calls[0]
                call = state.calls.by_index.get(piece.index)
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
        seen: dict[int, int] = {}  # some gateways give all the completions of one list the same index
        for place, choice in enumerate(choices if isinstance(choices, list) else []):
            if isinstance(choice, Mapping):
                number = _integer(choice.get("index"))
                index = place if number is None else number
                self._choice(choice, (index, seen.get(index, 0)), (text, ("choices", place)))
                seen[index] = seen.get(index, 0) + 1
            else:
                self.unknown += 1

    def reply(self, form: Form, text: bytes = b"") -> Reply:
        """Return the answer; call it when `answered`. `text` is the JSON of a whole completion."""
        answer = self._choices[min(self._choices)]
        finish = answer.finish or ""
        uses = answer.calls.tool_uses(cut=finish == "length")
        said = "".join(answer.text)
        refused = finish == "stop" and bool(answer.refusal) and not said and not uses
        warnings = []
        if any(choice.finish is None for choice in self._choices.values()):
            warnings.append("unfinished_choice")
        if answer.refusal:
            warnings.append("refusal")
        if any(not use.name for use in uses):
            warnings.append("empty_tool_name")
        return Reply(
            form=form,
            text=joined_surrogates(said or "".join(answer.refusal)),
            thinking=joined_surrogates("".join(answer.reasoning)) if answer.reasoning else None,
            tool_uses=uses,
            stop_reason="refusal" if refused else joined_surrogates(STOP_REASONS.get(finish, finish)),
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
        return encode([state.as_json(index) for (index, _), state in sorted(self._choices.items())])

    def _choice(self, choice: Mapping[str, Any], key: tuple[int, int], source: _Source) -> None:
        """Apply one item of `choices`."""
        if key not in self._choices:
            bounded(len(self._choices))
            self._choices[key] = _ChoiceState()
        state = self._choices[key]
        text, path = source
        delta, message = choice.get("delta"), choice.get("message")
        if isinstance(delta, Mapping):
            state.streamed = state.streamed or any(delta.get(field) for field in _SAYING)
            self._message(state, delta, (text, (*path, "delta")))
        if isinstance(message, Mapping) and not state.streamed:
            later = _ChoiceState()
            self._message(later, message, (text, (*path, "message")), whole=True)
            state.replace(later)
        _merge_logprobs(state.logprobs, choice.get("logprobs"))
        finish = choice.get("finish_reason")
        if isinstance(finish, str) and finish:
            if finish == "error" and key == min(self._choices):
                said = find_complaint({"error": choice.get("error")})
                self.failed = said or Complaint(message="the finish reason is `error`")
            else:
                state.finish = finish

    def _message(self, state: _ChoiceState, message: Mapping[str, Any], source: _Source, *, whole: bool = False) -> None:
        """Add one delta, or a whole message."""
        text, path = source
        state.role = _string(message.get("role")) or state.role
        _add_content(state, message.get("content"))
        _extend(state.reasoning, message.get("reasoning_content") or message.get("reasoning"))
        _extend(state.refusal, message.get("refusal"))
        calls = message.get("tool_calls")
        pieces: list[Piece] = []
        if isinstance(calls, list) and calls:
            raws = raw_items(text, (*path, "tool_calls")) if any(_has_object_arguments(call) for call in calls) else []
            for place, call in enumerate(calls):
                if isinstance(call, Mapping):
                    pieces.append(_piece(call, raws[place] if place < len(raws) else b""))
                else:
                    self.unknown += 1
        elif isinstance(message.get("function_call"), Mapping):  # the form before `tool_calls`
            exact = raw_at(text, (*path, "function_call")) or b""
            pieces.append(_piece({"index": 0, "function": message["function_call"]}, b'{"function":%b}' % exact))
        if pieces:
            self.called = True
            add = state.calls.whole if whole else state.calls.delta
            add(pieces)


def _piece(call: Mapping[str, Any], raw: bytes) -> Piece:
    """Return what an item of `tool_calls` says; `raw` is its JSON text, which only arguments that are no text need."""
    function = call.get("function")
    function = function if isinstance(function, Mapping) else call
    return Piece(
        index=_integer(call.get("index")),
        id=_string(call.get("id")) or None,
        name=_string(function.get("name")) or "",
        arguments=_arguments(function.get("arguments"), raw),
    )


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


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _string(value: object) -> str | None:
    return joined_surrogates(value) if isinstance(value, str) else None
