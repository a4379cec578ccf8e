"""The endpoint in a process of its own: it answers, and it never outlives its parent."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec
import pytest

from batchrun.errors import BatchrunError
from batchrun.job import Simulate
from batchrun.records import Sample
from batchrun.simulator import answers_of, process

Body = Callable[..., bytes]
FAST = Simulate(accuracy=1, first_byte_ms=0, token_ms=0)


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


def gone_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


def test_it_answers_what_it_was_handed_and_ends(body: Body, tmp_path: Path) -> None:
    messages = msgspec.json.encode([{"role": "user", "content": "hello?"}])
    answers = answers_of(
        [Sample(index=0, id="a", messages=messages, expected=b'[{"name":"get_time","arguments":{"zone":"JST"}}]')]
    )
    log = tmp_path / "access.jsonl"
    with process.start(FAST, answers, access_log=log) as simulated:
        answered = httpx.post(f"{simulated.base_url}/v1/messages", content=body("hello?"), trust_env=False).json()
        assert [block["input"] for block in answered["content"] if block["type"] == "tool_use"] == [{"zone": "JST"}]
    assert gone_within(simulated.pid, 5)
    assert json.loads(log.read_text())["path"] == "/v1/messages"


def test_ctrl_c_is_the_parents_affair(body: Body) -> None:
    """A drain after Ctrl-C still finds its endpoint."""
    with process.start(FAST) as simulated:
        os.kill(simulated.pid, signal.SIGINT)
        assert httpx.post(f"{simulated.base_url}/v1/messages", content=body(), trust_env=False).status_code == 200


def test_it_dies_with_its_parent() -> None:
    """Even when the parent is killed and cannot say so."""
    program = (
        "import os, signal\n"
        "from batchrun.job import Simulate\n"
        "from batchrun.simulator import process\n"
        "with process.start(Simulate()) as simulated:\n"
        "    print(simulated.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert gone_within(int(killed.stdout), 5)


def test_a_parent_that_was_gone_before_the_address_was_told_leaves_no_traceback() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "batchrun.simulator"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.close()
    child.stdout = None
    _, said = child.communicate(msgspec.json.encode(process.Order(spec=Simulate())) + b"\n", timeout=30)
    assert (child.returncode, said) == (0, b"")


def test_an_error_in_the_block_ends_it_too() -> None:
    pid = 0
    with contextlib.suppress(ZeroDivisionError), process.start(FAST) as simulated:
        pid = simulated.pid
        _ = 1 / 0
    assert gone_within(pid, 5)


def test_a_child_that_will_not_go_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    deaf = tmp_path / "deaf"
    deaf.write_text("#!/bin/sh\necho http://127.0.0.1:1\nexec sleep 60\n")
    deaf.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(deaf))
    monkeypatch.setattr(process, "STOP_S", 0.3)
    with process.start(FAST) as simulated:
        assert alive(simulated.pid)
    assert gone_within(simulated.pid, 5)


def test_credentials_are_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret-value")
    with process.start(FAST) as simulated:
        assert b"sk-secret-value" not in Path(f"/proc/{simulated.pid}/environ").read_bytes()


def test_a_child_that_cannot_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(BatchrunError, match="did not start"), process.start(FAST):
        pass
