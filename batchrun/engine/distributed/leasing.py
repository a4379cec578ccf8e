"""The engine's gate and budget where their substance is the broker's: slices are leased, calls draw from them.

A lease covers the calls that wait at the gate, in order, and, where calls come steadily, some that are about to
come, so that nothing is asked for a single call at full speed. What was leased and not sent in time goes back
with the next beat, as does the difference between what calls reserved and used. A budget here is the engine's own
with a maximum that grows by grants. Nothing here knows how a question travels.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from batchrun.engine.budget import MoneyBudget
from batchrun.engine.distributed.broker import SLICE_S
from batchrun.engine.distributed.messages import NOTHING, Account, AskRates, Lease
from batchrun.engine.limits import Estimates, Ticket, counted_input
from batchrun.engine.ports import InFlight, PriceOf, WorstCase
from batchrun.engine.window import WINDOW_S
from batchrun.job import Limits
from batchrun.records import Usage
from batchrun.wire.ratelimit import RateLimits

LIFE_S: Final = 0.5  # of a lease; what was not sent by then goes back
ASKED: Final = 2  # questions under way
CALLS: Final = 16  # in one lease where no requests a minute are stated
SEEN_S: Final = 0.05  # the pace of calls is taken over this long at least

Spawn = Callable[[Coroutine[Any, Any, None]], object]
"""Starts a task that belongs to somebody."""


@dataclass(slots=True)
class Held:
    """What is left of a lease."""

    calls: int
    input: float
    output: float
    lease: Lease
    until: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """A call at the gate."""

    turn: asyncio.Future[Ticket]
    input: float
    output: float


@dataclass(slots=True)
class GivenBack:
    """What the next beat tells of leases: room not used, changes by bin, the newest headers."""

    unused: int
    input: dict[int, float]
    output: dict[int, float]
    told: RateLimits | None


class LeasedGate:
    """A gate whose room is leased; `engine.limits.Pacing` to the engine."""

    def __init__(self, ask: Callable[[AskRates], Awaitable[Lease]], limits: Limits, *, workers: int, spawn: Spawn) -> None:
        """Lease room for the rates of `limits`, a share of `SLICE_S` seconds of them at a time."""
        self._ask, self._spawn = ask, spawn
        self._loop = asyncio.get_running_loop()
        self._counts_input, self._counts_output = limits.itpm is not None, limits.otpm is not None
        self._slice_s = SLICE_S / workers
        self._slice = CALLS if limits.rpm is None else max(1, int(limits.rpm / WINDOW_S * self._slice_s))
        self._token_slice = (limits.itpm or 0.0) / WINDOW_S * self._slice_s, (limits.otpm or 0.0) / WINDOW_S * self._slice_s
        self._estimates = Estimates()
        self._queue: deque[Waiting] = deque()
        self._asking = 0
        self._entered, self._seen_at = 0, self._loop.time()
        self._mean_input = self._mean_output = 0.0
        self._held: Held | None = None
        self._paused_until = 0.0
        self._back = GivenBack(0, {}, {}, None)
        self.waiting = 0

    @property
    def hungry(self) -> bool:
        """Whether another call should come to the gate."""
        return self.waiting < 2 * self._slice + 1

    async def enter(self, input_tokens: int, max_tokens: int) -> Ticket:
        """Wait for this call's turn; return what it reserved, for `settle`."""
        need_input = self._estimates.input(input_tokens) if self._counts_input else 0.0
        need_output = self._estimates.output(max_tokens) if self._counts_output else 0.0
        self._entered += 1
        ticket = self._draw(need_input, need_output) if not self._queue else None
        if ticket is None:
            waiting = Waiting(self._loop.create_future(), need_input, need_output)
            self._queue.append(waiting)
            self.waiting += 1
            try:
                self._pump()
                ticket = await waiting.turn
            finally:
                self.waiting -= 1
        while (pause_s := self._paused_until - self._loop.time()) > 0:  # noqa: ASYNC110 - the moment waited for may have moved
            await asyncio.sleep(pause_s)
        return ticket

    def settle(self, ticket: Ticket, usage: Usage | None, input_tokens: int, now: float) -> None:  # noqa: ARG002 - bins have the broker's time
        """Replace the reservation by the real usage, as `engine.limits.Gate` does, with the next beat."""
        reserved_input, reserved_output, input_bin, output_bin = ticket
        counted, output = counted_input(usage), usage.output_tokens if usage is not None else None
        if self._counts_input and counted is not None:
            _change(self._back.input, input_bin, counted - reserved_input)
        if self._counts_output and (output is not None or usage is None):
            _change(self._back.output, output_bin, (output or 0) - reserved_output)
        self._estimates.learn(input_tokens, counted, output)

    def correct(self, told: RateLimits, now: float) -> None:
        """Tell the broker what the headers say, with the next beat; hold at once where nothing is left."""
        self._back.told = told
        stated = ((told.input_tokens, self._counts_input), (told.output_tokens, self._counts_output), (told.tokens, True))
        for state, counts in stated:
            if counts and state is not None and state.remaining == 0 and state.reset_s:
                self._give_back_lease()
                self.pause(min(now + state.reset_s, now + LIFE_S))  # the broker knows for how long

    def pause(self, until: float) -> None:
        """Let nothing through before `until`."""
        self._paused_until = max(self._paused_until, until)

    def give_back(self) -> GivenBack:
        """Return what goes back with a beat, once."""
        if self._held is not None and self._loop.time() > self._held.until:
            self._give_back_lease()
        back, self._back = self._back, GivenBack(0, {}, {}, None)
        return back

    def _draw(self, need_input: float, need_output: float) -> Ticket | None:
        """Take one call from the lease at hand, None where it has no room."""
        held = self._held
        if held is None or held.calls < 1 or held.input < need_input or held.output < need_output:
            return None
        if self._loop.time() > held.until:
            self._give_back_lease()
            return None
        held.calls -= 1
        held.input -= need_input
        held.output -= need_output
        if not self._asking and held.calls <= self._expected() // 2:
            self._lease([])
        return need_input, need_output, held.lease.input_bin, held.lease.output_bin

    def _expected(self) -> int:
        """Return how many calls are about to come in the time of a slice, judged by the last ones."""
        seen_s = max(SEEN_S, self._loop.time() - self._seen_at)
        return min(self._slice if self._slice > 1 else 0, int(self._entered / seen_s * self._slice_s))

    def _pump(self) -> None:
        """Ask for the calls that wait and were not asked for."""
        while self._queue and self._asking < ASKED:
            self._lease(self._next_batch())

    def _next_batch(self) -> list[Waiting]:
        """Take the calls off the queue that fit a slice; the first one always does."""
        batch: list[Waiting] = []
        room_input, room_output = self._token_slice
        while self._queue and len(batch) < self._slice:
            first = self._queue[0]
            room_input, room_output = room_input - first.input, room_output - first.output
            if batch and (room_input < 0 or room_output < 0):
                break
            self._queue.popleft()
            if not first.turn.done():
                batch.append(first)
        return batch

    def _lease(self, batch: list[Waiting]) -> None:
        """Ask for the calls of `batch`, and for some that are about to come."""
        input_sum, output_sum = sum(waiting.input for waiting in batch), sum(waiting.output for waiting in batch)
        if batch:
            self._mean_input, self._mean_output = input_sum / len(batch), output_sum / len(batch)
        more = max(0, self._expected() - len(batch))
        for mean, room in zip((self._mean_input, self._mean_output), self._token_slice, strict=True):
            more = min(more, int(room / mean)) if mean > 0 else more
        if self._loop.time() - self._seen_at > SEEN_S:
            self._entered, self._seen_at = 0, self._loop.time()
        if not batch and not more:
            return
        self._asking += 1
        asked = AskRates(
            calls=len(batch) + more, input=input_sum + more * self._mean_input, output=output_sum + more * self._mean_output
        )
        self._spawn(self._fetch(asked, batch))

    async def _fetch(self, asked: AskRates, batch: list[Waiting]) -> None:
        """Ask, hand the calls of the batch their turns, keep the rest."""
        try:
            lease = await self._ask(asked)
        finally:
            self._asking -= 1
        self._give_back_lease()
        held = self._held = Held(asked.calls, asked.input, asked.output, lease, self._loop.time() + LIFE_S)
        for waiting in batch:
            if not waiting.turn.done():
                held.calls -= 1
                held.input -= waiting.input
                held.output -= waiting.output
                waiting.turn.set_result((waiting.input, waiting.output, lease.input_bin, lease.output_bin))
        self._pump()

    def _give_back_lease(self) -> None:
        """Keep for the next beat what is left of the lease at hand."""
        held, self._held = self._held, None
        if held is None or held.calls < 1:
            return
        self._back.unused += held.calls
        if self._counts_input:
            _change(self._back.input, held.lease.input_bin, -held.input)
        if self._counts_output:
            _change(self._back.output, held.lease.output_bin, -held.output)


class LeasedBudget(MoneyBudget):
    """The engine's budget with a maximum that is granted in slices."""

    __slots__ = ("_account", "_ask", "_asking", "_denied")

    def __init__(
        self,
        worst_case: WorstCase,
        price_of: PriceOf,
        ask: Callable[[Decimal], None],
        *,
        allow_unpriced: bool = False,
        in_flight: InFlight | None = None,
    ) -> None:
        """Begin with nothing; `ask(worst)` asks for more, and `granted` is told the answer."""
        super().__init__(NOTHING, worst_case, price_of, allow_unpriced=allow_unpriced, in_flight=in_flight)
        self._ask = ask
        self._asking = self._denied = False
        self._account = ""

    @property
    def stuck(self) -> bool:
        """Whether there is certainly no more money."""
        return self._denied

    def fits(self, worst: Decimal) -> bool:
        """Whether a call of this worst case can be sent; where not, more is asked for."""
        if super().fits(worst):
            return True
        if not self._asking and not self._denied:
            self._asking = True
            self._ask(worst)
        return False

    def account(self, *, give_back: bool) -> Account:
        """Return where the money is, and give back what is free."""
        free = max(NOTHING, self.maximum - self.spent - self.held - self.reserved) if give_back else NOTHING
        self.maximum -= free
        return Account(spent=self.spent, held=self.held, free=free)

    def granted(self, amount: Decimal | None, account: str = "") -> None:
        """Take the answer to a question for more; None: there is none, as the whole run's `account` says."""
        self._asking = False
        self._denied = amount is None
        self._account = account
        self.maximum += amount or NOTHING

    def __str__(self) -> str:
        """Say where the whole run's money is, once it is spent."""
        return self._account or super().__str__()


def _change(changes: dict[int, float], number: int, change: float) -> None:
    """Add a change to its bin."""
    changes[number] = changes.get(number, 0.0) + change
