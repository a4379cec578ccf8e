"""Small Parquet tables, written whole: `cost.parquet`, `history.parquet`.

Everything that fits in memory and is no result row; `results` is for those.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from batchrun.errors import StorageError
from batchrun.pricing.lines import CostLine
from batchrun.pricing.rates import nanos
from batchrun.storage.arrays import table as table_of
from batchrun.storage.atomic import replacing
from batchrun.storage.trouble import translated

_COST_FIELDS: Final[list[tuple[str, pa.DataType]]] = [
    ("dimension", pa.string()),
    ("value", pa.string()),
    ("model", pa.string()),
    ("kind", pa.string()),
    ("rows", pa.int64()),
    ("tokens", pa.int64()),
    ("cost", pa.decimal128(38, 9)),
    ("unpriced_rows", pa.int64()),
    ("currency", pa.string()),
]
COST_SCHEMA: Final = pa.schema(_COST_FIELDS)
"""`cost.parquet`: the fields of a `CostLine`."""


def cost_table(lines: Iterable[CostLine]) -> pa.Table:
    """Return the lines as a table of `COST_SCHEMA`."""
    listed = list(lines)
    columns: dict[str, list[Any]] = {name: [getattr(line, name) for line in listed] for name in COST_SCHEMA.names}
    columns["cost"] = [None if cost is None else nanos(cost) for cost in columns["cost"]]
    return table_of(COST_SCHEMA, columns)


def write_table(path: Path, table: pa.Table, metadata: Mapping[str, str] | None = None) -> None:
    """Put `table` at `path` as zstd Parquet, whole or not at all; `metadata` keys go under `batchrun.`. Raises `StorageError`."""
    if metadata:
        kept: dict[bytes, bytes] = dict(table.schema.metadata or {})
        kept.update({f"batchrun.{key}".encode(): value.encode() for key, value in metadata.items()})
        table = table.replace_schema_metadata(kept)
    with replacing(path) as partial, translated(path):
        pq.write_table(table, partial, compression="zstd")


def read_table(path: Path) -> pa.Table:
    """Return the table at `path`. Raises `StorageError` when it is missing or no Parquet."""
    try:
        with translated(path, "read"), pq.ParquetFile(path) as file:  # `pq.read_table` loads pandas where it is installed
            return file.read()
    except pa.ArrowInvalid as error:
        raise StorageError(f"{path}: is not a Parquet file: {error}") from None
