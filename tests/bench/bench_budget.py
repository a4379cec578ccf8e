"""How close a run comes to its budget, and that it never passes it: faults, retries and cut replies billed in full.

For each budget a run is started that would cost several times as much. What the endpoint itself billed (its access log, every
reply that it began, to the end) is laid beside the budget. Run as `python tests/bench/bench_budget.py`.
"""

from __future__ import annotations

import json
import tempfile
import time
from decimal import Decimal
from pathlib import Path

import msgspec

from batchrun.errors import BudgetReached
from batchrun.job import Faults, Prices, Simulate
from batchrun.prepare import Options, load_job
from batchrun.pricing import open_book
from batchrun.records import Usage
from batchrun.run import run
from batchrun.simulator import process

ROWS = 600
MODEL = "claude-sonnet-4-20250514"
SPEC = Simulate(first_byte_ms=5, token_ms=0, faults=Faults(cut=0.03, http_500=0.01))


def billed(log: Path) -> Decimal:
    """Return what the endpoint billed."""
    book, total = open_book(Prices()), Decimal(0)
    for line in map(msgspec.json.decode, log.read_bytes().splitlines()):
        if line["status"] == 200:
            usage = Usage(input_tokens=line["input_tokens"], output_tokens=line.get("output_tokens", 0))
            total += book.cost(usage, MODEL, int(line["at"] * 1e6)).usd or 0
    return total


def one_run(folder: Path, budget: str, concurrency: int) -> None:
    """Run into one budget and print how it went."""
    dataset, log, out = folder / "data.jsonl", folder / f"{budget}-{concurrency}.log", folder / f"{budget}-{concurrency}"
    dataset.write_text("".join(json.dumps({"prompt": f"Say {number}. " + "More. " * 50}) + "\n" for number in range(ROWS)))
    began = time.monotonic()
    with process.start(SPEC, access_log=log) as simulated:
        job = load_job(
            str(dataset),
            overrides=[
                ("request.model", [MODEL]),
                ("request.max_tokens", 256),
                ("endpoint.base_url", simulated.base_url),
                ("limits.concurrency", concurrency),
                ("limits.max_cost_usd", budget),
                ("limits.max_error_rate", 1.0),
                ("out", str(out)),
            ],
        )
        result = run(job, Options(), environ={})
    spent, rows = billed(log), result.summary["rows"]
    if not isinstance(result.stopped, BudgetReached) or spent > Decimal(budget):
        raise ValueError(f"{spent} of {budget}: {result.stopped}")
    print(
        f"budget ${budget}, {concurrency:>3} at once: {rows['landed']:>3} of {ROWS} rows, billed ${spent:.4f} "
        f"({spent / Decimal(budget):.0%} of the budget), {time.monotonic() - began:.1f} s"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        for amount in ("0.02", "0.05", "0.15"):
            for at_once in (1, 8, 64):
                one_run(Path(scratch), amount, at_once)
