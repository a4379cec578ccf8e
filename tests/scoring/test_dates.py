from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.scoring.dates import parse, same, wrong_format


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2026-03-04", date(2026, 3, 4)),
        ("20260304", date(2026, 3, 4)),
        ("2026-W10-3", date(2026, 3, 4)),
        (" 2026-03-04T05:06:07Z ", datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)),
        ("2026-03-04 05:06", datetime(2026, 3, 4, 5, 6)),  # noqa: DTZ001 - a wall clock's time is a case of its own
        ("2026-13-04", None),
        ("tomorrow", None),
        ("", None),
        ("2026-03-04" + " " * 50 + "x" * 100, None),
    ],
)
def test_iso_8601_is_read(text: str, value: date | None) -> None:
    assert parse(text) == value
    assert type(parse(text)) is type(value)


def test_formats_add_notations() -> None:
    assert parse("4 March 2026", ["%Y/%m/%d", "%d %B %Y"]) == date(2026, 3, 4)
    assert parse("04.03.2026 05:06", ["%d.%m.%Y %H:%M"]) == datetime(2026, 3, 4, 5, 6)  # noqa: DTZ001 - a wall clock's
    assert parse("2026-03-04", ["%d %B %Y"]) == date(2026, 3, 4)
    assert parse("4 Smarch 2026", ["%d %B %Y"]) is None
    assert parse("0000-W10-1", ["%G-W%V-%u"]) is None


@pytest.mark.parametrize(
    ("expected", "given", "right"),
    [
        ("2026-03-04", "2026-03-04T23:00:00-05:00", True),  # the day as it is written
        ("2026-03-04", "2026-03-05", False),
        ("2026-03-04T10:00", "2026-03-04T10:00:00", True),
        ("2026-03-04T10:00Z", "2026-03-04T11:00+01:00", True),
        ("2026-03-04T10:00Z", "2026-03-04T10:00", False),  # which zone is not told
        ("2026-03-04T10:00", "2026-03-04T10:00Z", False),
        ("2026-03-04T00:00", "2026-03-04", False),
    ],
)
def test_a_day_covers_its_times_and_an_instant_knows_its_zone(expected: str, given: str, right: bool) -> None:  # noqa: FBT001 - a table's column
    left, other = parse(expected), parse(given)
    assert left is not None
    assert other is not None
    assert same(left, other) is right


@pytest.mark.parametrize(
    ("style", "wrong"), [("%Y-%m-%d", False), ("%d %B", True), ("%Y %Q", True), ("%Y %Y", True), ("%Y %", True)]
)
def test_a_format_that_cannot_tell_a_day_is_found(style: str, wrong: bool) -> None:  # noqa: FBT001 - a table's column
    assert (wrong_format(style) is not None) is wrong


@given(st.text(), st.lists(st.text().map("%Y".__add__), max_size=2))
def test_reading_is_total(text: str, styles: list[str]) -> None:
    found = parse(text, [style for style in styles if wrong_format(style) is None])
    assert found is None or isinstance(found, date)
