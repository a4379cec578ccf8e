"""What is kept: what either rule keeps, and whatever later runs are held against."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from batchrun.schedule.history import Home
from batchrun.schedule.retention import REMOVED, begun_since, prune
from batchrun.storage.folder import RunFolder
from batchrun.storage.manifest import Counts

from .conftest import BEGAN, Record, job

NOW = BEGAN + timedelta(days=10, hours=1)


def left(home: Home) -> list[int]:
    return sorted(int(path.name[-6:], 16) for path in home.path.iterdir() if path.is_dir())


def test_without_rules_everything_is_kept(home: Home, record: Record) -> None:
    record(0)
    assert prune(job(), home, NOW, current="") == []


@pytest.mark.parametrize(
    ("rules", "kept"),
    [("keep_runs = 3", [8, 9, 10]), ("keep_days = 4", [7, 8, 9, 10]), ("keep_runs = 2\nkeep_days = 3", [8, 9, 10])],
)
def test_the_newest_are_kept(home: Home, record: Record, rules: str, kept: list[int]) -> None:
    summaries = [record(day) for day in range(11)]
    removed = prune(job(f"[history]\n{rules}"), home, NOW, current=summaries[-1]["run_id"])
    assert left(home) == kept
    assert len(removed) == 11 - len(kept)
    assert len(home.rows()) == 11  # the memory of a run outlives its folder


def test_the_last_good_run_and_the_baseline_are_never_removed(home: Home, record: Record) -> None:
    baseline = record(0)["run_id"]
    record(1)
    record(2)
    for day in range(3, 11):
        record(day, exit_code=8)
    home.set_baseline(baseline)
    prune(job("[history]\nkeep_runs = 1"), home, NOW, current="")
    assert left(home) == [0, 2, 10]


def test_nor_the_last_good_real_run_after_simulated_ones(home: Home, record: Record) -> None:
    record(0)
    for day in range(1, 4):
        record(day, simulated=True)
    prune(job("[history]\nkeep_runs = 1"), home, NOW, current="")
    assert left(home) == [0, 3]


def test_nor_the_run_a_gate_names(home: Home, record: Record) -> None:
    named = record(0)["run_id"]
    for day in range(1, 4):
        record(day)
    text = f'[gate]\nno_regression = {{ against = "{named}" }}\n[history]\nkeep_runs = 1'
    prune(job(text), home, NOW, current="")
    assert left(home) == [0, 3]


@pytest.mark.parametrize(
    ("facts", "file", "kept"),
    [
        ({"state": "stopped", "counts": Counts(succeeded=8)}, "junit.xml", [0, 2, 3]),
        ({"state": "stopped"}, "batches.jsonl", [0, 2, 3]),
        ({"state": "running"}, "journal/local-000001.journal", [0, 2, 3]),
        ({"state": "stopped"}, "journal/local-000001.journal", [2, 3]),
        ({"state": "stopped", "counts": Counts(succeeded=8), "simulated": True}, "junit.xml", [2, 3]),
    ],
    ids=["at its budget", "with batches at work", "killed", "with errors alone", "simulated"],
)
def test_what_was_paid_for_and_can_be_gone_on_with_stays(
    home: Home, record: Record, facts: dict[str, Any], file: str, kept: list[int]
) -> None:
    folder = RunFolder(home.path / record(0, exit_code=6)["run_id"])
    folder.write_manifest(msgspec.structs.replace(folder.read_manifest(), **facts))
    (folder.path / file).parent.mkdir(exist_ok=True)
    (folder.path / file).touch()
    for day in range(1, 4):
        record(day)
    prune(job("[history]\nkeep_runs = 2"), home, NOW, current="")
    assert left(home) == kept


def test_a_run_somebody_works_on_another_jobs_and_a_strange_folder_stay(home: Home, record: Record) -> None:
    busy, other = record(0), record(1)
    for day in range(2, 5):
        record(day)
    folder = RunFolder(home.path / other["run_id"])
    manifest = folder.manifest.read_text().replace('"nightly"', '"weekly"')
    folder.manifest.write_text(manifest)
    (home.path / "notes").mkdir()
    with RunFolder(home.path / busy["run_id"]).lock():
        prune(job("[history]\nkeep_runs = 1"), home, NOW, current="")
    assert (home.path / "notes").is_dir()
    assert sorted(path.name[-1] for path in home.path.iterdir() if path.name.startswith("2025")) == ["0", "1", "4"]


def test_a_run_whose_age_nobody_knows_is_kept_and_half_removals_are_cleared(home: Home, record: Record) -> None:
    strange = record(0)
    record(1)
    (home.path / strange["run_id"] / "run.json").write_text("{")
    (home.path / f"{REMOVED}20240101T000000Z-000000").mkdir()
    prune(job("[history]\nkeep_days = 1"), home, NOW, current="")
    assert left(home) == [0, 1]  # 1 is the last good run


def test_runs_since_a_moment_come_newest_first(home: Home, record: Record) -> None:
    for day in range(3):
        record(day)
    found = [folder.path.name for folder in begun_since(home, BEGAN + timedelta(days=1))]
    assert [name[:8] for name in found] == ["20250303", "20250302"]
