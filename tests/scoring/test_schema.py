from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from batchrun.scoring.schema import NO_TOOLS, Tool, parse_tools


def test_both_public_forms_of_a_tool_are_read() -> None:
    schema = {"type": "object"}
    for tool in (
        {"name": "f", "description": "x", "input_schema": schema},
        {"type": "function", "function": {"name": "f", "parameters": schema}},
        {"type": "custom", "name": "f", "input_schema": schema, "cache_control": {"type": "ephemeral"}},
    ):
        assert parse_tools(json.dumps([tool])).tools["f"].schema == schema


@pytest.mark.parametrize(("text", "known"), [(None, False), ("null", False), ("[]", True), ('[{"name": "f"}]', True)])
def test_no_tools_are_not_an_empty_tool_set(text: str | None, known: bool) -> None:  # noqa: FBT001 - a table's column
    toolset = parse_tools(text)
    assert (toolset.known, toolset.problem) == (known, None)


@pytest.mark.parametrize("text", ["{", "{}", "[5]", "[{}]", '[{"name": 5}]', '[{"function": {}}]', "[" * 1000])
def test_what_is_no_tool_set_says_so(text: str) -> None:
    assert parse_tools(text).problem


def test_the_first_of_two_tools_of_one_name_counts() -> None:
    text = '[{"name": "f", "input_schema": {"type": "object"}}, {"name": "f", "input_schema": false}]'
    assert parse_tools(text).tools["f"].valid({})


@pytest.mark.parametrize(
    "schema",
    [
        5,
        [],
        {"type": "dict"},
        {"properties": 5},
        {"pattern": "("},
        {"$ref": "#/nowhere"},
        {"$ref": "http://127.0.0.1:9/x.json"},
        {"properties": {"a": {"$ref": "https://json-schema.invalid/x"}}},
        {"$ref": "file:///etc/hostname"},
        {"$dynamicRef": "http://127.0.0.1:9/x.json"},
    ],
)
def test_an_invalid_schema_is_a_problem_and_constrains_nothing(schema: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A remote reference is one too: nothing is fetched."""
    monkeypatch.setattr(socket, "socket", lambda *_, **__: pytest.fail("no I/O"))
    tool = Tool("f", schema)
    assert tool.problem
    assert not tool.checks
    assert tool.valid({"a": 1})


def test_a_tool_without_a_schema_has_nothing_to_keep() -> None:
    tool = Tool("f")
    assert (tool.problem, tool.checks, tool.valid({"a": 1})) == (None, False, True)


def test_a_schema_is_2020_12_whatever_it_says() -> None:
    tool = Tool("f", {"$schema": "https://unknown.invalid/draft", "prefixItems": [{"type": "integer"}]})
    assert tool.problem is None
    assert not tool.valid(["x"])


def test_a_violation_names_its_path() -> None:
    tool = Tool("f", {"properties": {"a": {"items": {"type": "integer"}}}})
    assert tool.violation({"a": [1, "x"]}) == (["a", 1], '"x" is not of type "integer"')


def test_a_schema_that_nests_too_deeply_is_a_problem() -> None:
    schema: Any = {"type": "integer"}
    for _ in range(2000):
        schema = {"properties": {"a": schema}}
    assert Tool("f", schema).problem


@pytest.mark.parametrize(
    ("schema", "value", "default"),
    [
        ({"properties": {"v": {"default": 5}}}, 5, True),
        ({"properties": {"v": {"default": 5}}}, True, False),
        ({"properties": {"v": {"default": 1}}}, True, False),
        ({"properties": {"v": {"default": {"a": [1]}}}}, {"a": [1.0]}, True),
        ({"properties": {"v": {"default": None}}}, None, True),
        ({"properties": {"v": {}}}, None, False),
        ({"properties": {"v": True}}, None, False),
        ({"properties": 5}, None, False),
        (True, None, False),
        ({"properties": {"v": {"type": "string", "default": 5}}}, 5, False),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"properties": {"v": {"default": 5}}}}}, 5, True),
        (
            {"properties": {"v": {"$ref": "#/$defs/a~1b", "default": 6}}, "$defs": {"a/b": {"type": "integer", "default": 5}}},
            6,
            True,
        ),
        ({"properties": {"v": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"$ref": "#/$defs/x"}}}, 5, False),
        ({"properties": {"v": {"$ref": "#/$defs/x/y"}}, "$defs": {"x": 5}}, 5, False),
        ({"properties": {"v": {"$ref": "other.json", "default": 5}}}, 5, False),
        ({"properties": {"v": {"$ref": "#/$defs/x", "default": 5}, "w": {"type": "dict"}}, "$defs": {"x": {}}}, 5, True),
        ({"allOf": [{"properties": {"v": {"type": "integer", "default": 5}}}]}, 5, True),
        ({"allOf": [{"properties": {"v": {"default": 5}}}, {"properties": {"v": {"type": "string"}}}]}, 5, False),
        ({"allOf": [{"$ref": "#/$defs/x"}, True], "$defs": {"x": {"properties": {"v": {"default": 5}}}}}, 5, True),
        ({"properties": {"w": {}}, "$ref": "#/$defs/x", "$defs": {"x": {"properties": {"v": {"default": 5}}}}}, 5, True),
        ({"allOf": [{"$ref": "#/$defs/x"}], "$defs": {"x": {"allOf": [{"$ref": "#/$defs/x"}] * 9}}}, 5, False),
        ({"properties": {"v": {"allOf": [{"$ref": "#/$defs/x"}]}}, "$defs": {"x": {"default": 5}}}, 5, True),
        ({"properties": {"v": {"allOf": [{"$ref": "#/$defs/x"}], "default": 6}}, "$defs": {"x": {"default": 5}}}, 6, True),
        ({"properties": {"v": {"allOf": 5, "default": 6}}}, 6, False),
        ({"properties": {"v": {"$ref": "#/$defs/a%5Bb%5D"}}, "$defs": {"a[b]": {"type": "integer", "default": 5}}}, 5, True),
        ({"properties": {"v": {"default": [5], "items": {"$ref": "#/properties/y"}}, "y": {"type": "integer"}}}, [5], True),
        ({"properties": {"v": {"default": [5], "items": {"$ref": "#/properties/y"}}, "y": {"type": "string"}}}, [5], False),
        ({"properties": {"v": {"$ref": "#/anyOf/0/$defs/b"}}, "anyOf": [{"$defs": {"b": {"default": 5}}}]}, 5, True),
        ({"properties": {"v": {"$ref": "#/anyOf/1"}}, "anyOf": [{"default": 5}]}, 5, False),
        ({"properties": {"v": {"$ref": "#/anyOf/" + "0" * 5000}}, "anyOf": [{"default": 5}]}, 5, False),
        (
            {
                "$id": "https://tools.invalid/f#",
                "$schema": "http://json-schema.org/draft-07/schema#",
                "properties": {"v": {"default": [5], "items": {"$ref": "https://tools.invalid/f#/properties/y"}}, "y": {}},
                "required": ["y"],
            },
            [5],
            True,
        ),
    ],
)
def test_only_a_valid_default_is_one(schema: Any, value: Any, default: bool) -> None:  # noqa: FBT001 - a table's column
    tool = Tool("f", schema)
    assert tool.is_default("v", value, exact=False) is default
    assert tool.is_default("v", value, exact=False) is default


def test_an_argument_by_itself_is_held_against_its_own_schema_wherever_that_leads() -> None:
    """What the rest of the schema asks (`y` is required) is not asked of it; a schema that cannot be used alone asks nothing."""
    items = {"type": "array", "items": {"$ref": "#/properties/y"}}
    tool = Tool("f", {"properties": {"y": {"type": "integer"}, "x": items}, "required": ["y"]})
    assert (tool.argument_valid("x", [5]), tool.argument_valid("x", ["5"])) == (True, False)
    inner = {"$id": "https://tools.invalid/inner", "properties": {"a": {"$ref": "#b"}}, "$defs": {"b": {"$anchor": "b"}}}
    tool = Tool("f", {"properties": {"x": {"$ref": "#/$defs/inner"}}, "$defs": {"inner": inner}})
    assert tool.argument_valid("x", {"a": 5})
    tool = Tool("f", {"$id": "", "properties": {"y": {"type": "integer"}, "x": items}})
    assert tool.checks
    assert tool.argument_valid("x", ["5"])


def test_a_default_string_follows_the_profile() -> None:
    tool = Tool("f", {"properties": {"v": {"default": "a b"}}})
    assert tool.is_default("v", "a  b", exact=False)
    assert not tool.is_default("v", "a  b", exact=True)


def test_no_tools_know_nothing() -> None:
    assert parse_tools(None) is NO_TOOLS
