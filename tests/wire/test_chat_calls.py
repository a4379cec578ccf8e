"""Pieces of tool calls go to the calls that they are of, however a gateway numbers and names them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrun.records import Reply
from batchrun.wire.chat import ChatState
from tests.wire.conftest import read_chunks
from tests.wire.test_chat import calls, chunk, stream, whole

Answer = Callable[..., Reply]

F1 = {"name": "f", "arguments": '{"a":1}'}
F2 = {"name": "f", "arguments": '{"a":2}'}
G2 = {"name": "g", "arguments": '{"a":2}'}
MADE_F1, MADE_F2, MADE_G2 = ("f", '{"a":1}'), ("f", '{"a":2}'), ("g", '{"a":2}')


def item(function: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {**fields, "type": "function", "function": function}


def said(name: str | None, arguments: str | None, **fields: Any) -> dict[str, Any]:
    return item({"name": name, "arguments": arguments}, **fields)


def made(reply: Reply) -> list[tuple[str, str | None]]:
    return [(name, given) for _, name, given in calls(reply)]


KEYS = [
    {},
    {"id": ""},
    {"id": None},
    {"id": "same"},
    {"index": 0},
    {"index": 0, "id": ""},
    {"index": 0, "id": "same"},
    {"index": None, "id": "same"},
]
LISTS: list[tuple[list[dict[str, Any]], list[tuple[str, str]]]] = [
    ([F1, G2], [MADE_F1, MADE_G2]),
    ([F1, F2], [MADE_F1, MADE_F2]),
    ([F1, F1], [MADE_F1, MADE_F1]),
    ([{"name": "f", "arguments": ""}, {"name": "g"}], [("f", "{}"), ("g", "{}")]),
    ([{"name": "f", "arguments": None}, {"name": "f", "arguments": ""}, F2], [("f", "{}"), ("f", "{}"), MADE_F2]),
    ([{"name": "f", "arguments": {"a": 1}}, G2], [("f", '{"a": 1}'), MADE_G2]),
]


@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize(("functions", "expected"), LISTS)
def test_named_items_of_one_list_are_calls_each(
    functions: list[dict[str, Any]], expected: list[tuple[str, str]], keys: dict[str, Any], answer: Answer
) -> None:
    message = {"content": None, "tool_calls": [item(function, **keys) for function in functions]}
    assert made(answer(whole(message, "tool_calls"))) == expected
    assert made(answer(stream(chunk(message), chunk(finish="tool_calls")))) == expected


def test_items_without_a_name_are_calls_only_in_a_whole_message(answer: Answer) -> None:
    message = {"tool_calls": [said("f", '{"a"', index=0), said(None, ":1}", index=0)]}
    assert [use.raw for use in answer(whole(message)).tool_uses] == ['{"a"', ":1}"]
    assert made(answer(stream(chunk(message), chunk(finish="stop")))) == [MADE_F1]


@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize(("first", "second", "expected"), [(F1, G2, [MADE_F1, MADE_G2]), (F1, F2, [MADE_F1, MADE_F2])])
def test_a_named_piece_after_whole_arguments_begins_a_call(
    first: dict[str, Any], second: dict[str, Any], expected: list[tuple[str, str]], keys: dict[str, Any], answer: Answer
) -> None:
    deltas = [{"tool_calls": [item(function, **keys)]} for function in (first, second)]
    assert made(answer(stream(*map(chunk, deltas), chunk(finish="tool_calls")))) == expected


@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize(
    "parts",
    [
        ['{"a"', ":1}"],
        ["", '{"a":1}'],
        ["", "", '{"a"', ":", "1}"],
        ['{"a":{"b":"}', '{"}', "}"],
        ['{"a":"\\', '"}', '{"}'],
        ['{"a":"\\\\', '"', "}"],
        ['{"a":[{}', ",{}", "", "]}"],
        ["  ", '{"a":1}'],
    ],
)
def test_a_name_repeated_with_every_piece_begins_no_call(parts: list[str], keys: dict[str, Any], answer: Answer) -> None:
    deltas = [{"tool_calls": [said("f", part, **keys)]} for part in parts]
    assert made(answer(stream(*map(chunk, deltas), chunk(finish="tool_calls")))) == [("f", "".join(parts).strip())]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([said("f", '{"a":1}', id="x"), said("f", "", id="x"), said("f", "\n", id="")], [("x", "f", '{"a":1}')]),
        ([said("f", '{"a":1}'), said("f", ""), said(None, '{"a":2}')], [(None, "f", '{"a":1}'), (None, "f", '{"a":2}')]),
        ([said("f", ""), said("g", "{}")], [(None, "f", "{}"), (None, "g", "{}")]),
        ([said("f", "", id="x"), said("g", "{}", id="y")], [("x", "f", "{}"), ("y", "g", "{}")]),
        ([said("f", '{"a"'), said("", ":1}", id="")], [(None, "f", '{"a":1}')]),
        ([said("f", '{"a":1}'), said("", "", id="late")], [("late", "f", '{"a":1}')]),
        ([said("f", '{"a":1}'), said("f", "{}", id="y")], [(None, "f", '{"a":1}'), ("y", "f", "{}")]),
        ([said("", '{"a":1}'), said("f", "", id="late")], [("late", "f", '{"a":1}')]),
        ([said("f", '"{}"'), said("f", "", id="late")], [("late", "f", None)]),
    ],
)
@pytest.mark.parametrize("index", [{}, {"index": 0}])
def test_what_a_later_piece_is_of(
    pieces: list[dict[str, Any]], expected: list[Any], index: dict[str, int], answer: Answer
) -> None:
    deltas = [{"tool_calls": [{**piece, **index}]} for piece in pieces]
    assert calls(answer(stream(*map(chunk, deltas), chunk(finish="tool_calls")))) == expected


def test_calls_with_an_index_of_their_own_may_alternate(answer: Answer) -> None:
    pieces = [("f", '{"a"', 0), ("g", "", 1), ("g", '{"a"', 1), ("f", ":1}", 0), ("g", ":2}", 1)]
    deltas = [{"tool_calls": [said(name, part, index=index)]} for name, part, index in pieces]
    together = {"tool_calls": [said("f", "", index=0), said("g", "", index=1)]}
    assert made(answer(stream(*map(chunk, [together, *deltas]), chunk(finish="tool_calls")))) == [MADE_F1, MADE_G2]


PIECES = st.builds(
    said,
    st.sampled_from([None, "", "f", "g"]),
    st.sampled_from([None, "", " ", "{}", '{"a"', ":1}", '"', "\\", "{", "}"]),
    index=st.sampled_from([None, 0, 0, 1]),
    id=st.sampled_from([None, "", "x", "y"]),
)
FREQUENT = st.builds(
    lambda index, arguments: {"index": index, "function": {"arguments": arguments}},
    st.sampled_from([0, 0, 1]),
    st.sampled_from(["", "{}", '{"a"', ":1}", '"']),
)
SAID = st.fixed_dictionaries(
    {}, optional={"content": st.sampled_from(["", "a", None]), "tool_calls": st.lists(PIECES | FREQUENT, max_size=2)}
)
CHOICES = st.fixed_dictionaries(
    {"delta": SAID}, optional={"index": st.sampled_from([0, 0, 0, 1, None]), "message": SAID, "finish_reason": st.just(None)}
)


@settings(deadline=None)
@given(st.lists(st.lists(CHOICES, min_size=1, max_size=2), max_size=8))
def test_frequent_chunks_are_read_as_by_the_rules(chunks: list[list[dict[str, Any]]]) -> None:
    last = [chunk(finish="tool_calls", index=index) for index in (0, 1)]
    body = stream(*({"choices": choices} for choices in chunks), *last)
    with patch.object(ChatState, "take", lambda _state, _items, at: at):
        by_the_rules = read_chunks([body])
    assert read_chunks([body]) == by_the_rules
    assert read_chunks([body[at : at + 1] for at in range(len(body))]) == by_the_rules
