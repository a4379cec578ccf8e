"""`max_cost_usd` holds: under faults, with retries and waste, with prices of one's own and cache marks."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest

from batchrun.cli import main
from batchrun.job import Faults, Simulate
from batchrun.pricing.book import PriceBook
from batchrun.records import Usage
from batchrun.simulator import process
from batchrun.storage.folder import RunFolder
from batchrun.storage.in_flight import left_in_flight
from tests.cli.endpoint import Shell, ended, endpoint, reply, results
from tests.cli.endpoint import process as command_line
from tests.transport.servers import Asked, Peer

MODEL = "claude-sonnet-4-20250514"
QUICK = Simulate(first_byte_ms=0, token_ms=0)
FAULTS = Simulate(first_byte_ms=0, token_ms=0, faults=Faults(cut=0.15, error_event=0.01, http_500=0.03))
TOOL = {"name": "look_up", "input_schema": {"type": "object", "properties": {"q": {"type": "string"}}}}
LONG = "You look things up, one after the other. " * 150
OWN_PRICES = """
[prices]
multiplier = 1.07
[[prices.models]]
model = "claude-sonnet-4-20250514"
input = 4.1
output = 21.7
cache_write_5m = 6.3
"""


def a_job(folder: Path, *, rows: int = 80, more: str = "", system: str = "") -> str:
    """Write a job of so many rows and return its file."""
    lines = [{"prompt": f"Look up number {number}.", "tools": [TOOL], "tags": ["t"]} for number in range(rows)]
    (folder / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    own = f'system = "{system}"\ncache = "auto"\n' if system else ""
    (folder / "job.toml").write_text(
        f'dataset = "data.jsonl"\n[request]\nmodel = "{MODEL}"\nmax_tokens = 200\n{own}'
        f"[limits]\nconcurrency = 8\nmax_error_rate = 1.0\n{more}"
    )
    return str(folder / "job.toml")


def call(*args: str) -> int:
    """Run one command and return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(args)
    return int(ended.value.code or 0)


def session(log: Path, *args: str, spec: Simulate = FAULTS) -> int:
    """Run one command against an endpoint of its own, which writes down what it billed."""
    with process.start(spec, access_log=log) as simulated:
        return call(*args, "--base-url", simulated.base_url, "-q")


def billed(book: PriceBook, *logs: Path) -> Decimal:
    """Return what the endpoint billed: every answer that it began, in full, also those that were cut on the way."""
    total = Decimal(0)
    for log in logs:
        for line in map(msgspec.json.decode, log.read_bytes().splitlines()):
            if line["status"] == 200 and line["path"] == "/v1/messages":
                usage = Usage(
                    input_tokens=line["input_tokens"],
                    output_tokens=line.get("output_tokens", 0),
                    cache_read_tokens=line.get("cache_read_tokens", 0),
                    cache_write_5m_tokens=line.get("cache_write_tokens", 0),
                )
                total += book.cost(usage, MODEL, int(line["at"] * 1e6)).usd or 0
    return total


def book_of(folder: Path) -> PriceBook:
    """Return the unit prices that `run.json` keeps."""
    prices = json.loads((folder / "run.json").read_text())["notes"]["prices"]
    return PriceBook.from_snapshot(prices)


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("more", "system", "budgets"),
    [("", "", ("0.05", "0.12")), (OWN_PRICES, "", ("0.05", "0.12")), (OWN_PRICES, LONG, ("0.20", "0.35"))],
    ids=["plain", "own prices", "own prices and cache marks"],
)
def test_no_budget_is_exceeded_by_a_cent_and_a_larger_one_goes_on(
    tmp_path: Path, more: str, system: str, budgets: tuple[str, str]
) -> None:
    """Whatever the endpoint billed, thrown-away attempts in full: not more than the budget, at any of three budgets."""
    job, out = a_job(tmp_path, more=more, system=system), tmp_path / "run"
    logs = [tmp_path / f"log{number}" for number in range(4)]
    assert session(logs[0], "run", job, "--out", str(out), "--set", f"limits.max_cost_usd={budgets[0]}") == 6
    assert 0 < billed(book_of(out), logs[0]) <= Decimal(budgets[0])
    assert session(logs[1], "resume", str(out), "--set", f"limits.max_cost_usd={budgets[1]}") == 6
    first = billed(book_of(out), *logs[:2])
    assert billed(book_of(out), logs[0]) < first <= Decimal(budgets[1])
    assert json.loads((out / "summary.json").read_text())["rows"]["landed"] < 80
    assert session(logs[2], "resume", str(out), "--set", "limits.max_cost_usd=25") == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["rows"]["landed"] == 80
    assert summary["stopped"] is None
    answers, wasted = (Decimal(summary["cost"][name]) for name in ("answers", "wasted"))
    assert Decimal(summary["cost"]["total"]) == answers + wasted <= billed(book_of(out), *logs[:3])


def test_a_session_without_a_budget_keeps_what_its_calls_may_have_cost(tmp_path: Path) -> None:
    """What the journal says was spent covers what the endpoint billed, so that a budget set later holds for all sessions."""
    job, out, log = a_job(tmp_path, rows=30), tmp_path / "run", tmp_path / "log"
    assert session(log, "run", job, "--out", str(out), spec=msgspec.structs.replace(FAULTS, faults=Faults(cut=0.4))) == 0
    with RunFolder(out).open_index(seal=False) as index:
        spent, unknown = index.spent
    assert unknown == 0
    summary = json.loads((out / "summary.json").read_text())
    assert Decimal(summary["cost"]["total"]) < billed(book_of(out), log) <= spent


def test_each_row_s_cost_is_recomputed_to_the_last_digit_from_run_json(tmp_path: Path) -> None:
    """Token columns × the unit prices that `run.json` keeps = `cost_usd`, as decimals."""
    job, out = (
        a_job(tmp_path, rows=30, more=OWN_PRICES, system=LONG),
        tmp_path / "run",
    )
    assert session(tmp_path / "log", "run", job, "--out", str(out), spec=QUICK) == 0
    book, rows = book_of(out), pq.read_table(out / "results.parquet").to_pylist()
    kinds = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h", "thinking")
    for row in rows:
        usage = Usage(**{f"{kind}_tokens": row[f"{kind}_tokens"] for kind in kinds})
        assert book.cost(usage, row["model"], int(row["started_at"].timestamp() * 1e6)).usd == row["cost_usd"]
    assert sum(row["cache_read_tokens"] for row in rows) > 0
    lines = [line for line in pq.read_table(out / "cost.parquet").to_pylist() if line["dimension"] == "total"]
    total = sum(row["cost_usd"] + row["wasted_usd"] for row in rows)
    assert sum(line["cost"] for line in lines) == total
    assert Decimal(json.loads((out / "summary.json").read_text())["cost"]["total"]) == total


def test_a_budget_that_cannot_be_kept_is_refused_before_anything_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model without a price and a budget: exit 2, the model and what to type are named; without one it runs and is named."""
    job = a_job(tmp_path, rows=5)
    log, out = tmp_path / "log", str(tmp_path / "run")
    mystery = ("--model", "mystery", "--out", out)
    assert session(log, "run", job, *mystery, "--set", "limits.max_cost_usd=1") == 2
    said = capsys.readouterr().err
    assert "no price is known for mystery" in said
    assert "--allow-unpriced" in said
    assert log.read_bytes() == b""
    assert not Path(out).exists()
    with process.start(QUICK) as simulated:
        address = ("--base-url", simulated.base_url)
        assert call("run", job, *mystery, *address, "--set", "limits.max_cost_usd=1", "--allow-unpriced", "--json") == 0
        shown = capsys.readouterr()
        assert call("run", job, "--model", "mystery", "--out", f"{out}2", *address) == 0
    summary: dict[str, Any] = json.loads(shown.out)
    assert (summary["cost"]["total"], summary["cost"]["unpriced"], summary["unpriced_models"]) == (
        None,
        {"mystery": 5},
        ["mystery"],
    )
    for text in (shown.err, capsys.readouterr().err):
        assert "no price is known for mystery" in text
        assert "5 rows without a price" in text


@pytest.mark.parametrize("workers", [1, 2])
def test_what_was_in_flight_at_a_kill_stays_held(tmp_path: Path, workers: int) -> None:
    """The endpoint may have billed calls that nobody saw end: a resumed session has only the rest of the budget."""
    job, asked = a_job(tmp_path, rows=8), asyncio.Event()
    silent = True

    async def answer(peer: Peer, _: Asked) -> None:
        if silent:
            await asyncio.wait_for(asked.wait(), 60)
        await peer.say(reply())

    with endpoint(answer) as served:
        flags = ("--base-url", served.base_url, "--out", "out", "--set", "endpoint.auth=none", "-q")
        more = ("--set", f"engine.workers={workers}", "--set", "limits.max_cost_usd=1")
        running = command_line(tmp_path, ("run", job, *flags, *more))
        until = time.monotonic() + 30
        while len(served.asked) < 2:
            assert time.monotonic() < until
            time.sleep(0.01)
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        for killed in (*map(int, children), running.pid):  # a machine that fails takes the workers, too
            os.kill(killed, signal.SIGKILL)
        running.communicate()
        time.sleep(0.2)  # what it sent last is read by then
        sent = len(served.asked)
        silent = False
        worst = left_in_flight(tmp_path / "out" / "journal")
        assert worst > sent * Decimal("0.003"), "200 output tokens at $15 per million each, and their input"
        refused = ended(command_line(tmp_path, ("resume", "out", "-q", "--set", f"limits.max_cost_usd={worst}")))
        assert refused.code == 6
        assert f"${worst:f}" in refused.err
        assert "held for calls that broke off" in refused.err
        assert len(served.asked) == sent
        assert ended(command_line(tmp_path, ("resume", "out", "-q", "--set", "limits.max_cost_usd=1"))).code == 0
    assert len(served.asked) == sent + 8
    assert left_in_flight(tmp_path / "out" / "journal") == worst, "later sessions keep it in mind, too"


def test_a_call_that_was_sent_and_never_answered_may_have_been_billed(shell: Shell) -> None:
    """Unknown is null and counted, never 0: the endpoint may have made the answer that nobody received."""
    silent: list[Asked] = []

    async def answer(peer: Peer, asked: Asked) -> None:
        silent.append(asked)
        if len(silent) == 1:
            await asyncio.sleep(60)
        await peer.say(reply())

    data = shell.write("rows.jsonl", {"prompt": "row 0"})
    with endpoint(answer) as served:
        flags = ("--base-url", served.base_url, "--out", "out", "--set", "endpoint.timeout.first_byte_s=0.5")
        done = shell("run", data, "--model", "claude-sonnet-4-20250514", *flags)
    assert done.code == 0, done.err
    assert [(row["attempts"], row["wasted_usd"]) for row in results(Path("out"))] == [(2, None)]
    assert json.loads(Path("out/summary.json").read_text())["cost"]["waste_unknown"] == 1
    assert "1 row had an attempt that broke off before it told what it was billed for" in done.out + done.err
