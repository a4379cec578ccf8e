"""A block that the extension took apart holds what the lines hold, and the usual deltas are joined."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from types import ModuleType

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchrun.records import Reply
from batchrun.wire import runs
from batchrun.wire.runs import events_in
from batchrun.wire.sse import plain_data
from tests.wire.conftest import joined

IN_C = pytest.mark.skipif(runs.take_apart is plain_data, reason="the extension is not built")

FIELDS = {"text_delta": "text", "input_json_delta": "partial_json", "thinking_delta": "thinking"}
BEGIN = b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"'


def delta(text: object, index: object = 0, kind: str = "text_delta") -> dict[str, object]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, FIELDS.get(kind, "text"): text}}


def block(*lines: bytes) -> bytes:
    return b"\n" + b"".join(b"event: content_block_delta\ndata: %b\n\n" % line for line in lines)


def encoded(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


TEXTS = st.text(st.characters(codec=None) | st.sampled_from('"\\/\b\n\x00\x1f\x7f\ud83d\ude00é😀'), max_size=6)
DELTAS = st.builds(
    delta, TEXTS, st.sampled_from([0, 1, 999_999_999, 10**9, -1, 1.5, "0", None]), st.sampled_from([*FIELDS, "signature_delta"])
)
STYLES = st.sampled_from(
    [
        {"separators": (",", ":")},
        {"separators": (",", ":"), "ensure_ascii": False},
        {},
        {"sort_keys": True},
        {"indent": 0},
        {"separators": (" , ", " : ")},
    ]
)
LINES = (
    st.builds(
        lambda event, style, pad: json.dumps(event, **style).encode("utf-8", "surrogatepass") + pad * b" ",
        DELTAS,
        STYLES,
        st.integers(0, 2),
    )
    | st.sampled_from(
        [b'{"type": "ping"}', b"[DONE]", b"[DONE] ", b"{}", b"{", b"", b"null", b'{"type":"content_block_stop","index":0}', BEGIN]
    )
    | st.builds(
        lambda inner: BEGIN + inner + b'"}}',
        st.lists(
            st.sampled_from(
                [
                    b"a",
                    b"\\",
                    b'"',
                    b"u",
                    b"\\u",
                    b"d83d",
                    b"DE00",
                    b"00e9",
                    b"00",
                    b"\xc3",
                    b"\xa9",
                    b"\xed\xa0",
                    b"\xf0\x9f\x98\x80",
                    b"\x00",
                    b"\t",
                    b"}}",
                    b"\\n",
                ]
            ),
            max_size=5,
        ).map(b"".join),
    )
)
NAMES = st.sampled_from(
    [b"event: content_block_delta\n", b"event:x\n", b"", b"event: error\n", b"event:\n", b": comment\n", b"id: 1\n"]
)
BLOCKS = st.lists(
    st.tuples(NAMES, st.sampled_from([b"data: ", b"data:", b"data:  ", b""]), LINES, st.sampled_from([b"\n\n", b"\n"])).map(
        b"".join
    ),
    max_size=6,
).map(lambda events: b"\n" + b"".join(events))


def assert_said_the_same(block: bytes) -> None:
    """Check that the extension says of a block what its lines say, and that no two runs of it should be one."""
    lines, items = plain_data(block), runs.take_apart(block)
    if lines is None or items is None:
        assert lines is items
        return
    assert joined(items) == joined(lines)
    assert events_in(items) == len(lines)
    assert not any(a[:2] == b[:2] for a, b in pairwise(items) if isinstance(a, tuple) and isinstance(b, tuple))


@IN_C
@given(BLOCKS)
@example(block(BEGIN + b'\\ud83d\\ude00"}}', BEGIN + b'\\ud83d"}}', BEGIN + b'\xed\xa0\x80"}}', BEGIN + b'\xf4\x90\x80\x80"}}'))
@example(b"\nevent: error\ndata: " + BEGIN + b'a"}}\n\n')
@example(block(BEGIN + b'a"}}', BEGIN + b'b"},"error":{}}', BEGIN + b'c"}} x'))
def test_says_what_the_lines_say(data: bytes) -> None:
    assert_said_the_same(data)


@IN_C
@given(
    st.binary(max_size=60)
    | st.lists(st.sampled_from([b"data:", b"event:", b"\n", b"{", b"}", b" ", BEGIN, b'"}}', b"\\", b"e"]), max_size=12).map(
        b"".join
    )
)
def test_any_bytes_are_judged_as_by_the_rules(data: bytes) -> None:
    assert_said_the_same(b"\n" + data)


@IN_C
@pytest.mark.parametrize("kind", FIELDS)
@pytest.mark.parametrize(
    "style", [{"separators": (",", ":")}, {"ensure_ascii": False}, {"separators": (",", ":"), "ensure_ascii": False}, {}]
)
def test_usual_deltas_are_joined(kind: str, style: dict[str, object]) -> None:
    texts = ["", "a", 'b"\\\n', "é東京😀", "\x00\x7f", "/"]
    lines = [json.dumps(delta(text, 3, kind), **style).encode() + b"   " for text in texts]  # type: ignore[arg-type]  # options of `dumps`
    assert runs.take_apart(block(*lines)) == [(list(FIELDS).index(kind), 3, "".join(texts), len(texts))]


@IN_C
def test_each_escape() -> None:
    lines = [BEGIN + b'\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\u00e9\\u20AC\\ud83d\\uDE00"}}']
    assert runs.take_apart(block(*lines)) == [(0, 0, '"\\/\b\f\n\r\tAé€😀', 1)]


@IN_C
def test_a_run_ends_with_its_place() -> None:
    lines = [
        encoded(delta("a")),
        encoded(delta("b")),
        encoded(delta("c", 1)),
        encoded(delta("d", 1, "thinking_delta")),
        b'{"type":"ping"}',
        encoded(delta("e")),
    ]
    assert runs.take_apart(block(*lines)) == [(0, 0, "ab", 2), (0, 1, "c", 1), (2, 1, "d", 1), b'{"type":"ping"}', (0, 0, "e", 1)]


@IN_C
@pytest.mark.parametrize(
    "line",
    [
        encoded(delta("a", -1)),
        encoded(delta("a", 10**9)),
        encoded(delta(None)),
        encoded(delta("\ud83d")),
        BEGIN.replace(b":0", b":00") + b'"}}',
        BEGIN.replace(b":0", b":0.0") + b'"}}',
        BEGIN + b'a"},"usage":{}}',
        BEGIN + b'a","index":1}}',
        BEGIN + b'\t"}}',
        BEGIN + b'\\x"}}',
        BEGIN + b'\\ude00"}}',
        BEGIN + b'\\udc00"}}',
        BEGIN + b'\\ud83d\\u0041"}}',
        BEGIN + b'\\ud83d\\ue000"}}',
        BEGIN + b'\tn"}}',
        BEGIN + b'\xff"}}',
        BEGIN + b'\xc0\x80"}}',
        BEGIN + b'\xe0\x80\x80"}}',
        BEGIN + b'\xf0\x80\x80\x80"}}',
        BEGIN + b'\xe2\x82"}}',
        BEGIN + b'a"}}}',
    ],
)
def test_what_is_not_surely_a_delta_stays_a_line(line: bytes) -> None:
    before, after = encoded(delta("before")), encoded(delta("after"))
    assert runs.take_apart(block(before, line, after)) == [(0, 0, "before", 1), line, (0, 0, "after", 1)]


@IN_C
def test_only_bytes_are_taken_apart() -> None:
    with pytest.raises(TypeError, match="a block is bytes, not str"):
        runs.take_apart("data: {}\n\n")  # type: ignore[arg-type]  # what is tested


def test_a_run_of_no_block_is_forgiven_as_its_deltas_are(answer: Callable[..., Reply]) -> None:
    """Text that nobody began is kept, and said so; a run of another kind than its block's is dropped."""
    start = {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": "x"}}
    stop = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    events = [
        encoded(delta("a")),
        encoded(delta("b")),
        encoded(start),
        encoded(delta("{", 1, "input_json_delta")),
        encoded(delta("c", 1)),
        encoded(stop),
        b'{"type":"message_stop"}',
    ]
    found = answer(block(*events))
    assert (found.text, set(found.warnings)) == ("abxc", {"missing_block_start", "delta_of_another_block"})


def test_without_the_extension_every_event_is_a_line(without: Callable[[str, ModuleType], ModuleType]) -> None:
    lines = [encoded(delta("a")), encoded(delta("b"))]
    assert without("_runs", runs).take_apart(block(*lines)) == lines
