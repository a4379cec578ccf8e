"""A row's `tools` → their names, schemas and validators, compiled once a tool set and only when called.

Schemas are JSON Schema 2020-12, whatever `$schema` says, checked by jsonschema-rs with retrieval switched off: a
remote `$ref` is an invalid schema and never I/O. A tool without a schema, or with an invalid one, constrains
nothing; `problem` says why, for `check`. This module refuses to know what was expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final
from urllib.parse import unquote

import msgspec
from msgspec import Struct

from batchrun.scoring.matchers import literal
from batchrun.scoring.values import Json, NotJson, decode

_BACKTRACK_LIMIT: Final = 100_000
_SIZE_LIMIT: Final = 1_000_000
_ADDRESS: Final = "urn:batchrun:tool"
_CONTEXT: Final = ("$defs", "definitions", "$id", "$anchor")  # what a property's schema may refer to


class Tool(Struct, frozen=True, dict=True):
    """One tool; `schema` is its decoded `input_schema`, None where it has none."""

    name: str
    schema: Json = None

    @cached_property
    def _compiled(self) -> tuple[Any, str | None]:
        """The validator, None for a tool without a usable schema, and why it is not usable."""
        return (None, None) if self.schema is None else _compile(self.schema)

    @property
    def problem(self) -> str | None:
        """Say why the schema cannot be used, or None."""
        return self._compiled[1]

    @property
    def checks(self) -> bool:
        """Tell whether there is a schema to keep."""
        return self._compiled[0] is not None

    def valid(self, arguments: Json) -> bool:
        """Tell whether the arguments keep the schema, or there is none to keep."""
        validator = self._compiled[0]
        return validator is None or bool(validator.is_valid(arguments))

    def violation(self, arguments: Json) -> tuple[list[str | int], str]:
        """Return the path and the sentence of the first violation of arguments that are not `valid`."""
        error = next(self._compiled[0].iter_errors(arguments))
        return list(error.instance_path), error.message

    @cached_property
    def properties(self) -> Mapping[str, Json]:
        """The schemas of the top-level properties, what they refer to and their `allOf` laid into them."""
        return {name: _merged(parts, self.schema) for name, parts in self._written.items()}

    @cached_property
    def _written(self) -> Mapping[str, list[Json]]:
        """The schemas of the top-level properties as they are written, also in an `allOf` and where a `$ref` leads."""
        found: dict[str, list[Json]] = {}
        for part in _parts([self.schema], self.schema):
            named = part.get("properties")
            for name, schema in named.items() if type(named) is dict else ():
                found.setdefault(name, []).append(schema)
        return found

    def argument_valid(self, name: str, value: Json) -> bool:
        """Tell whether one argument by itself keeps its property's schema, or that cannot be told alone."""
        if name not in self._alone:
            self._alone[name] = _compile_property(name, self._written[name], self.schema)
        validator = self._alone[name]
        return self.checks if validator is None else bool(validator.is_valid({name: value}))

    @cached_property
    def _alone(self) -> dict[str, Any]:
        return {}

    @cached_property
    def _defaults(self) -> dict[tuple[str, bool], Any]:
        return {}

    def is_default(self, name: str, value: Json, *, exact: bool) -> bool:
        """Tell whether `value` is the property's own `default`, and that keeps the property's schema."""
        key = (name, exact)
        if key not in self._defaults:
            self._defaults[key] = self._default(name, exact=exact)
        matcher = self._defaults[key]
        return matcher is not None and matcher.right(value)

    def _default(self, name: str, *, exact: bool) -> Any:
        part = self.properties.get(name)
        if type(part) is not dict or "default" not in part:
            return None
        return literal(part["default"], exact=exact) if self.argument_valid(name, part["default"]) else None


class ToolSet(Struct, frozen=True):
    """The tools of a row by name; `known` is False where none were given, so that nothing is unknown."""

    tools: Mapping[str, Tool]
    known: bool
    problem: str | None = None


NO_TOOLS: Final = ToolSet({}, known=False)


def parse_tools(text: bytes | str | None) -> ToolSet:
    """Parse a row's `tools`: an array of objects with `name` and `input_schema` (or the chat form's `function`)."""
    if text is None:
        return NO_TOOLS
    try:
        raw = decode(text)
    except NotJson as error:
        return ToolSet({}, known=False, problem=f"`tools` is not JSON: {error}")
    if raw is None:
        return NO_TOOLS
    if type(raw) is not list:
        return ToolSet({}, known=False, problem="`tools` is no array")
    tools: dict[str, Tool] = {}
    for index, item in enumerate(raw):
        tool = _tool(item)
        if tool is None:
            return ToolSet({}, known=False, problem=f"`tools[{index}]` has no name")
        tools.setdefault(tool.name, tool)
    return ToolSet(tools, known=True)


def _tool(raw: Json) -> Tool | None:
    """Read one tool, in the Messages form or the chat form."""
    if type(raw) is dict and type(raw.get("function")) is dict:
        raw = {"input_schema": raw["function"].get("parameters"), **raw["function"]}
    if type(raw) is not dict or type(raw.get("name")) is not str:
        return None
    return Tool(raw["name"], raw.get("input_schema"))


def _compile(schema: Json) -> tuple[Any, str | None]:
    """Return the validator, or None and why there is none."""
    import jsonschema_rs  # noqa: PLC0415 - 10 ms that a plain start does not need

    if type(schema) not in (dict, bool):
        return None, "a schema is an object"
    if type(schema) is dict and "$schema" in schema:
        schema = {key: item for key, item in schema.items() if key != "$schema"}
    options = jsonschema_rs.FancyRegexOptions(backtrack_limit=_BACKTRACK_LIMIT, size_limit=_SIZE_LIMIT)
    try:
        return jsonschema_rs.Draft202012Validator(schema, pattern_options=options, offline=True), None
    except jsonschema_rs.ValidationError as error:
        place = ".".join(map(str, error.instance_path))
        return None, f"`{place}`: {error.message}" if place else error.message
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        return None, str(error)


def _compile_property(name: str, parts: list[Json], root: dict[str, Json]) -> Any:
    """Return a validator of one argument by itself, None where there is none.

    The rest of the schema is there under its own address, so that references lead to it and it asks for nothing.
    """
    part = parts[0] if len(parts) == 1 else {"allOf": parts}
    if _refers(part):
        address = root["$id"].removesuffix("#") if type(root.get("$id")) is str else _ADDRESS
        around = {key: item for key, item in root.items() if key != "$schema"}
        defs = root["$defs"] if type(root.get("$defs")) is dict else {}
        around |= {"$id": address, "$defs": {**defs, _ADDRESS: part}}
        lead = {"$ref": f"{address}#/$defs/{_ADDRESS}"}
        validator = _compile({"$defs": {"root": around}, "properties": {name: lead}})[0]
        if validator is not None:
            return validator
    return _compile({**{key: root[key] for key in _CONTEXT if key in root}, "properties": {name: part}})[0]


def _refers(schema: Json) -> bool:
    """Tell whether a reference may stand anywhere in a schema."""
    text = msgspec.json.encode(schema)
    return b'"$ref"' in text or b'"$dynamicRef"' in text


def _merged(parts: list[Json], root: Json) -> Json:
    """Return one schema of several that all hold, with what they refer to; where two say a thing, the nearest counts."""
    found: dict[str, Json] = {}
    for part in _parts(parts, root):
        found = {**part, **found}
    return found if any(type(part) is dict for part in parts) else parts[0]


def _parts(parts: list[Json], root: Json) -> list[dict[str, Json]]:
    """Return the schemas, those that local references of theirs lead to and those of their `allOf`, the nearest first."""
    found: dict[int, dict[str, Json]] = {}
    queue = list(parts)
    for part in queue:  # it grows on the way
        if type(part) is dict and id(part) not in found:
            found[id(part)] = part
            several = part.get("allOf")
            queue += [_target(part.get("$ref"), root), *(several if type(several) is list else ())]
    return list(found.values())


def _target(reference: Json, root: Json) -> Json:
    """Return what a local reference (`#/$defs/…`) leads to; None for any other, and for one that leads nowhere."""
    if type(reference) is not str or not reference.startswith("#/"):
        return None
    found = root
    for step in unquote(reference[2:]).split("/"):
        if type(found) is list:
            found = dict(zip(map(str, range(len(found))), found, strict=True)).get(step)
        else:
            found = found.get(step.replace("~1", "/").replace("~0", "~")) if type(found) is dict else None
    return found
