"""Runs that never happened, as their summaries and folders: histories are made of them in no time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from batchrun.job import Job, parse_job
from batchrun.schedule.history import Home, rows_of
from batchrun.storage.folder import RunFolder
from batchrun.storage.manifest import Identity, Manifest

BEGAN = datetime(2025, 3, 1, 6, tzinfo=UTC)
ESTIMATE = {"n": 100, "clusters": 100, "confidence": 0.95, "method": "Wilson"}


def job(text: str = "", name: str = "nightly") -> Job:
    return parse_job(f'name = "{name}"\ndataset = "d.jsonl"\n[request]\nmodel = "m"\n{text}')


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(path=tmp_path / "reports" / "nightly")


def summary_of(
    day: int, *, accuracy: float | None = 0.9, errored: int = 0, digest: str = "d1", simulated: bool = False
) -> dict[str, Any]:
    """The summary of a run of 100 rows that began on this day of the test's month."""
    began = BEGAN + timedelta(days=day)
    spread = {"low": None, "high": None} if accuracy is None else {"low": accuracy - 0.06, "high": accuracy + 0.06}
    rows = {"landed": 100, "succeeded": 100 - errored, "scored": 100 - errored, "infra_error": errored, "unscored": 0}
    percentiles = {"p50": 100.0, "p90": 150.0, "p95": 200.0, "p99": 300.0, "max": 400.0}
    model = {
        "model": "m",
        "rows": rows,
        "attempts": 100,
        "outcomes": {"correct": 90, "wrong_call": 10},
        "accuracy": {"value": accuracy, **spread, **ESTIMATE},
        "tokens": {"input": 1000, "output": 200, "cache_read": 0},
        "cost": {"usd": "0.5", "wasted_usd": "0", "total_usd": "0.5", "unpriced": 0},
        "ttft_ms": percentiles,
        "latency_ms": percentiles,
    }
    return {
        "job": "nightly",
        "run_id": f"{began:%Y%m%dT%H%M%SZ}-{day:06x}",
        "folder": "",
        "started_at": began.isoformat(),
        "simulated": simulated,
        "stopped": None,
        "dataset": "d.jsonl",
        "dataset_digest": digest,
        "profile": "default",
        "wall_s": 60.0,
        "rows": {"total": 100, **rows},
        "models": [model],
        "cost": {"total": "0.5", "unpriced": {}},
        "errors": [],
    }


Record = Callable[..., dict[str, Any]]


@pytest.fixture
def record(home: Home) -> Record:
    """Make a run's folder with results of 100 rows, `right` of them right, and its row in the history."""

    def make(
        day: int, *, exit_code: int = 0, right: int = 90, errored: int = 0, results: bool = True, **facts: Any
    ) -> dict[str, Any]:
        accuracy = right / (100 - errored) if errored < 100 else None
        summary = summary_of(day, accuracy=facts.pop("accuracy", accuracy), errored=errored, **facts)
        path = home.path / summary["run_id"]
        summary["folder"] = str(path)
        if results:
            _write(path, summary, right, errored)
        finished = datetime.fromisoformat(summary["started_at"]) + timedelta(minutes=1)
        home.record(rows_of(summary, exit_code=exit_code, finished=finished, environ={}))
        return summary

    return make


def _write(path: Path, summary: dict[str, Any], right: int, errored: int) -> None:
    """Write what a comparison and a removal read of a run."""
    folder = RunFolder.create_at(path)
    identity = Identity(dataset=summary["dataset_digest"], selection="", models=("m",), repeat=1, prompt="", simulated=False)
    folder.write_manifest(
        Manifest(
            run_id=path.name, job_name="nightly", job={}, identity=identity, state="finished", started_at=summary["started_at"]
        )
    )
    folder.summary.write_bytes(msgspec.json.encode(summary))
    verdict = [None if row >= 100 - errored else row < right for row in range(100)]
    frame = pl.DataFrame(
        {
            "id": [str(row) for row in range(100)],
            "model": "m",
            "repeat": 0,
            "correct": pl.Series(verdict, dtype=pl.Boolean),
            "cluster": pl.Series([None] * 100, dtype=pl.String),
            "tags": pl.Series([[]] * 100, dtype=pl.List(pl.String)),
            "cost_usd": pl.Series([None] * 100, dtype=pl.Decimal(18, 9)),
            "latency_ms": 100.0,
            "status": ["errored" if row >= 100 - errored else "succeeded" for row in range(100)],
        }
    )
    frame.write_parquet(folder.results)
