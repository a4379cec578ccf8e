"""Lists of Python values in, Arrow arrays out, a column in one pass; and the rows of a table back.

Columns are built from their buffers: texts are joined and encoded at once, numbers go through numpy. That is faster than
Arrow's own conversion of objects, and spares a command the third of a second that this conversion takes to load pandas
wherever it happens to be installed, as Arrow's conversion of times to Python's does. This module refuses to know which
columns there are.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import accumulate
from typing import Any, Final, cast

import numpy as np
import pyarrow as pa

from batchrun.errors import StorageError
from batchrun.storage.atomic import without_surrogates

_WORD: Final = 2**63
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Values = Sequence[Any]


def table(schema: pa.Schema, columns: Mapping[str, Values]) -> pa.Table:
    """Return a table of columns; those of decimals are given in units of their last place."""
    return pa.Table.from_arrays([array(columns[field.name], field.type) for field in schema], schema=schema)


def array(values: Values, kind: pa.DataType) -> pa.Array[Any]:
    """Return the array of `values`, where None is null; of decimals in units of their last place.

    Never fails on text: lone surrogates become U+FFFD. A list is a sequence of texts. A time is a number of its units.
    """
    if values and values[0] is None is values[-1] and values.count(None) == len(values):
        return cast("pa.Array[Any]", pa.nulls(len(values), cast("Any", kind)))
    if pa.types.is_string(kind):
        return strings(values)
    if pa.types.is_decimal(kind):
        return decimals(values, kind)
    if pa.types.is_list(kind):
        given = [texts or () for texts in values]
        return _array(kind, values, _offsets(given), items=strings([text for texts in given for text in texts]))
    if pa.types.is_boolean(kind):
        return _array(kind, values, _bits([bool(value) for value in values]))
    numbers = np.array([value or 0 for value in values], dtype=_numpy_of(kind))
    return _array(kind, values, pa.py_buffer(numbers.tobytes()))


def strings(values: Sequence[str | None]) -> pa.Array[Any]:
    """Return a string array."""
    texts = [value or "" for value in values]
    joined = "".join(texts)
    if joined.isascii():
        data = joined.encode()
    else:
        encoded = [_encoded(text) for text in texts]
        data, texts = b"".join(encoded), encoded  # type: ignore[assignment] # from here on their lengths alone matter
    return _array(pa.string(), values, _offsets(texts), pa.py_buffer(data))


def lists(values: Sequence[Sequence[Any]], items: pa.Array[Any], kind: pa.DataType) -> pa.Array[Any]:
    """Return a list array: the items of all `values`, one after another, cut as they are."""
    return _array(kind, values, _offsets(values), items=items)


def structs(fields: Sequence[pa.Array[Any]], kind: pa.DataType) -> pa.Array[Any]:
    """Return a struct array without nulls."""
    return pa.Array.from_buffers(kind, len(fields[0]), [None], children=list(fields))


def decimals(values: Sequence[int | None], kind: Any) -> pa.Array[Any]:
    """Return a decimal128 array of amounts in units of their last place. Raises `StorageError` for what does not fit."""
    amounts = [value or 0 for value in values]
    largest = max(max(amounts, default=0), -min(amounts, default=0))
    if largest >= 10**kind.precision:
        raise StorageError(f"an amount of {Decimal(largest).scaleb(-kind.scale)} does not fit {kind}")
    if largest >= _WORD:
        return _array(kind, values, pa.py_buffer(b"".join(amount.to_bytes(16, sys.byteorder, signed=True) for amount in amounts)))
    words = np.array(amounts, dtype="q")
    low_high = (words, words >> 63)  # Arrow keeps the machine's order
    pairs = np.stack(low_high if sys.byteorder == "little" else low_high[::-1], axis=1)
    return _array(kind, values, pa.py_buffer(pairs.tobytes()))


def rows(table: pa.Table | pa.RecordBatch) -> list[dict[str, Any]]:
    """Return the rows of a table by the names of its columns; moments are in UTC."""
    columns = [_values(column) for column in table.columns]
    names = table.schema.names
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _values(column: Any) -> list[Any]:
    """Return the values of a column."""
    if not pa.types.is_timestamp(column.type):
        return list(column.to_pylist())
    moments = column.cast(pa.timestamp("us", tz=column.type.tz)).cast(pa.int64()).to_pylist()
    return [None if moment is None else _EPOCH + timedelta(microseconds=moment) for moment in moments]


def _array(kind: pa.DataType, values: Values, *buffers: pa.Buffer, items: pa.Array[Any] | None = None) -> pa.Array[Any]:
    """Return an array of `buffers`, and `items` where it is one of lists, null where a value is None."""
    valid = None if None not in values else _bits([value is not None for value in values])
    return pa.Array.from_buffers(kind, len(values), [valid, *buffers], children=None if items is None else [items])


def _bits(values: Sequence[bool]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(np.array(values, dtype=np.bool_), bitorder="little").tobytes())


def _offsets(values: Sequence[Sequence[Any]]) -> pa.Buffer:
    """Return where each of several sequences begins, laid end to end, and where the last one ends."""
    return pa.py_buffer(np.fromiter(accumulate(map(len, values), initial=0), dtype=np.int32, count=len(values) + 1).tobytes())


def _encoded(text: str) -> bytes:
    """Return UTF-8."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return without_surrogates(text).encode()


def _numpy_of(kind: pa.DataType) -> Any:
    """Return numpy's name for a fixed-width type; a timestamp is the integer that it is."""
    return np.dtype("i8") if pa.types.is_timestamp(kind) else np.dtype(kind.to_pandas_dtype())
