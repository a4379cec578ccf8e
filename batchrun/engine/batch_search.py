"""A batch that may or may not have been accepted → its id, or the certainty that there is none.

The endpoint gives a batch no name of ours, so it is looked for by what it holds: among the workspace's batches since
just before it was sent, of that many requests, one whose results bear the names that were sent (the key of those names
was made for this one batch). Results can be read once a batch has ended, so a batch that may be ours is waited
for. None can be ours when the list has none left to consider `settle_s` after the submission broke off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from batchrun.engine.batch_endpoint import BatchEndpoint, BatchStatus
from batchrun.engine.batch_ledger import Submission
from batchrun.records import Failure
from batchrun.wire.batch_lines import read_line

CLOCK_SLACK_S: Final = 3600.0
"""So much earlier than our clock said may the endpoint have dated it."""

CREATE_S: Final = 600.0
"""The longest a submission may take; one whose process died is over by then."""

EMPTY_TRIES: Final = 3
"""So often results without a line are asked for again, before nobody can tell whose they are."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a look has brought: `id` of the batch; without one, `certain` says that there is none."""

    submission: Submission
    id: str | None
    certain: bool = True
    why: str = ""  # there is no id


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one look has come upon so far."""

    found: list[Found] = field(default_factory=list)
    waiting: set[int] = field(default_factory=set)  # counts of requests of batches that cannot be told yet
    closed: dict[int, str] = field(default_factory=dict)  # … that can never be told: the batch's id


class Search:
    """Looks for the batches of one run whose submission nobody saw the answer to. Times are epoch seconds."""

    def __init__(self, endpoint: BatchEndpoint, settle_s: float) -> None:
        """Begin with nothing to look for."""
        self._endpoint = endpoint
        self._settle_s = settle_s
        self._wanted: dict[str, tuple[Submission, float]] = {}
        self._names: dict[str, dict[int, int]] = {}
        self._strangers: set[str] = set()
        self._emptied: Counter[str] = Counter()

    def __bool__(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self._wanted)

    def expect(self, submission: Submission, now: float, *, settled: bool = False) -> None:
        """Look for a batch that was being sent until `now`, or until its process died; `settled`: the answer was whole."""
        over = min(now, submission.intent.at_us / 1e6 + CREATE_S)
        self._wanted[submission.key] = submission, over if settled else over + self._settle_s

    async def look(self, known: Collection[str], now: float) -> list[Found] | Failure:
        """Look once, past the batches that are `known`; return what is decided, or the failure that kept us from deciding.

        What was found before a call failed is returned and the failure is not: it is looked for no more, so nobody else
        would ever tell of it. The rest is decided by another look.
        """
        since = min(submission.intent.at_us for submission, _ in self._wanted.values()) / 1e6 - CLOCK_SLACK_S
        seen = _Seen()
        async with aclosing(self._endpoint.recent(since)) as batches:
            async for batch in batches:
                failure = batch if isinstance(batch, Failure) else await self._look_at(batch, known, seen)
                if failure is not None:
                    return seen.found or failure
        return seen.found + self._given_up(seen, now)

    def give_up(self, why: str) -> list[Found]:
        """Return that nothing can be known of what is still looked for, and look for it no more."""
        left = [Found(submission, None, certain=False, why=why) for submission, _ in self._wanted.values()]
        self._wanted.clear()
        return left

    def _counts(self) -> set[int]:
        """Return how many requests the batches have that are looked for."""
        return {submission.count for submission, _ in self._wanted.values()}

    async def _look_at(self, batch: BatchStatus, known: Collection[str], seen: _Seen) -> Failure | None:
        """Take note of what one batch of the list is to us; return why that could not be learned."""
        if batch.id in known or batch.id in self._strangers or batch.count not in self._counts():
            return None
        if not batch.ended:
            seen.waiting.add(batch.count)
            return None
        line = await self._first_line(batch)
        if isinstance(line, Failure) and line.retry == "retry" and line.status != 404:
            return line
        if line is None and self._emptied[batch.id] < EMPTY_TRIES:
            self._emptied[batch.id] += 1
            seen.waiting.add(batch.count)
            return None
        if line is None or isinstance(line, Failure):
            seen.closed[batch.count] = batch.id
            return None
        owner = self._owner(line)
        if owner is None:
            self._strangers.add(batch.id)
        else:
            del self._wanted[owner.key]
            seen.found.append(Found(owner, batch.id))
        return None

    async def _first_line(self, batch: BatchStatus) -> bytes | Failure | None:
        """Return the first line of a batch's results, None where there is none."""
        lines: list[bytes] = []

        def one(line: bytes) -> bool:
            lines.append(line)
            return False

        failure = await self._endpoint.download(batch.id, one)
        return failure or (lines[0] if lines else None)

    def _owner(self, line: bytes) -> Submission | None:
        """Return whose results a line is of."""
        told = read_line(line)
        if told is None:
            return None
        for submission, _ in self._wanted.values():
            names = self._names.setdefault(submission.key, submission.names())
            if names.get(told.name.ordinal) == told.name.check:
                return submission
        return None

    def _given_up(self, seen: _Seen, now: float) -> list[Found]:
        """Return what is decided of those that were not found."""
        decided = []
        for submission, settled_at in list(self._wanted.values()):
            if submission.count in seen.waiting or now < settled_at:
                continue
            doubt = seen.closed.get(submission.count)
            why = (
                "the endpoint has no such batch" if doubt is None else f"batch {doubt} may be it, and its results cannot be read"
            )
            decided.append(Found(submission, None, certain=doubt is None, why=why))
            del self._wanted[submission.key]
        return decided
