"""Usual lines: decoded at once they give the samples that the long way gives, and whatever is odd goes the long way."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.sources import record
from batchrun.sources.jsonl import record_of
from batchrun.sources.record import FIELDS, Line, RowError, Shaper

USER = {"role": "user", "content": "hé"}
VALUES = [None, 5, -0.0, "", "x", "null", [], [1], ["a", "é"], {}, {"any_call": True}, [USER], [{"name": "f"}], True, 10**30]
ROW = st.dictionaries(st.sampled_from([*FIELDS, "note"]), st.sampled_from(VALUES), max_size=6)


def line(text: bytes, index: int = 3) -> Line:
    return Line(index=index, file="f.jsonl", line=index + 1, text=text)


def long_way(row: Line) -> Any:
    found = record_of(row)
    try:
        return found.problem or Shaper().sample(found)
    except RowError as error:
        return str(error)


@given(row=ROW, asked=st.booleans(), ascii_only=st.booleans())
def test_a_line_decoded_at_once_gives_what_its_record_gives(row: dict[str, Any], *, asked: bool, ascii_only: bool) -> None:
    whole = {"prompt": "what?", **row} if asked else row
    text = line(json.dumps(whole, ensure_ascii=ascii_only).encode())
    sample = Shaper().usual(text)
    assert sample is None or sample == long_way(text)


@given(st.binary(max_size=6), st.integers(min_value=0, max_value=70))
def test_a_damaged_line_is_never_taken_for_a_usual_one_that_it_is_not(junk: bytes, at: int) -> None:
    whole = b'{"id":"a","messages":[{"role":"user","content":"x"}],"tags":["t"],"system":"s"}'
    text = line(whole[:at] + junk + whole[at:])
    sample = Shaper().usual(text)
    assert sample is None or sample == long_way(text)


@pytest.mark.parametrize(
    ("text", "usual"),
    [
        (b'{"prompt": "x"}', True),
        (b'{"id": "a", "messages": [{"role": "user", "content": "x"}], "tools": null, "tags": null, "cluster": null}', True),
        (b'{"id": "a", "id": "b", "prompt": "x", "tags": ["t"], "expected": []}', True),
        (b'{"prompt": "x", "note": 1}', False),
        (b'{"prompt": "x", "id": 7}', False),
        (b'{"prompt": "x", "tools": {}}', False),
        (b'{"prompt": "x", "messages": [{}]}', False),
        (b'{"prompt": "\xff"}', False),
        (b"[1]", False),
        (b'{"prompt": "x", "params": ' + b'{"a":' * 3000 + b"1" + b"}" * 3001, False),
    ],
)
def test_which_lines_are_usual(text: bytes, *, usual: bool) -> None:
    assert (Shaper().usual(line(text)) is not None) is usual


def test_a_shaper_stops_trying_where_the_rows_have_fields_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "PATIENCE", 3)
    shaper, odd, usual = Shaper(), line(b'{"prompt": "x", "note": 1}'), line(b'{"prompt": "x"}')
    assert [shaper.usual(odd), shaper.usual(odd)] == [None, None]
    assert shaper.usual(usual) is not None
    assert shaper.usual(usual) is not None
    assert [shaper.usual(odd) for _ in range(3)] == [None] * 3
    assert shaper.usual(usual) is None


def test_equal_tools_of_usual_lines_are_one_object() -> None:
    shaper, text = Shaper(), b'{"prompt": "x", "tools": [{"name": "f"}]}'
    first, second = shaper.usual(line(text)), shaper.usual(line(text, 4))
    assert first is not None
    assert second is not None
    assert first.tools is second.tools
