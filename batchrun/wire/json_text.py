"""JSON text ↔ values where msgspec alone is too strict, and bounded so that no text can hurt us.

Envelopes (stream events, error bodies, whole replies) are decoded by msgspec, and by the standard library
where msgspec gives up on what real servers send: bad UTF-8, half a surrogate pair, NaN. Nesting is bounded
before either of them recurses, exactly, so the verdict does not depend on how deep our own stack is. Raw
slices are cut out of a text for what must stay byte for byte as it came. This module refuses to know what
any of the JSON means; tool arguments have stricter rules of their own (`arguments`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

MAX_DEPTH: Final = 256
"""Deeper JSON is refused. Real schemas nest a few dozen levels; Python's own limit of 1,000 frames is shared."""

_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_ONLY_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_MSGSPEC_REFUSES: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_MOST_DIGITS: Final = 4_300  # Python's default `sys.get_int_max_str_digits()`

_decode: Final = msgspec.json.Decoder().decode
_decode_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_array: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


def _integer(digits: str) -> int | float:
    """Return a number that may have more digits than Python turns into an integer: then it is a double, or infinite."""
    return int(digits) if len(digits) < _MOST_DIGITS else float(digits)


_DECODER: Final = json.JSONDecoder(parse_int=_integer)


class TooDeepError(ValueError):
    """The text is nested deeper than we follow."""

    def __init__(self) -> None:
        """Say what the bound is."""
        super().__init__(f"JSON nested deeper than {MAX_DEPTH}")


def nested_deeper(text: bytes, limit: int = MAX_DEPTH) -> bool:
    """Tell whether any prefix of `text` opens more than `limit` arrays and objects at once; linear time."""
    if len(text) <= limit or text.count(b"[") + text.count(b"{") <= limit:
        return False
    depth = 0
    for bracket in _STRING.sub(b"", text).translate(None, _ONLY_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > limit:
            return True
    return False


def decode_envelope(text: bytes) -> Any:
    """Return the value of `text`; bad UTF-8 becomes U+FFFD, NaN and lone surrogates are let through.

    Raises `ValueError` where the text is not JSON, `TooDeepError` where it is nested deeper than `MAX_DEPTH`.
    """
    if nested_deeper(text):
        raise TooDeepError
    try:
        return _decode(text)
    except _MSGSPEC_REFUSES:
        return _DECODER.decode(text.decode("utf-8", "replace"))


def decode_first(text: bytes) -> Any:
    """Return the JSON value that `text` begins with; what follows it is ignored. Raises as `decode_envelope`."""
    try:
        return decode_envelope(text)
    except TooDeepError:
        raise
    except ValueError:
        value, _ = _DECODER.raw_decode(text.decode("utf-8", "replace").lstrip())
        return value


def encode(value: object) -> str:
    """Return `value` as compact JSON text; NaN and infinities become null, lone surrogates U+FFFD."""
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        return joined_surrogates(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def encode_as_came(value: object) -> str:
    """Return `value` as JSON text that keeps even NaN, so that a strict parser can refuse it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def raw_at(text: bytes, path: Sequence[str | int]) -> bytes | None:
    """Return the exact text of the value at `path` (keys and array places), or None where it cannot be cut out."""
    for step in path:
        try:
            found = _decode_object(text)[step] if isinstance(step, str) else _decode_array(text)[step]
        except (*_MSGSPEC_REFUSES, KeyError, IndexError):
            return None
        text = bytes(found)
    return text


def raw_items(text: bytes, path: Sequence[str | int]) -> list[bytes]:
    """Return the exact texts of the items of the array at `path`, or none where there is no such array."""
    array = raw_at(text, path)
    try:
        return [bytes(item) for item in _decode_array(array)] if array is not None else []
    except _MSGSPEC_REFUSES:
        return []


def joined_surrogates(text: str) -> str:
    """Return `text` with halves of surrogate pairs joined, and U+FFFD for each half left alone."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
