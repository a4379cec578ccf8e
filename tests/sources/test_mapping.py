"""The `columns` table: paths into rows, found values byte for byte."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrun.errors import JobError
from batchrun.job import Select
from batchrun.sources import open_dataset
from batchrun.sources.mapping import ColumnMap, path_of


@pytest.mark.parametrize(
    ("column", "path"),
    [
        ("question", ("question",)),
        ("a.b", ("a.b",)),
        ("$.a", ("a",)),
        ("$.a.b[0]", ("a", "b", 0)),
        ('$["odd name"].x', ("odd name", "x")),
        ("$.a['k'][12]", ("a", "k", 12)),
    ],
)
def test_a_column_is_a_name_or_a_path(column: str, path: tuple[object, ...]) -> None:
    assert path_of(column) == path


def test_every_entry_that_cannot_be_used_is_told() -> None:
    with pytest.raises(JobError) as caught:
        ColumnMap({"promt": "q", "tools": "$", "messages": "$.a[x]", "id": "$[0].a", "tags": "fine"})
    assert [problem.field for problem in caught.value.problems] == [
        "columns.promt",
        "columns.tools",
        "columns.messages",
        "columns.id",
    ]
    assert caught.value.problems[0].hint == "did you mean `columns.prompt`?"


def test_fields_are_found_where_the_table_says(tmp_path: Path) -> None:
    row = {
        "meta": {"key": ["x", "k-7"], "n": 12345678901234567890123},
        "question": "What?",
        "functions": json.dumps([{"name": "f", "input_schema": {"type": "object"}}]),
        "label": "news",
        "answer": {"calls": [{"name": "f", "arguments": {}}]},
    }
    (tmp_path / "a.jsonl").write_text(
        json.dumps(row) + "\n" + json.dumps({"question": "Only this", "meta": {"key": ["y", "k-8", "c"]}}) + "\n"
    )
    columns = {
        "id": "$.meta.key[1]",
        "prompt": "question",
        "tools": "functions",
        "tags": "label",
        "expected": "$.answer.calls",
        "cluster": "$.meta.key[2]",
    }
    first, second = open_dataset(str(tmp_path / "a.jsonl"), columns=columns).samples()
    assert (first.id, first.tags, first.cluster) == ("k-7", ("news",), None)
    assert first.tools == b'[{"name": "f", "input_schema": {"type": "object"}}]'
    assert first.expected == b'[{"name": "f", "arguments": {}}]'
    assert first.metadata is not None
    assert b"12345678901234567890123" in first.metadata
    assert set(json.loads(first.metadata)) == {"meta", "answer"}
    assert (second.id, second.tools, second.cluster) == ("k-8", None, "c")


def test_an_entry_that_leads_nowhere_in_any_row_is_named(tmp_path: Path) -> None:
    """Else a typo in `expected` would be noticed when all the answers were paid for and none of them scored."""
    (tmp_path / "a.jsonl").write_text('{"question":"x","answer":[],"meta":{"id":"a"}}\n{"question":"y"}\n')
    columns = {"prompt": "question", "expected": "anwser", "id": "$.meta.key", "tags": "label"}
    with pytest.raises(JobError) as caught:
        list(open_dataset(str(tmp_path / "a.jsonl"), columns=columns).samples())
    assert [(problem.field, problem.message) for problem in caught.value.problems] == [
        ("columns.expected", "no row has 'anwser'"),
        ("columns.id", "no row has '$.meta.key'"),
        ("columns.tags", "no row has 'label'"),
    ]
    assert caught.value.problems[0].hint == "did you mean 'answer'? the first row has: question, answer, meta"
    first = open_dataset(str(tmp_path / "a.jsonl"), columns=columns, select=Select(limit=1)).samples()
    assert len(list(first)) == 1  # what only later rows have is not missing


def test_a_column_that_is_empty_is_there(tmp_path: Path) -> None:
    table = pa.table({"question": ["x"], "sys": pa.array([None], pa.string())})
    pq.write_table(table, tmp_path / "a.parquet")
    (sample,) = open_dataset(str(tmp_path / "a.parquet"), columns={"prompt": "question", "system": "sys"}).samples()
    assert sample.system is None
    with pytest.raises(JobError, match="no row has 'system_text'"):
        list(open_dataset(str(tmp_path / "a.parquet"), columns={"prompt": "question", "system": "system_text"}).samples())
