"""Rows of our own in, a Parquet file out: a column a field, structured ones as JSON text, zstd.

Fields outside the contract share one column, `metadata`, since no two rows need have the same; a mark in
the schema lets the reader spread them again. Row groups are cut by size, so memory is one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from batchrun.sources.parquet import MARK
from batchrun.sources.record import FIELDS, joined
from batchrun.storage.arrays import table

GROUP_BYTES: Final = 32 << 20
GROUP_ROWS: Final = 50_000

_TEXTS: Final = frozenset({"id", "prompt", "cluster"})
_SCHEMA: Final = pa.schema(
    [pa.field(name, pa.list_(pa.string()) if name == "tags" else pa.string()) for name in (*FIELDS, "metadata")],
    metadata={MARK: b"1"},
)
_decode: Final = msgspec.json.decode
_encode: Final = msgspec.json.encode


class ParquetRows:
    """Writes rows into an open stream; `close` writes the last group and the footer."""

    def __init__(self, stream: BinaryIO) -> None:
        """Begin the file."""
        self._writer = pq.ParquetWriter(stream, _SCHEMA, compression="zstd")
        self._columns: dict[str, list[Any]] = {name: [] for name in _SCHEMA.names}
        self._bytes = 0

    def write(self, fields: Mapping[str, bytes]) -> None:
        """Take one row."""
        rest = {name: text for name, text in fields.items() if name not in FIELDS}
        for name in FIELDS:
            self._columns[name].append(_cell(name, fields.get(name)))
        self._columns["metadata"].append(joined(rest).decode() if rest else None)
        self._bytes += sum(map(len, fields.values()))
        if self._bytes >= GROUP_BYTES or len(self._columns["id"]) >= GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        """Write what is held back, and the footer."""
        self._flush()
        self.end()

    def end(self) -> None:
        """Write the footer of what was written; Arrow's writer must be closed before its stream."""
        self._writer.close()

    def _flush(self) -> None:
        """Write the rows held as one group."""
        if self._columns["id"]:
            self._writer.write_table(table(_SCHEMA, self._columns))
            self._columns = {name: [] for name in _SCHEMA.names}
            self._bytes = 0


def _cell(name: str, text: bytes | None) -> object:
    """Return a field's value in its column: plain text, a list of tags, or JSON text, also where a text is something else."""
    if text is None:
        return None
    if name == "tags":
        given = _decode(text)
        return [_plain(tag) for tag in given] if isinstance(given, list) else None if given is None else [_plain(given)]
    if name in _TEXTS or (name == "system" and text.startswith(b'"')):
        return _plain(_decode(text))
    return text.decode()


def _plain(value: object) -> str | None:
    """Return a text as it is, and any other value as JSON."""
    return value if value is None or isinstance(value, str) else _encode(value).decode()
