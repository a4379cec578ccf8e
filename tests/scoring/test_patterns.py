from __future__ import annotations

import time

import pytest

from batchrun.scoring.patterns import WrongPattern, compile_pattern


@pytest.mark.parametrize(
    ("pattern", "text", "right"),
    [
        ("(?i)paris", "PARIS", True),
        ("\\d{4}", "2024", True),
        ("\\d{4}", "٢٠٢٤", False),
        ("\\p{L}+", "é", True),
        ("(?=a)\\w+", "abc", True),
        ("(a)\\1", "aa", True),
        ("a.c", "a\nc", False),
        ("", "", True),
        ("", "a", False),
        ("^a$", "a", True),
        ("(?x) a b  # both", "ab", True),
        ("(?x) a b  # both", "abc", False),
        ("(?x) a b  # both", "ab\n", False),
        ("(?x) a (?-x) #", "a #", True),
    ],
)
def test_the_whole_string_is_held_against_an_ecma_pattern(pattern: str, text: str, right: bool) -> None:  # noqa: FBT001 - a table's column
    assert compile_pattern(pattern).matches(text) is right


@pytest.mark.parametrize("pattern", ["(", "a)(b", "[", "a" * 20_000, "(?P<", "*", "((a{0,30}){0,30}){0,30}"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(WrongPattern):
        compile_pattern(pattern)


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|aa)+b", "(a|a)*\\1b", "(?=(a+)+b)a*"])
def test_no_pattern_takes_long(pattern: str) -> None:
    """The bound is one of work: patterns that backtrack for years end at once."""
    began = time.process_time()
    compile_pattern(pattern).matches("a" * 5_000 + "!")
    assert time.process_time() - began < 10
