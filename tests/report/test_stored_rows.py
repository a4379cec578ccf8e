"""Rows from `results.parquet`: the same draw as at the end of the run, and one page of those that match."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchrun.errors import StorageError, UsageError
from batchrun.records import Row
from batchrun.report.page_rows import RowSample
from batchrun.report.stored_page import render_stored, with_questions
from batchrun.report.stored_rows import FAILING, Query, StoredRows
from tests.report.conftest import make_row, make_sample, write_run


def test_rows_come_back_as_they_were_written(tmp_path: Path, mixed_rows: list[Row]) -> None:
    write_run(tmp_path, mixed_rows)
    assert list(StoredRows(tmp_path / "results.parquet").every()) == mixed_rows


def test_the_draw_is_the_one_that_the_runs_end_made(tmp_path: Path) -> None:
    rows = [make_row(index) for index in range(2000)]
    write_run(tmp_path, rows)
    drawn = RowSample()
    for row in rows:
        drawn.add(row, make_sample(row))
    places, seen = StoredRows(tmp_path / "results.parquet").drawn()
    assert {place[0] for place in places} == {shown.row.index for shown in drawn.sampled().rows}
    assert seen == {"wrong_call": 2000}


def test_a_sorted_page_has_the_rows_in_that_order_and_unknown_last(tmp_path: Path) -> None:
    rows = [make_row(index, latency_ms=None if index == 3 else float(index * 7 % 10)) for index in range(10)]
    write_run(tmp_path, rows)
    stored = StoredRows(tmp_path / "results.parquet")
    found, matching = stored.page(Query(sort="-latency_ms"), 0, 10)
    assert matching == 10
    times = [row.latency_ms for row in found]
    assert times == [*sorted((time for time in times if time is not None), reverse=True), None]
    assert stored.page(Query(sort="-latency_ms"), 8, 10)[0] == found[8:]


@pytest.mark.parametrize("text", ["Straße", "STRAẞE", "İstanbul", "straße"])
def test_a_search_finds_what_was_copied_from_the_page(tmp_path: Path, text: str) -> None:
    write_run(tmp_path, [make_row(0, explanation="expected Straße in İstanbul, got x"), make_row(1)])
    found = StoredRows(tmp_path / "results.parquet").page(Query(text=text), 0, 9)[0]
    assert [row.index for row in found] == [0]


def test_conditions_hold_together(run_folder: Path) -> None:
    stored = StoredRows(run_folder / "results.parquet")
    rows, matching = stored.page(Query(outcome=FAILING, tag="one_call", text="osaka"), 0, 500)
    assert matching == len(rows) > 0
    assert all(row.outcome != "correct" for row in rows)
    assert stored.page(Query(tag="absent"), 0, 5) == ([], 0)


def test_repeats_and_models_of_one_row_are_told_apart(tmp_path: Path) -> None:
    rows = [make_row(5, repeat=repeat, model=model) for model in ("a", "b") for repeat in (0, 1)]
    write_run(tmp_path, rows)
    stored = StoredRows(tmp_path / "results.parquet")
    assert stored.rows([(5, "b", 1)]) == [rows[3]]
    assert stored.rows([]) == []
    assert stored.named(["row-5"]) == rows


def test_a_question_is_shown_only_for_the_row_that_was_asked_it() -> None:
    """A dataset whose rows have moved since costs the prompts; it never shows another row's."""
    rows = [make_row(3), make_row(5)]
    moved = [make_sample(make_row(3)), make_sample(make_row(5, id="other"))]
    shown = with_questions(rows, lambda start: (sample for sample in moved if sample.index >= start))
    assert [one.messages is not None for one in shown] == [True, False]
    assert [one.messages for one in with_questions(rows, None)] == [None, None]


def test_the_dataset_is_read_no_further_than_the_last_row_shown(tmp_path: Path) -> None:
    rows = [make_row(index) for index in range(5)]
    summary = write_run(tmp_path, rows)

    def samples(start: int) -> list[object]:
        assert start == 0

        def endless() -> object:
            index = 0
            while True:
                assert index <= 4
                yield make_sample(make_row(index))
                index += 1

        return endless()  # type: ignore[return-value]  # any iterable will do

    assert "(row-4)" in render_stored(tmp_path, summary, samples)  # type: ignore[arg-type]  # the same


def test_what_is_no_results_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there are no results yet"):
        StoredRows(tmp_path / "results.parquet")
    (tmp_path / "results.parquet").write_bytes(b"nonsense")
    with pytest.raises(StorageError, match="cannot be read"):
        StoredRows(tmp_path / "results.parquet")
