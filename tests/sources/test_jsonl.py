"""JSON Lines: whatever the chunks, packing and line ends, the same rows, their JSON untouched."""

import gzip
import itertools
import json
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from batchrun.errors import DatasetError
from batchrun.sources import jsonl, lines
from batchrun.sources.record import Record


def read(*pieces: bytes, index: int = 0, skip: int = 0) -> list[Record]:
    return list(jsonl.records(pieces, file="f.jsonl", index=index, skip=skip))


def plain(records: list[Record]) -> list[dict[str, bytes]]:
    return [{name: bytes(raw) for name, raw in record.fields.items()} for record in records]


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


CONTENT = (
    b'\xef\xbb\xbf{"id": "a", "prompt": "one\xe2\x80\xa8two \xc2\x85 \xf0\x9f\x98\x80"}\r\n\n   \n'
    b'{"n": 123456789012345678901234567890, "f": 1.10, "e": "\\u00e9", "k": {"b": 1, "a": 2}}\n{"last": null}'
)


@given(st.lists(st.integers(min_value=0, max_value=10_000), max_size=40))
def test_any_split_of_the_bytes_gives_the_same_rows(cuts: list[int]) -> None:
    whole = plain(read(CONTENT))
    assert plain(read(*split(CONTENT, cuts))) == whole
    assert whole[1] == {"n": b"123456789012345678901234567890", "f": b"1.10", "e": b'"\\u00e9"', "k": b'{"b": 1, "a": 2}'}
    assert whole[0]["prompt"] == '"one\u2028two \x85 😀"'.encode()


def test_blank_lines_count_as_lines_and_not_as_rows() -> None:
    records = read(CONTENT)
    assert [(record.index, record.line) for record in records] == [(0, 1), (1, 4), (2, 5)]


@given(st.integers(min_value=0, max_value=5))
def test_skipped_rows_keep_their_numbers(skip: int) -> None:
    assert [record.index for record in read(CONTENT, index=10, skip=skip)] == [10, 11, 12][skip:]


@given(
    done=st.lists(st.sampled_from([0, 1]), max_size=12).map(bytes),
    skip=st.integers(min_value=0, max_value=9),
    cuts=st.lists(st.integers(min_value=0, max_value=10_000), max_size=8),
)
def test_rows_passed_over_are_counted_as_the_others_are(done: bytes, skip: int, cuts: list[int]) -> None:
    content = b"\xef\xbb\xbf\n" + b"\n".join([b'{"n": 1}', b"", b' {"n": 2}', b" \t", b'{"n": 3}\r', b"{broken", b'{"n": 5}'] * 2)
    rows = jsonl.records(split(content, cuts), file="f.jsonl", skip=skip, done=done)
    found = [(record.index, record.line) for record in rows]
    whole = [(record.index, record.line) for record in read(content)]
    assert found == [(at, number) for at, number in whole if at >= skip and not (at < len(done) and done[at])]
    assert len(whole) == 10


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        (b'{"a": [1,2,}', "broken-json", "is not valid JSON: invalid character at column 12"),
        ('{"é": tru}'.encode(), "broken-json", "at column 8"),
        (b'{"a": 1', "broken-json", "ends too early"),
        (b'{"a": "\\ud800"}', "broken-json", "surrogate"),
        (b'{"a": NaN}', "broken-json", "column 7"),
        (b"[1]", "not-an-object", "is not a JSON object"),
        (b'{"a": "\xff"}', "not-utf8", "byte 8"),
        (b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", "broken-json", "nested too deeply"),
    ],
)
def test_a_broken_line_is_told_with_its_place_and_the_next_one_is_read(line: bytes, code: str, message: str) -> None:
    first, broken, last = read(b'{"a": 1}\n' + line + b'\n{"a": 3}\n')
    assert first.problem is None
    assert last.problem is None
    assert last.index == 2
    assert broken.problem is not None
    assert (broken.problem.code, broken.problem.row, broken.problem.line) == (code, 1, 2)
    assert message in broken.problem.message


def test_a_line_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE", 100)
    [first, broken] = read(b'{"a": 1}\n', b"x" * 90, b"x" * 90)
    assert first.problem is None
    assert broken.problem is not None
    assert "longer than" in broken.problem.message


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "two gzip members": lambda data: gzip.compress(data[:50]) + gzip.compress(data[50:]),
    "padded gzip": lambda data: gzip.compress(data) + b"\0" * 512,
    "zstd": zstandard.ZstdCompressor().compress,
    "two zstd frames": lambda data: (
        zstandard.ZstdCompressor().compress(data[:50]) + zstandard.ZstdCompressor().compress(data[50:])
    ),
}


class Drip:
    """A stream that hands out at most a few bytes at a time, as a network does."""

    def __init__(self, data: bytes, size: int) -> None:
        self._data, self._size, self._at = data, size, 0

    def read(self, _size: int) -> bytes:
        """Return the next few bytes."""
        piece = self._data[self._at : self._at + self._size]
        self._at += len(piece)
        return piece


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("size", [7, 64, 1 << 20])
def test_packing_is_told_by_the_bytes(packing: str, size: int) -> None:
    data = b"".join(json.dumps({"n": n}).encode() + b"\n" for n in range(500))
    assert b"".join(lines.chunks(Drip(PACKED[packing](data), size), "f")) == data  # type: ignore[arg-type]  # a stand-in for a file


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
@pytest.mark.parametrize("keep", [0.2, 0.7, 0.98])
def test_a_packed_file_that_was_cut_is_an_error_and_not_a_short_dataset(packing: str, keep: float) -> None:
    packed = PACKED[packing](b"".join(json.dumps({"n": n * 7919}).encode() + b"\n" for n in range(500)))
    with pytest.raises(DatasetError, match="broken or cut"):
        list(lines.chunks(Drip(packed[: int(len(packed) * keep)], 64), "f"))  # type: ignore[arg-type]  # a stand-in for a file


def test_a_damaged_packed_file_is_an_error() -> None:
    packed = bytearray(gzip.compress(b"x" * 1000))
    packed[-6] ^= 0xFF
    with pytest.raises(DatasetError, match="broken or cut"):
        list(lines.chunks(Drip(bytes(packed), 64), "f"))  # type: ignore[arg-type]  # a stand-in for a file
