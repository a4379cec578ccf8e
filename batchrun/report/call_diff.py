"""What was expected and what was called → the two side by side, argument by argument, differences marked.

The marks follow the scorer's own matchers, so a date written another way is no difference where the verdict says so. Of
several accepted answers the closest one is shown. This module judges nothing: a row's verdict is in the row. It refuses
to know HTML.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, takewhile
from typing import Any, Final, Literal, NamedTuple

from msgspec import Struct

from batchrun.records import ToolUse
from batchrun.scoring.expected import Abstain, Alternative, Calls, Expected, ExpectedCall, parse_expected
from batchrun.scoring.values import MAX_ANSWER_DEPTH, NotJson, decode

MOST_CHARACTERS: Final = 600  # of one value
MOST_CALLS: Final = 20
MOST_ARGUMENTS: Final = 40

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, default=str)

Mark = Literal["same", "different", "missing", "extra"]


class Text(NamedTuple):
    """A text in three parts; the middle one is where it differs, and empty where it does not."""

    before: str
    changed: str = ""
    after: str = ""


class ArgumentLine(Struct, frozen=True, kw_only=True):
    """One argument on both sides; None is "not there"."""

    name: str
    expected: Text | None
    given: Text | None
    mark: Mark

    @property
    def texts(self) -> tuple[str, str, str] | None:
        """Its name and both sides, where there are both and they have no mark."""
        if self.mark != "same" or self.expected is None or self.given is None:
            return None
        return self.name, self.expected.before, self.given.before


class CallPair(Struct, frozen=True, kw_only=True):
    """An expected call beside the call that comes closest; one of the names is None where there is no counterpart.

    `raw` is what arrived where the arguments are no JSON object, and `error` says why.
    """

    expected: str | None
    given: str | None
    mark: Mark
    lines: tuple[ArgumentLine, ...] = ()
    raw: str | None = None
    error: str | None = None

    @property
    def runs(self) -> Iterator[tuple[bool, list[Any]]]:
        """The lines in order, those without a mark together: (True, their three texts each), (False, lines), ..."""
        for plain, lines in groupby(self.lines, lambda line: line.texts is not None):
            run = list(lines)
            yield plain, [line.texts for line in run] if plain else run


class CallDiff(Struct, frozen=True, kw_only=True):
    """Both sides of one row. `wanted` puts what is expected into words where it is no list of calls."""

    pairs: tuple[CallPair, ...]
    wanted: str | None
    note: str | None = None


def compare_calls(expected: str | None, calls: Sequence[ToolUse], *, right: bool | None = None, exact: bool = False) -> CallDiff:
    """Hold a row's calls against its `expected` (JSON text, contract 3); a row that is `right` has no marks."""
    given = [_Given(call) for call in calls[:MOST_CALLS]]
    parsed = parse_expected(expected, exact=exact) if expected is not None else Expected((), ())
    ways = parsed.alternatives
    best = max(ways, key=lambda way: _closeness(way, given)) if len(ways) > 1 else next(iter(ways), None)
    note = _note(parsed, len(calls))
    if not isinstance(best, Calls):
        mark: Mark = "extra" if isinstance(best, Abstain) and not right else "same"
        return CallDiff(pairs=tuple(_pair(None, call, mark) for call in given), wanted=_words(expected, best), note=note)
    pairs = [_pair(one, other, "same" if right else "different") for one, other in _matched(best.calls[:MOST_CALLS], given)]
    return CallDiff(pairs=tuple(pairs), wanted=None, note=note)


class _Given:
    """A call made, its arguments decoded."""

    def __init__(self, call: ToolUse) -> None:
        self.name = call.name
        self.raw = call.raw or call.input or ""
        self.error = call.error
        self.arguments: Mapping[str, Any] | None = None
        if call.input is not None:
            try:
                value = decode(call.input, depth=MAX_ANSWER_DEPTH)
            except NotJson as error:
                self.error = self.error or str(error)
            else:
                self.arguments = value if isinstance(value, dict) else None

    def right(self, call: ExpectedCall) -> float:
        """Return how close this call is to the expected one: 0 for another tool, at most 2."""
        if self.name != call.name:
            return 0.0
        if self.arguments is None:
            return 1.0
        names = {*call.arguments, *self.arguments}
        hits = sum(
            self.arguments[name] is not None and entry.matcher.right(self.arguments[name])
            for name, entry in call.arguments.items()
            if name in self.arguments
        )
        return 1.0 + (hits / len(names) if names else 1.0)


def _closeness(way: Alternative, given: Sequence[_Given]) -> float:
    """Return how near an accepted answer is to what was called; more is nearer."""
    if isinstance(way, Abstain):
        return 0.0 if not given else -1.0 - len(given)
    if not isinstance(way, Calls):
        return 0.0
    score = sum(other.right(one) for one, other in _matched(way.calls[:MOST_CALLS], given) if one and other)
    return score - abs(len(way.calls) - len(given))


def _matched(calls: Sequence[ExpectedCall], given: Sequence[_Given]) -> list[tuple[ExpectedCall | None, _Given | None]]:
    """Give each expected call the closest free call of its tool; then those left over, in order, share a line."""
    if len(calls) == len(given) == 1:
        return [(calls[0], given[0])]
    ranked = sorted(
        ((other.right(one), -i, -j) for i, one in enumerate(calls) for j, other in enumerate(given) if other.name == one.name),
        reverse=True,
    )
    chosen: dict[int, int] = {}
    for _, i, j in ranked:
        if -i not in chosen and -j not in chosen.values():
            chosen[-i] = -j
    free = [j for j in range(len(given)) if j not in chosen.values()]
    for i in range(len(calls)):
        if i not in chosen and free:
            chosen[i] = free.pop(0)
    pairs = [(one, given[chosen[i]] if i in chosen else None) for i, one in enumerate(calls)]
    return [*pairs, *[(None, given[j]) for j in free]]


def _pair(one: ExpectedCall | None, other: _Given | None, differs: Mark) -> CallPair:
    """Return two calls side by side; `differs` is how a difference is marked."""
    if one is None or other is None:
        return _alone(one, other, "same" if differs == "same" else ("missing" if other is None else "extra"))
    lines = _lines(one, other.arguments, differs) if other.arguments is not None or one.arguments else ()
    broken = other.arguments is None
    same = one.name == other.name and not broken and all(line.mark == "same" for line in lines)
    return CallPair(
        expected=one.name,
        given=other.name,
        mark="same" if same else differs,
        lines=lines,
        raw=cut(other.raw) if broken else None,
        error=other.error if broken else None,
    )


def _alone(one: ExpectedCall | None, other: _Given | None, mark: Mark) -> CallPair:
    """Return a call that has no counterpart."""
    if one is not None:
        lines = tuple(
            ArgumentLine(name=name, expected=Text(cut(entry.matcher.shown())), given=None, mark="same")
            for name, entry in list(one.arguments.items())[:MOST_ARGUMENTS]
        )
        return CallPair(expected=one.name, given=None, mark=mark, lines=lines)
    if other is None:
        return CallPair(expected=None, given=None, mark=mark)
    lines = tuple(
        ArgumentLine(name=name, expected=None, given=Text(_json(value)), mark="same")
        for name, value in list((other.arguments or {}).items())[:MOST_ARGUMENTS]
    )
    broken = other.arguments is None
    return CallPair(
        expected=None, given=other.name, mark=mark, lines=lines, raw=cut(other.raw) if broken else None, error=other.error
    )


def _lines(one: ExpectedCall, arguments: Mapping[str, Any] | None, differs: Mark) -> tuple[ArgumentLine, ...]:
    """Return the arguments of two calls by name, the expected ones first."""
    lines = []
    plain = differs == "same"
    for name, entry in one.arguments.items():
        wanted = cut(entry.matcher.shown()) + (" (optional)" if entry.optional else "")
        if arguments is None or name not in arguments:
            mark: Mark = "same" if plain or entry.optional or arguments is None else "missing"
            lines.append(ArgumentLine(name=name, expected=Text(wanted), given=None, mark=mark))
            continue
        given = _json(arguments[name])
        if plain or entry.matcher.right(arguments[name]):
            lines.append(ArgumentLine(name=name, expected=Text(wanted), given=Text(given), mark="same"))
        else:
            before, after = where_different(wanted, given)
            lines.append(ArgumentLine(name=name, expected=before, given=after, mark="different"))
    for name, value in (arguments or {}).items():
        if name not in one.arguments:
            mark = "same" if plain else "extra"
            lines.append(ArgumentLine(name=name, expected=None, given=Text(_json(value)), mark=mark))
    return tuple(lines[:MOST_ARGUMENTS])


def where_different(one: str, other: str) -> tuple[Text, Text]:
    """Return both texts with what they do not share, between a common beginning and a common end, in the middle."""
    begin = _shared(one, other)
    end = _shared(one[begin:][::-1], other[begin:][::-1])
    parts = [Text(text[:begin], text[begin : len(text) - end], text[len(text) - end :]) for text in (one, other)]
    return parts[0], parts[1]


def _shared(one: str, other: str) -> int:
    """Return how many characters two texts begin with alike."""
    return sum(1 for _ in takewhile(bool, map(str.__eq__, one, other)))


def cut(text: str, most: int = MOST_CHARACTERS) -> str:
    """Return `text`, no longer than `most` characters, saying what is left out."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} characters more)"


def _json(value: Any) -> str:
    return cut(_ENCODER.encode(value))


def _words(expected: str | None, best: Alternative | None) -> str:
    """Say what is expected where it is no list of calls."""
    if expected is None:
        return "nothing: the row is not scored"
    if isinstance(best, Abstain):
        return "no call"
    return "any call" if best is not None else cut(expected)


def _note(parsed: Expected, calls: int) -> str | None:
    """Say what the comparison leaves out."""
    notes = []
    if parsed.flaws:
        notes.append(f"`expected` cannot be used: {parsed.flaws[0].message}")
    if len(parsed.alternatives) > 1:
        notes.append(f"the closest of {len(parsed.alternatives)} accepted answers")
    if calls > MOST_CALLS:
        notes.append(f"{calls - MOST_CALLS:,} calls more")
    return "; ".join(notes) or None
