"""Python values as Arrow arrays, built from their buffers: what Arrow's own conversion makes of them."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.errors import StorageError
from batchrun.storage.arrays import array, decimals, rows, table

ENCODABLE = st.characters(codec="utf-8")
MONEY = pa.decimal128(38, 9)
texts = st.none() | st.text(ENCODABLE)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.string(), texts),
        (pa.int64(), st.none() | st.integers(-(2**63), 2**63 - 1)),
        (pa.int32(), st.none() | st.integers(-(2**31), 2**31 - 1)),
        (pa.float64(), st.none() | st.floats(allow_nan=False)),
        (pa.bool_(), st.none() | st.booleans()),
        (pa.timestamp("us", tz="UTC"), st.none() | st.integers(0, 2**60)),
        (
            pa.list_(pa.field("element", pa.string(), nullable=False)),
            st.lists(st.text(ENCODABLE)),
        ),
        (pa.list_(pa.string()), st.none() | st.lists(texts, max_size=3)),
    ],
    ids=str,
)
def test_it_is_what_arrow_makes_of_them(kind: Any, values: st.SearchStrategy[Any]) -> None:
    pa.array([], kind)  # which loads pandas: no part of what is timed

    @given(st.lists(values, max_size=40))
    def check(column: list[Any]) -> None:
        made = array(column, kind)
        made.validate(full=True)
        assert made.equals(pa.array(column, kind))

    check()


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_rows_come_back_as_arrow_gives_them(unit: Any) -> None:
    kind = pa.timestamp(unit, tz="UTC")
    moments = pa.array([0, None, -1, 1_760_000_000], kind)
    made = pa.table({"at": moments, "tags": [["a"], [], None, ["b", None]], "n": [1, None, 3, 4]})
    assert rows(made) == made.to_pylist()
    assert rows(made.slice(4)) == []


def test_lone_surrogates_become_replacement_characters() -> None:
    assert array(["a\ud800b", None, "ä"], pa.string()).to_pylist() == ["a\ufffdb", None, "ä"]


@given(st.lists(st.none() | st.integers(-(10**38) + 1, 10**38 - 1), max_size=10))
def test_amounts_of_any_size_are_exact(amounts: list[int | None]) -> None:
    made = decimals(amounts, MONEY)
    made.validate(full=True)
    meant = [None if amount is None else Decimal((amount < 0, tuple(map(int, str(abs(amount)))), -9)) for amount in amounts]
    assert made.to_pylist() == meant


def test_an_amount_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(StorageError, match="does not fit"):
        decimals([10**38], MONEY)


def test_a_table_has_its_columns_in_order() -> None:
    kinds: dict[str, pa.DataType] = {"name": pa.string(), "cost": MONEY}
    schema = pa.schema(kinds)
    made = table(schema, {"cost": [1, None], "name": ["a", "b"]})
    assert made.to_pylist() == [{"name": "a", "cost": Decimal("1E-9")}, {"name": "b", "cost": None}]


def test_pandas_is_not_loaded_for_it() -> None:
    """Arrow's own conversion loads it wherever it is installed."""
    script = textwrap.dedent("""
        import sys
        import pyarrow as pa
        from batchrun.storage.arrays import rows
        from batchrun.storage.results import SCHEMA, to_batches
        from batchrun.storage.tables import cost_table

        empty = {field.name: [() if pa.types.is_list(field.type) else None] * 2 for field in SCHEMA}
        assert [batch.num_rows for batch in to_batches(empty)] == [2]
        cost_table([])
        table = pa.Table.from_batches(to_batches(empty | {"started_at": [None, 1_760_000_000_123_456]}))
        assert rows(table)[1]["started_at"].isoformat() == "2025-10-09T08:53:20.123456+00:00"
        assert "pandas" not in sys.modules
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
