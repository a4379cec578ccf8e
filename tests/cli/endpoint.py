"""Scripted servers in a thread of their own, and the command line against them: in this process or as one of its own."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batchrun.cli import main
from tests.transport.servers import Asked, Peer, Script, serve

WAIT_S = 60
WEATHER = {
    "name": "get_weather",
    "description": "The current weather at a place",
    "input_schema": {
        "type": "object",
        "properties": {"location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"}},
        "required": ["location"],
    },
}
SAYS = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m-1",
    "content": [{"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"location": "Paris"}}],
    "stop_reason": "tool_use",
    "usage": {"input_tokens": 10, "output_tokens": 5},
}
ANSWER = json.dumps(SAYS).encode()


@dataclass
class Endpoint:
    """A server while it runs: its address and every request it was asked."""

    base_url: str = ""
    asked: list[Asked] = field(default_factory=list)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The bodies it was asked, decoded."""
        return [json.loads(asked.body) for asked in self.asked]


Answer = Callable[[Peer, Asked], Any]


def reply(body: bytes = ANSWER, *, status: int = 200, headers: Mapping[str, str] | None = None) -> bytes:
    """Return one whole reply."""
    lines = [f"HTTP/1.1 {status} Said", f"content-length: {len(body)}", "content-type: application/json"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def answers(peer: Peer, asked: Asked) -> None:
    """Answer with the weather."""
    del asked
    await peer.say(reply())


@contextmanager
def endpoint(answer: Answer = answers) -> Iterator[Endpoint]:
    """Serve on loopback while the block lasts; `answer` speaks once for each request."""
    served = Endpoint()

    async def script(peer: Peer) -> None:
        while True:
            asked = await peer.request()
            served.asked.append(asked)
            await answer(peer, asked)

    with serving(script) as base_url:
        served.base_url = base_url
        yield served


@contextmanager
def serving(script: Script, *, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Run `script` for every connection to the address that is yielded."""
    begun, addresses, trouble = threading.Event(), list[str](), list[BaseException]()
    loop, over = asyncio.new_event_loop(), asyncio.Event()

    async def run() -> None:
        async with serve(script, tls=tls) as server:
            addresses.append(server.base_url)
            begun.set()
            await over.wait()

    def work() -> None:
        try:
            loop.run_until_complete(run())
        except BaseException as error:  # noqa: BLE001 - raised again below, in the test's own thread
            trouble.append(error)
        finally:
            begun.set()
            loop.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert begun.wait(WAIT_S)
    try:
        yield addresses[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(WAIT_S)
        assert not thread.is_alive()
    if trouble:
        raise trouble[0]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


class Shell:
    """The command line in a folder of its own, with no credential around."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capture = capture

    def __call__(self, *args: str | Path) -> Ended:
        """Run one command in this process."""
        self._capture.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args])
        out, err = self._capture.readouterr()
        assert "Traceback" not in err, err
        return Ended(int(ended.value.code or 0), out, err)

    def write(self, name: str, *rows: object) -> str:
        """Write a JSONL file of rows (a string as it is); return its name."""
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (self.folder / name).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return name


def command(*args: str | Path) -> list[str]:
    """Return the command line as a process's arguments."""
    return [sys.executable, "-m", "batchrun", *map(str, args)]


def environment(**more: str) -> dict[str, str]:
    """Return this environment without a credential, a CI's mark or a colour's, and with `more`."""
    dropped = ("ANTHROPIC_", "BATCHRUN_", "CI", "NO_COLOR", "FORCE_COLOR", "COV_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return kept | {"PYTHONPATH": str(Path(__file__).parents[2])} | more


def process(folder: Path, args: Sequence[str | Path], **env: str) -> subprocess.Popen[str]:
    """Start the command line as a process of its own."""
    return subprocess.Popen(
        command(*args), cwd=folder, env=environment(**env), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def ended(started: subprocess.Popen[str]) -> Ended:
    """Wait for a process and return how it ended."""
    with started:
        out, err = started.communicate(timeout=WAIT_S)
    assert "Traceback" not in err, err
    return Ended(started.returncode, out, err)


def results(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's results."""
    rows: list[dict[str, Any]] = pq.read_table(folder / "results.parquet").to_pylist()
    return rows
