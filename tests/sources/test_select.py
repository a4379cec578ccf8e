"""Which rows are run: the same ones each time, shards that add up, samples that nest."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.errors import JobError, UsageError
from batchrun.job import Select
from batchrun.sources import open_dataset
from batchrun.sources.jsonl import record_of
from batchrun.sources.record import Record
from batchrun.sources.select import CHUNK_ROWS, Selection, sampled


def rows(count: int) -> list[Record]:
    return [Record(index=n, file="f", fields={"n": b"%d" % n, "kind": b'"odd"' if n % 2 else b'"even"'}) for n in range(count)]


def chosen(select: Select, count: int = 100) -> list[int]:
    return [record.index for record in Selection(select).choose(lambda: rows(count))]


@given(st.integers(min_value=0, max_value=60), st.integers(min_value=1, max_value=9), st.integers(min_value=1, max_value=70))
def test_shards_are_the_whole_and_never_overlap(count: int, of: int, limit: int) -> None:
    whole = chosen(Select(limit=limit), count)
    parts = [chosen(Select(limit=limit, shard=f"{position}/{of}"), count) for position in range(1, of + 1)]
    assert sorted(index for part in parts for index in part) == whole
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    counts = [Selection(Select(limit=limit, shard=f"{position}/{of}")).count(count) for position in range(1, of + 1)]
    assert counts == list(map(len, parts))


@given(st.integers(min_value=1, max_value=120), st.integers(min_value=0, max_value=2**70))
def test_a_sample_has_its_size_its_order_and_its_seed(size: int, seed: int) -> None:
    found = chosen(Select(sample=size, seed=seed))
    assert len(found) == min(size, 100)
    assert found == sorted(found)
    assert found == chosen(Select(sample=size, seed=seed))
    assert set(found) <= set(chosen(Select(sample=size + 10, seed=seed)))


def test_samples_of_different_seeds_differ_and_are_even() -> None:
    hits = [0] * 100
    for seed in range(400):
        for index in sampled(range(100), 10, seed):
            hits[int(index)] += 1
    assert sum(hits) == 4000
    assert min(hits) > 15
    assert max(hits) < 75


def test_a_sample_is_taken_of_the_rows_that_match() -> None:
    found = chosen(Select(where="kind = 'odd'", sample=5, seed=3))
    assert len(found) == 5
    assert all(index % 2 for index in found)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("n >= 98", [98, 99]),
        ("kind = 'odd' AND n < 4", [1, 3]),
        ("index IN (5, 7)", [5, 7]),
        ("n % 50 = 0", [0, 50]),
        ("kind LIKE 'ev%' AND n BETWEEN 10 AND 13", [10, 12]),
        ("1 = 1 AND index < 2", [0, 1]),
    ],
)
def test_where_is_a_polars_sql_condition(where: str, expected: list[int]) -> None:
    assert chosen(Select(where=where)) == expected


def test_where_sees_tags_nested_values_and_nulls(tmp_path: Path) -> None:
    lines = [
        {"prompt": "a", "tags": ["x", "y"], "meta": {"k": 1}},
        {"prompt": "b", "tags": ["y"], "score": 2.5},
        {"prompt": "c", "score": None},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def ids(where: str) -> list[str]:
        return [sample.id for sample in open_dataset(str(tmp_path / "a.jsonl"), select=Select(where=where)).samples()]

    assert ids("array_contains(tags, 'y')") == ["0", "1"]
    assert ids("score IS NULL") == ["0", "2"]
    assert ids("score > 2") == ["1"]
    assert ids("meta LIKE '%k%'") == ["0"]


@pytest.mark.parametrize("where", ["n >", "nosuch = 1", "kind + 'x' > 5 AND"])
def test_a_condition_that_cannot_be_used_is_a_usage_error(where: str) -> None:
    with pytest.raises(UsageError, match=r"select\.where"):
        chosen(Select(where=where))


@pytest.mark.parametrize("shard", ["0/4", "5/4", "a/b", "3", "1/0"])
def test_a_shard_is_a_position_from_one(shard: str) -> None:
    with pytest.raises(JobError, match="no shard"):
        Selection(Select(shard=shard))


def test_counting_needs_no_pass_but_for_a_condition() -> None:
    assert Selection(Select()).count(10) == 10
    assert Selection(Select(sample=4, limit=3)).count(10) == 3
    assert Selection(Select(where="n = 1")).count(10) is None


FIELDS = {"tags": b'["core"]', "name": b'"Core"', "score": b"2.5", "done": b"true", "counts": b"[3]"}


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("bare", [{}, dict.fromkeys(FIELDS, b"null"), {"tags": b"[]", "counts": b"[]"}])
@pytest.mark.parametrize(
    "where",
    [
        "array_contains(tags, 'core')",
        "array_contains(counts, 3)",
        "ARRAY_LENGTH(tags) = 1",
        "name LIKE 'C%'",
        "UPPER(name) = 'CORE'",
        "LENGTH(name) = 4",
        "score > 2",
        "ROUND(score, 0) > 1",
        "done",
        "done AND array_contains(tags, 'core') AND name LIKE 'C%' AND score > 2",
    ],
)
def test_a_block_of_rows_without_a_field_is_judged_as_the_same_rows_among_others(
    where: str, bare: dict[str, bytes], *, before: bool
) -> None:
    full = [Record(index=n, file="f", fields=FIELDS) for n in range(CHUNK_ROWS)]
    without = [Record(index=n, file="f", fields=bare) for n in range(CHUNK_ROWS)]
    blocks = without + full if before else full + without
    mixed = [row for pair in zip(full, without, strict=True) for row in pair]
    for rows in (blocks, mixed):
        chosen = list(Selection(Select(where=where)).choose(lambda rows=rows: rows))  # type: ignore[misc]  # mypy: a default
        assert [record_of(row).fields for row in chosen] == [FIELDS] * CHUNK_ROWS


def test_a_condition_that_fits_no_type_says_what_the_first_one_tried_says() -> None:
    rows = [Record(index=0, file="f", fields={})]
    with pytest.raises(JobError, match=r"select\.where.*array_contains"):
        list(Selection(Select(where="UPPER(a) = 'A' AND array_contains(a, 'x')")).choose(lambda: rows))


@pytest.mark.parametrize(
    "where",
    ["MAX(n) = n", "n > 1 AND count (*) > 2", "n > avg(n)", "ROW_NUMBER() OVER (ORDER BY n) < 3", "n = FIRST(n)"],
)
def test_what_takes_many_rows_together_is_refused_before_any_row_is_read(where: str) -> None:
    """It was taken of each block of rows by itself."""
    with pytest.raises(JobError, match="is of many rows"):
        Selection(Select(where=where))


@pytest.mark.parametrize(
    ("where", "expected"),
    [("kind <> 'max(n)' AND n < 2", [0, 1]), ("GREATEST(n, 98) > 98", [99]), ("\"n\" IN (1) OR kind = 'it''s sum(n) over'", [1])],
)
def test_the_name_of_an_aggregate_within_words_is_none(where: str, expected: list[int]) -> None:
    assert chosen(Select(where=where)) == expected


def test_a_field_may_have_the_name_of_an_aggregate() -> None:
    rows = [Record(index=n, file="f", fields={"count": b"%d" % n, "over": b"1"}) for n in range(3)]
    assert [row.index for row in Selection(Select(where="count IN (1, 2) AND over IN (1)")).choose(lambda: rows)] == [1, 2]
