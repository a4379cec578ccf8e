"""Datasets: files found and told apart, the same samples each time, bad rows stopped or carried."""

import contextlib
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrun.errors import DatasetError, StorageError, UsageError
from batchrun.job import Select
from batchrun.sources import open_dataset


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def test_a_row_becomes_a_sample_with_its_bytes(tmp_path: Path) -> None:
    line = (
        '{"id": "a", "messages": [ {"role":"user", "content":"h\\u00e9"} ], "system": "be", "tools": [ ],'
        ' "tool_choice": {"type": "any"}, "params": {"temperature": 1.0}, "expected": {"any_call": true},'
        ' "cluster": "c", "tags": ["t"], "more": [1e400], "none": null}'
    )
    [sample] = open_dataset(write(tmp_path / "a.jsonl", line), format="batchrun").samples()
    assert sample.messages == b'[ {"role":"user", "content":"h\\u00e9"} ]'
    assert (sample.system, sample.tools, sample.tool_choice) == (b'"be"', b"[ ]", b'{"type": "any"}')
    assert (sample.params, sample.expected) == (b'{"temperature": 1.0}', b'{"any_call": true}')
    assert (sample.cluster, sample.tags, sample.metadata) == ("c", ("t",), b'{"more":[1e400],"none":null}')


def test_a_prompt_is_one_user_message_around_its_own_text(tmp_path: Path) -> None:
    [sample] = open_dataset(write(tmp_path / "a.jsonl", '{"prompt": "a\\u2028 \\/b", "id": 7}')).samples()
    assert sample.messages == b'[{"role":"user","content":"a\\u2028 \\/b"}]'
    assert sample.id == "7"


def test_folders_and_globs_are_read_in_name_order_with_running_numbers(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", {"prompt": "b1"}, {"prompt": "b2"})
    (tmp_path / "a.ndjson.gz").write_bytes(gzip.compress(b'{"prompt": "a1"}\n'))
    (tmp_path / "sub").mkdir()
    pq.write_table(pa.table({"prompt": ["c1", "c2"]}), tmp_path / "sub" / "c.parquet")
    (tmp_path / "_hidden.jsonl").write_text("broken")
    (tmp_path / "notes.txt").write_text("no data")
    (tmp_path / "d.json").write_text(json.dumps([{"prompt": "x1"}], indent=2))
    dataset = open_dataset(str(tmp_path))
    samples = list(dataset.samples())
    assert [json.loads(sample.messages)[0]["content"] for sample in samples] == ["a1", "b1", "b2", "x1", "c1", "c2"]
    assert [sample.index for sample in samples] == list(range(6))
    assert dataset.count() == 6
    for start in range(7):
        assert list(dataset.samples(start)) == samples[start:]
    assert open_dataset(str(tmp_path / "*.jsonl")).files == (str(tmp_path / "_hidden.jsonl"), str(tmp_path / "b.jsonl"))
    assert len(open_dataset(str(tmp_path / "**" / "*.parquet")).files) == 1


def test_starting_in_the_middle_of_a_selection_gives_the_rest_of_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *({"prompt": f"p {n}"} for n in range(40)))
    dataset = open_dataset(path, select=Select(sample=10, limit=8, shard="1/2"))
    whole = list(dataset.samples())
    assert len(whole) == 4
    assert dataset.count() == 4
    assert list(dataset.samples(whole[2].index)) == whole[2:]


def test_the_digest_is_of_the_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"prompt": "a"})
    one = open_dataset(path).digest()
    assert one == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    write(tmp_path / "b.jsonl", {"prompt": "b"})
    both = open_dataset(str(tmp_path)).digest()
    assert both not in {one, open_dataset(str(tmp_path / "b.jsonl")).digest()}
    assert both == open_dataset(str(tmp_path / "*.jsonl")).digest()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b'{"prompt": "one"}\n{broken\n'),
        ("a.jsonl.gz", gzip.compress(b'{"prompt": "one"}\n', mtime=0) + b"\0" * 9),
        ("a.json", b'[{"prompt": "one"}]\n\n'),
        ("a.csv", b"prompt\none\n"),
    ],
)
def test_a_pass_over_the_whole_file_can_learn_the_digest(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    dataset = open_dataset(str(path))
    assert len(list(dataset.rows(hashing=True))) >= 1
    path.unlink()
    assert dataset.digest() == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("content", "select"),
    [
        ("[" + '{"prompt": "one"},' * 30 + "oh no]" + " " * 600_000, Select()),
        ('[{"prompt": "one"}, {"prompt": "two"}]', Select(limit=1)),
    ],
)
def test_a_pass_that_ends_early_learns_no_digest(tmp_path: Path, content: str, select: Select) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    dataset = open_dataset(str(path), select=select)
    with contextlib.suppress(DatasetError):
        list(dataset.rows(hashing=True))
    assert dataset.digest() == hashlib.sha256(content.encode()).hexdigest()


def test_lines_that_a_shard_passes_over_are_not_decoded(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"prompt": "one"}, "{broken", {"prompt": "two"}, "{broken")
    assert [sample.index for sample in open_dataset(path, select=Select(shard="1/2")).samples()] == [0, 2]
    with pytest.raises(DatasetError):
        list(open_dataset(path, select=Select(shard="2/2")).samples())


def test_parquet_tells_its_count_and_jsonl_after_a_pass(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["a", "b", "c"]}), tmp_path / "a.parquet")
    assert open_dataset(str(tmp_path / "a.parquet"), select=Select(limit=2)).count() == 2
    dataset = open_dataset(write(tmp_path / "a.jsonl", {"prompt": "a"}))
    assert dataset.count() is None
    assert dataset.describe() == {
        "location": str(tmp_path / "a.jsonl"),
        "format": "batchrun",
        "files": 1,
        "bytes": 16,
        "rows": None,
    }
    list(dataset.samples())
    assert dataset.count() == 1


BAD = [
    ({"prompt": 5}, "prompt", "wrong-type"),
    ({"id": [], "prompt": "x"}, "id", "wrong-type"),
    ({"messages": [], "id": "m"}, "messages", "no-messages"),
    ({"messages": "hello"}, "messages", "messages-not-a-list"),
    ({"messages": [{"role": "user", "content": "x"}], "prompt": "x"}, "messages", "messages-and-prompt"),
    ({"note": "nothing asked", "prompt": None}, "messages", "no-messages"),
    ({"prompt": "x", "tools": {"name": "f"}}, "tools", "tools-not-a-list"),
    ({"prompt": "x", "system": 5}, "system", "wrong-type"),
    ({"prompt": "x", "params": []}, "params", "wrong-type"),
    ({"prompt": "x", "tool_choice": "any"}, "tool_choice", "wrong-type"),
    ({"prompt": "x", "expected": "f"}, "expected", "wrong-type"),
    ({"prompt": "x", "tags": "t"}, "tags", "wrong-type"),
    ({"prompt": "x", "tags": [1]}, "tags", "wrong-type"),
    ({"prompt": "x", "cluster": {}}, "cluster", "wrong-type"),
]


@pytest.mark.parametrize(("row", "field", "code"), BAD)
def test_a_row_of_the_wrong_shape_stops_or_is_carried_as_told(tmp_path: Path, row: Any, field: str, code: str) -> None:
    path = write(tmp_path / "a.jsonl", {"prompt": "fine"}, row, {"prompt": "fine too"})
    with pytest.raises(DatasetError) as caught:
        list(open_dataset(path, format="batchrun").samples())
    [problem] = caught.value.problems
    assert (problem.file, problem.row, problem.line, problem.field, problem.code) == (path, 1, 2, field, code)
    samples = list(open_dataset(path, format="batchrun", on_bad_row="skip").samples())
    assert [sample.problem for sample in samples] == [None, str(problem), None]


def test_a_broken_line_is_carried_with_its_place(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"prompt": "fine"}, "{broken", {"id": "z", "prompt": "fine"})
    samples = list(open_dataset(path, on_bad_row="skip").samples())
    assert [sample.id for sample in samples] == ["0", "1", "z"]
    assert samples[1].problem is not None
    assert "row 1 (line 2)" in samples[1].problem


def test_a_place_without_data_is_a_usage_error(tmp_path: Path) -> None:
    for location in ("nothing.jsonl", "*.jsonl", ""):
        with pytest.raises(UsageError):
            open_dataset(str(tmp_path / location))


def test_a_file_that_cannot_be_read_is_a_storage_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "x"}\n')
    dataset = open_dataset(str(path))
    path.unlink()
    with pytest.raises(StorageError, match="cannot be read"):
        list(dataset.samples())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"question": "x", "answer": "y"}\n', "no format known here; their fields are answer, question"),
        ('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n', "several formats"),
    ],
)
def test_a_format_that_cannot_be_told_is_asked_for(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(UsageError, match=message) as caught:
        open_dataset(str(tmp_path / "a.jsonl"))
    assert caught.value.hint is not None


def test_a_format_nobody_knows_is_told_with_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"prompt": "x"})
    with pytest.raises(UsageError, match="'opnai' is not a dataset format") as caught:
        open_dataset(path, format="opnai")
    assert caught.value.hint == "did you mean 'openai'?"


def test_the_first_bytes_tell_the_kind_where_the_name_does_not(tmp_path: Path) -> None:
    (tmp_path / "lines").write_text('{"prompt": "x"}\n{"prompt": "y"}\n')
    (tmp_path / "array").write_text('[{"prompt": "x"}]')
    (tmp_path / "pretty").write_text('{\n"prompt": "x"\n}\n{"prompt":\n"y"}')
    pq.write_table(pa.table({"prompt": ["x"]}), tmp_path / "columns")
    (tmp_path / "text").write_text("prompt\nx\n")
    assert [len(list(open_dataset(str(tmp_path / name)).samples())) for name in ("lines", "array", "pretty", "columns")] == [
        2,
        1,
        2,
        1,
    ]
    with pytest.raises(UsageError, match="cannot tell what kind"):
        open_dataset(str(tmp_path / "text"))
    assert len(list(open_dataset(str(tmp_path / "text"), format="csv").samples())) == 1


def test_a_prefilled_answer_in_our_own_form_is_not_taken_for_fine_tuning(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "{"}]
    assert open_dataset(write(tmp_path / "a.jsonl", {"messages": messages, "expected": []})).format == "batchrun"


def test_equal_tools_are_one_object(tmp_path: Path) -> None:
    tools = [{"name": "f", "input_schema": {"type": "object"}}]
    path = write(tmp_path / "a.jsonl", *({"prompt": "x", "tools": tools} for _ in range(5)))
    assert len({id(sample.tools) for sample in open_dataset(path).samples()}) == 1


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
@pytest.mark.parametrize("select", [Select(), Select(limit=3)])
def test_rows_that_are_done_are_left_out(name: str, select: Select, tmp_path: Path) -> None:
    """The others keep their numbers, and the rows are counted all the same; a row beyond the list is not done."""
    rows = ["id,prompt", *(f"{n},p" for n in range(4))] if name.endswith("csv") else [{"prompt": "p"} for _ in range(4)]
    dataset = open_dataset(write(tmp_path / name, *rows), select=select)
    asked = [sample.index for sample in dataset.samples(done=bytes([1, 0, 1]))]
    assert asked == [1, 3][: 1 if select.limit else 2]
    assert dataset.count() == (select.limit or 4)


def test_a_digest_is_trusted_while_nobody_touched_the_files(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"prompt": "p"})
    stamp = open_dataset(path).stamp()
    again = open_dataset(path)
    again.trust(stamp, "kept")
    assert again.digest() == "kept"
    write(tmp_path / "a.jsonl", {"prompt": "another"})
    changed = open_dataset(path)
    changed.trust(stamp, "kept")
    changed.trust(None, "kept")
    assert changed.digest() == hashlib.sha256((tmp_path / "a.jsonl").read_bytes()).hexdigest()
