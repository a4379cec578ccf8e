"""The memory of a job: every run that ended is a row of `reports/<job>/history.parquet`, one a model.

A run that was stopped has a row too, which its resumption replaces; so has one that failed before its first call, if the
job has ever run. Rows outlive the folders of their runs. `Home` knows where a job's memory lies and who may write it: a run
with `--out` elsewhere reads it and leaves no trace in it. Nobody here judges anything.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
from msgspec import Struct

from batchrun import __version__
from batchrun.errors import StorageError, UsageError
from batchrun.job import Job
from batchrun.pricing.rates import nanos
from batchrun.storage.arrays import rows as stored
from batchrun.storage.arrays import table as table_of
from batchrun.storage.atomic import write_bytes
from batchrun.storage.folder import MANIFEST_NAME
from batchrun.storage.lock import Lock
from batchrun.storage.manifest import public_location, read_manifest
from batchrun.storage.places import is_remote
from batchrun.storage.tables import read_table, write_table
from batchrun.storage.trouble import translated

_COMMIT_VARIABLES: Final = ("GIT_COMMIT", "GITHUB_SHA", "CI_COMMIT_SHA")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MONEY: Final = pa.decimal128(18, 9)
_TIME: Final = pa.timestamp("us", tz="UTC")
_FIELDS: Final[list[tuple[str, pa.DataType]]] = [
    ("run_id", pa.string()),
    ("model", pa.string()),
    ("started_at", _TIME),
    ("finished_at", _TIME),
    ("exit_code", pa.int32()),
    ("stopped", pa.string()),  # why it ended before its rows did, or never began
    ("gates_passed", pa.bool_()),  # null: no gate was judged
    ("gates", pa.string()),  # JSON: name, passed, detail
    ("simulated", pa.bool_()),
    ("dataset", pa.string()),
    ("dataset_digest", pa.string()),
    ("profile", pa.string()),
    ("rows", pa.int64()),  # landed
    ("errored", pa.int64()),  # of them without an answer
    ("scored", pa.int64()),
    ("accuracy", pa.float64()),
    ("accuracy_low", pa.float64()),
    ("accuracy_high", pa.float64()),
    ("confidence", pa.float64()),
    ("outcomes", pa.string()),  # JSON: outcome → rows
    ("cost_usd", _MONEY),
    ("wasted_usd", _MONEY),
    ("unpriced", pa.int64()),
    ("input_tokens", pa.int64()),
    ("output_tokens", pa.int64()),
    ("cache_read_tokens", pa.int64()),
    ("ttft_p50_ms", pa.float64()),
    ("ttft_p95_ms", pa.float64()),
    ("latency_p50_ms", pa.float64()),
    ("latency_p95_ms", pa.float64()),
    ("latency_p99_ms", pa.float64()),
    ("attempts", pa.int64()),
    ("wall_s", pa.float64()),
    ("batchrun_version", pa.string()),
    ("git_commit", pa.string()),
    ("folder", pa.string()),
]
SCHEMA: Final = pa.schema(_FIELDS)

Rows = list[dict[str, Any]]


class Home(Struct, frozen=True, kw_only=True):
    """Where a job's runs and their history are. `owned`: the run at hand belongs there, so it locks and writes."""

    path: Path
    owned: bool = True

    @classmethod
    def of(cls, job: Job, root: Path) -> Home:
        """Return `root/<job>`, or the folder around `job.out` where that is named after the job (a run that is resumed).

        Raises `StorageError`.
        """
        if job.out is None:
            return cls(path=root / job.name)
        if is_remote(job.out):
            return cls(path=root / job.name, owned=False)
        with translated(job.out, "find"):  # a relative path seen from a folder that was removed
            around = Path(os.path.normpath(Path(job.out).absolute())).parent
        if around.name == job.name:
            return cls(path=around)
        return cls(path=root / job.name, owned=False)

    @property
    def table(self) -> Path:
        """`history.parquet`."""
        return self.path / "history.parquet"

    @property
    def baseline_file(self) -> Path:
        """`baseline.json`: which run is the baseline."""
        return self.path / "baseline.json"

    def lock(self) -> Lock:
        """Become the job's one run. Raises `RunLocked` (exit 7) naming the owner, and `StorageError`."""
        return Lock(self.path / "lock")

    def rows(self) -> Rows:
        """Return the whole history in the order in which the runs ended; [] where there is none. Raises `StorageError`."""
        if not self.table.exists():
            return []
        return sorted(stored(read_table(self.table)), key=lambda row: (row["finished_at"], row["run_id"]))

    def record(self, rows: Rows) -> None:
        """Add one run's rows, in place of those it may have from before it was resumed. Raises `StorageError`.

        One writer at a time: the caller holds the job's lock.
        """
        kept: Rows = []
        if self.table.exists():
            run_id = rows[0]["run_id"]
            kept = [row for row in stored(read_table(self.table)) if row["run_id"] != run_id]
        columns = {name: [_units(row.get(name)) for row in (*kept, *rows)] for name in SCHEMA.names}
        write_table(self.table, table_of(SCHEMA, columns), {"schema": "history", "batchrun_version": __version__})

    def folder_of(self, row: Mapping[str, Any]) -> Path:
        """Return the folder of a row's run: beside the history, or where it was written."""
        beside = self.path / str(row["run_id"])
        return beside if beside.exists() or not row.get("folder") else Path(row["folder"])

    def baseline(self) -> str | None:
        """Return the run that was made the baseline, None where none was. Raises `StorageError`."""
        try:
            with translated(self.baseline_file, "read"):
                content = self.baseline_file.read_bytes() if self.baseline_file.exists() else None
            return None if content is None else str(msgspec.json.decode(content)["run_id"])
        except (msgspec.DecodeError, KeyError, TypeError):
            raise StorageError(f"{self.baseline_file}: is not valid", hint="batchrun history JOB --baseline RUN") from None

    def set_baseline(self, run_id: str | None) -> None:
        """Make a run the baseline, or have none. Raises `UsageError` where the run is not a finished one, `StorageError`."""
        if run_id is None:
            with translated(self.baseline_file, "remove"):
                self.baseline_file.unlink(missing_ok=True)
            return
        manifest = self.path / run_id / MANIFEST_NAME
        if not (self.path / run_id / "results.parquet").exists() or read_manifest(manifest).state != "finished":
            raise UsageError(f"{self.path / run_id}: is not a finished run of this job", hint="batchrun history JOB lists them")
        write_bytes(self.baseline_file, msgspec.json.encode({"run_id": run_id}) + b"\n")


def rows_of(summary: Mapping[str, Any], *, exit_code: int, finished: datetime, environ: Mapping[str, str]) -> Rows:
    """Return one run's rows for the history, one a model, from its summary."""
    gates = summary.get("gates") or []
    common = {
        "run_id": summary["run_id"],
        "started_at": datetime.fromisoformat(summary["started_at"]),
        "finished_at": finished.astimezone(UTC),
        "exit_code": exit_code,
        "stopped": summary.get("stopped"),
        "gates_passed": all(gate["passed"] for gate in gates) if gates else None,
        "gates": msgspec.json.encode(gates).decode() if gates else None,
        "simulated": bool(summary.get("simulated")),
        "dataset": summary.get("dataset"),
        "dataset_digest": summary.get("dataset_digest"),
        "profile": summary.get("profile"),
        "wall_s": summary.get("wall_s"),
        "batchrun_version": __version__,
        "git_commit": commit_of(environ),
        "folder": str(Path(summary["folder"]).absolute()),
    }
    return [{**common, **_figures(model)} for model in summary["models"]]


def failed_rows(job: Job, run_id: str, reason: str, *, exit_code: int, moment: datetime, simulated: bool) -> Rows:
    """Return the rows of a run that failed before its first call."""
    common = {"run_id": run_id, "started_at": moment, "finished_at": moment, "exit_code": exit_code, "stopped": reason}
    common |= {
        "simulated": simulated,
        "dataset": public_location(job.dataset),
        "batchrun_version": __version__,
        "rows": 0,
        "errored": 0,
    }
    return [{**common, "model": model} for model in job.request.model]


def _figures(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of one model."""
    rows, accuracy, cost, tokens = model["rows"], model["accuracy"], model["cost"], model["tokens"]
    return {
        "model": model["model"],
        "rows": rows["landed"],
        "errored": rows["landed"] - rows["succeeded"],
        "scored": rows["scored"],
        "accuracy": accuracy["value"],
        "accuracy_low": accuracy["low"],
        "accuracy_high": accuracy["high"],
        "confidence": accuracy["confidence"],
        "outcomes": msgspec.json.encode(model["outcomes"]).decode(),
        "cost_usd": _amount(cost["total_usd"]),
        "wasted_usd": _amount(cost["wasted_usd"]),
        "unpriced": cost["unpriced"],
        "input_tokens": tokens["input"],
        "output_tokens": tokens["output"],
        "cache_read_tokens": tokens["cache_read"],
        "ttft_p50_ms": model["ttft_ms"]["p50"],
        "ttft_p95_ms": model["ttft_ms"]["p95"],
        "latency_p50_ms": model["latency_ms"]["p50"],
        "latency_p95_ms": model["latency_ms"]["p95"],
        "latency_p99_ms": model["latency_ms"]["p99"],
        "attempts": model["attempts"],
    }


def _units(value: Any) -> Any:
    """Return money in billionths and a moment in microseconds since the epoch, as columns are made of them."""
    if isinstance(value, Decimal):
        return nanos(value)
    return (value - _EPOCH) // timedelta(microseconds=1) if isinstance(value, datetime) else value


def _amount(text: object) -> Decimal | None:
    """Return an amount at the nine places of the column."""
    return None if text is None else Decimal(str(text)).quantize(Decimal("1e-9"))


def commit_of(environ: Mapping[str, str]) -> str | None:
    """Return the commit that a CI system says is being run; nobody asks git."""
    return next((environ[name][:64] for name in _COMMIT_VARIABLES if environ.get(name)), None)


def runs(rows: Rows) -> dict[str, Rows]:
    """Return the rows of each run, in the order of the rows."""
    grouped: dict[str, Rows] = {}
    for row in rows:
        grouped.setdefault(str(row["run_id"]), []).append(row)
    return grouped
