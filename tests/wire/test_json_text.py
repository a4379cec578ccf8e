"""Envelopes are decoded leniently, within bounds; raw slices are exact."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.wire.json_text import (
    MAX_DEPTH,
    TooDeepError,
    decode_envelope,
    decode_first,
    encode,
    encode_as_came,
    joined_surrogates,
    nested_deeper,
    raw_at,
    raw_items,
)


def test_lenient_where_servers_are_loose() -> None:
    assert decode_envelope(b'{"a": "\xff"}') == {"a": "\ufffd"}
    assert decode_envelope(b'{"a": "\\ud83d"}') == {"a": "\ud83d"}
    assert math.isnan(decode_envelope(b'{"a": NaN}')["a"])
    assert decode_envelope(b'{"a": 1e999}') == {"a": math.inf}
    assert decode_envelope(b'{"a": %b}' % (b"9" * 5_000)) == decode_first(b'{"a": %b}, ' % (b"9" * 5_000)) == {"a": math.inf}
    assert decode_envelope(b'{"a": %b, "b": NaN}' % (b"9" * 400))["a"] == 10**400 - 1
    with pytest.raises(ValueError, match="Expecting"):
        decode_envelope(b"{oops")


def test_depth_is_bounded_before_anything_recurses() -> None:
    deep = b'{"a":' + b"[" * 100_000
    for decode in (decode_envelope, decode_first):
        with pytest.raises(TooDeepError):
            decode(deep)
    inside = b'{"a":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}"
    assert decode_envelope(inside)


def test_brackets_in_strings_do_not_count() -> None:
    assert not nested_deeper(b'"' + b"[" * 1000 + b'"')
    assert not nested_deeper(b'"\\"' + b"[" * 1000)
    assert not nested_deeper(b'"' + b"[" * 1000 + b"\\")
    assert nested_deeper(b'"a"' + b"[" * 1000)
    assert not nested_deeper(b"[]" * 1000)


def test_escaped_quotes_cost_linear_time() -> None:
    assert not nested_deeper(b'"\\' * 500_000 + b"[" * 300)


def test_what_follows_the_first_value_is_ignored() -> None:
    assert decode_first(b'{"a": 1}\n\ndata: [DONE]') == {"a": 1}
    with pytest.raises(ValueError, match="Expecting"):
        decode_first(b'{"a": 1')


def test_encoding_is_always_json_a_file_can_hold() -> None:
    assert encode({"a": math.nan, "b": 2**70}) == '{"a":null,"b":1180591620717411303424}'
    assert encode({"a": "\ud83d", "b": "é"}) == '{"a":"\ufffd","b":"é"}'
    assert encode_as_came({"a": math.nan}) == '{"a":NaN}'


def test_raw_slices_are_exact() -> None:
    text = b'{"a": [1, {"b" : 12345678901234567890123 }], "a2": 0}'
    assert raw_at(text, ("a", 1, "b")) == b"12345678901234567890123"
    assert raw_at(text, ("a", 5)) is None
    assert raw_at(text, ("b",)) is None
    assert raw_at(b"{oops", ("b",)) is None
    assert raw_items(text, ("a",)) == [b"1", b'{"b" : 12345678901234567890123 }']
    assert raw_items(text, ("a2",)) == []
    assert raw_items(text, ("none",)) == []


@given(st.text(alphabet=st.characters(codec=None, categories=("L", "Cs"))))
def test_surrogates_join_or_become_replacement(text: str) -> None:
    joined_surrogates(text).encode()
    if not any("\ud800" <= c <= "\udfff" for c in text):
        assert joined_surrogates(text) == text


def test_halves_of_a_pair_join() -> None:
    assert joined_surrogates("a\ud83d" + "\ude00b\ud83d") == "a😀b\ufffd"
