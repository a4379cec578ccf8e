"""What a comparison reads of a run's results."""

from pathlib import Path

import polars as pl

from batchrun.report.comparison import read_answers


def test_how_fast_an_error_came_is_no_answers_latency(tmp_path: Path) -> None:
    """Else an outage makes a model look faster."""
    rows = {
        "id": ["a", "b"],
        "model": "m",
        "repeat": 0,
        "correct": [True, None],
        "cluster": pl.Series([None, None], dtype=pl.String),
        "tags": pl.Series([[], []], dtype=pl.List(pl.String)),
        "cost_usd": pl.Series([None, None], dtype=pl.Decimal(18, 9)),
        "latency_ms": [300.0, 0.03],
        "status": ["succeeded", "errored"],
    }
    pl.DataFrame(rows).write_parquet(tmp_path / "results.parquet")
    assert [answer.latency_ms for answer in read_answers(tmp_path).values()] == [300.0, None]
