"""A row's `expected` and `tools` → the problems that make its score meaningless, before any call is paid for.

Found: an `expected` that cannot be read; one that no answer could satisfy; one that breaks the tool's own schema, so
that each answer is either wrong or a violation; one that names a tool or an argument that is not there; a schema that
cannot be used. Strategy: each matcher lists values that would be right where it can (a literal, an option, a date);
if none of them keeps the schema, no answer does. What cannot be listed (a regular expression) is given the benefit
of the doubt, and so is what keeps the schema written otherwise: in another order, or with a default beside it. This
module refuses to know rows and files: the caller adds where the row is.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from batchrun.errors import Problem
from batchrun.scoring import matchers
from batchrun.scoring.cache import Cache
from batchrun.scoring.expected import Calls, ExpectedCall, parse_expected
from batchrun.scoring.explain import cut, join
from batchrun.scoring.matchers import Entry, Matcher
from batchrun.scoring.schema import NO_TOOLS, Tool, ToolSet, parse_tools
from batchrun.scoring.values import Json, NotJson, canonical, decode, plain, shown

MAX_WITNESSES: Final = 64
"""A matcher with more right values than these is believed."""

_tools: Final[Cache[ToolSet]] = Cache(parse_tools)
_OTHER_PROPERTIES: Final = ("additionalProperties", "patternProperties", "unevaluatedProperties")
_COMBINING: Final = ("allOf", "anyOf", "oneOf", "if", "$ref", "$dynamicRef", "dependentSchemas")


def lint_expected(expected: bytes | str | None, tools: bytes | str | None) -> list[Problem]:
    """Return every problem of one row's `expected` (None: nothing to lint) and the tools it is held against."""
    found = () if tools is None else _lint_tools(tools)
    return list(found) if expected is None else [*found, *_lint_answer(expected, tools)]


def lint_own(expected: bytes | str, tools: bytes | str | None) -> list[Problem]:
    """Return the problems of a row that a scorer of the user's judges: its `expected` is in a form of its own, and is JSON."""
    found = lint_expected(None, tools)
    try:
        decode(expected)
    except NotJson as error:
        found.append(_problem(f"not JSON: {error}", "not-json"))
    return found


def _lint_answer(expected: bytes | str, tools: bytes | str | None) -> tuple[Problem, ...]:
    """Return every problem of one `expected`, held against the tools."""
    plan = parse_expected(expected)
    found = [_problem(flaw.message, flaw.code, place=flaw.path, hint=flaw.hint) for flaw in plan.flaws]
    toolset = NO_TOOLS if tools is None else _tools.get(tools)
    for alternative in plan.alternatives:
        if isinstance(alternative, Calls):
            for call in alternative.calls:
                found.extend(_lint_call(call, toolset))
    return tuple(found)


@functools.lru_cache(maxsize=1024)
def _lint_tools(tools: bytes | str) -> tuple[Problem, ...]:
    """Return every problem of a tool set: not readable, or a schema that is none."""
    toolset = _tools.get(tools)
    if toolset.problem:
        return (Problem(message=toolset.problem, field="tools", code="malformed-tools"),)
    return tuple(
        Problem(
            message=cut(f"`{tool.name}` has an invalid `input_schema`: {tool.problem}"),
            field="tools",
            hint="JSON Schema 2020-12, without remote references",
            code="invalid-schema",
        )
        for tool in toolset.tools.values()
        if tool.problem
    )


def _lint_call(call: ExpectedCall, tools: ToolSet) -> list[Problem]:
    """Return the problems of one expected call."""
    tool = tools.tools.get(call.name)
    if tool is None and tools.known:
        near = difflib.get_close_matches(call.name, list(tools.tools), n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"tools of the row: {', '.join(tools.tools) or 'none'}"
        return [_problem(f"`{call.name}` is none of the tools", "unknown-tool", hint=cut(hint))]
    found: list[Problem] = []
    right: dict[str, list[Json] | None] = {}
    for name, entry in call.arguments.items():
        right[name] = _witnesses(entry.matcher)
        found.extend(_lint_argument(call.name, name, entry, right[name], tool))
    if tool is None or not tool.checks or found:
        return found
    return _lint_whole(call, tool, right)


def _lint_argument(call: str, name: str, entry: Entry, right: list[Json] | None, tool: Tool | None) -> list[Problem]:
    """Return the problems of one argument by itself."""
    if right == [] and not entry.optional:
        return [_problem(f"`{call}`: no value of `{name}` is right", "unsatisfiable", hint="give `$any_of` an option")]
    if tool is None or not tool.checks:
        return []
    if name not in tool.properties:
        return [] if _takes_others(tool.schema) else [_unknown_argument(call, name, tool)]
    broken = _broken(name, right or [], tool)
    if broken:
        ordered = _witnesses(entry.matcher, orders=True)
        broken = [] if ordered is None else _broken(name, ordered, tool)
    if not broken:
        return []
    every = {_alike(value) for value in broken} == {_alike(value) for value in right or []}
    return [
        _problem(
            f"`{call}`: `{name}` = {shown(broken[0])} breaks the tool's own schema",
            "breaks-schema",
            hint="correct the answer or the tool's schema",
            severity="error" if every and not entry.optional and _listed_whole(entry.matcher) else "warning",
        )
    ]


def _broken(name: str, right: list[Json], tool: Tool) -> list[Json]:
    """Return the right values of an argument that break its schema, and are not the same as one that keeps it."""
    kept = {_alike(value) for value in right if tool.argument_valid(name, value)}
    return [value for value in right if _alike(value) not in kept]


def _alike(value: Json) -> object:
    """Return a hashable value, equal for values that differ in white space and in the order of arrays alone."""
    if type(value) is list:
        return ("array", frozenset(Counter(map(_alike, value)).items()))
    if type(value) is dict:
        return frozenset((key, _alike(item)) for key, item in value.items())
    return canonical(value)


def _lint_whole(call: ExpectedCall, tool: Tool, right: Mapping[str, list[Json] | None]) -> list[Problem]:
    """Return a problem where no combination of right arguments keeps the schema."""
    required = tool.schema.get("required") if type(tool.schema) is dict else None
    for name in required if type(required) is list else []:
        part = tool.properties.get(name) if type(name) is str else None
        if name not in call.arguments and not (type(part) is dict and "default" in part):
            message = f"`{call.name}` leaves out `{name}`, which its schema requires"
            return [_problem(message, "breaks-schema", hint="add the argument to `expected`")]
    first: Json = None
    for arguments in _arguments(call, right):
        if _can_keep(tool, arguments):
            return []
        first = arguments if first is None else first
    if first is None or set(required or ()) - call.arguments.keys():  # a default may stand in for what is left out
        return []
    ordered = {name: _witnesses(entry.matcher, orders=True) for name, entry in call.arguments.items()}
    if None in ordered.values() or any(_can_keep(tool, arguments) for arguments in _arguments(call, ordered)):
        return []
    path, message = tool.violation(first)
    place = f"`{join(path)}`: " if path else ""
    return [
        _problem(
            f"`{call.name}`: {place}{message}",
            "breaks-schema",
            hint="correct the answer or the tool's schema",
            severity="error" if all(_listed_whole(entry.matcher) for entry in call.arguments.values()) else "warning",
        )
    ]


def _arguments(call: ExpectedCall, right: Mapping[str, list[Json] | None]) -> list[Json]:
    """Return the arguments of a call that are right, [] where they cannot be listed."""
    parts = [(values, call.arguments[name].optional) for name, values in right.items()]
    return _combined(parts, lambda values: _object(call.arguments, values)) or []


def _can_keep(tool: Tool, arguments: dict[str, Json]) -> bool:
    """Tell whether arguments keep the schema as they are, with one of the valid defaults beside them, or with them all."""
    if tool.valid(arguments):
        return True
    defaults = {
        name: part["default"]
        for name, part in tool.properties.items()
        if name not in arguments and type(part) is dict and "default" in part and tool.argument_valid(name, part["default"])
    }
    ways = [defaults, *({name: value} for name, value in defaults.items())]
    return any(tool.valid({**arguments, **given}) for given in ways)


_ABSENT: Final = object()


def _witnesses(matcher: Matcher, *, orders: bool = False) -> list[Json] | None:
    """Return values that are right, [] where there is none, None where they cannot be listed; `orders`: in every order."""
    witnesses = functools.partial(_witnesses, orders=orders)
    found: list[Json] | None = None
    match matcher:
        case matchers.Text(value=value):
            found = list(dict.fromkeys((value, plain(value))))
        case matchers.Constant(value=value) | matchers.Number(value=value) | matchers.Near(value=value):
            found = [value]
        case matchers.ExactText(value=value) | matchers.Folded(value=value) | matchers.When(text=value):
            found = [value]
        case matchers.OneOf(options=options):
            found = _joined(map(witnesses, options))
        case matchers.Array(items=items) | matchers.Unordered(items=items) | matchers.UnorderedLiterals(items=items):
            found = _combined([(witnesses(item), False) for item in items], list)
            if orders and found is not None and type(matcher) is not matchers.Array:
                found = _joined(map(_orders, found))
        case matchers.Object(entries=entries):
            parts = [(witnesses(entry.matcher), entry.optional) for entry in entries.values()]
            found = _combined(parts, lambda values: _object(entries, values))
        case matchers.Every(parts=several):
            found = _of_all(matcher, [(part, witnesses(part)) for part in several])
    return found


def _of_all(matcher: Matcher, lists: list[tuple[Matcher, list[Json] | None]]) -> list[Json] | None:
    """Return the values that are right for several matchers at once: of one that lists all its own, or of them all."""
    for part, values in lists:
        if values is not None and _listed_whole(part):
            return [value for value in values if matcher.right(value)]
    return [value for _, values in lists for value in values or [] if matcher.right(value)] or None


def _orders(items: list[Json]) -> list[Json] | None:
    """Return an array in each order, None where there are too many."""
    if math.factorial(len(items)) > MAX_WITNESSES:
        return None
    return [list(order) for order in itertools.permutations(items)]


def _listed_whole(matcher: Matcher) -> bool:
    """Tell whether the witnesses are all right values there are, up to white space: no folding, tolerance or notation."""
    whole = True
    match matcher:
        case matchers.When() | matchers.Matching() | matchers.Anything() | matchers.Unordered() | matchers.UnorderedLiterals():
            whole = False
        case matchers.Folded(folds=folds):
            whole = not folds
        case matchers.Near(tolerance=tolerance):
            whole = not tolerance
        case matchers.Every(parts=parts):
            whole = any(map(_listed_whole, parts))
        case matchers.OneOf(options=parts) | matchers.Array(items=parts):
            whole = all(map(_listed_whole, parts))
        case matchers.Object(entries=entries):
            whole = not matcher.open and all(_listed_whole(entry.matcher) for entry in entries.values())
    return whole


def _joined(lists: Iterable[list[Json] | None]) -> list[Json] | None:
    """Return the values of all lists, None where one of them is not known."""
    known = list(lists)
    return None if None in known else [value for values in known for value in values or []]


def _combined(parts: list[tuple[list[Json] | None, bool]], build: Callable[[tuple[Json, ...]], Json]) -> list[Json] | None:
    """Return the ways to choose a right value for each part, `_ABSENT` among those of an optional one; None: too many."""
    if any(values is None for values, _ in parts):
        return None
    ways = [[*(values or []), *([_ABSENT] if optional else [])] for values, optional in parts]
    if math.prod(map(len, ways)) > MAX_WITNESSES:
        return None
    return [build(chosen) for chosen in itertools.product(*ways)]


def _object(entries: Mapping[str, Entry], values: tuple[Json, ...]) -> Json:
    return {key: value for key, value in zip(entries, values, strict=True) if value is not _ABSENT}


def _takes_others(schema: Json) -> bool:
    """Tell whether a schema may take an argument that its `properties` do not name, and says so."""
    if type(schema) is not dict or "properties" not in schema:
        return True
    says = any(schema.get(key, False) is not False for key in _OTHER_PROPERTIES)
    return says or any(key in schema for key in _COMBINING)


def _unknown_argument(call: str, name: str, tool: Tool) -> Problem:
    near = difflib.get_close_matches(name, list(tool.properties), n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"arguments of the tool: {', '.join(tool.properties) or 'none'}"
    return _problem(f"`{call}` has no argument `{name}`", "unknown-argument", hint=cut(hint))


def _problem(message: str, code: str, *, place: str = "", hint: str | None = None, severity: str = "error") -> Problem:
    return Problem(message=cut(message), field=f"expected{place and ' at ' + place}", hint=hint, code=code, severity=severity)
