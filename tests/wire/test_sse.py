"""Event streams are taken apart by the WHATWG's rules, the same for every cut of the bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.wire import sse
from batchrun.wire.sse import Event, EventBuffer, bare_events, has_fields, plain_data, plain_names


def read_all(chunks: list[bytes], *, bare_lines: bool = False) -> list[Event]:
    buffer, found, events = EventBuffer(bare_lines=bare_lines), list[Event](), bare_events if bare_lines else sse.events
    for chunk in chunks:
        buffer.push(chunk)
        block = buffer.block()
        if block is not None:
            found += events(block)
    return found + list(events(buffer.rest()))


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: a\n\n", [Event(b"", b"a")]),
        (b"event: x\ndata: a\n\ndata: b\n\n", [Event(b"x", b"a"), Event(b"", b"b")]),
        (b"data: a\rdata: b\r\r", [Event(b"", b"a\nb")]),
        (b"data: a\r\n\r\ndata:b\n\r\n", [Event(b"", b"a"), Event(b"", b"b")]),
        (b"data:  two spaces\n\n", [Event(b"", b" two spaces")]),
        (b": comment\nid: 7\nretry: 10\ndata\n\n", [Event(b"", b"")]),
        (b"event: first\nevent: last\ndata: a\n\n", [Event(b"last", b"a")]),
        (b"event: lonely\n\ndata: a\n\n", [Event(b"", b"a")]),
        ("data: a\u2028b\u0085c\x0bd\n\n".encode(), [Event(b"", "a\u2028b\u0085c\x0bd".encode())]),
        (b"data: last event has no end", [Event(b"", b"last event has no end")]),
        (b'{"type":"ping"}\n', [Event(b"", b'{"type":"ping"}')]),
        (b"data: a\n{b}\n\n", [Event(b"", b"{b}"), Event(b"", b"a")]),
        (b"nonsense: a\nDATA: b\n data: c\n\n", []),
        (b"\n\n\n", []),
    ],
)
def test_rules(stream: bytes, expected: list[Event]) -> None:
    assert read_all([stream]) == expected


@pytest.mark.parametrize("chunks", [[b"data: a\r", b"\n", b"\ndata: b"], [b"data: a\r", b"", b"\n\n", b"data: b"]])
def test_a_line_end_cut_in_two_is_one_line_end(chunks: list[bytes]) -> None:
    assert read_all(chunks) == [Event(b"", b"a"), Event(b"", b"b")]


PIECES = st.sampled_from(
    [
        b"data: ",
        b"data:",
        b"event: a",
        b"event: error",
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        b'{"a":1}',
        b"[DONE]",
        b": c",
        b"x",
        b" ",
        b"\xe2\x80\xa8",
    ]
)


@given(st.lists(PIECES, max_size=30).map(b"".join), st.data())
def test_any_cut_gives_the_same_events(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)))))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert read_all(chunks) == read_all([stream])
    assert read_all(chunks, bare_lines=True) == read_all([stream], bare_lines=True)


@given(st.lists(PIECES, max_size=30).map(b"".join))
def test_the_short_way_is_the_long_way_or_none(stream: bytes) -> None:
    """Where `plain_data` takes a block, it finds the events that the rules find."""
    buffer = EventBuffer()
    buffer.push(stream)
    block = buffer.block()
    if block is not None and (data := plain_data(block)) is not None:
        assert list(map(Event, plain_names(block), data)) == list(sse.events(block))


def test_the_short_way_is_taken() -> None:
    block = b'\nevent: a\ndata: {"x":1}  \n\ndata:{"y":2}\n\ndata: [DONE]\n\n'
    assert plain_data(block) == [b'{"x":1}  ', b'{"y":2}', b"[DONE]"]
    assert plain_names(block) == [b"a", b"", b""]


@pytest.mark.parametrize(
    "block",
    [
        b'\ndata: {"a":1}\ndata: {"b":1}\n\n',
        b'\n: c\ndata: {"a":1}\n\n',
        b'\ndata: {"a":1}\n\n\n',
        b'\nevent: error\ndata: {"a":1}\n\n',
        b'\nevent:error\ndata: {"a":1}\n\n',
        b"\ndata: 7\n\n",
        b"\nevent: a\n\n",
    ],
)
def test_the_short_way_refuses_what_is_not_plain(block: bytes) -> None:
    assert plain_data(block) is None


def test_nothing_is_searched_twice() -> None:
    """An unfinished event of any length costs each byte once: the search goes on where it stopped."""
    buffer = EventBuffer()
    for _ in range(1000):
        buffer.push(b"data: " + b"x" * 1000)
        assert buffer.block() is None
        assert buffer.push(b"") == 0
    buffer.push(b"\n\n")
    assert buffer.push(b"") == 2
    block = buffer.block()
    assert block is not None
    assert len(block) == 1_006_003
    assert buffer.rest() == b"\n"


def test_words_are_found_across_chunks() -> None:
    buffer = EventBuffer()
    buffer.push(b"data: message_st")
    assert not buffer.holds((b"stop", b"error"), 16)
    buffer.push(b"op")
    assert buffer.holds((b"error", b"stop"), 2)


def test_fields_tell_an_event_stream() -> None:
    assert has_fields(b"\n: comment\n")
    assert has_fields(b"x\nretry: 5")
    assert has_fields(b'{"a":1}')
    assert not has_fields(b"upstream connect error: reset\n\n")
