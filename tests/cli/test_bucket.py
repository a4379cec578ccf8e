"""A dataset read from a bucket and a run written to one, against an S3-speaking server on loopback."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.fs as pa_fs
import pyarrow.parquet as pq
import pytest

import batchrun
from batchrun.cli import main
from batchrun.job import Simulate
from batchrun.simulator import process

DATASET = Path(__file__).parents[2] / "datasets" / "weather.jsonl"


@pytest.fixture(autouse=True)
def _a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*args: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(args)
    return int(ended.value.code or 0)


def test_a_run_lives_in_a_bucket_and_goes_on_from_there(bucket: pa_fs.FileSystem, tmp_path: Path) -> None:
    """Read from a bucket, written to a bucket; started again on a machine that has nothing, no call is made twice."""
    with bucket.open_output_stream("data/weather.jsonl") as stream:
        stream.write(DATASET.read_bytes())
    quick = ("--simulate", "-q", "--set", "simulate.first_byte_ms=0", "--set", "simulate.token_ms=0")
    command = ("run", "s3://data/weather.jsonl", "--model", "claude-sonnet-4-20250514", "--out", "s3://data/runs/one", *quick)
    assert run(*command) == 0
    names = {info.base_name for info in bucket.get_file_info(pa_fs.FileSelector("data/runs/one", recursive=True))}
    assert {"run.json", "results.parquet", "cost.parquet", "summary.json", "report.html", "junit.xml"} <= names
    journals = [name for name in names if name.endswith(".journal")]

    (tmp_path / "spool").rename(tmp_path / "lost")
    assert run(*command) == 0
    infos = bucket.get_file_info(pa_fs.FileSelector("data/runs/one/journal"))
    grown = [info for info in infos if info.base_name.endswith(".journal") and info.base_name not in journals and info.size > 100]
    assert not grown, "the second run called nothing"


def test_a_run_in_a_bucket_is_gone_on_with_and_scored_again_by_its_address(bucket: pa_fs.FileSystem, tmp_path: Path) -> None:
    """From another machine, with no job file: what is missing is called, and the results are in the bucket."""
    place = "s3://data/runs/two"
    quick = ("--simulate", "-q", "--set", "simulate.first_byte_ms=0", "--set", "simulate.token_ms=0")
    stopped = run(
        "run", str(DATASET), "--model", "claude-sonnet-4-20250514", "--out", place, *quick, "--set", "limits.max_cost_usd=0.02"
    )
    assert stopped == 6
    (tmp_path / "spool").rename(tmp_path / "lost")
    assert run("resume", place, "-q", "--set", "limits.max_cost_usd=5") == 0
    assert pq.read_table(bucket.open_input_file("data/runs/two/results.parquet")).num_rows == 26
    assert run("score", place, "-q", "--profile", "exact") == 0
    with bucket.open_input_stream("data/runs/two/summary.json") as stream:
        assert json.loads(stream.read())["profile"] == "exact"
    assert batchrun.score(place, {"scoring.profile": "default"}).summary["profile"] == "default"


def test_batches_of_a_run_in_a_bucket_are_cancelled_by_its_address(bucket: pa_fs.FileSystem, tmp_path: Path) -> None:
    """What was submitted is known in the bucket, so any machine can stop it."""
    place, log = "s3://data/runs/three", tmp_path / "access.jsonl"
    with process.start(Simulate(first_byte_ms=60_000, token_ms=0), access_log=log) as simulated:
        batches = ("--set", "request.mode=batches", "--set", "endpoint.auth=none", "--base-url", simulated.base_url)
        args = ("run", str(DATASET), "--model", "claude-sonnet-4-20250514", "--out", place, *batches)
        child = subprocess.Popen([sys.executable, "-m", "batchrun", *args], stderr=subprocess.PIPE, text=True)
        until = time.monotonic() + 60
        while not any('"submitted"' in ledger.read_text() for ledger in tmp_path.glob("spool/*/three/batches.jsonl")):
            assert time.monotonic() < until
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=60)
        assert child.returncode == 130
        assert f"`batchrun cancel {place}` stops them" in said
        (tmp_path / "spool").rename(tmp_path / "lost")
        run("cancel", place, "-q")
    with bucket.open_input_stream("data/runs/three/summary.json") as stream:
        summary = json.loads(stream.read())
    assert summary["rows"]["landed"] == 26
    assert summary["rows"]["succeeded"] < 26, "what was done by then is kept, the rest was stopped"
    asked = [line for line in map(json.loads, log.read_text().splitlines()) if line["path"].endswith("/cancel")]
    assert [line["status"] for line in asked] == [200]


def test_a_bucket_that_is_not_there_is_told_before_a_call(
    bucket: pa_fs.FileSystem, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """To write to: exit 4 and nothing was sent; to read from: exit 2; a run that is not there is named by its address."""
    del bucket
    model = ("--model", "claude-sonnet-4-20250514", "--simulate", "-q")
    assert run("run", str(DATASET), *model, "--out", "s3://none/runs/one") == 4
    assert not list((tmp_path / "spool").rglob("*.journal"))
    assert run("run", "s3://none/rows.jsonl", *model) == 2
    assert run("resume", "s3://data/runs/none", "-q") == 2
    assert run("run", str(DATASET), *model, "--out", "hf://datasets/a/b/run") == 2
    told = capfd.readouterr().err
    assert "s3://none/runs/one/lock: cannot write: " in told
    assert "s3://none/rows.jsonl: there is no such file or folder" in told
    assert "s3://data/runs/none: there is no run" in told
    assert "hf://datasets/a/b/run: a run cannot be written there" in told
    assert "Traceback" not in told


def test_a_finished_run_is_read_by_its_address(
    bucket: pa_fs.FileSystem, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exported, repriced, reported and compared without a copy that anybody sees: not on disk, not in what is printed."""
    copies = tmp_path / "copies"
    copies.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(copies))
    place = "s3://data/runs/read"
    quick = ("--simulate", "-q", "--set", "simulate.first_byte_ms=0", "--set", "simulate.token_ms=0")
    assert run("run", str(DATASET), "--model", "claude-sonnet-4-20250514", "--out", place, *quick) == 0
    (tmp_path / "spool").rename(tmp_path / "lost")

    assert run("export", place, "-o", "s3://data/answers.csv", "--columns", "id,outcome") == 0
    with bucket.open_input_stream("data/answers.csv") as stream:
        assert stream.read().count(b"\n") == 27
    assert run("export", place) == 0
    assert capfd.readouterr().out.count("\n") == 26
    assert run("cost", place, "--model", "claude-3-5-haiku-20241022", "--format", "json") == 0
    assert json.loads(capfd.readouterr().out)["runs"][0]["run"] == place
    assert run("cost", place, "--format", "parquet", "-o", "s3://data/cost.parquet") == 0
    assert pq.read_table(bucket.open_input_file("data/cost.parquet")).num_rows > 0
    bucket.delete_file("data/runs/read/report.html")
    assert run("report", place) == 0
    with bucket.open_input_stream("data/runs/read/report.html") as stream:
        assert b"</html>" in stream.read()
    assert run("report", place, "--format", "md") == 0
    assert "page: s3:\u200b//data/runs/read/report.html" in capfd.readouterr().out  # marked so that nothing makes a link of it
    assert run("report", place, "--format", "json") == 0
    assert json.loads(capfd.readouterr().out)[0]["folder"] == place
    assert run("compare", place, place + "/") == 0
    assert "26 rows in both" in capfd.readouterr().out
    assert run("export", "s3://data/runs/none") == 2
    assert not list(copies.iterdir())
