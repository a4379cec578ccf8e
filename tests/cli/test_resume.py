"""Runs that are killed, signalled, filled up and gone on with: nothing paid for is lost, nothing is asked for twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bench.bench_kill import torture
from tests.cli.endpoint import WAIT_S, Shell, ended, endpoint, process, reply, results
from tests.transport.servers import Asked, Peer

FAULTS = ("http_429", "http_529", "http_500", "error_event", "cut", "stall", "bad_json")


def test_killed_at_any_instant_every_row_is_answered_and_none_twice(tmp_path: Path) -> None:
    """By the server's own log: asked again are only rows that were in flight at a kill, or just answered."""
    log, rows = torture(tmp_path, kills=2, rows=120)
    assert [row["status"] for row in rows] == ["succeeded"] * 120
    assert [row["index"] for row in rows] == list(range(120))
    assert log.asked_in_vain() == []
    assert len(log.killed) > 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_second_signal_ends_at_once_and_the_run_goes_on(tmp_path: Path, number: signal.Signals, code: int) -> None:
    silent = True

    async def say(peer: Peer, asked: Asked) -> None:
        if silent and b"row 0" not in asked.body:
            await asyncio.sleep(WAIT_S)
        await peer.say(reply())

    (tmp_path / "rows.jsonl").write_text("".join(f'{{"prompt": "row {row}"}}\n' for row in range(20)))
    with endpoint(say) as served:
        flags = ("run", "rows.jsonl", "--model", "m", "--base-url", served.base_url, "--out", "out")
        started = process(tmp_path, flags)
        _until(lambda: len(served.asked) > 1)
        began = time.monotonic()
        started.send_signal(number)
        time.sleep(0.5)
        assert started.poll() is None, "the first signal waits for the calls in flight"
        started.send_signal(number)
        done = ended(started)
        assert (done.code, time.monotonic() - began < 10) == (code, True), done.err
        assert "batchrun resume out" in done.err
        silent = False
        assert ended(process(tmp_path, flags)).code == 0
    assert [row["status"] for row in results(tmp_path / "out")] == ["succeeded"] * 20
    assert sum(b"row 0" in asked.body for asked in served.asked) == 1


def test_faults_at_a_fifth_leave_no_row_without_the_truth(shell: Shell) -> None:
    """All seven faults of the simulator at once: every row ends answered, or errored with its reason."""
    data = shell.write("rows.jsonl", *({"prompt": f"row {row}", "expected": []} for row in range(40)))
    settings = {f"simulate.faults.{name.removeprefix('http_')}": 0.03 for name in FAULTS}
    settings |= {"simulate.first_byte_ms": 1, "simulate.token_ms": 0, "endpoint.timeout.idle_s": 1, "limits.max_error_rate": 1}
    flags = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    done = shell("run", data, "--model", "m", "--simulate", "--out", "out", *flags)
    assert done.code == 0, done.err
    rows = results(Path("out"))
    assert len(rows) == 40
    assert all(row["status"] == "succeeded" or (row["error_type"] and row["error_message"]) for row in rows)
    assert any(row["attempts"] > 1 for row in rows)


def test_a_changed_dataset_is_noticed(shell: Shell) -> None:
    data = shell.write("rows.jsonl", {"prompt": "row 0"})
    with endpoint() as served:
        flags = ("run", data, "--model", "m", "--base-url", served.base_url, "--out", "out")
        assert shell(*flags).code == 0
        shell.write("rows.jsonl", {"prompt": "row 0"}, {"prompt": "row 1"})
        refused = shell(*flags)
        assert refused.code == 2
        assert "changed" in refused.err
        assert "--force" in refused.err
        assert len(served.asked) == 1
        assert shell(*flags, "--force").code == 0
    assert len(served.asked) == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder on a disk of its own that holds little."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("this user may not mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_ends_with_4_and_what_is_on_it_stays_valid(shell: Shell, small_disk: Path) -> None:
    async def say(peer: Peer, asked: Asked) -> None:
        del asked
        await asyncio.sleep(0.01)  # two at a time: a second for all of them, in which a full disk is noticed
        await peer.say(reply(LARGE))

    data = shell.write("rows.jsonl", *({"prompt": f"row {row}"} for row in range(200)))
    with endpoint(say) as served:
        slowly = ("--set", "limits.concurrency=2")
        flags = ("run", data, "--model", "m", "--base-url", served.base_url, "--out", small_disk / "out", *slowly)
        full = shell(*flags)
        assert full.code == 4, full.err
        assert "resume" in full.err
        asked = len(served.asked)
        assert asked < 200
        subprocess.run(["mount", "-o", "remount,size=200m", small_disk], check=True)
        assert shell(*flags).code == 0
    assert len(results(small_disk / "out")) == 200
    assert len(served.asked) < 200 + asked, "what landed before is not asked for again"


def test_a_folder_that_cannot_be_written_ends_with_4(shell: Shell) -> None:
    data = shell.write("rows.jsonl", {"prompt": "row 0"})
    with endpoint() as served:
        for place in ("/dev/null/out", "/proc/out"):
            refused = shell("run", data, "--model", "m", "--base-url", served.base_url, "--out", place)
            assert refused.code == 4, refused.err
            assert place in refused.err
    assert served.asked == []


LARGE = (
    b'{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"'
    + os.urandom(30_000).hex().encode()
    + b'"}],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}'
)


def _until(ready: Callable[[], bool]) -> None:
    """Wait until `ready()`, bounded."""
    until = time.monotonic() + WAIT_S
    while not ready():
        assert time.monotonic() < until
        time.sleep(0.01)
