"""Dated unit prices of one model → the prices of one moment → the cost of one usage.

A `Card` is data: periods with prices per token kind. `prices_at` picks what is in force at a time;
`Tariff` compiles that to whole numbers once a (model, day), so that a row costs a few multiplications.

The rounding rule, the only one: count × unit price, multiplier and discount are exact; the exact sum over the
kinds is rounded once, half to even, to 9 decimal places (a billionth of the currency). Parts are rounded the
same way and the largest one takes the difference, so that the parts of a row always sum to its total.

Unit prices are per million tokens, `web_search` per thousand requests. This module refuses to know
where prices come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import ROUND_HALF_EVEN, Context, Decimal, Inexact
from typing import Final, NamedTuple

from msgspec import Struct

from batchrun.records import Cost, Usage

TOKEN_KINDS: Final = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
KINDS: Final = (*TOKEN_KINDS, "web_search")
DAY_US: Final = 86_400_000_000
MINUTE_US: Final = 60_000_000
PLACES: Final = 9  # decimal(18,9) of `results.parquet`
NANO: Final = Decimal(1).scaleb(-PLACES)
UNKNOWN: Final = Cost(usd=None)
_MOST: Final = 10**18  # what decimal(18,9) cannot hold: a count that nobody was billed for

EXACT: Final = Context(prec=200, rounding=ROUND_HALF_EVEN, traps=[Inexact])
"""Money is multiplied here: it raises before it loses a digit, whatever the ambient context is."""

ROUNDING: Final = Context(prec=200, rounding=ROUND_HALF_EVEN)
_EPOCH: Final = date(1970, 1, 1).toordinal()
_FREE_TOOLS: Final = frozenset({"web_fetch_requests"})  # billed by its tokens alone
_PRICED_TOOLS: Final = {"web_search_requests": "web_search"}
_MESSAGES_API_CACHE: Final = {"cache_read": Decimal("0.1"), "cache_write_5m": Decimal("1.25"), "cache_write_1h": Decimal(2)}

Amounts = dict[str, int]
"""What one usage costs by kind, in billionths of the currency: they sum to its whole cost."""

Steps = tuple[tuple[int, Decimal], ...]
"""A unit price by prompt length: (for more input tokens than, price), ascending; the first begins at 0."""


def day_of(at_us: int) -> str:
    """Return the UTC day of a time in microseconds since the epoch, as an ISO date."""
    return date.fromordinal(_EPOCH + at_us // DAY_US).isoformat()


def us_of(day: str) -> int:
    """Return the first microsecond of an ISO day (UTC); raises `ValueError` for what is none."""
    return (date.fromisoformat(day).toordinal() - _EPOCH) * DAY_US


def quantized(money: Decimal) -> Decimal:
    """Round money to 9 places, half to even."""
    return money.quantize(NANO, context=ROUNDING)


class Period(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Unit prices by kind and when they hold: days are UTC, `to_date` exclusive, the minutes a daily window."""

    prices: dict[str, Steps]
    from_date: str | None = None
    to_date: str | None = None
    from_minute: int | None = None
    to_minute: int | None = None

    def active(self, at_us: int) -> bool:
        """Say whether these prices hold at `at_us` (microseconds since the epoch)."""
        day = day_of(at_us)
        if (self.from_date is not None and day < self.from_date) or (self.to_date is not None and day >= self.to_date):
            return False
        if self.from_minute is None or self.to_minute is None:
            return True
        minute = at_us % DAY_US // MINUTE_US
        if self.to_minute < self.from_minute:  # over midnight
            return minute >= self.from_minute or minute < self.to_minute
        return self.from_minute <= minute < self.to_minute


class Card(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that is known of one model's prices.

    `periods`: the last active one holds, whole; when none is, the first (the library's rule). `tiers`:
    what a service tier changes, the first active one by kind. `overrides`: the user's, over both, the last
    active one by kind. `messages_api`: cache kinds nobody priced follow the Messages API's multiples of input
    (read 0.1, 5m write 1.25, 1h write 2: its pricing page); elsewhere they are plain input.
    """

    name: str
    periods: tuple[Period, ...] = ()
    tiers: dict[str, tuple[Period, ...]] = {}
    overrides: tuple[Period, ...] = ()
    messages_api: bool = True

    @property
    def by_minute(self) -> bool:
        """Say whether a price depends on the time of day."""
        return any(period.from_minute is not None for period in self.periods)


def prices_at(card: Card, at_us: int, tier: str | None = None) -> dict[str, Steps] | None:
    """Return the unit prices by kind in force at `at_us`, or None where input or output has no price.

    A service tier that nobody priced costs the standard price.
    """
    standard = next((p for p in reversed(card.periods) if p.active(at_us)), card.periods[0] if card.periods else None)
    prices = dict(standard.prices) if standard is not None else {}
    for period in reversed(card.tiers.get(tier, ()) if tier is not None else ()):
        prices.update(period.prices if period.active(at_us) else {})
    for period in card.overrides:
        prices.update(period.prices if period.active(at_us) else {})
    if "input" not in prices or "output" not in prices:
        return None
    for kind, factor in _MESSAGES_API_CACHE.items():
        if kind not in prices:
            by = factor if card.messages_api else Decimal(1)
            prices[kind] = tuple((above, EXACT.multiply(price, by)) for above, price in prices["input"])
    return prices


class _Band(NamedTuple):
    """Prices of one unit by kind, in whole units of 10**-places, for more input tokens than `above`."""

    above: int
    input: int
    output: int
    cache_read: int
    cache_write_5m: int
    cache_write_1h: int
    web_search: int | None


class Tariff:
    """Unit prices of one model at one time, compiled: `cost` is exact and takes a microsecond or two."""

    __slots__ = ("_bands", "_excess", "_unit")

    def __init__(
        self, prices: Mapping[str, Steps], *, multiplier: Decimal = Decimal(1), token_factor: Decimal = Decimal(1)
    ) -> None:
        """`multiplier` is on everything, `token_factor` (the batch discount) on tokens and not on server tools."""
        per_unit = {
            kind: tuple((above, _unit_price(kind, price, multiplier, token_factor)) for above, price in steps)
            for kind, steps in prices.items()
        }
        places = max(
            PLACES, *(-int(price.normalize(EXACT).as_tuple().exponent) for steps in per_unit.values() for _, price in steps)
        )
        self._excess = places - PLACES
        self._unit = Decimal(1).scaleb(-places, EXACT)
        starts = sorted({above for steps in per_unit.values() for above, _ in steps})
        self._bands = tuple(
            _Band(start, *(_whole(per_unit.get(kind), start, places) for kind in KINDS))  # type: ignore[arg-type] # prices_at gives every token kind
            for start in starts
        )

    def cost(self, usage: Usage) -> Cost:
        """Price one usage; `Cost(usd=None)` where that is not known: see `amounts`."""
        amounts = self.amounts(usage)
        return UNKNOWN if amounts is None else cost_of(amounts)

    def amounts(self, usage: Usage) -> Amounts | None:
        """Price one usage by kind; None where a count or a server tool's price is not known, or from a billion on.

        Input and output must have been told. A cache count that was not told means the endpoint does not
        set cached tokens apart: they are then inside `input_tokens` and priced as such. Thinking is inside output.
        """
        fresh, output = usage.input_tokens, usage.output_tokens
        if fresh is None or output is None:
            return None
        read, short, long = usage.cache_read_tokens or 0, usage.cache_write_5m_tokens or 0, usage.cache_write_1h_tokens or 0
        band = self._band(fresh + read + short + long)
        money = {}
        if fresh:
            money["input"] = fresh * band.input
        if output:
            money["output"] = output * band.output
        if read:
            money["cache_read"] = read * band.cache_read
        if short:
            money["cache_write_5m"] = short * band.cache_write_5m
        if long:
            money["cache_write_1h"] = long * band.cache_write_1h
        if usage.server_tool_use and not _add_tools(money, usage.server_tool_use, band.web_search):
            return None
        if self._excess:
            self._round(money)
        return None if sum(money.values()) >= _MOST else money

    def plain(self, input_tokens: int | None, output: int | None) -> int | None:
        """Return what `amounts` adds up to for a usage of these tokens and nothing else."""
        if input_tokens is None or output is None:
            return None
        band = self._band(input_tokens)
        amount = _half_even(input_tokens * band.input + output * band.output, 10**self._excess)
        return None if amount >= _MOST else amount

    def worst(self, input_tokens: int, max_tokens: int, *, cache_marks: bool) -> Decimal:
        """Return the dearest `input_tokens` in and `max_tokens` out can be, rounded up to 9 places."""
        reachable = [band for band in self._bands if band.above <= input_tokens]
        dearest = max(
            input_tokens * max(band.input, *((band.cache_write_5m, band.cache_write_1h) if cache_marks else (0,)))
            + max_tokens * band.output
            for band in reachable
        )
        return dollars(-(-dearest // 10**self._excess))

    def unit_prices(self, input_tokens: int) -> dict[str, Decimal]:
        """Return the price of one token (one search) by kind, for a prompt of `input_tokens`, every factor in it."""
        band = self._band(input_tokens)
        return {kind: EXACT.multiply(price, self._unit) for kind, price in zip(KINDS, band[1:], strict=True) if price is not None}

    def _band(self, input_tokens: int) -> _Band:
        """Return the prices for a prompt that long: a step holds for every token once it is crossed."""
        bands = self._bands
        chosen = bands[0]
        if len(bands) > 1:
            for band in bands:
                if input_tokens > band.above:
                    chosen = band
        return chosen

    def _round(self, money: dict[str, int]) -> None:
        """Turn exact whole units into billionths by the rounding rule."""
        unit = 10**self._excess
        total = _half_even(sum(money.values()), unit)
        for kind, amount in money.items():
            money[kind] = _half_even(amount, unit)
        if money:
            money[max(money, key=money.__getitem__)] += total - sum(money.values())


def cost_of(amounts: Amounts) -> Cost:
    """Return amounts by kind as a `Cost`."""
    return Cost(usd=dollars(sum(amounts.values())), parts={kind: dollars(amount) for kind, amount in amounts.items()})


def _add_tools(money: dict[str, int], tools: Mapping[str, int], web_search: int | None) -> bool:
    """Add the money of the server tools used; False where one was used whose price is not known."""
    for name, count in tools.items():
        if not count or name in _FREE_TOOLS:
            continue
        kind = _PRICED_TOOLS.get(name)
        if kind is None or web_search is None:
            return False
        money[kind] = money.get(kind, 0) + count * web_search
    return True


def _unit_price(kind: str, price: Decimal, multiplier: Decimal, token_factor: Decimal) -> Decimal:
    """Return the price of one token or one request."""
    if kind in TOKEN_KINDS:
        return EXACT.multiply(EXACT.multiply(price, multiplier), token_factor).scaleb(-6, EXACT)
    return EXACT.multiply(price, multiplier).scaleb(-3, EXACT)


def _whole(steps: Steps | None, start: int, places: int) -> int | None:
    """Return the price that holds from `start` on, in whole units of 10**-places."""
    if steps is None:
        return None
    price = [price for above, price in steps if above <= start][-1]
    return int(price.scaleb(places, EXACT))


def _half_even(amount: int, unit: int) -> int:
    """Divide by `unit`, rounding half to even."""
    whole, rest = divmod(amount, unit)
    return whole + (rest * 2 > unit or (rest * 2 == unit and whole % 2 == 1))


def dollars(nanos: int) -> Decimal:
    """Return billionths as a Decimal of exactly 9 places."""
    return EXACT.multiply(nanos, NANO)


def nanos(money: Decimal) -> int:
    """Return money of at most 9 places as billionths."""
    return int(money.scaleb(PLACES, EXACT))
