"""The engine against a scripted endpoint, in virtual time: every row lands once, whatever happens."""

import asyncio
import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from batchrun.engine.budget import ENDLESS, MoneyBudget
from batchrun.engine.judging import Wiring
from batchrun.engine.local import LocalEngine
from batchrun.engine.ports import Clocks
from batchrun.engine.response_cache import ResponseCache
from batchrun.engine.stopping import StopSignal
from batchrun.engine.telemetry import EngineSummary
from batchrun.errors import (
    BatchrunError,
    BudgetReached,
    DatasetError,
    EndpointRefused,
    Interrupted,
    Problem,
    StorageError,
    TooManyErrors,
    UsageError,
)
from batchrun.job import Endpoint, Limits
from batchrun.records import Attempt, Ended, Request, Usage
from batchrun.transport.base import Receiver
from batchrun.wire.reply import ReplyDecoder

Run = Callable[[Coroutine[Any, Any, Any]], Any]

ANSWER = json.dumps(
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {}}],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 10, "output_tokens": 5},
    }
).encode()
EVENTS: list[dict[str, Any]] = [
    {"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [],
     "usage": {"input_tokens": 10, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "t1", "name": "f", "input": {}}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 5}},
    {"type": "message_stop"},
]  # fmt: skip


def complaint(kind: str, message: str) -> bytes:
    return json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()


@dataclass
class Says:
    """What the endpoint does with one call."""

    status: int = 200
    body: bytes = ANSWER
    headers: dict[str, str] = field(default_factory=dict)
    after_s: float = 1.0
    how: str = "complete"
    stream_s: float | None = None  # seconds between the events of a stream; None: a JSON reply


OK = Says()
LIMITED = Says(429, complaint("rate_limit_error", "slow down"), after_s=0.05)
OVERLOADED = Says(529, complaint("overloaded_error", "Overloaded"), after_s=0.05)
BROKEN = Says(500, complaint("api_error", "oops"), after_s=0.05)
UNAUTHORIZED = Says(401, complaint("authentication_error", "invalid x-api-key"), after_s=0.05)
BAD = Says(400, complaint("invalid_request_error", "messages: too long"), after_s=0.05)
CUT = Says(stream_s=0.1, how="closed")
UNREACHABLE = Says(0, how="connect", after_s=0.01)
DROPPED = Says(0, how="reset", after_s=0.01)

Script = Callable[[int, int, float], Says]
"""Row, how often it was sent before, seconds since the first send → what to say."""


class ScriptedEndpoint:
    """Stands for a transport and the endpoint behind it: says what the script says, and keeps an access log."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.log: list[tuple[float, int]] = []
        self.tries: Counter[int] = Counter()
        self.in_flight = self.most_in_flight = 0
        self.broken_off = 0

    async def post(self, path: str, body: bytes, receiver: Receiver, *, accept: str = "") -> Ended:
        """Answer one call."""
        assert (path, accept) == ("/v1/messages", "text/event-stream")
        loop = asyncio.get_running_loop()
        row = int(body.partition(b"row ")[2].split(b'"')[0])
        says = self.script(row, self.tries[row], loop.time() - self.log[0][0] if self.log else 0.0)
        self.tries[row] += 1
        self.log.append((loop.time(), row))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        receiver.sent(loop.time())
        try:
            await asyncio.sleep(says.after_s)
            if says.status:
                receiver.head(says.status, says.headers, loop.time())
                await self._body(says, receiver, loop)
        except asyncio.CancelledError:
            self.broken_off += 1
            raise
        finally:
            self.in_flight -= 1
        return Ended(how=says.how, message="scripted")  # type: ignore[arg-type]  # the script's word

    async def _body(self, says: Says, receiver: Receiver, loop: asyncio.AbstractEventLoop) -> None:
        if says.stream_s is None:
            receiver.data(says.body, loop.time())
            return
        for i, event in enumerate(EVENTS if says.how == "complete" else EVENTS[:2]):
            receiver.max_gap = max(receiver.max_gap, says.stream_s if i else says.after_s)
            receiver.data(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode(), loop.time())
            await asyncio.sleep(says.stream_s)


class Journal:
    """Stands for the journal: keeps what lands, and refuses a row that lands twice."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.rows: dict[int, Attempt] = {}

    def land(self, attempt: Attempt) -> None:
        """Keep the attempt."""
        self.attempts.append(attempt)
        if attempt.final:
            assert attempt.ordinal not in self.rows
            self.rows[attempt.ordinal] = attempt

    def statuses(self) -> Counter[str]:
        """Count the rows by what became of them."""
        return Counter(attempt.status for attempt in self.rows.values())


def requests(count: int, *, tools: bool = True, prefixes: int = 0) -> Iterator[Request]:
    for n in range(count):
        body = b'{"messages": "row %d"%s}' % (n, b', "tools": []' if tools else b"")
        prefix = n % prefixes + 1 if prefixes else 0
        yield Request(ordinal=n, model="m", body=body, input_tokens=10, max_tokens=20, prefix=prefix)


@dataclass
class Outcome:
    """A finished run, for the tests to look at."""

    summary: EngineSummary
    endpoint: ScriptedEndpoint
    journal: Journal
    engine: LocalEngine
    wall_s: float


async def run(
    script: Script,
    limits: Limits,
    rows: Iterable[Request] | int = 100,
    *,
    stop_at: tuple[float, ...] = (),
    **wiring: Any,
) -> Outcome:
    """Drive rows through the engine against `script`; `stop_at` are the moments of stop signals."""
    loop = asyncio.get_running_loop()
    endpoint, journal, stop = ScriptedEndpoint(script), Journal(), StopSignal()
    seeded = random.Random(1)
    made = {
        "transport": endpoint,
        "new_decoder": ReplyDecoder,
        "land": journal.land,
        "clocks": Clocks(wall=lambda: 1.7e9 + loop.time(), chance=seeded.random),
        **wiring,
    }
    engine = LocalEngine(Wiring(**made), limits)
    for seconds in stop_at:
        loop.call_later(seconds, stop.request)
    began = loop.time()
    summary = await engine.drive(requests(rows) if isinstance(rows, int) else rows, stop)
    return Outcome(summary, endpoint, journal, engine, loop.time() - began)


def always(says: Says) -> Script:
    return lambda *_: says


def test_every_row_lands_once_and_no_more_are_in_flight_than_allowed(virtual_time: Run) -> None:
    outcome = virtual_time(run(always(OK), Limits(concurrency=8), 200))
    assert sorted(outcome.journal.rows) == list(range(200))
    assert outcome.journal.statuses() == {"succeeded": 200}
    assert outcome.summary.stopped is None
    assert outcome.endpoint.most_in_flight == 8
    assert outcome.summary.progress.in_flight == 0


def test_nothing_to_do_is_done_at_once(virtual_time: Run) -> None:
    outcome = virtual_time(run(always(OK), Limits(), 0))
    assert (outcome.summary.stopped, outcome.wall_s < 0.01) == (None, True)


def test_rows_are_read_only_when_they_can_be_sent(virtual_time: Run) -> None:
    """A million rows take the memory of a hundred: the source is never ahead of the sends."""
    read = 0
    ahead = []

    def source() -> Iterator[Request]:
        nonlocal read
        for request in requests(500):
            read += 1
            yield request

    def script(*_: object) -> Says:
        ahead.append(read)
        return OK

    outcome = virtual_time(run(script, Limits(concurrency=16), source()))
    assert all(count <= sent + 16 for sent, count in enumerate(ahead, 1))
    assert len(outcome.journal.rows) == 500


def test_clocks_are_this_attempts_alone(virtual_time: Run) -> None:
    """Queued, first event, first call and the end of a stream of five events 0.1 s apart."""
    outcome = virtual_time(run(always(Says(stream_s=0.1, after_s=0.5)), Limits(concurrency=1), 2))
    attempt = outcome.journal.rows[1]
    assert attempt.queued_ms == pytest.approx(0, abs=1)
    assert attempt.ttft_ms == pytest.approx(500, abs=1)
    assert attempt.first_call_ms == pytest.approx(600, abs=1)
    assert attempt.latency_ms == pytest.approx(900, abs=1)
    assert attempt.max_gap_ms == pytest.approx(100, abs=1)
    assert attempt.started_at_us == pytest.approx((1.7e9 + 1001.0) * 1e6, abs=2e5)
    gaps = outcome.summary.distributions["gap_ms"]["p50"]
    assert gaps is not None
    assert 70 <= gaps <= 101


def test_waiting_is_not_latency(virtual_time: Run) -> None:
    outcome = virtual_time(run(always(OK), Limits(rpm=60), 5))
    assert outcome.journal.rows[4].queued_ms >= 900
    assert outcome.journal.rows[4].latency_ms == pytest.approx(1000, abs=1)


def test_a_stated_rate_paces_the_run(virtual_time: Run) -> None:
    outcome = virtual_time(run(always(OK), Limits(rpm=600), 1201))
    assert outcome.wall_s == pytest.approx(121, rel=0.02)
    assert 0.97 <= outcome.summary.rate_used["rpm"] <= 1.0


def test_the_ramp_follows_first_events_and_not_whole_answers(virtual_time: Run) -> None:
    """Streams of two seconds whose first event comes at once: 256 are in flight within the first of them."""
    script = always(Says(stream_s=0.4, after_s=0.05))
    outcome = virtual_time(run(script, Limits(concurrency=256), 2000))
    assert sum(at - outcome.endpoint.log[0][0] < 1.0 for at, _ in outcome.endpoint.log) >= 256


def test_a_broken_land_ends_the_run_with_its_own_error(virtual_time: Run) -> None:
    def full(_: Attempt) -> None:
        raise StorageError("disk full")

    with pytest.raises(StorageError, match="disk full"):
        virtual_time(run(always(OK), Limits(), 100, land=full))


def test_a_bug_is_raised_as_it_is(virtual_time: Run) -> None:
    def script(*_: object) -> Says:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        virtual_time(run(script, Limits(), 100))


def test_faults_of_20_percent_lose_no_row(virtual_time: Run) -> None:
    """Every kind of fault, mixed: each row is answered in the end, and retries are spent while the run goes on."""
    chance = random.Random(7)
    faults = [BROKEN, CUT, UNREACHABLE, LIMITED, OVERLOADED]

    def script(*_: object) -> Says:
        return chance.choice(faults) if chance.random() < 0.2 else OK

    outcome = virtual_time(run(script, Limits(concurrency=32), 1000))
    assert outcome.journal.statuses() == {"succeeded": 1000}
    rows = [row for _, row in outcome.endpoint.log]
    first_retry = next(place for place, row in enumerate(rows) if row in rows[:place])
    assert first_retry < 300


def test_a_row_is_tried_as_often_as_allowed(virtual_time: Run) -> None:
    outcome = virtual_time(run(always(BROKEN), Limits(max_attempts=3), 1))
    assert outcome.endpoint.tries[0] == 3
    landed = outcome.journal.rows[0]
    assert (landed.status, landed.attempt, landed.http_status) == ("errored", 3, 500)
    assert landed.queued_ms > 100, "the back-off is waiting"


def test_what_cannot_succeed_is_not_tried_again(virtual_time: Run) -> None:
    outcome = virtual_time(run(lambda row, *_: BAD if row == 3 else OK, Limits(), 10))
    assert outcome.endpoint.tries[3] == 1
    assert outcome.journal.statuses() == {"succeeded": 9, "errored": 1}


def test_a_stated_wait_is_honoured_by_the_row_and_by_the_run(virtual_time: Run) -> None:
    """After a 429 that says 30 s nobody sends for 30 s; then the run goes on."""

    def script(row: int, tries: int, _now: float) -> Says:
        return Says(429, LIMITED.body, {"retry-after": "30"}, 0.05) if row == 40 and not tries else OK

    outcome = virtual_time(run(script, Limits(concurrency=8), 200))
    assert outcome.journal.statuses() == {"succeeded": 200}
    sends = [at for at, _ in outcome.endpoint.log]
    refused_at = next(at for at, row in outcome.endpoint.log if row == 40) + 0.05
    assert not [at for at in sends if refused_at < at < refused_at + 30]
    again = [at for at, row in outcome.endpoint.log if row == 40][1]
    assert refused_at + 30 <= again < refused_at + 36


def test_a_wait_longer_than_allowed_ends_the_row_and_holds_nobody(virtual_time: Run) -> None:
    def script(row: int, _tries: int, _now: float) -> Says:
        return Says(429, LIMITED.body, {"retry-after": "3600"}, 0.05) if row == 5 else OK

    outcome = virtual_time(run(script, Limits(concurrency=8), 100))
    assert outcome.journal.statuses() == {"succeeded": 99, "errored": 1}
    assert outcome.wall_s < 30


def test_a_limited_minute_ends_no_row(virtual_time: Run) -> None:
    """A server that refuses everything for its first 55 s: no row is given up, and it is not stormed."""
    outcome = virtual_time(run(lambda _row, _tries, now: LIMITED if now < 55 else OK, Limits(concurrency=64), 500))
    assert outcome.journal.statuses() == {"succeeded": 500}
    assert sum(at - outcome.endpoint.log[0][0] < 55 for at, _ in outcome.endpoint.log) < 30


def test_refusals_halve_the_run_once_an_episode(virtual_time: Run) -> None:
    """A burst of 429s for a second at full speed: one halving, and soon back."""
    outcome = virtual_time(run(lambda _row, _tries, now: LIMITED if 10 < now < 10.04 else OK, Limits(concurrency=64), 3000))
    whys = [change.why for change in outcome.summary.concurrency]
    assert whys.count("refused") == 1
    assert outcome.summary.concurrency[-1].limit == 64 or outcome.endpoint.most_in_flight == 64


def test_an_outage_is_waited_out_without_reading_all_rows(virtual_time: Run) -> None:
    """Unreachable for 40 s: a bounded number of rows wait, and all are answered afterwards."""
    outcome = virtual_time(run(lambda _r, _t, now: UNREACHABLE if 5 < now < 45 else OK, Limits(concurrency=64), 20_000))
    assert outcome.journal.statuses()["succeeded"] >= 19_900
    assert len(outcome.journal.rows) == 20_000
    knocks = [at for at, _ in outcome.endpoint.log if 6 < at - outcome.endpoint.log[0][0] < 45]
    assert len(knocks) < 100, "it knocks now and then, with few calls"
    assert outcome.summary.progress.outage, "the pause was our own"


@pytest.mark.parametrize(("trouble", "answers_s", "gives_up_s"), [(UNREACHABLE, 0, 3), (DROPPED, 0, 60), (UNREACHABLE, 30, 600)])
def test_an_endpoint_that_stays_away_stops_the_run(virtual_time: Run, trouble: Says, answers_s: int, gives_up_s: int) -> None:
    """Soon where nobody ever reached it, after a minute where it never answered, after `max_wait_s` where it did."""
    script: Script = lambda _r, _t, now: OK if now < answers_s else trouble  # noqa: E731 - a script is one line
    outcome = virtual_time(run(script, Limits(concurrency=64), 100_000))
    assert isinstance(outcome.summary.stopped, EndpointRefused)
    assert answers_s + gives_up_s <= outcome.wall_s < answers_s + 2 * gives_up_s + 10
    assert outcome.journal.statuses()["errored"] < 30


def test_waste_that_was_billed_is_journalled(virtual_time: Run) -> None:
    outcome = virtual_time(run(lambda _r, tries, _n: OK if tries else CUT, Limits(), 3))
    wasted = [attempt for attempt in outcome.journal.attempts if not attempt.final]
    assert len(wasted) == outcome.summary.progress.wasted == 3
    assert all(attempt.usage is not None and attempt.usage.input_tokens == 10 for attempt in wasted)


def test_waste_that_may_have_been_billed_is_journalled_without_a_budget(virtual_time: Run) -> None:
    """A connection that was lost before the first byte tells neither what the call cost nor that it cost nothing."""
    outcome = virtual_time(run(lambda _r, tries, _n: OK if tries else DROPPED, Limits(), 3))
    wasted = [attempt for attempt in outcome.journal.attempts if not attempt.final]
    assert len(wasted) == outcome.summary.progress.wasted == 3
    assert all(attempt.broke_off and attempt.billed_unseen for attempt in wasted)
    never_sent = virtual_time(run(lambda _r, tries, _n: OK if tries else UNREACHABLE, Limits(), 3))
    assert [attempt.final for attempt in never_sent.journal.attempts] == [True] * 3


def test_attempts_that_cost_nothing_are_not(virtual_time: Run) -> None:
    outcome = virtual_time(run(lambda _r, tries, _n: OK if tries else BROKEN, Limits(), 3))
    assert [attempt.final for attempt in outcome.journal.attempts] == [True] * 3


def test_overload_inside_a_stream_of_status_200_slows_the_run(virtual_time: Run) -> None:
    overloaded = Says(body=b"event: error\ndata: " + OVERLOADED.body + b"\n\n", after_s=0.05)
    outcome = virtual_time(run(lambda _r, tries, _n: OK if tries else overloaded, Limits(concurrency=4), 20))
    assert outcome.journal.statuses() == {"succeeded": 20}
    assert "refused" in [change.why for change in outcome.summary.concurrency]


def test_an_endpoint_that_refuses_stops_the_run_in_its_own_words(virtual_time: Run) -> None:
    outcome = virtual_time(run(always(UNAUTHORIZED), Limits(concurrency=64), 1000))
    assert isinstance(outcome.summary.stopped, EndpointRefused)
    assert "invalid x-api-key" in str(outcome.summary.stopped)
    assert outcome.summary.stopped.hint
    assert len(outcome.endpoint.log) <= 8
    assert set(outcome.journal.statuses()) <= {"canceled"}, "with another key each of them may be answered"


def test_errors_in_a_row(virtual_time: Run) -> None:
    outcome = virtual_time(run(always(BAD), Limits(concurrency=4, max_consecutive_errors=15), 1000))
    assert isinstance(outcome.summary.stopped, TooManyErrors)
    assert "messages: too long" in str(outcome.summary.stopped)
    assert 15 <= len(outcome.journal.rows) < 20


def test_a_high_error_rate_stops_on_evidence(virtual_time: Run) -> None:
    script: Script = lambda row, *_: BAD if row % 5 == 0 else OK  # noqa: E731 - a script is one line
    outcome = virtual_time(run(script, Limits(concurrency=8), 5000))
    assert isinstance(outcome.summary.stopped, TooManyErrors)
    assert 20 <= len(outcome.journal.rows) < 400


def test_the_allowed_error_rate_does_not(virtual_time: Run) -> None:
    script: Script = lambda row, *_: BAD if row % 20 == 0 else OK  # noqa: E731 - a script is one line
    outcome = virtual_time(run(script, Limits(concurrency=32), 5000))
    assert outcome.summary.stopped is None
    assert outcome.journal.statuses() == {"succeeded": 4750, "errored": 250}


def test_a_deadline_drains(virtual_time: Run) -> None:
    outcome = virtual_time(run(always(OK), Limits(concurrency=8, deadline_s=9.5), 1000))
    assert isinstance(outcome.summary.stopped, BudgetReached)
    assert "deadline" in str(outcome.summary.stopped)
    assert outcome.wall_s == pytest.approx(10, abs=0.1)
    assert len(outcome.journal.rows) == len(outcome.endpoint.log)


def test_the_first_signal_drains_and_keeps_all_that_arrives(virtual_time: Run) -> None:
    outcome = virtual_time(run(always(Says(after_s=5)), Limits(concurrency=8), 1000, stop_at=(12.0,)))
    assert isinstance(outcome.summary.stopped, Interrupted)
    assert outcome.summary.stopped.exit_code == 130
    assert len(outcome.journal.rows) == len(outcome.endpoint.log)
    assert max(at for at, _ in outcome.endpoint.log) - outcome.endpoint.log[0][0] <= 12
    assert outcome.endpoint.broken_off == 0


def test_the_grace_is_bounded(virtual_time: Run) -> None:
    script = always(Says(stream_s=100))
    outcome = virtual_time(run(script, Limits(concurrency=4, grace_s=7), 100, stop_at=(50.0,)))
    assert outcome.wall_s == pytest.approx(57, abs=0.1)
    assert outcome.endpoint.broken_off == 4
    assert [(a.final, a.status) for a in outcome.journal.attempts] == [(False, "canceled")] * 4
    assert all(attempt.usage is not None for attempt in outcome.journal.attempts), "what was billed is kept"


def test_the_second_signal_ends_at_once(virtual_time: Run) -> None:
    outcome = virtual_time(run(always(Says(after_s=1000)), Limits(concurrency=4), 100, stop_at=(5.0, 6.0)))
    assert outcome.wall_s == pytest.approx(6, abs=0.1)
    assert outcome.endpoint.broken_off == 4


def test_a_complete_answer_survives_the_breaking_off(virtual_time: Run) -> None:
    """The stop reason is there, only the connection's end is not: that is an answer, and it was paid for."""
    script = always(Says(stream_s=3.0, after_s=0.5))
    outcome = virtual_time(run(script, Limits(concurrency=1), 10, stop_at=(11.0, 12.0)))
    assert outcome.journal.statuses() == {"succeeded": 1}


def test_calls_at_the_gate_are_not_sent_any_more(virtual_time: Run) -> None:
    outcome = virtual_time(run(always(OK), Limits(rpm=6), 100, stop_at=(15.0,)))
    assert outcome.wall_s < 17
    assert len(outcome.endpoint.log) == len(outcome.journal.rows) == 2


def test_a_signal_ends_a_pause(virtual_time: Run) -> None:
    script = always(Says(429, LIMITED.body, {"retry-after": "500"}, 0.05))
    outcome = virtual_time(run(script, Limits(), 100, stop_at=(15.0,)))
    assert outcome.wall_s == pytest.approx(15, abs=0.1)


def test_a_signal_before_the_start_sends_nothing(virtual_time: Run) -> None:
    async def main() -> EngineSummary:
        stop = StopSignal()
        stop.request(15)
        endpoint = ScriptedEndpoint(always(OK))
        engine = LocalEngine(Wiring(transport=endpoint, new_decoder=ReplyDecoder, land=Journal().land), Limits())
        summary = await engine.drive(requests(10), stop)
        assert not endpoint.log
        return summary

    stopped = virtual_time(main()).stopped
    assert isinstance(stopped, Interrupted)
    assert stopped.exit_code == 143


def test_a_dataset_that_breaks_keeps_what_is_in_flight(virtual_time: Run) -> None:
    def source() -> Iterator[Request]:
        yield from requests(10)
        raise DatasetError([Problem(message="cut", row=10)])

    outcome = virtual_time(run(always(OK), Limits(concurrency=64), source()))
    assert isinstance(outcome.summary.stopped, DatasetError)
    assert len(outcome.journal.rows) == 10


PRICE = Decimal("0.001")


def price_of(usage: Usage, _model: str, _at: int) -> Decimal:
    """A tenth of a cent a token, in and out."""
    return PRICE * ((usage.input_tokens or 0) + (usage.output_tokens or 0))


def worst_case(request: Request) -> Decimal | None:
    return PRICE * (request.input_tokens + request.max_tokens)


# 10 + 5 tokens an answer is 1.5 cents, the worst case (10 + 20) is 3.


def test_the_budget_is_used_and_never_exceeded(virtual_time: Run) -> None:
    budget = MoneyBudget(Decimal("1.00"), worst_case, price_of)
    outcome = virtual_time(run(always(OK), Limits(concurrency=32), 1000, budget=budget))
    assert isinstance(outcome.summary.stopped, BudgetReached)
    assert "$0.975 of $1.00" in str(outcome.summary.stopped)
    assert budget.spent == Decimal("0.975")
    assert budget.reserved == 0
    assert outcome.summary.progress.cost == budget.spent


@pytest.mark.parametrize("seed", range(12))
def test_not_by_one_cent_under_faults_and_signals(virtual_time: Run, seed: int) -> None:
    """The endpoint bills whatever it began to answer, to the worst: its bill never exceeds the maximum."""
    chance = random.Random(seed)
    billed = Decimal(0)

    def script(*_: object) -> Says:
        nonlocal billed
        says = chance.choices([OK, BROKEN, CUT, LIMITED, UNREACHABLE, Says(stream_s=1.0)], [5, 1, 2, 1, 1, 3])[0]
        if says is CUT:
            billed += worst_case(next(requests(1))) or 0
        elif says.status == 200:
            billed += Decimal("0.015")
        return says

    budget = MoneyBudget(Decimal("2.00"), worst_case, price_of, prior=Decimal("0.40"))
    stop_at = (chance.uniform(1, 60),) if seed % 3 == 0 else ()
    outcome = virtual_time(
        run(script, Limits(concurrency=16, grace_s=0.2, max_error_rate=1), 1000, budget=budget, stop_at=stop_at)
    )
    assert isinstance(outcome.summary.stopped, Interrupted if stop_at else BudgetReached)
    assert billed + Decimal("0.40") <= budget.spent + budget.held <= Decimal("2.00")
    assert budget.reserved == budget.in_flight == 0
    kept = sum((price_of(a.usage, "m", 0) for a in outcome.journal.attempts if a.reply and a.usage), Decimal("0.40"))
    held = sum((Decimal(a.cost_reserved) for a in outcome.journal.attempts if a.cost_reserved), Decimal(0))
    assert (kept, held) == (budget.spent, budget.held), "a resumed run knows all of it from the journal"


def test_a_model_without_a_price_is_refused_before_anything_is_sent(virtual_time: Run) -> None:
    budget = MoneyBudget(Decimal(1), lambda _: None, price_of)
    outcome = virtual_time(run(always(OK), Limits(), 10, budget=budget))
    assert isinstance(outcome.summary.stopped, UsageError)
    assert "allow_unpriced" in (outcome.summary.stopped.hint or "")
    assert not outcome.endpoint.log


def test_unless_that_is_allowed(virtual_time: Run) -> None:
    budget = MoneyBudget(Decimal(1), lambda _: None, lambda *_: None, allow_unpriced=True)
    outcome = virtual_time(run(always(OK), Limits(), 10, budget=budget))
    assert outcome.summary.stopped is None
    assert budget.spent == 0
    assert outcome.summary.progress.cost is None, "unknown is not nothing"


def test_a_call_dearer_than_its_worst_case_makes_the_next_ones_careful() -> None:
    budget = MoneyBudget(Decimal(1), worst_case, lambda *_: Decimal("0.06"))
    request = next(requests(1))
    worst = budget.worst_case(request)
    budget.reserve(worst)
    reply = ReplyDecoder()
    reply.head(200, {})
    reply.feed(ANSWER)
    answer = reply.finish(Ended(how="complete"), now=0.0)
    attempt = Attempt(ordinal=0, attempt=1, final=True, status="succeeded", model="m", reply=answer)  # type: ignore[arg-type]  # it is a reply
    budget.settle(attempt, worst, "complete")
    assert budget.worst_case(request) == 2 * worst


def test_one_leader_a_prefix_and_the_rest_at_its_first_event(virtual_time: Run) -> None:
    outcome = virtual_time(run(always(Says(stream_s=1.0)), Limits(concurrency=32), requests(100, prefixes=4), cache_life_s=300))
    assert len(outcome.journal.rows) == 100
    sends = defaultdict(list)
    for at, row in outcome.endpoint.log:
        sends[row % 4].append(at)
    for times in sends.values():
        assert times[1] - times[0] >= 1.0


def test_a_leader_that_fails_blocks_nobody(virtual_time: Run) -> None:
    outcome = virtual_time(
        run(lambda _r, tries, _n: OK if tries else BROKEN, Limits(concurrency=8), requests(40, prefixes=2), cache_life_s=300)
    )
    assert outcome.journal.statuses() == {"succeeded": 40}


def test_progress_counts(virtual_time: Run) -> None:
    outcome = virtual_time(run(lambda row, tries, _: BAD if row == 1 else OK if tries else BROKEN, Limits(), 20))
    progress = outcome.summary.progress
    assert (progress.landed, progress.errored, progress.retries, progress.sent) == (20, 1, 19, 39)
    assert (progress.input_tokens, progress.output_tokens) == (190, 95)
    assert sum(here.sent for here in outcome.summary.timeline) == 39
    assert isinstance(outcome.summary.stopped, BatchrunError | None)


@pytest.mark.parametrize("life_s", [None, 300.0])
def test_answers_of_an_earlier_run_are_not_asked_for_again(virtual_time: Run, tmp_path: Path, life_s: float | None) -> None:
    """With `--cache`, plain and in the prompt cache's order: only what is new is sent, a hit is marked and costs nothing."""
    told: list[Outcome] = []
    for name, rows in (("one", 600), ("two", 610)):
        budget = MoneyBudget(Decimal(100), worst_case, price_of)
        with ResponseCache(tmp_path, run_id=name, endpoint=Endpoint()) as cache:
            source = requests(rows, prefixes=3)
            told.append(virtual_time(run(always(OK), Limits(), source, response_cache=cache, cache_life_s=life_s, budget=budget)))
    second = told[1]
    assert len(second.endpoint.log) == 10
    assert second.summary.progress.cached == 600
    assert Counter(attempt.cached_from for attempt in second.journal.rows.values()) == {"one": 600, None: 10}
    assert second.summary.progress.cost == 10 * Decimal("0.015")


def test_an_exhausted_account_holds_the_gate_as_its_headers_say(virtual_time: Run) -> None:
    """A good answer that says nothing is left for 20 s: nobody sends until then."""
    headers = {
        "anthropic-ratelimit-requests-limit": "600",
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": "20",
    }
    outcome = virtual_time(run(lambda row, *_: Says(headers=headers, after_s=0.05) if row == 0 else OK, Limits(rpm=600), 30))
    sends = [at - outcome.endpoint.log[0][0] for at, _ in outcome.endpoint.log]
    assert not [at for at in sends if 0.3 < at < 20]
    assert len(outcome.journal.rows) == 30


def test_a_signal_releases_the_money_of_calls_that_were_not_sent(virtual_time: Run) -> None:
    budget = MoneyBudget(Decimal(100), worst_case, price_of)
    outcome = virtual_time(run(always(OK), Limits(rpm=6), 100, budget=budget, stop_at=(15.0,)))
    assert budget.reserved == budget.in_flight == 0
    assert budget.spent == len(outcome.endpoint.log) * Decimal("0.015")


def test_without_a_maximum_what_broke_off_is_kept_at_its_worst_case(virtual_time: Run) -> None:
    """Nothing is reserved, and a later session with a maximum still knows what may have been billed."""
    budget = MoneyBudget(ENDLESS, worst_case, price_of, allow_unpriced=True, prior=Decimal("0.10"))
    outcome = virtual_time(
        run(lambda row, *_: CUT if row == 3 else OK, Limits(max_attempts=2, max_error_rate=1), 10, budget=budget)
    )
    worst = worst_case(next(requests(1)))
    assert worst is not None
    assert budget.reserved == budget.in_flight == 0
    assert budget.spent == Decimal("0.10") + 9 * Decimal("0.015")
    assert budget.held == 2 * worst
    assert {attempt.cost_reserved for attempt in outcome.journal.attempts if attempt.ordinal == 3} == {str(worst)}


def test_a_row_that_alone_is_refused_ends_alone(virtual_time: Run) -> None:
    """Others are answered before and after it: it is tried again, and its refusal is its own."""
    outcome = virtual_time(run(lambda row, *_: UNAUTHORIZED if row == 50 else OK, Limits(concurrency=8), 200))
    assert outcome.summary.stopped is None
    assert outcome.journal.statuses() == {"succeeded": 199, "errored": 1}
    assert outcome.endpoint.tries[50] in {2, 3}


def test_a_credential_that_is_withdrawn_stops_the_run(virtual_time: Run) -> None:
    """Refusals with no answer between them: no row is ended for it, and few calls are spent on it."""
    outcome = virtual_time(run(lambda _r, _t, now: UNAUTHORIZED if now > 20 else OK, Limits(concurrency=8), 2000))
    assert isinstance(outcome.summary.stopped, EndpointRefused)
    assert outcome.journal.statuses()["errored"] == 0
    assert sum(at - outcome.endpoint.log[0][0] > 20 for at, _ in outcome.endpoint.log) < 50


def test_refusals_of_single_calls_do_not_stall_the_run(virtual_time: Run) -> None:
    """One call in twenty is refused with a wait of 2 s, at random: the rows wait, the run goes on."""
    chance = random.Random(9)
    sporadic = Says(429, LIMITED.body, {"retry-after": "2"}, 0.5)
    outcome = virtual_time(run(lambda *_: sporadic if chance.random() < 0.05 else OK, Limits(concurrency=64), 3000))
    assert outcome.journal.statuses() == {"succeeded": 3000}
    assert outcome.wall_s < 350, "a pause for each of the 150 would be 300 s more"
