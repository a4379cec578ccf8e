"""A location in, a `Dataset` out: something that yields the same samples in the same order each time.

Every pass opens the files anew and holds one row (and one chunk) at a time; what a pass learns for free,
such as the number of rows, is kept. It refuses to know how a row is judged (`check`) or sent.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from batchrun.errors import DatasetError, Problem
from batchrun.job import Select
from batchrun.records import Sample
from batchrun.sources import containers, detect
from batchrun.sources.bad_rows import BadRows
from batchrun.sources.containers import CONTAINERS, Container, Layout
from batchrun.sources.format import Format
from batchrun.sources.formats.registry import FORMATS
from batchrun.sources.jsonl import record_of
from batchrun.sources.mapping import ColumnMap
from batchrun.sources.places import HashedPart, Part, beside, resolve
from batchrun.sources.record import ALWAYS_JSON, Line, Record, Row, RowError, Shaper, identifier_of
from batchrun.sources.rewrite import Rewriter
from batchrun.sources.select import Selection


class Source(Struct, frozen=True, kw_only=True):
    """Where rows come from and how they are read: the resolved side of `open_dataset`."""

    location: str
    parts: tuple[Part, ...]
    containers: tuple[Container, ...]
    columns: ColumnMap
    format: Format | None  # None: our own


class Dataset:
    """The chosen rows of one location, in file order, as samples. Made by `open_dataset`.

    `notes` counts what the last full pass lost in conversion, by name.
    """

    def __init__(self, source: Source, selection: Selection, *, skip_bad: bool) -> None:
        """Keep the choices; nothing is read yet."""
        self._source = source
        self._selection = selection
        self._skip_bad = skip_bad
        self._bad = BadRows()
        self._rows: int | None = None
        self._chosen: int | None = None
        self._digest: str | None = None
        self._hashes: dict[str, str] = {}  # of files, by name
        self.notes: Counter[str] = Counter()

    @property
    def location(self) -> str:
        """Where it was opened."""
        return self._source.location

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files, in reading order."""
        return tuple(part.name for part in self._source.parts)

    @property
    def format(self) -> str:
        """The name of the rows' format; `batchrun` is our own."""
        return self._source.format.name if self._source.format else detect.NATIVE

    @property
    def to_score(self) -> bool:
        """Whether the rows are answers to score and not questions to run."""
        return self._source.format is not None and self._source.format.to_score

    @property
    def skips_bad_rows(self) -> bool:
        """Whether a bad row becomes a sample with a `problem` instead of an error."""
        return self._skip_bad

    @property
    def bad_rows(self) -> BadRows:
        """Return what `set_bad_rows` was told."""
        return self._bad

    def records(self, start: int = 0, *, done: bytes = b"") -> Iterator[Record]:
        """Yield the chosen rows numbered `start` and above under the contract's names, not yet shaped.

        Rows whose number is the place of a 1 in `done` may be left out.
        """
        for row in self._choose(start, done, self._layout):
            yield record_of(row)

    def rows(self, start: int = 0, *, done: bytes = b"", hashing: bool = False) -> Iterator[Row]:
        """Yield what `records` does, but lines of our own JSONL undecoded: a `Shaper` takes them as they are, and cheaper.

        `hashing` spares `digest` its own pass over the files that this one reads from end to end.
        """
        lines = self._plain and not self._selection.looks_into_rows
        return self._choose(start, done, replace(self._layout, lines=lines), hashing=hashing)

    def samples(self, start: int = 0, *, done: bytes = b"") -> Iterator[Sample]:
        """Yield the chosen rows numbered `start` and above, in order, without those whose number is the place of a 1 in `done`.

        Raises `DatasetError` at the first row that cannot be sent, unless bad rows are skipped: then it
        comes as a sample whose `problem` says why.
        """
        shaper = self.shaper()
        for row in self.rows(start, done=done):
            if not (row.index < len(done) and done[row.index]):
                yield self._sample(shaper, row)

    def shaper(self) -> Shaper:
        """Return what turns this dataset's records into samples."""
        return Shaper(lenient=self._lenient)

    def set_bad_rows(self, bad: BadRows) -> None:
        """Remember rows that `check` found bad though each is well-shaped alone (a second id, say)."""
        self._bad = bad

    def digest(self) -> str:
        """Return the SHA-256 of the content, as hex: of the one file, or of the files' hashes in order."""
        if self._digest is None:
            hashes = [self._hashes.get(part.name) or _sha256(part) for part in self._source.parts]
            self._digest = hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()
        return self._digest

    def stamp(self) -> list[list[str | int]] | None:
        """Return name, size and time of change (ns) of each file, by which a file that nobody touched is known again.

        None where a file is on another machine.
        """
        if any(part.remote for part in self._source.parts):
            return None
        found = [(part.name, Path(part.name).stat()) for part in self._source.parts]
        return [[name, told.st_size, told.st_mtime_ns] for name, told in found]

    def trust(self, stamp: object, digest: str) -> None:
        """Take `digest` for the content's where `stamp` is the files' own, so that they need not be read for it."""
        if stamp is not None and stamp == self.stamp():
            self._digest = digest

    def count(self) -> int | None:
        """Return how many rows are chosen, None where that takes a pass that has not been made."""
        if self._chosen is not None:
            return self._chosen
        if self._rows is None:
            counts = [containers.row_count(*pair) for pair in zip(self._source.parts, self._source.containers, strict=True)]
            known = [count for count in counts if count is not None]
            self._rows = sum(known) if len(known) == len(counts) else None
        return None if self._rows is None else self._selection.count(self._rows)

    def describe(self) -> dict[str, Any]:
        """Return what a manifest or a terminal tells about it; nothing is read for this."""
        return {
            "location": self.location,
            "format": self.format,
            "files": len(self.files),
            "bytes": sum(part.size or 0 for part in self._source.parts),
            "rows": self.count(),
        }

    @property
    def _lenient(self) -> bool:
        """Whether a structured field may be JSON text in a string."""
        strings_only = {"csv", "tsv", "parquet"} & set(self._source.containers)
        return bool(strings_only) or bool(self._source.columns)

    @property
    def _plain(self) -> bool:
        """Whether a line of it is a row as contract 2 has it, with nothing to convert or to rename."""
        return self._source.format is None and not self._lenient

    @property
    def _layout(self) -> Layout:
        """Which columns hold JSON text and which repeat, under the names the file has."""
        columns = self._source.columns
        return Layout(
            structured=ALWAYS_JSON | columns.plain(ALWAYS_JSON),
            repeating=frozenset({"tools"}) | columns.plain(frozenset({"tools"})),
        )

    def _declared(self) -> set[str]:
        """Return the columns that the files declare, whether or not a row has a value there."""
        return {
            name
            for part, kind in zip(self._source.parts, self._source.containers, strict=True)
            for name in containers.declared(part, kind)
        }

    def _sample(self, shaper: Shaper, row: Row) -> Sample:
        """Return a row's sample, or the one that stands for a bad row, or raise where those are not skipped."""
        reason = self._bad.get(row.index) if self._bad else None
        if reason is None and isinstance(row, Line) and (sample := shaper.usual(row)) is not None:
            return sample
        record = record_of(row)
        if reason is None:
            problem = record.problem
            if problem is None:
                try:
                    return shaper.sample(record)
                except RowError as error:
                    problem = problem_of(record, error)
            if not self._skip_bad:
                raise DatasetError([problem])
            reason = str(problem)
        return Sample(index=record.index, id=identifier_of(record), messages=b"[]", problem=reason)

    def _choose(self, start: int, done: bytes, layout: Layout, *, hashing: bool = False) -> Iterator[Row]:
        """Yield the chosen rows from number `start` on."""
        if self._selection.everything:
            yield from self._read(start, done, layout, hashing=hashing)
            self._chosen = self._rows
            return
        chosen = 0
        for row in self._selection.choose(lambda: self._read(0, b"", layout)):
            chosen += 1
            if row.index >= start:
                yield row
        self._chosen = chosen

    def _read(self, start: int, done: bytes, layout: Layout, *, hashing: bool = False) -> Iterator[Row]:
        """Yield every row from number `start` on, converted and under the contract's names."""
        source = self._source
        rewriter = Rewriter(source.format) if source.format else None
        at = 0
        for part, container in zip(source.parts, source.containers, strict=True):
            reading = HashedPart(part) if hashing and container != "parquet" else part
            rows = containers.read(reading, container, layout, index=at, skip=max(0, start - at), done=done)
            answers = _answers(source.format, part) if source.format else {}
            while True:
                try:
                    row = next(rows)
                except StopIteration as stop:
                    at = stop.value
                    break
                if isinstance(row, Line):
                    yield row
                else:
                    yield source.columns.apply(rewriter.rewrite(row, answers) if rewriter else row)
            if isinstance(reading, HashedPart) and reading.sha256 is not None:
                self._hashes[part.name] = reading.sha256
        self._rows = at
        if not start and not done:
            source.columns.require_found(self._declared)
        if rewriter:
            self.notes = rewriter.notes.counts


def open_dataset(
    location: str,
    *,
    format: str | None = None,  # noqa: A002 -- the job file's word
    columns: Mapping[str, str] | None = None,
    select: Select | None = None,
    on_bad_row: str = "fail",
) -> Dataset:
    """Open the dataset at `location`: a file, a folder or a glob, of any container and format known here.

    `format` names a format or a container; None tells it from the names and the first rows. `columns`
    maps the contract's fields to columns or JSON paths. Raises `UsageError` where there is no file, the
    format cannot be told or cannot be run, `JobError` where `columns` or `select` cannot be used, and
    `DatasetError` where a file is not what its name says.
    """
    selection, mapped = Selection(select or Select()), ColumnMap(columns or {})
    parts = resolve(location)
    forced: Container | None = next((name for name in CONTAINERS if name == format), None)
    named = detect.by_name(format, FORMATS) if format is not None and forced is None else None
    kinds = tuple(forced or containers.container_of(part) for part in parts)
    if format is None and not mapped:
        firsts = (
            map(record_of, containers.read(part, kind, Layout(), index=0, skip=0))
            for part, kind in zip(parts, kinds, strict=True)
        )
        named = detect.by_rows(firsts, location, FORMATS)
    if named is not None:
        kept = set(named.questions([part.name for part in parts]))
        parts, kinds = zip(*[pair for pair in zip(parts, kinds, strict=True) if pair[0].name in kept], strict=True)
    source = Source(location=location, parts=parts, containers=kinds, columns=mapped, format=named)
    return Dataset(source, selection, skip_bad=on_bad_row == "skip")


def problem_of(record: Record, error: RowError) -> Problem:
    """Return a row's error with its place."""
    return Problem(
        message=str(error),
        file=record.file,
        row=record.index,
        line=record.line,
        field=error.field,
        code=error.code,
        hint=error.hint,
    )


def _answers(form: Format, part: Part) -> dict[str, Mapping[str, Any]]:
    """Return the rows of the file that holds the answers to this one, by id; none where there is no such file."""
    name = form.companion(part.name)
    other = beside(name) if name else None
    if other is None:
        return {}
    rows = containers.read(other, containers.container_of(other), Layout(), index=0, skip=0)
    found: dict[str, Mapping[str, Any]] = {}
    for record in map(record_of, rows):
        row = detect.decoded(record)
        if row is None:
            problem = Problem(message="the answers cannot be read", file=record.file, row=record.index, line=record.line)
            raise DatasetError([problem])
        found[str(row.get(form.key))] = row
    return found


def _sha256(part: Part) -> str:
    """Return the SHA-256 of one file, read in chunks."""
    with part.open() as stream:
        hasher = hashlib.sha256()
        while chunk := stream.read(part.piece):
            hasher.update(chunk)
        return hasher.hexdigest()
