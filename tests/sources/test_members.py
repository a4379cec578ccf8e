"""The members of a usual line are the same in C and by msgspec, and C refuses whatever it does not know."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchrun.sources import members
from batchrun.sources.members import by_msgspec, members_of

C: Any = vars(members)["_members"]
IN_C = pytest.mark.skipif(C is None, reason="the extension is not built")
TOOLS = b'[{"name":"f","input_schema":{"type":"object","a":[1.5e-3,-0,true,null]}}]'

TEXT = st.text(st.sampled_from('ab "\\\x07/\u00e9\u20ac\U0001f600\ud800'), max_size=80)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
PLACED = st.fixed_dictionaries(
    {},
    optional={
        "id": TEXT | st.none(),
        "messages": st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": TEXT}), max_size=2),
        "prompt": TEXT | st.none(),
        "system": TEXT | st.lists(VALUE, max_size=2),
        "tools": st.just(json.loads(TOOLS)) | VALUE,
        "expected": VALUE,
        "tags": st.lists(TEXT, max_size=3) | st.none(),
        "cluster": TEXT,
        "note": VALUE,
    },
)


def in_c(line: bytes, tools: bytes = b"[]") -> members.Members | None:
    found: members.Members | None = C.members_of(line, tools)
    return found


@IN_C
@given(PLACED, st.booleans(), st.sampled_from([(", ", ": "), (",", ":")]), st.sampled_from(["", "\r", " \t"]))
def test_what_c_gives_is_what_msgspec_gives(row: dict[str, Any], in_ascii: bool, between: tuple[str, str], end: str) -> None:  # noqa: FBT001
    text = json.dumps(row, ensure_ascii=in_ascii, separators=between) + end
    line = text.encode("utf-8", "surrogatepass")
    found = in_c(line, TOOLS)
    assert found in (None, by_msgspec(line))
    assert members_of(line, TOOLS) == by_msgspec(line)


@IN_C
@given(st.integers(0, 200), st.integers(0, 12), st.binary(max_size=4))
@example(0, 0, b"\xef\xbb\xbf")
@example(60, 1, b'\\"')
def test_what_c_gives_of_a_damaged_line_is_what_msgspec_gives(at: int, cut: int, junk: bytes) -> None:
    whole = (
        b'{"id":"a","messages":[{"role":"user","content":"' + b"x" * 90 + b'"}],"tools":' + TOOLS + b',"tags":["t","\xc3\xa9"]}'
    )
    line = whole[:at] + junk + whole[at + cut :]
    for tools in (b"[]", TOOLS):
        assert in_c(line, tools) in (None, by_msgspec(line))


@IN_C
@pytest.mark.parametrize(
    "line",
    [
        b'{"prompt":"x"}',
        b' { "id" : "a" , "prompt" : "x" , "tags" : [ "t" , "\xc3\xa9" ] } \t\r',
        b'{"messages":[{"role":"user","content":"' + b"\xe2\x82\xac" * 40 + b'"}],"tags":[],"cluster":"c","id":null}',
        b'{"prompt":"\\ud83d\\ude00","tools":' + TOOLS + b',"tool_choice":{},"params":{"a":{}},"expected":[]}',
        b'{"prompt":"x","params":' + b'{"a":' * 32 + b"1" + b"}" * 33,
        b'{"system":[],"prompt":"x","expected":{"a":1,"a":2}}',
    ],
)
def test_usual_lines_are_read_in_c(line: bytes) -> None:
    found = in_c(line)
    assert found is not None
    assert found == by_msgspec(line)


@IN_C
@pytest.mark.parametrize(
    "line",
    [
        b'{"id":"a\\n","prompt":"x"}',
        b'{"prompt":"x","tags":["\\u0041"]}',
        b'{"prompt":"x","cluster":"\\/"}',
        b'{"prompt":"x","id":"a","id":"b"}',
        b'{"prom\\u0070t":"x"}',
        b'{"prompt":\t"x"}',
        b'{"prompt":"x","params":' + b'{"a":' * 33 + b"1" + b"}" * 34,
    ],
)
def test_sound_lines_that_c_refuses_are_read_by_msgspec(line: bytes) -> None:
    assert in_c(line) is None
    assert members_of(line, b"[]") == by_msgspec(line) != None  # noqa: E711 - both


@IN_C
@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"{", b"{}x", b"[]", b'{"prompt"}', b'{"prompt":}', b'{"prompt":"x",}', b'{"prompt":"x"', b'{"prompt":"x'),
        *(b'{"prompt" "x"}', b'{"prompt":"x"]', b'{"prompt":"x"} x', b'{"prompt":"x"}{}', b'{prompt":"x"}'),
        *(b'{"prompt":"\x00"}', b'{"prompt":"\x1f' + b"x" * 40 + b'"}', b'{"prompt":"' + b"x" * 40 + b'\xff"}'),
        *(
            b'{"prompt":"\\ud800"}',
            b'{"prompt":"\\x"}',
            b'{"prompt":"\xed\xa0\x80"}',
            b'{"prompt":5}',
            b'{"prompt":"x","note":1}',
        ),
        *(
            b'{"prompt":"x","params":{"a":%s}}' % number
            for number in (b"01", b"1.", b".5", b"+1", b"1e", b"-", b"1e+", b"NaN", b"tru")
        ),
        *(
            b'{"prompt":"x","params":%s}' % value
            for value in (b"{1:2}", b'{x":1}', b'{"a" 1}', b'{"a":1]', b'["a":1}', b"{,}", b'{"a":1,}')
        ),
        *(b'{"prompt":"x","expected":%s}' % value for value in (b"[1,]", b"[1 2]", b"[1}", b"[,]", b"[", b"true", b'"a"')),
        *(b'{"prompt":"x","tags":%s}' % value for value in (b"[1]", b'["a",null]', b'[["a"]]', b'"a"', b"{}")),
    ],
)
def test_unsound_and_unusual_lines_are_nobodys(line: bytes) -> None:
    assert in_c(line) is None
    assert by_msgspec(line) is None


@IN_C
def test_equal_tools_are_the_object_that_was_given() -> None:
    line = b'{"prompt":"x","tools":' + TOOLS + b',"tags":[]}'
    for given_before, same in ((TOOLS, True), (b"[]", False), (b"", False)):
        found = in_c(line, given_before)
        assert found is not None
        assert found[4] == TOOLS
        assert (found[4] is given_before) is same
    assert in_c(b'{"prompt":"x","tools":' + TOOLS + b"]}", TOOLS) is None


@IN_C
@pytest.mark.parametrize("wrong", [(), (b"{}",), (b"{}", b"[]", b""), ("{}", b"[]"), (b"{}", None), (bytearray(b"{}"), b"[]")])
def test_only_bytes_are_lines(wrong: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError, match="a line and the tools of the line before it, both bytes"):
        C.members_of(*wrong)


def test_without_the_extension_lines_are_read_by_msgspec(without: Callable[[str, ModuleType], ModuleType]) -> None:
    loaded = without("_members", members)
    line = b'{"id":"a","prompt":"x","tools":[],"tags":["t"]}'
    assert loaded._members is None
    assert loaded.members_of(line, b"[]") == ("a", None, b'"x"', None, b"[]", None, None, None, None, ("t",))
    assert loaded.members_of(b"[1]", b"[]") is None
