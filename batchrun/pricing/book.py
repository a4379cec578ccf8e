"""The job's price table, the user's price file and the library's prices → one `PriceBook`.

Nearest wins, kind by kind: job table over file over library. Prices are looked up once a (model, day) and
compiled; pricing a row is then arithmetic alone. The book remembers which models it was asked for: `snapshot`
holds every unit price that was used, and `PriceBook.from_snapshot` prices the same usages again to the last digit
without the library, the file or the job. A model without a price costs None and is counted by name in
`unpriced`. The book reads no file (it is handed the text), fetches nothing and knows no clock.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple, Self

import msgspec
from msgspec import Struct

from batchrun.errors import JobError, Problem
from batchrun.job import PriceOverride, Prices
from batchrun.pricing.names import bare, forms
from batchrun.pricing.rates import (
    DAY_US,
    EXACT,
    KINDS,
    MINUTE_US,
    ROUNDING,
    UNKNOWN,
    Amounts,
    Card,
    Period,
    Steps,
    Tariff,
    cost_of,
    prices_at,
    us_of,
)
from batchrun.records import Cost, Usage

_STANDARD_TIERS = frozenset({"standard", "default", "auto", "batch"})


class Terms(Struct, frozen=True, kw_only=True):
    """What holds for every model of a book. `date` prices all calls as of that ISO day (UTC)."""

    provider: str = "anthropic"
    multiplier: Decimal = Decimal(1)
    batch_discount: Decimal = Decimal("0.5")
    currency: str = "USD"
    date: str | None = None


class Snapshot(Struct, frozen=True, kw_only=True):
    """A book as `run.json` keeps it: the terms, the cards of the models that were used, None for the unpriced."""

    library: str | None
    terms: Terms
    cards: dict[str, Card | None]


class Listed(NamedTuple):
    """What the library says of a model: its release, and the model's card, None where it has none."""

    release: str
    card: Card | None


LookUp = Callable[[str, str], Listed]
"""Finds (model, provider) in the library."""


def from_library(model: str, provider: str) -> Listed:
    """Ask the library itself."""
    from batchrun.pricing.library import find_card, release  # noqa: PLC0415 - 0.15 s, paid at the first lookup

    return Listed(release(), find_card(model, provider))


class PriceBook:
    """Prices of every model a run meets. One book a run; not shared between threads."""

    def __init__(
        self,
        terms: Terms,
        *,
        overrides: tuple[PriceOverride, ...] = (),
        aliases: Mapping[str, str] | None = None,
        known: Mapping[str, Card | None] | None = None,
        library: str | None = None,
        look_up: LookUp = from_library,
    ) -> None:
        """`overrides` in rising precedence; `known` closes the book: only these cards, no library."""
        self.terms = terms
        self.unpriced: dict[str, int] = {}
        """Calls without a price, by model: an unknown model, or a count that was not told."""
        self._overrides = _indexed(overrides)
        self._aliases = {name.lower(): target for name, target in (aliases or {}).items()}
        self._closed = known is not None
        self._cards: dict[str, Card | None] = dict(known or {})
        self._library = library
        self._listed = look_up
        self._bucket_us: dict[str, int] = {}
        self._tariffs: dict[tuple[str, int, str | None, bool], Tariff | None] = {}
        self._fixed_us = None if terms.date is None else us_of(terms.date)

    @classmethod
    def from_snapshot(cls, snapshot: Mapping[str, Any]) -> Self:
        """Return the book that `snapshot` described; models it does not hold are unpriced."""
        kept = msgspec.convert(snapshot, Snapshot, strict=False)
        return cls(kept.terms, known=kept.cards, library=kept.library)

    def snapshot(self) -> dict[str, Any]:
        """Return the terms and every unit price used so far, as plain JSON values; money as decimal text."""
        kept = Snapshot(library=self._library, terms=self.terms, cards=dict(sorted(self._cards.items())))
        plain: dict[str, Any] = msgspec.to_builtins(kept, str_keys=True)
        return plain

    def cost(self, usage: Usage | None, model: str, at_us: int, *, batch: bool = False) -> Cost:
        """Price one usage at `at_us` (microseconds since the epoch); `Cost(usd=None)` where that is not known.

        `batch` takes the discount of the Batches endpoint; a usage that says `service_tier: "batch"` does too.
        """
        amounts = self.amounts(usage, model, at_us, batch=batch)
        return UNKNOWN if amounts is None else cost_of(amounts)

    def amounts(self, usage: Usage | None, model: str, at_us: int, *, batch: bool = False) -> Amounts | None:
        """Return `cost` by kind in billionths, None where it is not known: for those who add up many."""
        if usage is not None:
            tariff = self.tariff(model, at_us, tier=usage.service_tier, batch=batch)
            amounts = None if tariff is None else tariff.amounts(usage)
            if amounts is not None:
                return amounts
        self.unpriced[model] = self.unpriced.get(model, 0) + 1
        return None

    def plain(self, input_tokens: int | None, output: int | None, model: str, at_us: int, *, batch: bool = False) -> int | None:
        """Return what `amounts` would add up to for a usage of these tokens alone, at the standard tier."""
        tariff = self.tariff(model, at_us, batch=batch)
        amount = None if tariff is None else tariff.plain(input_tokens, output)
        if amount is None:
            self.unpriced[model] = self.unpriced.get(model, 0) + 1
        return amount

    def worst_case(
        self, model: str, input_tokens: int, max_tokens: int, at_us: int, *, cache_marks: bool = False, batch: bool = False
    ) -> Decimal | None:
        """Return the most a call can cost, rounded up; None for a model without a price.

        With `cache_marks` every input token may be a cache write, at the dearest lifetime. `input_tokens` must be an
        upper bound. Server tools are not in it: their number is the model's choice.
        """
        tariff = self.tariff(model, at_us, batch=batch)
        return None if tariff is None else tariff.worst(input_tokens, max_tokens, cache_marks=cache_marks)

    def tariff(self, model: str, at_us: int, *, tier: str | None = None, batch: bool = False) -> Tariff | None:
        """Return the unit prices of `model` in force at `at_us`, compiled; None where it has none."""
        if self._fixed_us is not None:
            at_us = self._fixed_us
        key = (model, at_us // self._bucket_us.get(model, DAY_US), tier, batch)
        try:
            return self._tariffs[key]
        except KeyError:
            pass
        card = self.card(model)
        bucket_us = self._bucket_us[model] = MINUTE_US if card is not None and card.by_minute else DAY_US
        prices = None if card is None else prices_at(card, at_us, None if tier in _STANDARD_TIERS else tier)
        factor = self.terms.batch_discount if batch or tier == "batch" else Decimal(1)
        tariff = None if prices is None else Tariff(prices, multiplier=self.terms.multiplier, token_factor=factor)
        self._tariffs[model, at_us // bucket_us, tier, batch] = tariff
        return tariff

    @property
    def asked(self) -> tuple[str, ...]:
        """Return the models whose prices were asked for, which `snapshot` holds."""
        return tuple(sorted(self._cards))

    def card(self, model: str) -> Card | None:
        """Return all that is known of the model's prices: the library's card with the user's laid over it."""
        if model not in self._cards and not self._closed:
            self._cards[model] = self._look_up(model)
        return self._cards.get(model)

    def _look_up(self, model: str) -> Card | None:
        """Find the model, or what it is an alias of, in the user's prices and the library's."""
        priced_as = next((self._aliases[form] for form in forms(model) if form in self._aliases), model)
        release, card = self._listed(priced_as, self.terms.provider)
        self._library = self._library or release
        names = dict.fromkeys((*forms(model), *forms(priced_as)))
        own = next((self._overrides[name] for name in names if name in self._overrides), ())
        if not own:
            return card
        return msgspec.structs.replace(card or Card(name=own[0].model), overrides=tuple(_period(price) for price in own))


def open_book(spec: Prices, *, file_text: str | None = None, look_up: LookUp = from_library) -> PriceBook:
    """Return the book of a job's `[prices]`, laid over the text of the price file it names, if any.

    The file (TOML, or JSON if it begins with `{`) has the fields of `[prices]`. Its multiplier and the job's
    multiply; any other term is the job's where the job changed it, else the file's. Raises `JobError`.
    """
    base = Prices() if file_text is None else _parse(file_text, spec.file)
    problems = [*_problems(base, spec.file), *_problems(spec, None)]
    if problems:
        raise JobError(problems)
    default = Prices()

    def chosen(name: str) -> Any:
        own = getattr(spec, name)
        return own if own != getattr(default, name) else getattr(base, name)

    terms = Terms(
        provider=chosen("provider"),
        multiplier=EXACT.multiply(base.multiplier, spec.multiplier),
        batch_discount=chosen("batch_discount"),
        currency=chosen("currency"),
        date=chosen("date"),
    )
    return PriceBook(terms, overrides=base.models + spec.models, aliases=base.aliases | spec.aliases, look_up=look_up)


def _parse(text: str, file: str | None) -> Prices:
    """Read a price file; its numbers are taken digit by digit, never by way of a float."""
    try:
        if text.lstrip().startswith("{"):
            return msgspec.json.decode(text, type=Prices, strict=False)
        return msgspec.convert(tomllib.loads(text, parse_float=Decimal), Prices, strict=False)
    except (msgspec.MsgspecError, tomllib.TOMLDecodeError, RecursionError) as error:
        hint = "the file has the fields of the job's [prices] table"
        raise JobError([Problem(message=f"not a price book: {error}", file=file, hint=hint)]) from None


def _problems(prices: Prices, file: str | None) -> list[Problem]:
    """Report amounts that are no price and days that are no date."""
    amounts = [("multiplier", prices.multiplier), ("batch_discount", prices.batch_discount)]
    days = [("date", prices.date)]
    for place, model in enumerate(prices.models):
        amounts += [(f"models[{place}].{kind}", getattr(model, kind)) for kind in KINDS]
        days += [(f"models[{place}].{end}", getattr(model, end)) for end in ("from_date", "to_date")]
    found = [
        Problem(message=f"must be 0 to 1,000,000 with at most 20 decimals, not {amount}", file=file, field=f"prices.{field}")
        for field, amount in amounts
        if amount is not None and not _is_price(amount)
    ]
    for field, day in days:
        try:
            us_of(day or "1970-01-01")
        except ValueError:
            found.append(Problem(message=f"is not an ISO date: {day!r}", file=file, field=f"prices.{field}", hint='"2026-01-31"'))
    return found


def _is_price(amount: Decimal) -> bool:
    """Say whether exact arithmetic can take it: 0 to a million, with at most 20 decimals."""
    return amount.is_finite() and 0 <= amount <= 1_000_000 and amount == amount.quantize(Decimal("1e-20"), context=ROUNDING)


def _indexed(overrides: tuple[PriceOverride, ...]) -> dict[str, tuple[PriceOverride, ...]]:
    """Group overrides by the model's name, as written and bare, in rising precedence."""
    index: dict[str, tuple[PriceOverride, ...]] = {}
    for override in overrides:
        for name in {override.model.strip().lower(), bare(override.model)}:
            index[name] = (*index.get(name, ()), override)
    return index


def _period(override: PriceOverride) -> Period:
    """Turn one override into a period of the kinds it gives."""
    given = {kind: getattr(override, kind) for kind in KINDS}
    prices: dict[str, Steps] = {kind: ((0, price),) for kind, price in given.items() if price is not None}
    return Period(prices=prices, from_date=override.from_date, to_date=override.to_date)
