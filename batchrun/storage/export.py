"""`results.parquet` in, JSON Lines or CSV out, a few thousand rows at a time.

JSON Lines holds the columns as JSON: what `results.parquet` keeps as JSON text becomes the value it spells
(digit for digit: numbers are not read), money a number, time ISO 8601. CSV has one cell a column, JSON text
where a column is a list; an absent value is an empty cell, an empty text a quoted one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from batchrun.errors import StorageError, UsageError
from batchrun.storage.arrays import rows as rows_of
from batchrun.storage.arrays import strings
from batchrun.storage.trouble import translated

BATCH_ROWS: Final = 2048
_JSON_COLUMNS: Final = frozenset({"expected", "completions", "logprobs", "metadata"})
_encode: Final = msgspec.json.Encoder(decimal_format="number").encode


def read_batches(results: Path, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a results file in order, in bounded memory. Raises `StorageError`, `UsageError` for an unknown column."""
    try:
        with translated(results, "read"), pq.ParquetFile(results, pre_buffer=False, buffer_size=1 << 16) as file:
            if unknown := sorted(set(columns or ()) - set(file.schema_arrow.names)):
                raise UsageError(
                    f"{results}: has no column {', '.join(unknown)}", hint=f"it has {', '.join(file.schema_arrow.names)}"
                )
            yield from file.iter_batches(batch_size=BATCH_ROWS, columns=list(columns) if columns else None)
    except pa.ArrowInvalid as error:
        raise StorageError(f"{results}: is not a Parquet file: {error}") from None


def export_jsonl(results: Path, out: BinaryIO, columns: Sequence[str] | None = None) -> int:
    """Write the rows of `results` to `out` as JSON Lines; return how many."""
    rows = 0
    for batch in read_batches(results, columns):
        for row in rows_of(batch):
            out.write(_encode({name: _value(name, value) for name, value in row.items()}))
            out.write(b"\n")
        rows += batch.num_rows
    return rows


def export_csv(results: Path, out: BinaryIO, columns: Sequence[str] | None = None) -> int:
    """Write the rows of `results` to `out` as CSV (RFC 4180, UTF-8, with a header); return how many."""
    rows, writer = 0, None
    for batch in read_batches(results, columns):
        flat = pa.RecordBatch.from_arrays([_cells(column) for column in batch.columns], names=batch.schema.names)
        writer = writer or pa_csv.CSVWriter(out, flat.schema)
        writer.write_batch(flat)
        rows += batch.num_rows
    if writer is None:
        schema = pq.read_schema(results)
        writer = pa_csv.CSVWriter(out, pa.schema([pa.field(name, pa.string()) for name in columns or schema.names]))
    writer.close()
    return rows


FORMATS: Final[dict[str, Callable[..., int]]] = {"jsonl": export_jsonl, "csv": export_csv}
"""What `batchrun export --format` takes."""


def _value(name: str, value: Any) -> Any:
    """Return a cell as what JSON Lines holds."""
    if value is None:
        return None
    if name in _JSON_COLUMNS:
        return _raw(value)
    if name == "tool_calls":
        return [{**call, "input": None if call["input"] is None else _raw(call["input"])} for call in value]
    return value


def _raw(text: str) -> msgspec.Raw | str:
    """Return JSON text as itself on one line, or as a string should it not be JSON."""
    try:
        return msgspec.Raw(msgspec.json.format(text.encode(), indent=-1))
    except msgspec.DecodeError:
        return text


def _cells(column: pa.Array[Any]) -> pa.Array[Any]:
    """Return a column as what CSV holds: numbers, booleans and text."""
    if pa.types.is_nested(column.type):
        return strings([_encode(value).decode() for value in column.to_pylist()])
    if pa.types.is_timestamp(column.type):
        return pc.strftime(column, "%Y-%m-%dT%H:%M:%SZ")
    if pa.types.is_decimal(column.type):
        return column.cast(pa.string())
    return column
