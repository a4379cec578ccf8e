"""One JSON array a file: read item by item, whatever the chunks."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.errors import DatasetError
from batchrun.sources import json_array
from batchrun.sources.record import Record

ROWS = [{"id": i, "text": 'a "quoted" ] é😀\n' * (i % 3 + 1), "deep": [[{"x": [1, {}]}]]} for i in range(6)]


def read(*pieces: bytes, index: int = 0, skip: int = 0) -> list[Record]:
    return list(json_array.records(pieces, file="f.json", index=index, skip=skip))


def values(records: list[Record]) -> list[dict[str, object]]:
    return [{name: json.loads(bytes(raw)) for name, raw in record.fields.items()} for record in records]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2, ensure_ascii=False),
        "\ufeff" + json.dumps(ROWS, indent=1),
        "\n".join(json.dumps(row, indent=2) for row in ROWS),
    ],
    ids=["one line", "pretty", "with a BOM", "objects one after another"],
)
@given(data=st.data())
def test_any_split_gives_the_same_rows(text: str, data: st.DataObject) -> None:
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(min_value=0, max_value=len(raw)), max_size=20)))
    pieces = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert values(read(*pieces)) == ROWS


def test_each_row_tells_the_line_it_begins_on() -> None:
    assert [record.line for record in read(b'[\n{"a": 1},\n\n{"a":\n2},\n{"a": 3}]\n')] == [2, 4, 6]


def test_skipped_rows_keep_their_numbers() -> None:
    assert [record.index for record in read(json.dumps(ROWS).encode(), index=5, skip=4)] == [9, 10]


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        (b'[{"a": 1},\n{"a" 2}, {"a": 3}]', "is not valid JSON", 2),
        (b'[{"a": 1},\n{"a": 2}', "ends too early", 2),
        (b'[{"a": 1}]\n{"a": 2}', "after the end", 2),
        (b'[{"a": 1},\n{"a": "x', "is not valid JSON", 2),
        (b'[{"a": 1},\n\xff{"a": 2}]', "is not UTF-8", 2),
    ],
)
def test_after_a_break_nothing_can_be_told_apart_so_the_file_is_refused(text: bytes, message: str, line: int) -> None:
    """Skipping bad rows must not mean to leave out the rest of the file."""
    reading = json_array.records([text], file="f.json")
    assert next(reading).problem is None
    with pytest.raises(DatasetError, match=message) as caught:
        list(reading)
    assert (caught.value.problems[0].file, caught.value.problems[0].line) == ("f.json", line)


@pytest.mark.parametrize(
    ("item", "message"), [(b"5", "not a JSON object"), (b'{"a": "caf\xe9"}', "is not UTF-8"), (b'{"a": NaN}', "valid JSON")]
)
def test_an_item_that_is_no_row_spoils_itself_alone(item: bytes, message: str) -> None:
    before, bad, after = read(b'[{"a": 1},\n', item[:7], item[7:] + b',\n{"a": 3}]')
    assert bad.problem is not None
    assert message in bad.problem.message
    assert (bad.problem.row, bad.problem.line, before.problem, after.problem) == (1, 2, None, None)


def test_an_empty_array_has_no_row() -> None:
    assert read(b" [ ] \n") == []
