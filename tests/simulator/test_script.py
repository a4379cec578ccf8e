"""The plan of a reply: right as often as it should be, in the manner that was asked for, cut where it must be."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.simulator.prompt import BadRequest, Prompt, read_prompt
from batchrun.simulator.script import CALL_TOKENS, Manner, Plan, plan_reply, tokens_of

Asking = Callable[..., Prompt]
ALWAYS = Manner(seed=1, accuracy=1)
TWO = json.dumps(
    [{"name": "get_weather", "arguments": {"location": "Rome"}}, {"name": "get_time", "arguments": {"zone": "CET"}}]
).encode()


def calls_of(plan: Plan) -> list[tuple[str, Any]]:
    return [(block.name, json.loads(block.text)) for block in plan.blocks if block.kind == "tool_use"]


def test_a_right_answer_makes_the_expected_calls(prompt: Asking) -> None:
    plan = plan_reply(prompt(), TWO, ALWAYS)
    assert calls_of(plan) == [("get_weather", {"location": "Rome"}), ("get_time", {"zone": "CET"})]
    assert plan.stop_reason == "tool_use"
    assert len({block.id for block in plan.blocks if block.kind == "tool_use"}) == 2


def test_where_no_call_is_right_words_are_said(prompt: Asking) -> None:
    plan = plan_reply(prompt(), b"[]", ALWAYS)
    assert [block.kind for block in plan.blocks] == ["text"]
    assert plan.stop_reason == "end_turn"


def test_without_an_expectation_the_first_tool_is_called(prompt: Asking) -> None:
    """The arguments come from the schema: here from its description's example."""
    assert calls_of(plan_reply(prompt(), None, ALWAYS)) == [("get_weather", {"location": "San Francisco, CA"})]
    assert calls_of(plan_reply(prompt(tools=None), None, ALWAYS)) == []


@given(st.integers(), st.integers(min_value=0, max_value=9))
def test_equal_questions_get_equal_replies(seed: int, repeat: int) -> None:
    asked = read_prompt(b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"x"}],"tools":[]}')
    manner = Manner(seed=seed, accuracy=0.5, repeat=repeat)
    assert plan_reply(asked, TWO, manner) == plan_reply(asked, TWO, manner)


def test_repeats_and_seeds_differ(prompt: Asking) -> None:
    ids = {plan_reply(prompt(), TWO, Manner(seed=s, accuracy=1, repeat=r)).message_id for s in range(3) for r in range(3)}
    assert len(ids) == 9


def test_accuracy_is_the_share_of_right_answers(prompt: Asking) -> None:
    """Of 500 questions at 0.8, the right ones are within five standard deviations of 400."""
    right = sum(
        calls_of(plan_reply(prompt(f"question {place}"), TWO, Manner(seed=3, accuracy=0.8)))
        == [("get_weather", {"location": "Rome"}), ("get_time", {"zone": "CET"})]
        for place in range(500)
    )
    assert abs(right - 400) < 45


def test_a_demanded_mistake_is_made(prompt: Asking) -> None:
    plan = plan_reply(prompt(), b'{"any_call":true}', Manner(seed=1, accuracy=1, wrong=True))
    assert calls_of(plan) == []


@pytest.mark.parametrize("choice", [{"type": "tool", "name": "get_time"}, {"type": "auto", "disable_parallel_tool_use": True}])
def test_a_mistake_survives_the_tool_choice(prompt: Asking, choice: dict[str, Any]) -> None:
    """A call too many that the tool choice would take away again is no mistake: another one is made."""
    one = b'[{"name":"get_time","arguments":{"zone":"CET"}}]'
    for seed in range(50):
        plan = plan_reply(prompt(tool_choice=choice), one, Manner(seed=seed, accuracy=0))
        assert calls_of(plan) != [("get_time", {"zone": "CET"})]


def test_thinking_comes_first_and_is_counted(prompt: Asking) -> None:
    plan = plan_reply(prompt(thinking={"type": "enabled", "budget_tokens": 1000}), TWO, ALWAYS)
    assert plan.blocks[0].kind == "thinking"
    assert plan.thinking_tokens == tokens_of(plan.blocks[0]) > 0
    assert plan.output_tokens == sum(map(tokens_of, plan.blocks))


@pytest.mark.parametrize(
    ("choice", "expected", "names"),
    [
        ({"type": "none"}, TWO, []),
        ({"type": "any"}, b"[]", ["get_weather"]),
        ({"type": "any"}, TWO, ["get_weather", "get_time"]),
        ({"type": "tool", "name": "get_time"}, TWO, ["get_time"]),
        ({"type": "tool", "name": "get_time"}, b"[]", ["get_time"]),
        ({"type": "auto", "disable_parallel_tool_use": True}, TWO, ["get_weather"]),
    ],
)
def test_the_tool_choice_is_obeyed(prompt: Asking, choice: dict[str, Any], expected: bytes, names: list[str]) -> None:
    plan = plan_reply(prompt(tool_choice=choice), expected, ALWAYS)
    assert [name for name, _ in calls_of(plan)] == names


def test_where_no_tool_may_be_called_none_is_called_by_mistake(prompt: Asking) -> None:
    assert calls_of(plan_reply(prompt(tool_choice={"type": "none"}), TWO, Manner(seed=1, accuracy=0))) == []


@pytest.mark.parametrize("seed", range(8))
def test_bad_json_is_bad(prompt: Asking, seed: int) -> None:
    """The last call's arguments do not parse; the others do."""
    blocks = plan_reply(prompt(), TWO, Manner(seed=seed, accuracy=1, bad_json=True)).blocks
    texts = [block.text for block in blocks if block.kind == "tool_use"]
    json.loads(texts[0])
    with pytest.raises(json.JSONDecodeError):
        json.loads(texts[1])


def test_without_a_call_nothing_can_be_bad(prompt: Asking) -> None:
    assert plan_reply(prompt(), b"[]", Manner(seed=1, accuracy=1, bad_json=True)) == plan_reply(prompt(), b"[]", ALWAYS)


@pytest.mark.parametrize("limit", range(1, 60))
def test_max_tokens_cuts_anywhere(prompt: Asking, limit: int) -> None:
    """What is left is a prefix of the whole reply, of exactly so many tokens, and says so."""
    whole = plan_reply(prompt(), TWO, ALWAYS)
    cut = plan_reply(prompt(max_tokens=limit), TWO, ALWAYS)
    assert cut.output_tokens == min(limit, whole.output_tokens)
    assert (cut.stop_reason == "max_tokens") == (limit < whole.output_tokens)
    for kept, full in zip(cut.blocks, whole.blocks, strict=False):
        assert full.text.startswith(kept.text)
    assert sum(map(tokens_of, cut.blocks)) <= limit


def test_a_call_is_cut_in_its_arguments(prompt: Asking) -> None:
    cut = plan_reply(
        prompt(max_tokens=CALL_TOKENS + 3), b'[{"name":"get_time","arguments":{"zone":"CET"}}]', Manner(seed=2, accuracy=1)
    )
    assert cut.blocks[-1].kind in {"tool_use", "text"}
    assert cut.stop_reason == "max_tokens"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "name",
                    "arguments",
                    "any_of",
                    "any_call",
                    "$any_of",
                    "$optional",
                    "$number",
                    "$abs",
                    "$regex",
                    "$unordered",
                    "$includes",
                    "$date",
                    "a",
                ]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)
SCHEMA_WORDS = [
    "type",
    "properties",
    "required",
    "enum",
    "items",
    "minItems",
    "minimum",
    "multipleOf",
    "anyOf",
    "$ref",
    "pattern",
    "object",
    "array",
]
SCHEMAS = st.recursive(
    st.sampled_from(["object", "array", "number", "integer", "string", "#/properties", 0, 3, -1, None, True, "a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*SCHEMA_WORDS, "a", "b"]), inner, max_size=4),
    max_leaves=12,
)


def asking(schema: Any) -> Prompt:
    tools = [{"name": "f", "input_schema": schema}]
    asked = {"model": "m", "max_tokens": 99, "messages": [{"role": "user", "content": "x"}], "tools": tools}
    return read_prompt(json.dumps(asked).encode())


@given(JSON_VALUES, st.integers(0, 5))
def test_no_expectation_breaks_the_endpoint(expected: Any, seed: int) -> None:
    """Whatever stands in `expected`, readable or not, there is a reply."""
    asked = asking({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]})
    for text in (json.dumps(expected), json.dumps([{"name": "f", "arguments": {"a": expected}}])):
        for accuracy in (0, 1):
            plan = plan_reply(asked, text.encode(), Manner(seed=seed, accuracy=accuracy))
            assert plan == plan_reply(asked, text.encode(), Manner(seed=seed, accuracy=accuracy))
            assert plan.stop_reason


@pytest.mark.parametrize(
    "broken", [b"", b"{", b"\xff", b"5", b'"x"', b'{"any_of":[]}', b'[{"name":5}]', b'[{"name":"f","arguments":[1]}]']
)
def test_an_unreadable_expectation_says_nothing(prompt: Asking, broken: bytes) -> None:
    """The reply is the one that is given where nothing is known to be right."""
    assert plan_reply(prompt(), broken, ALWAYS) == plan_reply(prompt(), None, ALWAYS)


@given(st.dictionaries(st.sampled_from(SCHEMA_WORDS), SCHEMAS, max_size=5), st.integers(0, 5))
def test_no_schema_breaks_the_endpoint(schema: Any, seed: int) -> None:
    """A tool's schema is used or refused in the API's words."""
    asked = asking(schema)
    for expected in (None, b'[{"name":"f","arguments":{"a":{"$any":true},"b":[1,{"c":2}]}}]', b"[]"):
        for accuracy in (0, 1):
            try:
                plan_reply(asked, expected, Manner(seed=seed, accuracy=accuracy))
            except BadRequest as refusal:
                assert "schema is invalid" in str(refusal)  # noqa: PT017 - either outcome is right


def test_a_schema_that_is_none_is_refused(prompt: Asking) -> None:
    asked = prompt(tools=[{"name": "f", "input_schema": {"type": "object", "required": 5}}])
    with pytest.raises(BadRequest, match="JSON schema is invalid"):
        plan_reply(asked, None, ALWAYS)
