"""Messages events as gateways really send them: what may be forgiven is, what would lose something is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from batchrun.records import Failure, Reply, Usage
from batchrun.wire.spoiled import MAX_PIECES

Answer = Callable[..., Reply]
Fail = Callable[..., Failure]

START = {"type": "message_start", "message": {"id": "msg_1", "type": "message", "model": "m", "usage": {"input_tokens": 25}}}
STOP = {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": None}, "usage": {"output_tokens": 4}}
END = {"type": "message_stop"}


def begin(kind: str, index: Any = 0, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": {"type": kind, **fields}}


def call(index: Any = 0, **fields: Any) -> dict[str, Any]:
    return begin("tool_use", index, **{"id": "t", "name": "f", "input": {}, **fields})


def delta(kind: str, index: Any = 0, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}


def part(text: Any, index: Any = 0) -> dict[str, Any]:
    return delta("input_json_delta", index, partial_json=text)


def end(index: Any = 0) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def stream(*events: Any) -> bytes:
    lines = [event if isinstance(event, bytes) else json.dumps(event).encode() for event in events]
    return b"".join(b"data: %b\n\n" % line for line in lines)


def inputs(reply: Reply) -> list[Any]:
    return [json.loads(use.input) if use.input is not None else use.error for use in reply.tool_uses]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([call(), part('{"a":'), part("1}"), end()], [{"a": 1}]),
        ([call(), end()], [{}]),
        ([call(input={"a": 1}), end()], [{"a": 1}]),
        ([call(input={"a": 1}), part(""), end()], [{"a": 1}]),
        ([call(input={"a": 1}), part('{"b": 2}'), end()], [{"b": 2}]),
        ([call(input='{"a": 1}'), end()], [{"a": 1}]),
        ([call(input=None), end()], [{}]),
        ([call(input=[1]), end()], ["not_object"]),
        ([call(input=7), end()], ["not_object"]),
        (
            [b'{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","name":"f","input":{"a":1,"a":2}}}'],
            ["invalid_json"],
        ),
        (
            [b'{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","name":"f","input":{"a":NaN}}}'],
            ["invalid_json"],
        ),
        (
            [
                b'{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","name":"f","input":{"a":18446744073709551617}}}'
            ],
            [{"a": 2**64 + 1}],
        ),
        ([call(), part('{"a": "\ud83d'), part('\ude00"}')], [{"a": "😀"}]),
        ([call(), part(None), part(5), part("{}")], [{}]),
        ([call(0), call(1), part('{"b":2}', 1), part('{"a":1}', 0)], [{"a": 1}, {"b": 2}]),
        ([call(0), part('{"a":1}'), call(0), part('{"b":2}')], [{"a": 1}, {"b": 2}]),
        ([call(0), end(0), part('{"a":1}')], [{"a": 1}]),
        ([call("0"), part('{"a":1}', "0"), end("0")], [{"a": 1}]),
        ([call(None), part('{"a":1}', None), end(None)], [{"a": 1}]),
        ([call(None), part('{"a":1}', 0), end(0)], [{"a": 1}]),
        ([call(0), part('{"a":1}', None), end(5)], [{"a": 1}]),
        ([call(0), delta("text_delta", text="noise"), part("{}")], [{}]),
        ([begin("server_tool_use", 0, input={}), part('{"q":1}'), call(1)], [{}]),
        ([call(0), {"type": "content_block_delta", "index": 0, "delta": {"partial_json": '{"a":1}'}}], [{"a": 1}]),
        ([part("", 9), call(0)], [{}]),
    ],
)
def test_calls(events: list[Any], expected: list[Any], answer: Answer) -> None:
    assert inputs(answer(stream(START, *events, STOP, END))) == expected


def test_arguments_of_no_block_spoil_the_answer(failure: Fail) -> None:
    found = failure(stream(START, part('{"a":1}', 3), STOP, END))
    assert (found.kind, found.retry) == ("corrupt_event", "retry")


def test_text_that_nobody_began_is_text(answer: Answer) -> None:
    reply = answer(
        stream(
            START, delta("text_delta", text="He"), delta("text_delta", text="llo"), delta("thinking_delta", 1, thinking="h"), STOP
        )
    )
    assert (reply.text, reply.thinking) == ("Hello", "h")
    assert reply.warnings == ("missing_block_start", "missing_message_stop")


def test_text_without_any_index(answer: Answer) -> None:
    assert answer(stream(START, delta("text_delta", None, text="a"), delta("text_delta", None, text="b"), STOP, END)).text == "ab"


def test_unknown_things_are_counted_and_ignored(answer: Answer) -> None:
    odd: list[Any] = [
        {"type": "heartbeat_v2"},
        begin("hologram"),
        delta("hologram_delta"),
        end(),
        {"type": "content_block_start", "index": 1, "content_block": None},
        {"type": "content_block_start", "index": 2, "content_block": {"type": ["list"]}},
        {"type": "content_block_delta", "index": 2, "delta": None},
        b"7",
        b'"text"',
    ]
    reply = answer(
        stream(START, *odd, begin("text", 3, text="a"), delta("text_delta", 3, text="b"), delta("citations_delta", 3), STOP, END)
    )
    assert (reply.text, reply.unknown) == ("ab", 8)


def test_known_silent_blocks_are_not_unknown(answer: Answer) -> None:
    silent = [
        begin("redacted_thinking"),
        begin("web_search_tool_result", 1),
        begin("mcp_tool_result", 2),
        begin("mcp_tool_use", 3),
    ]
    thinking = [
        begin("thinking", 4, thinking="a"),
        delta("thinking_delta", 4, thinking="b"),
        delta("signature_delta", 4, signature="x"),
    ]
    more = [delta(kind, index) for kind in ("signature_delta", "citations_delta", "compaction_delta") for index in (4, 9, "4")]
    reply = answer(stream(START, *silent, *thinking, *more, STOP, END))
    assert (reply.unknown, reply.text, reply.thinking, reply.tool_uses) == (0, "", "ab", ())
    assert reply.warnings == ()


def test_a_repeated_start_resets_nothing(answer: Answer) -> None:
    again = {"type": "message_start", "message": {"id": "msg_2", "usage": {"output_tokens": 0}}}
    reply = answer(stream(START, call(), part("{}"), again, {"type": "message_start", "message": 5}, STOP, END))
    assert (reply.message_id, len(reply.tool_uses)) == ("msg_1", 1)
    assert reply.warnings == ("repeated_message_start",)
    assert reply.usage == Usage(input_tokens=25, output_tokens=4)


@pytest.mark.parametrize(
    ("events", "complete"),
    [
        ([START, begin("text", text="a"), end(), END], True),
        ([START, call(), part("{}"), end(), END], True),
        ([START, call(), END], False),
        ([START, END], False),
        ([END], False),
        ([START, begin("text", text="a"), end()], False),
        ([START, {"type": "message_delta", "delta": {"stop_reason": ""}}, {"type": "message_delta"}], False),
        ([STOP], True),
    ],
)
def test_when_an_answer_is_complete(events: list[Any], complete: bool, answer: Answer, failure: Fail) -> None:  # noqa: FBT001  # a column
    if complete:
        reply = answer(stream(*events))
        assert ("missing_stop_reason" in reply.warnings) == (STOP not in events)
    else:
        assert failure(stream(*events)).kind == "truncated"


def test_nothing_counts_after_the_end(answer: Answer) -> None:
    again = stream(
        START, begin("text", text="twice"), STOP, END, b"{oops", {"type": "error", "error": {"type": "overloaded_error"}}
    )
    assert answer(stream(begin("text", text="once"), STOP, END) + again).text == "once"


def test_damage_after_the_stop_reason_is_ignored(answer: Answer) -> None:
    damage: list[Any] = [b"{oops", {"type": "error", "error": {"type": "overloaded_error"}}, part('{"a":1}', 9)]
    reply = answer(stream(begin("text", text="a"), STOP, *damage) + b"event: error\ndata: upstream\n\n")
    assert (reply.text, reply.stop_reason) == ("a", "tool_use")


@pytest.mark.parametrize("reason", ["max_tokens", "model_context_window_exceeded"])
def test_a_cut_touches_the_last_call_alone(reason: str, answer: Answer) -> None:
    stop = {"type": "message_delta", "delta": {"stop_reason": reason}}
    reply = answer(stream(call(0), part('{"a"', 0), end(0), call(1), part('{"b"', 1), stop))
    assert [use.error for use in reply.tool_uses] == ["invalid_json", "truncated"]
    assert [use.raw for use in reply.tool_uses] == ['{"a"', '{"b"']
    assert answer(stream(call(0), stop)).tool_uses[0].error == "truncated"
    assert answer(stream(call(0), end(), begin("text", 1), stop)).tool_uses[0].error is None


def test_odd_names_and_ids(answer: Answer) -> None:
    reply = answer(
        stream(call(id=None, name=""), call(1, id=5, name=None), call(2, id="t", name="g"), call(3, id="t", name="g"), STOP, END)
    )
    assert [(use.id, use.name) for use in reply.tool_uses] == [(None, ""), (None, ""), ("t", "g"), ("t", "g")]
    assert reply.warnings == ("empty_tool_name",)


def test_usage_is_cumulative_wherever_it_comes(answer: Answer) -> None:
    metrics = {"inputTokenCount": 30, "outputTokenCount": 9}
    reply = answer(
        stream(
            START,
            STOP,
            {"type": "message_stop", "usage": {"cache_read_input_tokens": 7}, "amazon-bedrock-invocationMetrics": metrics},
        )
    )
    assert reply.usage == Usage(input_tokens=30, output_tokens=9, cache_read_tokens=7)


def test_stop_sequence_is_kept(answer: Answer) -> None:
    stop = {"type": "message_delta", "delta": {"stop_reason": "stop_sequence", "stop_sequence": "END"}}
    assert answer(stream(begin("text"), stop)).stop_sequence == "END"


def test_event_names_stand_in_for_missing_types(answer: Answer) -> None:
    body = (
        b'event: content_block_start\ndata: {"index":0,"content_block":{"type":"text","text":"a"}}\n\n'
        b'event: content_block_delta\ndata: {"index":0,"delta":{"type":"text_delta","text":"b"}}\n\n'
        b'event: message_delta\ndata: {"delta":{"stop_reason":"end_turn"}}\n\n'
    )
    assert answer(body).text == "ab"


def test_deep_and_odd_frequent_events_take_the_long_way(answer: Answer, failure: Fail) -> None:
    deep = b'{"type":"content_block_delta","index":0,"x":%b,"delta":{"type":"text_delta","text":"b"}}'
    fine = deep % (b"[" * 250 + b"]" * 250)
    assert answer(stream(begin("text", text="a"), fine, STOP)).text == "ab"
    assert failure(stream(begin("text", text="a"), deep % (b"[" * 600 + b"]" * 600), STOP)).kind == "corrupt_event"


@pytest.mark.parametrize(
    ("content", "text", "calls"),
    [
        ([{"type": "text", "text": "a"}, {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}], "a", [{"a": 1}]),
        ([{"type": "tool_use", "id": "t", "name": "f", "input": '{"a": 1}'}], "", [{"a": 1}]),
        ("Hello", "Hello", []),
        (None, "", []),
        ([None, "odd", {"type": "hologram"}], "", []),
    ],
)
def test_whole_messages(content: Any, text: str, calls: list[Any], answer: Answer) -> None:
    message = {"type": "message", "id": "msg_1", "content": content, "stop_reason": "end_turn", "usage": None}
    body = json.dumps(message).encode()
    reply = answer(body)
    assert (reply.form, reply.text, inputs(reply), reply.warnings) == ("anthropic_json", text, calls, ())
    assert answer(b"\n\n  " + json.dumps(message, indent=2).encode()).text == text
    in_stream = answer(stream(message))
    assert (in_stream.form, in_stream.text, inputs(in_stream)) == ("anthropic_sse", text, calls)


@pytest.mark.parametrize("arguments", ['{"a":1,"a":2}', '{"a":NaN}', '{"a":1e999}'])
def test_whole_messages_are_as_strict(arguments: str, answer: Answer) -> None:
    body = f'{{"type":"message","content":[{{"type":"tool_use","name":"f","input":{arguments}}}],"stop_reason":"tool_use"}}'
    assert inputs(answer(body.encode())) == ["invalid_json"]


def test_a_whole_message_without_a_stop_reason_is_truncated(failure: Fail) -> None:
    assert failure(b'{"type":"message","content":[],"stop_reason":null,"usage":{"input_tokens":3}}').usage == Usage(
        input_tokens=3
    )


def test_pieces_are_bounded(read: Callable[..., Reply | Failure]) -> None:
    """A server that begins blocks for ever costs bounded memory, also in one document."""
    found = read([stream(START, *[begin("text", n) for n in range(MAX_PIECES + 1)], STOP)])
    assert isinstance(found, Failure)
    assert found.kind == "corrupt_event"
    message = {"type": "message", "content": [{}] * (MAX_PIECES + 1), "stop_reason": "end_turn"}
    whole = read([json.dumps(message).encode()])
    assert isinstance(whole, Failure)
    assert whole.kind == "unknown_shape"


@pytest.mark.parametrize("place", range(3))
def test_an_error_inside_a_usual_event_is_an_error(place: int, failure: Fail) -> None:
    """Whatever type an event claims: where it reports an error, that is what it is."""
    events: list[dict[str, Any]] = [START, begin("text"), STOP]
    events[place] = {**events[place], "error": {"type": "overloaded_error", "message": "Overloaded"}}
    assert failure(stream(*events)).type == "overloaded_error"
