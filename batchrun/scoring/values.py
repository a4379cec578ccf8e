"""JSON text → exact values, and the contract's rule for when two of them are the same.

Strategy: msgspec decodes, integers of any size exactly and other numbers to doubles; a number beyond a double is
refused, as the wire refuses it in an answer. Nesting is bounded here, once, so that every later recursion is
bounded too. The literal rule (contract 3) is `canonical`: 5 equals 5.0, true is not 1,
strings after NFC, trimming and collapsing of white space with case kept, objects key by key, arrays in order.
In the `exact` profile strings compare code point by code point. This module refuses to know matchers.
"""

from __future__ import annotations

import json
import unicodedata
from typing import Any, Final, TypeAlias

import msgspec

Json: TypeAlias = Any
"""A decoded JSON value: dict, list, str, int, float, bool or None."""

MAX_DEPTH: Final = 64
"""Deepest nesting of an `expected` and of a tool's schema; those in public tool sets are far below."""

MAX_ANSWER_DEPTH: Final = 256
"""Deepest nesting of a call's arguments: the wire's own bound. Nothing recurses into them deeper than `expected` goes."""

NESTED: Final = frozenset({dict, list})
"""The types of JSON values that hold others."""

NUMBERS: Final = frozenset({int, float})
"""The exact types of JSON numbers: bool, a subclass of int, is none of them."""

_SHOWN: Final = 120  # characters of a value in an explanation

_decoder: Final = msgspec.json.Decoder()
_write: Final = json.JSONEncoder(ensure_ascii=False).encode


class NotJson(Exception):
    """The text is no JSON value, or one nested too deeply; `str(error)` says which."""


def decode(text: bytes | str, *, depth: int = MAX_DEPTH) -> Json:
    """Return the JSON value of `text`; raise `NotJson` for any other or deeper text, never anything else."""
    try:
        value = _decoder.decode(text)
    except RecursionError:
        raise NotJson("nested too deeply") from None
    except msgspec.DecodeError as error:
        raise NotJson(str(error)) from None
    except ValueError:
        raise NotJson("not valid Unicode") from None
    if len(text) > depth and _opened(text) > depth and too_deep(value, depth):
        raise NotJson("nested too deeply")
    return value


def too_deep(value: Json, depth: int = MAX_DEPTH) -> bool:
    """Tell whether arrays and objects nest deeper than `depth`; needs no recursion itself."""
    level = [value]
    for _ in range(depth):
        below: list[Json] = []
        for item in level:
            if type(item) is dict:
                below.extend(item.values())
            elif type(item) is list:
                below.extend(item)
        if not below:
            return False
        level = below
    return any(type(item) in (dict, list) for item in level)


def plain(text: str) -> str:
    """Return `text` in NFC, trimmed, each run of white space one space."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return " ".join(text.split())


def canonical(value: Json, *, exact: bool = False) -> object:
    """Return a hashable value, equal for two JSON values exactly when the literal rule calls them the same."""
    kind = type(value)
    if kind is str:
        return value if exact else plain(value)
    if kind in NUMBERS:
        return ("number", value)
    if kind is dict:
        return frozenset((key, canonical(item, exact=exact)) for key, item in value.items())
    if kind is list:
        return ("array", *(canonical(item, exact=exact) for item in value))
    return ("constant", str(value))


def shown(value: Json) -> str:
    """Return `value` as JSON text for a sentence, cut after some characters."""
    text = _write(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _opened(text: bytes | str) -> int:
    """Return an upper bound of the nesting, from counting brackets alone."""
    if isinstance(text, str):
        return text.count("[") + text.count("{")
    return text.count(b"[") + text.count(b"{")
