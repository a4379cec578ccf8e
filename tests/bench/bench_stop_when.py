"""How often a run that stops early covers the truth, played through draw, landing out of order, faults and summary.

Run as `python tests/bench/bench_stop_when.py [runs]` (500 by default). Pure: no socket, no file. A dataset of 2,000 rows
sorted by difficulty, the worst order there is; the easy rows answer sooner, 2 % of the rows never get an answer; 32 calls
are in flight, and land in whatever order they end in. Prints a line a setting; exits 1 where the interval of all those
runs covers less often than stated, by more than three standard errors.
"""

from __future__ import annotations

import heapq
import sys
import time
from typing import Any

import numpy as np

from batchrun.job import Job, RequestSpec, Scoring, StopWhen
from batchrun.records import Sample
from batchrun.report.known import KnownTally
from batchrun.statistics.draw import draw_order
from batchrun.statistics.stopping import Stopping

ROWS, IN_FLIGHT, LOST = 2000, 32, 0.02


def one_run(accuracy: float, width: float, alpha: float, seed: int) -> tuple[bool, int]:
    """Play one run: whether the interval in its summary holds the dataset's own accuracy, and the calls it made."""
    rng = np.random.default_rng(seed)
    truth = np.sort(rng.random(ROWS) < rng.beta(accuracy * 8, (1 - accuracy) * 8, ROWS))[::-1]
    lost = rng.random(ROWS) < LOST
    rule = StopWhen(ci_half_width=width, alpha=alpha)
    order = draw_order(np.arange(ROWS), seed)
    stopping = Stopping(rule, population=ROWS)
    landed: dict[int, bool] = {}
    flight: list[tuple[float, int]] = []
    now, drawn = 0.0, 0
    while flight or (drawn < ROWS and stopping.reason is None):
        while drawn < ROWS and len(flight) < IN_FLIGHT and stopping.reason is None:
            heapq.heappush(flight, (now + rng.exponential(1.0 if truth[order[drawn]] else 3.0), drawn))
            drawn += 1
        now, position = heapq.heappop(flight)
        row = int(order[position])
        landed[row] = bool(truth[row])
        stopping.offer(position, None if lost[row] else float(truth[row]))
    low, high = summarised(rule, landed, lost, seed)
    answered = truth[~lost].mean()
    return low <= answered <= high, len(landed)


def summarised(rule: StopWhen, landed: dict[int, bool], lost: Any, seed: int) -> tuple[float, float]:
    """Return the interval that the run's summary states."""
    job = Job(name="b", dataset="d", request=RequestSpec(model=("m",)), scoring=Scoring(stop_when=rule, seed=seed))
    tally = KnownTally(job, rule, {})
    samples = [Sample(index=row, id=str(row), messages=b"[]", expected=b"[]") for row in range(ROWS)]
    rows = sorted(landed)
    verdicts = [None if lost[row] else landed[row] for row in rows]
    tally.add_many(samples, {"model": ["m"] * len(rows), "index": rows, "correct": verdicts})
    ordinary = {"value": 0.5, "method": ""}
    model = {"model": "m", "accuracy": ordinary, "score": dict(ordinary), "tags": [], "rows": {"landed": len(landed)}}
    summary: dict[str, Any] = {"rows": {"total": ROWS, "landed": len(landed)}, "models": [{**model, "cost": {"total_usd": None}}]}
    tally.apply(summary)
    found = summary["models"][0]["accuracy"]
    return found["low"], found["high"]


if __name__ == "__main__":
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    failed = False
    for share, half_width, level in ((0.9, 0.05, 0.05), (0.6, 0.08, 0.05), (0.9, 0.06, 0.2)):
        began = time.process_time()
        held, calls = zip(*(one_run(share, half_width, level, seed) for seed in range(runs)), strict=True)
        rate, stated = float(np.mean(held)), 1 - level
        failed |= rate < stated - 3 * np.sqrt(stated * level / runs)
        print(
            f"accuracy about {share}, half width {half_width}: the {stated:.0%} interval held in {rate:.1%} of {runs} runs; "
            f"{np.mean(calls):.0f} of {ROWS} calls made, {1 - np.mean(calls) / ROWS:.0%} saved "
            f"({time.process_time() - began:.0f} s of CPU)"
        )
    sys.exit(int(failed))
