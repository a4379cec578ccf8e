"""Money: each call's worst case is reserved before it is sent, and becomes its real cost when it has ended.

The sum of what was spent, what is reserved and what may have been billed never exceeds the maximum, so no
outcome of the calls in flight can. A call that was refused (an HTTP error) or never left costs nothing; an
answer costs its usage; an exchange that broke off in between may have been billed for more than it told,
so its worst case stays *held*. A call that does not fit waits while others in flight may still turn out
cheaper, and only when none is left is the budget reached. Should a call cost more than its worst case, the
estimate was no bound, and every later reservation grows by the same factor. A run without a maximum
reserves nothing; it keeps what was spent, and the worst case of what broke off, so that a later session with
a maximum can go on from it.

Amounts are `Decimal` US dollars. This module refuses to know prices: two callables do.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from batchrun.engine.attempt import broke_off
from batchrun.engine.ports import InFlight, PriceOf, WorstCase
from batchrun.errors import UsageError
from batchrun.records import Attempt, EndedHow, Request

NOTHING: Final = Decimal(0)
ENDLESS: Final = Decimal("Infinity")


class MoneyBudget:
    """`max_cost_usd` kept: `fits` then `reserve` before a call is sent, `settle` after it. Without one: `record` after it."""

    __slots__ = (
        "_allow_unpriced",
        "_factor",
        "_notes",
        "_price_of",
        "_unpriced",
        "_worst_case",
        "endless",
        "held",
        "in_flight",
        "maximum",
        "reserved",
        "spent",
    )

    def __init__(
        self,
        maximum: Decimal,
        worst_case: WorstCase,
        price_of: PriceOf,
        *,
        allow_unpriced: bool = False,
        prior: Decimal = NOTHING,
        in_flight: InFlight | None = None,
    ) -> None:
        """Allow `maximum` (or `ENDLESS`) over the run's whole life; `prior` is what earlier sessions spent and hold.

        `in_flight` is told of each call: what it finds left behind by sessions that were killed belongs in `held`.
        """
        self.maximum = maximum
        self.endless = maximum == ENDLESS
        self.spent = prior
        self.reserved = NOTHING
        self.held = NOTHING
        self.in_flight = 0
        self._worst_case = worst_case
        self._price_of = price_of
        self._allow_unpriced = allow_unpriced
        self._factor = Decimal(1)
        self._unpriced = False  # something was answered that has no price
        self._notes = in_flight

    def worst_case(self, request: Request) -> Decimal:
        """Return the most this call can cost. Raises `UsageError` where its model has no price."""
        worst = self._worst_case(request)
        if worst is not None:
            return worst * self._factor
        if self._allow_unpriced:
            return NOTHING
        raise UsageError(
            f"model {request.model!r} has no price, so max_cost_usd cannot be kept",
            hint="add its price under [[prices.models]], or set limits.allow_unpriced = true",
        )

    @property
    def told(self) -> Decimal | None:
        """What was spent, as far as it has a price; None where nothing of it has one."""
        return None if self._unpriced and not self.spent else self.spent

    @property
    def stuck(self) -> bool:
        """Whether a call that does not fit never will: nothing is in flight that could turn out cheaper."""
        return not self.in_flight

    def fits(self, worst: Decimal) -> bool:
        """Whether a call of this worst case can be sent without any way to exceed the maximum."""
        return self.spent + self.held + self.reserved + worst <= self.maximum

    def reserve(self, worst: Decimal) -> None:
        """Set `worst` aside for a call about to be sent."""
        self.reserved += worst
        self.in_flight += 1
        if self._notes is not None:
            self._notes.sent(worst)

    def release(self, worst: Decimal) -> None:
        """Give back what was set aside for a call that was not sent."""
        self.reserved -= worst
        self.in_flight -= 1
        if self._notes is not None:
            self._notes.ended(worst)

    def settle(self, attempt: Attempt, worst: Decimal, ended: EndedHow | None) -> Decimal:
        """Replace the reservation by what the attempt cost or may have cost; return what is held for it.

        `ended` is how its exchange ended, None where we broke it off.
        """
        self.release(worst)
        cost = self._known_cost(attempt, ended)
        if cost is None:
            return self._hold(worst)
        self.spent += cost
        if cost > worst > 0:
            self._factor = max(self._factor, cost / worst * self._factor)
        return NOTHING

    def record(self, attempt: Attempt, request: Request, ended: EndedHow | None) -> Decimal:
        """Count an attempt for which nothing was reserved; return what may have been billed beyond what it told."""
        cost = self._known_cost(attempt, ended)
        if cost is None:
            return self._hold(self.worst_case(request))
        self.spent += cost
        return NOTHING

    def _hold(self, worst: Decimal) -> Decimal:
        """Keep the worst case of a call that broke off, and return it."""
        self.held += worst
        return worst

    def _known_cost(self, attempt: Attempt, ended: EndedHow | None) -> Decimal | None:
        """Return what the attempt cost, None where only its worst case is known."""
        if attempt.reply is not None:
            cost = self._price_of(attempt.reply.usage, attempt.model, attempt.started_at_us or 0)
            if cost is None and self._allow_unpriced:
                self._unpriced = True
                return NOTHING
            return cost
        return None if broke_off(attempt, ended) else NOTHING

    def __str__(self) -> str:
        """Say where the money is: `$4.98 of $5.00 spent, $0.01 held for calls that broke off`."""
        held = f", ${self.held:f} held for calls that broke off" if self.held else ""
        return f"${self.spent:f} of ${self.maximum:f} spent{held}"
