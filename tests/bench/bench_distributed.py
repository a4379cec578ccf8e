"""Several processes within one set of limits: the share of a rate that is used, and what a worker costs.

`python tests/bench/bench_distributed.py [rate|cost] [--ray]`. Each line is one run against the simulator in a process
of its own; windows are counted in the simulator's own access log. `rate`: `RPM` calls a minute for about `SECONDS`
seconds with 1, 2 and 4 workers. `cost`: no limit, as fast as it goes; CPU of everything but the simulator.
"""

import json
import resource
import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchrun.job import Job, Simulate, parse_job
from batchrun.prepare import Options
from batchrun.run import run
from batchrun.simulator import process

RPM = 6000
SECONDS = 20
COST_ROWS = 12_000
WINDOW_S = 10.0
TOOL = {"name": "f", "description": "d", "input_schema": {"type": "object", "properties": {"x": {"type": "integer"}}}}


@contextmanager
def endpoint(access_log: Path, first_byte_ms: float) -> Iterator[str]:
    """Run the simulated endpoint in a child."""
    spec = Simulate(first_byte_ms=first_byte_ms, token_ms=0)
    with process.start(spec, access_log=access_log) as simulated:
        yield simulated.base_url


def dataset(path: Path, rows: int) -> None:
    """Write small rows."""
    lines = (json.dumps({"id": f"r{i}", "prompt": f"call f with {i}", "tools": [TOOL]}) for i in range(rows))
    path.write_text("\n".join(lines) + "\n")


def job_of(folder: Path, base_url: str, workers: int, more: str) -> Job:
    """Return the job of one run."""
    kind = "ray" if "--ray" in sys.argv else "local"
    text = f"""
    name = "bench"
    dataset = "{folder / "rows.jsonl"}"
    out = "{folder / f"run-{kind}-{workers}-{time.monotonic_ns()}"}"
    endpoint = {{ base_url = "{base_url}", auth = "none" }}
    request = {{ model = "m", max_tokens = 64 }}
    engine = {{ kind = "{kind}", workers = {workers} }}
    {more}
    """
    return parse_job(text)


def cpu_s() -> float:
    """Return the CPU time of this process and of the children it has waited for."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def largest_window(times: list[float], width_s: float) -> int:
    """Return the most requests in any window of that width."""
    return max(bisect_left(times, at + width_s) - place for place, at in enumerate(times))


def rate(folder: Path) -> None:
    """Show the windows of 1, 2 and 4 workers at one rate."""
    dataset(folder / "rows.jsonl", RPM * SECONDS // 60)
    for workers in (1, 2, 4):
        log = folder / f"access-{workers}.jsonl"
        with endpoint(log, first_byte_ms=20) as base_url:
            run(job_of(folder, base_url, workers, f"limits = {{ rpm = {RPM}, concurrency = 64 }}"), Options())
        times = sorted(json.loads(line)["at"] for line in log.read_text().splitlines())
        seconds = times[-1] - times[0]
        used = (len(times) - 1) / seconds / (RPM / 60)
        window = largest_window(times, WINDOW_S) / (RPM / 60 * WINDOW_S)
        second = largest_window(times, 1.0) / (RPM / 60)
        print(
            f"{workers} workers: {len(times)} calls in {seconds:.2f} s, {used:.3f} of the rate; "
            f"most in any {WINDOW_S:g} s {window:.3f}, in any second {second:.3f}"
        )


def cost(folder: Path) -> None:
    """Show what a call costs with 1 and 2 workers, and what it costs to start."""
    for rows in (20, COST_ROWS):
        dataset(folder / "rows.jsonl", rows)
        for workers in (1, 2, 1, 2):
            with endpoint(folder / "access.jsonl", first_byte_ms=5) as base_url:
                job = job_of(folder, base_url, workers, "limits = { concurrency = 64 }")
                began, cpu = time.monotonic(), cpu_s()
                run(job, Options())
                wall, used = time.monotonic() - began, cpu_s() - cpu
            print(f"{rows} rows, {workers} workers: {wall:.2f} s, CPU {used:.2f} s = {used / rows * 1e6:.0f} us a row")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        (cost if "cost" in sys.argv else rate)(Path(name))
