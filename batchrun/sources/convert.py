"""Any dataset in, one of our own out: JSONL or Parquet by the name's ending, whole or not there at all.

Rows stream through; each ends in the output or, with its reason, in the rejects file, which exists only
if it has a line. Losses are counted by name. It refuses to repair a row or to leave one out silently.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Protocol

import msgspec

from batchrun.errors import Problem, UsageError
from batchrun.sources.dataset import Dataset, problem_of
from batchrun.sources.places import suffix
from batchrun.sources.record import Record, RowError, identifier_of, joined, split_object
from batchrun.storage import places

JOINED: Final = ("tools", "expected", "messages", "prompt", "system", "tags", "cluster")
"""What a row may take from the row of the same id in another dataset, where it has none of its own."""

_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertReport:
    """What became of a source: `rows` written to `out`, `rejected` to `rejects` (None: there were none).

    `losses` counts what conversion lost, by name; `reasons` counts why rows were rejected.
    """

    format: str
    out: str
    rows: int
    rejected: int
    rejects: str | None
    losses: Mapping[str, int]
    reasons: Mapping[str, int]


class Writer(Protocol):
    """Where converted rows go."""

    def write(self, fields: Mapping[str, bytes]) -> None:
        """Take one row: contract names and others to JSON text."""

    def close(self) -> None:
        """Write what is held back."""

    def end(self) -> None:
        """Let go of the stream, where the rows broke off too."""


def convert(source: Dataset, out: str, *, rejects: str | None = None, answers: Dataset | None = None) -> ConvertReport:
    """Write the chosen rows of `source` to `out` (`.jsonl`, also `.gz` or `.zst`, or `.parquet`; any place).

    Rows that cannot be converted go to `rejects` (default: `OUT.rejects.jsonl`) with file, row and reason.
    `answers` fills in, by id, what a row lacks of `JOINED`; its rows are held in memory. Raises
    `UsageError` for an ending nobody knows, `StorageError` where nothing can be written, and what
    reading raises.
    """
    rejects = rejects or f"{out}.rejects.jsonl"
    read = (*source.files, *(answers.files if answers else ()))
    for written in (out, rejects):
        if any(_same(written, name) for name in read):
            raise UsageError(f"{written}: is the source itself", hint="name another file with --out")
    if _same(out, rejects):
        raise UsageError(f"{rejects}: is also where the rows go", hint="name another file with --rejects")
    others = {identifier_of(record): record for record in answers.records()} if answers else {}
    converter = _Converter(source, others)
    with ExitStack() as stack:
        writer = _writer(out, stack.enter_context(places.open_output(out)))
        stack.callback(writer.end)
        refused = _Rejects(rejects, stack)
        for record in source.records():
            fields = converter.fields(record)
            if isinstance(fields, Problem):
                refused.write(record, fields)
            else:
                writer.write(fields)
                converter.rows += 1
        writer.close()
    return ConvertReport(
        format=source.format,
        out=out,
        rows=converter.rows,
        rejected=sum(refused.reasons.values()),
        rejects=rejects if refused.reasons else None,
        losses=dict(source.notes),
        reasons=dict(refused.reasons),
    )


class _Converter:
    """Turns records into rows to write."""

    def __init__(self, source: Dataset, others: Mapping[str, Record]) -> None:
        self._source = source
        self._shaper = source.shaper()
        self._others = others
        self.rows = 0

    def fields(self, record: Record) -> dict[str, bytes] | Problem:
        """Return the row under the contract's names, or why there is none."""
        if record.problem is not None:
            return record.problem
        joined_record = self._joined(record)
        if self._source.to_score:
            return {name: bytes(raw) for name, raw in joined_record.fields.items()}
        try:
            sample = self._shaper.sample(joined_record)
        except RowError as error:
            return problem_of(record, error)
        prompt = joined_record.fields.get("prompt")
        asked = {"messages": sample.messages} if prompt is None or bytes(prompt) == b"null" else {"prompt": bytes(prompt)}
        found: dict[str, bytes | None] = {
            "id": _encode(sample.id),
            "system": sample.system,
            **asked,
            "tools": sample.tools,
            "tool_choice": sample.tool_choice,
            "params": sample.params,
            "expected": sample.expected,
            "cluster": None if sample.cluster is None else _encode(sample.cluster),
            "tags": _encode(sample.tags) if sample.tags else None,
        }
        rest = split_object(sample.metadata) if sample.metadata else {}
        return {name: text for name, text in found.items() if text is not None} | {name: bytes(raw) for name, raw in rest.items()}

    def _joined(self, record: Record) -> Record:
        """Return the record with what the other dataset has for its id and it has not."""
        other = self._others.get(identifier_of(record))
        if other is None:
            return record
        missing = {name: other.fields[name] for name in JOINED if name in other.fields and name not in record.fields}
        if "messages" in record.fields or "prompt" in record.fields:
            missing.pop("messages", None)
            missing.pop("prompt", None)
        return msgspec.structs.replace(record, fields={**record.fields, **missing})


def _same(one: str, other: str) -> bool:
    """Tell whether two places are one, by whatever path or link a local one is named."""
    if places.is_remote(one) or places.is_remote(other):
        return one == other
    return os.path.realpath(places.local_path(one)) == os.path.realpath(places.local_path(other))


class _Rejects:
    """The rejects file, begun with its first line."""

    def __init__(self, place: str, stack: ExitStack) -> None:
        self._place = place
        self._stack = stack
        self._stream: BinaryIO | None = None
        self.reasons: Counter[str] = Counter()

    def write(self, record: Record, problem: Problem) -> None:
        """Add one row: where it was, why it was refused, and the row itself where it could be read."""
        if self._stream is None:
            self._stream = self._stack.enter_context(places.open_output(self._place))
        self.reasons[problem.message] += 1
        members = {
            "file": _encode(record.file),
            "row": _encode(record.index),
            "line": _encode(record.line),
            "field": _encode(problem.field),
            "reason": _encode(problem.message),
            "content": joined({name: bytes(raw) for name, raw in record.fields.items()}),
        }
        self._stream.write(joined(members) + b"\n")


class _Jsonl:
    """Writes one JSON object a line, packed where the name says so."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream: Any = stream
        self._packed = name.lower().endswith((".gz", ".zst"))
        if name.lower().endswith(".gz"):
            import gzip  # noqa: PLC0415 -- rarely needed

            self._stream = gzip.GzipFile(
                filename="", fileobj=stream, mode="wb", mtime=0
            )  # no time in it: equal input, equal bytes
        elif name.lower().endswith(".zst"):
            import zstandard  # noqa: PLC0415 -- rarely needed

            self._stream = zstandard.ZstdCompressor().stream_writer(stream, closefd=False)

    def write(self, fields: Mapping[str, bytes]) -> None:
        """Write one line; line breaks between values, legal in JSON, become blanks."""
        line = joined(fields)
        self._stream.write((line.replace(b"\r", b" ").replace(b"\n", b" ") if b"\n" in line or b"\r" in line else line) + b"\n")

    def close(self) -> None:
        """Nothing is held back but what the packed stream does."""
        self.end()

    def end(self) -> None:
        """End the packed stream."""
        if self._packed:
            self._stream.close()


def _writer(out: str, stream: BinaryIO) -> Writer:
    """Return the writer that the name's ending asks for."""
    kind = suffix(out)
    if kind in {".jsonl", ".ndjson"}:
        return _Jsonl(stream, out)
    if kind in {".parquet", ".pq"}:
        from batchrun.sources.parquet_out import ParquetRows  # noqa: PLC0415 -- 200 ms that JSONL need not pay

        return ParquetRows(stream)
    raise UsageError(f"{out}: cannot write this kind of file", hint="end the name in .jsonl, .jsonl.gz, .jsonl.zst or .parquet")
