"""Tool arguments: the joined text of one call → JSON text of an object, or the reason why there is none.

Parsed once, when the answer is complete, and strictly: duplicate keys, NaN and infinities, numbers beyond a
double, trailing bytes and unfinished JSON are errors of the model's answer. Nothing is repaired and nothing
raises. The text that parsed *is* the result, byte for byte (big integers and key order survive); only an
escape of half a surrogate pair, which no UTF-8 file can hold, is written anew as U+FFFD. Says nothing about
schemas: that is scoring's.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec

from batchrun.records import ToolUse
from batchrun.wire.json_text import MAX_DEPTH, encode, joined_surrogates, nested_deeper

try:
    from batchrun.wire import _answer
except ImportError:
    _answer = None  # type: ignore[assignment]

MAX_CHARACTERS: Final = 8 * 1024 * 1024
"""Longer arguments are `too_large`; the longest seen in earnest is a file of a few hundred KB."""

_WHITE: Final = " \t\r\n"
_SURROGATE_ESCAPE: Final = re.compile(r"\\u[dD][89a-fA-F]")


_REASONS: Final = {"unfinished": "invalid_json"}  # a syntax error is "unfinished" only to a model that was cut


class Parsed(NamedTuple):
    """`input` is the arguments' JSON text, or None and `error` says why (see `records.ToolUse`)."""

    input: str | None
    error: str | None


class _NotStrictError(ValueError):
    """JSON that Python would take and we do not."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _NotStrictError("duplicate key")
    return value


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _NotStrictError("number out of range")
    return value


def _refuse_constant(name: str) -> None:
    raise _NotStrictError(name)


_value: Final = msgspec.json.Decoder().decode
_decode: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_refuse_constant).decode


def parse_arguments(raw: str, *, cut: bool = False) -> Parsed:
    """Parse the joined text of one call's arguments; the empty text is `{}`.

    `cut` says that the model was stopped inside this call (max_tokens): then JSON that does not end is
    `truncated`, and so is no text at all. Errors are those of `records.ToolUse`; never raises.
    """
    text = raw.strip(_WHITE)
    if not text:
        return Parsed(None, "truncated") if cut else Parsed("{}", None)
    if _surely_strict(text):
        return Parsed(text, None)
    value, error = _parsed(text)
    if error is not None:
        return Parsed(None, "truncated" if cut and error == "unfinished" else _REASONS.get(error, error))
    if not isinstance(value, dict):
        return Parsed(None, "not_object")
    return Parsed(encode(value) if _SURROGATE_ESCAPE.search(text) else text, None)


def _surely_strict(text: str) -> bool:
    """Tell, where that can be told cheaply, that `text` is an object that keeps all the rules; False may be either.

    msgspec has all our rules but one: it lets a key be there twice. But then there are more strings in the text than in
    the value; a string is two quotes, and those within it are escaped.
    """
    if _answer is not None and _answer.surely_strict(text):
        return len(text) <= MAX_CHARACTERS
    if len(text) > MAX_DEPTH and nested_deeper(text.encode("utf-8", "replace")):
        return False
    quotes = text.count('"')
    if "\\" in text:
        if "\\u" in text or "\\\\" in text:
            return False
        quotes -= text.count('\\"')
    try:
        value = _value(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return False
    return type(value) is dict and 2 * _strings(value) == quotes and len(text) <= MAX_CHARACTERS


def _strings(value: dict[str, Any]) -> int:
    """Return how many strings a JSON object is made of, its keys included."""
    count = 0
    containers: list[Any] = [value]
    for container in containers:  # it grows on the way
        if type(container) is dict:
            count += len(container)
            items: Iterable[Any] = container.values()
        else:
            items = container
        for item in items:
            if type(item) is str:
                count += 1
            elif type(item) is dict or type(item) is list:
                containers.append(item)
    return count


def _parsed(text: str) -> tuple[Any, str | None]:
    """Return the value of `text`, or why it has none."""
    if len(text) > MAX_CHARACTERS:
        return None, "too_large"
    if nested_deeper(text.encode("utf-8", "replace")):
        return None, "too_deep"
    try:
        return _decode(text), None
    except json.JSONDecodeError:
        return None, "unfinished"
    except _NotStrictError:
        return None, "invalid_json"
    except ValueError:  # an integer of more than 4,300 digits: Python's bound against quadratic time
        return None, "too_large"


def tool_use(call_id: object, name: object, raw: str, *, cut: bool = False) -> ToolUse:
    """Return one call as it arrived, its arguments parsed; an id that is no string is None, a name ''."""
    raw = joined_surrogates(raw)
    text = raw.strip(_WHITE)
    given, error = (text, None) if _surely_strict(text) else parse_arguments(raw, cut=cut)
    return ToolUse(
        id=joined_surrogates(call_id) if isinstance(call_id, str) else None,
        name=joined_surrogates(name) if isinstance(name, str) else "",
        input=given,
        raw=raw,
        error=error,
    )
