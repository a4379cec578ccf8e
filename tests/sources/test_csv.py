"""CSV: text cells, JSON in structured ones, strict quoting."""

import json
from pathlib import Path

import pytest

from batchrun.errors import DatasetError
from batchrun.sources import open_dataset
from batchrun.sources.csv import records


def test_cells_become_fields_and_empty_ones_are_absent(tmp_path: Path) -> None:
    tools = json.dumps([{"name": "f", "input_schema": {"type": "object"}}])
    quoted = '"' + tools.replace('"', '""') + '"'
    head = "id,prompt,tools,tags,expected,note\r\n"
    text = head + f'1,"two\nlines, ""quoted""",{quoted},news,[],\r\n\r\n2,plain,,"[""a"",""b""]",,x\r\n'
    (tmp_path / "a.csv").write_text("\ufeff" + text, newline="")
    one, two = open_dataset(str(tmp_path / "a.csv")).samples()
    assert json.loads(one.messages) == [{"role": "user", "content": 'two\nlines, "quoted"'}]
    assert (one.id, one.tools, one.tags, one.expected, one.metadata) == ("1", tools.encode(), ("news",), b"[]", None)
    assert (two.id, two.tools, two.tags, two.expected, two.metadata) == ("2", None, ("a", "b"), None, b'{"note":"x"}')


def test_tabs_part_the_columns_of_tsv(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("prompt\tcluster\na, b\tc\n")
    [sample] = open_dataset(str(tmp_path / "a.tsv")).samples()
    assert (sample.cluster, json.loads(sample.messages)[0]["content"]) == ("c", "a, b")


@pytest.mark.parametrize("line", [b"1,2,3", b"1", b"1,caf\xe9", b'1,"two\nlines \xff"'])
def test_a_row_that_does_not_fit_the_head_is_a_problem_on_its_line(line: bytes) -> None:
    found = list(records([b"a,b\n0,0\n%b\n2,2\n" % line], file="f.csv"))
    assert [record.problem is None for record in found] == [True, False, True]
    assert found[1].problem is not None
    assert found[1].problem.row == 1
    assert found[1].problem.line is not None
    assert found[1].problem.line >= 3


@pytest.mark.parametrize("line", ['1,"a"b', '1,"open'])
def test_a_stray_quote_ends_the_reading_and_is_never_one_bad_row(line: str) -> None:
    """Skipping bad rows must not mean to leave out the rest of the file."""
    reading = records([f"a,b\n0,0\n{line}\n2,2\n".encode()], file="f.csv")
    assert next(reading).problem is None
    with pytest.raises(DatasetError, match="is not valid CSV") as caught:
        list(reading)
    assert (caught.value.problems[0].row, caught.value.problems[0].file) == (1, "f.csv")
    assert (caught.value.problems[0].line or 0) >= 3


@pytest.mark.parametrize("head", ["", "a,b,a\n", " , \n"])
def test_the_head_line_must_name_each_column_once(head: str) -> None:
    with pytest.raises(DatasetError, match=r"head line|twice"):
        list(records([head.encode()], file="f.csv"))


def test_skipped_rows_keep_their_numbers() -> None:
    found = list(records([b"a\n1\n2\n3\n"], file="f.csv", index=7, skip=2))
    assert [(record.index, bytes(record.fields["a"])) for record in found] == [(9, b'"3"')]
