"""Parquet in, `Record`s out: row groups streamed, nested columns turned to JSON text.

Batches are sized by the row group's own bytes and read without pre-buffering, so memory is a few
megabytes whatever the file's size; `tools` is read dictionary-encoded, so equal ones are decoded once.
An Arrow struct gives every row the keys of all rows: a key whose value is null is taken for one that was
never there. It refuses to know what the columns mean, but for which of them hold JSON text.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any, BinaryIO, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from batchrun.errors import DatasetError, Problem
from batchrun.sources.moments import stored, text_of
from batchrun.sources.record import ALWAYS_JSON, Record, parses, split_object

BATCH_BYTES: Final = 2 << 20
MAX_BATCH_ROWS: Final = 2048
BUFFER: Final = 1 << 16
AT_ONCE: Final = 64

MARK: Final = b"batchrun.dataset"
"""Key of the schema metadata of the Parquet files that `convert` writes."""

_encode: Final = msgspec.json.Encoder(decimal_format="number", order=None).encode


def open_file(source: BinaryIO, name: str, *, repeating: frozenset[str] = frozenset(), buffer: int = BUFFER) -> pq.ParquetFile:
    """Open one file for streaming; `name` is what messages call it, `repeating` columns have few distinct texts.

    `buffer` is how many bytes of a column are read at once. Raises `DatasetError` where it is no Parquet file.
    """
    try:
        plain = pq.ParquetFile(source, pre_buffer=False, buffer_size=buffer)
        present = [field.name for field in plain.schema_arrow if field.name in repeating and _is_text(field.type)]
        if not present:
            return plain
        return pq.ParquetFile(source, pre_buffer=False, buffer_size=buffer, read_dictionary=present, metadata=plain.metadata)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        message = f"is not a Parquet file that can be read: {str(error).splitlines()[0]}"
        raise DatasetError([Problem(message=message, file=name, code="broken-file")]) from None


def records(
    file: pq.ParquetFile,
    *,
    name: str,
    index: int = 0,
    skip: int = 0,
    done: bytes = b"",
    structured: frozenset[str] = ALWAYS_JSON,
) -> Generator[Record, None, int]:
    """Yield the rows of one open file; `index` is the number of its first row.

    The first `skip` rows are passed over, and so may be those whose number is the place of a 1 in `done`: whole row groups
    of them stay unread, whole batches unconverted. `structured` names the columns whose strings are JSON text. Returns the
    number of the row after the last. Raises `DatasetError` where a page is broken or holds what Python cannot.
    """
    at, first = index, index + skip
    ours = MARK in (file.schema_arrow.metadata or {})
    for group in range(file.num_row_groups):
        meta = file.metadata.row_group(group)
        if _none_wanted(at, meta.num_rows, first, done):
            at += meta.num_rows
            continue
        rows = max(1, min(MAX_BATCH_ROWS, BATCH_BYTES * meta.num_rows // max(1, meta.total_byte_size)))
        try:
            for batch in file.iter_batches(batch_size=rows, row_groups=[group], use_threads=False):
                if _none_wanted(at, batch.num_rows, first, done):
                    at += batch.num_rows
                    continue
                passed = max(0, first - at)
                at += passed
                for fields in _rows(batch.slice(passed), structured):
                    yield Record(index=at, file=name, fields=_spread(fields) if ours else fields)
                    at += 1
        except (ValueError, OverflowError, pa.ArrowNotImplementedError) as error:  # Arrow's own of invalid data is a ValueError
            message = f"row group {group} cannot be read: {str(error).splitlines()[0]}"
            raise DatasetError([Problem(message=message, file=name, row=at, code="broken-file")]) from None
    return at


def _none_wanted(at: int, rows: int, first: int, done: bytes) -> bool:
    """Tell whether none of the `rows` rows from number `at` on is wanted: all come before `first`, or are done."""
    end = at + rows
    return end <= first or (end <= len(done) and done.find(b"\0", max(at, first), end) < 0)


def _spread(fields: dict[str, bytes]) -> dict[str, Any]:
    """Return the row of a file of ours: its `metadata` column holds all that has no column of its own."""
    held = fields.pop("metadata", None)
    return fields if held is None else {**fields, **split_object(held)}


def _rows(batch: pa.RecordBatch, structured: frozenset[str]) -> Iterator[dict[str, bytes]]:
    """Yield each row's present fields."""
    names = batch.schema.names
    columns = [_texts(batch.column(i), structured=name in structured or name == "metadata") for i, name in enumerate(names)]
    for values in zip(*columns, strict=True):
        if None in values:
            yield {name: text for name, text in zip(names, values, strict=True) if text is not None}
        else:
            yield dict(zip(names, values, strict=True))


def _texts(column: Any, *, structured: bool) -> Iterator[bytes | None]:
    """Yield the values of one column as JSON texts, None for null; only a few exist at a time, and stay near the processor."""
    kind = column.type
    if isinstance(column, pa.ExtensionArray) and not _is_uuid(kind):
        return _texts(column.storage, structured=structured)
    if pa.types.is_dictionary(kind):
        codes = column.indices
        used = codes.unique().drop_null()
        texts = _texts(column.dictionary.take(used), structured=structured)
        by_code = dict(zip(used.to_pylist(), texts, strict=True))
        return map(by_code.get, codes.to_pylist())
    convert: Callable[[Any], bytes] = _encode
    if _is_text(kind):
        convert = _json_or_text if structured else _encode
        if _is_binary(kind):
            convert = _after(_string, convert)
    elif (plain := _plainer(kind)) is not None:
        convert = _after(plain, convert)
    kept = stored(kind)
    return (None if value is None else convert(value) for value in _values(column if kept == kind else column.view(kept)))


def _values(column: Any) -> Iterator[Any]:
    """Yield the values of a column, made a few at a time."""
    for start in range(0, len(column), AT_ONCE):
        yield from column.slice(start, AT_ONCE).to_pylist()


def _after(first: Callable[[Any], Any], then: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """Return what does one and then the other."""
    return lambda value: then(first(value))


def _is_text(kind: pa.DataType) -> bool:
    """Tell whether values of this type are text, or the bytes that some writers leave untyped."""
    types = pa.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or _is_binary(kind))


def _is_binary(kind: pa.DataType) -> bool:
    """Tell whether values of this type are bytes of any length."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_uuid(kind: pa.DataType) -> bool:
    """Tell whether values of this type are UUIDs, of which Arrow makes Python's own."""
    return getattr(kind, "extension_name", None) == "arrow.uuid"


def _string(value: bytes) -> str:
    """Return the text of a value; bytes that are no UTF-8 keep U+FFFD where they are not."""
    return value.decode("utf-8", "replace")


def _json_or_text(value: str) -> bytes:
    """Return JSON text as it is, and any other text as a JSON string."""
    text = value.strip().encode()
    return text if text[:1] in (b"[", b"{") and parses(text) else _encode(value)


def _plainer(kind: Any) -> Callable[[Any], Any] | None:
    """Return what makes values of this type JSON-ready, None where they are already."""
    types = pa.types
    if types.is_struct(kind):
        return _object_of({kind.field(i).name: _plainer(kind.field(i).type) for i in range(kind.num_fields)})
    if types.is_map(kind):
        named: Callable[[Any], str] = text_of(kind.key_type, " ") or str
        inner = _plainer(kind.item_type) or _as_it_is
        return lambda value: {named(key): None if item is None else inner(item) for key, item in value}
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        step = _plainer(kind.value_type)
        return None if step is None else lambda value: [None if item is None else step(item) for item in value]
    if _is_binary(kind) or types.is_fixed_size_binary(kind):
        return _string
    return text_of(kind)


def _object_of(steps: dict[str, Callable[[Any], Any] | None]) -> Callable[[Any], Any]:
    """Return what turns a struct into an object: its null members are another row's keys."""
    return lambda value: {
        key: (step(value[key]) if step else value[key]) for key, step in steps.items() if value[key] is not None
    }


def _as_it_is(value: Any) -> Any:
    """Return the value."""
    return value
