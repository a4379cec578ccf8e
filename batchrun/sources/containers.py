"""A file in, its rows out, by the container it is: JSONL, one JSON array, CSV, TSV or Parquet.

The name's suffix tells which, and the first bytes where it does not. Compression is told by the bytes
alone. It refuses to know what the rows mean.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import BinaryIO, Final, Literal

from msgspec import Struct

from batchrun.errors import DatasetError, Problem, StorageError, UsageError
from batchrun.sources import json_array, jsonl
from batchrun.sources.lines import BOM, chunks
from batchrun.sources.places import Part, suffix
from batchrun.sources.record import ALWAYS_JSON, Record, Row

Container = Literal["jsonl", "json", "csv", "tsv", "parquet"]

CONTAINERS: Final[tuple[Container, ...]] = ("jsonl", "json", "csv", "tsv", "parquet")

_BY_SUFFIX: Final[dict[str, Container]] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
}


class Layout(Struct, frozen=True, kw_only=True):
    """What a reader may use: which strings are JSON text, which columns repeat, and whether lines may come undecoded."""

    structured: frozenset[str] = ALWAYS_JSON
    repeating: frozenset[str] = frozenset({"tools"})
    lines: bool = False


def container_of(part: Part) -> Container:
    """Return what kind of file this is; raises `UsageError` where nothing tells."""
    known = _BY_SUFFIX.get(suffix(part.name))
    if known is not None:
        return known
    with part.open() as stream:
        head = next(chunks(stream, part.name, part.piece), b"").removeprefix(BOM).lstrip()
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"["):
        return "json"
    if head.startswith(b"{"):
        return "jsonl" if jsonl.is_object(head.partition(b"\n")[0]) or b"\n" not in head else "json"
    raise UsageError(f"{part.name}: cannot tell what kind of file this is", hint=f'format = "{" | ".join(CONTAINERS)}"')


def read(
    part: Part, container: Container, layout: Layout, *, index: int, skip: int, done: bytes = b""
) -> Generator[Row, None, int]:
    """Yield the rows of one file, the first one numbered `index` and the first `skip` passed over.

    Rows whose number is the place of a 1 in `done` may be passed over, where that saves anything.

    Returns the number of the row after the last. Raises `DatasetError` where the file as a whole is
    broken, `StorageError` where it cannot be read.
    """
    with part.open() as stream:
        if container == "parquet":
            return (yield from _parquet(part, stream, layout, index=index, skip=skip, done=done))
        pieces = chunks(stream, part.name, part.piece)
        if container == "jsonl":
            read_lines = jsonl.lines if layout.lines else jsonl.records
            return (yield from read_lines(pieces, file=part.name, index=index, skip=skip, done=done))
        if container == "json":
            return (yield from json_array.records(pieces, file=part.name, index=index, skip=skip))
        from batchrun.sources import csv  # noqa: PLC0415 -- rarely needed

        delimiter = "\t" if container == "tsv" else ","
        return (yield from csv.records(pieces, file=part.name, index=index, skip=skip, delimiter=delimiter))


def _parquet(part: Part, stream: BinaryIO, layout: Layout, *, index: int, skip: int, done: bytes) -> Generator[Record, None, int]:
    """Yield the rows of a Parquet file; Arrow says `OSError` of a broken page and of a broken connection."""
    from batchrun.sources import parquet  # noqa: PLC0415 -- 200 ms that the others need not pay

    try:
        buffer = part.piece // 4  # of each column
        file = parquet.open_file(stream, part.name, repeating=layout.repeating, buffer=buffer)
        rows = parquet.records(file, name=part.name, index=index, skip=skip, done=done, structured=layout.structured)
        return (yield from rows)
    except OSError as error:
        message = f"cannot be read: {error.strerror or str(error).splitlines()[0]}"
        if part.remote or error.errno:
            raise StorageError(f"{part.name}: {message}") from None
        raise DatasetError([Problem(message=message, file=part.name, code="broken-file")]) from None


def declared(part: Part, container: Container) -> list[str]:
    """Return the columns that a file declares before its rows; none where rows name their own."""
    if container != "parquet":
        return []
    from batchrun.sources import parquet  # noqa: PLC0415 -- as above

    with part.open() as stream:
        return list(parquet.open_file(stream, part.name).schema_arrow.names)


def row_count(part: Part, container: Container) -> int | None:
    """Return the number of rows where the file tells it without being read, else None."""
    if container != "parquet":
        return None
    from batchrun.sources import parquet  # noqa: PLC0415 -- as above

    with part.open() as stream:
        return int(parquet.open_file(stream, part.name).metadata.num_rows)
