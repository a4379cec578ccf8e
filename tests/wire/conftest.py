"""One reader of replies for every test of the room: whole bodies in, `Reply` or `Failure` out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from unittest.mock import patch

import pytest

from batchrun.records import Ended, Failure, Reply
from batchrun.wire import runs, stream, usual
from batchrun.wire.reply import ReplyDecoder
from batchrun.wire.runs import KINDS, Run
from batchrun.wire.sse import plain_data

NOW = 1_800_000_000.0
Read = Callable[..., Reply | Failure]


def joined(block: bytes) -> list[bytes | Run] | None:
    """Take a block apart as the extension in C does, one event at a time: runs wherever there can be one."""
    items: list[bytes | Run] = []
    lines = plain_data(block)
    for line in lines or ():
        event = usual.read(line)
        if isinstance(event, usual.BlockDelta) and isinstance(event.delta, KINDS):
            kind, index, text, count = KINDS.index(type(event.delta)), event.index, event.delta.text, 1
            if items and isinstance(last := items[-1], tuple) and last[:2] == (kind, index):
                text, count = last[2] + text, last[3] + 1
                items.pop()
            items.append((kind, index, text, count))
        else:
            items.append(line)
    return None if lines is None else items


def read_chunks(
    chunks: Iterable[bytes],
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    ended: Ended | None = None,
    max_bytes: int = 1 << 26,
) -> Reply | Failure:
    """Decode one response that came in these chunks: whoever takes its blocks apart changes nothing."""
    found = []
    kept = tuple(chunks)
    for take_apart in (runs.take_apart, plain_data, joined):
        with patch.object(stream, "take_apart", take_apart):
            decoder = ReplyDecoder(max_bytes=max_bytes)
            decoder.head(status, headers or {})
            for chunk in kept:
                decoder.feed(chunk)
            outcome = decoder.finish(ended or Ended(how="complete"), now=NOW)
            found.append((outcome, decoder.events, decoder.first_event, decoder.first_call, decoder.complete))
    assert found[0] == found[1] == found[2]
    return found[0][0]


@pytest.fixture
def read() -> Read:
    """Decode chunks."""
    return read_chunks


@pytest.fixture
def answer() -> Callable[..., Reply]:
    """Decode one body that must be an answer, whole and byte by byte with the same result."""

    def decode(body: bytes, **options: object) -> Reply:
        found = read_chunks([body], **options)  # type: ignore[arg-type]  # passed on as they came
        assert isinstance(found, Reply), found
        assert read_chunks([body[at : at + 1] for at in range(len(body))], **options) == found  # type: ignore[arg-type]  # the same
        return found

    return decode


@pytest.fixture
def failure() -> Callable[..., Failure]:
    """Decode one body that must fail, whole and byte by byte with the same result."""

    def decode(body: bytes, **options: object) -> Failure:
        found = read_chunks([body], **options)  # type: ignore[arg-type]  # passed on as they came
        assert isinstance(found, Failure), found
        assert read_chunks([body[at : at + 1] for at in range(len(body))], **options) == found  # type: ignore[arg-type]  # the same
        return found

    return decode
