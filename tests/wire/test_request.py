"""A body is what the row and the job say, byte for byte, each field once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.job import RequestSpec
from batchrun.records import Sample
from batchrun.wire.request import MAX_HEADS, BodyBuilder, estimate_tokens, row_params

MESSAGES = b'[{"role":"user","content":"hi"}]'
TOOLS = b'[{"name":"f","input_schema":{"type":"object"}}]'


def sample(**fields: Any) -> Sample:
    return Sample(index=0, id="0", **{"messages": MESSAGES, **fields})


def long(**fields: bytes) -> dict[str, bytes]:
    """A head that every model's prompt cache may keep, by blanks that mean nothing."""
    return {name: value + b" " * 2000 for name, value in fields.items()}


def test_fields_in_order() -> None:
    spec = RequestSpec(max_tokens=7, system="be nice", tools=[{"name": "g"}], tool_choice={"type": "auto"}, params={"top_k": 5})
    assert BodyBuilder(spec).build(sample(), "m") == (
        b'{"model":"m","max_tokens":7,"stream":true,"system":"be nice","tools":[{"name":"g"}],'
        b'"tool_choice":{"type":"auto"},"top_k":5,"messages":[{"role":"user","content":"hi"}]}'
    )


def test_the_row_wins_and_each_key_comes_once() -> None:
    spec = RequestSpec(system="job", tools=[{"name": "g"}], params={"temperature": 0.5, "x": 1})
    row = sample(system=b'"row"', tools=TOOLS, tool_choice=b'{"type":"any"}', params=b'{"x": 2, "max_tokens": 9}')
    body = BodyBuilder(spec).build(row, "m")
    pairs = json.loads(body, object_pairs_hook=list)
    keys = [key for key, _ in pairs]
    assert keys == ["model", "max_tokens", "stream", "system", "tools", "tool_choice", "temperature", "x", "messages"]
    found = json.loads(body)
    assert (found["system"], found["x"], found["max_tokens"], found["temperature"]) == ("row", 2, 9, 0.5)


def test_raw_json_survives_byte_for_byte() -> None:
    odd = b'[ {"z":1,"a":"\\u00e9\xc3\xa9\\ud83d\\ude00", "n": 12345678901234567890123, "n2": 1.10}]'
    params = b'{"unknown_new": {"b" :1, "a": 1e2}}'
    body = BodyBuilder(RequestSpec()).build(sample(messages=odd, tools=odd, params=params), "m")
    assert body.endswith(b'"messages":' + odd + b"}")
    assert b'"tools":' + odd in body
    assert b'"unknown_new":{"b" :1, "a": 1e2}' in body


def test_no_stream_where_none_is_asked_for() -> None:
    assert b"stream" not in BodyBuilder(RequestSpec(stream=False)).build(sample(), "m")
    assert b"stream" not in BodyBuilder(RequestSpec(mode="batches")).build(sample(), "m")


@pytest.mark.parametrize(
    ("fields", "ttl", "expected"),
    [
        ({"system": b'"s"', "tools": TOOLS}, "5m", b'"system":[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}]'),
        ({"system": b'"s"'}, "1h", b'"cache_control":{"type":"ephemeral","ttl":"1h"}}]'),
        (
            {"system": b'[{"type":"text","text":"a"}, {"type":"text","text":"b" } ]'},
            "5m",
            b'"text":"b","cache_control":{"type":"ephemeral"}}]',
        ),
        ({"tools": TOOLS}, "5m", b'{"type":"object"},"cache_control":{"type":"ephemeral"}}]'),
        ({"tools": TOOLS, "system": b'""'}, "5m", b'{"type":"object"},"cache_control":{"type":"ephemeral"}}]'),
        ({"tools": b"[{}]", "system": b"[]"}, "5m", b'"tools":[{"cache_control":{"type":"ephemeral"}}]'),
    ],
)
def test_the_cache_mark_is_on_the_last_shared_block(fields: dict[str, Any], ttl: Any, expected: bytes) -> None:
    builder = BodyBuilder(RequestSpec(cache_ttl=ttl))
    body = builder.build(sample(**long(**fields)), "m", cache=True)
    assert expected in body
    assert body.count(b"cache_control") == 1
    json.loads(body)
    assert b"cache_control" not in builder.build(sample(**long(**fields)), "m")


@pytest.mark.parametrize(
    ("model", "least"),
    [
        ("claude-haiku-4-5-20251001", 4096),
        ("anthropic/claude-opus-4.5", 4096),
        ("us.anthropic.claude-opus-4-6-v1:0", 4096),
        ("claude-opus-4-7", 2048),
        ("anthropic.claude-3-5-haiku-20241022-v1:0", 2048),
        ("claude-3-haiku-20240307", 2048),
        ("claude-sonnet-4-20250514", 1024),
        ("claude-opus-4-20250514", 1024),
        ("claude-3-7-sonnet-latest", 1024),
        ("claude-sonnet-4-5@20250929", 1024),
        ("claude-opus-5", 512),
        ("a-gateway-s-own", 512),
    ],
)
def test_a_head_that_the_model_never_keeps_is_neither_marked_nor_waited_for(model: str, least: int) -> None:
    """Too short by any count: two bytes a token, and the prompt that comes with tools."""
    builder = BodyBuilder(RequestSpec())
    for more in ({}, {"tools": TOOLS}):
        taken = sum(map(len, more.values())) + 2 * (346 if more else 0)
        for length, kept in ((2 * least - taken, True), (2 * least - taken - 1, False)):
            system = b'"%b"' % (b"x" * (length - 2))
            request = builder.request(sample(system=system, **more), model, 0, cache=True)
            assert (b"cache_control" in request.body, request.prefix > 0) == (kept, kept)


def test_a_mark_of_the_rows_own_is_left_alone() -> None:
    own = b'[{"type":"text","text":"a","cache_control":{"type":"ephemeral","ttl":"1h"}}]'
    assert b'"system":' + own in BodyBuilder(RequestSpec()).build(sample(**long(system=own)), "m", cache=True)


@pytest.mark.parametrize(("in_messages", "in_tools", "marks"), [(3, 0, 4), (4, 0, 4), (2, 1, 4), (3, 1, 4), (6, 0, 6)])
def test_no_fifth_mark_is_put_beside_the_rows_own(in_messages: int, in_tools: int, marks: int) -> None:
    """The API refuses a body of more than four."""
    mark = '"cache_control":{"type":"ephemeral"}'
    block = f'{{"type":"text","text":"x",{mark}}}'
    messages = f'[{{"role":"user","content":[{",".join([block] * in_messages)}]}}]'.encode()
    tool = f'{{"name":"f","input_schema":{{"type":"object"}}{f",{mark}" if in_tools else ""}}}'
    row = sample(messages=messages, **long(tools=f"[{tool}]".encode(), system=b'"s"'))
    assert BodyBuilder(RequestSpec()).build(row, "m", cache=True).count(b"cache_control") == marks


def test_no_mark_where_it_has_no_place() -> None:
    for fields in ({}, {"tools": b"[]"}, {"tools": b"[1]"}):
        assert b"cache_control" not in BodyBuilder(RequestSpec()).build(sample(**long(**fields)), "m", cache=True)


def test_rows_share_a_prefix_when_model_tools_and_system_are_equal() -> None:
    builder = BodyBuilder(RequestSpec(params={"temperature": 0}))

    def prefix(model: str, **fields: Any) -> int:
        return builder.request(sample(**fields), model, 0).prefix

    tools, one, other = TOOLS + b" " * 1000, b'"%b"' % (b"s" * 2000), b'"%b"' % (b"t" * 2000)
    key = prefix("m", tools=tools, system=one)
    assert key > 0
    assert key < 2**63
    assert key == prefix("m", tools=tools, system=one, params=b'{"top_k": 1}')
    others = [("m2", tools, one), ("m", tools, other), ("m", None, one), ("m", tools, None)]
    assert len({key, *(prefix(m, tools=t, system=s) for m, t, s in others)} - {0}) == 5
    assert prefix("m") == 0


def test_the_request_carries_what_gates_need() -> None:
    request = BodyBuilder(RequestSpec(max_tokens=50)).request(sample(params=b'{"max_tokens": 9}', **long(tools=TOOLS)), "m", 12)
    assert (request.ordinal, request.model, request.max_tokens) == (12, "m", 9)
    assert request.input_tokens == estimate_tokens(request.body) == -(-len(request.body) // 4)
    assert request.prefix


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (b"[1]", "not a JSON object"),
        (b"{oops", "not a JSON object"),
        (b'{"model": "x"}', "place of its own"),
        (b'{"messages": []}', "place of its own"),
        (b'{"stream": false}', "place of its own"),
        (b'{"max_tokens": "many"}', "not an integer"),
    ],
)
def test_params_that_cannot_be_used(params: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BodyBuilder(RequestSpec()).build(sample(params=params), "m")


def test_a_head_is_made_once_for_rows_that_share_it() -> None:
    builder = BodyBuilder(RequestSpec())
    bodies = {builder.build(sample(tools=TOOLS, messages=b"[%d]" % n), "m") for n in range(5)}
    assert len(bodies) == 5
    assert len(builder._heads) == 1


def test_heads_are_kept_within_a_bound() -> None:
    builder = BodyBuilder(RequestSpec())
    for number in range(MAX_HEADS + 10):
        builder.build(sample(system=b'"%d"' % number), "m")
    assert len(builder._heads) <= MAX_HEADS


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
PARAMS = st.dictionaries(
    st.text(max_size=8).filter(lambda name: name not in {"model", "messages", "stream", "max_tokens"}), JSON, max_size=4
)


@given(params=PARAMS, own=PARAMS, system=st.text() | st.none())
def test_a_body_says_what_the_layers_say(params: dict[str, Any], own: dict[str, Any], system: str | None) -> None:
    row = sample(params=json.dumps(own).encode(), system=None if system is None else json.dumps(system).encode())
    found = json.loads(BodyBuilder(RequestSpec(params=params)).build(row, "m"))
    expected = {**params, **({"system": system} if system is not None else {}), **own}
    assert {name: found[name] for name in expected} == expected


def test_no_params_are_no_fields() -> None:
    assert row_params(None) == {}
