"""What `check` says of a row's answer before a call is paid for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from batchrun.errors import Problem
from batchrun.scoring.lint import lint_expected, lint_own

SCHEMA = {
    "type": "object",
    "properties": {
        "unit": {"enum": ["km", "mile"]},
        "count": {"type": "integer", "maximum": 9},
        "names": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
        "where": {"type": "object", "properties": {"lat": {"type": "number"}}, "required": ["lat"]},
        "day": {"type": "string", "maxLength": 10},
        "pair": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}]},
    },
}


def lint(arguments: Any, schema: Any = SCHEMA, name: str = "f") -> list[Problem]:
    expected = json.dumps([{"name": name, "arguments": arguments}])
    return lint_expected(expected, json.dumps([{"name": "f", "input_schema": schema}]))


SOUND = [
    {},
    {"unit": "km", "count": 5},
    {"unit": {"$any_of": ["km", "mile"]}},
    {"unit": {"$regex": "parsec"}},  # cannot be listed
    {"unit": {"$any": True}},
    {"count": {"$number": 5, "$abs": 100}},
    {"names": {"$unordered": ["a", "b"]}},
    {"names": {"$unordered": ["a", {"$any": True}]}},
    {"names": ["a", {"$regex": "b"}]},
    {"names": {"$any_of": ["a", {"$regex": "b"}]}},
    {"where": {"lat": 5, "lon": {"$any_of": [1], "$optional": True}}},
    {"where": {"$includes": {"lat": {"$number": 5}}}},
    {"day": {"$date": "2026-03-04"}},
    {"day": {"$regex": ".*", "$text": "x"}},
    {"day": {"$regex": ".*", "$any": True}},
    {"count": {"$any_of": [], "$optional": True}},
    {"day": {"$date": "2024-01-02", "$formats": ["%d/%m/%Y"], "$regex": "\\d\\d/\\d\\d/\\d{4}"}},
    {"day": {"$text": "Paris", "$fold": ["case"], "$regex": "[a-z]+"}},
    {"count": {"$number": 5, "$abs": 1, "$any_of": [7, 6]}},
    {"count": {"$number": 5.5, "$abs": 1, "$regex": "x"}},  # believed, though a number is no string
    {"unit": " km "},  # white space collapses before it is compared
    {"names": [" a"]},
    {"pair": {"$unordered": [1, "a"]}},
    {"pair": {"$unordered": [1, {"$text": "a"}]}},
    {"pair": {"$unordered": [1, "a", "b", "c", "d"]}},  # too many orders to try
    {"pair": {"$unordered": [1, "a"], "$any_of": [["a", 1]]}},
    {"names": [{"$any_of": [1, *range(10)]}, {"$any_of": list(range(10))}]},  # too many ways to list
]


@pytest.mark.parametrize("arguments", SOUND)
def test_a_sound_answer_has_no_problem(arguments: Any) -> None:
    assert lint(arguments) == []


@pytest.mark.parametrize(
    ("arguments", "code", "severity", "words"),
    [
        ({"unit": "parsec"}, "breaks-schema", "error", '`unit` = "parsec"'),
        ({"unit": {"$any_of": ["km", "parsec"]}}, "breaks-schema", "warning", "parsec"),
        ({"unit": {"$any_of": ["parsec"], "$optional": True}}, "breaks-schema", "warning", "parsec"),
        ({"unit": {"$text": "KM", "$fold": ["case"]}}, "breaks-schema", "warning", "KM"),  # "km" is right, too
        ({"unit": {"$text": "KM"}}, "breaks-schema", "error", "KM"),
        ({"count": {"$number": 9.5, "$abs": 1}}, "breaks-schema", "warning", "9.5"),  # 9 is right, too
        ({"count": {"$number": 9.5}}, "breaks-schema", "error", "9.5"),
        ({"names": [{"$text": "a", "$fold": ["case"]}, True]}, "breaks-schema", "warning", "true"),
        ({"where": {"$includes": {"lon": 1}}}, "breaks-schema", "warning", "`where`"),
        ({"where": {"lat": {"$any_of": ["x", "y"]}}}, "breaks-schema", "error", "`where`"),
        ({"count": {"$number": 5, "$abs": 1, "$any_of": [5.5, 4.5]}}, "breaks-schema", "error", "5.5"),
        ({"count": {"$number": 5, "$abs": 1, "$any_of": [7]}}, "unsatisfiable", "error", "no value of `count`"),
        ({"unit": "  parsec"}, "breaks-schema", "error", '"  parsec"'),
        ({"pair": {"$unordered": [1, 2]}}, "breaks-schema", "warning", "[1, 2]"),
        ({"pair": {"$any_of": [["a", 1], [2, 3]]}}, "breaks-schema", "warning", "[2, 3]"),
        ({"where": {"$any_of": [{"lat": 1}, {"lat": "x"}]}}, "breaks-schema", "warning", '"x"'),
        ({"count": 10}, "breaks-schema", "error", "`count` = 10"),
        ({"count": None}, "breaks-schema", "error", "null"),
        ({"names": ["a", "b", "c"]}, "breaks-schema", "error", "`names`"),
        ({"names": [True]}, "breaks-schema", "error", "[true]"),
        ({"where": {}}, "breaks-schema", "error", "`where` = {}"),
        ({"day": {"$date": "2026-03-04T00:00"}}, "breaks-schema", "warning", "`day`"),
        ({"count": {"$any_of": []}}, "unsatisfiable", "error", "no value of `count`"),
        ({"where": {"lat": {"$any_of": []}}}, "unsatisfiable", "error", "`where`"),
        ({"names": [{"$any_of": []}]}, "unsatisfiable", "error", "`names`"),
        ({"unit": {"$regex": "m.*", "$any_of": ["km"]}}, "unsatisfiable", "error", "`unit`"),
        ({"cuont": 5}, "unknown-argument", "error", "no argument `cuont`"),
        ({"count": {"$nope": 5}}, "unknown-matcher", "error", "`$nope`"),
    ],
)
def test_an_answer_that_cannot_be_right_is_found(arguments: Any, code: str, severity: str, words: str) -> None:
    (problem,) = lint(arguments)
    assert (problem.code, problem.severity) == (code, severity)
    assert words in problem.message
    assert (problem.field or "").startswith("expected")


def test_the_nearest_name_is_the_hint() -> None:
    assert lint({"cuont": 5})[0].hint == "did you mean `count`?"
    assert lint({"zzz": 5})[0].hint == "arguments of the tool: unit, count, names, where, day, pair"
    (problem,) = lint({}, name="ff")
    assert (problem.code, problem.hint) == ("unknown-tool", "did you mean `f`?")
    assert lint({}, name="zzz")[0].hint == "tools of the row: f"
    assert lint_expected('[{"name": "f", "arguments": {}}]', "[]")[0].hint == "tools of the row: none"


@pytest.mark.parametrize(
    "more",
    [
        {"additionalProperties": True},
        {"additionalProperties": {"type": "integer"}},
        {"patternProperties": {"x": {}}},
        {"allOf": [{}]},
    ],
)
def test_a_schema_that_takes_other_arguments_knows_them_all(more: Any) -> None:
    assert lint({"other": 5}, {**SCHEMA, **more}) == []


def test_a_schema_without_properties_says_nothing_of_names() -> None:
    assert lint({"other": 5}, {"type": "object"}) == lint({"other": 5}, True) == lint({"other": 5}, None) == []  # noqa: FBT003 - a schema


def test_closed_properties_are_named_too() -> None:
    assert lint({"other": 5}, {"properties": {}, "additionalProperties": False})[0].hint == "arguments of the tool: none"


def test_what_the_schema_requires_must_be_expected() -> None:
    required = {**SCHEMA, "required": ["unit"]}
    (problem,) = lint({"count": 5}, required)
    assert (problem.code, problem.message) == ("breaks-schema", "`f` leaves out `unit`, which its schema requires")
    assert lint({"unit": "km"}, required) == []
    with_default = {"properties": {"unit": {"default": "km"}}, "required": ["unit"]}
    assert lint({}, with_default) == []
    assert lint({}, {"required": [5]})[0].code == "invalid-schema"


def test_arguments_that_only_break_the_schema_together_are_found() -> None:
    either = {"properties": {"a": {}, "b": {}}, "not": {"required": ["a", "b"]}}
    (problem,) = lint({"a": 1, "b": 2}, either)
    assert problem.code == "breaks-schema"
    assert lint({"a": 1, "b": {"$any_of": [2], "$optional": True}}, either) == []
    assert lint({"a": 1, "b": {"$regex": "x"}}, either) == []
    nested = {"properties": {"a": {}}, "dependentSchemas": {"a": {"properties": {"a": {"type": "integer"}}}}}
    assert "`a`:" in lint({"a": "x"}, nested)[0].message


@pytest.mark.parametrize(
    "asks",
    [
        {"dependentRequired": {"a": ["b"]}},
        {"anyOf": [{"required": ["b"]}, {"required": ["z"]}]},
        {"minProperties": 3},
        {"if": {"required": ["a"]}, "then": {"required": ["c"], "maxProperties": 2}},
    ],
)
def test_a_default_that_the_model_may_give_can_keep_the_schema(asks: dict[str, Any]) -> None:
    """Left out it is right, and given it is right."""
    properties = {"a": {}, "b": {"default": 1}, "c": {"default": 2}, "d": {"type": "string", "default": 3}}
    assert lint({"a": 1}, {"properties": properties, **asks}) == []
    without: dict[str, Any] = {name: {} for name in properties}
    assert [problem.code for problem in lint({"a": 1}, {"properties": without, **asks})] == ["breaks-schema"]


def test_arguments_that_keep_the_schema_in_another_order_are_no_problem() -> None:
    schema = {"properties": {"a": {}}, "if": {"required": ["a"]}, "then": {"properties": {"a": {"prefixItems": [{"const": 1}]}}}}
    assert lint({"a": {"$unordered": [2, 1]}}, schema) == lint({"a": {"$unordered": [2, 3, 4, 5, 1]}}, schema) == []
    assert [problem.severity for problem in lint({"a": {"$unordered": [2, 3]}}, schema)] == ["warning"]


@pytest.mark.parametrize("tools", ["{", "{}", '[{"name": 5}]'])
def test_tools_that_cannot_be_read_are_a_problem(tools: str) -> None:
    assert [problem.code for problem in lint_expected(None, tools)] == ["malformed-tools"]


def test_every_schema_that_cannot_be_used_is_a_problem() -> None:
    tools = [
        {"name": "a", "input_schema": {"type": "dict"}},
        {"name": "b"},
        {"name": "c", "input_schema": {"$ref": "http://127.0.0.1:9"}},
    ]
    found = lint_expected("[]", json.dumps(tools))
    assert [(problem.code, problem.message.split()[0]) for problem in found] == [
        ("invalid-schema", "`a`"),
        ("invalid-schema", "`c`"),
    ]


def test_each_alternative_and_the_leaderboards_key_are_linted() -> None:
    tools = json.dumps([{"name": "f", "input_schema": SCHEMA}])
    either = json.dumps(
        {"any_of": [[], {"any_call": True}, [{"name": "f", "arguments": {"count": "x"}}], [{"name": "g", "arguments": {}}]]}
    )
    assert [problem.code for problem in lint_expected(either, tools)] == ["breaks-schema", "unknown-tool"]
    key = json.dumps([{"name": "f", "arguments": {"unit": {"allowed": ["parsec"], "optional": False}}}])
    assert [problem.code for problem in lint_expected(key, tools)] == ["breaks-schema"]


def test_what_a_scorer_of_ones_own_expects_is_json_in_any_form() -> None:
    tools = json.dumps([{"name": "f", "input_schema": {"type": "dict"}}])
    assert lint_own('{"answer": 42}', None) == []
    assert [problem.code for problem in lint_own('{"answer": ', tools)] == ["invalid-schema", "not-json"]


def test_without_expected_or_tools_there_is_little_to_say() -> None:
    assert lint_expected(None, None) == []
    assert lint_expected('[{"name": "f", "arguments": {"a": 1}}]', None) == []
    assert [problem.code for problem in lint_expected("{", None)] == ["not-json"]
    assert [problem.code for problem in lint_expected('[{"name": "f", "arguments": {"a": {"$any_of": []}}}]', None)] == [
        "unsatisfiable"
    ]
