"""Reading, checking and resuming: CPU µs a row and peak MB, at two sizes, so that growth shows.

`python tests/bench/bench_sources.py [ROWS …]` (default 100000 300000). Rows are about 3.4 KB: a 2 KB
prompt, 0.9 KB of tools of which 200 are distinct, one expected call. `resume` reads what is left when all rows but the last
thousand are done. Each figure is a process of its own.
"""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

DISTINCT_TOOLS = 200


def rows(count: int) -> Iterator[dict[str, Any]]:
    """Yield the made rows."""
    chance = random.Random(1)
    words = ["".join(chance.choices("abcdefghij", k=chance.randint(2, 9))) for _ in range(500)]
    properties = {f"p{k}": {"type": "string", "description": "x" * 40} for k in range(4)}
    schema = {"type": "object", "properties": properties, "required": ["p0"]}
    tools = [
        [{"name": f"tool_{i}_{j}", "description": "d" * 120, "input_schema": schema} for j in range(2)]
        for i in range(DISTINCT_TOOLS)
    ]
    for n in range(count):
        yield {
            "id": f"row-{n}",
            "prompt": f"{n} " + " ".join(chance.choices(words, k=330)),
            "tools": tools[n % DISTINCT_TOOLS],
            "expected": [{"name": f"tool_{n % DISTINCT_TOOLS}_0", "arguments": {"p0": words[n % 500]}}],
            "tags": ["odd" if n % 2 else "even"],
        }


def write(path: Path, count: int) -> None:
    """Write the dataset in the form that its name ends in."""
    if path.suffix == ".jsonl":
        with path.open("w") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows(count))
        return
    import pyarrow as pa  # noqa: PLC0415 -- the JSONL processes do not pay for it
    import pyarrow.parquet as pq  # noqa: PLC0415 -- as above

    texts = [pa.field(name, pa.string()) for name in ("id", "prompt", "tools", "expected")]
    schema = pa.schema([*texts, pa.field("tags", pa.list_(pa.string()))])
    source = rows(count)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while batch := list(itertools.islice(source, 50_000)):
            flat = [{**row, "tools": json.dumps(row["tools"]), "expected": json.dumps(row["expected"])} for row in batch]
            writer.write_table(pa.Table.from_pylist(flat, schema=schema))


def measure(path: str, what: str) -> None:
    """Print CPU µs a row and peak MB of one pass."""
    from batchrun.sources import open_dataset  # noqa: PLC0415 -- in the measured process alone
    from batchrun.sources.check import check_dataset  # noqa: PLC0415 -- as above

    dataset = open_dataset(path)
    rows = int(Path(path).stem.partition("-")[2])
    passes: dict[str, Callable[[], int]] = {
        "read": lambda: sum(1 for _ in dataset.samples()),
        "check": lambda: check_dataset(dataset).rows,
        "resume": lambda: rows - 1000 + sum(1 for _ in dataset.samples(done=bytes([1]) * (rows - 1000))),
    }
    start = time.process_time()
    count = passes[what]()
    assert count == rows
    cpu = (time.process_time() - start) / count * 1e6
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024  # ru_maxrss would count the parent before exec too
    print(f"{Path(path).suffix[1:]:8} {what:6} {count:>9} rows  {cpu:6.1f} µs a row  {peak:6.0f} MB")


def main() -> None:
    """Write the datasets, one at a time, and measure each in processes of their own."""
    if len(sys.argv) == 4 and sys.argv[1] == "--measure":
        measure(sys.argv[2], sys.argv[3])
        return
    sizes = [int(size) for size in sys.argv[1:]] or [100_000, 300_000]
    with tempfile.TemporaryDirectory() as folder:
        for kind, size in itertools.product(("jsonl", "parquet"), sizes):
            path = Path(folder) / f"rows-{size}.{kind}"
            write(path, size)
            for what in ("read", "check", "resume"):
                subprocess.run([sys.executable, __file__, "--measure", str(path), what], check=True, timeout=600)
            path.unlink()


if __name__ == "__main__":
    main()
