"""Flags that choose rows: what they choose is called, and nothing else."""

from __future__ import annotations

import pytest

from tests.cli.endpoint import Shell, endpoint

ROWS = 12


def _asked(shell: Shell, *flags: str) -> list[int]:
    """Return the numbers of the rows that a run with these flags calls, in the dataset's order."""
    rows = (
        {"prompt": f"number {number}", "city": "Paris" if number % 3 else "Oslo", "tags": ["far" if number % 6 == 5 else "near"]}
        for number in range(ROWS)
    )
    data = shell.write("rows.jsonl", *rows)
    with endpoint() as served:
        ended = shell(
            "run", data, "--model", "m", "--base-url", served.base_url, "--out", "-".join(flags).replace("/", "-of-"), *flags
        )
    assert ended.code == 0, ended.err
    return sorted(int(body["messages"][-1]["content"].removeprefix("number ")) for body in served.bodies)


@pytest.mark.parametrize(
    ("flags", "rows"),
    [
        (("--limit", "3"), [0, 1, 2]),
        (("--where", "city = 'Oslo'"), [0, 3, 6, 9]),
        (("--where", "index >= 4 AND city = 'Oslo'"), [6, 9]),
        (("--shard", "2/5"), [1, 6, 11]),
        (("--where", "array_contains(tags, 'far')"), [5, 11]),
        (("--where", "city = 'Oslo'", "--shard", "1/2"), [0, 6]),
    ],
)
def test_only_the_chosen_rows_are_called(shell: Shell, flags: tuple[str, ...], rows: list[int]) -> None:
    assert _asked(shell, *flags) == rows


def test_a_sample_is_a_seeds_own_and_part_of_a_larger_one(shell: Shell) -> None:
    first, larger, other = (_asked(shell, *flags.split()) for flags in ("--sample 4", "--sample 7", "--sample 4 --seed 1"))
    assert [len(rows) for rows in (first, larger, other)] == [4, 7, 4]
    assert set(first) < set(larger)
    assert first != other


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--shard", "17/16"), ("`select.shard`", "'17/16' is no shard", '"3/16"')),
        (("--where", "city ="), ("`select.where`", "'city ='")),
        (("--where", "tags = 'x'"), ("`select.where`", "array_contains(tags, 'x')")),
        (("--where", "town = 'Oslo'"), ("`select.where`", "no row has a field 'town'")),
        (("--sample", "0"), ("'--sample'",)),
        (("--seed", "x"), ("'--seed'",)),
    ],
)
def test_a_choice_that_means_nothing_is_refused_before_a_call(
    shell: Shell, flags: tuple[str, ...], words: tuple[str, ...]
) -> None:
    data = shell.write("rows.jsonl", {"prompt": "hello", "city": "Oslo", "tags": ["a"]})
    with endpoint() as served:
        ended = shell("run", data, "--model", "m", "--base-url", served.base_url, "--out", "out", *flags)
    assert ended.code == 2
    assert [word for word in words if word not in ended.err] == []
    assert served.asked == []
