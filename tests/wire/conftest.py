"""One reader of replies for every test of the room: whole bodies in, `Reply` or `Failure` out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from unittest.mock import patch

import pytest

from batchrun.records import Ended, Failure, Reply
from batchrun.wire import runs, stream
from batchrun.wire.reply import ReplyDecoder
from batchrun.wire.sse import plain_data

NOW = 1_800_000_000.0
Read = Callable[..., Reply | Failure]


def read_chunks(
    chunks: Iterable[bytes],
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    ended: Ended | None = None,
    max_bytes: int = 1 << 26,
) -> Reply | Failure:
    """Decode one response that came in these chunks, and again without the extension in C: it changes nothing."""
    found = []
    kept = tuple(chunks)
    for take_apart in (runs.take_apart, plain_data):
        with patch.object(stream, "take_apart", take_apart):
            decoder = ReplyDecoder(max_bytes=max_bytes)
            decoder.head(status, headers or {})
            for chunk in kept:
                decoder.feed(chunk)
            outcome = decoder.finish(ended or Ended(how="complete"), now=NOW)
            found.append((outcome, decoder.events, decoder.first_event, decoder.first_call, decoder.complete))
    assert found[0] == found[1]
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
