"""The driver's and the worker's parts by themselves: what is handed out, read, asked, and done about the dead."""

import asyncio
import json
import socket
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from msgspec.structs import replace

from batchrun.collect import Plan
from batchrun.distribute import Driver, distribute, unlanded
from batchrun.engine.distributed.messages import AskRows, Look, Lost, Question, Rows, RowsEnded, Stop, View, Word
from batchrun.engine.distributed.socket_line import SocketLine, serve
from batchrun.engine.stopping import StopSignal
from batchrun.engine.telemetry import Progress
from batchrun.errors import BatchrunError, StorageError, UsageError
from batchrun.job import Job, Prices, RequestSpec, Scoring, Select, StopWhen
from batchrun.pricing.book import open_book
from batchrun.records import Attempt, Failure
from batchrun.sources import Dataset, open_dataset
from batchrun.storage.folder import RunFolder
from batchrun.storage.home import Home
from batchrun.storage.index import JournalIndex
from batchrun.worker import Order, RangeReader, decode_order, encode_order, needed


def dataset_of(folder: Path, rows: int, select: Select | None = None) -> Dataset:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": str(n)}) + "\n" for n in range(rows)))
    return open_dataset(str(path), select=select)


def plan_of(folder: Path, rows: int, scoring: Scoring | None = None) -> Plan:
    dataset = dataset_of(folder, rows)
    assert sum(1 for _ in dataset.samples()) == rows  # now it knows how many they are
    request = RequestSpec(model=("a", "b"))
    job = Job(name="j", dataset=dataset.location, request=request, scoring=scoring or Scoring())
    return Plan(job=job, dataset=dataset, folder=RunFolder(folder), book=open_book(Prices()), environ={})


def test_a_plan_shows_nothing_of_the_environment(tmp_path: Path) -> None:
    plan = replace(plan_of(tmp_path, 1), environ={"ANTHROPIC_API_KEY": "sk-not-to-be-shown"})
    assert "sk-not-to-be-shown" not in repr(plan)
    assert str(tmp_path) in repr(plan)


def order_of(number: int) -> Order:
    job = Job(name="j", dataset="d", request=RequestSpec(model=("m",), params={"top_p": 0.5}))
    return Order(
        name=f"w{number}",
        workers=1,
        job=job,
        home=Home(folder="f", mark="t"),
        environ={"ANTHROPIC_API_KEY": "secret"},
        price_text=None,
        bad_rows={0: b"why"},
        landed=b"",
        stamp=None,
        digest="",
        retry_errors=False,
    )


def land(folder: Path, ordinals: Iterable[int]) -> None:
    failure = Failure(kind="timeout", retry="retry", message="late")
    with RunFolder(folder).open_journal("w1") as journal:
        for ordinal in ordinals:
            landed = Attempt(ordinal=ordinal, attempt=1, final=True, status="errored", model="a", failure=failure)
            journal.append(landed, Decimal(0))


def test_what_has_landed_is_not_handed_out_again_but_small_holes_are_passed_over(tmp_path: Path) -> None:
    """Places are rows with two calls each: a row has landed when both have."""
    plan = plan_of(tmp_path, 4000)
    with plan.folder.open_index() as index:
        assert unlanded(plan, index) == [(0, 4000)]
    land(tmp_path, [*range(2000), *range(2100, 2110), *range(4000, 6000), 7998])
    with plan.folder.open_index() as index:
        assert unlanded(plan, index) == [(1000, 2000), (3000, 4000)]
    uncounted = replace(plan, dataset=open_dataset(plan.job.dataset))
    with plan.folder.open_index() as index:
        assert unlanded(uncounted, index) == [(1000, 2000), (3000, 4000), (4000, None)]
    land(tmp_path, range(8000))
    with plan.folder.open_index() as index:
        assert unlanded(plan, index) == []


@pytest.mark.parametrize("select", [None, Select(limit=25), Select(where="index >= 5")])
def test_ranges_are_read_by_their_places_in_any_order(tmp_path: Path, select: Select | None) -> None:
    dataset = dataset_of(tmp_path, 30, select)
    whole = [sample.id for sample in dataset.samples()]
    reader = RangeReader(dataset, direct=select is None)
    for start, stop in ((3, 7), (7, 9), (15, 20), (22, 23), (0, 2), (18, None), (4, 5)):
        read = list(reader.read(start, stop))
        assert [place for place, _ in read] == list(range(start, len(whole) if stop is None else stop))
        assert [sample.id for _, sample in read] == whole[start:stop]
        assert reader.ended == (stop is None)
    assert list(reader.read(len(whole), len(whole) + 5)) == []
    assert reader.ended


def test_an_order_arrives_whole_and_shows_nothing() -> None:
    order = order_of(7)
    assert decode_order(encode_order(order)) == order
    assert "secret" not in repr(order)
    assert needed({"HTTPS_PROXY": "p", "HOME": "h", "ANTHROPIC_API_KEY": "k"}).keys() >= {"HTTPS_PROXY", "ANTHROPIC_API_KEY"}


async def test_questions_overtake_each_other_and_a_broken_line_is_noticed() -> None:
    """A question that has to wait holds up no other; whoever waits when the other process dies hears of it."""
    ours, theirs = socket.socketpair()
    waits = asyncio.Event()

    async def answer(question: Question) -> Rows | Word:
        if isinstance(question, AskRows):
            await waits.wait()
            return Rows(start=1, stop=2)
        return Word(ceiling=3)

    async with asyncio.TaskGroup() as group:
        serving = group.create_task(serve(ours, b"order", answer))
        line = await SocketLine.connect(theirs)
        assert await line.receive() == b"order"
        group.create_task(line.listen())
        slow = group.create_task(line.ask(AskRows(idle=True)))
        assert await line.ask(RowsEnded(at=1)) == Word(ceiling=3)
        waits.set()
        assert await slow == Rows(start=1, stop=2)
        waits.clear()
        lost = group.create_task(_asked(line))
        await asyncio.sleep(0.01)
        serving.cancel()
        assert await lost == "gone"
        with pytest.raises(ConnectionError):
            await line.ask(AskRows(idle=False))


async def _asked(line: SocketLine) -> str:
    try:
        await line.ask(AskRows(idle=True))
    except ConnectionError:
        return "gone"
    return "answered"


class FakeCrew:
    """Workers that end at once, in good order or not, and a broker that says what it is told to."""

    def __init__(self, view: View, ends: list[bool]) -> None:
        self.view, self.ends = view, ends
        self.hired: list[str] = []
        self.dead: list[str] = []
        self.known = JournalIndex(None)
        self.killed: list[str] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    async def look(self, look: Look) -> View:
        """Say the view."""
        del look
        return self.view

    async def lost(self, lost: Lost) -> None:
        """Note it, and what had landed."""
        self.dead.append(lost.worker)
        self.known.hear(lost.landed)

    def hire(self, order: Order) -> asyncio.Task[bool]:
        """Start one that ends as the next of `ends` says."""
        self.hired.append(order.name)
        return asyncio.get_running_loop().create_task(self._work(order.name))

    def kill(self, worker: str) -> None:
        """Note it."""
        self.killed.append(worker)

    async def _work(self, name: str) -> bool:
        while self.view.silent and name not in self.killed:  # noqa: ASYNC110 - polled as a real process is
            await asyncio.sleep(0.01)
        return self.ends.pop(0) if self.ends else False


async def test_the_dead_are_replaced_but_not_for_ever(tmp_path: Path) -> None:
    """Whoever takes over hears what had landed."""
    land(tmp_path, [3, 5])
    crew = FakeCrew(View(progress=Progress(landed=3)), [])
    driver = Driver(crew, order_of, 1.0, Decimal(0), RunFolder(tmp_path).open_index)
    with pytest.raises(BatchrunError, match="keep dying"):
        await driver.run(2, plan_of(tmp_path, 1))
    assert crew.hired == [f"w{n}" for n in range(1, 8)]
    assert sorted(crew.dead) == crew.hired
    assert [ordinal for ordinal in range(20) if crew.known.landed(ordinal)] == [3, 5]


async def test_a_silent_worker_is_ended_and_replaced(tmp_path: Path) -> None:
    crew = FakeCrew(View(progress=Progress(cost=Decimal(1)), silent=("w1",), finished=True), [False, True])
    driver = Driver(crew, order_of, 1.0, Decimal(2), RunFolder(tmp_path).open_index)
    async with asyncio.timeout(10):
        running = asyncio.ensure_future(driver.run(1, plan_of(tmp_path, 1)))
        while not crew.killed:  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.01)
        crew.view = View(progress=Progress(cost=Decimal(1)), finished=True)
        summary = await running
    assert crew.hired == ["w1", "w2"]
    assert summary.progress.cost == Decimal(3)
    assert summary.stopped is None


async def test_nobody_is_hired_for_a_run_that_stops_and_a_dead_disk_is_raised(tmp_path: Path) -> None:
    stop = Stop.of(StorageError("the disk is full"))
    crew = FakeCrew(View(progress=Progress(), stop=stop), [False])
    with pytest.raises(StorageError, match="the disk is full"):
        await Driver(crew, order_of, 1.0, Decimal(0), RunFolder(tmp_path).open_index).run(1, plan_of(tmp_path, 1))
    assert crew.hired == ["w1"]


async def test_what_judges_answers_in_order_is_refused(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, 1, Scoring(stop_when=StopWhen(ci_half_width=0.1)))
    with pytest.raises(UsageError, match="stop_when"):
        await distribute(plan, stop=StopSignal())
