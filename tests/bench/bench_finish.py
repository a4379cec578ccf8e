"""What finishing costs a row: `python tests/bench/bench_finish.py [ROWS] [WORKERS …]`.

A dataset and a journal are made in which every row differs (prompts, answers, expected calls, five tags a row; 85 % right,
1 % without an answer), and the run is finished by each number of workers. It tells wall and processor time a row, the
reading of the dataset included, and the peak of memory; the files must be the same bytes each time.
"""

from __future__ import annotations

import hashlib
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from batchrun.finish import About, Others, finish
from batchrun.finish.processes import Processes
from batchrun.job import Job, parse_job
from batchrun.pricing.book import open_book
from batchrun.records import Attempt, Failure, Reply, ToolUse, Usage
from batchrun.sources import open_dataset
from batchrun.storage.folder import RunFolder

MODEL = "claude-sonnet-4-5"
NAMES = ("get_weather", "get_time", "search")
BEGAN_US = 1_763_829_000_000_000
FILES = ("results.parquet", "cost.parquet", "junit.xml", "summary.json")
FACTS: dict[str, Any] = {
    **dict.fromkeys(("stopped", "calls_per_s", "estimate"), None),
    **dict.fromkeys(("job", "run_id", "folder", "dataset", "dataset_digest", "base_url", "profile"), "bench"),
    "started_at": "2025-11-22T16:30:00+00:00",
    "simulated": False,
    "wall_s": 1.0,
    "sessions": [],
}


def a_tool(name: str, version: int) -> dict[str, Any]:
    properties = {"location": {"type": "string"}, "unit": {"enum": ["celsius", "fahrenheit"]}, "days": {"type": "integer"}}
    schema = {"type": "object", "properties": properties, "required": ["location"]}
    return {"name": name, "description": f"Version {version}. " + "Get it. " * 10, "input_schema": schema}


def arguments(row: int) -> dict[str, Any]:
    return {"location": f"City {row}, CA", "unit": "celsius", "days": row % 13}


def write_dataset(path: Path, rows: int) -> None:
    """Write so many rows with 50 tool sets among them."""
    tools = [[a_tool(name, version) for name in NAMES] for version in range(50)]
    with path.open("w") as stream:
        for row in range(rows):
            expected = [{"name": NAMES[row % 3], "arguments": arguments(row)}]
            tags = ["one_call", "lang:en", f"t{row % 7}", f"s{row % 11}", f"d{row % 3}"]
            line = {"id": f"row-{row}", "prompt": "Plan a trip. " * 80 + str(row), "tools": tools[row % 50]}
            stream.write(json.dumps({**line, "expected": expected, "tags": tags}) + "\n")


def attempts(rows: int) -> Iterator[Attempt]:
    """Yield what landed, 64 at a time out of order."""
    chance = random.Random(1)
    for start in range(0, rows, 64):
        window = [an_attempt(row, chance) for row in range(start, min(start + 64, rows))]
        chance.shuffle(window)
        yield from window


def an_attempt(row: int, chance: random.Random) -> Attempt:
    common = dict[str, Any](ordinal=row, final=True, model=MODEL, started_at_us=BEGAN_US + row, queued_ms=chance.random())
    if chance.random() < 0.01:
        failure = Failure(kind="http", retry="retry", message="overloaded", type="overloaded_error", status=529)
        return Attempt(attempt=3, status="errored", failure=failure, http_status=529, **common)
    text = json.dumps(arguments(row if chance.random() < 0.85 else row + 1))
    reply = Reply(
        form="anthropic_sse",
        text=f"I'll look that up: {row}.",
        tool_uses=(ToolUse(id=f"toolu_{row:024d}", name=NAMES[row % 3], input=text, raw=text),),
        stop_reason="tool_use",
        usage=Usage(input_tokens=800 + row % 50, output_tokens=40 + row % 30, cache_read_tokens=row % 100),
        message_id=f"msg_{row:024d}",
        model=MODEL,
    )
    common |= {"ttft_ms": 100 + 300 * chance.random(), "latency_ms": 600 + 900 * chance.random(), "events": 25}
    return Attempt(attempt=1, status="succeeded", reply=reply, http_status=200, request_id=f"req_{row:024d}", **common)


def measured(job: Job, folder: RunFolder, rows: int, workers: int) -> str:
    """Finish the run, print what it took, and return the hash of its files."""
    dataset = open_dataset(job.dataset)
    others = Others(spread=Processes(workers), workers=workers, least=0, price_text=None, bad_rows={}) if workers > 1 else None
    before, wall = processor_s(), time.perf_counter()
    finish(job, folder, dataset.samples, open_book(job.prices), About(facts=FACTS, expected_rows=rows), others)
    wall, spent = time.perf_counter() - wall, processor_s() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{workers} workers: {wall:.2f} s, {spent / rows * 1e6:.1f} µs of processor a row, peak here {peak:.0f} MB")
    return hashlib.sha256(b"".join((folder.path / name).read_bytes() for name in FILES)).hexdigest()


def processor_s() -> float:
    """Return the processor time of this process and of those that it waited for."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(used.ru_utime + used.ru_stime for used in both)


if __name__ == "__main__":
    number, *crews = (int(argument) for argument in sys.argv[1:] or ("100000", "1", "2"))
    with tempfile.TemporaryDirectory() as name:
        at = Path(name)
        write_dataset(at / "rows.jsonl", number)
        with RunFolder(at).open_journal() as journal:
            for landed in attempts(number):
                journal.append(landed, Decimal("0.001"))
        bench = parse_job(
            "", default_name="bench", default_dataset=str(at / "rows.jsonl"), overrides=[("request.model", [MODEL])]
        )
        hashes = {measured(bench, RunFolder(at), number, workers) for workers in crews or [1, 2]}
        sys.exit(len(hashes) != 1)
