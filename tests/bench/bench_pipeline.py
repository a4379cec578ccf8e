"""CPU and memory of a whole run, `batchrun run` as a user types it, against the vendor's SDK on the same canned answers.

    python tests/bench/bench_pipeline.py --peer FOLDER --sdk-python PYTHON      every line, about twenty minutes
    python tests/bench/bench_pipeline.py … --only https                         the lines with that in their names
    python tests/bench/bench_pipeline.py --peer FOLDER --rows 100000,1000000    peak memory by the number of rows
    python tests/bench/bench_pipeline.py --peer FOLDER --resume 100000          a run with all but 1,000 rows done

FOLDER holds `canned-server.sh`, `paced-server.sh`, `canned/row.json` and `sdk_peer.py`; nginx, a C compiler and `taskset` are
needed. "https" is the paced server behind an nginx that speaks TLS. PYTHON has the SDK (with its aiohttp extra). The server
has one core, the client the other. Ours and theirs run in turns, each in a process of its own; ours counts from the
interpreter's first instruction to its last (reading, checking, the gate, calls, journal, scoring, Parquet, reports), theirs
from its first call to its last, its imports left out. The package is compiled beforehand, as pip compiles one that it
installs: from a checkout that may not write bytecode every start takes 0.15 s more. Prints JSON lines: the medians of CPU
microseconds a call, and of the ratios pair by pair. CPU and peak memory are what the kernel tells the parent of a process
that has ended.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import trustme

import batchrun

MODEL = "claude-sonnet-4-5"
SHARE = 10
"""Theirs make that many times fewer calls: they are slow, and have no start to spread over them."""


class Line(NamedTuple):
    """One line of the table: where the calls go, how many ours are, how many at a time."""

    server: str
    path: str
    calls: int
    concurrency: int
    best: bool = True  # also against the SDK's best


LINES = (
    Line("canned", "small", 20_000, 32),
    Line("canned", "small", 20_000, 512, best=False),
    Line("canned", "large", 6_000, 32),
    Line("paced", "large/g20000", 256, 64),
    Line("paced", "large/g20000", 1_280, 64),
    Line("https", "large/g20000", 256, 64),
)
TLS_FRONT = """
worker_processes 1;
daemon off;
pid {folder}/front.pid;
error_log {folder}/front.log;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    upstream paced {{ server {paced}; keepalive 4096; }}
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {folder}/front.pem;
        ssl_certificate_key {folder}/front.pem;
        keepalive_requests 1000000;
        client_body_buffer_size 64k;
        location / {{
            proxy_pass http://paced; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_buffering off; proxy_read_timeout 600s;
        }}
    }}
}}
"""
PEERS = {"sdk stream": ("--style", "stream"), "sdk best": ("--style", "create", "--transport", "aiohttp")}


class Ran(NamedTuple):
    """What a process cost: CPU seconds, peak memory in MB, and what it printed."""

    cpu_s: float
    peak_mb: float
    out: str


def ran(command: list[str], **environ: str) -> Ran:
    """Run a command on core 1 and return what it cost; raises `RuntimeError` where it failed."""
    with tempfile.TemporaryFile("w+") as out:
        started = subprocess.Popen(
            ["taskset", "-c", "1", *command], stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **environ}
        )
        _, status, usage = os.wait4(started.pid, 0)
        started.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read()
    if started.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {started.returncode}\n{text[-2000:]}")
    return Ran(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, text)


def ours(base: str, dataset: Path, concurrency: int, out: Path, *more: str) -> Ran:
    """Run a dataset through the program."""
    settings = [f"endpoint.base_url={base}", f"limits.concurrency={concurrency}"]
    command = [sys.executable, "-m", "batchrun", "run", str(dataset), "--model", MODEL, "--out", str(out), "--quiet", *more]
    return ran([*command, *(word for one in settings for word in ("--set", one))], ANTHROPIC_API_KEY="sk-test")


def write_rows(path: Path, count: int, peer: Path, *, answer: str = "small", small: bool = False) -> Path:
    """Write `count` rows of the one question, `answer` being right; `small` ones have one tool, so that a million fit a disk."""
    row = json.loads((peer / "canned" / "row.json").read_text())
    messages, tools = json.dumps(row["messages"]), json.dumps(row["tools"][:1] if small else row["tools"])
    given = json.loads((peer / "canned" / "expected.json").read_text())[answer]["input"]
    expected = json.dumps([{"name": row["tools"][0]["name"], "arguments": given}])
    with path.open("w") as file:
        for number in range(count):
            question = f'"prompt":"What of place {number}?"' if small else f'"messages":{messages}'
            file.write(f'{{"id":"r{number}",{question},"tools":{tools},"expected":{expected},"tags":["t{number % 5}"]}}\n')
    return path


def table(peer: Path, sdk_python: str, rounds: int, only: str, bases: dict[str, str], work: Path) -> None:
    """Measure every line that has `only` in its name, all clients in turns."""
    for line in LINES:
        title = f"{line.server} {line.path} c={line.concurrency} n={line.calls}"
        if only not in title:
            continue
        base = f"{bases[line.server]}/{line.path}"
        dataset = write_rows(work / "rows.jsonl", line.calls, peer, answer=line.path.partition("/")[0])
        peers = {name: options for name, options in PEERS.items() if line.best or name == "sdk stream"}
        kept: dict[str, list[float]] = {name: [] for name in ("batchrun", *peers)}
        peak = 0.0
        for turn in range(rounds):
            mine = ours(base, dataset, line.concurrency, work / f"run-{line.server}-{line.concurrency}-{line.calls}-{turn}")
            kept["batchrun"].append(mine.cpu_s / line.calls * 1e6)
            peak = max(peak, mine.peak_mb)
            calls = str(max(line.calls // SHARE // (4 if "large" in line.path else 1), line.concurrency))
            for name, options in peers.items():
                theirs = ran([sdk_python, str(peer / "sdk_peer.py"), base, calls, str(line.concurrency), *options])
                kept[name].append(float(json.loads(theirs.out.splitlines()[-1])["us_call"]))
        told: dict[str, Any] = {"line": title, "peak_mb": round(peak)}
        for name, costs in kept.items():
            told[f"{name} us"] = round(statistics.median(costs))
            if name != "batchrun":
                told[f"1/x of {name}"] = round(
                    statistics.median(cost / own for cost, own in zip(costs, kept["batchrun"], strict=True)), 1
                )
        print(json.dumps(told), flush=True)


def memory(peer: Path, sizes: list[int], base: str, work: Path) -> None:
    """Measure the peak memory of runs of so many rows."""
    first = None
    for size in sizes:
        done = ours(base, write_rows(work / "rows.jsonl", size, peer, small=True), 32, work / f"run-{size}")
        first = first or done.peak_mb
        told = {"rows": size, "peak_mb": round(done.peak_mb), "us_a_row": round(done.cpu_s / size * 1e6)}
        print(json.dumps({**told, "growth": round(done.peak_mb / first - 1, 3)}), flush=True)


def resume(peer: Path, rows: int, base: str, work: Path, missing: int = 1000) -> None:
    """Measure the CPU of going on with a run of which all but the last `missing` rows are done, up to its first call."""
    dataset, out = write_rows(work / "rows.jsonl", rows, peer, small=True), work / "run"
    ours(base, dataset, 32, out, "--set", f"select.limit={rows - missing}")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(300)
        called = f"endpoint.base_url=http://127.0.0.1:{server.getsockname()[1]}"
        command = [
            sys.executable,
            "-m",
            "batchrun",
            "run",
            str(dataset),
            "--model",
            MODEL,
            "--out",
            str(out),
            "--quiet",
            "--force",
        ]
        environ = {**os.environ, "ANTHROPIC_API_KEY": "sk-test"}
        started = subprocess.Popen(["taskset", "-c", "1", *command, "--set", called], env=environ)
        try:
            server.accept()[0].close()
            user, system = Path(f"/proc/{started.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        finally:
            started.kill()
            started.wait()
    cpu_s = (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    print(json.dumps({"resume": rows, "missing": missing, "cpu_s_to_the_first_call": round(cpu_s, 2)}), flush=True)


def await_listener(port: int, tries: int = 250) -> None:
    """Wait until something listens, for five seconds at most; raises `TimeoutError`."""
    for _ in range(tries):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise TimeoutError(f"nothing listens at port {port}")


@contextmanager
def tls_front(paced: str) -> Iterator[str]:
    """Have a TLS server on core 0 in front of the paced one and yield its address; clients trust it by `SSL_CERT_FILE`."""
    with tempfile.TemporaryDirectory(prefix="batchrun-bench-") as folder, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        authority = trustme.CA()
        authority.cert_pem.write_to_path(f"{folder}/authority.pem")
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(f"{folder}/front.pem")
        Path(folder, "front.conf").write_text(TLS_FRONT.format(folder=folder, port=port, paced=paced.removeprefix("http://")))
        free.close()
        front = subprocess.Popen(["taskset", "-c", "0", "nginx", "-c", f"{folder}/front.conf"])
        os.environ["SSL_CERT_FILE"] = f"{folder}/authority.pem"
        try:
            await_listener(port)
            yield f"https://127.0.0.1:{port}"
        finally:
            front.terminate()
            front.wait()


@contextmanager
def servers(peer: Path) -> Iterator[dict[str, str]]:
    """Have both servers on core 0 and yield their addresses."""
    names = {"canned": peer / "canned-server.sh", "paced": peer / "paced-server.sh"}
    with tempfile.TemporaryDirectory(prefix="batchrun-bench-") as state:
        environ = {**os.environ, "CANNED_RUN": state}
        bases = {}
        try:
            for name, script in names.items():
                done = subprocess.run(["bash", script, "start", "0"], check=True, stdout=subprocess.PIPE, text=True, env=environ)
                bases[name] = done.stdout.strip().splitlines()[-1]
            with tls_front(bases["paced"]) as bases["https"]:
                yield bases
        finally:
            for script in names.values():
                subprocess.run(["bash", script, "stop"], check=False, env=environ)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, required=True)
    parser.add_argument("--sdk-python", help="a Python that has the vendor's SDK")
    parser.add_argument("--only", default="", help="measure only the lines with this in their names")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", help="numbers of rows, with commas between them: measure memory in place of time")
    parser.add_argument("--resume", type=int, help="a number of rows: measure how a run goes on in place of the table")
    given = parser.parse_args()
    compileall.compile_dir(Path(batchrun.__file__).parent, quiet=1)
    with servers(given.peer) as bases, tempfile.TemporaryDirectory(prefix="batchrun-bench-") as work:
        if given.rows:
            memory(given.peer, [int(size) for size in given.rows.split(",")], f"{bases['canned']}/small", Path(work))
        if given.resume:
            resume(given.peer, given.resume, f"{bases['canned']}/small", Path(work))
        if given.sdk_python:
            table(given.peer, given.sdk_python, given.rounds, given.only, bases, Path(work))


if __name__ == "__main__":
    main()
