"""The Batches engine on the real transport, journal and simulator: interrupted at every step, nothing is lost or paid twice."""

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from batchrun.collect import Calls, Plan, patient
from batchrun.engine import batch_patience, batch_submit
from batchrun.engine.batch_cutter import BatchBounds
from batchrun.engine.batch_endpoint import BatchEndpoint, Refusal
from batchrun.engine.batch_landing import Results
from batchrun.engine.batch_ledger import Landed, Ledger, Submitted, read_ledger
from batchrun.engine.batches import BatchEngine
from batchrun.engine.stopping import StopSignal
from batchrun.engine.telemetry import EngineSummary
from batchrun.errors import BudgetReached, EndpointRefused, Interrupted
from batchrun.job import Faults, Job, Simulate, parse_job
from batchrun.pricing.book import open_book
from batchrun.records import Failure
from batchrun.simulator.server import Server, serve
from batchrun.sources import open_dataset
from batchrun.storage.folder import RunFolder
from batchrun.transport import Credential, open_transport
from batchrun.wire.status import classify_http

ROWS, SIZE = 60, 25
QUICK = Simulate(first_byte_ms=20, token_ms=0, accuracy=1)
TOOL = '{"name": "f", "input_schema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}}'


def job_at(base_url: str, folder: Path, *lines: str) -> Job:
    """Return a job of `ROWS` rows against a simulated endpoint."""
    data = folder / "data.jsonl"
    if not data.exists():
        expected = '"expected": [{"name": "f", "arguments": {}}]'
        data.write_text("".join(f'{{"id": "r{n}", "prompt": "say {n}", "tools": [{TOOL}], {expected}}}\n' for n in range(ROWS)))
    text = f'name = "t"\ndataset = "{data}"\n[endpoint]\nbase_url = "{base_url}"\nauth = "none"\n'
    text += '[request]\nmodel = "claude-sonnet-4-20250514"\nmode = "batches"\nmax_tokens = 64\n'
    return parse_job(text + "\n".join(lines))


async def collected(
    job: Job, folder: Path, stop: StopSignal | None = None, *, size: int = SIZE, settle_s: float = 0.2, **plan: Any
) -> EngineSummary:
    """Collect as `batchrun.collect` does, in batches of `size`."""
    run = RunFolder.create_at(folder / "run")
    dataset = open_dataset(job.dataset, select=job.select)
    transport = open_transport(patient(job.endpoint), Credential(), connections=4, environ={})
    try:
        with run.open_index() as index, run.open_journal() as journal:
            made = Plan(job=job, dataset=dataset, folder=run, book=open_book(job.prices), environ={}, **plan)
            wired = Calls(made, index, journal).batch_engine(transport, str)._wiring
            wiring = dataclasses.replace(wired, bounds=BatchBounds(requests=size), settle_s=settle_s)
            return await asyncio.wait_for(BatchEngine(wiring, job.limits).drive(stop), 60)
    finally:
        await transport.aclose()


def landed(folder: Path) -> dict[int, list[str]]:
    """Return the statuses of the final attempts of each call."""
    with RunFolder(folder / "run").open_index(seal=False) as index:
        return {n: [attempt.status for attempt in index.attempts(n) if attempt.final] for n in range(ROWS)}


def created(server: Server) -> int:
    """Return how many batches the endpoint has accepted."""
    return len(server._routes.batches._batches)


ONCE = {n: ["succeeded"] for n in range(ROWS)}


async def test_every_row_is_answered_once_and_priced_at_half(tmp_path: Path) -> None:
    async with serve(QUICK) as server:
        summary = await collected(job_at(server.base_url, tmp_path), tmp_path)
        assert created(server) == 3
    assert summary.stopped is None
    assert len(summary.batches) == 3
    assert summary.progress.landed == ROWS
    assert summary.progress.in_flight == summary.progress.batches == 0
    assert landed(tmp_path) == ONCE
    with RunFolder(tmp_path / "run").open_index() as index:
        attempt = index.attempts(7)[0]
        assert index.spent[0] == summary.progress.cost
        assert attempt.usage is not None
        assert attempt.usage.service_tier == "batch"
        assert attempt.started_at_us is not None
        assert attempt.latency_ms is attempt.ttft_ms is attempt.queued_ms is attempt.http_status is None


# `kill -9` at every step, in a process of its own.

STEPS = {
    "before it is sent": (BatchEndpoint, "create", "before"),
    "sent, answer not written down": (BatchEndpoint, "create", "after"),
    "id written down": (Ledger, "note", Submitted),
    "while it is waited for": (BatchEndpoint, "show", "after"),
    "in mid-download": (Results, "take", 10),
    "downloaded, not written down as landed": (Ledger, "note", Landed),
}
CHILD = """
import asyncio, importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("batch_tests", sys.argv[1])
tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tests)
asyncio.run(tests.killed(sys.argv[2], sys.argv[3], Path(sys.argv[4])))
"""


async def killed(step: str, base_url: str, folder: Path) -> None:
    """Collect, and kill this process at `step`, the second time it comes to it where that can be."""
    owner, name, when = STEPS[step]
    whole = getattr(owner, name)
    seen = Counter[str]()

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    async def dying_call(*args: Any) -> Any:
        seen["calls"] += 1
        if when == "before" and seen["calls"] == 2:
            die()
        result = await whole(*args)
        if when == "after" and seen["calls"] == 2:
            die()
        return result

    def dying(*args: Any) -> Any:
        seen["calls"] += 1
        if when == seen["calls"] or (isinstance(when, type) and when is Landed and isinstance(args[1], Landed)):
            die()
        result = whole(*args)
        if when is Submitted and isinstance(args[1], Submitted):
            die()
        return result

    setattr(owner, name, dying_call if isinstance(when, str) else dying)
    await collected(job_at(base_url, folder), folder)


@pytest.mark.parametrize("step", STEPS)
async def test_killed_at_any_step_and_resumed_nothing_is_lost_or_submitted_twice(step: str, tmp_path: Path) -> None:
    async with serve(QUICK) as server:
        job = job_at(server.base_url, tmp_path)
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CHILD, __file__, step, server.base_url, str(tmp_path), stderr=subprocess.PIPE
        )
        _, words = await asyncio.wait_for(child.communicate(), 60)
        assert child.returncode == -signal.SIGKILL, words.decode()
        summary = await collected(job, tmp_path)
        assert created(server) == 3, "no batch is submitted twice"
    assert summary.stopped is None
    assert landed(tmp_path) == ONCE
    assert all(submission.closed for submission in read_ledger(tmp_path / "run" / "batches.jsonl").values())


async def test_an_endpoint_that_breaks_off_refuses_and_fails_gets_each_batch_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faults on every call, submissions whose answer is lost among them: each row is answered once, and once only."""
    monkeypatch.setattr(batch_submit, "urandom", Random(6).randbytes)  # drawn by their bodies: the second fails, the third is cut
    monkeypatch.setattr(batch_patience, "BACKOFF_LONGEST_S", 1.0)  # the time is real, and so many faults are waited for long
    spec = replace(QUICK, seed=5, faults=Faults(http_500=0.1, cut=0.25))
    async with serve(spec) as server:
        summary = await collected(job_at(server.base_url, tmp_path, "[limits]", "max_attempts = 20"), tmp_path, size=12)
        rows = Counter(
            json.loads(bytes(one.params))["messages"][0]["content"]
            for batch in server._routes.batches._batches.values()
            for one, line in zip(batch.entries, batch.lines, strict=True)
            if line.kind == "succeeded"
        )
        assert server.log.statuses[500] > 0
        assert any(access.fault == "cut" and access.method == "POST" for access in server.log.recent), "a submission was cut"
    assert summary.stopped is None
    assert landed(tmp_path) == ONCE
    assert set(rows.values()) == {1}, "nothing that was answered is paid for again"


async def test_a_lost_submission_is_told_from_another_runs_batch_of_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to the first submission is lost while a stranger submits the very same requests: each keeps its own."""
    whole = BatchEndpoint.create
    lost: list[str] = []

    async def losing(self: BatchEndpoint, body: bytes) -> Any:
        if not lost:
            other = body.replace(b'"custom_id":"r', b'"custom_id":"q')
            answers = [await whole(self, other), await whole(self, body), await whole(self, other)]
            lost.extend(answer.id for answer in answers)  # type: ignore[union-attr]  # all of them are accepted
            return Refusal(Failure(kind="connection", retry="retry", message="reset"), certain=False)
        return await whole(self, body)

    monkeypatch.setattr(BatchEndpoint, "create", losing)
    async with serve(QUICK) as server:
        summary = await collected(job_at(server.base_url, tmp_path), tmp_path)
        assert created(server) == 5
    assert summary.stopped is None
    assert lost[1] in summary.batches
    assert not {lost[0], lost[2]} & set(summary.batches)
    assert landed(tmp_path) == ONCE


async def test_expired_rows_wait_for_a_resumed_run_and_only_they_are_sent_again(tmp_path: Path) -> None:
    spec = replace(QUICK, seed=3, faults=Faults(stall=0.3))
    async with serve(spec) as server:
        job = job_at(server.base_url, tmp_path)
        summary = await collected(job, tmp_path)
        assert summary.stopped is None
        assert created(server) == 3, "what expired is not sent again by the run itself"
        first = landed(tmp_path)
        expired = [n for n, statuses in first.items() if statuses == ["expired"]]
        assert expired
        assert {n for n, statuses in first.items() if statuses == ["succeeded"]} == set(range(ROWS)) - set(expired)
        for _ in range(9):
            await collected(job, tmp_path)
        sent = [len(batch.entries) for batch in server._routes.batches._batches.values()]
    assert sent[3] == len(expired)
    assert all(statuses[-1] == "succeeded" and statuses.count("succeeded") == 1 for statuses in landed(tmp_path).values())


async def test_an_error_that_may_pass_goes_into_another_batch_and_max_attempts_is_kept(tmp_path: Path) -> None:
    spec = replace(QUICK, seed=4, faults=Faults(error_event=0.6))
    async with serve(spec) as server:
        job = job_at(server.base_url, tmp_path, "[limits]", "max_attempts = 3", "max_error_rate = 1.0")
        await collected(job, tmp_path, size=100)
        sizes = [len(batch.entries) for batch in server._routes.batches._batches.values()]
    assert len(sizes) == 3
    assert sizes[0] > sizes[1] > sizes[2], "only what failed is sent again"
    with RunFolder(tmp_path / "run").open_index() as index:
        attempts = [index.attempts(n) for n in range(ROWS)]
    assert {one[-1].status for one in attempts} == {"succeeded", "errored"}
    assert all(one[-1].final and one[-1].attempt == len(one) <= 3 for one in attempts)
    assert all(one[-1].attempt == 3 for one in attempts if one[-1].status == "errored")


async def test_an_invalid_request_ends_its_row_at_once(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b", "params": {"max_tokens": 0}}\n', encoding="utf-8")
    async with serve(QUICK) as server:
        job = job_at(server.base_url, tmp_path, "[limits]", "max_error_rate = 1.0")
        summary = await collected(job, tmp_path)
        assert created(server) == 1
    assert summary.stopped is None
    with RunFolder(tmp_path / "run").open_index() as index:
        assert index.attempts(0)[0].status == "succeeded"
        (attempt,) = index.attempts(1)
    assert attempt.status == "errored"
    assert attempt.failure is not None
    assert attempt.failure.type == "invalid_request_error"


async def test_a_signal_leaves_the_batches_at_work_and_says_how_to_come_back(tmp_path: Path) -> None:
    stop = StopSignal()
    async with serve(replace(QUICK, first_byte_ms=400)) as server:
        job = job_at(server.base_url, tmp_path)
        asyncio.get_running_loop().call_later(0.5, stop.request, signal.SIGINT)
        summary = await collected(job, tmp_path, stop)
        assert isinstance(summary.stopped, Interrupted)
        assert summary.stopped.exit_code == 130
        assert "batches submitted and not fetched: 3 (60 calls); they stay at work" in str(summary.stopped)
        assert summary.stopped.hint is not None
        assert "resume RUN" in summary.stopped.hint
        assert "cancel RUN" in summary.stopped.hint
        assert (await collected(job, tmp_path)).stopped is None
        assert created(server) == 3
    assert landed(tmp_path) == ONCE


async def test_a_deadline_leaves_the_batches_at_work_too(tmp_path: Path) -> None:
    async with serve(replace(QUICK, first_byte_ms=60_000)) as server:
        summary = await collected(job_at(server.base_url, tmp_path, "[limits]", "deadline_s = 1"), tmp_path)
    assert isinstance(summary.stopped, BudgetReached)
    assert "stopped at the deadline of 1 s: batches submitted and not fetched: 3 (60 calls)" in str(summary.stopped)
    assert summary.stopped.hint is not None
    assert "`batchrun cancel RUN` stops them" in summary.stopped.hint


async def test_a_cancelled_run_keeps_what_was_done_and_a_resumed_one_makes_the_rest(tmp_path: Path) -> None:
    stop = StopSignal()
    async with serve(replace(QUICK, first_byte_ms=400)) as server:
        job = job_at(server.base_url, tmp_path)
        asyncio.get_running_loop().call_later(0.7, stop.request)
        await collected(job, tmp_path, stop)
        assert (await collected(job, tmp_path, cancel=True)).stopped is None
        statuses = Counter(status for final in landed(tmp_path).values() for status in final)
        assert statuses["canceled"] > 0
        assert statuses["succeeded"] > 0
        assert created(server) == 3
        assert (await collected(job, tmp_path)).stopped is None
        assert sum(len(batch.entries) for batch in server._routes.batches._batches.values()) == ROWS + statuses["canceled"]
    assert all(final[-1] == "succeeded" and final.count("succeeded") == 1 for final in landed(tmp_path).values())


async def test_a_batch_is_cut_so_that_its_worst_case_fits_the_budget(tmp_path: Path) -> None:
    """No outcome of what is at work may exceed `max_cost_usd`; what does not fit waits for money to come back, then stops."""
    async with serve(QUICK) as server:
        job = job_at(server.base_url, tmp_path, "[limits]", "max_cost_usd = 0.02")
        summary = await collected(job, tmp_path, size=100)
        batches = list(server._routes.batches._batches.values())
    assert isinstance(summary.stopped, BudgetReached)
    assert 1 < len(batches[0].entries) < ROWS
    assert len(batches) > 1, "money that turned out not to be needed is used for more"
    ledger = read_ledger(tmp_path / "run" / "batches.jsonl")
    assert all(submission.intent.reserved_usd <= Decimal("0.02") for submission in ledger.values())
    with RunFolder(tmp_path / "run").open_index() as index:
        assert index.spent[0] <= Decimal("0.02")
        assert index.count == sum(len(batch.entries) for batch in batches)


def refusing(monkeypatch: pytest.MonkeyPatch, status: int, kind: str, message: str, *, above: int = 0) -> list[int]:
    """Have the endpoint refuse batches of more than `above` requests; return the sizes of what it is sent."""
    whole = BatchEndpoint.create
    sizes: list[int] = []

    async def create(self: BatchEndpoint, body: bytes) -> Any:
        sizes.append(body.count(b'"custom_id"'))
        if sizes[-1] <= above:
            return await whole(self, body)
        error = json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()
        return Refusal(classify_http(status, {}, error, now=0.0), certain=True)

    monkeypatch.setattr(BatchEndpoint, "create", create)
    return sizes


async def test_a_batch_that_is_too_large_for_the_endpoint_is_cut_in_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = refusing(monkeypatch, 413, "request_too_large", "too large", above=10)
    async with serve(QUICK) as server:
        summary = await collected(job_at(server.base_url, tmp_path), tmp_path)
    assert summary.stopped is None
    assert sizes[:3] == [25, 12, 6]
    assert landed(tmp_path) == ONCE


async def test_a_refused_batch_names_the_row_that_the_endpoint_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, 400, "invalid_request_error", "requests.3.params.max_tokens: Field required")
    async with serve(QUICK) as server:
        summary = await collected(job_at(server.base_url, tmp_path), tmp_path)
    assert isinstance(summary.stopped, EndpointRefused)
    assert "for row 3 (model claude-sonnet-4-20250514)" in str(summary.stopped)
    assert "requests.3.params.max_tokens: Field required" in str(summary.stopped)


async def test_a_missing_credential_stops_the_run_before_anything_is_sent(tmp_path: Path) -> None:
    async with serve(QUICK, require_key=True) as server:
        summary = await collected(job_at(server.base_url, tmp_path), tmp_path)
    assert isinstance(summary.stopped, EndpointRefused)
    assert "401" in str(summary.stopped)


async def test_results_that_cannot_be_had_stop_the_run_unless_it_may_pay_again(tmp_path: Path) -> None:
    stop = StopSignal()
    async with serve(replace(QUICK, first_byte_ms=300)) as server:
        job = job_at(server.base_url, tmp_path)
        asyncio.get_running_loop().call_later(0.4, stop.request)
        await collected(job, tmp_path, stop)
        assert created(server) == 3
        server._routes.batches._batches.popitem()
        summary = await collected(job, tmp_path)
        assert isinstance(summary.stopped, EndpointRefused)
        assert summary.stopped.hint is not None
        assert "--resubmit" in summary.stopped.hint
        assert (await collected(job, tmp_path, resubmit=True)).stopped is None
    assert landed(tmp_path) == ONCE


async def test_results_of_something_else_are_never_landed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line whose name was not sent in this batch is no answer, though its ordinal be right."""
    whole = BatchEndpoint.download

    async def swapped(self: BatchEndpoint, batch: str, on_line: Callable[[bytes], bool]) -> Any:
        def changed(line: bytes) -> bool:
            return on_line(line.replace(b'"r7-', b'"r8-') if b'"r7-' in line else line.replace(b'"r8-', b'"r7-'))

        return await whole(self, batch, changed)

    monkeypatch.setattr(BatchEndpoint, "download", swapped)
    async with serve(QUICK) as server:
        summary = await collected(job_at(server.base_url, tmp_path), tmp_path)
    assert isinstance(summary.stopped, EndpointRefused)
    assert "2 of its results are not of what was sent" in str(summary.stopped)
    assert landed(tmp_path)[7] == landed(tmp_path)[8] == []
