"""CPU a call of the transports, against canned and paced servers; A and B in turns.

    python tests/bench/bench_transport.py one BASE_URL/small 3000 32 [--transport httpx] [--uvloop]
    python tests/bench/bench_transport.py --peer FOLDER [--sdk-python PYTHON]      the whole table

`one` makes 3,000 calls, 32 at a time, in this process. FOLDER holds `canned-server.sh`, `paced-server.sh` and
`sdk_peer.py`; nginx and a C compiler are needed.
Prints JSON lines: CPU microseconds a call of the whole process, wall seconds, peak memory. Decoding is not included: the
receiver looks for a mark in the bytes, as a decoder would report its first call.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from batchrun.job import Endpoint
from batchrun.transport import Credential, open_transport
from batchrun.transport.loop import run as run_on_fastest_loop

BODY = json.dumps({"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "x" * 3000}]}).encode()


class Marks:
    """A receiver that notes when the first event and the first call came."""

    def __init__(self) -> None:
        self.eager = True
        self.done = False
        self.marks: tuple[bytes, ...] = ()
        self.max_gap = 0.0
        self.begun = self.first = self.call = 0.0
        self.size = self.status = 0

    def sent(self, at: float) -> None:
        """Start the clock."""
        self.begun = at

    def head(self, status: int, headers: Mapping[str, str], at: float) -> None:  # noqa: ARG002 - the protocol's signature
        """Keep the status."""
        self.status = status

    def data(self, chunk: bytes, at: float) -> None:
        """Look for the marks."""
        self.size += len(chunk)
        if not self.first:
            self.first = at
            self.marks = (b'"tool_use"',)
        if self.eager and b'"tool_use"' in chunk:
            self.call = at
            self.eager = False
        if b'"message_stop"' in chunk:
            self.done = True


async def measure(base_url: str, calls: int, concurrency: int, transport: str) -> dict[str, object]:
    """Make `calls` calls, `concurrency` at a time, and return the figures."""
    endpoint = Endpoint(base_url=base_url, transport=transport)  # type: ignore[arg-type]  # from the command line
    client = open_transport(endpoint, Credential(), connections=concurrency, environ={})
    bad: list[str] = []
    first: list[float] = []
    call: list[float] = []
    wall: list[float] = []

    async def worker(numbers: Iterator[int]) -> None:
        for _ in numbers:
            marks = Marks()
            ended = await client.post("/v1/messages", BODY, marks)
            if ended.how != "complete" or marks.status != 200 or not marks.done:
                bad.append(f"{ended.how} {ended.message}")
            first.append(marks.first - marks.begun)
            call.append(marks.call - marks.begun)
            wall.append(time.monotonic() - marks.begun)

    async def go(count: int) -> None:
        numbers = iter(range(count))
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(worker(numbers))

    if calls > 10 * concurrency:
        await go(2 * concurrency)  # connections stand, caches are warm
        for kept in (bad, first, call, wall):
            kept.clear()
    cpu, began = time.process_time(), time.monotonic()
    await go(calls)
    cpu, took = time.process_time() - cpu, time.monotonic() - began
    await client.aclose()
    return {
        "calls": calls,
        "concurrency": concurrency,
        "cpu_us_a_call": round(cpu / calls * 1e6, 1),
        "wall_s": round(took, 3),
        "core": round(cpu / took, 3),
        "first_ms": round(statistics.median(first) * 1e3, 1),
        "call_ms": round(statistics.median(call) * 1e3, 1),
        "call_ms_max": round(max(call) * 1e3, 1),
        "latency_ms": round(statistics.median(wall) * 1e3, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "errors": len(bad),
        "first_error": bad[:1],
    }


LINES = [  # server, path, calls, concurrency
    ("canned", "small", 3000, 32),
    ("canned", "small", 4000, 512),
    ("canned", "large", 1500, 32),
    ("paced", "large/g20000", 64, 64),
    ("paced", "large/g20000", 2000, 2000),
]
SHARE = {"own": 1, "own uvloop": 1, "httpx": 4, "sdk stream": 10, "sdk create": 5}  # of the calls: slow ones make fewer


def table(folder: Path, rounds: int, sdk_python: str | None) -> None:
    """Start both servers and measure each line `rounds` times, all clients in turns; print medians and ratios."""
    bases = {"canned": start(folder / "canned-server.sh"), "paced": start(folder / "paced-server.sh")}
    clients = ["own", "own uvloop", "httpx"] + (["sdk stream", "sdk create"] if sdk_python else [])
    try:
        for server, path, calls, concurrency in LINES:
            kept: dict[str, list[dict[str, object]]] = {name: [] for name in clients}
            for _ in range(rounds):
                for name in clients:
                    if concurrency > 512 and not name.startswith("own"):
                        continue
                    command = [sys.executable, __file__, "one"]
                    if name.startswith("sdk"):
                        command = [str(sdk_python), str(folder / "sdk_peer.py")]
                    count = max(calls // SHARE[name], concurrency)
                    command += [f"{bases[server]}/{path}", str(count), str(concurrency), *OPTIONS[name]]
                    kept[name].append(in_a_process(command))
            report(f"{server} {path} c={concurrency}", kept)
    finally:
        for script in ("canned-server.sh", "paced-server.sh"):
            subprocess.run(["bash", folder / script, "stop"], check=False)


OPTIONS = {
    "own": ["--transport", "own"],
    "own uvloop": ["--transport", "own", "--uvloop"],
    "httpx": ["--transport", "httpx"],
    "sdk stream": ["--style", "stream"],
    "sdk create": ["--style", "create", "--transport", "aiohttp"],
}


def report(line: str, kept: dict[str, list[dict[str, object]]]) -> None:
    """Print one line a client: the median of its runs, and the median ratio to ours, pair by pair."""
    ours = [cost(one) for one in kept["own"]]
    for name, runs in kept.items():
        if runs:
            ratio = statistics.median(cost(one) / own for one, own in zip(runs, ours, strict=True))
            middle = sorted(runs, key=cost)[len(runs) // 2]
            print(json.dumps({"line": line, "client": name, "us_a_call": cost(middle), "times_own": round(ratio, 1), **middle}))
            sys.stdout.flush()


def cost(one: dict[str, object]) -> float:
    """Return CPU microseconds a call, under either program's name for it."""
    return float(str(one.get("cpu_us_a_call", one.get("us_call"))))


def start(script: Path) -> str:
    """Start a server on core 0 and return its base address."""
    done = subprocess.run(["bash", script, "start", "0"], check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.strip().splitlines()[-1]


def in_a_process(command: list[str]) -> dict[str, object]:
    """Measure in a process of its own, on core 1."""
    done = subprocess.run(["taskset", "-c", "1", *command], check=True, capture_output=True, text=True, timeout=300)
    return dict(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("one", nargs="*")
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--sdk-python", help="a Python that has the vendor's SDK: measure that too")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--transport", default="own")
    parser.add_argument("--uvloop", action="store_true")
    given = parser.parse_args()
    if given.peer:
        table(given.peer, given.rounds, given.sdk_python)
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    _, url, calls, concurrency = given.one
    runner = run_on_fastest_loop if given.uvloop else asyncio.run
    print(json.dumps(runner(measure(url, int(calls), int(concurrency), given.transport))))


if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    main()
