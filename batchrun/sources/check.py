"""A dataset in, everything wrong with it out: one pass, before money is spent.

Every chosen row is shaped and linted, its id and prompt hashed, its tokens estimated. Problems are kept
with file, row, line and field up to a limit, and counted by code beyond it. Duplicates are found by
64-bit hashes (16 bytes a row) and told only after a second look at the rows concerned. One hash of all rows in
order tells later whether another dataset begins with them.
It refuses to send anything, or to know models and prices.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from mmap import mmap
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from batchrun.errors import DatasetError, Problem
from batchrun.job import Endpoint, RequestSpec
from batchrun.records import Sample
from batchrun.scoring.lint import lint_expected, lint_own
from batchrun.sources.bad_rows import BadRows
from batchrun.sources.dataset import Dataset
from batchrun.sources.jsonl import record_of
from batchrun.sources.lint import Finding, ToolLint, choice_findings, message_findings
from batchrun.sources.record import Line, Record, Row, RowError, Shaper
from batchrun.wire.lint import lint_marks, lint_request, lint_sample

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SHOWN: Final = 200
DOUBTS: Final = frozenset({"unsatisfiable", "breaks-schema", "unknown-argument", "unknown-tool"})
"""What the scorer says of an `expected` that can be read and never be met."""

BYTES_A_TOKEN: Final = 4
"""English prose and JSON are 3.5 to 4.5 bytes a token; an estimate, and named as one."""

PIECE: Final = 1 << 16
SHARES: Final = 16


class CheckReport(Struct, frozen=True, kw_only=True):
    """What one pass over a dataset found.

    `problems` holds the first `SHOWN` in row order, `counts` all of them by code. `bad_rows` maps the
    number of each row that cannot be run to the reason. `losses` counts what conversion lost, by name.
    `input_tokens` estimates one call for each row.
    """

    rows: int
    problems: tuple[Problem, ...]
    counts: Mapping[str, int]
    errors: int
    row_errors: int  # of them, those of one row
    warnings: int
    bad_rows: Mapping[int, str]
    losses: Mapping[str, int]
    input_tokens: int
    longest_row_tokens: int
    distinct_tools: int
    expected_rows: int
    asked: str  # a hash of all rows in order: the place, the id and the messages of each
    asked_first: str | None  # that of the first rows, as many as were asked about; None: there are fewer

    @property
    def ok(self) -> bool:
        """Whether every row can be run."""
        return self.errors == 0

    @property
    def some_ok(self) -> bool:
        """Whether rows are left that can be run when bad ones are skipped: all the errors are those of single rows."""
        return self.errors == self.row_errors and len(self.bad_rows) < self.rows

    def raise_for_errors(self) -> None:
        """Raise `DatasetError` with every error kept and a count of those that were not."""
        if self.ok:
            return
        kept = [problem for problem in self.problems if problem.severity == "error"]
        if self.errors > len(kept):
            by_code = ", ".join(f"{code}: {count}" for code, count in sorted(self.counts.items()))
            kept.append(Problem(message=f"{self.errors - len(kept)} more errors (in all, {by_code})", code="more"))
        raise DatasetError(kept)


def check_dataset(
    dataset: Dataset,
    spec: RequestSpec | None = None,
    *,
    endpoint: Endpoint | None = None,
    own_scorer: bool = False,
    hashing: bool = False,
    first: int = 0,
) -> CheckReport:
    """Read the chosen rows once and report all that is wrong with them.

    `spec` gives what the job adds to every row (`tools` where a row has none), `endpoint` where they go;
    what those two ask that is known to be refused is told too, without a row. `own_scorer`: `expected` is for
    a scorer of the user's, in a form of its own. Where the dataset skips bad rows, it remembers those found
    here. `first` is the number of rows that `asked_first` is told of. Raises what reading raises:
    `StorageError`, or `DatasetError` where a file as a whole is broken.
    """
    checker = _Checker(dataset, spec or RequestSpec(), endpoint or Endpoint(), own_scorer=own_scorer)
    rows, asked_first = 0, checker.asked if first == 0 else None
    for row in dataset.rows(hashing=hashing):
        rows += 1
        checker.look(row)
        if rows == first:
            asked_first = checker.asked
    if rows == 0:
        checker.note(Problem(message="there is no row to run", file=dataset.location, code="no-rows"))
    checker.tell_duplicates()
    if dataset.skips_bad_rows:
        dataset.set_bad_rows(checker.bad)
    return checker.report(rows, dataset.notes, asked_first)


class _Checker:
    """The state of one pass."""

    def __init__(self, dataset: Dataset, spec: RequestSpec, endpoint: Endpoint, *, own_scorer: bool) -> None:
        self._dataset = dataset
        self._spec, self._endpoint = spec, endpoint
        self._own_scorer = own_scorer
        self._shaper: Shaper = dataset.shaper()
        self._tools = ToolLint()
        self._job_tools = msgspec.json.encode(spec.tools) if spec.tools is not None else None
        self._ids, self._prompts = _Hashes(), _Hashes()
        self._asked = hashlib.sha256()  # the fastest where the processor has it, as most have
        self._problems: list[Problem] = []
        self._counts: Counter[str] = Counter()
        self._severities: Counter[str] = Counter()
        self.bad = BadRows()
        self._tokens = self._longest = self._expected = self._row_errors = 0
        for problem in lint_request(spec, endpoint):
            self.note(problem)

    def look(self, row: Row) -> None:
        """Judge one row."""
        sample = self._shaped(row)
        if sample is None:
            self._ids.add(hash((None, row.index)))  # a place of its own, so that hashes stand in row order
            self._prompts.add(hash((None, row.index)))
            self._asked.update(b"%d\n" % row.index)
            return
        tools = sample.tools if sample.tools is not None else self._job_tools
        self._ids.add(hash(sample.id))
        self._prompts.add(hash((sample.messages, sample.system, tools)))
        name = sample.id.encode("utf-8", "surrogatepass")
        self._asked.update(b"%d %d %d\n%b" % (row.index, len(name), len(sample.messages), name))
        self._asked.update(sample.messages)
        self._place(row, *self._findings(sample, tools))
        self._measure(sample, tools)

    @property
    def asked(self) -> str:
        """Return the hash of the rows looked at so far."""
        return self._asked.hexdigest()

    def _prompt_hash(self, sample: Sample) -> int:
        """Return a 64-bit hash of what is asked: the messages, the system prompt and the tools."""
        return hash((sample.messages, sample.system, sample.tools if sample.tools is not None else self._job_tools))

    def _shaped(self, row: Row) -> Sample | None:
        """Return the row's sample, None where there is none and what is wrong was noted."""
        if isinstance(row, Line) and (sample := self._shaper.usual(row)) is not None:
            return sample
        record = record_of(row)
        if record.problem is not None:
            self.note(record.problem)
            return None
        try:
            return self._shaper.sample(record)
        except RowError:
            for error in self._shaper.errors(record):
                self._place(record, Finding(field=error.field, code=error.code, message=str(error), hint=error.hint))
        return None

    def note(self, problem: Problem) -> None:
        """Count a problem, and keep it while there is room."""
        self._count(problem.code, problem.severity)
        if problem.row is not None and problem.severity == "error":
            self._row_errors += 1
            self.bad.add(problem.row, str(problem))
        if len(self._problems) < SHOWN:
            self._problems.append(problem)

    def _count(self, code: str, severity: str, times: int = 1) -> None:
        """Count problems of one kind."""
        self._counts[code] += times
        self._severities[severity] += times

    def tell_duplicates(self) -> None:
        """Look again at the rows whose hashes are equal, and note what is really twice there.

        Equal ids are errors: each is looked at. Equal prompts are warnings: once no more problems are kept, they are counted.
        """
        same_id, same_prompt = self._ids.repeated(), self._prompts.repeated()
        if not same_id and not same_prompt:
            return
        ids: dict[str, tuple[int, int | None]] = {}
        prompts: dict[int, int] = {}
        noted = self._counts["duplicate-prompt"]
        for place, row in enumerate(self._dataset.rows()):
            if place > same_id.last and (not same_prompt or len(self._problems) >= SHOWN):
                break
            if not (place in same_id or place in same_prompt):
                continue
            record = record_of(row)
            if record.problem is None and self._shaper.error(record) is None:
                self._tell_duplicate(record, ids, prompts)
        left = self._prompts.surplus - (self._counts["duplicate-prompt"] - noted)
        if left > 0:
            self._count("duplicate-prompt", "warning", left)

    def _tell_duplicate(self, record: Record, ids: dict[str, tuple[int, int | None]], prompts: dict[int, int]) -> None:
        """Note what one row has in common with one before it."""
        sample = self._shaper.sample(record)
        row, line = ids.setdefault(sample.id, (record.index, record.line))
        if row != record.index:
            message = f"{sample.id!r} is the id of row {row}" + (f" (line {line})" if line else "") + " too"
            self._place(record, Finding(field="id", code="duplicate-id", message=message, hint="ids must be unique"))
        same = prompts.setdefault(self._prompt_hash(sample), record.index)
        if same != record.index:
            message = f"the same prompt and tools as row {same}"
            self._place(record, Finding(field="messages", code="duplicate-prompt", message=message, severity="warning"))

    def report(self, rows: int, losses: Mapping[str, int], asked_first: str | None) -> CheckReport:
        """Return what was found."""
        return CheckReport(
            rows=rows,
            problems=tuple(sorted(self._problems, key=lambda problem: (problem.row is None, problem.row or 0))),
            counts=dict(self._counts),
            errors=self._severities["error"],
            row_errors=self._row_errors,
            warnings=self._severities["warning"],
            bad_rows=self.bad,
            losses=dict(losses),
            input_tokens=self._tokens,
            longest_row_tokens=self._longest,
            distinct_tools=self._tools.distinct,
            expected_rows=self._expected,
            asked=self.asked,
            asked_first=asked_first,
        )

    def _findings(self, sample: Sample, tools: bytes | None) -> list[Finding]:
        """Return what is wrong with a well-shaped row."""
        of_tools = () if tools is None else self._tools.findings(tools)
        found = [*of_tools, *message_findings(sample.messages)]
        if sample.params is not None or sample.tools == b"[]":
            found += map(_of_problem, lint_sample(sample, self._spec, self._endpoint))
        found += map(_of_problem, lint_marks(sample, self._spec))
        if sample.expected is not None and not of_tools:
            found += _of_expected(sample.expected, tools, own_scorer=self._own_scorer)
        if sample.tool_choice is not None:
            found += choice_findings(sample.tool_choice, self._tools.names(tools) if tools is not None else frozenset())
        return found

    def _place(self, row: Row, *findings: Finding) -> None:
        """Note findings at their row; a warning for which there is no room is counted and not made a problem at all."""
        for finding in findings:
            if finding.severity != "error" and len(self._problems) >= SHOWN:
                self._count(finding.code, finding.severity)
                continue
            self.note(
                Problem(
                    message=finding.message,
                    file=row.file,
                    row=row.index,
                    line=row.line,
                    field=finding.field or None,
                    hint=finding.hint,
                    severity=finding.severity,
                    code=finding.code,
                )
            )

    def _measure(self, sample: Sample, tools: bytes | None) -> None:
        """Add the row's estimated tokens."""
        size = len(sample.messages) + len(sample.system or b"") + len(tools or b"")
        tokens = -(-size // BYTES_A_TOKEN)
        self._tokens += tokens
        self._longest = max(self._longest, tokens)
        self._expected += sample.expected is not None


@functools.lru_cache(maxsize=1024)
def _of_expected(expected: bytes, tools: bytes | None, *, own_scorer: bool) -> tuple[Finding, ...]:
    """Return what is wrong with an `expected`, held against the tools."""
    lint = lint_own if own_scorer else lint_expected
    return tuple(map(_of_problem, lint(expected, tools)))


def _of_problem(problem: Problem) -> Finding:
    """Return what the scorer or the wire says of a row as a finding of it.

    An `expected` that cannot be read is an error; one that cannot be met is a warning, for the row can be
    sent, and published answer keys hold a per cent of them.
    """
    return Finding(
        field=problem.field or "",
        code=problem.code,
        message=problem.message,
        hint=problem.hint,
        severity="warning" if problem.code in DOUBTS else problem.severity,
    )


class _Hashes:
    """One 64-bit hash for each row looked at, in 8 bytes, to find those that occur more than once.

    They lie in memory mapped for them alone, which goes back to the system when they are done with: a freed array of this
    size stays with the process as holes.
    """

    def __init__(self) -> None:
        self._pieces: list[memoryview] = []
        self._piece = memoryview(b"")
        self._place = 0  # in the last piece
        self.surplus = 0  # rows that say again what one before them said; known once `repeated` was asked

    def add(self, value: int) -> None:
        """Remember the next row's hash."""
        if self._place == len(self._piece):
            self._piece, self._place = memoryview(mmap(-1, 8 * PIECE)).cast("q"), 0
            self._pieces.append(self._piece)
        self._piece[self._place] = value
        self._place += 1

    def repeated(self) -> Places:
        """Return the places, counted from 0, of rows whose hash occurs more than once."""
        import numpy as np  # noqa: PLC0415 -- 60 ms that start-up need not pay

        pieces = [np.frombuffer(piece, dtype=np.int64) for piece in self._pieces]
        pieces[-1:] = [piece[: self._place] for piece in pieces[-1:]]
        repeated, surplus = [], 0
        for share in range(SHARES):  # equal hashes fall into one share; sorting share by share needs little room
            hashes = _share(pieces, share)
            hashes.sort()
            again = hashes[1:] == hashes[:-1]
            surplus += int(np.count_nonzero(again))
            again[1:] &= hashes[1:-1] != hashes[:-2]  # the second of its like: each once
            repeated.append(hashes[1:][again])
        self.surplus = surplus
        if not surplus:
            return Places(b"", -1)
        mask = np.concatenate([np.isin(piece, np.concatenate(repeated)) for piece in pieces])
        return Places(mask.tobytes(), int(np.flatnonzero(mask)[-1]))


def _share(pieces: Sequence[npt.NDArray[np.int64]], share: int) -> npt.NDArray[np.int64]:
    """Return the hashes that fall into one share, in memory of their own."""
    import numpy as np  # noqa: PLC0415 -- as in `_Hashes.repeated`

    chosen = [(piece & (SHARES - 1)) == share for piece in pieces]
    size = sum(int(np.count_nonzero(mask)) for mask in chosen)
    hashes = np.frombuffer(mmap(-1, 8 * max(size, 1)), np.int64, size)
    start = 0
    for piece, mask in zip(pieces, chosen, strict=True):
        end = start + int(np.count_nonzero(mask))
        hashes[start:end] = piece[mask]
        start = end
    return hashes


class Places:
    """A set of row places, a byte a row."""

    __slots__ = ("_mask", "last")

    def __init__(self, mask: bytes, last: int) -> None:
        """`mask` holds 1 at each place that is in; `last` is the last of them, -1 where there is none."""
        self._mask, self.last = mask, last

    def __contains__(self, place: int) -> bool:
        return place < len(self._mask) and self._mask[place] == 1

    def __bool__(self) -> bool:
        return self.last >= 0
