"""Damaged rows of every format are refused with a reason, or converted; nothing else is ever raised."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.sources.format import UnsupportedFormat
from batchrun.sources.formats.registry import FORMATS
from batchrun.sources.record import Record, RowError, Shaper
from batchrun.sources.rewrite import Rewriter

TOOL = {
    "name": "f",
    "description": "d",
    "parameters": {
        "type": "dict",
        "properties": {"a": {"type": "string"}, "b": {"type": "array", "items": {"type": "any"}}},
        "required": ["a"],
    },
}
CALL = {"name": "f", "arguments": {"a": "x"}}
PROMPT = "Here is a list of functions in JSON format that you can invoke: "

ROWS: dict[str, dict[str, Any]] = {
    "batches": {"custom_id": "a", "params": {"messages": [{"role": "user", "content": "hi"}], "tools": [], "model": "m"}},
    "batches-results": {
        "custom_id": "a",
        "result": {
            "type": "succeeded",
            "message": {"content": [{"type": "tool_use", "name": "f", "input": {}}, {"type": "text", "text": "x"}]},
        },
    },
    "openai": {
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "s"}]},
            {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "u"}}]},
            {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": '{"a": 1}'}}]},
            {"role": "tool", "tool_call_id": "1", "content": "r"},
            {"role": "assistant", "content": "done"},
        ],
        "tools": [{"type": "function", "function": TOOL}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "stop": ["x"],
    },
    "bfcl": {
        "id": "simple_1",
        "question": [[{"role": "user", "content": "q"}]],
        "function": [TOOL],
        "ground_truth": [{"f": {"a": ["x", ""], "b": [[{"c": [1]}]]}}],
    },
    "xlam": {
        "id": 1,
        "query": "q",
        "tools": [{"name": "f", "parameters": {"a": {"type": "List[int], optional", "default": 1}}}],
        "answers": [CALL],
    },
    "sharegpt": {
        "conversations": [
            {"from": "system", "value": "<tools>[" + json.dumps(TOOL) + "]</tools>"},
            {"from": "human", "value": "q"},
            {"from": "gpt", "value": "<tool_call>" + json.dumps(CALL) + "</tool_call>"},
            {"from": "tool", "value": "<tool_response>{}</tool_response>"},
            {"from": "function_call", "value": json.dumps(CALL)},
        ],
        "tools": json.dumps([TOOL]),
    },
    "toolace": {
        "system": PROMPT + json.dumps([TOOL]),
        "conversations": [
            {"from": "user", "value": "q"},
            {"from": "assistant", "value": "[f(a='x')]"},
            {"from": "tool", "value": '[{"name": "f"}]'},
        ],
    },
    "glaive": {"system": "SYSTEM: " + json.dumps(TOOL), "chat": "USER: q\n\nASSISTANT: <functioncall> " + json.dumps(CALL)},
    "when2call": {
        "uuid": "u",
        "question": "q",
        "correct_answer": "tool_call",
        "answers": {"tool_call": "<TOOLCALL>[" + json.dumps(CALL) + "]</TOOLCALL>"},
        "tools": [json.dumps(TOOL)],
    },
}

JUNK: st.SearchStrategy[Any] = st.sampled_from(
    [
        None,
        True,
        -1,
        1.5,
        "",
        "text",
        "[",
        "{'a'",
        "$x",
        [],
        [None],
        ["a"],
        [[]],
        {},
        {"a": None},
        {"name": 5},
        {"$a": 1},
        {"type": []},
    ]
)


def paths(value: Any) -> list[tuple[Any, ...]]:
    """Return the way to every value inside, the whole left out."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(key, *rest) for key, item in inner for rest in ((), *paths(item))]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """Return a copy with `new` at `path`."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


@pytest.mark.parametrize("name", ROWS)
@given(data=st.data())
def test_damage_is_refused_or_converted(name: str, data: st.DataObject) -> None:
    row = ROWS[name]
    for _ in range(data.draw(st.integers(min_value=0, max_value=3))):
        ways = [path for path in paths(row) if path]
        row = replaced(row, data.draw(st.sampled_from(ways)), data.draw(JUNK)) if ways else row
    record = Record(index=0, file="f", fields={key: json.dumps(value).encode() for key, value in row.items()})
    try:
        made = Rewriter(FORMATS[name]).rewrite(record, {})
    except UnsupportedFormat:
        return
    if made.problem is None:
        assert all(error.code for error in Shaper().errors(made)), "what is still wrong is named"
    else:
        assert made.problem.message


@pytest.mark.parametrize("name", ROWS)
def test_undamaged_rows_are_converted(name: str) -> None:
    record = Record(index=0, file="f", fields={key: json.dumps(value).encode() for key, value in ROWS[name].items()})
    assert FORMATS[name].claims(ROWS[name])
    assert [other for other, form in FORMATS.items() if form.claims(ROWS[name])] == [name]
    made = Rewriter(FORMATS[name]).rewrite(record, {})
    assert made.problem is None
    if not FORMATS[name].to_score:
        try:
            Shaper().sample(made)
        except RowError as error:
            pytest.fail(str(error))
