"""Figures in words, the same in the terminal, in Markdown and on the page. Unknown is a dash, never 0."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

UNKNOWN = "–"


def count(value: float | None) -> str:
    """Return a count in at most four digits: 950, 12.3k, 4.56M."""
    if value is None:
        return UNKNOWN
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.3g}{letter}"
    return f"{value:,.0f}"


def money(value: Decimal | float | str | None, currency: str = "USD") -> str:
    """Return an amount with as many places as it needs to be read: $0.00042, $3.14, $1,234.50."""
    if value is None:
        return UNKNOWN
    amount = Decimal(str(value))
    places = 2 if abs(amount) >= 1 or amount == 0 else min(9, 2 - amount.adjusted())
    text = f"{amount:,.{places}f}"
    return f"${text}" if currency == "USD" else f"{text} {currency}"


def percent(value: float | None) -> str:
    """Return a share as a percentage with one place."""
    return UNKNOWN if value is None else f"{value:.1%}"


def milliseconds(value: float | None) -> str:
    """Return a time given in milliseconds: 85 ms, 1.24 s, 3 m 05 s."""
    if value is None:
        return UNKNOWN
    if value < 1000:
        return f"{value:.0f} ms"
    return f"{value / 1000:.2f} s" if value < 60_000 else duration(value / 1000)


def duration(seconds: float | None) -> str:
    """Return a time given in seconds: 4 s, 3 m 05 s, 2 h 10 m, 3 d 4 h."""
    if seconds is None:
        return UNKNOWN
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} m"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def untold_waste(rows: int) -> str:
    """Say of how many rows not all is known that was billed."""
    return f"{'1 row' if rows == 1 else f'{rows:,} rows'} had an attempt that broke off before it told what it was billed for"


def interval(estimate: Mapping[str, Any] | None) -> str:
    """Return an estimate with its interval: `92.5% [88.1%, 95.4%]`."""
    if not estimate or estimate.get("value") is None:
        return UNKNOWN
    low, high = estimate.get("low"), estimate.get("high")
    bounds = f" [{percent(low)}, {percent(high)}]" if low is not None and high is not None else ""
    return percent(estimate["value"]) + bounds
