r"""A `$regex` → a test of whole strings that cannot hang.

Strategy: the regular expression engine of jsonschema-rs, which tool schemas need anyway. It runs in linear time;
only look-around and back-references backtrack, within a step limit, so the bound is one of work and not of a
clock: the same answer gets the same verdict on a slow machine. The dialect is ECMA 262's, as in a schema's
`pattern` (`\d` and `\w` are ASCII), with inline flags such as `(?i)` and `\p{L}` classes.
This module refuses to know matchers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import msgspec

_BACKTRACK_LIMIT: Final = 100_000  # steps; a string that needs more does not match
_SIZE_LIMIT: Final = 1_000_000  # bytes of the compiled expression
_MAX_LENGTH: Final = 10_000  # characters of an expression


class WrongPattern(Exception):
    """The expression cannot be compiled."""


class Pattern(msgspec.Struct, frozen=True):
    """A compiled expression; make one with `compile_pattern`."""

    source: str
    validator: Any

    def matches(self, text: str) -> bool:
        """Tell whether the whole of `text` matches within the step limit."""
        return bool(self.validator.is_valid(text))


@lru_cache(maxsize=1024)
def compile_pattern(source: str) -> Pattern:
    """Compile `source`, or raise `WrongPattern`."""
    import jsonschema_rs  # noqa: PLC0415 - 10 ms that rows without a `$regex` do not need

    if len(source) > _MAX_LENGTH:
        raise WrongPattern("is too long")
    options = jsonschema_rs.FancyRegexOptions(backtrack_limit=_BACKTRACK_LIMIT, size_limit=_SIZE_LIMIT)

    def compiled(pattern: str) -> Any:
        return jsonschema_rs.Draft202012Validator({"pattern": pattern}, pattern_options=options, offline=True)

    try:
        compiled(source)  # alone first: "a)(b" must not become right by the wrapping
        try:
            return Pattern(source, compiled(f"^(?:{source})$"))
        except ValueError:
            return Pattern(source, compiled(f"^(?:{source}\n)$"))  # with (?x) a comment at the end takes the rest of its line
    except ValueError:
        raise WrongPattern("is no regular expression, or too large a one") from None
