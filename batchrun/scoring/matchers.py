"""The values that judge a value: one frozen struct for each literal and each matcher of contract 3.

Every matcher answers `right(value)` and says what it wants in `shown()`. They are made by `compile`, from JSON, and
are total: any decoded JSON value may be judged and none makes them raise. Their recursion is bounded by the
nesting of the `expected` they were made from. This module refuses to know problems, schemas and calls.
"""

# ruff: noqa: D102 - the protocol `Matcher` documents the two methods of them all
from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Protocol

from msgspec import Struct

from batchrun.scoring import dates
from batchrun.scoring.assign import covers
from batchrun.scoring.folding import fold
from batchrun.scoring.patterns import Pattern
from batchrun.scoring.values import NUMBERS, Json, canonical, plain, shown, too_deep


class Matcher(Protocol):
    """What one argument, or a part of it, is held against."""

    def right(self, value: Json) -> bool:
        """Tell whether `value` is right."""
        ...

    def shown(self) -> str:
        """Say what is wanted, for a sentence."""
        ...


class Constant(Struct, frozen=True, gc=False):
    """null, true or false, and nothing that merely equals it."""

    value: bool | None

    def right(self, value: Json) -> bool:
        return value is self.value

    def shown(self) -> str:
        return shown(self.value)


class Number(Struct, frozen=True, gc=False):
    """The same number: 5 is 5.0, and true is not 1."""

    value: int | float

    def right(self, value: Json) -> bool:
        return type(value) in NUMBERS and value == self.value

    def shown(self) -> str:
        return shown(self.value)


class Text(Struct, frozen=True, gc=False):
    """The same string after NFC, trimming and collapsing of white space; case counts."""

    value: str

    def right(self, value: Json) -> bool:
        return type(value) is str and (value == self.value or plain(value) == plain(self.value))

    def shown(self) -> str:
        return shown(self.value)


class ExactText(Struct, frozen=True, gc=False):
    """The same string, code point by code point."""

    value: str

    def right(self, value: Json) -> bool:
        return type(value) is str and value == self.value

    def shown(self) -> str:
        return shown(self.value)


class Array(Struct, frozen=True, gc=False):
    """As many items, each right at its place."""

    items: tuple[Matcher, ...]

    def right(self, value: Json) -> bool:
        if type(value) is not list or len(value) != len(self.items):
            return False
        return all(item.right(given) for item, given in zip(self.items, value, strict=True))

    def shown(self) -> str:
        return "[" + ", ".join(item.shown() for item in self.items) + "]"


class Entry(Struct, frozen=True, gc=False):
    """One key of an object, or one argument of a call."""

    matcher: Matcher
    optional: bool


class Object(Struct, frozen=True, gc=False):
    """Each key right, no optional one missed; further keys only where it is `open` (`$includes`)."""

    entries: Mapping[str, Entry]
    open: bool = False

    def right(self, value: Json) -> bool:
        if type(value) is not dict:
            return False
        found = 0
        for key, entry in self.entries.items():
            if key in value:
                if not entry.matcher.right(value[key]):
                    return False
                found += 1
            elif not entry.optional:
                return False
        return self.open or found == len(value)

    def shown(self) -> str:
        inside = ", ".join(f"{shown(key)}: {entry.matcher.shown()}" for key, entry in self.entries.items())
        return ("an object with {" if self.open else "{") + inside + "}"


class OneOf(Struct, frozen=True, gc=False):
    """Right for one of several."""

    options: tuple[Matcher, ...]

    def right(self, value: Json) -> bool:
        return any(option.right(value) for option in self.options)

    def shown(self) -> str:
        if not self.options:
            return "nothing"
        inside = ", ".join(option.shown() for option in self.options)
        return f"one of {inside}" if len(self.options) > 1 else inside


class Every(Struct, frozen=True, gc=False):
    """Right for all of several matchers written in one object."""

    parts: tuple[Matcher, ...]

    def right(self, value: Json) -> bool:
        return all(part.right(value) for part in self.parts)

    def shown(self) -> str:
        return " and ".join(part.shown() for part in self.parts)


class Anything(Struct, frozen=True, gc=False):
    """Present, whatever it is."""

    def right(self, value: Json) -> bool:  # noqa: ARG002 - the one matcher that does not look
        return True

    def shown(self) -> str:
        return "any value"


class Near(Struct, frozen=True, gc=False):
    """A number within `tolerance` of `value`, the border included; in decimal, so that 1.1 is within 0.1 of 1."""

    value: int | float
    tolerance: Fraction

    def right(self, value: Json) -> bool:
        if type(value) not in NUMBERS:
            return False
        return abs(fraction(value) - fraction(self.value)) <= self.tolerance

    def shown(self) -> str:
        if not self.tolerance:
            return shown(self.value)
        within = Decimal(self.tolerance.numerator) / Decimal(self.tolerance.denominator)
        return f"{shown(self.value)} within {within:.6g}"


class Folded(Struct, frozen=True, gc=False):
    """The same string after folding."""

    value: str
    folds: frozenset[str]
    folded: str

    def right(self, value: Json) -> bool:
        return type(value) is str and (value == self.value or fold(value, self.folds) == self.folded)

    def shown(self) -> str:
        return shown(self.value)


class Matching(Struct, frozen=True, gc=False):
    """A string that a regular expression matches from end to end."""

    pattern: Pattern

    def right(self, value: Json) -> bool:
        return type(value) is str and self.pattern.matches(value)

    def shown(self) -> str:
        return f"a string matching {shown(self.pattern.source)}"


class When(Struct, frozen=True, gc=False):
    """The same day or instant, in ISO 8601 or one of the formats."""

    text: str
    value: date | datetime
    formats: tuple[str, ...]

    def right(self, value: Json) -> bool:
        if type(value) is not str:
            return False
        given = dates.parse(value, self.formats)
        return given is not None and dates.same(self.value, given)

    def shown(self) -> str:
        return f"the date {shown(self.text)}"


class UnorderedLiterals(Struct, frozen=True, gc=False):
    """The same literals, each as often, in any order."""

    items: tuple[Matcher, ...]
    counts: Mapping[object, int]
    exact: bool

    def right(self, value: Json) -> bool:
        if type(value) is not list or len(value) != len(self.items) or too_deep(value):
            return False
        return Counter(canonical(item, exact=self.exact) for item in value) == self.counts

    def shown(self) -> str:
        return "in any order [" + ", ".join(item.shown() for item in self.items) + "]"


class Unordered(Struct, frozen=True, gc=False):
    """As many items, and one way to give each matcher an item of its own that is right."""

    items: tuple[Matcher, ...]

    def right(self, value: Json) -> bool:
        if type(value) is not list or len(value) != len(self.items):
            return False
        return covers([[item.right(given) for given in value] for item in self.items])

    def shown(self) -> str:
        return "in any order [" + ", ".join(item.shown() for item in self.items) + "]"


def literal(value: Json, *, exact: bool = False) -> Matcher:
    """Return the matcher of a literal that holds no matchers (contract 3's rule at every depth)."""
    kind = type(value)
    if kind is str:
        return ExactText(value) if exact else Text(value)
    if kind in NUMBERS:
        return Number(value)
    if kind is list:
        return Array(tuple(literal(item, exact=exact) for item in value))
    if kind is dict:
        return Object({key: Entry(literal(item, exact=exact), optional=False) for key, item in value.items()})
    return Constant(value)


def fraction(number: float) -> Fraction:
    """Return the number as its shortest decimal says it: 0.1 is one tenth."""
    return Fraction(number) if isinstance(number, int) else Fraction(repr(number))


def cost(matcher: Matcher) -> int:
    """Return an upper bound of the comparisons that one `right` makes."""
    match matcher:
        case OneOf(options=parts) | Every(parts=parts) | Array(items=parts):
            return 1 + sum(map(cost, parts))
        case Object(entries=entries):
            return 1 + sum(cost(entry.matcher) for entry in entries.values())
        case Unordered(items=parts):
            return 1 + len(parts) * sum(map(cost, parts))
        case UnorderedLiterals(items=parts):
            return 1 + len(parts)
    return 1
