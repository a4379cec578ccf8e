"""JSON text of `expected` → the alternatives that an answer may be, parsed once.

An `Expected` is a flat list of alternatives: `Abstain` (no call), `AnyCall`, or `Calls` (these calls). `any_of` of any
depth is flattened. The answer key of the leaderboard's own data, `{"allowed": […], "optional": …}` for every
argument, is recognised and read as what it means (`answer_key`).
What is malformed becomes flaws, and such an `expected` judges nothing. This module refuses to know answers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Final, TypeAlias

from msgspec import Struct

from batchrun.scoring import answer_key
from batchrun.scoring.compile import Compiler, Flaw
from batchrun.scoring.matchers import Entry
from batchrun.scoring.values import Json, NotJson, decode, shown

MAX_ALTERNATIVES: Final = 200
MAX_CALLS: Final = 500
"""Bounds of one `expected`, the calls over all its alternatives; far above any real one, so that no row takes minutes."""


class Abstain(Struct, frozen=True, gc=False):
    """Right without a call."""


class AnyCall(Struct, frozen=True, gc=False):
    """Right with at least one call, whatever it is."""


class ExpectedCall(Struct, frozen=True, dict=True):
    """One call: the tool's name, and a matcher for each named argument."""

    name: str
    arguments: Mapping[str, Entry]
    raw: Json

    @cached_property
    def order(self) -> str:
        """A text to sort by, so that the order in which calls were written does not matter."""
        return json.dumps(self.raw, sort_keys=True)


class Calls(Struct, frozen=True, gc=False):
    """Right with exactly these calls."""

    calls: tuple[ExpectedCall, ...]


Alternative: TypeAlias = Abstain | AnyCall | Calls


class Expected(Struct, frozen=True, gc=False):
    """The alternatives, or the flaws for which there are none; `raw` is the contract's form, decoded."""

    alternatives: tuple[Alternative, ...]
    flaws: tuple[Flaw, ...]
    raw: Json = None

    @property
    def should_call(self) -> bool | None:
        """Tell whether a right answer calls a tool; None where some do and some do not."""
        ways = {not isinstance(alternative, Abstain) for alternative in self.alternatives}
        return ways.pop() if len(ways) == 1 else None


def parse_expected(text: bytes | str, *, exact: bool = False) -> Expected:
    """Parse the JSON text of a row's `expected` (contract 3); `exact` is the profile's string rule."""
    try:
        raw = decode(text)
    except NotJson as error:
        return Expected((), (Flaw("", f"is not JSON: {error}", code="not-json"),))
    if answer_key.is_answer_key(raw):
        raw = answer_key.to_contract(raw, fold=not exact)
    reader = _Reader(exact=exact)
    alternatives = reader.alternatives(raw, "")
    calls = sum(len(way.calls) for way in alternatives if isinstance(way, Calls))
    if len(alternatives) > MAX_ALTERNATIVES or calls > MAX_CALLS:
        reader.flaw("", f"has more than {MAX_ALTERNATIVES} alternatives, or {MAX_CALLS} calls", code="too-many")
    flaws = tuple(reader.compiler.flaws)
    return Expected(() if flaws else tuple(alternatives), flaws, raw)


class _Reader:
    """Walks one `expected` and collects its flaws."""

    __slots__ = ("compiler",)

    def __init__(self, *, exact: bool) -> None:
        self.compiler = Compiler(exact=exact)

    def flaw(self, path: str, message: str, *, code: str = "malformed-expected") -> None:
        hint = '[], [{"name": …, "arguments": {…}}, …], {"any_call": true} or {"any_of": […]}'
        self.compiler.flaws.append(Flaw(path, message, hint, code))

    def alternatives(self, raw: Json, path: str) -> list[Alternative]:
        if type(raw) is list:
            return [Calls(self._calls(raw, path))] if raw else [Abstain()]
        if type(raw) is dict and raw.keys() == {"any_call"}:
            if raw["any_call"] is not True:
                self.flaw(path, "`any_call` takes true")
            return [AnyCall()]
        if type(raw) is dict and raw.keys() == {"any_of"} and type(raw["any_of"]) is list:
            if not raw["any_of"]:
                self.flaw(path, "`any_of` has no alternative")
            inside = enumerate(raw["any_of"])
            return [way for index, item in inside for way in self.alternatives(item, f"{path}any_of[{index}].")]
        self.flaw(path, f"{shown(raw)} is no `expected`")
        return []

    def _calls(self, raw: list[Json], path: str) -> tuple[ExpectedCall, ...]:
        return tuple(call for index, item in enumerate(raw) if (call := self._call(item, f"{path}[{index}]")) is not None)

    def _call(self, raw: Json, path: str) -> ExpectedCall | None:
        if type(raw) is not dict or type(raw.get("name")) is not str or type(raw.get("arguments")) is not dict:
            self.flaw(path, "a call is an object with `name` and `arguments`")
            return None
        return ExpectedCall(raw["name"], self.compiler.arguments(raw["arguments"], path), raw)
