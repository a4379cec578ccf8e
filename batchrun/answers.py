"""A file of answers made elsewhere → the same file with a verdict on every line, and a summary.

FILE is Parquet or JSONL with `expected`, `tools` and `tool_calls` (a list of `{name, input}`, `{name, arguments}` or
`{function: {name, arguments}}`; another form is refused); `text`, `stop_reason`, `id`, `tags`, `cluster` and `category`
are used where they are there. Every column is kept; `outcome`, `correct`, `score` and `explanation` are added (or
replaced). Rows stream through in batches; no call is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final

import msgspec
from msgspec import Struct

from batchrun.errors import DatasetError, Problem, UsageError
from batchrun.job import Scoring
from batchrun.records import Reply, Score
from batchrun.scoring import Scorer, open_scorer
from batchrun.scoring.answers import NoArguments, reply_from_calls
from batchrun.scoring.metrics import Metrics
from batchrun.sources import open_dataset
from batchrun.sources.record import Record
from batchrun.statistics.clustered import ClusteredMean
from batchrun.storage.atomic import replacing
from batchrun.storage.folder import require_outside
from batchrun.storage.trouble import translated

NEEDED: Final = ("expected", "tool_calls")
VERDICT: Final = ("outcome", "correct", "score", "explanation")
CALL_FORMS: Final = '{"name": …, "input": {…}}, {"name": …, "arguments": {…}}, {"function": {"name": …, "arguments": "{…}"}}'
BATCH: Final = 4096
PARQUET: Final = (".parquet", ".pq")
JSONL: Final = (".jsonl", ".ndjson")

_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode


class Marked(Struct, frozen=True, kw_only=True):
    """What scoring a file came to."""

    out: Path
    rows: int
    accuracy: dict[str, Any]
    metrics: dict[str, Any]


def score_file(source: Path, out: Path, scoring: Scoring, columns: Mapping[str, str] | None = None) -> Marked:
    """Score every row of `source` into `out` (same kind of file, whole or not at all).

    `columns` maps our names to the file's (`tool_calls` → `candidate_calls`). Raises `UsageError` for a file that is neither
    kind and for an `out` that is the source or a run's own file, `DatasetError` where a needed column is missing, `StorageError`.
    """
    kind = _kind(source)
    if _kind(out) != kind:
        raise UsageError(f"{out}: the verdicts go into a file of the same kind as {source.name}", hint=f"--out NAME.{kind}")
    with translated(out, "find"):
        same = out.exists() and source.exists() and out.samefile(source)
    if same:
        raise UsageError(f"{out}: is the source itself", hint="name another file with --out")
    require_outside(out)
    judge = _Judge(open_scorer(scoring), dict(columns or {}), str(source))
    with replacing(out) as partial:
        if kind == "parquet":
            _mark_parquet(source, partial, judge)
        else:
            with partial.open("wb") as stream:
                _mark_jsonl(source, stream, judge)
    return Marked(out=out, rows=judge.rows, accuracy=judge.accuracy(scoring.confidence), metrics=judge.metrics.summary())


def _kind(path: Path) -> str:
    """Return the kind of file a name says."""
    if path.name.endswith(PARQUET):
        return "parquet"
    if path.name.endswith(JSONL):
        return "jsonl"
    raise UsageError(f"{path}: is no file of answers", hint="give a .parquet or .jsonl file with expected, tools, tool_calls")


class _Judge:
    """Scores records, and counts."""

    def __init__(self, scorer: Scorer, columns: dict[str, str], file: str) -> None:
        self.metrics = Metrics()
        self.rows = 0
        self._scorer, self._columns, self._file = scorer, columns, file
        self._accuracy = ClusteredMean()

    def score(self, record: Record) -> Score:
        """Return the verdict on one row."""
        if record.problem is not None:
            raise DatasetError([record.problem])
        if self.rows == 0:
            self._require_columns(record)
        self.rows += 1
        reply = self._reply(record)
        score = self._scorer.score(self._json(record, "expected"), self._json(record, "tools"), reply)
        told = self._json(record, "tags")
        tags = None if told is None else _decode(told)
        self.metrics.add(
            score,
            row=record.index,
            tags=tags if isinstance(tags, list) else (),
            category=self._word(record, "category"),
        )
        if score.correct is not None:
            self._accuracy.add(float(score.correct), self._word(record, "cluster"))
        return score

    def _reply(self, record: Record) -> Reply:
        """Return the answer of one row; raise `DatasetError` where a call is in no form that is known."""
        calls = self._json(record, "tool_calls")  # as text: in values a key that is there twice would be there once
        try:
            return reply_from_calls(
                calls.decode() if isinstance(calls, bytes) else calls,
                text=self._word(record, "text"),
                stop_reason=self._word(record, "stop_reason"),
            )
        except NoArguments as error:
            problem = Problem(
                message=str(error),
                file=self._file,
                row=record.index,
                line=record.line,
                field=self._columns.get("tool_calls", "tool_calls"),
                hint=f"a call is one of {CALL_FORMS}",
            )
            raise DatasetError([problem]) from None

    def accuracy(self, confidence: float) -> dict[str, Any]:
        """Return the accuracy with its interval."""
        from batchrun.report.tally import proportion  # noqa: PLC0415 - only at the end

        return proportion(self._accuracy, confidence)

    def _require_columns(self, record: Record) -> None:
        """Raise for every needed column that the first row does not have."""
        problems = [
            Problem(
                message="is missing",
                file=self._file,
                field=self._columns.get(name, name),
                hint=f"name the column with --column {name}=NAME",
            )
            for name in NEEDED
            if self._columns.get(name, name) not in record.fields
        ]
        if problems:
            raise DatasetError(problems)

    def _json(self, record: Record, name: str) -> bytes | str | None:
        """Return a field's JSON text, also where the column holds it inside a string; None for null and absence."""
        raw = record.fields.get(self._columns.get(name, name))
        if raw is None:
            return None
        text = bytes(raw)
        if text[:1] == b'"':
            inner: str = _decode(text)
            return inner if inner.strip() else None
        return None if text == b"null" else text

    def _word(self, record: Record, name: str) -> str | None:
        raw = record.fields.get(self._columns.get(name, name))
        value = None if raw is None else _decode(raw)
        return value if isinstance(value, str) else None


def _mark_jsonl(source: Path, stream: IO[bytes], judge: _Judge) -> None:
    """Write each line of the source with its verdict added."""
    for record in open_dataset(str(source), format="jsonl").records():
        score = judge.score(record)
        fields = {name: value for name, value in record.fields.items() if name not in VERDICT}
        stream.write(_encode({**fields, **_verdict(score)}) + b"\n")


def _verdict(score: Score) -> dict[str, Any]:
    return {name: getattr(score, name) for name in VERDICT}


def _mark_parquet(source: Path, partial: Path, judge: _Judge) -> None:
    """Write each row group's rows of the source with four columns more."""
    import pyarrow as pa  # noqa: PLC0415 - 200 ms that JSONL need not pay
    import pyarrow.parquet as pq  # noqa: PLC0415

    from batchrun.storage.arrays import array  # noqa: PLC0415

    records = open_dataset(str(source), format="parquet").records()
    types: dict[str, pa.DataType] = {
        "outcome": pa.string(),
        "correct": pa.bool_(),
        "score": pa.float64(),
        "explanation": pa.string(),
    }
    with pq.ParquetFile(source) as file:
        kept = [name for name in file.schema_arrow.names if name not in VERDICT]
        fields = [file.schema_arrow.field(name) for name in kept] + [pa.field(name, types[name]) for name in VERDICT]
        schema = pa.schema(fields).with_metadata(file.schema_arrow.metadata)
        with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
            for batch in file.iter_batches(batch_size=BATCH, columns=kept):
                scores = [judge.score(record) for record in _first(records, batch.num_rows)]
                added = [array([getattr(score, name) for score in scores], types[name]) for name in VERDICT]
                writer.write_batch(pa.RecordBatch.from_arrays([*batch.columns, *added], schema=schema))


def _first(records: Iterator[Record], number: int) -> Iterable[Record]:
    """Yield the next `number` records."""
    for _ in range(number):
        yield next(records)
