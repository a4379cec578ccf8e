"""The ways a run can fail to go on, and what each one means to the shell.

A row that fails is a value (`records.Failure`) and the run goes on; only what stops a whole
command is raised. Each class knows its exit code (contract 6) and carries a hint: what to type next.

    BatchrunError                1   unexpected
    ├── UsageError               2   bad flag, job or dataset: nothing was sent
    │   ├── JobError                 … in the job file; carries every `Problem` found
    │   ├── DatasetError             … in the dataset; carries every `Problem` found
    │   └── MissingExtra             … an optional dependency is not installed
    ├── EndpointRefused          3   credential, model or endpoint: stopped early
    ├── StorageError             4   cannot read or write
    ├── TooManyErrors            5   done or stopped: more rows errored than allowed
    ├── BudgetReached            6   stopped at the budget; resumable
    ├── RunLocked                7   another run holds the lock
    ├── GateFailed               8   done, but a gate failed
    └── Interrupted        130/143   SIGINT / SIGTERM; resumable
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

MAX_SHOWN_PROBLEMS = 50


class Problem(NamedTuple):
    """One thing wrong with an input: where it is, what it is, and what to do about it.

    `row` counts records from 0 as `Sample.index` does; `line` counts lines of a text file from 1.
    """

    message: str
    file: str | None = None
    row: int | None = None
    line: int | None = None
    field: str | None = None
    hint: str | None = None
    severity: str = "error"  # "error" | "warning"
    code: str = ""  # stable short name, e.g. "duplicate-id"

    def __str__(self) -> str:
        """`FILE, row 3 (line 4), field `tools`: MESSAGE`, leaving out what is not known."""
        place = [self.file] if self.file else []
        if self.row is not None:
            place.append(f"row {self.row}" + (f" (line {self.line})" if self.line else ""))
        elif self.line is not None:
            place.append(f"line {self.line}")
        if self.field:
            place.append(f"field `{self.field}`")
        return ", ".join(place) + ": " + self.message if place else self.message


class BatchrunError(Exception):
    """Root of the tree. `str(error)` is one paragraph a user can act on; `hint` says what to type."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        """Keep the message for `str()` and the hint for the line after it."""
        super().__init__(message)
        self.hint = hint


class UsageError(BatchrunError):
    """A flag, a job or a dataset is wrong; nothing was sent."""

    exit_code = 2


class _WithProblems(UsageError):
    """A usage error that reports every problem of one file at once."""

    def __init__(self, problems: Sequence[Problem], *, hint: str | None = None) -> None:
        """Join the first `MAX_SHOWN_PROBLEMS` problems, one a line, and count the rest."""
        self.problems = tuple(problems)
        lines = [str(problem) for problem in self.problems[:MAX_SHOWN_PROBLEMS]]
        if len(self.problems) > MAX_SHOWN_PROBLEMS:
            lines.append(f"… and {len(self.problems) - MAX_SHOWN_PROBLEMS} more")
        first_hint = next((p.hint for p in self.problems if p.hint), None)
        super().__init__("\n".join(lines), hint=hint or first_hint)


class JobError(_WithProblems):
    """The job file is wrong; `problems` lists everything found, not the first."""


class DatasetError(_WithProblems):
    """The dataset is wrong; `problems` lists everything found, with row numbers."""


class MissingExtra(UsageError):
    """An optional dependency is needed; the hint is the install command."""

    def __init__(self, what: str, extra: str) -> None:
        """`what` needs the packages of the extra named `extra`."""
        super().__init__(f"{what} needs packages that are not installed", hint=f"pip install 'batchrun[{extra}]'")


class EndpointRefused(BatchrunError):
    """The endpoint refuses every call: credential, model, quota or address."""

    exit_code = 3


class StorageError(BatchrunError):
    """Something cannot be read or written; what is on disk stays valid."""

    exit_code = 4


class TooManyErrors(BatchrunError):
    """More rows errored than `limits.max_error_rate` allows."""

    exit_code = 5


class BudgetReached(BatchrunError):
    """Sending one more call could exceed `limits.max_cost_usd`."""

    exit_code = 6


class RunLocked(BatchrunError):
    """Another live process works on this run or job."""

    exit_code = 7


class GateFailed(BatchrunError):
    """The run is done, and a gate of the job failed."""

    exit_code = 8


class Interrupted(BatchrunError):
    """A signal ended the run early; `resume` goes on from here."""

    def __init__(self, message: str, *, signal_number: int, hint: str | None = None) -> None:
        """Remember which signal it was: the exit code is 128 + its number."""
        super().__init__(message, hint=hint)
        self.signal_number = signal_number

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        """130 for SIGINT, 143 for SIGTERM, as shells count them."""
        return 128 + self.signal_number
