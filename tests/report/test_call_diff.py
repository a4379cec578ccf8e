"""Both sides of a row's calls."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batchrun.report.call_diff import Text, compare_calls, cut, where_different
from tests.report.conftest import EXPECTED, call


def test_a_wrong_argument_is_marked_where_it_differs() -> None:
    diff = compare_calls(EXPECTED, [call('{"city": "Osaka"}')], right=False)
    (pair,) = diff.pairs
    assert (pair.expected, pair.given, pair.mark) == ("get_weather", "get_weather", "different")
    city, unit = pair.lines
    assert city.mark == "different"
    assert city.expected == Text('"Os', "lo", '"')
    assert city.given == Text('"Os', "aka", '"')
    assert (unit.name, unit.given, unit.mark) == ("unit", None, "same")


def test_what_the_scorer_takes_as_equal_is_no_difference() -> None:
    expected = '[{"name": "f", "arguments": {"on": {"$date": "2025-03-05"}, "n": 5, "t": "Ada Lovelace"}}]'
    diff = compare_calls(expected, [call('{"on": "2025-03-05", "n": 5.0, "t": "Ada  Lovelace "}', "f")], right=False)
    assert [line.mark for line in diff.pairs[0].lines] == ["same"] * 3


def test_missing_and_surplus_arguments_are_told_apart() -> None:
    diff = compare_calls('[{"name": "f", "arguments": {"a": 1}}]', [call('{"b": 2}', "f")], right=False)
    assert [(line.name, line.mark) for line in diff.pairs[0].lines] == [("a", "missing"), ("b", "extra")]


def test_calls_are_matched_by_tool_and_closeness_in_any_order() -> None:
    expected = '[{"name": "f", "arguments": {"a": 1, "b": 1}}, {"name": "f", "arguments": {"a": 2, "b": 2}}]'
    diff = compare_calls(expected, [call('{"a": 2, "b": 3}', "f"), call('{"a": 1, "b": 1}', "f")], right=False)
    assert [pair.mark for pair in diff.pairs] == ["same", "different"]
    assert [line.mark for line in diff.pairs[1].lines] == ["same", "different"]


def test_missing_and_extra_calls_stand_alone() -> None:
    missing = compare_calls(EXPECTED, [], right=False).pairs
    assert [(pair.expected, pair.given, pair.mark) for pair in missing] == [("get_weather", None, "missing")]
    extra = compare_calls(EXPECTED, [call('{"city": "Oslo"}'), call("{}", "other")], right=False).pairs
    assert [(pair.expected, pair.given, pair.mark) for pair in extra] == [
        ("get_weather", "get_weather", "same"),
        (None, "other", "extra"),
    ]


def test_another_tool_shares_a_line_with_the_expected_one() -> None:
    (pair,) = compare_calls(EXPECTED, [call('{"city": "Oslo"}', "get_forecast")], right=False).pairs
    assert (pair.expected, pair.given, pair.mark) == ("get_weather", "get_forecast", "different")


def test_arguments_that_are_no_json_are_shown_as_they_came() -> None:
    (pair,) = compare_calls(EXPECTED, [call(None, raw='{"city": ', error="invalid_json")], right=False).pairs
    assert (pair.raw, pair.error, pair.mark) == ('{"city": ', "invalid_json", "different")


def test_where_no_call_is_right_a_call_is_extra() -> None:
    diff = compare_calls("[]", [call("{}")], right=False)
    assert diff.wanted == "no call"
    assert [pair.mark for pair in diff.pairs] == ["extra"]
    assert compare_calls('{"any_call": true}', [call("{}")], right=True).wanted == "any call"


def test_the_closest_of_several_answers_is_shown() -> None:
    expected = '{"any_of": [[], [{"name": "f", "arguments": {"a": 1}}], [{"name": "g", "arguments": {"a": 2}}]]}'
    diff = compare_calls(expected, [call('{"a": 3}', "g")], right=False)
    assert diff.pairs[0].expected == "g"
    assert diff.note == "the closest of 3 accepted answers"


def test_what_the_scorer_reads_is_shown_however_deep() -> None:
    deep = '{"a": ' + "[" * 100 + "]" * 100 + "}"
    pair = compare_calls('[{"name": "f", "arguments": {"a": {"$any": true}}}]', [call(deep, "f")], right=True).pairs[0]
    assert (pair.raw, pair.error, pair.mark) == (None, None, "same")


def test_lines_without_a_mark_stand_together_and_in_order() -> None:
    expected = '[{"name": "f", "arguments": {"a": 1, "b": 2, "c": 3, "d": 4}}]'
    pair = compare_calls(expected, [call('{"a": 1, "b": 2, "c": 4, "d": 4, "e": 5}')], right=False).pairs[0]
    runs = [(plain, lines if plain else [line.name for line in lines]) for plain, lines in pair.runs]
    assert runs == [(True, [("a", "1", "1"), ("b", "2", "2")]), (False, ["c"]), (True, [("d", "4", "4")]), (False, ["e"])]


def test_a_right_row_has_no_marks() -> None:
    diff = compare_calls(EXPECTED, [call('{"city": "Oslo", "days": 3}'), call("{}", "g")], right=True)
    assert {pair.mark for pair in diff.pairs} == {"same"}
    assert {line.mark for pair in diff.pairs for line in pair.lines} == {"same"}


def test_an_unscored_row_and_a_broken_expected_say_so() -> None:
    assert compare_calls(None, []).wanted == "nothing: the row is not scored"
    broken = compare_calls('[{"name": 1}]', [call("{}")], right=None)
    assert broken.wanted == '[{"name": 1}]'
    assert "cannot be used" in (broken.note or "")


@given(st.text(max_size=40), st.text(max_size=40))
def test_the_parts_of_two_texts_are_the_texts(one: str, other: str) -> None:
    parts = where_different(one, other)
    assert ["".join(part) for part in parts] == [one, other]
    assert parts[0].before == parts[1].before
    assert parts[0].after == parts[1].after
    assert (parts[0].changed == parts[1].changed == "") == (one == other)


@given(
    st.one_of(st.none(), st.text(max_size=30), st.sampled_from([EXPECTED, "[]", "{}", '{"any_of": []}'])),
    st.lists(
        st.builds(
            call,
            st.one_of(st.none(), st.text(max_size=20), st.just('{"city": [1e999]}')),
            st.text(max_size=5),
            st.text(max_size=9),
        ),
        max_size=4,
    ),
)
def test_no_expected_and_no_call_makes_it_fail(expected: str | None, calls: list[object]) -> None:
    found = compare_calls(expected, calls)  # type: ignore[arg-type]  # hypothesis builds ToolUse
    assert len(found.pairs) >= len(calls), "every call that was made is shown"


def test_cut_says_how_much_is_left_out() -> None:
    assert cut("abc", 3) == "abc"
    assert cut("a" * 1234, 10) == "aaaaaaaaaa… (1,224 characters more)"
