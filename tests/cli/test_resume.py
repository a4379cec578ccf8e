"""Runs that are killed, signalled, filled up and gone on with: nothing paid for is lost, nothing is asked for twice."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
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


SLOW_SCORER = """
import pathlib, time

class Slow:
    def score(self, expected, tools, reply):
        pathlib.Path("scoring").touch()
        time.sleep(0.05 if pathlib.Path("slow").exists() else 0)
        return True
"""


@pytest.mark.parametrize("further", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_results_are_written_lets_them_be_and_a_further_one_does_not(
    tmp_path: Path,
    number: signal.Signals,
    code: int,
    further: bool,  # noqa: FBT001 - a parameter
) -> None:
    (tmp_path / "slow_scorer.py").write_text(SLOW_SCORER)
    (tmp_path / "slow").touch()
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"prompt": "row {row}", "expected": []}}\n' for row in range(40)))
    with endpoint() as served:
        flags = ("--set", "scoring.scorer=slow_scorer:Slow", "--base-url", served.base_url, "--out", "out")
        started = process(tmp_path, ("run", "rows.jsonl", "--model", "m", *flags))
        _until((tmp_path / "scoring").exists)
        started.send_signal(number)
        if further:
            time.sleep(0.3)
            assert started.poll() is None, "the first signal waits for the files"
            started.send_signal(number)
        done = ended(started)
        assert done.code == code, done.err
        assert f"stopped by {number.name}" in done.err
        assert "batchrun resume out" in done.err
        assert ("results are written" in done.err, (tmp_path / "out" / "results.parquet").exists()) == (not further, not further)
        assert not list((tmp_path / "out").glob(".*"))
        (tmp_path / "slow").unlink()
        resumed = ended(process(tmp_path, ("resume", "out")))
        assert resumed.code == 0, resumed.err
    assert [row["outcome"] for row in results(tmp_path / "out")] == ["correct"] * 40
    assert len(served.asked) == 40


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


@pytest.mark.parametrize("change", ['request.model=["m", "n"]', 'request.model=["n"]', "request.repeat=2"])
def test_no_force_puts_answers_under_other_calls(shell: Shell, change: str) -> None:
    """With other models or repeats an answer's place is another call's: it would be scored as that one's."""
    data = shell.write("rows.jsonl", *({"prompt": f"row {row}"} for row in range(4)))
    with endpoint() as served:
        assert shell("run", data, "--model", "m", "--base-url", served.base_url, "--out", "out").code == 0
        before = results(Path("out"))
        for flags in ((), ("--force",)):
            refused = shell("resume", "out", "--set", change, *flags)
            assert refused.code == 2, refused.err
            assert "changed since it began" in refused.err
            assert "--out with another folder" in refused.err
        assert shell("resume", "out", "--force").code == 0
    assert len(served.asked) == 4
    assert results(Path("out")) == before


@pytest.mark.parametrize("named", [True, False], ids=["ids", "no ids"])
def test_force_goes_on_only_where_every_row_has_kept_its_place(shell: Shell, named: bool) -> None:  # noqa: FBT001 - a parameter
    """Rows may be added and their `expected` corrected, again and again; an answer never stands beside another row."""

    def row(number: int, expected: object = ()) -> dict[str, object]:
        return ({"id": f"r{number}"} if named else {}) | {"prompt": f"row {number}", "expected": expected}

    def resumed(*rows: dict[str, object]) -> int:
        shell.write("rows.jsonl", *rows)
        assert shell("resume", "out").code == 2
        return shell("resume", "out", "--force").code

    with endpoint() as served:
        data = shell.write("rows.jsonl", row(0), row(1))
        assert shell("run", data, "--model", "m", "--base-url", served.base_url, "--out", "out").code == 0
        assert resumed(row(1), row(0)) == 2
        assert resumed(row(0)) == 2
        assert resumed(row(7), row(1), row(2)) == 2
        assert len(served.asked) == 2
        assert [found["outcome"] for found in results(Path("out"))] == ["unexpected_call"] * 2
        assert resumed(row(0, {"any_call": True}), row(1), row(2)) == 0
        assert resumed(row(0), row(1), row(3)) == 2, "that one was added and answered"
        assert resumed(row(0), row(1), row(2), row(3)) == 0
    assert [body["messages"][0]["content"] for body in served.bodies] == [f"row {number}" for number in range(4)]
    assert len(results(Path("out"))) == 4


def test_a_run_that_does_not_know_its_rows_says_so(shell: Shell) -> None:
    """One that an earlier version began: nobody can tell whether the rows have kept their places."""
    with endpoint() as served:
        data = shell.write("rows.jsonl", {"prompt": "row 0"})
        assert shell("run", data, "--model", "m", "--base-url", served.base_url, "--out", "out").code == 0
        manifest = json.loads(Path("out/run.json").read_text())
        del manifest["notes"]["asked"]
        Path("out/run.json").write_text(json.dumps(manifest))
        shell.write("rows.jsonl", {"prompt": "row 0"}, {"prompt": "row 1"})
        refused = shell("resume", "out", "--force")
    assert refused.code == 2
    assert "before its manifest kept which rows it asks" in refused.err


def test_another_dataset_and_another_choice_of_it_are_too_much_at_once(shell: Shell) -> None:
    """Which rows kept their places can be told of the same choice alone."""
    with endpoint() as served:
        data = shell.write("rows.jsonl", *({"prompt": f"row {row}"} for row in range(3)))
        flags = ("--model", "m", "--base-url", served.base_url, "--out", "out")
        assert shell("run", data, *flags, "--limit", "1").code == 0
        assert shell("resume", "out", "--force", "--set", "select.limit=2").code == 0
        shell.write("rows.jsonl", *({"prompt": f"row {row}"} for row in range(4)))
        refused = shell("resume", "out", "--force", "--set", "select.limit=4")
        assert refused.code == 2
        assert "not with both" in refused.err
    assert len(served.asked) == 2


def test_a_journal_whose_manifest_is_gone_is_not_taken_over(shell: Shell) -> None:
    """Its answers would be scored as those of whatever job comes along; nothing of it is touched, with --force neither."""
    with endpoint() as served:
        flags = ("--model", "m", "--base-url", served.base_url, "--out", "out")
        assert shell("run", shell.write("rows.jsonl", {"prompt": "row 0"}), *flags).code == 0
        before = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file() and path.name != "lock"}
        manifest = before.pop(Path("out/run.json"))
        Path("out/run.json").unlink()
        other = shell.write("other.jsonl", {"prompt": "another question"})
        for force in ((), ("--force",)):
            refused = shell("run", other, *flags, *force)
            assert refused.code == 2, refused.err
            assert "no run.json" in refused.err
        assert {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file() and path.name != "lock"} == before
        Path("out/run.json").write_bytes(manifest)
        assert shell("resume", "out").code == 0
    assert len(served.asked) == 1


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


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["alone", "workers"])
def test_a_journal_removed_under_a_run_ends_it_with_4_at_once(tmp_path: Path, workers: tuple[str, ...]) -> None:
    """What lands there is lost, so no further call is paid for; exit 0 would say that all is there."""

    async def say(peer: Peer, asked: Asked) -> None:
        del asked
        await asyncio.sleep(0.1)
        await peer.say(reply())

    (tmp_path / "rows.jsonl").write_text("".join(f'{{"prompt": "row {row}"}}\n' for row in range(400)))
    with endpoint(say) as served:
        slowly = ("--set", "limits.concurrency=4", *workers)
        started = process(tmp_path, ("run", "rows.jsonl", "--model", "m", "--base-url", served.base_url, "--out", "out", *slowly))
        _until(lambda: len(served.asked) > 8)
        shutil.rmtree(tmp_path / "out" / "journal")
        done = ended(started)
    assert done.code == 4, done.err
    assert "removed" in done.err
    assert len(served.asked) < 200, "nothing more is paid for"


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
