"""Reasons of bad rows: what goes in comes out, whatever the order, and in a few bytes a row."""

from hypothesis import given
from hypothesis import strategies as st

from batchrun.sources.bad_rows import STRETCH, BadRows

ROWS = st.integers(0, 3 * STRETCH)


@given(st.lists(st.tuples(ROWS, st.text(max_size=5))))
def test_it_is_a_mapping_in_which_the_first_reason_stays(added: list[tuple[int, str]]) -> None:
    bad, known = BadRows(), dict[int, str]()
    for row, reason in added:
        bad.add(row, reason)
        known.setdefault(row, reason)
    assert (dict(bad), list(bad), len(bad)) == (known, sorted(known), len(known))
    assert all(bad.get(row) == known.get(row) for row in (*known, 0, 3 * STRETCH + 1))
    assert dict(BadRows(bad.blocks)) == known
    assert len(BadRows(bad.blocks)) == len(known)


def test_a_bad_row_costs_a_few_bytes() -> None:
    """Each reason names its row, its line and another row: 100 characters, of which 15 bytes are kept."""
    bad, rows = BadRows(), 4 * STRETCH
    for row in range(rows):
        bad.add(row, f"rows.jsonl, row {row} (line {row + 1}), field `id`: 'r{row // 2}' is the id of row {row * 7 % rows} too")
    assert sum(map(len, bad.blocks.values())) < 20 * rows
