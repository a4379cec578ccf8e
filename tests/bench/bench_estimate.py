"""How often the pilot's interval holds: simulated runs of known total, each estimated from a few of its calls.

Costs are what makes it hard: input grows with length, output is log-normal and heavier for one tag, one call in fifty is
thrown away and paid twice. Run as `python tests/bench/bench_estimate.py [runs]`; prints one line a setting.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from batchrun.pricing.pilot import Key, Seen, Stratum, allocate, choose, coarsened, merged, pilot_total, stratum_of


def one_run(calls: int, sample: int, spread: float, seed: int) -> tuple[bool, float, bool]:
    """Simulate one run and its pilot: did the interval hold, how wide was it against the total, did it end too low."""
    rng = np.random.default_rng(seed)
    lengths = np.exp(rng.normal(7.5, 0.6, calls))
    hard = rng.random(calls) < 0.3
    output = np.exp(rng.normal(4.5, spread, calls)) * np.where(hard, 2.0, 1.0)
    costs = (lengths / 3.7 * 3e-6 + output * 15e-6) * np.where(rng.random(calls) < 0.02, 2.0, 1.0)
    calls_made = [(("hard",) if tag else ("easy",), float(length)) for tag, length in zip(hard, lengths, strict=True)]
    strata: dict[Key, Stratum] = {}
    for tags, length in calls_made:
        old = strata.get(stratum_of(tags, length), Stratum(calls=0, length=0.0))
        strata[stratum_of(tags, length)] = Stratum(calls=old.calls + 1, length=old.length + length)
    into = coarsened(strata, sample)
    members: dict[Key, list[int]] = {}
    for place, call in enumerate(calls_made):
        members.setdefault(into[stratum_of(*call)], []).append(place)
    strata = merged(strata, into)
    chosen = choose(strata, allocate(strata, sample), seed=seed)
    seen = {key: [Seen(lengths[members[key][i]], costs[members[key][i]]) for i in places] for key, places in chosen.items()}
    total = pilot_total(strata, seen, seed=seed)
    actual = float(costs.sum())
    if total is None or total.low is None or total.high is None:
        raise ValueError("no interval")
    return total.low <= actual <= total.high, (total.high - total.low) / 2 / actual, total.high < actual


def coverage(calls: int, sample: int, spread: float, runs: int) -> tuple[float, float, float]:
    """Return the share of runs whose interval held, its mean half width against the total, the share that ended too low."""
    held, width, low = zip(*(one_run(calls, sample, spread, seed) for seed in range(runs)), strict=True)
    return float(np.mean(held)), float(np.mean(width)), float(np.mean(low))


if __name__ == "__main__":
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    for population, pilot in ((1000, 30), (1000, 100), (1000, 300), (5000, 50)):
        for deviation in (0.4, 0.8, 1.2):
            began = time.process_time()
            share, half_width, too_low = coverage(population, pilot, deviation, repetitions)
            print(
                f"{population} calls, pilot of {pilot}, output spread {deviation}: the 90 % interval held in {share:.1%} of "
                f"{repetitions} runs (±{half_width:.1%}; too low in {too_low:.1%}; {time.process_time() - began:.1f} s)"
            )
