"""One response in, one verdict out: forms told by bytes, bounds kept, and no verdict that depends on the chunks."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from batchrun.records import Ended, EndedHow, Failure, Reply, Usage
from batchrun.wire import stream
from batchrun.wire.reply import MAX_ERROR_BODY, MAX_PARTIAL, ReplyDecoder

Answer = Callable[..., Reply]
Fail = Callable[..., Failure]
Read = Callable[..., Reply | Failure]

CORPUS = Path(__file__).parent / "corpus"
BODY = (CORPUS / "002-sse-tool-after-text" / "response.raw").read_bytes()
MESSAGE = b'{"type":"message","id":"x","content":[{"type":"text","text":"a"}],"stop_reason":"end_turn"}'
LINES = b"".join(line[6:] + b"\n" for line in BODY.split(b"\n") if line.startswith(b"data: "))


@pytest.mark.parametrize(
    ("body", "form"),
    [
        (BODY, "anthropic_sse"),
        (b"\xef\xbb\xbf" + BODY, "anthropic_sse"),
        (b"\n\n \r\n" + BODY, "anthropic_sse"),
        (BODY.replace(b"\n", b"\r\n"), "anthropic_sse"),
        (BODY.replace(b"\n", b"\r"), "anthropic_sse"),
        (BODY.replace(b"\n\n", b"\n: keep-alive\n\n\n"), "anthropic_sse"),
        (BODY.replace(b"event: ", b"event:"), "anthropic_sse"),
        (BODY.rstrip(b"\n"), "anthropic_sse"),
        (LINES, "anthropic_sse"),
        (LINES.replace(b"\n", b"\r\n\r\n"), "anthropic_sse"),
        (LINES.rstrip(b"\n"), "anthropic_sse"),
        (b"\r\n" + LINES, "anthropic_sse"),
        (b"\xef\xbb\xbf" + MESSAGE, "anthropic_json"),
        (MESSAGE + b"\n\ndata: [DONE]\n\n", "anthropic_json"),
        (MESSAGE.replace(b'"text":"a"', b'"text":"\xff"'), "anthropic_json"),
        (b'{\n"content":[],"stop_reason":"end_turn"}', "anthropic_json"),
    ],
)
def test_the_form_is_told_by_the_bytes(body: bytes, form: str, answer: Answer) -> None:
    assert answer(body, headers={"content-type": "text/html"}).form == form


def test_an_integer_of_any_length_is_the_model_s_in_every_form(answer: Answer) -> None:
    """Python's own limit on the digits of an integer is no end of a document."""
    digits = b'{"a":%b}' % (b"9" * 5_000)
    whole = MESSAGE.replace(b'{"type":"text","text":"a"}', b'{"type":"tool_use","id":"t","name":"f","input":%b}' % digits)
    (use,) = answer(whole).tool_uses
    assert (use.input, use.raw, use.error) == (None, digits.decode(), "too_large")


@pytest.mark.parametrize(
    ("body", "kind", "retry"),
    [
        (b"", "empty", "retry"),
        (b" \r\n", "empty", "retry"),
        (b"\xef\xbb", "empty", "retry"),
        (b": ok\n\n: ok\n\n", "empty", "retry"),
        (b"data: [DONE]\n\n", "empty", "retry"),
        (b"data:\n\ndata: \n\n", "empty", "retry"),
        (b"event: ping\ndata: {}\n\n", "truncated", "retry"),
        (b"e", "truncated", "retry"),
        (b"dat", "truncated", "retry"),
        (b"data: {", "truncated", "retry"),
        (b":", "truncated", "retry"),
        (b": ok\n\nev", "truncated", "retry"),
        (b"error", "not_api", "stop_row"),
        (b"<!DOCTYPE html><html>login</html>", "not_api", "stop_row"),
        (b"upstream connect error or disconnect/reset before headers", "not_api", "stop_row"),
        (b"error code: 524\n", "not_api", "stop_row"),
        (b'"just text"', "not_api", "stop_row"),
        (b'{"ok":true,"result":"hello"}', "unknown_shape", "stop_row"),
        (b"[]", "unknown_shape", "stop_row"),
        (b"[1]", "unknown_shape", "stop_row"),
        (b'{"a":' + b"[" * 1000, "unknown_shape", "stop_row"),
        (MESSAGE[:-10], "truncated", "retry"),
        (b"[oops", "truncated", "retry"),
        (LINES[:500], "truncated", "retry"),
        (b'{"type":"message_start","message":{}}', "truncated", "retry"),
        (BODY[:500], "truncated", "retry"),
        (b"data: {oops\n\n" + BODY, "corrupt_event", "retry"),
        (LINES.replace(b'"index":0}', b'"index"}', 1), "corrupt_event", "retry"),
        (b'data: {"type":"response.created"}\n\n', "truncated", "retry"),
        (b'{"type":"error","error":{"type":"overloaded_error","message":"m"}}', "api_error", "retry"),
        (b'{"error":"text"}', "api_error", "retry"),
        (b'{"detail":"Invalid token"}', "api_error", "retry"),
        (b'{"code":401,"msg":"token expired","data":null}', "api_error", "stop_run"),
        (b'[{"error":{"code":400,"message":"m","status":"INVALID_ARGUMENT"}}]', "api_error", "stop_row"),
        (b'{"error":{"message":"m","type":"x"},"choices":[]}', "api_error", "retry"),
        (b'{"choices":[],"code":429,"msg":"slow"}', "api_error", "retry"),
        (
            b'event: error\ndata: {"type":"error","error":{"type":"invalid_request_error","message":"m"}}\n\n',
            "api_error",
            "stop_row",
        ),
        (b'event: error\ndata: {"message":"m","code":429}\n\n', "api_error", "retry"),
        (b'event: error\ndata: {"reason":"m"}\n\n', "api_error", "retry"),
        (b"event: error\ndata: upstream connect error\n\n", "api_error", "retry"),
        (b"event: error\ndata: upstream conn", "api_error", "retry"),
        (b'data: {"error":{"message":"m","type":"insufficient_quota"}}\n\n', "api_error", "stop_run"),
        (b'data: {"error":"text"}\n\n', "api_error", "retry"),
        (b'data: {"code":401,"msg":"expired"}\n\n', "api_error", "stop_run"),
        (b'data: {"odd":1}\n\ndata: 7\n\n', "empty", "retry"),
        (BODY[:700] + b'\n\n{"type":"error","error":{"type":"overloaded_error","message":"m"}}\n', "api_error", "retry"),
    ],
)
def test_what_is_no_answer_is_named(body: bytes, kind: str, retry: str, failure: Fail) -> None:
    found = failure(body)
    assert (found.kind, found.retry, found.status) == (kind, retry, 200)


def test_the_first_error_wins(failure: Fail) -> None:
    errors = [
        b'{"type":"error","error":{"type":"%b","message":"m"}}' % kind for kind in (b"overloaded_error", b"invalid_request_error")
    ]
    for between in (b"\n", b"\n\n"):
        assert failure(BODY[:700] + b"\n\n" + between.join(errors)).type == "overloaded_error"


def test_what_had_arrived_is_kept(failure: Fail) -> None:
    found = failure(BODY[:600] + b"\n\ndata: {oops\n\n" + BODY)
    assert found.usage is not None
    assert found.usage.input_tokens == 377
    assert found.partial is not None
    assert found.partial.startswith(BODY[:600].decode())
    assert len(failure(b": x\n" * MAX_PARTIAL).partial or "") == MAX_PARTIAL


@pytest.mark.parametrize("how", get_args(EndedHow))
def test_a_complete_answer_survives_every_end(how: EndedHow, answer: Answer) -> None:
    assert answer(BODY, ended=Ended(how=how)).stop_reason == "tool_use"
    assert answer(MESSAGE, ended=Ended(how=how)).stop_reason == "end_turn"


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("closed", "connection"),
        ("reset", "connection"),
        ("timeout_idle", "timeout"),
        ("timeout_total", "timeout"),
        ("too_large", "too_large"),
    ],
)
def test_an_incomplete_answer_ends_as_its_exchange_did(how: EndedHow, kind: str, failure: Fail) -> None:
    for body in (BODY[:500], MESSAGE[:30], b"", b": ping\n\n"):
        assert failure(body, ended=Ended(how=how)).kind == kind


def test_no_response_at_all() -> None:
    found = ReplyDecoder().finish(Ended(how="connect", message="refused"), now=0)
    assert isinstance(found, Failure)
    assert (found.kind, found.status, found.retry) == ("connection", None, "retry")


def test_http_errors_are_judged_whatever_their_body(failure: Fail) -> None:
    body = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"m"}}\n\n'
    found = failure(body, status=529, ended=Ended(how="closed"))
    assert (found.kind, found.type, found.slows_run) == ("http", "overloaded_error", True)
    assert failure(gzip.compress(body), status=529, headers={"content-encoding": "gzip"}).type == "overloaded_error"
    assert failure(b"x" * (2 * MAX_ERROR_BODY), status=500).kind == "http"
    assert failure(b"", status=302, headers={"location": "/login"}).kind == "redirect"


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
}


@pytest.mark.parametrize("name", ENCODERS)
def test_content_encodings(name: str, answer: Answer, failure: Fail) -> None:
    packed = ENCODERS[name](BODY)
    assert answer(packed, headers={"content-encoding": name}).stop_reason == "tool_use"
    assert failure(packed[: len(packed) // 2], headers={"content-encoding": name}).kind in {"truncated", "empty"}


def test_content_encodings_are_not_trusted(answer: Answer, failure: Fail) -> None:
    assert answer(gzip.compress(BODY)).stop_reason == "tool_use"
    assert answer(BODY, headers={"content-encoding": "gzip"}).stop_reason == "tool_use"
    assert failure(BODY, headers={"content-encoding": "compress"}).kind == "not_api"


def test_damaged_content(answer: Answer, failure: Fail) -> None:
    """Damage after the end is ignored, damage before it spoils the attempt."""
    packed = gzip.compress(BODY, mtime=0)
    assert answer(packed[:-8] + b"\0" * 8, headers={"content-encoding": "gzip"}).stop_reason == "tool_use"
    document = gzip.compress(MESSAGE, mtime=0)[:-8] + b"\0" * 8
    assert answer(document, headers={"content-encoding": "gzip"}).text == "a"
    wrong = packed[:40] + b"\xff" * 20 + packed[60:]
    assert failure(wrong, headers={"content-encoding": "gzip"}).kind == "corrupt_event"
    assert failure(wrong + wrong, headers={"content-encoding": "gzip"}).kind == "corrupt_event"


@pytest.mark.parametrize("body", [BODY[:600] + b"data: " + b"x" * 5000, b'{"content":"' + b"x" * 5000, b"<" * 5000, b"x" * 5000])
def test_size_is_bounded(body: bytes, read: Read) -> None:
    for step in (1, 1000, 10_000):
        chunks = [body[at : at + step] for at in range(0, len(body), step)]
        found = read(chunks, max_bytes=1000)
        assert isinstance(found, Failure)
        assert (found.kind, found.retry) == ("too_large", "stop_row")


def test_an_answer_within_the_bound_is_one(answer: Answer, failure: Fail) -> None:
    assert answer(BODY + b": padding\n" * 1000, max_bytes=len(BODY)).stop_reason == "tool_use"
    assert answer(MESSAGE + b" " * 5000, max_bytes=1000).text == "a"
    zeros = gzip.compress(b"\n" * 10_000_000)
    assert failure(zeros, max_bytes=100_000, headers={"content-encoding": "gzip"}).kind == "too_large"


def test_milestones_are_told_as_soon_as_their_bytes_are_there() -> None:
    decoder = ReplyDecoder()
    decoder.head(200, {})
    seen: dict[str, int] = {}
    for at in range(len(BODY)):
        decoder.feed(BODY[at : at + 1])
        for name in ("first_event", "first_call", "complete"):
            if getattr(decoder, name):
                seen.setdefault(name, at + 1)
    assert seen == {
        "first_event": BODY.index(b"\n\n") + 2,
        "first_call": BODY.index(b"\n\n", BODY.index(b'"tool_use"')) + 2,
        "complete": len(BODY),
    }
    decoder.finish(Ended(how="enough"), now=0)
    assert decoder.events == BODY.count(b"data: ") - BODY.count(b"event: ping")


def test_pings_and_comments_are_no_first_event() -> None:
    decoder = ReplyDecoder()
    decoder.head(200, {})
    decoder.feed(b': hello\n\nevent: ping\ndata: {}\n\ndata: {"type":"ping"}\n\n')
    assert not decoder.first_event
    decoder.feed(BODY)
    assert decoder.complete


def test_milestones_of_the_other_forms() -> None:
    decoder = ReplyDecoder()
    decoder.head(200, {})
    decoder.feed(MESSAGE)
    assert (decoder.first_event, decoder.first_call, decoder.complete) == (True, False, False)
    chat = ReplyDecoder()
    chat.head(200, {})
    chat.feed(b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n')
    assert (chat.first_event, chat.first_call) == (True, False)
    chat.feed(b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"name":"f"}}]}}]}\n\n')
    assert chat.first_call
    chat.feed(b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DO')
    assert not chat.complete
    chat.feed(b"NE]\n\n")
    assert chat.complete


def test_a_failure_is_told_at_once() -> None:
    decoder = ReplyDecoder()
    decoder.head(200, {})
    decoder.feed(BODY[:600] + b'\n\nevent: error\ndata: {"error":{"type":"overloaded_error","message":"m"}}\n\n')
    assert decoder.complete


def test_large_streams_are_looked_at_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is, where the extension does not look at them."""
    monkeypatch.setattr(stream, "Answer", None)
    decoder = ReplyDecoder()
    decoder.head(200, {})
    decoder.feed(BODY.partition(b"event: message_delta")[0])
    event = b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"abc"}}\n\n'
    for _ in range(2000):
        decoder.feed(event)
    assert 900 < decoder.events < 2000
    found = decoder.finish(Ended(how="complete"), now=0)
    assert isinstance(found, Failure)
    assert decoder.events > 2000


def test_events_of_the_other_form_are_unknown(answer: Answer) -> None:
    foreign = b'data: {"choices":[{"index":0,"delta":{"content":"no"},"finish_reason":"stop"}]}\n\n'
    start, _, rest = BODY.partition(b"\n\n")
    reply = answer(start + b"\n\n" + foreign + rest)
    assert (reply.form, reply.unknown) == ("anthropic_sse", 1)
    assert answer(b'data: {"type":"ping"}\n\n' + foreign + b'data: {"type":"message_stop"}\n\n').text == "no"


def read_whole(
    chunks: list[bytes], status: int = 200, headers: Mapping[str, str] | None = None, **options: Any
) -> Reply | Failure:
    """Decode chunks without a fixture, as hypothesis wants it."""
    decoder = ReplyDecoder(max_bytes=options.get("max_bytes", 1 << 20))
    decoder.head(status, headers or {})
    for chunk in chunks:
        decoder.feed(chunk)
    return decoder.finish(options.get("ended", Ended(how="complete")), now=0)


@pytest.mark.parametrize("first", [b"\r\n{", b"\n", b"\xef\xbb\xbf\n{"])
def test_white_space_before_the_first_line_is_not_its_end(first: bytes) -> None:
    reply = read_whole([first, LINES.removeprefix(b"{") if first.endswith(b"{") else LINES])
    assert isinstance(reply, Reply)
    assert reply == read_whole([LINES])


PARTS = st.sampled_from(
    [
        *(part + b"\n\n" for part in BODY.split(b"\n\n") if part),
        b"data: [DONE]\n\n",
        b"data: {oops\n\n",
        b": c\n",
        b"\r\n",
        b"\r",
        b'event: error\ndata: {"error":{"type":"overloaded_error"}}\n\n',
        b"event: error\ndata: words\n\n",
        b'data: {"type":"new"}\n\n',
        b'data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"\\ud83d"}}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":3}}\n\n',
        MESSAGE,
        b'{"a":\n',
        LINES,
        b"<p>",
        b"\xef\xbb\xbf",
        b"event: ping\ndata: {\ndata: }\n\n",
        b'data: {"type":"ping","type":"message_stop"}\n\n',
        b"data: " + b"[" * 300 + b"\n\n",
        b"\xff\xfe",
        b"\x1f\x8b",
        gzip.compress(BODY, mtime=0),
    ]
)


@given(
    parts=st.lists(PARTS, max_size=8),
    data=st.data(),
    how=st.sampled_from(get_args(EndedHow)),
    limit=st.sampled_from([700, 1 << 20]),
)
def test_no_verdict_depends_on_the_chunks(parts: list[bytes], data: st.DataObject, how: EndedHow, limit: int) -> None:
    body = b"".join(parts)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(body)), max_size=20)))
    chunks = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    options: dict[str, Any] = {"ended": Ended(how=how), "max_bytes": limit}
    expected = read_whole([body], **options)
    assert read_whole(chunks, **options) == expected
    assert read_whole([body[at : at + 1] for at in range(len(body))], **options) == expected
    if isinstance(expected, Reply):
        json.dumps([use.input for use in expected.tool_uses]).encode()
        expected.text.encode()


@given(st.binary(max_size=300), st.sampled_from(["", "gzip", "deflate", "br", "zstd", "gzip, br"]), st.integers(100, 599))
def test_no_bytes_break_it(body: bytes, encoding: str, status: int) -> None:
    options: dict[str, Any] = {"status": status, "headers": {"content-encoding": encoding}}
    assert read_whole([body], **options) == read_whole([body[at : at + 1] for at in range(len(body))], **options)


def test_usage_of_a_failure_in_a_document(failure: Fail) -> None:
    found = failure(
        b'{"choices":[{"message":{"content":"a"},"finish_reason":null}],"usage":{"prompt_tokens":5,"completion_tokens":2}}'
    )
    assert (found.kind, found.usage) == ("truncated", Usage(input_tokens=5, output_tokens=2))
