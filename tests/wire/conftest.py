"""One reader of replies for every test of the room: whole bodies in, `Reply` or `Failure` out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from unittest.mock import patch

import pytest

from batchrun.records import Ended, Failure, Reply
from batchrun.wire import runs, stream, usual
from batchrun.wire.answer import Answer
from batchrun.wire.reply import ReplyDecoder
from batchrun.wire.runs import KINDS, Run
from batchrun.wire.sse import plain_data

NOW = 1_800_000_000.0
Read = Callable[..., Reply | Failure]


def joined(items: Iterable[bytes | Run]) -> list[bytes | Run]:
    """Return lines and runs with all deltas in runs that can be: what the extension in C makes of the usual ones."""
    found: list[bytes | Run] = []
    for item in items:
        run = _run(item)
        last = found[-1] if found else b""
        if run is not None and isinstance(last, tuple) and last[:2] == run[:2]:
            found[-1] = (*run[:2], last[2] + run[2], last[3] + run[3])
        else:
            found.append(item if run is None else run)
    return found


def _run(item: bytes | Run) -> Run | None:
    """Return a run as it is, and a delta as a run of one; None for any other line."""
    if isinstance(item, tuple):
        return item
    event = usual.read(item)
    if isinstance(event, usual.BlockDelta) and isinstance(event.delta, KINDS):
        return KINDS.index(type(event.delta)), event.index, event.delta.text, 1
    return None


def take_apart_in_python(block: bytes) -> list[bytes | Run] | None:
    """Make all the runs that there can be."""
    lines = plain_data(block)
    return None if lines is None else joined(lines)


WAYS = (runs.take_apart, plain_data, take_apart_in_python)


def read_chunks(
    chunks: Iterable[bytes],
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    ended: Ended | None = None,
    max_bytes: int = 1 << 26,
) -> Reply | Failure:
    """Decode one response that came in these chunks: whoever reads the usual events or takes blocks apart changes nothing."""
    found = []
    kept = tuple(chunks)
    for answer, take_apart in ((Answer, runs.take_apart), *((None, way) for way in WAYS)):
        with patch.object(stream, "Answer", answer), patch.object(stream, "take_apart", take_apart):
            decoder = ReplyDecoder(max_bytes=max_bytes)
            decoder.head(status, headers or {})
            steps: list[tuple[bool, ...]] = []
            for place, chunk in enumerate(kept):
                marks, had_event = decoder.call_marks, decoder.first_event
                decoder.feed(chunk)
                if decoder.first_call and had_event and not steps[-1][1] and decoder._content is None:
                    begun = b"".join(kept[: place + 1])
                    assert any(mark in begun for mark in marks), "nobody would look for this call"
                steps.append((decoder.first_event, decoder.first_call, decoder.complete))
            outcome = decoder.finish(ended or Ended(how="complete"), now=NOW)
            if isinstance(outcome, Failure):  # what spoils an answer need not be found at once
                steps = [step[:2] for step in steps]
            found.append((outcome, decoder.events, decoder.first_call, steps))
    assert all(one == found[0] for one in found)
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
