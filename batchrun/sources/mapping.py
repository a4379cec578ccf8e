"""A job's `columns` table in, records with the contract's field names out.

A column is named plainly (`question`) or by a JSON path (`$.meta.ids[0]`); a path is followed through
raw JSON text, so what it finds keeps its bytes. A plain column that was given a field is used up; all
others stay, as metadata. It refuses to know what a field is for.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import msgspec

from batchrun.errors import JobError, Problem
from batchrun.sources.record import FIELDS, Record, split_array, split_object

Step = str | int

_MOST_NAMED: Final = 20
_STEP: Final = re.compile(r"""\.([^.\[\]]+)|\[(\d+)\]|\["([^"\]]+)"\]|\['([^'\]]+)'\]""")


class ColumnMap:
    """The `columns` table, compiled. Raises `JobError` with every entry that cannot be used."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        """Compile each path once."""
        problems = [problem for field, column in columns.items() if (problem := _unusable(field, column))]
        if problems:
            raise JobError(problems)
        self._columns = columns
        self._paths = {field: path_of(column) for field, column in columns.items()}
        self._never_found = set(columns)
        self._names: tuple[str, ...] = ()  # of the first row's own fields
        self._used_up = {path[0] for path in self._paths.values() if len(path) == 1}

    def __bool__(self) -> bool:
        """Tell whether there is anything to map."""
        return bool(self._paths)

    def plain(self, fields: frozenset[str]) -> frozenset[str]:
        """Return the columns that stand for one of `fields` as a whole."""
        return frozenset(str(path[0]) for field, path in self._paths.items() if field in fields and len(path) == 1)

    def apply(self, record: Record) -> Record:
        """Return the record under the contract's names; a path that leads nowhere leaves its field absent."""
        if not self._paths or record.problem is not None:
            return record
        fields = {name: raw for name, raw in record.fields.items() if name not in self._used_up}
        for field, path in self._paths.items():
            found = follow(record.fields, path)
            if found is not None:
                fields[field] = found
                self._never_found.discard(field)
        if not self._names:
            self._names = tuple(record.fields)
        return msgspec.structs.replace(record, fields=fields)

    def require_found(self, empty: Callable[[], Collection[str]]) -> None:
        """Raise `JobError` with every entry that led nowhere in all the rows there are, if there are any.

        `empty` tells which columns there are though no row has a value there.
        """
        if not self._names or not self._never_found:
            return
        there = empty()
        lost = [self._lost(field) for field in self._columns if field in self._never_found and self._columns[field] not in there]
        if lost:
            raise JobError(lost)

    def _lost(self, field: str) -> Problem:
        """Return the problem of an entry that led nowhere."""
        column = self._columns[field]
        near = difflib.get_close_matches(str(self._paths[field][0]), self._names, n=1)
        hint = f"the first row has: {', '.join(self._names[:_MOST_NAMED])}"
        if near and near[0] != column:
            hint = f"did you mean {near[0]!r}? {hint}"
        return Problem(message=f"no row has {column!r}", field=f"columns.{field}", hint=hint, code="no-such-column")


def path_of(column: str) -> tuple[Step, ...]:
    """Return the steps of a column: its plain name, or what a path beginning with `$` says.

    Raises `ValueError` at a path that cannot be read.
    """
    if not column.startswith("$"):
        return (column,)
    steps: list[Step] = []
    at = 1
    while at < len(column):
        match = _STEP.match(column, at)
        if match is None:
            raise ValueError(f"cannot be read from {column[at:]!r} on")
        name, position, double, single = match.groups()
        steps.append(int(position) if position is not None else name or double or single)
        at = match.end()
    if not steps or isinstance(steps[0], int):
        raise ValueError("must begin with the name of a column, as in `$.question`")
    return tuple(steps)


def follow(fields: Mapping[str, Any], path: tuple[Step, ...]) -> bytes | None:
    """Return the JSON text at `path`, None where there is none."""
    here = fields.get(str(path[0]))
    for step in path[1:]:
        if here is None:
            return None
        try:
            if isinstance(step, int):
                items = split_array(bytes(here))
                here = items[step] if step < len(items) else None
            else:
                here = split_object(bytes(here)).get(step)
        except msgspec.MsgspecError:
            return None
    return None if here is None else bytes(here)


def _unusable(field: str, column: str) -> Problem | None:
    """Return what is wrong with one entry of the table."""
    if field not in FIELDS:
        near = difflib.get_close_matches(field, FIELDS, n=1)
        hint = f"did you mean `columns.{near[0]}`?" if near else f"fields of a row: {', '.join(FIELDS)}"
        return Problem(message="is not a field of a dataset row", field=f"columns.{field}", hint=hint, code="unknown-field")
    try:
        path_of(column)
    except ValueError as error:
        return Problem(
            message=f"the path {column!r} {error}", field=f"columns.{field}", hint="as in `$.meta.ids[0]`", code="bad-path"
        )
    return None
