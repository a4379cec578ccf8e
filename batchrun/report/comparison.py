"""Two finished runs → the comparison of their verdicts, row by row.

Reads only the columns a comparison needs. Runs of one model each are held against each other whatever the
models are called; runs of several models are joined by model. Runs over different datasets are refused unless
told otherwise: a difference of the rows is not a difference of the models.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from batchrun.errors import StorageError, UsageError
from batchrun.statistics.compare import Answer, Comparison, Key, compare

COLUMNS = ("id", "model", "repeat", "correct", "cluster", "tags", "cost_usd", "latency_ms", "status")
_SUMMARY: Final[dict[str, type]] = {"job": str, "run_id": str, "rows": dict, "models": list, "cost": dict, "errors": list}
"""What every reader of a summary takes for granted."""


def compare_runs(before: Mapping[str, Any], after: Mapping[str, Any], *, alpha: float, any_dataset: bool = False) -> Comparison:
    """Compare two runs given as `{"folder": …, "dataset": digest}` (a summary has both).

    Raises `UsageError` where the datasets differ and `any_dataset` is false, or where no row is shared.
    """
    if before.get("dataset_digest") != after.get("dataset_digest") and not any_dataset:
        raise UsageError(
            "the two runs are over different datasets",
            hint="--any-dataset compares the rows whose ids both have",
        )
    left, right = read_answers(Path(before["folder"])), read_answers(Path(after["folder"]))
    if len({model for model, _, _ in left}) == 1 and len({model for model, _, _ in right}) == 1:
        left, right = _unnamed(left), _unnamed(right)
    comparison = compare(left, right, alpha=alpha)
    if not comparison.shared:
        raise UsageError(
            "the two runs share no row", hint="rows are joined by id and repeat (and model, where there are several)"
        )
    return comparison


def read_summary(folder: Path) -> dict[str, Any]:
    """Return a run's `summary.json`, its folder being where it is now. Raises `UsageError` where there is none."""
    path = folder / "summary.json"
    try:
        summary = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"{folder}: is not the folder of a finished run: there is no {path.name}") from None
    except (OSError, msgspec.DecodeError) as error:
        raise StorageError(f"{path}: cannot be read: {error}") from None
    if not isinstance(summary, dict) or any(not isinstance(summary.get(name), kind) for name, kind in _SUMMARY.items()):
        raise UsageError(f"{folder}: is not the folder of a finished run: its {path.name} is no summary of one")
    return {**summary, "folder": str(folder)}


def read_answers(folder: Path) -> dict[Key, Answer]:
    """Return what a comparison needs of a run's `results.parquet`, by (model, id, repeat)."""
    import polars as pl  # noqa: PLC0415 -- 365 ms that no other command need pay

    path = folder / "results.parquet"
    try:
        frame = pl.read_parquet(path, columns=list(COLUMNS))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise StorageError(f"{path}: cannot be read: {error}", hint="batchrun resume finishes a run that stopped") from None
    return {
        (row["model"], row["id"], row["repeat"]): Answer(
            correct=row["correct"],
            cluster=row["cluster"],
            tags=tuple(row["tags"] or ()),
            cost_usd=None if row["cost_usd"] is None else float(row["cost_usd"]),
            latency_ms=row["latency_ms"] if row["status"] == "succeeded" else None,  # how fast an error came is no answer's
        )
        for row in frame.iter_rows(named=True)
    }


def _unnamed(answers: Mapping[Key, Answer]) -> dict[Key, Answer]:
    return {("", name, repeat): answer for (_, name, repeat), answer in answers.items()}
