"""When to ask again: for a batch that is being processed, and after a call that failed.

Pure: the time and one random number in [0, 1) are arguments. A batch takes minutes to hours (most less than one, at most
24), so the questions come apart quickly: from half a second to a minute, each moved by up to a fifth so that many
batches are not asked after at once.
"""

from __future__ import annotations

from typing import Final

from batchrun.engine.stopping import OUTAGE_S, RESUME, describe, refused
from batchrun.errors import EndpointRefused
from batchrun.job import Limits
from batchrun.records import Failure

POLL_FIRST_S: Final = 0.5
POLL_GROWTH: Final = 1.5
POLL_LONGEST_S: Final = 60.0
POLL_JITTER: Final = 0.2
BACKOFF_FIRST_S: Final = 0.25
BACKOFF_LONGEST_S: Final = 60.0


class PollPace:
    """The moments at which one batch is asked after."""

    __slots__ = ("_delay_s", "at")

    def __init__(self, now: float) -> None:
        """Ask for the first time in a moment."""
        self._delay_s = POLL_FIRST_S
        self.at = now

    def due(self, now: float) -> bool:
        """Whether it is time to ask."""
        return now >= self.at

    def later(self, now: float, chance: float) -> None:
        """Ask again after the next delay."""
        self.at = now + self._delay_s * (1 + POLL_JITTER * (2 * chance - 1))
        self._delay_s = min(POLL_LONGEST_S, self._delay_s * POLL_GROWTH)


class Patience:
    """How long calls of one kind may go on failing, and how long to wait in between."""

    __slots__ = ("_failures", "_patience_s", "_since")

    def __init__(self, limits: Limits) -> None:
        """Be patient for `max_wait_s`, and for a minute at least."""
        self._patience_s = max(OUTAGE_S, limits.max_wait_s)
        self._failures = 0
        self._since = 0.0

    def well(self) -> None:
        """Take note of a call that succeeded."""
        self._failures = 0

    def failed(self, failure: Failure, now: float, chance: float, *, endless: bool = False) -> float:
        """Return for how many seconds to wait. Raises `EndpointRefused` where waiting does not help, or has not for too long.

        `endless`: no time is too long as yet.
        """
        if failure.retry != "retry":
            raise refused(failure)
        if endless or not self._failures:
            self._since = now
        self._failures += 1
        stated = failure.retry_after_s or 0.0
        if not endless and (now - self._since >= self._patience_s or stated > self._patience_s):
            lasted = f"for {now - self._since:.0f} s" if not stated else f"and asks to wait {stated:.0f} s"
            raise EndpointRefused(f"the endpoint refuses {lasted}: {describe(failure)}", hint=RESUME)
        ceiling = min(BACKOFF_LONGEST_S, BACKOFF_FIRST_S * 2.0 ** min(self._failures - 1, 16))
        return max(stated, ceiling * (0.5 + chance / 2))
