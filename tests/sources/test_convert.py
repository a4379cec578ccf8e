"""Converting: every row ends in the output or, with its reason, in the rejects; the output reads back the same."""

import gc
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batchrun.errors import DatasetError, UsageError
from batchrun.job import Select
from batchrun.records import Sample
from batchrun.sources import open_dataset
from batchrun.sources.convert import convert

BFCL = Path(__file__).parent / "data" / "bfcl"


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def meaning(sample: Sample) -> Any:
    """Return what a sample says, whatever the spacing of its JSON."""
    texts = [getattr(sample, name) for name in ("messages", "system", "tools", "tool_choice", "params", "expected", "metadata")]
    return sample.id, sample.tags, sample.cluster, [None if text is None else json.loads(text) for text in texts]


ROWS = [
    {"id": "a", "prompt": "first question", "system": "[be brief]", "extra": {"k": [1, None]}, "big": 12345678901234567890123},
    {
        "messages": [{"role": "user", "content": "h\u2028i"}],
        "system": [{"type": "text", "text": "s"}],
        "tools": [{"name": "f", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "any"},
        "params": {"temperature": 0.5},
        "expected": {"any_call": True},
        "cluster": "c",
        "tags": ["x", "y"],
    },
]


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "jsonl.zst", "parquet"])
def test_our_own_rows_survive_both_forms(tmp_path: Path, ending: str) -> None:
    source = open_dataset(write(tmp_path / "a.jsonl", *ROWS), format="batchrun")
    report = convert(source, str(tmp_path / f"out.{ending}"))
    assert (report.rows, report.rejected, report.rejects, report.losses) == (2, 0, None, {})
    again = open_dataset(report.out)
    assert again.format == "batchrun"
    assert [meaning(sample) for sample in again.samples()] == [meaning(sample) for sample in source.samples()]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", f"out.{ending}"]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_the_leaderboards_rows_survive_both_forms(tmp_path: Path, ending: str) -> None:
    source = open_dataset(str(BFCL))
    report = convert(source, str(tmp_path / f"out.{ending}"))
    assert (report.format, report.rejected) == ("bfcl", 0)
    assert report.losses["name-changed"] > 0
    assert [meaning(sample) for sample in open_dataset(report.out).samples()] == [meaning(sample) for sample in source.samples()]


def test_parquet_is_plain_to_others(tmp_path: Path) -> None:
    convert(open_dataset(write(tmp_path / "a.jsonl", *ROWS), format="batchrun"), str(tmp_path / "out.parquet"))
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column("system").to_pylist() == ["[be brief]", '[{"type": "text", "text": "s"}]']
    assert table.column("tags").to_pylist() == [None, ["x", "y"]]
    assert json.loads(table.column("metadata")[0].as_py()) == {"extra": {"k": [1, None]}, "big": 12345678901234567890123}


def test_results_whose_ids_are_numbers_fit_columns_of_text(tmp_path: Path) -> None:
    """Answers to score are not shaped as rows to run are."""
    source, out = tmp_path / "results.jsonl", tmp_path / "out.parquet"
    source.write_text('{"custom_id":5,"result":{"type":"errored"}}\n{"custom_id":"b","result":{"type":"expired"}}\n')
    convert(open_dataset(str(source), format="batches-results"), str(out))
    assert pq.read_table(out)["id"].to_pylist() == ["5", "b"]


def test_rows_that_cannot_be_converted_are_kept_with_the_reason(tmp_path: Path) -> None:
    good = {"query": "q one", "tools": "[]", "answers": "[]"}
    bad = {"query": "q two", "tools": "5", "answers": "[]"}
    source = open_dataset(write(tmp_path / "a.jsonl", good, bad, "{broken", good), format="xlam")
    report = convert(source, str(tmp_path / "out.jsonl"))
    assert (report.rows, report.rejected) == (2, 2)
    assert report.rejects == str(tmp_path / "out.jsonl.rejects.jsonl")
    rejects = [json.loads(line) for line in Path(report.rejects).read_text().splitlines()]
    assert [(reject["row"], reject["line"]) for reject in rejects] == [(1, 2), (2, 3)]
    assert rejects[0]["reason"] == "cannot be converted: `tools` is no list"
    assert rejects[0]["content"] == bad
    assert sum(report.reasons.values()) == 2


def test_answers_fill_in_what_results_lack(tmp_path: Path) -> None:
    message = {"content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}], "stop_reason": "tool_use"}
    results = write(tmp_path / "r.jsonl", {"custom_id": "a", "result": {"type": "succeeded", "message": message}})
    tools, expected = [{"name": "f", "input_schema": {"type": "object"}}], [{"name": "f", "arguments": {"a": 1}}]
    dataset = write(tmp_path / "d.jsonl", {"id": "a", "prompt": "q one", "tools": tools, "expected": expected})
    report = convert(open_dataset(results), str(tmp_path / "out.jsonl"), answers=open_dataset(dataset))
    [row] = map(json.loads, Path(report.out).read_text().splitlines())
    assert (row["tools"], row["expected"], row["tool_calls"]) == (tools, expected, [{"name": "f", "input": {"a": 1}}])


def test_the_selection_holds(tmp_path: Path) -> None:
    source = open_dataset(write(tmp_path / "a.jsonl", *({"prompt": f"p {n}"} for n in range(9))), select=Select(limit=4))
    assert convert(source, str(tmp_path / "out.jsonl")).rows == 4


def test_equal_sources_give_equal_packed_bytes(tmp_path: Path) -> None:
    source = open_dataset(write(tmp_path / "a.jsonl", *ROWS), format="batchrun")
    convert(source, str(tmp_path / "one.jsonl.gz"))
    convert(source, str(tmp_path / "two.jsonl.gz"))
    assert (tmp_path / "one.jsonl.gz").read_bytes() == (tmp_path / "two.jsonl.gz").read_bytes()
    assert gzip.decompress((tmp_path / "one.jsonl.gz").read_bytes()).count(b"\n") == 2


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "parquet"])
def test_a_source_that_breaks_off_leaves_nothing_behind(tmp_path: Path, ending: str) -> None:
    text = gzip.compress(b'{"prompt": "first question"}\n' * 60_000)
    (tmp_path / "a.jsonl.gz").write_bytes(text[: len(text) // 2])
    with pytest.raises(DatasetError, match="broken or cut"):
        convert(open_dataset(str(tmp_path / "a.jsonl.gz")), str(tmp_path / f"out.{ending}"))
    gc.collect()
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl.gz"]


def test_what_is_read_and_what_is_written_are_different_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = open_dataset(write(tmp_path / "a.jsonl", *ROWS), format="batchrun")
    answers = open_dataset(write(tmp_path / "b.jsonl", *ROWS), format="batchrun")
    for out, rejects in (
        ("./a.jsonl", None),
        (f"file://{tmp_path}/b.jsonl", None),
        ("c.jsonl", "b.jsonl"),
        ("c.jsonl", "./c.jsonl"),
    ):
        with pytest.raises(UsageError, match=r"is the source itself|is also where"):
            convert(source, out, rejects=rejects, answers=answers)
    with pytest.raises(UsageError, match="names no file"):
        convert(source, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl"]


@pytest.mark.parametrize("name", ["out.txt", "out.json", "a.jsonl"])
def test_a_place_that_cannot_be_written_is_refused_before_anything_is(tmp_path: Path, name: str) -> None:
    source = open_dataset(write(tmp_path / "a.jsonl", *ROWS), format="batchrun")
    before = (tmp_path / "a.jsonl").read_bytes()
    with pytest.raises(UsageError):
        convert(source, str(tmp_path / name))
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.jsonl", before)]
