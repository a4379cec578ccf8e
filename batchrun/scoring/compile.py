"""JSON of an `expected` value → its matcher, and every problem found on the way.

An object all of whose keys begin with `$` is a matcher (contract 3); `{}` and an object with any other key are
literals. Several matchers in one object must all hold; `$optional` stands beside any of them. A malformed matcher is
a `Flaw` with its path, never an exception: the row it belongs to is not scored, and `check` lists it.
To match an object whose own keys begin with `$`, write `{"$includes": {"$key": …}}`.
This module refuses to know calls and schemas.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Struct

from batchrun.scoring import dates, matchers
from batchrun.scoring.folding import FOLDS, fold
from batchrun.scoring.matchers import Entry, Matcher
from batchrun.scoring.patterns import WrongPattern, compile_pattern
from batchrun.scoring.values import NESTED, NUMBERS, Json, canonical, shown

MAX_COST: Final = 100_000  # comparisons that one answer's call may take in the worst case: some 30 ms

_MODIFIES: Final = {"$rel": "$number", "$abs": "$number", "$fold": "$text", "$formats": "$date"}
_KNOWN_MATCHERS: Final = (
    "$any_of, $optional, $any, $number ($rel, $abs), $text ($fold), $regex, $date ($formats), $unordered, $includes"
)


class Flaw(Struct, frozen=True):
    """Something wrong in an `expected`, at a JSON path within it."""

    path: str
    message: str
    hint: str | None = None
    code: str = "malformed-matcher"


class Compiler:
    """Turns the values of one `expected` into matchers; `flaws` collects what is malformed."""

    __slots__ = ("_cost", "exact", "flaws", "searches")

    def __init__(self, *, exact: bool = False) -> None:
        """`exact` compares literal strings code point by code point."""
        self.exact = exact
        self.flaws: list[Flaw] = []
        self.searches = False  # an `$unordered` with matchers in it: its cost is a product
        self._cost = 0

    def argument(self, raw: Json, path: str) -> Entry:
        """Return the matcher of one argument or key, and whether it may be absent."""
        entry = self._entry(raw, path)
        if self.searches:
            self._cost += matchers.cost(entry.matcher)
            if self._cost > MAX_COST:
                hint = "fewer items, or fewer matchers, inside `$unordered`"
                self.flaws.append(Flaw(path, "takes too many comparisons", hint, "too-expensive"))
        return entry

    def arguments(self, raw: Mapping[str, Json], path: str) -> dict[str, Entry]:
        """Return the matcher of each argument of a call."""
        return {
            name: self.argument(item, f"{path}.{name}") if type(item) in NESTED else Entry(self._plain(item), optional=False)
            for name, item in raw.items()
        }

    def value(self, raw: Json, path: str) -> Matcher:
        """Return the matcher of a literal or a matcher object."""
        kind = type(raw)
        if kind is list:
            return matchers.Array(tuple(self.value(item, f"{path}[{index}]") for index, item in enumerate(raw)))
        if kind is dict:
            if is_matcher(raw):
                return self._matcher(raw, path)
            return matchers.Object(self.entries(raw, path))
        return self._plain(raw)

    def _plain(self, raw: Json) -> Matcher:
        """Return the matcher of a literal that holds no other value."""
        kind = type(raw)
        if kind is str:
            return matchers.ExactText(raw) if self.exact else matchers.Text(raw)
        return matchers.Number(raw) if kind in NUMBERS else matchers.Constant(raw)

    def entries(self, raw: Mapping[str, Json], path: str) -> dict[str, Entry]:
        """Return the matcher of each key of an object."""
        return {key: self._entry(item, f"{path}.{key}") for key, item in raw.items()}

    def _entry(self, raw: Json, path: str) -> Entry:
        if type(raw) is not dict or not is_matcher(raw):
            return Entry(self.value(raw, path), optional=False)
        return Entry(self._matcher(raw, path), _optional(raw))

    def _matcher(self, raw: dict[str, Json], path: str) -> Matcher:
        """Return the matcher that `raw` spells, or `Anything` with a flaw."""
        before = len(self.flaws)
        parts: list[Matcher] = []
        for key in raw:
            make = _MAKERS.get(key)
            if make is not None:
                try:
                    parts.append(make(self, raw, path))
                except _Malformed as error:
                    self.flaws.append(Flaw(path, f"`{key}` {error}", error.hint))
            elif key not in _MODIFIES:
                self.flaws.append(Flaw(path, f"`{key}` is no matcher", _KNOWN_MATCHERS, "unknown-matcher"))
            elif _MODIFIES[key] not in raw:
                self.flaws.append(Flaw(path, f"`{key}` needs `{_MODIFIES[key]}` beside it"))
        asking = [part for part in parts if type(part) is not matchers.Anything]
        if len(self.flaws) > before or not asking:
            return matchers.Anything()
        return asking[0] if len(asking) == 1 else matchers.Every(tuple(asking))


class _Malformed(Exception):
    """A matcher's own value is not what it takes."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def _any_of(compiler: Compiler, raw: dict[str, Json], path: str) -> Matcher:
    options = raw["$any_of"]
    if type(options) is not list:
        raise _Malformed("takes an array")
    made = tuple(compiler.value(item, f"{path}.$any_of[{index}]") for index, item in enumerate(options))
    return made[0] if len(made) == 1 else matchers.OneOf(made)


def _any(_compiler: Compiler, raw: dict[str, Json], _path: str) -> Matcher:
    if raw["$any"] is not True:
        raise _Malformed("takes true")
    return matchers.Anything()


def _number(_compiler: Compiler, raw: dict[str, Json], _path: str) -> Matcher:
    value = raw["$number"]
    if type(value) not in NUMBERS:
        raise _Malformed("takes a number")
    tolerances = [raw.get("$rel", 0), raw.get("$abs", 0)]
    if any(type(item) not in NUMBERS or item < 0 for item in tolerances):
        raise _Malformed("takes a number of 0 or more as `$rel` and `$abs`")
    relative, absolute = (matchers.fraction(item) for item in tolerances)
    return matchers.Near(value, max(relative * abs(matchers.fraction(value)), absolute))


def _text(_compiler: Compiler, raw: dict[str, Json], _path: str) -> Matcher:
    value, folds = raw["$text"], raw.get("$fold", [])
    if type(value) is not str:
        raise _Malformed("takes a string")
    if type(folds) is not list or any(item not in FOLDS for item in folds):
        raise _Malformed(f"takes an array of {', '.join(FOLDS)} as `$fold`")
    chosen = frozenset(folds)
    return matchers.Folded(value, chosen, fold(value, chosen))


def _regex(_compiler: Compiler, raw: dict[str, Json], _path: str) -> Matcher:
    source = raw["$regex"]
    if type(source) is not str:
        raise _Malformed("takes a string")
    try:
        return matchers.Matching(compile_pattern(source))
    except WrongPattern as error:
        raise _Malformed(str(error), hint="ECMA 262 syntax, as in a schema's `pattern`") from None


def _date(_compiler: Compiler, raw: dict[str, Json], _path: str) -> Matcher:
    text, formats = raw["$date"], raw.get("$formats", [])
    if type(text) is not str:
        raise _Malformed("takes a string")
    if type(formats) is not list or any(type(item) is not str for item in formats):
        raise _Malformed("takes an array of strings as `$formats`")
    for item in formats:
        if (reason := dates.wrong_format(item)) is not None:
            raise _Malformed(f"format {shown(item)} {reason}", hint="strptime's directives: %d %B %Y")
    value = dates.parse(text, formats)
    if value is None:
        raise _Malformed(f"{shown(text)} is no date", hint="ISO 8601, or one of `$formats`")
    return matchers.When(text, value, tuple(formats))


def _unordered(compiler: Compiler, raw: dict[str, Json], path: str) -> Matcher:
    items = raw["$unordered"]
    if type(items) is not list:
        raise _Malformed("takes an array")
    made = tuple(compiler.value(item, f"{path}.$unordered[{index}]") for index, item in enumerate(items))
    if not all(map(_is_literal, items)):
        compiler.searches = True
        return matchers.Unordered(made)
    counts = Counter(canonical(item, exact=compiler.exact) for item in items)
    return matchers.UnorderedLiterals(made, counts, compiler.exact)


def _includes(compiler: Compiler, raw: dict[str, Json], path: str) -> Matcher:
    value = raw["$includes"]
    if type(value) is not dict:
        raise _Malformed("takes an object")
    return matchers.Object(compiler.entries(value, path), open=True)


def _flag(_compiler: Compiler, raw: dict[str, Json], _path: str) -> Matcher:
    if type(raw["$optional"]) is not bool:
        raise _Malformed("takes true or false")
    return matchers.Anything()


_MAKERS: Final[dict[str, Callable[[Compiler, dict[str, Json], str], Matcher]]] = {
    "$optional": _flag,
    "$any_of": _any_of,
    "$any": _any,
    "$number": _number,
    "$text": _text,
    "$regex": _regex,
    "$date": _date,
    "$unordered": _unordered,
    "$includes": _includes,
}


def is_matcher(raw: Mapping[str, Json]) -> bool:
    """Tell whether an object is a matcher: it has keys, and each begins with `$`."""
    for key in raw:  # a plain loop: each object of each `expected` comes through here
        if not key.startswith("$"):
            return False
    return bool(raw)


def _optional(raw: Mapping[str, Json]) -> bool:
    """Tell whether a matcher lets its value be absent: `$optional` stands in it, or in an option of its `$any_of`."""
    if raw.get("$optional") is True:
        return True
    options = raw.get("$any_of")
    inner = [option for option in options if type(option) is dict] if type(options) is list else []
    return any(is_matcher(option) and _optional(option) for option in inner)


def _is_literal(raw: Json) -> bool:
    """Tell whether no matcher stands anywhere in the value."""
    if type(raw) is dict:
        return not is_matcher(raw) and all(map(_is_literal, raw.values()))
    return type(raw) is not list or all(map(_is_literal, raw))
