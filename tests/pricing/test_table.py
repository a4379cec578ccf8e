"""The money of a run by model, tag, tool, kind and day, and the few numbers a report opens with."""

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from msgspec import structs

from batchrun.job import PriceOverride, Prices
from batchrun.pricing import PriceBook, open_book
from batchrun.pricing.rates import us_of
from batchrun.pricing.reprice import usage_of
from batchrun.pricing.table import CostTable, combined
from batchrun.records import Cost, Row, ToolUse, Usage
from batchrun.storage.tables import cost_table

NO_VALUE: dict[str, Any] = dict.fromkeys(Row.__struct_fields__)
PRICES = Prices(
    models=(
        PriceOverride(model="m", input=Decimal(1000), output=Decimal(5000), web_search=Decimal(10)),
        PriceOverride(model="n", input=Decimal(2000), output=Decimal(2000)),
    )
)


def a_row(**values: Any) -> Row:
    """A line of `results.parquet` with these values."""
    usual = {
        "id": "r",
        "index": 0,
        "model": "m",
        "repeat": 0,
        "status": "succeeded",
        "outcome": "correct",
        "attempts": 1,
        "tags": (),
    }
    tools = tuple(ToolUse(id=None, name=name, input="{}") for name in values.pop("tools", ()))
    return Row(**NO_VALUE | usual | {"tool_calls": tools, "started_at": us_of("2025-07-01")} | values)


def fill(table: CostTable, book: PriceBook, *rows: tuple[Row, Decimal | None], batch: bool = False) -> CostTable:
    """Add rows, each with what was wasted on it, priced by the book."""
    for row, wasted in rows:
        cost = (
            book.cost(usage_of(row), row.model, row.started_at or 0, batch=batch)
            if row.input_tokens is not None
            else Cost(usd=None)
        )
        table.add(row, Cost(usd=cost.usd, wasted_usd=wasted, parts=cost.parts))
    return table


def test_a_run_worked_out_by_hand() -> None:
    """Prices of a tenth of a cent in and half a cent out a token make every amount plain."""
    book = open_book(PRICES)
    table = fill(
        CostTable(book),
        book,
        (
            a_row(
                id="a",
                correct=True,
                input_tokens=10,
                output_tokens=2,
                cache_read_tokens=100,
                tags=("x", "y", "x"),
                tools=("t", "t"),
            ),
            None,
        ),
        (
            a_row(id="b", correct=False, input_tokens=20, output_tokens=0, attempts=3, started_at=us_of("2025-07-02")),
            Decimal("0.5"),
        ),
        (a_row(id="c", model="n", correct=True, input_tokens=1, output_tokens=1, tags=("x",)), None),
        (a_row(id="d", model="mystery", correct=True), None),
        (a_row(id="e", status="errored", attempts=8), Decimal("0.25")),
        (a_row(id="f", status="errored", attempts=1, started_at=None), None),
    )
    got = table.summary()
    assert (got.rows, got.priced_rows, got.attempts, got.unpriced) == (6, 3, 15, {"mystery": 1})
    assert got.answers == Decimal("0.054")  # 0.010 + 0.010 + 0.010; 0.020; 0.002 + 0.002
    assert got.wasted == Decimal("0.75")
    assert got.total == Decimal("0.804")
    assert (got.per_row, got.per_correct, got.per_1000_calls) == (None, None, None)  # one answer has no price
    assert (got.correct, got.waste_unknown) == (3, 4)
    assert {kind: (part.tokens, part.cost) for kind, part in got.by_kind.items()} == {
        "input": (31, Decimal("0.032")),
        "output": (3, Decimal("0.012")),
        "cache_read": (100, Decimal("0.01")),
        "wasted": (None, Decimal("0.75")),
    }
    assert got.without_cache == Decimal("0.144")
    assert got.cache_saved == Decimal("0.09")
    assert got.as_batch == Decimal("0.027")
    assert [(row.id, row.cost) for row in got.dearest] == [
        ("b", Decimal("0.52")),
        ("e", Decimal("0.25")),
        ("a", Decimal("0.03")),
        ("c", Decimal("0.004")),
    ]


def test_the_lines_of_total_and_of_day_sum_to_the_total_and_a_tag_has_its_rows_whole_cost() -> None:
    book = open_book(PRICES)
    table = fill(
        CostTable(book),
        book,
        (a_row(id="a", input_tokens=10, output_tokens=2, tags=("x", "y"), tools=("t", "u")), Decimal("0.1")),
        (a_row(id="b", input_tokens=20, output_tokens=1, tags=("x",), tools=("t",), started_at=us_of("2025-07-02")), None),
    )
    lines = table.lines()
    total = table.summary().total
    for dimension in ("total", "day"):
        assert sum(line.cost or 0 for line in lines if line.dimension == dimension) == total
    by = {(line.dimension, line.value, line.kind): (line.rows, line.tokens, line.cost) for line in lines}
    assert by["tag", "x", "input"] == (2, 30, Decimal("0.03"))
    assert by["tag", "y", "wasted"] == (1, None, Decimal("0.1"))
    assert by["tool", "t", "output"] == (2, 3, Decimal("0.015"))
    assert by["tool", "u", "output"] == (1, 2, Decimal("0.01"))
    assert by["day", "2025-07-02", "input"] == (1, 20, Decimal("0.02"))
    assert lines == sorted(lines, key=lambda line: (line.dimension, line.value, line.model))


def test_a_model_without_a_price_has_a_line_that_counts_its_answers() -> None:
    book = open_book(PRICES)
    table = fill(CostTable(book), book, (a_row(model="mystery", input_tokens=1, output_tokens=1), None))
    (line,) = [line for line in table.lines() if line.dimension == "total"]
    assert (line.kind, line.rows, line.tokens, line.cost, line.unpriced_rows) == ("none", 0, None, None, 1)
    got = table.summary()
    assert (got.total, got.answers, got.per_row, got.without_cache, got.cache_saved, got.as_batch) == (None,) * 6
    assert book.unpriced == {"mystery": 1}


def test_an_empty_run_has_no_cost_and_not_0() -> None:
    got = CostTable(open_book(PRICES)).summary()
    assert (got.rows, got.total, got.per_row, got.per_correct, got.per_1000_calls, got.dearest) == (0, None, None, None, None, ())


def test_waste_alone_is_a_total() -> None:
    book = open_book(PRICES)
    got = fill(CostTable(book), book, (a_row(status="errored"), Decimal("0.25"))).summary()
    assert (got.total, got.answers, got.per_row, got.per_correct) == (Decimal("0.25"), None, Decimal("0.25"), None)


def test_searches_are_money_without_tokens_and_keep_their_price_in_a_batch() -> None:
    book = open_book(PRICES)
    usage = Usage(input_tokens=10, output_tokens=0, server_tool_use={"web_search_requests": 2})
    table = CostTable(book)
    table.add(a_row(input_tokens=10, output_tokens=0), book.cost(usage, "m", us_of("2025-07-01")))
    got = table.summary()
    assert (got.by_kind["web_search"].tokens, got.by_kind["web_search"].cost) == (None, Decimal("0.02"))
    assert got.as_batch == Decimal("0.025")


def test_searches_cost_the_same_without_caching() -> None:
    book = open_book(PRICES)
    usage = Usage(input_tokens=0, output_tokens=0, cache_read_tokens=100, server_tool_use={"web_search_requests": 1})
    table = CostTable(book)
    table.add(a_row(input_tokens=0, output_tokens=0, cache_read_tokens=100), book.cost(usage, "m", us_of("2025-07-01")))
    got = table.summary()
    assert (got.answers, got.without_cache, got.cache_saved) == (Decimal("0.02"), Decimal("0.11"), Decimal("0.09"))


def test_a_run_through_the_batches_endpoint_is_its_own_batch_cost() -> None:
    book = open_book(PRICES)
    row = a_row(input_tokens=10, output_tokens=0, cache_write_5m_tokens=100)
    got = fill(CostTable(book, batch=True), book, (row, None), batch=True).summary()
    assert got.answers == got.as_batch == Decimal("0.0675")
    assert got.without_cache == Decimal("0.055")
    assert got.cache_saved == Decimal("-0.0125")


def test_without_a_price_for_it_the_cost_without_caching_is_unknown() -> None:
    """The row was priced elsewhere; this book does not know its model."""
    table = CostTable(open_book(PRICES))
    for row_id in "ab":
        row = a_row(id=row_id, model="mystery", input_tokens=1, output_tokens=1, cache_read_tokens=5)
        table.add(row, Cost(usd=Decimal(1), parts={"input": Decimal(1)}))
    assert table.summary().without_cache is None
    assert table.summary().cache_saved is None


@pytest.mark.parametrize(("keep", "expected"), [(0, []), (2, ["r4", "r3"]), (20, ["r4", "r3", "r2", "r1", "r0"])])
def test_only_the_dearest_rows_are_kept(keep: int, expected: list[str]) -> None:
    book = open_book(PRICES)
    rows = [(a_row(id=f"r{place}", input_tokens=place + 1, output_tokens=0), None) for place in (1, 4, 0, 3, 2)]
    assert [row.id for row in fill(CostTable(book, dearest=keep), book, *rows).summary().dearest] == expected


def test_invented_tool_names_do_not_grow_the_table_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchrun.pricing.table.MAX_PLACES", 3)
    book = open_book(PRICES)
    rows = [(a_row(id=str(place), input_tokens=1, output_tokens=0, tools=(f"t{place}",)), None) for place in (0, 1, 2, 3, 4, 0)]
    tools = {line.value: line.rows for line in fill(CostTable(book), book, *rows).lines() if line.dimension == "tool"}
    assert tools == {"t0": 2, "t1": 1, "t2": 1, "(other)": 2}


def test_the_arrow_table_has_the_documented_columns_and_exact_money() -> None:
    book = open_book(PRICES)
    table = fill(CostTable(book), book, (a_row(input_tokens=10, output_tokens=2), Decimal("0.000000001")))
    arrow = cost_table(table.lines())
    assert arrow.schema.field("cost").type == pa.decimal128(38, 9)
    assert arrow.column_names == ["dimension", "value", "model", "kind", "rows", "tokens", "cost", "unpriced_rows", "currency"]
    assert arrow.to_pylist()[-1]["cost"] == Decimal("0.000000001")
    assert cost_table([]).num_rows == 0


def test_the_cost_of_several_runs_is_that_of_one_with_all_their_rows() -> None:
    """Totals, ratios and kinds; what only one run knows is still counted, and currencies are not mixed."""
    book = open_book(PRICES)
    first = (a_row(id="a", correct=True, input_tokens=10, output_tokens=2, attempts=2), Decimal("0.5"))
    second = (a_row(id="b", correct=False, input_tokens=20, output_tokens=4), Decimal(0))
    whole = fill(CostTable(book), book, first, second).summary()
    parts = [fill(CostTable(book), book, row).summary() for row in (first, second)]
    assert combined(parts) == whole
    assert whole.total is not None
    assert (whole.per_row, whole.per_correct, whole.waste_unknown) == (whole.total / 2, whole.total, 0)
    unknown = fill(CostTable(book), book, (a_row(model="mystery", input_tokens=1, output_tokens=1), None)).summary()
    mixed = combined([whole, unknown])
    assert (mixed.total, mixed.unpriced, mixed.per_row, mixed.waste_unknown) == (whole.total, {"mystery": 1}, None, 1)
    assert combined([unknown]).total is None
    with pytest.raises(ValueError, match="USD and in EUR"):
        combined([whole, structs.replace(whole, currency="EUR")])


def test_tables_of_parts_are_the_table_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the rows are cut: places beyond the bound are those that came last in all, not in a part."""
    monkeypatch.setattr("batchrun.pricing.table.MAX_PLACES", 3)
    book = open_book(PRICES)
    rows = [
        (
            a_row(
                id=f"r{n}",
                model="mystery" if n % 5 == 4 else "m",
                tags=(f"t{n % 6}", f"t{n % 4}"),
                started_at=n * 10**10,
                cache_read_tokens=n % 3,
                input_tokens=100 + n % 7,
                output_tokens=n,
            ),
            [None, Decimal("0.25"), Decimal(0)][n % 3],
        )
        for n in range(40)
    ]
    whole = fill(CostTable(book, dearest=5), book, *rows)
    for cuts in ([20], [1, 2, 39], [7, 14, 21], [0, 40]):
        merged = CostTable(book, dearest=5)
        for start, stop in zip([0, *cuts], [*cuts, 40], strict=True):
            merged.merge(fill(CostTable(book, dearest=5, most=100), book, *rows[start:stop]))
        assert merged.lines() == whole.lines()
        assert merged.summary() == whole.summary()
