"""When a run ends before its rows do: signals, refusals, too many errors, money, time.

Each reason is an error value of the tree, with what happened and how to go on; the engine stops sending,
lets the calls in flight finish for a while, and hands the value back in its summary. The error rate stops
a run only on evidence: where the lower bound of its Wilson score interval at z = 3 (one-sided 99.9 %, since
it is looked at after every error) is above `max_error_rate`, with at least 20 rows done.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from typing import Final, Literal

from batchrun.errors import BatchrunError, BudgetReached, EndpointRefused, Interrupted, TooManyErrors
from batchrun.job import Limits
from batchrun.records import Failure

EVIDENCE_Z: Final = 3.0
EVIDENCE_ROWS: Final = 20
REFUSALS_IN_A_ROW: Final = 24
REFUSED_FOR_S: Final = 15.0
OUTAGE_FAULTS: Final = 16
OUTAGE_PAUSE_S: Final = 30.0
OUTAGE_S: Final = 60.0
UNREACHED_S: Final = 3.0
UNREACHED: Final = "check the address (endpoint.base_url, --base-url) and the network; then `batchrun resume RUN` goes on"
UNTRUSTED: Final = (
    'endpoint.ca_file = "FILE" or SSL_CERT_FILE names the authorities to trust, where the endpoint\'s is your own; '
    "then `batchrun resume RUN` goes on"
)
RESUME: Final = "fix that, then `batchrun resume RUN` goes on with the rows that are left"


class StopSignal:
    """Asks a run to stop: the first request drains it, the second ends it at once. Safe in a signal handler of a loop."""

    def __init__(self) -> None:
        """Nobody has asked yet."""
        self.requests = 0
        self.signal_number = int(signal.SIGINT)
        self._heard: Callable[[], None] | None = None

    def request(self, signal_number: int = signal.SIGINT) -> None:
        """Ask once more; call it from the event loop's thread (`loop.add_signal_handler` does)."""
        self.requests += 1
        if self.requests == 1:
            self.signal_number = int(signal_number)
        if self._heard is not None:
            self._heard()

    def listen(self, heard: Callable[[], None] | None) -> None:
        """Have `heard` called at each request from now on, and now if one was made already."""
        self._heard = heard
        if heard is not None and self.requests:
            heard()

    def error(self) -> BatchrunError:
        """Return the error that stands for it."""
        return self._error("", "`batchrun resume RUN` goes on from here")

    def too_late(self) -> BatchrunError:
        """Return the error of a run that was asked when nothing was left to call: all of it is written."""
        words = " when no call was left to make: all results are written"
        return self._error(words, "nothing is missing; `batchrun resume RUN` makes no call and ends as the run itself would have")

    def unwritten(self, place: str) -> BatchrunError:
        """Return the error of a run at `place` whose files were broken off."""
        words = " while the results were being written: every answer is in the journal"
        return self._error(words, f"`batchrun resume {place}` writes them, and makes the calls that are left")

    def _error(self, words: str, hint: str) -> BatchrunError:
        """Return the error of the first signal, which names the exit code."""
        name = signal.Signals(self.signal_number).name
        return Interrupted(f"stopped by {name}{words}", signal_number=self.signal_number, hint=hint)


class ErrorWatch:
    """Counts landed rows, and says when there is evidence of too many errors."""

    __slots__ = ("_limits", "done", "errored", "in_a_row")

    def __init__(self, limits: Limits) -> None:
        """Watch against `max_consecutive_errors` and `max_error_rate`."""
        self._limits = limits
        self.done = self.errored = self.in_a_row = 0

    def answered(self) -> None:
        """Count a row with an answer."""
        self.done += 1
        self.in_a_row = 0

    def failed(self, failure: Failure) -> TooManyErrors | None:
        """Count a row that ended without one; return the reason to stop, if that is one."""
        self.done += 1
        self.errored += 1
        self.in_a_row += 1
        return self.verdict(describe(failure))

    def verdict(self, last: str) -> TooManyErrors | None:
        """Return the reason to stop, if what was counted is one; `last` says what the last error was."""
        limits = self._limits
        if self.in_a_row >= limits.max_consecutive_errors:
            return TooManyErrors(f"{self.in_a_row} rows in a row errored, the last with: {last}", hint=RESUME)
        if self.done >= EVIDENCE_ROWS and wilson_lower(self.errored, self.done, EVIDENCE_Z) > limits.max_error_rate:
            share = f"{self.errored} of {self.done} rows errored, more than max_error_rate = {limits.max_error_rate:g} allows"
            return TooManyErrors(f"{share}; the last with: {last}", hint=RESUME)
        return None


class OutageWatch:
    """Tells an outage from single faults: nothing but faults, more of them than calls were in flight.

    Each round of an outage asks for a longer pause, in which no row uses up its tries; in between a few calls knock.
    It is over with the first reply that begins. One that lasts `max_wait_s` (a minute, where the endpoint never
    answered at all) is a reason to stop. Where there never was a connection at all, the address, the name or the
    certificate is wrong, which no patience mends: that stops the run after `UNREACHED_S`, or when a row has no try left.
    """

    __slots__ = ("_faults", "_misses", "_missing_since", "_patience_s", "_reached", "_rounds", "_since")

    def __init__(self, limits: Limits) -> None:
        """Be patient for a minute, until the endpoint has answered."""
        self._faults = self._rounds = self._misses = 0
        self._since = self._missing_since = 0.0
        self._reached = False
        self._patience_s: tuple[float, ...] = (OUTAGE_S, max(OUTAGE_S, limits.max_wait_s))

    @property
    def knocking(self) -> bool:
        """Whether an outage goes on, so that only a few calls should be on their way."""
        return self._rounds > 0

    def well(self) -> None:
        """Take note of a reply that has begun."""
        self._reached = True
        self._faults = self._rounds = 0
        self._patience_s = self._patience_s[1:] or self._patience_s

    def reached(self) -> None:
        """Take note of a call that got as far as a connection, however it ended."""
        self._reached = True

    def missed(self, failure: Failure, now: float, *, in_flight: int, last_try: bool) -> EndpointRefused | None:
        """Take note of a call that got no connection; return the reason to stop where none ever did."""
        if self._reached:
            return None
        self._misses += 1
        if self._misses == 1:
            self._missing_since = now
        if self._misses < in_flight or not (last_try or now - self._missing_since >= UNREACHED_S):
            return None
        hint = UNTRUSTED if "CERTIFICATE_VERIFY_FAILED" in failure.message else UNREACHED
        return EndpointRefused(f"the endpoint cannot be reached: {describe(failure)}", hint=hint)

    def fault(self, now: float, *, in_flight: int) -> float:
        """Take note of a fault outside of any pause; return for how many seconds the run should send nothing."""
        if not self._faults:
            self._since = now
        self._faults += 1
        if not self._rounds and self._faults < max(OUTAGE_FAULTS, 2 * in_flight):
            return 0.0
        self._rounds += 1
        return min(OUTAGE_PAUSE_S, 2.0 ** min(self._rounds - 1, 16))

    def too_long(self, failure: Failure, now: float) -> EndpointRefused | None:
        """Return the reason to stop where the outage has outlasted the patience with it."""
        lasted = now - self._since
        if not self._rounds or lasted < self._patience_s[0]:
            return None
        return EndpointRefused(f"the endpoint has not answered for {lasted:.0f} s: {describe(failure)}", hint=RESUME)


class RefusalWatch:
    """Tells a run that is refused from a row that is.

    A refusal (401, 402, 403, an unknown model, a spent quota) stops the run at once while nothing has been answered. Once
    the endpoint has answered, one row may be refused for what it alone asks: it is tried again, and ends as an error
    when another row was answered in between. `REFUSALS_IN_A_ROW` rows refused without an answer in between stop the run all the
    same, and so does a row that is still refused after `REFUSED_FOR_S` in which nothing was answered.
    """

    __slots__ = ("answered_at", "in_a_row")

    def __init__(self) -> None:
        """Nothing has been answered yet."""
        self.answered_at: float | None = None
        self.in_a_row = 0

    def answered(self, sent_at: float) -> None:
        """Note that a call sent at this moment was answered."""
        self.answered_at = sent_at if self.answered_at is None else max(self.answered_at, sent_at)
        self.in_a_row = 0

    def refused(self, first_at: float | None, now: float) -> Literal["run", "row", "again"]:
        """Say whom a refusal concerns; `first_at` is when this row was first refused, None if this is the first time."""
        if first_at is None:
            self.in_a_row += 1
        if self.answered_at is None or self.in_a_row >= REFUSALS_IN_A_ROW:
            return "run"
        if first_at is None:
            return "again"
        if self.answered_at > first_at:
            return "row"
        return "run" if now - first_at >= REFUSED_FOR_S else "again"


def wilson_lower(hits: int, total: int, z: float) -> float:
    """Return the lower bound of the Wilson score interval of `hits` in `total` (Wilson 1927)."""
    share = hits / total
    middle = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, (middle - spread) / (1 + z * z / total))


def refused(failure: Failure) -> EndpointRefused:
    """Return the stop for a failure that every call of the run would meet."""
    return EndpointRefused(f"the endpoint refuses: {describe(failure)}", hint=RESUME)


def budget_reached(account: str) -> BudgetReached:
    """Return the stop for a budget that the next call could exceed."""
    return BudgetReached(
        f"stopped at the budget: {account}, and the next call could exceed it",
        hint="`batchrun resume RUN --set limits.max_cost_usd=…` goes on with a larger one",
    )


def deadline_reached(seconds: float) -> BudgetReached:
    """Return the stop for `limits.deadline_s`: a budget of time, so it ends as one of money does."""
    return BudgetReached(f"stopped at the deadline of {seconds:g} s", hint="`batchrun resume RUN` goes on from here")


def describe(failure: Failure) -> str:
    """Return a failure in the endpoint's own words: `HTTP 401: invalid x-api-key (authentication_error)`."""
    return failure.message if failure.type is None else f"{failure.message} ({failure.type})"


def unwrap(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error that workers raised, one of the tree before any other."""
    errors = list(_leaves(group))
    return next((error for error in errors if isinstance(error, BatchrunError)), errors[0])


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """Return the errors of a group of groups, flat."""
    found: list[BaseException] = []
    for error in group.exceptions:
        found.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found
