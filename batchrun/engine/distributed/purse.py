"""The money of the whole run: granted in slices, taken back when unused, never more than the maximum in all.

What each worker was granted counts as spent until it says otherwise. A question for money that is not there
waits while others hold some that may come back, and is answered "spent" as soon as that could not be enough.
While somebody waits money is `scarce`: workers then give back what is free at each beat. A dead worker's grant
stays spent, for its calls in flight may have been billed. Amounts are US dollars. Pure.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from batchrun.engine.distributed.messages import NOTHING, Account

SHARE: Final = 4  # a slice is at most this part of a worker's equal share of what is left


class Purse:
    """`max_cost_usd` for several workers."""

    def __init__(self, maximum: Decimal, *, prior: Decimal, workers: int) -> None:
        """Allow `maximum`, of which `prior` was spent or is held since earlier sessions."""
        self._maximum = maximum
        self._left = maximum - prior
        self._workers = workers
        self._granted: dict[str, Decimal] = {}
        self._gone: dict[str, Decimal] = {}  # spent or held
        self.waiting = 0

    @property
    def scarce(self) -> bool:
        """Whether somebody waits for money."""
        return self.waiting > 0

    @property
    def free(self) -> Decimal:
        """What can be granted now."""
        return self._left - sum((max(self._granted[name], self._gone[name]) for name in self._granted), NOTHING)

    def __str__(self) -> str:
        """Say where the money is: `$4.99 of $5.00 spent or held for calls that broke off`."""
        gone = self._maximum - self._left + sum(self._gone.values(), NOTHING)
        return f"${gone:f} of ${self._maximum:f} spent or held for calls that broke off"

    def report(self, worker: str, account: Account) -> None:
        """Take note of what a worker has spent, and take back what it gives back."""
        self._granted[worker] = self._granted.get(worker, NOTHING) - account.free
        self._gone[worker] = account.spent + account.held

    def lost(self, worker: str) -> None:
        """Take all that a dead worker was granted for spent."""
        self._gone[worker] = max(self._granted.get(worker, NOTHING), self._gone.get(worker, NOTHING))

    def left_by(self, worker: str) -> None:
        """Take back all that a worker that has left did not spend."""
        self._granted[worker] = self._gone.get(worker, NOTHING)

    def grant(self, worker: str, need: Decimal, want: Decimal) -> Decimal | None:
        """Return an amount, `need` at least, that is now the worker's; 0 while it has to wait, None if it waits in vain."""
        free = self.free
        if free < need:
            return NOTHING if self._left - sum(self._gone.values(), NOTHING) >= need else None
        self._gone.setdefault(worker, NOTHING)
        amount = need if self.scarce else max(need, min(want, free / (SHARE * self._workers)))
        self._granted[worker] = self._granted.get(worker, NOTHING) + amount
        return amount
