"""What a run's figures count, and what they leave open."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from batchrun.records import Row
from tests.report.conftest import make_row, make_summary, right_row


def model_of(*rows: Row) -> dict[str, Any]:
    """The figures of the one model of these rows."""
    (model,) = make_summary(rows)["models"]
    return dict(model)


def test_a_tag_that_a_row_has_twice_counts_once() -> None:
    rows = [make_row(0, tags=("a", "a")), right_row(1, tags=("a",)), right_row(2, tags=("a",))]
    (tag,) = model_of(*rows)["tags"]
    assert (tag["tag"], tag["n"], tag["value"]) == ("a", 3, pytest.approx(2 / 3))


def errored(index: int, wasted: str) -> Row:
    """A row without an answer."""
    told = {"outcome": "infra_error", "correct": None, "score": None, "tool_calls": (), "cost_usd": None}
    return make_row(index, status="errored", wasted_usd=Decimal(wasted), **told)


@pytest.mark.parametrize(
    ("rows", "usd", "total"),
    [
        ([right_row(0, cost_usd=None)], None, None),
        ([right_row(0, cost_usd=None), errored(1, "0")], None, None),
        ([right_row(0, cost_usd=None), errored(1, "0.5")], None, "0.5"),
        ([right_row(0, cost_usd=None), right_row(1, cost_usd=Decimal("0.25"))], "0.25", "0.25"),
        ([errored(0, "0")], "0", "0"),
    ],
)
def test_what_answers_cost_is_unknown_while_none_of_them_has_a_price(rows: list[Row], usd: str | None, total: str | None) -> None:
    cost = model_of(*rows)["cost"]
    told = [None if amount is None else Decimal(amount) for amount in (cost["usd"], cost["total_usd"])]
    assert told == [None if amount is None else Decimal(amount) for amount in (usd, total)]
