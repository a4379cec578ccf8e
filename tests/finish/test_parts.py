"""A run finished in parts is the run finished at once, to the byte, wherever it was cut."""

from __future__ import annotations

import io
import itertools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from batchrun.errors import StorageError
from batchrun.finish.batch import BATCH_ROWS, Finisher
from batchrun.finish.part import MOST_ROWS, Order, Part, Range, cut, decode_order, encode_order
from batchrun.pricing.book import open_book
from batchrun.pricing.rates import dollars
from batchrun.scoring import open_scorer
from tests.finish.conftest import MODELS, REPEATS, ROWS, Run, a_job, in_this_process, others

CALLS = len(MODELS) * REPEATS


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_every_file_has_the_same_bytes(folder: Path, workers: int) -> None:
    """Failures, waste, repeats, several models, tags, clusters, what is bounded: one process or many."""
    run = Run(folder)
    whole, book = run.finish()
    parts, parts_book = run.finish(others(in_this_process, workers))
    assert parts == whole
    assert parts_book.snapshot() == book.snapshot()


@pytest.mark.parametrize("seed", range(3))
def test_where_it_is_cut_changes_no_figure_and_no_cell(folder: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Parts of any length, empty ones too; the batches of the Parquet file alone are others."""
    chance = random.Random(seed)
    run = Run(folder)
    whole, _ = run.finish()
    places = sorted(chance.randrange(ROWS) for _ in range(5))
    ends: list[int | None] = [*places, None]
    ranges = [Range(number, start, stop) for number, (start, stop) in enumerate(zip([0, *places], ends, strict=True))]
    monkeypatch.setattr("batchrun.finish.cut", lambda *_args, **_settings: ranges)
    parts, _ = run.finish(others(in_this_process, 1))
    table, same = (pq.read_table(io.BytesIO(files.pop("results.parquet"))) for files in (parts, whole))
    assert parts == whole
    assert table.equals(same)
    assert table.schema.equals(same.schema, check_metadata=True)


def test_what_a_run_that_may_stop_early_knew_is_put_together(folder: Path) -> None:
    """The draw goes over all rows, those behind the last that landed too."""
    run = Run(folder, ("scoring.stop_when", {"ci_half_width": 0.1}))
    whole, _ = run.finish()
    assert b'"stop_when"' in whole["summary.json"]
    assert run.finish(others(in_this_process, 3))[0] == whole


def test_rows_that_were_chosen_are_finished_in_parts_too(folder: Path) -> None:
    run = Run(folder, ("select.sample", 200))
    whole, _ = run.finish()
    assert run.finish(others(in_this_process, 2))[0] == whole


def test_what_is_given_back_is_finished_here(folder: Path) -> None:
    run = Run(folder)
    whole, book = run.finish()

    def unwilling(_order: Order, ranges: Sequence[Range]) -> Iterator[Part | None]:
        yield from (None for _ in ranges)

    parts, parts_book = run.finish(others(unwilling, 2))
    assert parts == whole
    assert parts_book.snapshot() == book.snapshot()


def test_a_damaged_record_is_an_error_that_leaves_nothing_behind(folder: Path) -> None:
    """The old results stay, the parts are gone."""
    run = Run(folder)
    before, _ = run.finish()
    segment = next(folder.glob("journal/*.journal"))
    content = bytearray(segment.read_bytes())
    content[-5] ^= 1
    segment.write_bytes(content)
    with pytest.raises(StorageError, match="is damaged"):
        run.finish(others(lambda _order, ranges: (None for _ in ranges), 2))
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert not (folder / ".finishing").exists()


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("rows", [1, 2, 1000, 1_000_003])
@pytest.mark.parametrize("direct", [True, False])
def test_ranges_hold_every_row_once(rows: int, workers: int, direct: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a case
    ranges = cut(a_job(tmp_path), rows * CALLS - 1, workers=workers, direct=direct)
    assert [one.number for one in ranges] == list(range(len(ranges)))
    assert ranges[0].start == 0
    assert ranges[-1].stop is None
    for one, following in itertools.pairwise(ranges):
        assert one.stop == following.start
        assert one.stop is not None
        assert 0 < one.stop - one.start <= MOST_ROWS
        assert (one.stop - one.start) % -(-BATCH_ROWS // CALLS) == 0
    assert ranges[-1].start < rows


def test_an_order_goes_there_and_shows_nothing_of_the_job(tmp_path: Path) -> None:
    job = a_job(tmp_path, ("endpoint.headers", {"x-team": "s3cret"}))
    order = Order(job=job, folder="run", scratch="run/.finishing", price_text=None, bad_rows={0: b"why"})
    assert decode_order(encode_order(order)) == order
    assert "s3cret" not in repr(order)


def test_a_row_is_what_its_columns_say(folder: Path) -> None:
    run = Run(folder)
    run.finish()
    first = pq.read_table(folder / "results.parquet").to_pylist()[0]
    with run.folder.open_index() as index:
        finisher = Finisher(run.job, index, open_scorer(run.job.scoring), open_book(run.job.prices))
        batch = next(finisher.batches(run.dataset.samples()))
    row = batch.row(0)
    assert (row.id, row.model, row.outcome, row.cost_usd) == (first["id"], first["model"], first["outcome"], first["cost_usd"])
    assert batch.columns["cost_usd"][0] is None or dollars(batch.columns["cost_usd"][0]) == row.cost_usd
