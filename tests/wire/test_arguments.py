"""Tool arguments are parsed once, strictly, and never repaired."""

from __future__ import annotations

import json
import sys
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.wire import arguments
from batchrun.wire.arguments import MAX_CHARACTERS, Parsed, parse_arguments, tool_use
from batchrun.wire.json_text import MAX_DEPTH

IN_C: Any = vars(arguments)["_answer"]
"""The extension, None where it was not built."""


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("", "{}"),
        (" \r\n\t", "{}"),
        (' {"a": 1}\n', '{"a": 1}'),
        ('{"a": 12345678901234567890123}', '{"a": 12345678901234567890123}'),
        ('{"z": 1, "a": 0.10000000000000000000001}', '{"z": 1, "a": 0.10000000000000000000001}'),
        ('{"a": "\\ud83d\\ude00"}', '{"a":"😀"}'),
        ('{"a": "\\ud83d"}', '{"a":"\ufffd"}'),
        ('{"a": "\u2028"}', '{"a": "\u2028"}'),
        (
            '{"a": "say \\"a\\"\\n", "b": {"a": [true, "a", {"a": null}]}}',
            '{"a": "say \\"a\\"\\n", "b": {"a": [true, "a", {"a": null}]}}',
        ),
        ('{"a": "C:\\\\", "b": 1.5e3}', '{"a": "C:\\\\", "b": 1.5e3}'),
    ],
)
def test_an_object_is_kept_as_it_came(raw: str, expected: str) -> None:
    assert parse_arguments(raw) == Parsed(expected, None)


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        ('{"a": 1, "a": 2}', "invalid_json"),
        ('{"a": {"b": 1, "b": 1}}', "invalid_json"),
        ('{"a": [[{"b": "c", "b": "c"}]]}', "invalid_json"),
        ('{"a": "\\"", "a": "x"}', "invalid_json"),
        ('{"a": "\\\\", "a": "\\""}', "invalid_json"),
        ('{"a": 1, "\\u0061": 2}', "invalid_json"),
        ('{"a": NaN}', "invalid_json"),
        ('{"a": -Infinity}', "invalid_json"),
        ('{"a": 1e400}', "invalid_json"),
        ('{"a": 1}{"b": 2}', "invalid_json"),
        ('{"a": 1} trailing', "invalid_json"),
        ('{"a": 1', "invalid_json"),
        ("{'a': 1}", "invalid_json"),
        ('{"a": 1,}', "invalid_json"),
        ('{"a": "line\nbreak"}', "invalid_json"),
        ("\u00a0{}", "invalid_json"),
        ("[1, 2]", "not_object"),
        ("null", "not_object"),
        ('"{\\"a\\": 1}"', "not_object"),
        ('{"a":' + "[" * 20_000 + "]" * 20_000 + "}", "too_deep"),
        ('{"a":' * (MAX_DEPTH + 1), "too_deep"),
        ('{"a": ' + "9" * 5000 + "}", "too_large"),
        ('{"a": "' + "x" * MAX_CHARACTERS + '"}', "too_large"),
    ],
)
def test_anything_else_is_an_error(raw: str, error: str) -> None:
    assert parse_arguments(raw) == Parsed(None, error)


def test_nesting_up_to_the_bound_is_fine() -> None:
    raw = '{"a":' + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1) + "}"
    assert parse_arguments(raw) == Parsed(raw, None)
    brackets = json.dumps({"a": "[{" * 1000 + '\\"'})
    assert parse_arguments(brackets) == Parsed(brackets, None)


@pytest.mark.parametrize(
    ("raw", "error"), [('{"a": "b', "truncated"), ("", "truncated"), ('{"a": 1, "a": 2}', "invalid_json"), ("[1]", "not_object")]
)
def test_a_cut_model_is_told_from_a_wrong_one(raw: str, error: str) -> None:
    assert parse_arguments(raw, cut=True) == Parsed(None, error)


def test_a_cut_model_may_have_finished_its_call() -> None:
    assert parse_arguments('{"a": 1}', cut=True) == Parsed('{"a": 1}', None)


@given(st.text() | st.text(alphabet='{}[]",:\\u0d83 \n1eN', max_size=60))
def test_never_raises_and_never_lies(raw: str) -> None:
    """Whatever came, there is an input or an error, and an input is the object that a JSON parser reads."""
    parsed = parse_arguments(raw)
    assert (parsed.input is None) != (parsed.error is None)
    if parsed.input is not None and raw.strip():
        assert isinstance(json.loads(parsed.input), dict)
        parsed.input.encode()


KEYS = st.sampled_from(["a", "b", "é", ""]) | st.text(max_size=2)
PIECES = st.recursive(
    st.sampled_from(
        [
            "0",
            "-1",
            "01",
            "1.5",
            "1.",
            "2e3",
            "12345678901234567890",
            "true",
            "nul",
            "NaN",
            '"a"',
            '"\\n"',
            '"\\u0041"',
            '"\\x"',
            '"é"',
        ]
    ),
    lambda inner: (
        st.builds("[{}]".format, st.lists(inner, max_size=3).map(", ".join))
        | st.builds("{{{}}}".format, st.lists(st.builds('"{}":{}'.format, KEYS, inner), max_size=4).map(",".join))
    ),
    max_leaves=8,
)


@given(st.builds('{{"k":{}}}{}'.format, PIECES, st.sampled_from(["", "", " ", "}", "\n"])))
def test_what_is_read_in_c_is_read_the_same_by_the_rules(raw: str) -> None:
    with patch.object(arguments, "_answer", None):
        ruled = parse_arguments(raw)
    assert parse_arguments(raw) == ruled


@pytest.mark.skipif(IN_C is None, reason="the extension is not built")
@pytest.mark.parametrize(
    ("text", "strict"),
    [
        ('{"a": [1, -0.5, true, null, "b\\n"], "b": {"a": "é"}}', True),
        ('{"a":{"b":1,"b":2}}', False),
        ('{"a":"\\u0041"}', False),
        ('{"a":"\ud83d"}', False),
        ('{"a":1} ', False),
        ("[]", False),
        (json.dumps({str(number): number for number in range(48)}), True),
        (json.dumps({str(number): number for number in range(49)}), False),
    ],
)
def test_what_is_surely_strict(text: str, *, strict: bool) -> None:
    assert IN_C.surely_strict(text) is strict
    with pytest.raises(TypeError, match="a text is str, not bytes"):
        IN_C.surely_strict(text.encode("utf-8", "replace"))


def test_depth_of_the_callers_stack_makes_no_difference() -> None:
    raw = '{"a":' + "[" * 200 + "]" * 200 + "}"

    def deep(frames: int) -> Parsed:
        return deep(frames - 1) if frames else parse_arguments(raw)

    assert deep(sys.getrecursionlimit() // 3) == parse_arguments(raw)


def test_a_call_keeps_its_raw_text() -> None:
    use = tool_use("id\ud83d", "na\ud83dme", '{"a": "\ud83d\ude00"')
    assert (use.id, use.name, use.raw, use.input, use.error) == ("id\ufffd", "na\ufffdme", '{"a": "😀"', None, "invalid_json")
    assert tool_use(7, None, "").id is None
    assert tool_use(7, None, "").name == ""
