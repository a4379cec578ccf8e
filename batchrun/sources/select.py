"""Which rows are run: `where`, then `sample`, then `limit`, then `shard`, each streamed.

`where` is a polars SQL condition over a row's fields, evaluated in chunks. `sample` takes the rows whose
seeded hash is smallest: the same rows whatever the order of reading, and a smaller sample of the same
seed is part of a larger one. `shard` i/n takes every n-th chosen row, so the n shards are the whole.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from batchrun.errors import JobError, Problem
from batchrun.job import Select
from batchrun.sources.jsonl import record_of
from batchrun.sources.record import Record, Row

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

CHUNK_ROWS: Final = 1024
MAX_TRIED: Final = 512
_T = TypeVar("_T")

_QUOTED: Final = re.compile(r"""'[^']*'|"[^"]*\"""")
_OF_MANY_ROWS: Final = re.compile(
    r"\b(?:ARRAY_AGG|AVG|CORR|COUNT|COVAR(?:_POP|_SAMP)?|DENSE_RANK|FIRST|FIRST_VALUE|LAG|LAST|LAST_VALUE|LEAD|MAX|MEDIAN|MIN"
    r"|OVER|QUANTILE_CONT|QUANTILE_DISC|RANK|ROW_NUMBER|STDDEV(?:_SAMP)?|STDEV(?:_SAMP)?|STRING_AGG|SUM|VAR(?:_SAMP)?|VARIANCE)\s*\(",
    re.IGNORECASE,
)
"""SQL's aggregates and window functions, called."""

_SHARD: Final = re.compile(r"(\d+)/(\d+)")


class Selection:
    """The job's `select` table, checked. Raises `JobError` where a value of it cannot be used."""

    def __init__(self, spec: Select) -> None:
        """Compile what can be compiled before any row is read."""
        self._spec = spec
        self._shard = _shard(spec.shard)
        self._condition = Condition(spec.where) if spec.where is not None else None
        self._sampled: npt.NDArray[np.uint64] | None = None

    @property
    def everything(self) -> bool:
        """Whether every row is chosen."""
        spec = self._spec
        return spec.limit is None and spec.sample is None and spec.where is None and spec.shard is None

    @property
    def looks_into_rows(self) -> bool:
        """Whether the choice depends on more than the rows' numbers."""
        return self._condition is not None

    def choose(self, read: Callable[[], Iterable[Row]]) -> Iterator[Row]:
        """Yield the chosen ones of the rows that each call of `read` yields from the first on.

        With `sample`, the first use makes one more pass.
        """
        chosen = self._matching(read())
        if self._spec.sample is not None:
            if self._sampled is None:
                self._sampled = sampled((record.index for record in self._matching(read())), self._spec.sample, self._spec.seed)
            chosen = _among(chosen, self._sampled)
        if self._spec.limit is not None:
            chosen = itertools.islice(chosen, self._spec.limit)
        if self._shard is not None:
            position, of = self._shard
            chosen = itertools.islice(chosen, position - 1, None, of)
        return chosen

    def count(self, rows: int) -> int | None:
        """Return how many of `rows` rows are chosen, None where only a pass can tell."""
        if self._spec.where is not None:
            return None
        left = min(rows, self._spec.sample or rows, self._spec.limit or rows)
        if self._shard is not None:
            position, of = self._shard
            left = (left + of - position) // of
        return left

    def _matching(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield the rows that meet the condition."""
        return iter(rows) if self._condition is None else self._condition.filter(map(record_of, rows))


class Condition:
    """A polars SQL condition over the fields of a row (`index`, `tags`, any column), compiled once."""

    def __init__(self, text: str) -> None:
        """Compile; raises `JobError` where the text is no condition."""
        import polars as pl  # noqa: PLC0415 -- 365 ms, paid only by those who filter

        self._polars = pl
        self._text = text
        self._known: dict[str, Any] = {}  # the last type that a field's values had
        try:
            self._expression = pl.sql_expr(text)
            self._names = sorted({"index", *self._expression.meta.root_names()})
        except Exception as error:  # noqa: BLE001 -- polars raises several kinds that share no base of its own
            raise JobError([self._problem(error)]) from None
        if (many := _OF_MANY_ROWS.search(_QUOTED.sub("''", text))) is not None:
            called = many[0].rstrip("( ").upper()
            raise JobError([self._problem(ValueError(f"{called} is of many rows, and a condition is asked of each row alone"))])

    def filter(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yield the records that meet the condition; those that could not be read pass, to be reported."""
        unseen = set(self._names) - {"index"}
        rows = 0
        for chunk in _chunks(records, CHUNK_ROWS):
            rows += len(chunk)
            unseen -= {name for name in unseen if any(name in record.fields for record in chunk)}
            kept = self._verdicts([self._column(name, chunk) for name in self._names])
            if len(kept) != len(chunk):
                kept = kept * len(chunk)
            for record, keep in zip(chunk, kept, strict=True):
                if keep or record.problem is not None:
                    yield record
        if unseen and rows:
            problem = Problem(message=f"no row has a field {min(unseen)!r}", field="select.where", code="bad-condition")
            raise JobError([problem])

    def _verdicts(self, columns: list[Any]) -> list[bool]:
        """Return the verdicts on a chunk, one alone where it is the same for all.

        A column without a value in the chunk has the type of the chunks before it, and where there is none, the first type of
        which the condition can be asked: which rows stand together in a chunk decides nothing.
        """
        errors: list[Exception] = []
        for types in itertools.islice(itertools.product(*map(self._types, columns)), MAX_TRIED):
            try:
                frame = self._polars.DataFrame([column.cast(kind) for column, kind in zip(columns, types, strict=True)])
                verdicts = frame.select(self._expression.alias("verdict")).to_series()
                return list(verdicts.cast(self._polars.Boolean).fill_null(value=False))
            except Exception as error:  # noqa: BLE001 -- as above
                errors.append(error)
        raise JobError([self._problem(errors[0])])

    def _types(self, column: Any) -> list[Any]:
        """Return the types that a column may have, the likeliest first: its own, where any of its values tells it."""
        pl = self._polars
        if column.dtype not in (pl.Null, pl.List(pl.Null)):
            self._known[column.name] = column.dtype
            return [column.dtype]
        known = self._known.get(column.name)
        listed = [pl.List(pl.String), pl.List(pl.Int64), pl.List(pl.Boolean)]
        if column.dtype == pl.Null:
            return [pl.Null, pl.String, *listed, pl.Float64, pl.Boolean] if known is None else [known]
        return [known] if isinstance(known, pl.List) else [column.dtype, *listed]

    def _column(self, name: str, chunk: list[Record]) -> Any:
        """Return one column of the chunk: scalars and lists of scalars as they are, the rest as JSON text."""
        if name == "index":
            return self._polars.Series(name, [record.index for record in chunk])
        return self._polars.Series(name, [_value(record.fields.get(name)) for record in chunk], strict=False)

    def _problem(self, error: Exception) -> Problem:
        """Return polars' complaint as a problem of `select.where`."""
        return Problem(
            message=f"{self._text!r}: {str(error).splitlines()[0]}",
            field="select.where",
            hint="a polars SQL condition, strings in single quotes: \"city = 'Oslo' AND array_contains(tags, 'x')\"",
            code="bad-condition",
        )


def sampled(indices: Iterable[int], size: int, seed: int) -> npt.NDArray[np.uint64]:
    """Return, sorted, the `size` indices whose seeded hash is smallest (all, where there are fewer)."""
    import numpy as np  # noqa: PLC0415 -- 60 ms, paid only by those who sample

    held = np.empty(0, dtype=np.uint64)
    for chunk in _chunks(indices, max(CHUNK_ROWS, size)):
        held = np.concatenate([held, np.array(chunk, dtype=np.uint64)])
        if len(held) > size:
            held = held[np.argpartition(_hash(held, seed), size - 1)[:size]]
    return np.sort(held)


def _hash(indices: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.uint64]:
    """Return SplitMix64 of each index, moved by the seed's own; a bijection, so no two are equal."""
    import numpy as np  # noqa: PLC0415 -- as in `sampled`

    with np.errstate(over="ignore"):
        mixed = indices + _mix(np.array([seed & (2**64 - 1)], dtype=np.uint64))
        return _mix(mixed)


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return the SplitMix64 finalizer of each value (Steele, Lea and Flood 2014)."""
    import numpy as np  # noqa: PLC0415 -- as in `sampled`

    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _among(records: Iterator[Row], indices: npt.NDArray[np.uint64]) -> Iterator[Row]:
    """Yield the rows whose index is in the sorted array; both run upwards, so one walk does it."""
    wanted = iter(indices)
    want = next(wanted, None)
    for record in records:
        if want is None:
            return
        if record.index == int(want):
            yield record
            want = next(wanted, None)


def _chunks(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Yield lists of `size` items, the last one shorter."""
    source = iter(items)
    while chunk := list(itertools.islice(source, size)):
        yield chunk


def _value(raw: Any) -> Any:
    """Return a scalar or a list of scalars as it is, anything else as its JSON text."""
    if raw is None:
        return None
    text = bytes(raw)
    value = msgspec.json.decode(text)
    if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value)):
        return text.decode()
    return value


def _shard(text: str | None) -> tuple[int, int] | None:
    """Return (position from 1, of how many), or raise `JobError`."""
    if text is None:
        return None
    match = _SHARD.fullmatch(text.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        problem = Problem(
            message=f"{text!r} is no shard", field="select.shard", hint='the third of sixteen is "3/16"', code="bad-shard"
        )
        raise JobError([problem])
    return int(match[1]), int(match[2])
