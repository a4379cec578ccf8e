"""The library's surface: its names, its weight, threads and event loops, and how a run shows itself."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import batchrun
from batchrun.errors import GateFailed, UsageError

MODEL = "claude-sonnet-4-20250514"
QUICK = {"request.model": [MODEL], "simulate.first_byte_ms": 0, "simulate.token_ms": 0, "simulate.accuracy": 1}
SLOW = {**QUICK, "simulate.first_byte_ms": 300, "limits.concurrency": 1}


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    rows = [{"id": f"r{number}", "prompt": f"Say {number}.", "expected": []} for number in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "rows.jsonl"


def test_the_exported_names_are_these() -> None:
    names = {"BatchrunError", "Job", "Run", "arun", "compare", "load_job", "open_run", "resume", "run", "score", "score_file"}
    assert set(batchrun.__all__) == names
    assert names <= set(dir(batchrun))
    for name in names:
        assert getattr(batchrun, name).__module__ in {"batchrun.api", "batchrun.errors", "batchrun.job"}, name
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        batchrun.no_such_name  # type: ignore[attr-defined]  # noqa: B018 - that it is not there is the point


def test_importing_the_package_loads_nothing_else_and_run_stays_a_function() -> None:
    code = (
        "import sys, batchrun\n"
        "print(sorted(name for name in sys.modules if name.startswith('batchrun')))\n"
        "import batchrun.run\n"
        "from batchrun.prepare import Options\n"
        "print(callable(batchrun.run), batchrun.run.__module__)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.splitlines() == ["['batchrun']", "True batchrun.api"]


async def test_run_works_inside_a_running_event_loop(dataset: str) -> None:
    """A notebook has a loop of its own, in which a plain `asyncio.run` fails."""
    assert asyncio.get_running_loop().is_running()
    run = batchrun.run(dataset, overrides=QUICK, simulate=True, out="inside")
    assert run.rows["landed"] == 40
    assert run.raise_for_error() is run


async def test_runs_go_on_side_by_side_and_leave_the_loop_free(dataset: str) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.01)

    ticking = asyncio.create_task(tick())
    async with asyncio.timeout(60):
        first, second = await asyncio.gather(
            *(batchrun.arun(dataset, overrides=QUICK, simulate=True, out=name) for name in ("one", "two"))
        )
    ticking.cancel()
    assert (first.run_id, second.run_id) == ("one", "two")
    assert ticks > 10


async def test_a_cancelled_run_has_saved_what_it_had_and_can_be_resumed(dataset: str) -> None:
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def show(progress: object, total: int | None) -> None:
        del total
        if getattr(progress, "landed", 0) >= 1:
            loop.call_soon_threadsafe(begun.set)

    work = asyncio.create_task(batchrun.arun(dataset, overrides=SLOW, simulate=True, out="cut", show=show))
    async with asyncio.timeout(60):
        await begun.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    stopped = batchrun.open_run("cut")
    assert stopped.error is not None
    assert "stopped by SIGINT" in str(stopped.error)
    assert 1 <= stopped.rows["landed"] < 40
    with pytest.raises(batchrun.BatchrunError, match="stopped by SIGINT"):
        stopped.raise_for_error()
    resumed = batchrun.resume("cut", overrides={"simulate.first_byte_ms": 0, "limits.concurrency": 8})
    assert (resumed.rows["landed"], resumed.error) == (40, None)


@pytest.fixture
def python_hears_ctrl_c() -> Iterator[None]:
    """Have Python's own handler for SIGINT, as a notebook's kernel does: a shell's background job inherits that it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("python_hears_ctrl_c")
def test_ctrl_c_saves_and_is_raised(dataset: str) -> None:
    main = threading.main_thread().ident
    assert main is not None

    told = threading.Event()

    def show(progress: object, total: int | None) -> None:
        del total
        if getattr(progress, "landed", 0) >= 1 and not told.is_set():
            told.set()
            signal.pthread_kill(main, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        batchrun.run(dataset, overrides=SLOW, simulate=True, out="interrupted", show=show)
    assert 1 <= batchrun.open_run("interrupted").rows["landed"] < 40


def test_a_plain_run_has_no_history_and_a_supervised_one_has_gates(dataset: str, tmp_path: Path) -> None:
    gated = {**QUICK, "gate.max_p95_latency_ms": 0.001}
    plain = batchrun.run(dataset, overrides=gated, simulate=True)
    assert plain.error is None
    assert not list(tmp_path.rglob("history.parquet"))
    watched = batchrun.run(dataset, overrides=gated, simulate=True, supervise=True)
    assert isinstance(watched.error, GateFailed)
    assert "error: " in repr(watched)
    assert "GateFailed" in watched._repr_html_()
    assert list(tmp_path.rglob("history.parquet"))


def test_a_run_shows_itself_short_and_with_every_text_escaped(dataset: str) -> None:
    evil = "<script>alert(1)</script>"
    run = batchrun.run(dataset, overrides={**QUICK, "request.model": [evil, "b"]}, simulate=True, out="evil")
    assert repr(run) == "<Run rows evil: 80 of 80 rows, 2 models>"
    page = run._repr_html_()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page, "self-contained"
    assert run.cost_usd is None or run.cost_usd == 0
    assert run.results(["id"]).height == 80


def test_a_column_that_results_do_not_have_is_named_with_what_to_write(dataset: str) -> None:
    """As a `UsageError`, which the command line's other mistakes are; no other library's error comes through."""
    run = batchrun.run(dataset, overrides={**QUICK, "request.model": "m"}, simulate=True, out="named")
    with pytest.raises(UsageError, match="has no column 'outcom'") as typo:
        run.results(["id", "outcom"])
    assert typo.value.hint == "did you mean 'outcome'?"
    with pytest.raises(UsageError) as other:
        run.results(["zzzz"])
    assert "id, index, model" in str(other.value.hint)


def test_what_keeps_a_run_from_starting_is_raised(dataset: str) -> None:
    with pytest.raises(batchrun.BatchrunError, match=r"request\.model"):
        batchrun.run(dataset, simulate=True)
    with pytest.raises(batchrun.BatchrunError, match="no such job file"):
        batchrun.load_job("missing.toml")
    with pytest.raises(batchrun.BatchrunError, match="is not the folder"):
        batchrun.open_run("missing")
