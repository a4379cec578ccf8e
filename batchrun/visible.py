"""Text of others → text that shows itself: what acts without being seen on a page or a terminal becomes a sign in its place.

Row ids, model names, tags and error messages come from datasets and endpoints. An escape code in one would clear a
screen or set a window's title, a bidirectional override would turn a verdict around. Says nothing about markup: who writes
HTML or Markdown escapes as well.
"""

from __future__ import annotations

import re
from typing import Any, Final

HIDDEN: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
"""Characters that act without being seen. Python calls none of them printable."""


def visible(value: Any) -> Any:
    """Return text with every character that acts without being seen in place of itself: `␀`, `⟦U+202E⟧`."""
    if type(value) is not str or value.isprintable():
        return value
    return HIDDEN.sub(_named, value)


def all_visible(value: Any) -> Any:
    """Return a value of JSON with every text in it visible, keys too."""
    if isinstance(value, dict):
        return {visible(key): all_visible(inner) for key, inner in value.items()}
    return [*map(all_visible, value)] if isinstance(value, list | tuple) else visible(value)


def _named(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    return "\ufffd" if 0xD800 <= code <= 0xDFFF else f"⟦U+{code:04X}⟧"
