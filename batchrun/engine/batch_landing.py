"""Lines of results → landed attempts, money settled, and the calls that another batch must ask again.

What the endpoint gave up (`canceled`, `expired`) lands as that, for a resumed run to ask again. An error that may pass
is kept as an attempt that is not its row's end, and once its batch is over the call goes into another one, up to
`max_attempts`; any other error is its row's end. An error that every call would meet (an unknown model, a spent quota)
ends the run where nothing was ever answered; its rows stay to be asked. Refuses to know files, HTTP and JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from batchrun.engine.batch_ledger import Submission
from batchrun.engine.budget import MoneyBudget
from batchrun.engine.ports import Land
from batchrun.engine.stopping import ErrorWatch, refused
from batchrun.engine.telemetry import Telemetry
from batchrun.errors import BatchrunError
from batchrun.job import Limits
from batchrun.records import Attempt, Failure, Reply
from batchrun.wire.batch_lines import BatchLine, read_line

MISSING = Failure(kind="empty", retry="retry", message="the batch ended without a result for this request")


@dataclass(frozen=True, slots=True, kw_only=True)
class LandingWiring:
    """What landing needs of a run."""

    land: Land
    landed: Callable[[int], bool]
    model_of: Callable[[int], str]
    budget: MoneyBudget
    redact: Callable[[str], str]
    max_line: int


class Lander:
    """Lands the results of a run's batches.

    `again` holds the calls for another batch, and which try that will be. They get there when their own batch is over and
    that is written down: a crash before would have them asked for twice, from there and from here.
    """

    def __init__(self, wiring: LandingWiring, limits: Limits, telemetry: Telemetry) -> None:
        """Nothing has landed yet."""
        self.again: dict[int, int] = {}
        self.ending: BatchrunError | None = None  # why nothing more should be submitted
        self._wiring = wiring
        self._limits = limits
        self._telemetry = telemetry
        self._watch = ErrorWatch(limits)
        self._answered = False
        self._refused: list[Attempt] = []

    def land(self, submission: Submission, ordinal: int, line: BatchLine, now: float) -> int | None:
        """Land what came of one call; return which try comes next, where there is to be one."""
        outcome = line.outcome
        attempt = Attempt(
            ordinal=ordinal,
            attempt=submission.intent.tries.get(ordinal, 1),
            final=True,
            status=line.status,
            model=self._wiring.model_of(ordinal),
            reply=outcome if isinstance(outcome, Reply) else None,
            failure=self.redacted(outcome) if isinstance(outcome, Failure) else None,
            started_at_us=submission.intent.at_us,
            request_id=line.request_id,
        )
        if attempt.failure is None:
            self._answer(attempt, submission, now)
            return None
        return self._fail(attempt, attempt.failure, now)

    def lacking(self, submission: Submission, ordinal: int, now: float) -> int | None:
        """Land a call that the results say nothing about; return which try comes next, where there is to be one."""
        tries = submission.intent.tries.get(ordinal, 1)
        return self.fail(tries, ordinal, MISSING, now, sent_at_us=submission.intent.at_us)

    def fail(self, tries: int, ordinal: int, failure: Failure, now: float, *, sent_at_us: int | None = None) -> int | None:
        """Land a failure that no line of results told; return which try comes next, where there is to be one."""
        attempt = Attempt(
            ordinal=ordinal,
            attempt=tries,
            final=True,
            status="errored",
            model=self._wiring.model_of(ordinal),
            failure=failure,
            started_at_us=sent_at_us,
        )
        return self._fail(attempt, failure, now)

    def settle(self) -> None:
        """Land what waited for the end of its batch: errors that every call would meet, if every call met them."""
        waiting, self._refused = self._refused, []
        for attempt in waiting:
            if attempt.failure is None:
                continue
            if self._answered:
                self._end(attempt, attempt.failure)
            else:  # for the record, with the endpoint's own words; a run that goes on asks again
                self._wiring.land(replace(attempt, status="canceled"))
                self.ending = self.ending or refused(attempt.failure)

    def _answer(self, attempt: Attempt, submission: Submission, now: float) -> None:
        """Land an answer; its money is settled on its own, its batch's reservation at the batch's end."""
        budget, worst = self._wiring.budget, submission.intent.worst_usd
        budget.reserve(worst)
        held = budget.settle(attempt, worst, "complete")
        self._telemetry.progress.cost = budget.told
        self._telemetry.ended(attempt, now)
        self._telemetry.progress.landed += 1
        self._answered = True
        self._watch.answered()
        self._wiring.land(replace(attempt, cost_reserved=str(held)) if held else attempt)

    def _fail(self, attempt: Attempt, failure: Failure, now: float) -> int | None:
        """Land the end of a row, or return which try its call comes to next."""
        self._telemetry.ended(attempt, now)
        if attempt.status != "errored":
            self._telemetry.progress.landed += 1
            self._wiring.land(attempt)
        elif failure.retry == "stop_run":
            self._refused.append(attempt)
        elif failure.retry == "retry" and attempt.attempt < self._limits.max_attempts:
            self._wiring.land(replace(attempt, final=False))
            self._telemetry.progress.retries += 1
            return attempt.attempt + 1
        else:
            self._end(attempt, failure)
        return None

    def _end(self, attempt: Attempt, failure: Failure) -> None:
        """Land a row without an answer, and watch for too many of them."""
        self._wiring.land(attempt)
        self._telemetry.progress.landed += 1
        self._telemetry.progress.errored += 1
        self.ending = self.ending or self._watch.failed(failure)

    def redacted(self, failure: Failure) -> Failure:
        """Return the failure without the credential, which an endpoint may echo."""
        redact = self._wiring.redact
        partial = None if failure.partial is None else redact(failure.partial)
        return replace(failure, message=redact(failure.message), partial=partial)

    def results_of(self, submission: Submission, now: Callable[[], float]) -> Results:
        """Return what takes the lines of one batch's results."""
        return Results(self, self._wiring, submission, now)


class Results:
    """Takes the lines of one batch, in any order and as often as they come; each call lands once.

    `left` are the calls of which nothing has come, `again` those to be made again and which try that will be.
    """

    def __init__(self, lander: Lander, wiring: LandingWiring, submission: Submission, now: Callable[[], float]) -> None:
        """Expect a line of each call that has not landed yet."""
        self._lander, self._wiring, self._submission, self._now = lander, wiring, submission, now
        self._names = submission.names()
        self.left = {ordinal for ordinal in self._names if not wiring.landed(ordinal)}
        self.again: dict[int, int] = {}
        self.strangers = 0  # lines that are no result of what was sent

    def take(self, line: bytes) -> bool:
        """Land one line; always ready for the next."""
        found = read_line(line, max_bytes=self._wiring.max_line)
        if found is None or self._names.get(found.name.ordinal) != found.name.check:
            self.strangers += 1
        elif found.name.ordinal in self.left:
            self._done(found.name.ordinal, self._lander.land(self._submission, found.name.ordinal, found, self._now()))
        return True

    def close(self) -> None:
        """Land the calls that no line has told of."""
        for ordinal in sorted(self.left):
            self._done(ordinal, self._lander.lacking(self._submission, ordinal, self._now()))

    def _done(self, ordinal: int, next_try: int | None) -> None:
        """Expect no more of a call."""
        self.left.discard(ordinal)
        if next_try is not None:
            self.again[ordinal] = next_try
