"""Explanations, partial credit, the counts for the metrics, and the laws of the verdict."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrun.job import Scoring
from batchrun.records import CallScore, Reply, Score, ToolUse, Usage
from batchrun.scoring import open_scorer
from batchrun.scoring.answers import NoArguments, reply_from_calls
from batchrun.scoring.cache import MAX_ENTRIES, Cache
from batchrun.scoring.judge import Judge
from batchrun.scoring.lint import lint_expected

BOOK = {
    "name": "book",
    "input_schema": {
        "type": "object",
        "properties": {
            "date": {"type": "string"},
            "seats": {"type": "integer"},
            "extras": {"type": "array", "items": {"type": "object"}},
            "note": {"type": "string", "default": "none"},
        },
    },
}
PLAIN = {"name": "f", "arguments": {"a": 1}}


def book(**arguments: Any) -> dict[str, Any]:
    return {"name": "book", "arguments": arguments}


EXPLANATIONS = [
    (
        [PLAIN, book(date={"$any_of": ["2026-03-05", "5 March"]})],
        [("f", {"a": 1}), ("book", {"date": "2026-03-04"})],
        'call 2 `book`: `date` is "2026-03-04", expected one of "2026-03-05", "5 March"',
    ),
    ([book(date="x")], [("book", {})], 'call 1 `book`: `date` is missing, expected "x"'),
    ([book()], [("book", {"seats": 2})], "call 1 `book`: `seats` is 2, expected no such argument"),
    (
        [book(date="x")],
        [("book", {"date": "x", "note": "none", "seats": 2})],
        "call 1 `book`: `seats` is 2, expected no such argument",
    ),
    (
        [book(extras=[{"bag": 1}, {"bag": 2}])],
        [("book", {"extras": [{"bag": 1}, {"bag": 3}]})],
        "call 1 `book`: `extras[1].bag` is 3, expected 2",
    ),
    ([book(extras=[{"bag": 1}])], [("book", {"extras": []})], "call 1 `book`: `extras` has 0 items, expected 1"),
    ([book(extras=[{"a": 1}])], [("book", {"extras": [{}]})], "call 1 `book`: `extras[0].a` is missing, expected 1"),
    (
        [book(extras=[{"b": {"$any": True, "$optional": True}, "a": 1}])],
        [("book", {"extras": [{"a": 1, "c": None}]})],
        "call 1 `book`: `extras[0].c` is null, expected no such key",
    ),
    ([book(seats=2)], [("book", {"seats": "2"})], 'call 1 `book`: `seats`: "2" is not of type "integer"'),
    ([PLAIN], [("g", {})], "call 1 `g`: expected f(a=1)"),
    ([PLAIN, PLAIN], [("f", {"a": 1})], "no call of f(a=1)"),
    ([PLAIN], [("f", {"a": 1}), ("g", {})], "call 2 `g`: not expected"),
    ([PLAIN], [], "no call of f(a=1)"),
    ([], [("f", {})], "call 1 `f`: no call was right"),
    ({"any_call": True}, [], "no call"),
    ([PLAIN], [("f", {"a": 2})], "call 1 `f`: `a` is 2, expected 1"),
    (
        [{"name": "f", "arguments": {"a": {"$number": 5, "$abs": 0.5}}}],
        [("f", {"a": 7})],
        "call 1 `f`: `a` is 7, expected 5 within 0.5",
    ),
    ([{"name": "f", "arguments": {"a": {"$number": 5}}}], [("f", {"a": 7})], "call 1 `f`: `a` is 7, expected 5"),
    (
        [{"name": "f", "arguments": {"a": {"$regex": "x+"}}}],
        [("f", {"a": 7})],
        'call 1 `f`: `a` is 7, expected a string matching "x+"',
    ),
    (
        [{"name": "f", "arguments": {"a": {"$date": "2026-03-04"}}}],
        [("f", {"a": 7})],
        'call 1 `f`: `a` is 7, expected the date "2026-03-04"',
    ),
    (
        [{"name": "f", "arguments": {"a": {"$unordered": [1, 2]}}}],
        [("f", {"a": 7})],
        "call 1 `f`: `a` is 7, expected in any order [1, 2]",
    ),
    (
        [{"name": "f", "arguments": {"a": {"$unordered": [1, {"$any": True}]}}}],
        [("f", {"a": 7})],
        "call 1 `f`: `a` is 7, expected in any order [1, any value]",
    ),
    (
        [{"name": "f", "arguments": {"a": {"$includes": {"k": 1}}}}],
        [("f", {"a": 7})],
        'call 1 `f`: `a` is 7, expected an object with {"k": 1}',
    ),
    ([{"name": "f", "arguments": {"a": {"$any_of": []}}}], [("f", {"a": 7})], "call 1 `f`: `a` is 7, expected nothing"),
    (
        [{"name": "f", "arguments": {"a": [True, {"k": None}]}}],
        [("f", {"a": 7})],
        'call 1 `f`: `a` is 7, expected [true, {"k": null}]',
    ),
    (
        [{"name": "f", "arguments": {"a": {"$regex": "x", "$text": "x"}}}],
        [("f", {"a": 7})],
        'call 1 `f`: `a` is 7, expected a string matching "x" and "x"',
    ),
]


@pytest.mark.parametrize(("expected", "calls", "why"), EXPLANATIONS)
def test_an_explanation_is_one_line_with_the_path(score: Any, expected: Any, calls: Any, why: str) -> None:
    tools = [BOOK, {"name": "f"}, {"name": "g"}]
    assert score(expected, calls, tools=tools).explanation == why


def test_an_explanation_of_the_exact_profile_shows_what_was_wanted(score: Any) -> None:
    result = score([{"name": "f", "arguments": {"a": "x"}}], [("f", {"a": "x "})], profile="exact")
    assert result.explanation == 'call 1 `f`: `a` is "x ", expected "x"'


def test_a_violation_of_the_whole_schema_has_no_path(score: Any) -> None:
    tools = [{"name": "f", "input_schema": {"required": ["b"]}}]
    assert score([PLAIN], [("f", {"a": 1})], tools=tools).explanation == 'call 1 `f`: "b" is a required property'


def test_in_strict_order_the_first_stray_call_is_named(score: Any) -> None:
    result = score([PLAIN, book(seats=1)], [("book", {"seats": 1}), ("f", {"a": 1})], order="strict")
    assert result.explanation == "call 2 `f`: not in its place in the expected order"


def test_an_explanation_is_short_and_on_one_line(score: Any) -> None:
    result = score([{"name": "f", "arguments": {"a": ["x" * 900] * 9}}], [("f\ng", {"a": "y\n" * 900})])
    assert "\n" not in result.explanation
    assert len(result.explanation) <= 500


CREDIT = [
    ([PLAIN], [("f", {"a": 1})], 1.0),
    ([PLAIN], [("f", {"a": 2})], 1 / 2),
    ([PLAIN], [("f", {})], 1 / 2),
    ([PLAIN], [("f", {"a": 1, "b": 2})], 2 / 3),
    ([PLAIN], [("g", {"a": 1})], 0.0),
    ([PLAIN], [], 0.0),
    ([PLAIN], [("f", {"a": 1}), ("f", {"a": 1})], 1 / 2),
    ([PLAIN, PLAIN], [("f", {"a": 1})], 1 / 2),
    ([], [("f", {})], 0.0),
    ({"any_of": [[PLAIN], [book(seats=1)]]}, [("book", {"seats": 2})], 1 / 2),
]


@pytest.mark.parametrize(("expected", "calls", "credit"), CREDIT)
def test_partial_credit_counts_right_arguments_and_calls(score: Any, expected: Any, calls: Any, credit: float) -> None:
    assert score(expected, calls).score == pytest.approx(credit)


def test_a_wrong_answer_never_has_full_credit(score: Any) -> None:
    tools = [{"name": "f", "input_schema": {"properties": {"a": {"type": "string"}}}}]
    assert score([PLAIN], [("f", {"a": 1})], tools=tools).score == pytest.approx(2 / 3)
    unknown = score([PLAIN], [("f", {"a": 1}), ("g", {})], tools=[{"name": "f"}], extra_calls="allowed")
    assert (unknown.outcome, unknown.score) == ("unknown_tool", 0.5)
    assert score([PLAIN], [("f", {"a": 1})], stop_reason="refusal").score == 0


def test_the_detail_counts_calls_and_arguments(score: Any) -> None:
    expected = [book(date="x", seats={"$any_of": [1], "$optional": True}), PLAIN]
    calls = [("book", {"date": "y", "note": "none"}), ("g", {"q": 1}), {"name": "f", "input": "{"}]
    detail = score(expected, calls, tools=[BOOK, {"name": "f"}]).detail
    assert detail.should_call is True
    assert detail.called is True
    assert detail.schema_valid is False
    assert detail.invalid_json == 1
    assert detail.hallucinated == ("g",)
    assert detail.calls == (
        CallScore(tool="book", expected=True, called=True, right=False, arguments_expected=1, arguments_given=1),
        CallScore(tool="f", expected=True, called=False, right=False, arguments_expected=1),
        CallScore(tool="g", expected=False, called=True, right=False, arguments_given=1),
        CallScore(tool="f", expected=False, called=True, right=False),
    )


def test_without_tools_nothing_is_hallucinated_and_no_schema_is_kept(score: Any) -> None:
    detail = score([PLAIN], [("g", {})]).detail
    assert (detail.hallucinated, detail.schema_valid) == ((), None)


def test_rows_that_cannot_be_judged_are_unscored() -> None:
    judge, reply = Judge(), reply_from_calls([])
    for result in (judge.score(None, None, reply), judge.score("{", None, reply), judge.score("[]", "{", reply)):
        assert (result.outcome, result.correct, result.score, result.detail) == ("unscored", None, None, None)
        assert result.explanation


def test_a_call_as_the_results_file_has_it_is_read() -> None:
    """`raw` and `error` of a run's own `tool_calls` survive, a call that is none is a broken one."""
    given = [{"id": "t1", "name": "f", "input": None, "raw": '{"a": ', "error": "truncated"}, 5, {"name": 5, "input": {1}}]
    uses = reply_from_calls(given).tool_uses
    assert (uses[0].id, uses[0].raw, uses[0].error) == ("t1", '{"a": ', "truncated")
    assert [use.input for use in uses] == [None, None, "[1]"]
    assert uses[1].error == "not_object"
    stored = {"name": "f", "input": "{}", "raw": " {}", "error": None}
    assert (reply_from_calls([stored]).tool_uses[0].input, reply_from_calls([stored]).tool_uses[0].raw) == ("{}", " {}")
    assert reply_from_calls(None).tool_uses == reply_from_calls("").tool_uses == reply_from_calls("null").tool_uses == ()
    assert reply_from_calls('[{"name": "f", "input": {}}]').tool_uses[0].name == "f"
    assert [use.error for use in reply_from_calls('{"name": "f", "input": {}}').tool_uses] == [None]
    assert [use.error for use in reply_from_calls("[").tool_uses] == ["not_object"]
    assert reply_from_calls([{"name": "f", "input": {"a": object()}}]).tool_uses[0].input is None


@pytest.mark.parametrize("given", [{"name": "f", "input": {}}, '{"name": "f", "input": {}}', ' [{"name": "f", "input": "{}"}]'])
def test_one_call_is_a_call_in_whatever_form_it_stands(given: object) -> None:
    assert [(use.name, use.input, use.error) for use in reply_from_calls(given).tool_uses] == [("f", "{}", None)]


@pytest.mark.parametrize(
    "call",
    [
        {"name": "f", "arguments": {"a": 1}},
        {"name": "f", "arguments": '{"a":1}'},
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
        {"function": {"name": "f", "arguments": {"a": 1}}},
        {"name": None, "input": None, "arguments": None, "function": {"name": "f", "arguments": '{"a":1}'}},  # a table's row
        {"name": "f", "input": {"a": 1}, "arguments": {"a": 2}},
    ],
)
def test_a_call_is_read_in_each_form_that_is_in_use(call: dict[str, Any]) -> None:
    for calls in ([call], json.dumps([call])):
        (use,) = reply_from_calls(calls).tool_uses
        assert (use.id, use.name, use.input, use.error) == (call.get("id"), "f", '{"a":1}', None)


@pytest.mark.parametrize(
    "call",
    [
        '{"name": "f", "arguments": "{"}',
        '{"function": {"name": "f", "arguments": "{"}}',
        '{"function": {"name": "f", "arguments": "{\\"a\\": 1, \\"a\\": 2}"}}',
        '{"function": {"name": "f", "arguments": {"a": 1, "a": 2}}}',
        '{"name": "f", "input": null}',  # as a run keeps what did not parse
    ],
)
def test_broken_arguments_are_the_models_in_each_form(call: str) -> None:
    assert [(use.name, use.input) for use in reply_from_calls(call).tool_uses] == [("f", None)]


@pytest.mark.parametrize(
    "call", [{"name": "f"}, {"name": "f", "args": {}}, {"f": {}}, {}, {"function": {"name": "f"}}, {"function": 5}]
)
def test_a_call_without_a_field_for_arguments_is_not_the_models_fault(call: dict[str, Any]) -> None:
    with pytest.raises(NoArguments, match="call 2 has no `input`"):
        reply_from_calls([{"name": "f", "input": {}}, call])


@pytest.mark.parametrize("given", [5, True, 0, "5", "false", '"f"'])
def test_what_is_no_call_is_a_broken_one(given: object) -> None:
    assert [use.error for use in reply_from_calls(given).tool_uses] == ["not_object"]


def test_a_key_that_is_there_twice_breaks_its_own_call_alone() -> None:
    uses = reply_from_calls('[{"name": "f", "input": {"a": {"b": 1, "b": 2}}}, {"name": "g", "input": {"a": 1}}]').tool_uses
    assert [(use.name, use.error) for use in uses] == [("f", "invalid_json"), ("g", None)]


@pytest.mark.parametrize("text", ['{"a": 1, "a": 1}', '{"a": NaN}', '{"a": 1} x', "[1]", '{"a": 1e999}'])
def test_an_answer_file_is_read_as_strictly_as_the_wire(score: Any, text: str) -> None:
    assert score([PLAIN], [{"name": "f", "input": text}]).outcome == "invalid_json"


@pytest.mark.parametrize("text", ["{", "[1]", "{} {}"])
def test_a_reply_whose_arguments_do_not_decode_after_all_is_broken(text: str) -> None:
    use = ToolUse(id=None, name="f", input=text)
    reply = Reply(form="anthropic_json", text="", tool_uses=(use,), stop_reason=None, usage=Usage())
    assert Judge().score(json.dumps([PLAIN]), None, reply).outcome == "invalid_json"


def test_of_several_alternatives_the_nearest_is_explained(score: Any) -> None:
    result = score({"any_of": [[PLAIN], [book(seats=1)], [book(seats=1), PLAIN]]}, [("f", {"a": 2})])
    assert (result.explanation, result.score) == ("call 1 `f`: `a` is 2, expected 1", 0.5)


@pytest.mark.parametrize("profile", ["default", "exact", "bfcl"])
@pytest.mark.parametrize("digits", [400, 4299, 4300, 4301, 9000])
def test_numbers_of_any_length_are_judged_and_shown(digits: int, profile: str) -> None:
    huge = "9" * digits
    scorer = open_scorer(Scoring(profile=profile))  # type: ignore[arg-type] # a literal, by parametrize
    tools = '[{"name": "f", "input_schema": {"properties": {"a": {"type": "number", "default": 1}}}}]'
    for wanted in (huge, f'{{"$number": {huge}, "$abs": {huge}, "$rel": {huge}}}', "1", f'"{huge}"'):
        for made in (huge, "1", f"-{huge}", "1.5e300", "null"):
            expected = f'[{{"name": "f", "arguments": {{"a": {wanted}}}}}]'
            result = scorer.score(expected, tools, reply_from_calls([{"name": "f", "input": f'{{"a": {made}}}'}]))
            assert (result.explanation is None) == (result.outcome == "correct")
            lint_expected(expected, tools)


def test_deep_arguments_are_wrong_and_not_broken(score: Any) -> None:
    """The wire lets them pass; matching never goes deeper than `expected` does."""
    deep: Any = 1
    for _ in range(120):
        deep = [deep]
    wanted: Any
    for wanted in (1, [1], {"$unordered": [1]}, {"$unordered": [{"$any_of": [1]}]}, {"$includes": {}}):
        assert score([{"name": "f", "arguments": {"a": wanted}}], [("f", {"a": deep})]).outcome == "wrong_call"


def test_a_full_cache_begins_anew() -> None:
    parsed: list[bytes | str] = []
    cache: Cache[int] = Cache(lambda text: parsed.append(text) or len(text))  # type: ignore[func-returns-value] # append gives None
    for number in range(MAX_ENTRIES + 1):
        assert cache.get(str(number)) == len(str(number))
    assert cache.get(str(MAX_ENTRIES)) == len(str(MAX_ENTRIES))
    assert len(parsed) == MAX_ENTRIES + 1


def test_a_flood_of_calls_ends(score: Any) -> None:
    result = score([PLAIN] * 400, [("f", {"a": 2})] * 3000)
    assert result.outcome == "extra_call"
    flooded = score([PLAIN] * 2, [("f", {"a": 1})] * 300_000, extra_calls="allowed")
    assert flooded.outcome == "correct"


VALUES = st.sampled_from([1, 1.0, True, "a", " a ", None, [1, 2], {"k": 1}])
MATCHERS = VALUES | st.sampled_from(
    [
        {"$any_of": [1, "a"]},
        {"$optional": True, "$any_of": [1]},
        {"$any": True},
        {"$unordered": [2, 1]},
        {"$number": 1, "$abs": 1},
    ]
)
NAMES = st.sampled_from(["f", "g"])
WANTED = st.lists(
    st.fixed_dictionaries({"name": NAMES, "arguments": st.dictionaries(st.sampled_from("xy"), MATCHERS, max_size=2)}), max_size=4
)
MADE = st.lists(st.tuples(NAMES, st.dictionaries(st.sampled_from("xyz"), VALUES, max_size=3)), max_size=4)
TOOLS = [
    {"name": "f", "input_schema": {"properties": {"x": {"type": ["integer", "string", "null"]}, "z": {"default": 1}}}},
    {"name": "g", "input_schema": {}},
]


def shuffled(value: Any, chance: random.Random) -> Any:
    """Permute keys of every object."""
    if isinstance(value, dict):
        keys = list(value)
        chance.shuffle(keys)
        return {key: shuffled(value[key], chance) for key in keys}
    return [shuffled(item, chance) for item in value] if isinstance(value, list) else value


def verdict(result: Score) -> Any:
    detail = result.detail
    assert detail is not None
    return (result.outcome, result.correct, result.score, sorted(map(repr, detail.calls)), detail.schema_valid)


@settings(deadline=None)  # the first call may import scipy
@given(WANTED, MADE, st.randoms(use_true_random=False), st.sampled_from(["wrong", "allowed"]))
def test_no_order_of_calls_keys_or_tools_changes_anything(wanted: Any, made: Any, chance: random.Random, extra: Any) -> None:
    scorer = open_scorer(Scoring(extra_calls=extra))
    results = []
    for turn in range(2):
        calls = [{"name": name, "input": arguments} for name, arguments in made]
        tools, expected = list(TOOLS), list(wanted)
        if turn:
            for items in (calls, tools, expected):
                chance.shuffle(items)
            calls, tools, expected = (shuffled(items, chance) for items in (calls, tools, expected))
        results.append(verdict(scorer.score(json.dumps(expected), json.dumps(tools), reply_from_calls(calls))))
    assert results[0] == results[1]


@settings(deadline=None)  # the first call may import scipy
@given(WANTED, MADE, st.sampled_from(["any", "strict"]), st.sampled_from(["wrong", "allowed"]))
def test_full_credit_and_no_explanation_mean_correct(wanted: Any, made: Any, order: Any, extra: Any) -> None:
    calls = [{"name": name, "input": arguments} for name, arguments in made]
    result = open_scorer(Scoring(order=order, extra_calls=extra)).score(
        json.dumps(wanted), json.dumps(TOOLS), reply_from_calls(calls)
    )
    assert (result.outcome == "correct") == bool(result.correct) == (result.score == 1) == (result.explanation is None)
    assert result.score is not None
    assert 0 <= result.score <= 1


def test_right_answers_of_ever_new_tools_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of right answers is bounded, and the same after it began anew."""
    monkeypatch.setattr("batchrun.scoring.judge.MAX_ENTRIES", 2)
    judge = Judge()
    for name in ("a", "b", "c", "a"):
        tools = json.dumps([{"name": name, "input_schema": {"type": "object"}}])
        result = judge.score(
            json.dumps([{"name": name, "arguments": {}}]), tools, reply_from_calls([{"name": name, "input": {}}])
        )
        assert result.correct
        assert result.detail is not None
        assert [call.tool for call in result.detail.calls] == [name]


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 2), st.sampled_from([0.0, 1.0, -0.0, 2.5]), st.sampled_from(["", "a", "a ", "1"])
)


@given(st.dictionaries(st.sampled_from("ab$"), scalars), st.dictionaries(st.sampled_from("ab$"), scalars), st.booleans())
def test_the_short_way_for_a_call_to_the_letter_says_what_the_long_one_says(wanted: Any, made: Any, exact: bool) -> None:  # noqa: FBT001 - a case
    """Two equal alternatives are judged the long way, and mean what one does."""
    tools = json.dumps([{"name": "t", "input_schema": {"type": "object"}}])
    expected = [{"name": "t", "arguments": wanted}]
    judge, reply = Judge(exact=exact), reply_from_calls([{"name": "t", "input": made}])
    short = judge.score(json.dumps(expected), tools, reply)
    assert short == judge.score(json.dumps({"any_of": [expected, expected]}), tools, reply)


@pytest.mark.parametrize(
    ("wanted", "made", "correct"), [(1, True, False), (True, 1, False), (5, 5.0, True), ([1], [True], False)]
)
def test_what_python_calls_equal_is_not_always_the_same(wanted: Any, made: Any, correct: bool) -> None:  # noqa: FBT001 - a case
    tools = json.dumps([{"name": "t", "input_schema": {"type": "object"}}])
    expected = json.dumps([{"name": "t", "arguments": {"a": wanted}}])
    assert Judge().score(expected, tools, reply_from_calls([{"name": "t", "input": {"a": made}}])).correct is correct


def test_an_expected_that_cannot_be_read_is_unscored_whatever_was_called() -> None:
    tools = json.dumps([{"name": "t", "input_schema": {"type": "object"}}])
    assert Judge().score("[{", tools, reply_from_calls([{"name": "t", "input": {}}])).outcome == "unscored"
