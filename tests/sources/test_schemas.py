"""Other dialects' parameter descriptions become valid JSON Schema 2020-12."""

from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.sources.format import Notes
from batchrun.sources.schemas import from_annotation, parameters_schema, to_json_schema


@pytest.mark.parametrize(
    ("given_schema", "made", "notes"),
    [
        (
            {"type": "dict", "properties": {"a": {"type": "float"}}},
            {"type": "object", "properties": {"a": {"type": "number"}}},
            {},
        ),
        ({"type": "tuple", "items": {"type": "any"}}, {"type": "array", "items": {}}, {"type-any": 1}),
        ({"type": "ArrayList", "items": [{"type": "String"}]}, {"type": "array", "prefixItems": [{"type": "string"}]}, {}),
        ({"type": ["string", "null"]}, {"type": ["string", "null"]}, {}),
        ({"type": ["string", "any"]}, {}, {"type-any": 1}),
        ({"type": "Widget"}, {}, {"type-unknown": 1}),
        (
            {"type": "string", "optional": True, "required": True},
            {"type": "string"},
            {"keyword-dropped": 1, "required-not-a-list": 1},
        ),
        ({"enum": ["a", "b", "a"]}, {"enum": ["a", "b"]}, {}),
        ({"enum": []}, {}, {"enum-without-values": 1}),
        ({"type": "string", "description": None, "nullable": True}, {"type": "string"}, {"nullable-dropped": 1}),
        ({"additionalProperties": {"type": "HashMap"}}, {"additionalProperties": {"type": "object"}}, {}),
        ({"additionalProperties": False}, {"additionalProperties": False}, {}),
        ({"anyOf": [{"type": "int"}, {"type": "str"}]}, {"anyOf": [{"type": "integer"}, {"type": "string"}]}, {}),
        ({"anyOf": []}, {}, {}),
        ({"properties": {"type": {"type": "string"}}}, {"properties": {"type": {"type": "string"}}}, {}),
        ({"properties": None}, {"properties": {}}, {"properties-not-an-object": 1}),
        ("string", {}, {"schema-not-an-object": 1}),
        ({"type": "string", "default": 5, "format": "date"}, {"type": "string", "default": 5, "format": "date"}, {}),
    ],
)
def test_keywords(given_schema: Any, made: Any, notes: dict[str, int]) -> None:
    found = Notes()
    assert to_json_schema(given_schema, found) == made
    assert found.counts == notes


@pytest.mark.parametrize(
    ("text", "schema", "optional"),
    [
        ("str", {"type": "string"}, False),
        ("str, optional", {"type": "string"}, True),
        ("int, default 5", {"type": "integer"}, True),
        ("List[int]", {"type": "array", "items": {"type": "integer"}}, False),
        ("typing.List[str], optional", {"type": "array", "items": {"type": "string"}}, True),
        ("list", {"type": "array"}, False),
        ("Set[float]", {"type": "array", "items": {"type": "number"}}, False),
        ("Tuple[int, ...]", {"type": "array", "items": {"type": "integer"}}, False),
        ("Optional[bool]", {"type": "boolean"}, True),
        ("Union[int, None]", {"type": "integer"}, False),
        ("Union[int, Widget]", {}, False),
        (
            "Dict[str, List[float]]",
            {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "number"}}},
            False,
        ),
        ("Dict", {"type": "object"}, False),
        ("Dict[str, Any]", {"type": "object"}, False),
        ("Literal['a', \"b\"]", {"enum": ["a", "b"]}, False),
        ("Callable[[float], float]", {"type": "string"}, False),
        ("Widget[int]", {}, False),
        ("", {}, False),
    ],
)
def test_annotations(text: str, schema: Any, optional: bool) -> None:  # noqa: FBT001 -- a column of the table
    assert from_annotation(text) == (schema, optional)


def test_a_tools_schema_is_an_object_whose_required_it_has() -> None:
    notes = Notes()
    made = parameters_schema({"type": "dict", "properties": {"a": {}}, "required": ["a", "b", "a"]}, notes)
    assert made == {"type": "object", "properties": {"a": {}}, "required": ["a"]}
    assert notes.counts == {"required-names-no-property": 1}
    assert parameters_schema(None, notes) == {"type": "object", "properties": {}}


WORDS = st.sampled_from(["dict", "float", "tuple", "any", "String", "Array", "integer", "Widget", "", "HashMap", "Bigint"])
SCHEMAS: st.SearchStrategy[Any] = st.recursive(
    st.fixed_dictionaries({"type": WORDS}, optional={"enum": st.lists(st.text(max_size=3)), "required": st.booleans()}),
    lambda inner: st.fixed_dictionaries(
        {"type": WORDS},
        optional={
            "properties": st.dictionaries(st.text(max_size=3), inner, max_size=3),
            "items": inner | st.lists(inner, max_size=2),
            "required": st.lists(st.text(max_size=3), max_size=3) | st.none(),
            "anyOf": st.lists(inner, max_size=2),
            "description": st.none() | st.integers() | st.text(max_size=3),
        },
    ),
    max_leaves=8,
)


@given(SCHEMAS)
def test_what_comes_out_is_valid_whatever_goes_in(schema: Any) -> None:
    assert jsonschema_rs.meta.is_valid(parameters_schema(schema, Notes()))
