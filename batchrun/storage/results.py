"""Rows in, `results.parquet` out: contract 5's columns, in order, whole or not there at all.

Rows become Arrow columns batch by batch, each column in one pass over the batch, so that no object a cell is
made on the way. A row group is closed at `GROUP_ROWS` rows or `GROUP_BYTES` bytes, whichever comes first,
which bounds memory whatever the answers' size. This module knows columns; it computes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from decimal import Decimal
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from batchrun.errors import StorageError
from batchrun.records import Row, ToolUse
from batchrun.storage.arrays import array, lists, strings, structs
from batchrun.storage.atomic import replacing, without_surrogates
from batchrun.storage.trouble import translated

SCHEMA_VERSION: Final = "1"
GROUP_ROWS: Final = 1 << 16
GROUP_BYTES: Final = 16 << 20
_BATCH_ROWS: Final = 1 << 12
_NANO: Final = 9

Columns: TypeAlias = Mapping[str, Sequence[Any]]
"""The values of each column of `SCHEMA`, by its name, one a row; money in billionths of a dollar."""


def _field(name: str, kind: pa.DataType, *, null: bool = False) -> pa.Field[Any]:
    """Return one column of the schema."""
    return pa.field(name, kind, nullable=null)


MONEY: Final = pa.decimal128(18, _NANO)
TOOL_USE: Final = pa.struct(
    [
        _field("id", pa.string()),
        _field("name", pa.string()),
        _field("input", pa.string(), null=True),
        _field("raw", pa.string()),
        _field("error", pa.string(), null=True),
    ]
)
_TOKENS: Final = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "thinking_tokens",
)
MONEY_COLUMNS: Final = ("cost_usd", "wasted_usd")
_LONG: Final = ("text", "thinking", "completions", "logprobs", "expected", "metadata")
_MILLISECONDS: Final = ("queued_ms", "ttft_ms", "first_call_ms", "latency_ms")

SCHEMA: Final = pa.schema(
    [
        _field("id", pa.string()),
        _field("index", pa.int64()),
        _field("model", pa.string()),
        _field("repeat", pa.int32()),
        _field("status", pa.string()),
        _field("outcome", pa.string()),
        _field("correct", pa.bool_(), null=True),
        _field("score", pa.float64(), null=True),
        _field("explanation", pa.string(), null=True),
        _field("tool_calls", pa.list_(_field("element", TOOL_USE))),
        *(
            _field(name, pa.string(), null=True)
            for name in ("expected", "text", "thinking", "stop_reason", "completions", "logprobs")
        ),
        *(_field(name, pa.int64(), null=True) for name in _TOKENS),
        _field("cost_usd", MONEY, null=True),
        _field("wasted_usd", MONEY, null=True),
        *(_field(name, pa.float64(), null=True) for name in _MILLISECONDS),
        _field("attempts", pa.int32()),
        _field("http_status", pa.int32(), null=True),
        *(
            _field(name, pa.string(), null=True)
            for name in ("error_type", "error_message", "request_id", "message_id", "response_model")
        ),
        _field("started_at", pa.timestamp("us", tz="UTC"), null=True),
        _field("tags", pa.list_(_field("element", pa.string()))),
        _field("cluster", pa.string(), null=True),
        _field("metadata", pa.string(), null=True),
    ]
)
"""Contract 5, column by column."""

_COLUMNS: Final = [(field, attrgetter(field.name)) for field in SCHEMA]
_REPEATING: Final[Any] = [  # documented by Arrow as a list, by its stubs as a bool
    *("model", "status", "outcome", "stop_reason", "error_type", "response_model", "cluster"),
    *("tool_calls.list.element.name", "tool_calls.list.element.error", "tags.list.element", "http_status"),
]
"""Columns of few values, which a dictionary makes small; elsewhere it would only cost time."""


class ResultsWriter:
    """Writes `results.parquet` in input order. `close` makes it appear; leaving a `with` block by an error does not.

    `provenance` goes to the file's key-value metadata, each key under `batchrun.`.
    """

    def __init__(self, path: Path, provenance: Mapping[str, str]) -> None:
        """Begin the file under a temporary name. Raises `StorageError`."""
        self.rows = 0
        self._path = path
        self._batches: list[pa.RecordBatch] = []
        self._pending_rows = self._pending_bytes = 0
        metadata = {f"batchrun.{key}": without_surrogates(value) for key, value in provenance.items()}
        schema = SCHEMA.with_metadata({"batchrun.schema_version": SCHEMA_VERSION, **metadata})
        self._exit = ExitStack()
        self._partial = self._exit.enter_context(replacing(path))
        try:
            with translated(path):
                self._file = pq.ParquetWriter(
                    self._partial, schema, compression="zstd", use_dictionary=_REPEATING, write_statistics=True
                )
        except BaseException:
            self._discard()
            raise

    def write(self, rows: Sequence[Row]) -> None:
        """Append rows; best in batches of hundreds. Raises `StorageError`."""
        for start in range(0, len(rows), _BATCH_ROWS):
            self.write_columns(columns_of(rows[start : start + _BATCH_ROWS]))

    def write_columns(self, columns: Columns) -> None:
        """Append rows by their columns, money in billionths. Raises `StorageError`."""
        for batch in to_batches(columns):
            self.write_batch(batch)

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Append a batch of `SCHEMA`. Raises `StorageError`."""
        self.rows += batch.num_rows
        self._batches.append(batch)
        self._pending_rows += batch.num_rows
        self._pending_bytes += batch.nbytes
        if self._pending_rows >= GROUP_ROWS or self._pending_bytes >= GROUP_BYTES:
            self._end_group()

    def close(self) -> None:
        """Finish the file and put it in its place. Raises `StorageError`."""
        try:
            self._end_group()
            with translated(self._path):
                self._file.close()
        except BaseException:
            self.abort()
            raise
        self._exit.close()

    def abort(self) -> None:
        """Give up: nothing appears under the final name and nothing is left behind."""
        with suppress(OSError):  # on a full disk closing fails as writing did; the file goes away all the same
            self._file.close()
        self._discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.close()
        else:
            self.abort()

    def _discard(self) -> None:
        """Leave `replacing` as an error would, so that it removes the temporary file."""
        given_up = StorageError(f"{self._path}: given up")
        with suppress(StorageError):
            self._exit.__exit__(StorageError, given_up, None)

    def _end_group(self) -> None:
        """Write what is pending as one row group."""
        if not self._batches:
            return
        table = pa.Table.from_batches(self._batches)
        self._batches, self._pending_rows, self._pending_bytes = [], 0, 0
        with translated(self._path):
            self._file.write_table(table, row_group_size=max(table.num_rows, 1))
        del table
        pa.default_memory_pool().release_unused()


def columns_of(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Return the columns of `rows`, money in billionths."""
    columns: dict[str, list[Any]] = {field.name: list(map(read, rows)) for field, read in _COLUMNS}
    for name in MONEY_COLUMNS:
        columns[name] = [_nanos(amount) for amount in columns[name]]
    return columns


def to_batches(columns: Columns) -> Iterator[pa.RecordBatch]:
    """Yield rows, by their columns, as Arrow record batches of `SCHEMA`, each small enough for Arrow's string arrays.

    Never fails on text: lone surrogates become U+FFFD.
    """
    for start, stop in _parts(columns):
        whole = start == 0 and stop == len(columns["id"])
        part = columns if whole else {name: values[start:stop] for name, values in columns.items()}
        arrays = [_column(field, part[field.name]) for field, _ in _COLUMNS]
        yield pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _parts(columns: Columns) -> Iterator[tuple[int, int]]:
    """Yield where to cut so that no part, by its long texts, is larger than one Arrow string array can be."""
    rows = len(columns["id"])
    sizes = [[len(text) if text else 0 for text in columns[name]] for name in _LONG]
    sizes.append([sum([len(call.raw or "") for call in uses]) for uses in columns["tool_calls"]])
    if rows and sum(map(sum, sizes)) <= GROUP_BYTES:
        yield 0, rows
        return
    start = size = 0
    for end, row in enumerate(zip(*sizes, strict=True), 1):
        size += sum(row)
        if size > GROUP_BYTES or end == rows:
            yield start, end
            start, size = end, 0


def _column(field: pa.Field[Any], values: Sequence[Any]) -> pa.Array[Any]:
    """Return one column's values as an Arrow array of the field's type."""
    if field.name == "tool_calls":
        return lists(values, _tool_uses([call for calls in values for call in calls]), field.type)
    return array(values, field.type)


def _tool_uses(calls: list[ToolUse]) -> pa.Array[Any]:
    """Return the struct array of `calls`; an id or a raw text that was not told is empty."""
    columns = [
        strings([call.id or "" for call in calls]),
        strings([call.name for call in calls]),
        strings([call.input for call in calls]),
        strings([call.raw or "" for call in calls]),
        strings([call.error for call in calls]),
    ]
    return structs(columns, TOOL_USE)


def _nanos(value: Decimal | None) -> int | None:
    """Return dollars as billionths, rounded half to even."""
    if value is None:
        return None
    return int(value.scaleb(_NANO).to_integral_value())
