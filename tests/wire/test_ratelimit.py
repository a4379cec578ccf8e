"""Headers become waits in seconds and a picture of the limits; garbage and the past state nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.wire.ratelimit import Limit, RateLimits, exhausted_wait, parse_rate_limits, stated_wait

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "86400"}, 86400),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": format_datetime(datetime.fromtimestamp(NOW + 90, UTC), usegmt=True)}, 90),
        ({"retry-after": "Sun, 22 Nov 2026 12:01:00"}, 60),
        ({"retry-after": "Sun, 22 Nov 2020 12:00:00 GMT"}, None),
        ({"retry-after": "Sun, 99 Nov 2026 12:00:00 GMT"}, None),
        ({"retry-after": "2", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "2", "retry-after-ms": "x"}, 2),
    ],
)
def test_stated_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert stated_wait(headers, now=NOW) == seconds


def test_limits_of_the_messages_api() -> None:
    headers = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": "2026-11-22T12:00:07Z",
        "anthropic-ratelimit-input-tokens-limit": "40000",
        "anthropic-ratelimit-input-tokens-remaining": "12000",
        "anthropic-ratelimit-input-tokens-reset": "2026-11-22T11:59:00+00:00",
        "anthropic-ratelimit-output-tokens-reset": "garbage",
        "x-ratelimit-limit-requests": "9",
    }
    assert parse_rate_limits(headers, now=NOW) == RateLimits(
        requests=Limit(limit=50, remaining=0, reset_s=7.0), input_tokens=Limit(limit=40000, remaining=12000, reset_s=0.0)
    )
    assert exhausted_wait(headers, now=NOW) == 7.0


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("6m0s", 360),
        ("1s", 1),
        ("250ms", 0.25),
        ("23h3m4.5s", 82984.5),
        ("1d", 86400),
        ("1d2h3m4.5s", None),
        ("9" * 400 + "s", None),
        ("12", 12),
        ("86401", None),
        (str(NOW + 5), 5),
        (str(NOW - 5), 0),
        (str(NOW + 86_401), None),
        (str(int(NOW + 5) * 1000), 5),
        (str(int(NOW - 5) * 1000), 0),
        ("1e308", None),
        ("9" * 400, None),
        ("2027-11-22T12:00:00Z", None),
        ("", None),
        ("x", None),
    ],
)
def test_resets_of_chat_gateways(reset: str, seconds: float | None) -> None:
    headers = {"x-ratelimit-limit-tokens": "100", "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": reset}
    assert parse_rate_limits(headers, now=NOW).tokens == Limit(limit=100, remaining=0, reset_s=seconds)


@given(st.from_regex(r"([0-9]{1,400}d)?([0-9]{1,400}h)?([0-9]{1,400}(\.[0-9]{1,400})?s)?", fullmatch=True))
def test_a_reset_is_within_a_day_or_not_told(reset: str) -> None:
    """However long a number an endpoint writes: whoever divides by a reset gets a finite one."""
    told = parse_rate_limits({"x-ratelimit-limit-tokens": "1", "x-ratelimit-reset-tokens": reset}, now=NOW).tokens
    assert told is not None
    assert told.reset_s is None or 0 <= told.reset_s <= 86_400


def test_nothing_is_exhausted() -> None:
    assert exhausted_wait({"x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-tokens": "9s"}, now=NOW) is None


@given(st.text(max_size=30))
def test_no_header_breaks_it(text: str) -> None:
    wait = stated_wait({"retry-after": text, "retry-after-ms": text}, now=NOW)
    assert wait is None or wait >= 0
    parse_rate_limits({"anthropic-ratelimit-tokens-reset": text, "x-ratelimit-limit-tokens": text}, now=NOW)
