"""Many lines are decoded in one call of the decoder, and it is as if each had been decoded alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.wire import usual
from batchrun.wire.json_text import MAX_DEPTH

PING = b'{"type": "ping"}'
STOP = b'{"type":"content_block_stop","index":1}'
PARTS = st.sampled_from(
    [PING, STOP, b'{"type":"ping","x":[{}', b'"x":{}}', b"]}", b"{}", b"[", b",", b":", b'"', b" ", b'{"type":"new"}', b"\\u0022"]
)
LINES = st.lists(st.lists(PARTS, min_size=1, max_size=3).map(b"".join), max_size=6)


def test_each_line_is_an_event() -> None:
    found = usual.read_all([PING + b"  ", STOP, PING])
    assert found == [usual.Ping(), usual.BlockStop(1), usual.Ping()]


@pytest.mark.parametrize(
    "lines",
    [
        [PING, b'{"type":"new"}'],
        [PING + PING],
        [PING + b" " + STOP, PING],
        [b'{"type":"ping","x":[{}', b'{"type":"ping"}]}', PING + PING],
        [PING, b'{"type":"ping","x":"\\ud800"}'],
        [PING, b'{"type":"ping","x":%b%b}' % (b"[" * MAX_DEPTH, b"]" * MAX_DEPTH)],
        [PING, b'{"type":"message_stop","error":{"message":"m"}}'],
        [PING, b'{"type":"message_stop","choices":null}'],
        [PING, b"[DONE]"],
    ],
)
def test_one_unusual_line_is_enough_to_look_at_each(lines: list[bytes]) -> None:
    assert usual.read_all(lines) is None


@given(LINES.map(lambda lines: [b"{%b}" % line.strip(b"{}") for line in lines]))
def test_together_as_alone(lines: list[bytes]) -> None:
    alone = [usual.read(line) for line in lines]
    together = usual.read_all(lines)
    assert together == (None if None in alone else alone)
