"""Response headers → how long to wait, and what the account may still use.

Two values come out: the wait that was *stated* (`retry-after-ms`, `retry-after` as seconds or HTTP date, else
the reset of an exhausted limit), and a frozen picture of the limits (`anthropic-ratelimit-*`, or
`x-ratelimit-*` as chat gateways send them). `now` is an argument, in seconds since the epoch. A date in the
past, garbage and negative numbers state nothing, nor does a limit's reset more than a day ahead. Refuses to
know what anybody does about it.

Sources: Messages API "Rate limits: response headers"; RFC 9110 §10.2.3.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct

_KINDS: Final = ("requests", "tokens", "input_tokens", "output_tokens")
_DURATION: Final = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_DURATION_UNITS: Final = (86_400.0, 3_600.0, 60.0, 1.0, 0.001)
_EPOCH_FROM: Final = 1e9  # a bare number this large is a date, not a duration
_MILLISECONDS_FROM: Final = 1e11  # and one this large counts milliseconds: in seconds it would be the year 5138
_LATEST_RESET_S: Final = 86_400.0  # the longest window that endpoints limit is a day; a reset beyond it is a mistake


class Limit(Struct, frozen=True, kw_only=True, gc=False):
    """One limit as last told: how much a window holds, how much is left, seconds (at most a day) until it is whole."""

    limit: int | None = None
    remaining: int | None = None
    reset_s: float | None = None


class RateLimits(Struct, frozen=True, kw_only=True, gc=False):
    """What the headers of one response say about the account; None: not told."""

    requests: Limit | None = None
    tokens: Limit | None = None
    input_tokens: Limit | None = None
    output_tokens: Limit | None = None


def parse_rate_limits(headers: Mapping[str, str], *, now: float) -> RateLimits:
    """Return the limits in `headers` (lower-case names); the Messages API's names win over `x-ratelimit-*`."""
    return RateLimits(**{kind: _limit(headers, kind, now) for kind in _KINDS})


def stated_wait(headers: Mapping[str, str], *, now: float) -> float | None:
    """Return the wait in seconds that the response states, of any length; None when it states none."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after")
    seconds = _number(text)
    return seconds if seconds is not None else _http_date(text, now)


def exhausted_wait(headers: Mapping[str, str], *, now: float) -> float | None:
    """Return the seconds until every limit that has nothing left is whole again; None when none is told."""
    limits = parse_rate_limits(headers, now=now)
    waits = [limit.reset_s for kind in _KINDS if (limit := getattr(limits, kind)) and limit.remaining == 0 and limit.reset_s]
    return max(waits, default=None)


def _limit(headers: Mapping[str, str], kind: str, now: float) -> Limit | None:
    name = kind.replace("_", "-")
    for limit, remaining, reset in (
        (f"anthropic-ratelimit-{name}-limit", f"anthropic-ratelimit-{name}-remaining", f"anthropic-ratelimit-{name}-reset"),
        (f"x-ratelimit-limit-{name}", f"x-ratelimit-remaining-{name}", f"x-ratelimit-reset-{name}"),
    ):
        found = Limit(
            limit=_whole(headers.get(limit)), remaining=_whole(headers.get(remaining)), reset_s=_reset(headers.get(reset), now)
        )
        if found != Limit():
            return found
    return None


def _number(text: str | None) -> float | None:
    """Return a finite number of at least 0, else None."""
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _whole(text: str | None) -> int | None:
    value = _number(text)
    return int(value) if value is not None else None


def _http_date(text: str | None, now: float) -> float | None:
    """Return the seconds from `now` to an HTTP date, None for the past and for what is no date."""
    if text is None:
        return None
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - few endpoints name a date

    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return _from_now(date, now)


def _reset(text: str | None, now: float) -> float | None:
    """Return the seconds until a reset, None where none is told or none that can be believed."""
    seconds = _told_reset(text, now)
    return seconds if seconds is not None and seconds <= _LATEST_RESET_S else None


def _told_reset(text: str | None, now: float) -> float | None:
    """Return the seconds until a reset told as RFC 3339, as a duration (`6m0s`), as seconds or as an epoch; `inf` is possible."""
    number = _number(text)
    if number is not None and number >= _EPOCH_FROM:
        return max(0.0, (number if number < _MILLISECONDS_FROM else number / 1000) - now)
    if number is not None:
        return number
    if text is None:
        return None
    duration = _DURATION.fullmatch(text.strip())
    if duration and duration.group():
        return sum(float(part) * unit for part, unit in zip(duration.groups("0"), _DURATION_UNITS, strict=True))
    try:
        return _from_now(datetime.fromisoformat(text.strip()), now) or 0.0
    except ValueError:
        return None


def _from_now(date: datetime, now: float) -> float | None:
    """Return the seconds from `now` to `date` (without a zone: UTC), None when that is not ahead."""
    ahead = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
    return ahead if ahead > 0 else None
