"""A row's `expected` and `tools` → the problems that make its score meaningless, before any call is paid for.

Found: an `expected` that cannot be read; one that no answer could satisfy; one that breaks the tool's own schema, so
that each answer is either wrong or a violation; one that names a tool or an argument that is not there; a schema that
cannot be used. Strategy: each matcher lists values that would be right where it can (a literal, an option, a date);
if none of them keeps the schema, no answer does. What cannot be listed (a regular expression) is given the benefit
of the doubt. This module refuses to know rows and files: the caller adds where the row is.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Final

from batchrun.errors import Problem
from batchrun.scoring import matchers
from batchrun.scoring.cache import Cache
from batchrun.scoring.expected import Calls, ExpectedCall, parse_expected
from batchrun.scoring.explain import cut, join
from batchrun.scoring.matchers import Entry, Matcher
from batchrun.scoring.schema import NO_TOOLS, Tool, ToolSet, parse_tools
from batchrun.scoring.values import Json, shown

MAX_WITNESSES: Final = 64
"""A matcher with more right values than these is believed."""

_tools: Final[Cache[ToolSet]] = Cache(parse_tools)
_OTHER_PROPERTIES: Final = ("additionalProperties", "patternProperties", "unevaluatedProperties")
_COMBINING: Final = ("allOf", "anyOf", "oneOf", "if", "$ref", "$dynamicRef", "dependentSchemas")


def lint_expected(expected: bytes | str | None, tools: bytes | str | None) -> list[Problem]:
    """Return every problem of one row's `expected` (None: nothing to lint) and the tools it is held against."""
    found = () if tools is None else _lint_tools(tools)
    return list(found) if expected is None else [*found, *_lint_answer(expected, tools)]


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
    broken = [value for value in right or [] if not tool.argument_valid(name, value)]
    if not broken:
        return []
    every = len(broken) == len(right or [])
    return [
        _problem(
            f"`{call}`: `{name}` = {shown(broken[0])} breaks the tool's own schema",
            "breaks-schema",
            hint="correct the answer or the tool's schema",
            severity="error" if every and not entry.optional and _listed_whole(entry.matcher) else "warning",
        )
    ]


def _lint_whole(call: ExpectedCall, tool: Tool, right: Mapping[str, list[Json] | None]) -> list[Problem]:
    """Return a problem where no combination of right arguments keeps the schema."""
    required = tool.schema.get("required") if type(tool.schema) is dict else None
    for name in required if type(required) is list else []:
        part = tool.properties.get(name) if type(name) is str else None
        if name not in call.arguments and not (type(part) is dict and "default" in part):
            message = f"`{call.name}` leaves out `{name}`, which its schema requires"
            return [_problem(message, "breaks-schema", hint="add the argument to `expected`")]
    violation = None
    parts = [(values, call.arguments[name].optional) for name, values in right.items()]
    for arguments in _combined(parts, lambda values: _object(call.arguments, values)) or []:
        if tool.valid(arguments):
            return []
        violation = violation or tool.violation(arguments)
    if violation is None or set(required or ()) - call.arguments.keys():  # a default may stand in for what is left out
        return []
    path, message = violation
    place = f"`{join(path)}`: " if path else ""
    return [
        _problem(
            f"`{call.name}`: {place}{message}",
            "breaks-schema",
            hint="correct the answer or the tool's schema",
            severity="error" if all(_listed_whole(entry.matcher) for entry in call.arguments.values()) else "warning",
        )
    ]


_ABSENT: Final = object()


def _witnesses(matcher: Matcher) -> list[Json] | None:
    """Return values that are right, [] where there is none, None where they cannot be listed."""
    found: list[Json] | None = None
    match matcher:
        case matchers.Constant(value=value) | matchers.Number(value=value) | matchers.Near(value=value):
            found = [value]
        case matchers.Text(value=value) | matchers.ExactText(value=value) | matchers.Folded(value=value):
            found = [value]
        case matchers.When(text=text):
            found = [text]
        case matchers.OneOf(options=options):
            found = _listed(options)
        case matchers.Array(items=items) | matchers.Unordered(items=items) | matchers.UnorderedLiterals(items=items):
            found = _combined([(_witnesses(item), False) for item in items], list)
        case matchers.Object(entries=entries):
            parts = [(_witnesses(entry.matcher), entry.optional) for entry in entries.values()]
            found = _combined(parts, lambda values: _object(entries, values))
        case matchers.Every(parts=several):
            lists = [listed for part in several if (listed := _witnesses(part)) is not None]
            found = [value for value in lists[0] if matcher.right(value)] if lists else None
    return found


def _listed_whole(matcher: Matcher) -> bool:
    """Tell whether the witnesses are all right values there are, up to white space: no folding, tolerance or notation."""
    match matcher:
        case matchers.Folded(folds=folds):
            return not folds
        case matchers.Near(tolerance=tolerance):
            return not tolerance
        case matchers.When() | matchers.Object(open=True):
            return False
        case (
            matchers.OneOf(options=parts)
            | matchers.Every(parts=parts)
            | matchers.Array(items=parts)
            | matchers.Unordered(items=parts)
        ):
            return all(map(_listed_whole, parts))
        case matchers.Object(entries=entries):
            return all(_listed_whole(entry.matcher) for entry in entries.values())
    return True


def _listed(options: tuple[Matcher, ...]) -> list[Json] | None:
    lists = [_witnesses(option) for option in options]
    return None if any(found is None for found in lists) else [value for found in lists for value in found or []]


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
