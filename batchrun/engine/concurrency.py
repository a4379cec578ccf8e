"""How many calls may be in flight: grows while answers come back well, halves once per episode of refusals.

Additive increase, multiplicative decrease, as TCP does it, with time handed in. Answers count when they begin,
not when they end. Until the endpoint first refuses, each one makes room for two more, so that even long streams
double with every time to first byte; after that each makes room for one up to nine tenths of where the last
refusal came, and beyond it each full round of them does. An *episode*
begins with the first 429 or 529 and halves the limit; refusals of calls that were sent before that moment
belong to it and change nothing. A refusal of a call sent after it, with no good answer in between, prolongs
the episode: one call at a time then probes until one succeeds. A 5xx or a broken connection is no sign of
too many calls: it never shrinks the limit, it only takes back the growth of the next three good answers.
`concurrency` is the ceiling; where the job states rates, the gate paces the run and this starts there.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

START: Final = 4
DECREASE: Final = 0.5
SAFE_SHARE: Final = 0.9
HOLD_PER_FAULT: Final = 3
MAX_HISTORY: Final = 512

Why = Literal["start", "grow", "refused", "probe", "recovered"]


class Change(Struct, frozen=True):
    """The limit became `limit`, `at_s` seconds after the run began."""

    at_s: float
    limit: int
    why: Why


class Concurrency:
    """The limit now, and how it came to be; `limit` is read on every dispatch, so it is a plain attribute."""

    __slots__ = (
        "_began",
        "_ceiling",
        "_floating",
        "_hold",
        "_opening",
        "_partial",
        "_safe",
        "_since",
        "generation",
        "history",
        "limit",
    )

    def __init__(self, ceiling: int, *, start: int | None = None, now: float) -> None:
        """Begin at `start` (`START` where None), never above `ceiling`; `now` is the run's beginning."""
        self._ceiling = ceiling
        self._floating = float(min(ceiling, START if start is None else start))
        self._safe = float(ceiling)
        self._hold = 0
        self._began = now
        self._since = now
        self._opening = 2.0
        self._partial = False  # the episode is one of sporadic refusals
        self.generation = 0  # refusals for all, in a row without a good answer between them; 0: no episode
        self.limit = int(self._floating)
        self.history: list[Change] = []
        self._note(now, "start")

    def good(self, sent_at: float, now: float, *, in_flight: int) -> bool:
        """Take note of an answer to a call sent at `sent_at`; return whether the limit grew.

        `in_flight` counts the calls in flight with this one: room of which not half is used is not made larger.
        """
        if self.generation:
            if sent_at < self._since:
                return False
            self.generation = 0
            self._floating = max(self._floating, 2.0)
            return self._apply(now, "recovered")
        if self._hold:
            self._hold -= 1
            return False
        if self.limit >= self._ceiling or 2 * in_flight < self.limit:
            return False
        growth = self._opening if self._floating < self._safe else 1.0 / self._floating
        self._floating = min(self._ceiling, self._floating + growth)
        return self._apply(now, "grow")

    def fault(self) -> None:
        """Take note of a 5xx, a broken connection or a cut reply: hold."""
        self._hold = min(self._hold + HOLD_PER_FAULT, self.limit)

    def refused(self, sent_at: float, now: float, *, in_flight: int, share: float = 1.0) -> bool:
        """Take note of a 429 or 529; return whether it opened or prolonged an episode.

        `share` is how much of the run it speaks for: 1 halves, less takes away so much of a half, and an episode
        that began with less is made a full one at most once. `generation` then says how often in a row the endpoint
        has refused for all since its last good answer.
        """
        full = share >= 1.0
        if sent_at < self._since and not (full and self._partial):
            return False
        self._since = max(self._since, now)
        self._partial = not full
        if full and self.generation:
            self.generation += 1
            self._floating = 1.0
            self._apply(now, "probe")
            return True
        self.generation = int(full)
        used = float(min(self.limit, max(in_flight, 1)))
        self._safe = max(1.0, used * (SAFE_SHARE if full else 1.0))
        self._floating = max(1.0, used * (1.0 - share * DECREASE))
        self._opening = 1.0
        self._apply(now, "refused")
        return True

    def set_ceiling(self, ceiling: int, now: float) -> bool:
        """Allow at most `ceiling` from now on; a run that was at its ceiling stays there. Return whether the limit grew."""
        at_ceiling = self._floating >= self._ceiling
        self._safe = max(self._safe, float(ceiling)) if self._safe >= self._ceiling else self._safe
        self._ceiling = ceiling
        self._floating = float(ceiling) if at_ceiling else min(self._floating, float(ceiling))
        return self._apply(now, "grow")

    def hold_until(self, at: float) -> None:
        """Count refusals of calls sent before `at` (the end of a pause) to the present episode."""
        self._since = max(self._since, at)

    def _apply(self, now: float, why: Why) -> bool:
        """Make the floating value the limit; return whether that is more than before."""
        before = self.limit
        self.limit = min(self._ceiling, int(self._floating))
        if self.limit != before and (why != "grow" or self._worth_noting()):
            self._note(now, why)
        return self.limit > before

    def _worth_noting(self) -> bool:
        """Growth is noted where it reached the ceiling or a quarter more than the last note."""
        return self.limit >= self._ceiling or self.limit >= 1.25 * self.history[-1].limit

    def _note(self, now: float, why: Why) -> None:
        """Append to the history; when it is full keep every second note, so that it stays bounded."""
        self.history.append(Change(now - self._began, self.limit, why))
        if len(self.history) > MAX_HISTORY:
            self.history = [self.history[0], *self.history[2::2]]
