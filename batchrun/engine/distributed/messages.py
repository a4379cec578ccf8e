"""What the processes of one run say to each other: values in, msgpack out.

A worker asks, the broker answers, one answer for each question; nothing here concerns a single row. A question that
the broker cannot answer yet (rates, money, rows) is answered when it can. Clocks of machines are never compared:
every moment is told as seconds from now. This module knows no socket and no cluster.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec import Struct

from batchrun.engine.concurrency import Change
from batchrun.engine.telemetry import Bin, Progress
from batchrun.errors import (
    BatchrunError,
    BudgetReached,
    EndpointRefused,
    Interrupted,
    RunLocked,
    StorageError,
    TooManyErrors,
    UsageError,
)
from batchrun.wire.ratelimit import RateLimits

NOTHING: Final = Decimal(0)


class Stop(Struct, frozen=True, kw_only=True):
    """Why a run stops, as a value that can be sent; `at_once`: calls in flight get no grace."""

    code: int
    message: str
    hint: str | None = None
    at_once: bool = False

    @classmethod
    def of(cls, error: BatchrunError) -> Stop:
        """Return what stands for `error`."""
        return cls(code=error.exit_code, message=str(error), hint=error.hint)

    def error(self) -> BatchrunError:
        """Return the error again: one of its exit code, with its words."""
        if self.code > _SIGNALS:
            return Interrupted(self.message, signal_number=self.code - _SIGNALS, hint=self.hint)
        return _BY_CODE.get(self.code, BatchrunError)(self.message, hint=self.hint)


_SIGNALS: Final = 128
_BY_CODE: Final[dict[int, type[BatchrunError]]] = {
    kind.exit_code: kind for kind in (UsageError, EndpointRefused, StorageError, TooManyErrors, BudgetReached, RunLocked)
}


class Counted(Struct, frozen=True, kw_only=True):
    """Landed rows since the last beat: how many, how many of them errored, and how many of those stand at the end."""

    done: int = 0
    errored: int = 0
    in_a_row: int = 0
    last: str = ""  # the newest error, in words


class Account(Struct, frozen=True, kw_only=True):
    """Where a worker's money is; `free` of what it was granted is given back with this."""

    spent: Decimal = NOTHING
    held: Decimal = NOTHING
    free: Decimal = NOTHING


class Measured(Struct, frozen=True, kw_only=True):
    """What one engine measured: its histograms as plain values; `began_ago_s` when it began."""

    began_ago_s: float
    histograms: dict[str, dict[str, Any]]
    width_s: float
    bins: list[Bin]
    concurrency: list[Change]


class Beat(Struct, frozen=True, kw_only=True, tag="beat"):
    """A worker's report, several times a second: its counters so far, and what is new since the last one."""

    progress: Progress
    counted: Counted = Counted()
    account: Account = Account()
    input_changes: dict[int, float] = {}  # by the bin of a lease: real usage less what was reserved
    output_changes: dict[int, float] = {}
    unused: int = 0  # calls of leases that were not sent in time
    told: RateLimits | None = None  # the newest headers
    refused: bool = False  # it met a refusal that slows the run
    pause_s: float = 0.0  # how much longer it sends nothing
    answered_s: float | None = None  # how long ago a call was sent that was answered
    stopped: Stop | None = None  # its own reason to stop
    measured: tuple[Measured, ...] = ()
    leaves: bool = False  # its last word


class AskRates(Struct, frozen=True, kw_only=True, tag="rates"):
    """Room for this many calls that are to be sent at once, and the tokens that they count together."""

    calls: int
    input: float
    output: float


class AskMoney(Struct, frozen=True, kw_only=True, tag="money"):
    """Money for a call whose worst case is `need`, better `want`; all that was free comes back with `account`."""

    need: Decimal
    want: Decimal
    account: Account


class AskRows(Struct, frozen=True, kw_only=True, tag="rows"):
    """More rows. `idle`: all that were given before have landed, and the worker waits; else it only looks ahead."""

    idle: bool


class RowsEnded(Struct, frozen=True, kw_only=True, tag="ended"):
    """The dataset ends before the row at this place."""

    at: int


class Look(Struct, frozen=True, kw_only=True, tag="look"):
    """The driver's own question: how far is the run? It may bring a reason to stop; the `last` look asks for all figures."""

    stop: Stop | None = None
    last: bool = False


class Lost(Struct, frozen=True, kw_only=True, tag="lost"):
    """The driver's report: this worker is dead. `landed`: what has landed by now, as the journal's index tells it."""

    worker: str
    landed: bytes


Question = Beat | AskRates | AskMoney | AskRows | RowsEnded | Look | Lost


class Word(Struct, frozen=True, kw_only=True, tag="word"):
    """The answer to a beat: what the worker has to know of the others."""

    ceiling: int = 1  # calls it may have in flight
    refused: bool = False  # another one met a refusal
    pause_s: float = 0.0
    answered_s: float | None = None
    scarce: bool = False  # give back free money
    stop: Stop | None = None


class Lease(Struct, frozen=True, kw_only=True, tag="lease"):
    """Room at the rates, from this moment on; the bins are for settling."""

    input_bin: int
    output_bin: int


class Money(Struct, frozen=True, kw_only=True, tag="grant"):
    """Money granted; None: it is spent, as `account` tells in words."""

    amount: Decimal | None
    account: str = ""


class Rows(Struct, frozen=True, kw_only=True, tag="range"):
    """Rows by their places among the chosen ones: `start` to before `stop` (None: the dataset's end).

    `landed`: somebody had them before, and this is what had landed when he died. Empty: none are left.
    """

    start: int = 0
    stop: int | None = 0
    landed: bytes | None = None

    @property
    def empty(self) -> bool:
        """Whether there are none."""
        return self.stop is not None and self.stop <= self.start


class View(Struct, frozen=True, kw_only=True, tag="view"):
    """The answer to a look: all workers' counters together, who has been silent for too long, why the run stops."""

    progress: Progress
    silent: tuple[str, ...] = ()
    stop: Stop | None = None
    measured: tuple[Measured, ...] = ()
    finished: bool = False  # every row has landed


Answer = Word | Lease | Money | Rows | View

encode = msgspec.msgpack.Encoder().encode
decode_question = msgspec.msgpack.Decoder(Question).decode
decode_answer = msgspec.msgpack.Decoder(Answer).decode
