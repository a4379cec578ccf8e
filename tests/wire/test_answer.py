"""What is read in C of a usual stream is what the rules make of it, and an event is taken whole or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchrun.records import Reply, ToolUse, Usage
from batchrun.wire import answer as answers
from batchrun.wire import arguments
from batchrun.wire.answer import Answer
from tests.wire.conftest import read_chunks

IN_C = pytest.mark.skipif(Answer is None, reason="the extension is not built")

USAGE = {"input_tokens": 9, "cache_creation_input_tokens": 7, "cache_read_input_tokens": None, "output_tokens": 1}
START = {"type": "message_start", "message": {"id": "msg_1", "model": "m", "content": [], "usage": USAGE}}
TEXT = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "a"}}
CALL = {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}}}
THINKING = {"type": "content_block_start", "index": 2, "content_block": {"type": "thinking", "thinking": "", "signature": ""}}
STOPPED = {"type": "content_block_stop", "index": 0}
END = {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": None}, "usage": {"output_tokens": 5}}
CLOSE = {"type": "message_stop"}
FIELDS = {"text_delta": "text", "input_json_delta": "partial_json", "thinking_delta": "thinking", "signature_delta": "signature"}


def delta(index: object, kind: str, text: object) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, FIELDS[kind]: text}}


WHOLE = [
    START,
    TEXT,
    {"type": "ping"},
    delta(0, "text_delta", "é😀"),
    STOPPED,
    THINKING,
    delta(2, "thinking_delta", "b"),
    delta(2, "signature_delta", "s"),
    CALL,
    delta(1, "input_json_delta", '{"c":'),
    delta(1, "input_json_delta", "1}"),
    END,
    CLOSE,
]


def stream(*events: object, name: bytes = b"event: x\n") -> bytes:
    return b"".join(name + b"data: %b\n\n" % one for one in map(encoded, events))


def encoded(event: object) -> bytes:
    return event if isinstance(event, bytes) else json.dumps(event, separators=(",", ":")).encode()


LEAVES = st.none() | st.booleans() | st.integers(-2, 2**70) | st.floats(allow_nan=False) | st.text(max_size=3)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2))
NAMES = st.sampled_from(
    sorted(
        set(re.findall('"([a-z_]+)":', json.dumps(WHOLE)))
        | {"error", "choices", "object", "cache_creation", "service_tier", "amazon-bedrock-invocationMetrics"}
    )
)


@st.composite
def changed(draw: st.DrawFn) -> dict[str, Any]:
    """Return a usual event with a member of it, at any depth, changed, added or left out."""
    event: dict[str, Any] = json.loads(json.dumps(draw(st.sampled_from([*WHOLE, CALL, END, START]))))
    place = event
    while draw(st.booleans()):
        inner = [value for value in place.values() if isinstance(value, dict)]
        place = draw(st.sampled_from([place, *inner]))
    name = draw(NAMES | st.sampled_from(sorted(place)) if place else NAMES)
    if draw(st.booleans()):
        place[name] = draw(VALUES | st.sampled_from(["text_delta", "message_stop", "tool_use", "", {}, 3, "standard"]))
    else:
        place.pop(name, None)
    return event


STYLES = st.sampled_from([{"separators": (",", ":")}, {}, {"sort_keys": True}, {"ensure_ascii": False}])
EVENTS = st.builds(
    lambda event, style: json.dumps(event, **style).encode("utf-8", "surrogatepass"),
    st.sampled_from(WHOLE) | changed() | st.builds(delta, st.integers(-1, 3), st.sampled_from(sorted(FIELDS)), VALUES),
    STYLES,
)
FRAMES = st.sampled_from(
    [
        *[b"event: x\ndata: %b\n\n"] * 6,
        b"data:%b\n\n",
        b"data: %b\r\n\r\n",
        b": c\n\ndata: %b\n\n",
        b"event: error\ndata: %b\n\n",
        b"data: %b\n",
    ]
)


@st.composite
def chunked(draw: st.DrawFn) -> list[bytes]:
    """Return a stream in which some events are unusual, in chunks."""
    kept = [encoded(event) for event in WHOLE]
    for _ in range(draw(st.integers(0, 3))):
        kept.insert(draw(st.integers(0, len(kept))), draw(EVENTS))
    frame = st.just(b"data: %b\n\n") if draw(st.booleans()) else FRAMES
    body = b"".join(draw(frame) % event for event in kept)
    if draw(st.booleans()):
        body = body[: draw(st.integers(0, len(body)))]
    cuts = sorted(draw(st.sets(st.integers(0, len(body)), max_size=6)))
    return [body[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]


@given(chunked())
@example([stream(START, {**END, "usage": {**USAGE, "cache_creation": {"ephemeral_1h_input_tokens": 8}}}, CLOSE)])
@example(
    [
        stream(
            START,
            {**END, "usage": {"cache_creation": {"ephemeral_5m_input_tokens": 2}}},
            {**END, "usage": {"cache_creation": {}}},
            CLOSE,
        )
    ]
)
@example([stream({**START, "message": {"usage": {"output_tokens": 10**9, "service_tier": "batch"}}}, END, CLOSE)])
@example([stream(*WHOLE, {"type": "error", "error": {"message": "m"}})])
def test_it_is_read_as_by_the_rules(chunks: list[bytes]) -> None:
    """`read_chunks` reads them in C and by the rules, and compares."""
    read_chunks(chunks)


@IN_C
@pytest.mark.parametrize("name", [b"", b"event: x\n", b"event:x\n"])
def test_a_usual_stream_is_read_to_its_end(name: bytes, answer: Callable[..., Reply]) -> None:
    body = stream(*WHOLE, name=name)
    found = Answer()
    assert all(found.feed(body[at : at + 7]) for at in range(0, len(body), 7))
    assert (found.events, found.seen, found.called, found.closed, found.rest) == (len(WHOLE) - 1, True, True, True, b"")
    assert answer(body) == Reply(
        form="anthropic_sse",
        text="aé😀",
        thinking="b",
        tool_uses=(ToolUse(id="t", name="f", input='{"c":1}', raw='{"c":1}', error=None),),
        stop_reason="tool_use",
        usage=Usage(input_tokens=9, output_tokens=5, cache_write_5m_tokens=7),
        message_id="msg_1",
        model="m",
    )


@IN_C
@pytest.mark.parametrize(
    "event",
    [
        START,
        {**START, "message": {"id": 1}},
        {**TEXT, "index": -1},
        {**TEXT, "index": 10**9},
        {**TEXT, "content_block": {"type": "text", "text": None}},
        {**CALL, "content_block": {"type": "tool_use", "id": "t", "name": ""}},
        {**CALL, "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}},
        {**CALL, "content_block": {"type": "server_tool_use", "id": "t", "name": "f"}},
        {**TEXT, "error": {"message": "m"}},
        {**CLOSE, "choices": None},
        {**CLOSE, "object": "x"},
        {**CLOSE, "usage": {"output_tokens": 3}},
        {**CLOSE, "amazon-bedrock-invocationMetrics": {"outputTokenCount": 3}},
        {**END, "delta": {"stop_reason": ""}},
        {**END, "delta": {"stop_reason": "a", "stop_sequence": 1}},
        {**END, "usage": []},
        {"type": "new"},
        {**STOPPED, "index": 9},
        delta(9, "text_delta", "x"),
        delta(0, "input_json_delta", "x"),
        delta(0, "text_delta", None),
        delta(0, "text_delta", "\ud800"),
        b'{"type":"ping","type":"ping"}',
        b'{"type":"ping","\\u0061":1}',
        b'{"type":"ping","a":1e9}',
        b'{"type":"ping","a":01}',
        b'{"type":"ping","a":1.}',
        b'{"type":"ping","a":-}',
        b'{"type":"ping","a":1234567890123456789}',
        b'{"type":"ping","a":"\xff"}',
        b'{"type":"ping","a":"\t"}',
        b'{"type":"ping","a":[1,]}',
        b'{"type":"ping","a":nul}',
        b'{"type":"ping","a":%b%b}' % (b"[" * 40, b"]" * 40),
        b'{"type":"ping","a":%b1%b}' % (b'{"a":' * 40, b"}" * 40),
        b'{"type":"ping"}}',
        b'{"type":"ping"',
        b'{"type":"ping",}',
        b"[DONE]",
        b"",
    ],
)
def test_what_is_not_surely_usual_is_left_and_all_after_it(event: object) -> None:
    before, after = stream(START, TEXT), stream(event, END)
    found = Answer()
    assert found.feed(before)
    known = (found.events, found.usage, found.id, found.stop_reason, found.blocks())
    assert not found.feed(after)
    assert not found.feed(b"more")
    assert (found.events, found.usage, found.id, found.stop_reason, found.blocks()) == known
    assert found.rest == after + b"more"


@IN_C
@pytest.mark.parametrize("usual", [b"{}", b"[1, -0.5, true, false, null, {}]", b'"\\u00e9\\n"', b'{"a":{"b":[[]]}}'])
def test_what_nobody_looks_at_may_be_there(usual: bytes) -> None:
    found = Answer()
    assert found.feed(b'data: {"z":%b,"type":"ping" , "y" : %b}  \n\n' % (usual, usual))
    assert (found.seen, found.events) == (True, 0)


@IN_C
def test_a_carriage_return_ends_lines_and_is_left() -> None:
    found = Answer()
    assert found.feed(b"event: ping")
    assert not found.feed(b"\r\ndata")
    assert found.rest == b"event: ping\r\ndata"


@IN_C
def test_many_blocks_are_left_to_those_who_bound_them() -> None:
    found = Answer()
    starts = [stream({**TEXT, "index": index}) for index in range(300)]
    assert [found.feed(start) for start in starts].index(False) == 256


@IN_C
@pytest.mark.parametrize(
    ("later", "usage"),
    [
        ({}, (9, 1, None, 7, None, None, None)),
        ({"output_tokens": None, "input_tokens": 0}, (0, 1, None, 7, None, None, None)),
        ({"cache_creation": {"ephemeral_1h_input_tokens": 3}, "inference_geo": "x"}, (9, 1, None, 7, None, 3, None)),
        ({"cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4}}, (9, 1, None, 7, 3, 4, None)),
        ({"service_tier": "batch", "cache_read_input_tokens": 999_999_999}, (9, 1, 999_999_999, 7, None, None, "batch")),
        ({"server_tool_use": {"web_search_requests": 1}}, None),
        ({"output_tokens": 10**9}, None),
        ({"output_tokens": "5"}, None),
        ({"service_tier": 1}, None),
        ({"cache_creation": []}, None),
        ({"cache_creation": {"ephemeral_5m_input_tokens": -1}}, None),
    ],
)
def test_usage_is_split_in_c_where_it_is_the_apis_own(later: dict[str, object], usage: object) -> None:
    found = Answer()
    assert found.usage is None
    assert found.feed(stream(START, {**END, "usage": later}))
    assert found.usage == usage


@IN_C
def test_lifetimes_of_cache_writes_replace_those_before() -> None:
    found = Answer()
    for lifetime in ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"):
        assert found.feed(stream({**END, "usage": {"cache_creation": {lifetime: 3}}}))
    assert found.usage == (None, None, None, None, None, 3, None)


def test_a_delta_belongs_to_the_last_block_of_its_index(answer: Callable[..., Reply]) -> None:
    starts = [
        {**TEXT, "index": index, "content_block": {"type": "text", "text": text}}
        for index, text in ((0, "a"), (0, "b"), (1, "c"))
    ]
    assert answer(stream(START, *starts, delta(0, "text_delta", "-"), END, CLOSE)).text == "ab-c"


@IN_C
def test_only_bytes_are_taken() -> None:
    with pytest.raises(TypeError, match="a chunk is bytes, not str"):
        Answer().feed("data: {}\n\n")  # type: ignore[arg-type]  # what is tested


def test_without_the_extension_there_is_none(without: Callable[[str, ModuleType], ModuleType]) -> None:
    assert without("_answer", answers).Answer is None
    assert without("_answer", arguments).parse_arguments('{"a": 1}').input == '{"a": 1}'
