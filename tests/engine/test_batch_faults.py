"""The Batches engine against an endpoint that fails at every call, stopped, killed and resumed: no call is lost or paid twice.

Each seed is one life of a run: several sessions in virtual time, then calm ones to its end.
"""

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any

import pytest

from batchrun.engine.batch_endpoint import BatchStatus, Refusal
from batchrun.engine.batch_ledger import read_ledger
from batchrun.engine.budget import ENDLESS
from batchrun.engine.telemetry import EngineSummary
from batchrun.errors import BudgetReached, EndpointRefused
from batchrun.records import Failure
from tests.engine.batch_world import CALLS, CUT, LINES, WORST, Life, World, ordinal_of

Run = Callable[[Coroutine[Any, Any, Any]], Any]


async def live(seed: int, folder: Path) -> Life:
    """Live one life: up to five sessions among faults, then calm ones until nothing is left to do."""
    chance = Random(seed)
    world = World(chance, asyncio.get_running_loop().time)
    life = Life(world, chance, folder / "batches.jsonl", chance.choice([ENDLESS, CALLS * WORST / 2]))
    vanished = False
    for _ in range(chance.randrange(6)):
        world.faults, world.largest = chance.choice([0.02, 0.2, 0.5]), chance.choice([5, CALLS])
        end = chance.choice([{}, {"stop_s": 3000 * chance.random() ** 3}, {"kill_s": 3000 * chance.random() ** 3}])
        cancel = chance.random() < 0.15
        summary = await life.session(resubmit=vanished, cancel=cancel, **end)
        if summary is not None:
            told(life, summary, cancel=cancel)
        landed = life.landed()
        lost = [batch for batch, made in world.batches.items() if not {ordinal_of(name) for name in made.kinds} <= landed]
        if lost and chance.random() < 0.1:
            vanished = True
            world.vanish(chance.choice(lost), landed)
    world.faults, world.largest = 0.0, CALLS
    for _ in range(3):
        summary = await life.session(resubmit=vanished)
        assert summary is not None
        told(life, summary, cancel=False)
    assert summary is not None
    assert summary.stopped is None
    return life


def told(life: Life, summary: EngineSummary, *, cancel: bool) -> None:
    """Check that a session that gives no reason has done all there was to do, and that its reason is none of ours."""
    assert not isinstance(summary.stopped, BudgetReached), "there is money enough"
    assert summary.stopped is None or summary.stopped.exit_code != 1
    if summary.stopped is None:
        assert all(submission.closed for submission in read_ledger(life.ledger).values())
        assert summary.progress.in_flight == summary.progress.batches == 0
        assert cancel or {attempt.ordinal for attempt in life.journal if attempt.final} == set(range(CALLS))


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here pulls the plug."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@pytest.mark.parametrize("seed", range(100))
def test_whatever_happens_every_call_lands_once_and_is_paid_once(seed: int, tmp_path: Path, virtual_time: Run) -> None:
    life = virtual_time(live(seed, tmp_path))
    ends = [attempt for attempt in life.journal if attempt.final and attempt.status in {"succeeded", "errored"}]
    assert Counter(attempt.ordinal for attempt in ends) == dict.fromkeys(range(CALLS), 1)
    answered = {attempt.ordinal for attempt in ends if attempt.status == "succeeded"}
    assert life.world.paid() == dict.fromkeys(answered, 1)


async def alone(world: type[World], folder: Path, *, resubmit: bool = False) -> tuple[Life, EngineSummary]:
    """Drive one session against an endpoint that fails in its own way only."""
    chance = Random(1)
    life = Life(world(chance, asyncio.get_running_loop().time), chance, folder / "batches.jsonl", ENDLESS)
    summary = await life.session(resubmit=resubmit)
    assert summary is not None
    return life, summary


def test_a_call_that_failed_is_made_again_only_when_its_own_batch_is_over(tmp_path: Path, virtual_time: Run) -> None:
    """Else a crash before the end of the download would have it in two open batches, and paid for in both."""

    class CutAfterAnError(World):
        open_batches: tuple[int, ...] = ()

        async def download(self, batch: str, on_line: Callable[[bytes], bool]) -> Failure | None:
            self.open_batches += (len(self.batches),)
            if len(self.open_batches) > 3:
                return await super().download(batch, on_line)
            made = self.batches[batch]
            made.kinds[next(iter(made.kinds))] = "overloaded"
            on_line(json.dumps({"custom_id": next(iter(made.kinds)), "result": LINES["overloaded"]}).encode())
            return CUT

    life, summary = virtual_time(alone(CutAfterAnError, tmp_path))
    assert summary.stopped is None
    assert set(life.world.open_batches[:4]) == {len(read_ledger(life.ledger)) - 1}
    assert life.world.paid() == dict.fromkeys(range(CALLS), 1)


def test_a_batch_that_vanishes_in_mid_download_is_made_anew_less_what_has_landed(tmp_path: Path, virtual_time: Run) -> None:
    class Vanishing(World):
        failed = -1

        async def download(self, batch: str, on_line: Callable[[bytes], bool]) -> Failure | None:
            if self.failed >= 0:
                return await super().download(batch, on_line)
            first, second, third = list(self.batches[batch].kinds)[:3]
            self.failed = ordinal_of(third)
            for name, kind in ((first, "succeeded"), (second, "succeeded"), (third, "overloaded")):
                on_line(json.dumps({"custom_id": name, "result": LINES[kind]}).encode())
            self.vanish(batch, {ordinal_of(first), ordinal_of(second)})
            return CUT

    life, summary = virtual_time(alone(Vanishing, tmp_path, resubmit=True))
    assert summary.stopped is None
    landed = Counter(attempt.ordinal for attempt in life.journal if attempt.final)
    assert landed == life.world.paid() == dict.fromkeys(range(CALLS), 1)
    assert [attempt.attempt for attempt in life.journal if attempt.ordinal == life.world.failed] == [1, 2]


def test_a_download_that_always_breaks_off_ends_the_run(tmp_path: Path, virtual_time: Run) -> None:
    class Breaking(World):
        async def download(self, batch: str, on_line: Callable[[bytes], bool]) -> Failure | None:  # noqa: ARG002
            return CUT

    _, summary = virtual_time(alone(Breaking, tmp_path))
    assert isinstance(summary.stopped, EndpointRefused)
    assert 600 <= summary.wall_s < 4000


def test_an_answer_to_a_submission_that_cannot_be_read_is_the_last_submission(tmp_path: Path, virtual_time: Run) -> None:
    class Babbling(World):
        async def create(self, body: bytes) -> BatchStatus | Refusal:
            await super().create(body)
            return Refusal(Failure(kind="unknown_shape", retry="stop_run", message="who knows"), certain=False)

    life, summary = virtual_time(alone(Babbling, tmp_path))
    assert isinstance(summary.stopped, EndpointRefused)
    assert "who knows" in str(summary.stopped)
    assert len(life.world.batches) == 1
    assert life.landed() == set(life.world.paid()), "what it has brought is kept"


def test_an_unreadable_answer_to_the_last_submission_ends_nothing_once_it_is_found(tmp_path: Path, virtual_time: Run) -> None:
    """No call is left that would have to be submitted, so the run is done and not refused."""

    class BabblingAtLast(World):
        async def create(self, body: bytes) -> BatchStatus | Refusal:
            created = await super().create(body)
            if sum(len(made.kinds) for made in self.batches.values()) < CALLS:
                return created
            return Refusal(Failure(kind="unknown_shape", retry="stop_run", message="who knows"), certain=False)

    life, summary = virtual_time(alone(BabblingAtLast, tmp_path))
    assert summary.stopped is None
    assert life.landed() == set(range(CALLS))
    assert life.world.paid() == dict.fromkeys(range(CALLS), 1)


@pytest.mark.parametrize(("pages", "resubmit", "ends"), [(3, False, True), (10**6, False, False), (10**6, True, True)])
def test_a_list_that_cannot_be_read_is_asked_for_again(
    pages: int,
    resubmit: bool,  # noqa: FBT001 - a parameter
    ends: bool,  # noqa: FBT001 - a parameter
    tmp_path: Path,
    virtual_time: Run,
) -> None:
    """For as long as any call that fails; `--resubmit` does not wait for what may be no list of batches at all."""

    class Unlisted(World):
        submitted = looks = 0

        async def create(self, body: bytes) -> BatchStatus | Refusal:
            self.submitted += 1
            return Refusal(CUT, certain=False) if self.submitted == 1 else await super().create(body)

        async def recent(self, since: float) -> AsyncGenerator[BatchStatus | Failure, None]:
            self.looks += 1
            if self.looks <= pages:
                yield Failure(kind="unknown_shape", retry="retry", message="a page")
                return
            async for batch in super().recent(since):
                yield batch

    life, summary = virtual_time(alone(Unlisted, tmp_path, resubmit=resubmit))
    assert isinstance(summary.stopped, EndpointRefused) is not ends
    assert (life.landed() == set(range(CALLS))) is ends
    assert resubmit or life.world.looks > 3
    assert not resubmit or life.world.looks == 1


@pytest.mark.parametrize("call", ["show", "create"])
def test_a_run_that_ends_before_its_calls_have_landed_says_so(call: str, tmp_path: Path, virtual_time: Run) -> None:
    """Whatever made it end: here a cancellation out of nowhere, which a task group takes for an orderly end."""

    async def cancelled(*_args: object) -> None:
        raise asyncio.CancelledError

    life, summary = virtual_time(alone(type("Broken", (World,), {call: cancelled}), tmp_path))
    assert life.journal == []
    assert summary.stopped is not None
    assert summary.stopped.exit_code == 1
    assert "its calls have not landed: that is a fault of batchrun" in str(summary.stopped)
