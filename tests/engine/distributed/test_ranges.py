"""Ranges cover the rows once, whoever takes them, and come back from the dead."""

from hypothesis import given
from hypothesis import strategies as st

from batchrun.engine.distributed.messages import Rows
from batchrun.engine.distributed.ranges import LARGEST, UNCOUNTED, Ranges


def taken(ranges: Ranges, worker: str = "w") -> list[Rows]:
    found = []
    while not (rows := ranges.take(worker)).empty:
        found.append(rows)
    return found


@given(st.integers(0, 200_000), st.integers(1, 16), st.integers(1, 512))
def test_ranges_cut_the_rows_without_a_gap_or_an_overlap(rows: int, workers: int, concurrency: int) -> None:
    found = taken(Ranges([(0, rows)] if rows else [], workers=workers, concurrency=concurrency))
    places = [(one.start, one.stop) for one in found]
    assert [start for start, _ in places] == [0, *(stop for _, stop in places)][: len(places)]
    assert (places[-1][1] if places else 0) == rows
    assert all(stop is not None and stop - start <= LARGEST for start, stop in places)


def test_holes_are_left_out() -> None:
    """A resumed run hands out no row that has landed."""
    found = taken(Ranges([(10, 20), (5_000, 5_004)], workers=1, concurrency=64))
    assert [(one.start, one.stop) for one in found] == [(10, 20), (5_000, 5_004)]


def test_large_ranges_first_small_ones_last() -> None:
    sizes = [one.stop - one.start for one in taken(Ranges([(0, 40_000)], workers=4, concurrency=64)) if one.stop]
    assert sizes[0] == 5_000
    assert sizes[:-1] == sorted(sizes[:-1], reverse=True)
    assert sizes[-2] == 32
    assert len(sizes) < 80


def test_the_rows_of_the_dead_are_handed_out_again() -> None:
    ranges = Ranges([(0, 8)], workers=2, concurrency=4)
    first, second = ranges.take("a"), ranges.take("b")
    while not ranges.take("b").empty:
        pass
    ranges.landed("b")
    assert not ranges.finished
    ranges.lost("a", b"some")
    assert ranges.take("c") == Rows(start=first.start, stop=first.stop, landed=b"some")
    assert second.start == first.stop
    ranges.landed("c")
    assert ranges.finished


def test_a_dataset_of_unknown_length_ends_where_a_reader_says() -> None:
    ranges = Ranges([(0, None)], workers=2, concurrency=4)
    assert ranges.take("a") == Rows(start=0, stop=UNCOUNTED)
    ranges.end(700)
    assert ranges.take("a").empty
    ranges.landed("a")
    assert ranges.finished
