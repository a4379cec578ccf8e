"""How often a pilot's interval holds for real: whole simulated runs, each piloted and then finished from the same journal.

Every run is another one to the pilot: another seed of the endpoint (which answers are wrong and how, which calls are cut) and
of the draw. What the run came to is laid beside the interval that 40 of its calls gave, and beside the bracket without
a pilot. Run as `python tests/bench/bench_estimate_runs.py [runs]`; ends with the share that held.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from msgspec.structs import replace

from batchrun.estimation.forecast import Asked, estimate_job
from batchrun.job import Job
from batchrun.prepare import Options, load_job
from batchrun.run import run

ROWS, PILOT = 300, 40
MODEL = "claude-sonnet-4-20250514"
WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]


def write_dataset(path: Path) -> None:
    """Write rows of very different lengths, in three tags, whose right answers are of different lengths too."""
    chance = random.Random(0)
    tool = {
        "name": "save",
        "description": "Save notes.",
        "input_schema": {"type": "object", "properties": {"notes": {"type": "array", "items": {"type": "string"}}}},
    }
    with path.open("w") as file:
        for number in range(ROWS):
            notes = [" ".join(chance.choices(WORDS, k=3)) for _ in range(int(chance.lognormvariate(1, 0.9)) + 1)]
            prompt = f"Save these, number {number}: {'; '.join(notes)}. " + "Context. " * int(chance.lognormvariate(3, 1))
            row = {
                "prompt": prompt,
                "tools": [tool],
                "expected": [{"name": "save", "arguments": {"notes": notes}}],
                "tags": [chance.choice(["a", "b", "c"])],
            }
            file.write(json.dumps(row) + "\n")


def a_job(dataset: Path, seed: int) -> Job:
    """Return the job of one run."""
    return load_job(
        str(dataset),
        overrides=[
            ("request.model", [MODEL]),
            ("scoring.seed", seed),
            ("limits.max_error_rate", 1.0),
            ("simulate.seed", seed),
            ("simulate.first_byte_ms", 0),
            ("simulate.token_ms", 0),
            ("simulate.accuracy", 0.8),
            ("simulate.faults.cut", 0.02),
        ],
    )


def one_run(dataset: Path, seed: int, root: Path) -> tuple[bool, bool, float, float]:
    """Pilot and finish one run: did the interval hold, did the bracket, half width and error against the total."""
    job, options = a_job(dataset, seed), Options(simulate=True, root=root)
    bracket = estimate_job(job, Asked(options=options, count=0)).total.messages.cost
    pilot = estimate_job(job, Asked(options=options, count=0, pilot=PILOT)).pilot
    if pilot is None or pilot.cost is None or pilot.cost.low is None or pilot.cost.high is None or bracket is None:
        raise ValueError("no interval")
    finished = run(replace(job, out=pilot.folder), options)
    actual = float(finished.summary["cost"]["total"])
    calls = sum(session["sent"] - session["retries"] for session in finished.summary["sessions"])
    if calls != ROWS:
        raise ValueError(f"{calls} calls for {ROWS} rows")
    cost = pilot.cost
    held = pilot.cost.low <= actual <= pilot.cost.high
    return (
        held,
        bracket.low <= actual <= bracket.high,
        (pilot.cost.high - pilot.cost.low) / 2 / actual,
        cost.expected / actual - 1,
    )


def main(runs: int) -> None:
    """Measure and print."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        dataset = Path(folder, "notes.jsonl")
        write_dataset(dataset)
        results = [one_run(dataset, seed, Path(folder, f"reports{seed}")) for seed in range(runs)]
    held, bracketed, widths, errors = zip(*results, strict=True)
    print(
        f"{runs} runs of {ROWS} calls, {PILOT} of them as pilot: the 90 % interval held in {statistics.mean(held):.0%} "
        f"(half width ±{statistics.mean(widths):.1%}, error of the expected {statistics.mean(errors):+.1%} on average, "
        f"{statistics.pstdev(errors):.1%} spread); the bracket without a pilot in {statistics.mean(bracketed):.0%}; "
        f"{time.monotonic() - began:.0f} s"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
