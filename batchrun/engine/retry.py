"""From one failure to what happens next: wait and try again, give the row up, or stop the run.

A pure table: the failure, the attempt's number, the time already spent on the row, the job's limits and
one random number go in, a decision comes out. Back-off is exponential with full jitter (a uniform share
of a doubling ceiling), so that rows that failed together do not come back together.

Two kinds of trouble have their own patience. A limit or an overload (429, 529, and their like inside a
stream) lasts minutes, so its ceilings reach two minutes, and the last try is never made within the same
minute as the first: a row whose every try fell into one limited minute was never really tried. Anything
else (a broken connection, a 500) doubles from one second. A wait that the endpoint states is kept to the
full, whatever its length, unless it is longer than `limits.max_wait_s`, which ends the row. This module
refuses to know how a failure was told from its bytes: `Failure.retry` says so.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from batchrun.job import Limits
from batchrun.records import Failure

OVERLOAD_BASE_S: Final = 4.0
OVERLOAD_CEILING_S: Final = 120.0
FAULT_BASE_S: Final = 1.0
FAULT_CEILING_S: Final = 60.0
LIMITED_MINUTE_S: Final = 61.0  # the window of a rate limit, and a second for two clocks that differ
STATED_JITTER_SHARE: Final = 0.1
STATED_JITTER_BASE_S: Final = 0.25


class Wait(Struct, frozen=True):
    """Try the row again after `seconds`."""

    seconds: float


class GiveUp(Struct, frozen=True):
    """The row ends with this failure; `reason` says why no other try is made."""

    reason: str


class StopRun(Struct, frozen=True):
    """No call of this run can succeed: stop sending; `reason` holds the endpoint's own words."""

    reason: str


Decision = Wait | GiveUp | StopRun


def decide(failure: Failure, attempt: int, spent_s: float, limits: Limits, chance: float) -> Decision:
    """Return what follows `failure` of try number `attempt` (from 1), `spent_s` seconds after the row's first send.

    `chance` is uniform in [0, 1). Of `limits` only `max_attempts` and `max_wait_s` are looked at.
    """
    if failure.retry == "stop_run":
        return StopRun(failure.message)
    if failure.retry == "stop_row":
        return GiveUp("another try would fail in the same way")
    if attempt >= limits.max_attempts:
        return GiveUp(f"{attempt} tries failed")
    stated = failure.retry_after_s
    if stated is not None and stated > limits.max_wait_s:
        return GiveUp(f"the endpoint asks to wait {stated:.0f} s, over max_wait_s = {limits.max_wait_s:g}")
    if stated is None:
        seconds = chance * _ceiling(attempt, slow=failure.slows_run)
    else:
        seconds = stated + chance * _stated_jitter(stated, attempt)
    if failure.slows_run and attempt == limits.max_attempts - 1:
        seconds = max(seconds, LIMITED_MINUTE_S - spent_s)
    return Wait(max(stated or 0.0, min(seconds, limits.max_wait_s)))


def _ceiling(attempt: int, *, slow: bool) -> float:
    """Return the longest back-off after try number `attempt`."""
    base, ceiling = (OVERLOAD_BASE_S, OVERLOAD_CEILING_S) if slow else (FAULT_BASE_S, FAULT_CEILING_S)
    return min(ceiling, base * 2.0 ** min(attempt - 1, 16))


def _stated_jitter(stated: float, attempt: int) -> float:
    """Spread calls that were told the same moment; more so when earlier tries at stated moments failed."""
    return max(stated * STATED_JITTER_SHARE, min(OVERLOAD_CEILING_S, STATED_JITTER_BASE_S * 2.0 ** min(attempt - 1, 16)))
