"""What decoding one answer costs, over what the JSON library alone costs for the same events.

    python tests/bench/bench_decode.py

Prints microseconds an answer and an event (fastest of several rounds, one core): an answer of 250 events and one of 25, in
one piece, in 4 KB reads and one event a read, in both stream forms. The bound is 1 µs an event over the JSON
library's own time, for 250 events in one piece or in 4 KB reads; the exit code is 1 where it is missed.
"""

from __future__ import annotations

import sys
import timeit
from collections.abc import Callable

import msgspec

from batchrun.job import RequestSpec
from batchrun.records import Ended, Reply, Sample
from batchrun.wire.reply import ReplyDecoder
from batchrun.wire.request import BodyBuilder

BOUND_US = 1.0
ROUNDS, CALLS = 7, 40
_START = (
    b'{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],'
    b'"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":25,"output_tokens":1}}}'
)
_CALL = b'{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"toolu_1","name":"f","input":{}}}'
_STOP = b'{"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":40}}'
_CHUNK = (
    b'{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":%b,"finish_reason":%b}]}'
)


def messages(events: int) -> list[bytes]:
    """Return the events of a Messages stream: one call whose arguments come in many pieces."""
    parts = [b'{\\"text\\":\\"', *([b"abc defg"] * (events - 7)), b'\\"}']
    piece = b'{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"%b"}}'
    data = [
        _START,
        _CALL,
        *(piece % part for part in parts),
        b'{"type":"content_block_stop","index":0}',
        _STOP,
        b'{"type":"message_stop"}',
    ]
    return [b"event: %b\ndata: %b\n\n" % (line.split(b'"')[3], line) for line in data]


def chat(events: int) -> list[bytes]:
    """Return the events of a chat stream: a text that comes in many pieces."""
    data = [
        _CHUNK % (b'{"role":"assistant","content":""}', b"null"),
        *([_CHUNK % (b'{"content":"abc defg"}', b"null")] * (events - 3)),
    ]
    return [b"data: %b\n\n" % line for line in [*data, _CHUNK % (b"{}", b'"stop"'), b"[DONE]"]]


def decode(chunks: list[bytes]) -> None:
    """Decode one reply."""
    decoder = ReplyDecoder()
    decoder.head(200, {})
    for chunk in chunks:
        decoder.feed(chunk)
    if not isinstance(decoder.finish(Ended(how="complete"), now=0), Reply):
        raise SystemExit("the benchmark's own stream does not decode")


def fastest_us(run: Callable[[], object]) -> float:
    """Return the microseconds of one call, of the fastest round."""
    return min(timeit.repeat(run, number=CALLS, repeat=ROUNDS)) / CALLS * 1e6


def main() -> int:
    """Print the table; return 1 where the bound is missed."""
    missed = False
    parse = msgspec.json.Decoder().decode
    print(f"{'form':10}{'events':>7}{'reads':>10}{'us/answer':>11}{'us/event':>10}{'json':>7}{'over':>7}")
    for name, make in (("messages", messages), ("chat", chat)):
        for count in (250, 25):
            events = make(count)
            body = b"".join(events)
            lines = [line for event in events if (line := event.partition(b"data: ")[2].strip()) != b"[DONE]"]
            json_us = fastest_us(lambda lines=lines: [parse(line) for line in lines]) / count  # type: ignore[misc]  # bound now
            reads = {"one": [body], "4 KB": [body[at : at + 4096] for at in range(0, len(body), 4096)], "an event": events}
            for read, chunks in reads.items():
                each = fastest_us(lambda chunks=chunks: decode(chunks)) / count  # type: ignore[misc]  # bound now
                missed |= count == 250 and read != "an event" and each - json_us > BOUND_US
                print(f"{name:10}{count:7}{read:>10}{each * count:11.1f}{each:10.2f}{json_us:7.2f}{each - json_us:7.2f}")
    builder = BodyBuilder(RequestSpec(model=("m",)))
    row = Sample(index=0, id="0", messages=b'[{"role":"user","content":"%b"}]' % (b"x" * 2000), tools=b'[{"name":"f"}]')
    print(f"a request body: {fastest_us(lambda: builder.request(row, 'm', 0)):.2f} us")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
