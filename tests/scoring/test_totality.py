"""No JSON value, as `expected`, `tools` or answer, makes a scorer raise."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchrun.job import Scoring
from batchrun.records import NOT_IN_DENOMINATOR, Reply, ToolUse, Usage
from batchrun.scoring import Scorer, open_scorer
from batchrun.scoring.answers import reply_from_calls
from batchrun.scoring.lint import lint_expected

KEYS = st.sampled_from(
    [
        "name",
        "arguments",
        "any_of",
        "any_call",
        "allowed",
        "optional",
        "input_schema",
        "input",
        "function",
        "parameters",
        "id",
        "error",
        "raw",
        "$any_of",
        "$optional",
        "$any",
        "$number",
        "$rel",
        "$abs",
        "$text",
        "$fold",
        "$regex",
        "$date",
        "$formats",
        "$unordered",
        "$includes",
        "$object",
        "$ref",
        "$defs",
        "type",
        "properties",
        "required",
        "items",
        "default",
        "enum",
        "additionalProperties",
        "pattern",
        "f",
        "a",
        "b",
        "description",
    ]
)
WORDS = st.sampled_from(
    [
        "f",
        "a",
        "b",
        "string",
        "integer",
        "number",
        "object",
        "array",
        "null",
        "#/$defs/a",
        "#/properties/a",
        "http://127.0.0.1:9/a",
        "case",
        "space",
        "punct",
        "bfcl",
        "(a+)+",
        "(",
        "[",
        "2026-03-04",
        "%Y-%m-%d",
        "%d",
        "1.5",
    ]
)
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS | st.text(max_size=4)
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=2), inner, max_size=4),
    max_leaves=14,
)
MATCHERS = st.dictionaries(KEYS.filter(lambda key: key.startswith("$")), JSON, max_size=3)
NAMES = st.sampled_from(["f", "g", "a.b"])
CALLS = st.lists(
    st.fixed_dictionaries({"name": NAMES, "arguments": st.dictionaries(KEYS, JSON | MATCHERS, max_size=3)}), max_size=3
)
EXPECTED = JSON | CALLS | st.fixed_dictionaries({"any_of": st.lists(JSON | CALLS, max_size=3)})
TOOLS = JSON | st.lists(st.fixed_dictionaries({"name": NAMES, "input_schema": JSON}), max_size=3)
MADE = st.lists(JSON.filter(lambda value: not isinstance(value, dict)), max_size=3) | st.lists(
    st.fixed_dictionaries({"name": NAMES, "input": JSON})
    | st.fixed_dictionaries({"name": JSON, "arguments": JSON, "function": JSON})
    | st.fixed_dictionaries({"function": st.fixed_dictionaries({"name": JSON, "arguments": JSON})}),
    max_size=3,
)
STOPS = st.sampled_from([None, "tool_use", "max_tokens", "refusal", "x"])

SCORERS = {profile: open_scorer(Scoring(profile=profile)) for profile in ("default", "exact", "bfcl")}
STRICT = open_scorer(Scoring(order="strict", extra_calls="allowed"))


def check(scorer: Scorer, expected: Any, tools: Any, reply: Reply) -> None:
    score = scorer.score(expected, tools, reply)
    assert (score.correct is None) == (score.outcome in NOT_IN_DENOMINATOR) == (score.score is None)
    assert (score.outcome == "correct") == (score.correct is True) == (score.explanation is None)
    msgspec.json.encode(score)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(EXPECTED, TOOLS, MADE, STOPS)
def test_no_json_value_makes_a_scorer_raise(expected: Any, tools: Any, calls: Any, stop: str | None) -> None:
    texts = msgspec.json.encode(expected), msgspec.json.encode(tools)
    reply = reply_from_calls(calls, stop_reason=stop)
    for scorer in (*SCORERS.values(), STRICT):
        check(scorer, *texts, reply)
    lint_expected(*texts)


@settings(deadline=None)
@given(st.text() | st.binary(), st.text() | st.binary(), st.text())
def test_no_text_makes_a_scorer_raise(expected: str | bytes, tools: str | bytes, text: str) -> None:
    use = ToolUse(id=None, name="f", input=text)
    reply = Reply(form="anthropic_json", text="", tool_uses=(use,), stop_reason=None, usage=Usage())
    for scorer in SCORERS.values():
        check(scorer, expected, tools, reply)
    lint_expected(expected, tools)


@pytest.mark.parametrize(
    "deep", ["[" * 100_000, "[" * 500 + "]" * 500, '{"a":' * 60 + "1" + "}" * 60, '[{"a":' * 300 + "1" + "}]" * 300]
)
def test_nesting_of_any_depth_is_judged(deep: str) -> None:
    call = f'[{{"name": "f", "arguments": {{"a": {deep}}}}}]'
    tool = f'[{{"name": "f", "input_schema": {{"properties": {{"a": {{"default": {deep}}}}}}}}}]'
    for expected, tools, made in (
        (call, "[]", "{}"),
        ("[]", tool, "{}"),
        ('[{"name": "f", "arguments": {}}]', tool, f'{{"a": {deep}}}'),
    ):
        reply = reply_from_calls([{"name": "f", "input": made}])
        for scorer in SCORERS.values():
            check(scorer, expected, tools, reply)
        lint_expected(expected, tools)
