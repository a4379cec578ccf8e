"""The batches of a run that are not over: written down, their money set aside, counted, and asked after at their times.

What happens to a batch changes all of that at once, so it happens here and nowhere else: `announce` before it is sent,
`accepted` when its id is known, `close` when its calls have landed or are to be made anew. Refuses to know HTTP and
what a batch holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from batchrun.engine.batch_landing import Results
from batchrun.engine.batch_ledger import Ended, Intent, Landed, Ledger, Submission, Submitted, Void
from batchrun.engine.batch_patience import Patience, PollPace
from batchrun.engine.budget import MoneyBudget
from batchrun.engine.telemetry import Progress
from batchrun.job import Limits


@dataclass(slots=True, kw_only=True)
class AtWork:
    """A batch that the endpoint has: when to ask after it, and what came of asking so far."""

    submission: Submission
    pace: PollPace
    asking: Patience
    fetching: Patience  # apart: a download that always breaks off is given up, though the endpoint answers all else
    results: Results | None = None  # from its first download on
    lacked: int = 0  # downloads that lacked rows

    @property
    def id(self) -> str:
        """Return the endpoint's name of it."""
        return self.submission.id or ""


@dataclass(slots=True, kw_only=True)
class OpenBatches:
    """The open batches of one run. `now` is the event loop's time, `now_us` microseconds since the epoch."""

    ledger: Ledger
    budget: MoneyBudget
    progress: Progress
    limits: Limits
    now: Callable[[], float]
    now_us: Callable[[], int]
    at_work: dict[str, AtWork] = field(default_factory=dict)  # by key; of the others nobody knows whether they were accepted

    def restore(self) -> list[Submission]:
        """Take up what earlier sessions left open, and return it."""
        left = self.ledger.open()
        for submission in left:
            self._hold(submission)
            if submission.id is not None:
                self._work(submission)
        return left

    def announce(self, intent: Intent) -> Submission:
        """Write down what is about to be sent, and set its money aside."""
        submission = self.ledger.announce(intent)
        self._hold(submission)
        return submission

    def accepted(self, submission: Submission, batch: str) -> None:
        """Write down the id of a batch, and ask after it from now on."""
        self.ledger.note(Submitted(key=submission.key, at_us=self.now_us(), id=batch))
        self._work(submission)

    def ended(self, submission: Submission, counts: dict[str, int]) -> None:
        """Write down, once, that the endpoint has finished a batch."""
        if not submission.ended:
            self.ledger.note(Ended(key=submission.key, at_us=self.now_us(), counts=counts))

    def landed(self, submission: Submission) -> None:
        """Write down that the results of a batch are durable in the journal."""
        self._close(submission, Landed(key=submission.key, at_us=self.now_us()))

    def void(self, submission: Submission, why: str) -> None:
        """Write down that the calls of a batch that have not landed are to be made anew."""
        self._close(submission, Void(key=submission.key, at_us=self.now_us(), why=why))

    def _hold(self, submission: Submission) -> None:
        self.budget.reserve(submission.intent.reserved_usd)
        self.progress.in_flight += submission.count
        self.progress.batches += 1

    def _work(self, submission: Submission) -> None:
        self.at_work[submission.key] = AtWork(
            submission=submission,
            pace=PollPace(self.now()),
            asking=Patience(self.limits),
            fetching=Patience(self.limits),
        )

    def _close(self, submission: Submission, event: Landed | Void) -> None:
        """Write down that a batch is over and give its reservation back."""
        self.ledger.note(event)
        self.at_work.pop(submission.key, None)
        self.budget.release(submission.intent.reserved_usd)
        self.progress.in_flight -= submission.count
        self.progress.batches -= 1
