"""Earlier runs teach what they can, and what cannot be read is passed over."""

import json
from pathlib import Path

import pytest

from batchrun.estimation.history import learn
from batchrun.job import Job
from batchrun.prepare import Options, load_job, open_job_dataset
from batchrun.run import run

QUICK: list[tuple[str, object]] = [("simulate.first_byte_ms", 0), ("simulate.token_ms", 0), ("request.model", ["m"])]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job of 20 rows."""
    lines = [json.dumps({"prompt": f"Say {number}. " * (1 + number % 5)}) + "\n" for number in range(20)]
    (tmp_path / "data.jsonl").write_text("".join(lines))
    return load_job(str(tmp_path / "data.jsonl"), overrides=QUICK)


def test_a_run_teaches_its_like_and_its_model(job: Job, tmp_path: Path) -> None:
    """Output and waste of the same job or dataset; bytes a token of the same model, whatever the job."""
    root = tmp_path / "reports"
    run(job, Options(simulate=True, root=root), environ={})
    dataset = open_job_dataset(job)
    (got,) = learn(root, job, dataset, simulated=True).values()
    assert got.ratio is not None
    assert got.ratio.rows == len(got.output) == len(got.latency_ms) == 20
    assert len(got.runs) == 1
    other = tmp_path / "other.jsonl"
    other.write_text('{"prompt": "another"}\n')
    stranger = load_job(str(other), overrides=QUICK)
    (got,) = learn(root, stranger, open_job_dataset(stranger), simulated=True).values()
    assert got.ratio is not None
    assert (got.ratio.rows, got.output, got.runs) == (20, [], set())
    (got,) = learn(root, job, dataset, simulated=False).values()
    assert (got.ratio, got.output) == (None, [])
    unknown = load_job(str(other), overrides=[*QUICK, ("request.model", ["n"])])
    (got,) = learn(root, unknown, open_job_dataset(unknown), simulated=True).values()
    assert (got.ratio, got.output) == (None, [])


def test_what_cannot_be_read_is_passed_over(job: Job, tmp_path: Path) -> None:
    """A broken manifest, a run without results, broken results, a dataset that is gone: what is left still teaches."""
    root = tmp_path / "reports"
    finished = run(job, Options(simulate=True, root=root), environ={}).folder
    for name, broken in (("a", "run.json"), ("b", "results.parquet"), ("c", None)):
        folder = root / "broken" / name
        folder.mkdir(parents=True)
        for file in ("run.json", "results.parquet"):
            if file != broken:
                (folder / file).write_bytes((finished / file).read_bytes())
            elif name == "a":
                (folder / file).write_bytes(b"{")
        if name == "c":
            (folder / "results.parquet").write_bytes(b"no parquet")
    (got,) = learn(root, job, open_job_dataset(job), simulated=True).values()
    assert got.ratio is not None
    assert len(got.output) == 20
    (tmp_path / "data.jsonl").rename(tmp_path / "moved.jsonl")
    moved = load_job(str(tmp_path / "moved.jsonl"), overrides=QUICK)
    (got,) = learn(root, moved, open_job_dataset(moved), simulated=True).values()
    assert got.ratio is None
    assert len(got.output) == 20
