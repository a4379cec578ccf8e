"""What the workers of a run hear of each other, by the broker: refusals, answers, errors, reasons to stop, ceilings."""

import asyncio
from collections.abc import Callable, Coroutine
from decimal import Decimal
from typing import Any

import pytest

from batchrun.engine.concurrency import Change
from batchrun.engine.distributed.broker import Broker
from batchrun.engine.distributed.gathering import add_up, measured, summarize
from batchrun.engine.distributed.messages import (
    Account,
    AskMoney,
    AskRows,
    Beat,
    Counted,
    Look,
    Lost,
    Money,
    Rows,
    Stop,
    View,
    Word,
    decode_answer,
    decode_question,
    encode,
)
from batchrun.engine.distributed.ranges import Ranges
from batchrun.engine.telemetry import Progress, Telemetry
from batchrun.errors import BatchrunError, BudgetReached, EndpointRefused, Interrupted, TooManyErrors
from batchrun.job import Limits
from batchrun.records import Attempt, Reply, Usage

Run = Callable[[Coroutine[Any, Any, Any]], Any]
REFUSED = Stop.of(EndpointRefused("no", hint="why"))


def broker_of(limits: Limits | None = None, *, rows: int = 100, workers: int = 2) -> Broker:
    limits = limits or Limits(concurrency=10)
    return Broker(limits, Ranges([(0, rows)], workers=workers, concurrency=4), workers=workers, prior=Decimal(0))


async def beat(broker: Broker, name: str, **told: Any) -> Word:
    told.setdefault("progress", Progress())
    word = await broker.ask(name, Beat(**told))
    assert isinstance(word, Word)
    return word


async def look(broker: Broker, stop: Stop | None = None, *, last: bool = False) -> View:
    view = await broker.ask("driver", Look(stop=stop, last=last))
    assert isinstance(view, View)
    return view


async def rows(broker: Broker, name: str, *, idle: bool) -> Rows:
    found = await broker.ask(name, AskRows(idle=idle))
    assert isinstance(found, Rows)
    return found


def test_a_refusal_and_its_pause_reach_the_others_once(virtual_time: Run) -> None:
    async def main() -> None:
        broker = broker_of()
        await beat(broker, "b")
        own = await beat(broker, "a", refused=True, pause_s=3.0)
        assert not own.refused
        first, second = await beat(broker, "b"), await beat(broker, "b")
        assert first.refused
        assert not second.refused
        assert first.pause_s == pytest.approx(3.0, abs=0.01)
        await asyncio.sleep(3.1)
        assert (await beat(broker, "b")).pause_s == 0

    virtual_time(main())


def test_an_answer_is_news_to_the_others_alone(virtual_time: Run) -> None:
    async def main() -> None:
        broker = broker_of()
        assert (await beat(broker, "a", answered_s=0.5)).answered_s is None
        assert (await beat(broker, "b")).answered_s == pytest.approx(0.5, abs=0.01)
        assert (await beat(broker, "b")).answered_s is None

    virtual_time(main())


def test_errors_are_counted_over_all_workers(virtual_time: Run) -> None:
    """Neither worker has seen enough errors to stop a run; together they have, and an answer of either breaks a row of them."""

    async def main() -> None:
        limits = Limits(max_consecutive_errors=10, max_error_rate=1.0)
        broker = broker_of(limits)
        six = Counted(done=6, errored=6, in_a_row=6, last="HTTP 500")
        assert (await beat(broker, "a", counted=six)).stop is None
        assert (await beat(broker, "b", counted=Counted(done=1))).stop is None
        assert (await beat(broker, "a", counted=six)).stop is None
        stop = (await beat(broker, "b", counted=six)).stop
        assert stop is not None
        assert isinstance(stop.error(), TooManyErrors)
        assert "HTTP 500" in stop.message

    virtual_time(main())


def test_the_first_reason_to_stop_counts_and_a_later_one_only_hurries(virtual_time: Run) -> None:
    async def main() -> None:
        broker = broker_of()
        await beat(broker, "a", stopped=REFUSED)
        view = await look(broker, Stop(code=130, message="stopped by SIGINT", at_once=True))
        assert view.stop is not None
        assert view.stop.at_once
        assert isinstance(view.stop.error(), EndpointRefused)
        assert (await rows(broker, "b", idle=True)).empty

    virtual_time(main())


def test_ceilings_never_add_up_to_more_than_the_runs(virtual_time: Run) -> None:
    """A worker that has no rows leaves its part to the others; it gets one again only once they have made room."""

    async def main() -> None:
        broker = broker_of(rows=4)
        assert (await beat(broker, "a")).ceiling == 5
        assert (await beat(broker, "b")).ceiling == 5
        while not (await rows(broker, "a", idle=False)).empty:
            pass
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(rows(broker, "b", idle=True))
            await asyncio.sleep(0.01)
            assert (await beat(broker, "a", progress=Progress(in_flight=10))).ceiling == 10
            await broker.ask("driver", Lost(worker="a", landed=b"some"))
            assert (await waiting).landed == b"some"
        assert (await beat(broker, "b")).ceiling == 5
        assert (await beat(broker, "c")).ceiling == 5

    virtual_time(main())


def test_an_idle_worker_waits_for_the_rows_of_the_dying_and_then_for_the_end(virtual_time: Run) -> None:
    async def main() -> None:
        broker = broker_of(rows=4)
        got = await rows(broker, "a", idle=True)
        while not (await rows(broker, "a", idle=False)).empty:
            pass
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(rows(broker, "b", idle=True))
            await asyncio.sleep(1)
            assert not waiting.done()
            await broker.ask("driver", Lost(worker="a", landed=b"some"))
            taken = await waiting
            assert (taken.start, taken.landed) == (got.start, b"some")
            while not (await rows(broker, "b", idle=False)).empty:
                pass
            assert not (await look(broker)).finished
            assert (await rows(broker, "b", idle=True)).empty
            assert (await look(broker)).finished

    virtual_time(main())


def test_money_is_waited_for_while_another_may_give_some_back(virtual_time: Run) -> None:
    async def main() -> None:
        broker = broker_of(Limits(max_cost_usd=Decimal(10)), workers=1)
        one = Decimal(1)
        granted = await broker.ask("a", AskMoney(need=Decimal(9), want=Decimal(9), account=Account()))
        assert granted == Money(amount=Decimal(9))
        async with asyncio.TaskGroup() as group:
            asked = AskMoney(need=Decimal(2), want=Decimal(2), account=Account())
            waiting = group.create_task(broker.ask("b", asked))
            await asyncio.sleep(0.1)
            assert (await beat(broker, "a", account=Account(spent=one))).scarce
            await beat(broker, "a", account=Account(spent=one, free=Decimal(8)), leaves=True)
            assert await waiting == Money(amount=Decimal(2))
        denied = await broker.ask("b", AskMoney(need=Decimal(20), want=Decimal(20), account=Account()))
        assert denied == Money(amount=None, account="$1 of $10 spent or held for calls that broke off")

    virtual_time(main())


def test_a_worker_that_is_silent_for_too_long_is_named(virtual_time: Run) -> None:
    async def main() -> None:
        broker = broker_of()
        await beat(broker, "a")
        await asyncio.sleep(10)
        await beat(broker, "b")
        await asyncio.sleep(10)
        assert (await look(broker)).silent == ("a",)
        await broker.ask("driver", Lost(worker="a", landed=b"some"))
        assert (await look(broker)).silent == ()

    virtual_time(main())


def test_counters_survive_the_worker_and_figures_come_with_the_last_look(virtual_time: Run) -> None:
    async def main() -> None:
        broker = broker_of()
        telemetry = Telemetry(asyncio.get_running_loop().time(), Progress())
        part = measured(telemetry, [Change(0.0, 4, "start")], telemetry.began)
        await beat(broker, "a", progress=Progress(sent=5, landed=4, in_flight=1), measured=(part,))
        await broker.ask("driver", Lost(worker="a", landed=b"some"))
        await beat(broker, "b", progress=Progress(sent=2, landed=2))
        view = await look(broker, last=True)
        assert (view.progress.sent, view.progress.landed, view.progress.in_flight) == (7, 6, 0)
        assert len(view.measured) == 1
        assert (await look(broker)).measured == ()

    virtual_time(main())


@pytest.mark.parametrize(
    "error", [BudgetReached("spent", hint="more"), Interrupted("x", signal_number=15), BatchrunError("b"), EndpointRefused("no")]
)
def test_a_reason_to_stop_is_the_same_after_the_way(error: BatchrunError) -> None:
    beat = decode_question(encode(Beat(progress=Progress(cost=Decimal("1.5")), stopped=Stop.of(error))))
    assert isinstance(beat, Beat)
    assert beat.progress.cost == Decimal("1.5")
    assert beat.stopped is not None
    again = beat.stopped.error()
    assert (type(again), str(again), again.hint, again.exit_code) == (type(error), str(error), error.hint, error.exit_code)


def test_answers_are_the_same_after_the_way() -> None:
    for answer in (Word(ceiling=3, stop=REFUSED), Rows(start=1, stop=None), Money(amount=None), View(progress=Progress(sent=1))):
        assert decode_answer(encode(answer)) == answer


def attempt(latency_ms: float) -> Attempt:
    reply = Reply(form="anthropic_json", text="", tool_uses=(), stop_reason="end_turn", usage=Usage(output_tokens=3))
    return Attempt(
        ordinal=0, attempt=1, final=True, status="succeeded", model="m", reply=reply, ttft_ms=1.0, latency_ms=latency_ms
    )


def test_figures_of_two_engines_are_those_of_one() -> None:
    """Quantiles and the timeline of a run do not depend on how many processes measured it."""
    whole, halves = Telemetry(0.0, Progress()), [Telemetry(0.0, Progress()), Telemetry(40.0, Progress())]
    for place in range(100):
        now, one = 2.0 * (place % 2) + 40.0 * (place % 2), attempt(10.0 + place)
        for telemetry in (whole, halves[place % 2]):
            telemetry.sent(now)
            telemetry.ended(one, now)
    parts = [measured(half, [Change(1.0, 5, "start")], 60.0) for half in halves]
    summary = summarize(parts, add_up(half.progress for half in halves), Limits(rpm=100), 60.0, None)
    assert summary.distributions == whole.distributions()
    assert [(one.sent, one.output_tokens) for one in summary.timeline][:43] == [
        (one.sent, one.output_tokens) for one in whole.timeline.bins
    ]
    assert summary.progress.sent == 100
    assert summary.rate_used == {"rpm": 1.0}
    assert [(change.at_s, change.limit) for change in summary.concurrency] == [(1.0, 5), (41.0, 10)]
