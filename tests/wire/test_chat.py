"""Chat completions, whole and in chunks, become the same reply as a message would."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from batchrun.records import Failure, Reply, Usage

Answer = Callable[..., Reply]
Fail = Callable[..., Failure]
DONE = b"data: [DONE]\n\n"


def chunk(delta: Any = None, finish: Any = None, index: Any = 0, **fields: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": {} if delta is None else delta, "finish_reason": finish}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m", "choices": [choice], **fields}


def piece(arguments: Any = None, **fields: Any) -> dict[str, Any]:
    """Return a delta with one piece of a call; `name` goes inside the function."""
    function = {"name": fields.pop("name")} if "name" in fields else {}
    return {"tool_calls": [{**fields, "function": {**function, "arguments": arguments}}]}


def stream(*events: Any, done: bool = True) -> bytes:
    lines = [event if isinstance(event, bytes) else json.dumps(event).encode() for event in events]
    return b"".join(b"data: %b\n\n" % line for line in lines) + (DONE if done else b"")


def whole(message: Any, finish: Any = "stop", **fields: Any) -> bytes:
    choices = [{"index": 0, "message": message, "finish_reason": finish}]
    return json.dumps({"id": "chatcmpl-1", "object": "chat.completion", "model": "m", "choices": choices, **fields}).encode()


def calls(reply: Reply) -> list[tuple[str | None, str, str | None]]:
    return [(use.id, use.name, use.input) for use in reply.tool_uses]


def test_text(answer: Answer) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 2}
    reply = answer(
        stream(
            chunk({"role": "assistant", "content": ""}),
            chunk({"content": "He"}),
            chunk({"content": "llo"}),
            chunk(finish="stop"),
            {"choices": [], "usage": usage},
        )
    )
    assert (reply.form, reply.text, reply.stop_reason, reply.warnings) == ("openai_sse", "Hello", "end_turn", ())
    assert (reply.message_id, reply.model, reply.usage) == ("chatcmpl-1", "m", Usage(input_tokens=9, output_tokens=2))
    assert (reply.completions, reply.logprobs) == (None, None)


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("tool_calls", "tool_use"),
        ("function_call", "tool_use"),
        ("content_filter", "refusal"),
        ("eos", "eos"),
    ],
)
def test_finish_reasons(finish: str, reason: str, answer: Answer) -> None:
    assert answer(stream(chunk({"content": "x"}), chunk(finish=finish))).stop_reason == reason
    assert answer(whole({"content": "x"}, finish)).stop_reason == reason


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        ([piece("", index=0, id="a", name="f"), piece('{"x"', index=0), piece(":1}", index=0)], [("a", "f", '{"x":1}')]),
        (
            [
                piece("", index=0, id="a", name="f"),
                piece("", index=1, id="b", name="g"),
                piece("{}", index=1),
                piece('{"x":1}', index=0),
            ],
            [("a", "f", '{"x":1}'), ("b", "g", "{}")],
        ),
        (
            [piece('{"x"', id="a", name="f"), piece(":1}"), piece("{}", id="b", name="g")],
            [("a", "f", '{"x":1}'), ("b", "g", "{}")],
        ),
        ([piece('{"x"', index=0, id="a", name="f"), piece(":1}", index=0, id="a", name="f")], [("a", "f", '{"x":1}')]),
        (
            [piece('{"x":1}', index=0, id="a", name="f"), piece("{}", index=0, id="b", name="f")],
            [("a", "f", '{"x":1}'), ("b", "f", "{}")],
        ),
        ([piece('{"x"', index=0, id="a", name="f"), piece(":1}", index=0, id="other")], [("a", "f", '{"x":1}')]),
        ([piece("{}", name="f"), piece("{}", name="g")], [(None, "f", "{}"), (None, "g", "{}")]),
        ([piece(None, name="f"), piece("{}", name="f")], [(None, "f", "{}")]),
        ([piece("{}", index=0), piece("", index=0, id="late", name="f")], [("late", "f", "{}")]),
        ([piece({"x": 1}, index=0, id="a", name="f")], [("a", "f", '{"x": 1}')]),
        ([{"function_call": {"name": "f", "arguments": ""}}, {"function_call": {"arguments": "{}"}}], [(None, "f", "{}")]),
        ([{"function_call": {"name": "f", "arguments": {"x": 1}}}], [(None, "f", '{"x": 1}')]),
        ([{"tool_calls": [{"index": 0, "id": "a", "name": "f", "arguments": "{}"}]}], [("a", "f", "{}")]),
        ([{"content": "a"}, piece("{}", index=0), piece("", index=0, name="f")], [(None, "f", "{}")]),
        ([{"tool_calls": [None]}, {"tool_calls": None}], []),
    ],
)
def test_calls(deltas: list[Any], expected: list[Any], answer: Answer) -> None:
    reply = answer(stream(*map(chunk, deltas), chunk(finish="tool_calls"), chunk(finish="tool_calls")))
    assert calls(reply) == expected


def test_a_cut_touches_the_last_call_alone(answer: Answer) -> None:
    reply = answer(
        stream(
            chunk(piece('{"x"', index=0, id="a", name="f")),
            chunk(piece('{"y"', index=1, id="b", name="")),
            chunk(finish="length"),
        )
    )
    assert [use.error for use in reply.tool_uses] == ["invalid_json", "truncated"]
    assert reply.warnings == ("empty_tool_name",)


@pytest.mark.parametrize("arguments", ['{"a":1,"a":2}', '{"a":NaN}', "[1]"])
def test_arguments_as_an_object_are_as_strict(arguments: str, answer: Answer) -> None:
    body = '{"choices":[{"message":{"tool_calls":[{"function":{"name":"f","arguments":ARGS}}]},"finish_reason":"stop"}]}'.replace(
        "ARGS", arguments
    )
    assert answer(body.encode()).tool_uses[0].error in {"invalid_json", "not_object"}


@pytest.mark.parametrize(
    ("message", "text", "thinking"),
    [
        ({"content": "a", "reasoning_content": "why"}, "a", "why"),
        ({"content": "a", "reasoning": "why"}, "a", "why"),
        ({"content": "a", "reasoning": "why", "reasoning_content": "why"}, "a", "why"),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, 5]}, "ab", None),
        (
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "why"}, 5]}, {"type": "text", "text": "a"}]},
            "a",
            "why",
        ),
        ({"content": None}, "", None),
        ({"content": 5}, "", None),
    ],
)
def test_content(message: dict[str, Any], text: str, thinking: str | None, answer: Answer) -> None:
    for reply in (answer(whole(message)), answer(stream(chunk(message), chunk(finish="stop")))):
        assert (reply.text, reply.thinking) == (text, thinking)


@pytest.mark.parametrize(
    "message", [{"content": None, "refusal": "I cannot"}, {"content": [{"type": "refusal", "refusal": "I cannot"}]}]
)
def test_a_refusal_is_text_and_is_named(message: dict[str, Any], answer: Answer) -> None:
    reply = answer(whole(message))
    assert (reply.text, reply.warnings, reply.stop_reason) == ("I cannot", ("refusal",), "refusal")


@pytest.mark.parametrize(
    ("message", "finish", "reason"),
    [
        ({"refusal": "I cannot"}, "stop", "refusal"),
        ({"content": "", "refusal": "I cannot", "tool_calls": []}, "stop", "refusal"),
        ({"content": "But", "refusal": "I cannot"}, "stop", "end_turn"),
        ({"refusal": "I cannot", **piece("{}", index=0, name="f")}, "stop", "end_turn"),
        ({"refusal": "I can"}, "length", "max_tokens"),
        ({"refusal": ""}, "stop", "end_turn"),
    ],
)
def test_a_refusal_is_the_stop_reason_of_an_answer_that_is_nothing_else(
    message: dict[str, Any], finish: str, reason: str, answer: Answer
) -> None:
    for reply in (answer(whole(message, finish)), answer(stream(chunk(message), chunk(finish=finish)))):
        assert reply.stop_reason == reason
        assert reply.warnings == (("refusal",) if message["refusal"] else ())


@pytest.mark.parametrize(
    ("indexes", "text", "reason"), [((1, 0), "A", "max_tokens"), ((0, 0), "B", "end_turn")], ids=["another order", "one index"]
)
def test_all_choices_are_kept_whatever_their_index(indexes: tuple[int, int], text: str, reason: str, answer: Answer) -> None:
    choices = (
        f'[{{"index":{indexes[0]},"message":{{"content":"B"}},"finish_reason":"stop"}},'
        f' {{"index":{indexes[1]},"message":{{"content":"A"}},"finish_reason":"length"}}]'
    )
    reply = answer(b'{"choices":%b}' % choices.encode())
    assert (reply.text, reply.stop_reason, reply.completions) == (text, reason, choices)


def test_completions_of_one_index_go_on_in_the_order_of_their_list(answer: Answer) -> None:
    def both(first: str, second: str, finish: Any = None) -> dict[str, Any]:
        choices = [*chunk({"content": first}, finish)["choices"], *chunk({"content": second}, finish)["choices"]]
        return {"choices": [*choices, {"delta": {"content": "C"}, "finish_reason": finish}]}

    reply = answer(stream(both("A", "B"), chunk({"content": "a"}), chunk({"content": "a"}), both("", "b", "stop")))
    assert (reply.text, reply.warnings) == ("Aaa", ())
    assert reply.completions is not None
    kept = [(choice["index"], choice["message"]["content"]) for choice in json.loads(reply.completions)]
    assert kept == [(0, "Aaa"), (0, "Bb"), (2, "CC")]


def test_chunks_of_several_choices_are_put_together(answer: Answer) -> None:
    parts = [
        chunk({"role": "assistant", "content": "B"}, index=1),
        chunk({"content": "A"}),
        chunk({"refusal": "no", "reasoning": "why"}, index=1),
        chunk(piece("{}", index=0, id="a", name="f"), index=1, finish="stop"),
        chunk(finish="stop"),
        chunk(finish="stop", index=2),
    ]
    reply = answer(stream(*parts))
    assert reply.text == "A"
    assert reply.completions is not None
    first, second, third = json.loads(reply.completions)
    assert first == {"index": 0, "message": {"role": "assistant", "content": "A"}, "finish_reason": "stop"}
    assert second["message"]["tool_calls"] == [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    assert (second["message"]["refusal"], second["message"]["reasoning_content"]) == ("no", "why")
    assert third["message"]["content"] is None


def test_an_unfinished_other_choice_does_not_spoil_the_answer(answer: Answer, failure: Fail) -> None:
    reply = answer(stream(chunk({"content": "A"}, "stop"), chunk({"content": "B"}, index=1), done=False))
    assert reply.warnings == ("unfinished_choice",)
    assert failure(stream(chunk({"content": "A"}), chunk({"content": "B"}, "stop", index=1), done=False)).kind == "truncated"


def test_log_probabilities_are_joined(answer: Answer) -> None:
    def with_logprobs(text: str, logprobs: Any, finish: Any = None) -> dict[str, Any]:
        return {"choices": [{"index": 0, "delta": {"content": text}, "logprobs": logprobs, "finish_reason": finish}]}

    parts = [
        with_logprobs("a", {"content": [{"token": "a", "logprob": -0.5}], "refusal": None}),
        with_logprobs("b", {"content": [{"token": "b", "logprob": float("-inf")}], "kind": "x"}),
        with_logprobs("", None, "stop"),
        chunk(index=1, finish="stop"),
    ]
    reply = answer(stream(*parts))
    assert reply.logprobs is not None
    assert json.loads(reply.logprobs) == {
        "content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": None}],
        "kind": "x",
    }
    assert reply.completions is not None
    assert json.loads(reply.completions)[0]["logprobs"] == json.loads(reply.logprobs)


def test_filter_chunks_without_choices(answer: Answer) -> None:
    first = {"id": "", "object": "", "choices": [], "prompt_filter_results": [{}]}
    reply = answer(stream(first, chunk({"content": "a"}), {"choices": None}, {"choices": [None]}, chunk(finish="stop")))
    assert (reply.text, reply.message_id, reply.unknown) == ("a", "chatcmpl-1", 1)


def test_messages_inside_chunks(answer: Answer) -> None:
    """A whole completion sent as one event of a stream is read as what it is."""
    assert answer(b"data: " + whole({"content": "a"}) + b"\n\n").text == "a"


def with_message(delta: Any, message: Any, finish: Any = None) -> dict[str, Any]:
    """Return a chunk with a message beside its delta."""
    made = chunk(delta, finish)
    made["choices"][0]["message"] = message
    return made


CALL = {"content": None, **piece('{"a":1}', index=0, id="a", name="f")}
HALF = {"content": None, **piece('{"a"', index=0, id="a", name="f")}


@pytest.mark.parametrize(
    ("chunks", "text", "made"),
    [
        ([with_message({}, {"content": "Hello"})], "Hello", []),
        ([with_message(None, CALL)], "", [("a", "f", '{"a":1}')]),
        ([with_message({}, {"content": text}) for text in ("", "Hel", "Hello", "")], "Hello", []),
        (
            [with_message({"role": "assistant", "content": ""}, message) for message in (HALF, CALL, CALL)],
            "",
            [("a", "f", '{"a":1}')],
        ),
        ([with_message({}, message) for message in ({"content": "Hello"}, CALL)], "Hello", [("a", "f", '{"a":1}')]),
        ([with_message({"content": delta}, {"content": text}) for delta, text in [("Hel", "Hel"), ("lo", "Hello")]], "Hello", []),
        ([chunk({"content": "Hel"}), chunk({"content": "lo"}), with_message({}, {"content": "Hello"})], "Hello", []),
        ([chunk(CALL), with_message({}, {"content": "", **CALL})], "", [("a", "f", '{"a":1}')]),
        (
            [chunk(HALF), chunk(piece(":", index=0)), chunk(piece("1}", index=0)), with_message({}, CALL)],
            "",
            [("a", "f", '{"a":1}')],
        ),
        ([chunk({"reasoning": "why", "refusal": "no"}), with_message({}, {"reasoning": "why", "refusal": "no"})], "no", []),
    ],
)
def test_a_message_beside_deltas_says_nothing_twice(chunks: list[Any], text: str, made: list[Any], answer: Answer) -> None:
    reply = answer(stream(*chunks, chunk(finish="tool_calls")))
    assert (reply.text, calls(reply)) == (text, made)
    assert reply.thinking in {None, "why"}


def test_a_choice_without_deltas_has_its_own_message(answer: Answer) -> None:
    """One choice that came in deltas does not silence the message of another."""
    last = with_message({}, {"content": "A"}, "stop")
    last["choices"].append({"index": 1, "message": {"content": "B"}, "finish_reason": "stop"})
    reply = answer(stream(chunk({"content": "A"}), last))
    assert reply.completions is not None
    assert [choice["message"]["content"] for choice in json.loads(reply.completions)] == ["A", "B"]


@pytest.mark.parametrize(
    ("error", "message", "retry"),
    [
        ({"error": {"message": "upstream is gone", "code": 502}}, "upstream is gone", "retry"),
        ({"error": {"message": "not for you", "code": 403}}, "not for you", "stop_run"),
        ({"error": "upstream is gone"}, "upstream is gone", "retry"),
        ({"error": None}, "the finish reason is `error`", "retry"),
        ({}, "the finish reason is `error`", "retry"),
    ],
)
def test_the_error_of_a_choice_is_told_in_its_own_words(error: dict[str, Any], message: str, retry: str, failure: Fail) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 2}
    choice = {"index": 0, "finish_reason": "error", **error}
    body = {"choices": [{**choice, "message": {"content": "Hel"}}], "usage": usage}
    event = {"choices": [{**choice, "delta": {}}], "usage": usage}
    for found in (failure(json.dumps(body).encode()), failure(stream(chunk({"content": "Hel"}), event))):
        assert (found.kind, found.message, found.retry) == ("api_error", message, retry)
        assert found.usage == Usage(input_tokens=9, output_tokens=2)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (stream(chunk({"content": "a"})), "truncated"),
        (stream(chunk({"content": "a"}, ""), done=False), "truncated"),
        (stream({"choices": []}), "empty"),
        (stream(done=True), "empty"),
        (b'{"object":"chat.completion","choices":[]}', "empty"),
        (b'{"object":"chat.completion"}', "empty"),
        (whole({"content": "a"}, None), "truncated"),
        (whole({"content": "a"}, "error"), "api_error"),
        (stream(chunk({"content": "a"}, "error")), "api_error"),
        (stream({**chunk({"content": ""}, "error"), "error": {"code": 502, "message": "Provider gone"}}), "api_error"),
        (stream(chunk({"content": "a"}), b"{oops", chunk(finish="stop")), "corrupt_event"),
    ],
)
def test_what_is_no_answer(body: bytes, kind: str, failure: Fail) -> None:
    found = failure(body)
    assert (found.kind, found.retry) == (kind, "retry")


def test_nothing_counts_after_done(answer: Answer) -> None:
    assert answer(stream(chunk({"content": "a"}, "stop")) + stream(chunk({"content": "b"}))).text == "a"


def test_deep_chunks(answer: Answer, failure: Fail) -> None:
    deep = b'{"choices":[{"index":0,"delta":{"content":"b"},"x":%b}]}'
    fine = deep % (b"[" * 250 + b"]" * 250)
    assert answer(stream(chunk({"content": "a"}), fine, chunk(finish="stop"))).text == "ab"
    assert failure(stream(chunk({"content": "a"}), deep % (b"[" * 600 + b"]" * 600))).kind == "corrupt_event"
