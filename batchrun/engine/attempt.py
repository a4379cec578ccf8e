"""One exchange: the bytes of one reply go through here to the decoder, and its clocks are taken on the way.

An `Exchange` is the transport's receiver for a single attempt. It asks for every byte at once (`eager`)
only while a time is still to be taken: until the first event and, where the request offers tools, the first
call. Clocks run from this attempt's own send; all waiting before it is `queued_ms`. It refuses to know
what the bytes mean, why an attempt is made and what follows it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Final

from batchrun.engine.ports import Decoder
from batchrun.records import Attempt, Ended, EndedHow, Failure, Reply, Request, Status

NEVER_SENT: Final[frozenset[EndedHow]] = frozenset({"connect", "tls", "timeout_connect"})
TOOLS_KEY: Final = b'"tools"'  # a body without it offers no tool; a false match only costs eagerness
_NO_HEADERS: Final[Mapping[str, str]] = {}


class Call:
    """One row's way through the engine: its request, how often it was tried, since when it waits."""

    __slots__ = ("attempt", "cache_key", "first_sent_at", "leads", "ready_at", "refused_at", "request", "worst_case")

    def __init__(self, request: Request, ready_at: float, *, leads: bool = False) -> None:
        """A row that was never tried, waiting since `ready_at` (the event loop's time, as all times here)."""
        self.request = request
        self.attempt = 1
        self.ready_at = ready_at
        self.first_sent_at: float | None = None
        self.refused_at: float | None = None  # the first time, where the refusal may be the row's alone
        self.worst_case: Decimal | None = None  # what the money budget has set aside for the try under way
        self.leads = leads  # the other rows of its prefix wait for its first event
        self.cache_key: bytes | None = None  # its place in the response cache, once looked up


class Exchange:
    """The receiver of one attempt. `on_begun(exchange, at)` is called once, when a good reply has begun."""

    __slots__ = (
        "_begun",
        "_decoder",
        "_first_call_at",
        "_first_event_at",
        "_last_at",
        "_on_begun",
        "_wants_calls",
        "call",
        "eager",
        "headers",
        "marks",
        "max_gap",
        "sent_at",
        "status",
    )

    def __init__(self, call: Call, decoder: Decoder, on_begun: Callable[[Exchange, float], None]) -> None:
        """Feed `decoder` with the reply to `call`."""
        self.call = call
        self._decoder = decoder
        self._on_begun = on_begun
        self._begun = False
        self._wants_calls = TOOLS_KEY in call.request.body
        self._first_event_at: float | None = None
        self._first_call_at: float | None = None
        self._last_at = 0.0
        self.eager = True
        self.max_gap = 0.0  # of silence since the first event; the transport's
        self.marks: tuple[bytes, ...] = ()  # bytes at which a time could still be taken; none named: at any
        self.sent_at: float | None = None
        self.status: int | None = None
        self.headers = _NO_HEADERS

    def sent(self, at: float) -> None:
        """Start the clocks."""
        self.sent_at = at

    def head(self, status: int, headers: Mapping[str, str], at: float) -> None:  # noqa: ARG002 - the receiver's signature
        """Keep the head and hand it to the decoder."""
        self.status = status
        self.headers = headers
        self._decoder.head(status, headers)

    def data(self, chunk: bytes, at: float) -> None:
        """Hand the bytes to the decoder; `at` is when they arrived."""
        decoder = self._decoder
        if not decoder.complete:
            self._last_at = at
        decoder.feed(chunk)
        if self.eager:
            self._take_first(at)

    def _take_first(self, at: float) -> None:
        """Take the times that are still missing, and stop being eager when none is."""
        decoder = self._decoder
        if self._first_event_at is None and decoder.first_event:
            self._first_event_at = at
            self.max_gap = 0.0
            if not decoder.complete:  # else it may be an error: only its end tells
                self.begin(at)
        if self._first_call_at is None and decoder.first_call:
            self._first_call_at = at
        has_event = self._first_event_at is not None
        if has_event and "content-encoding" not in self.headers:
            self.marks = decoder.call_marks
        self.eager = not (has_event and (self._first_call_at is not None or not self._wants_calls)) and not decoder.complete

    def begin(self, at: float) -> None:
        """Report once that a good reply has begun; an error status is none."""
        if not self._begun and self.status is not None and 200 <= self.status < 300:
            self._begun = True
            self._on_begun(self, at)

    @property
    def done(self) -> bool:
        """Whether the reply is complete."""
        return self._decoder.complete

    def finish(self, ended: Ended, *, wall: float) -> Reply | Failure:
        """Return what the exchange came to; `wall` is now in seconds since the epoch."""
        return self._decoder.finish(ended, now=wall)

    def attempt(self, result: Reply | Failure, *, final: bool, now: float, wall_offset: float) -> Attempt:
        """Return the record of this attempt, ended `now`; `wall_offset` turns loop time into epoch seconds."""
        call, sent_at = self.call, self.sent_at
        reply, failure = (result, None) if isinstance(result, Reply) else (None, result)
        ended_at = self._last_at if reply is not None and self._last_at else now
        return Attempt(
            ordinal=call.request.ordinal,
            attempt=call.attempt,
            final=final,
            status=_status(failure),
            model=call.request.model,
            reply=reply,
            failure=failure,
            started_at_us=None if sent_at is None else int((sent_at + wall_offset) * 1e6),
            queued_ms=_ms(call.ready_at, now if sent_at is None else sent_at),
            ttft_ms=_ms(sent_at, self._first_event_at),
            first_call_ms=_ms(sent_at, self._first_call_at),
            latency_ms=_ms(sent_at, ended_at),
            events=self._decoder.events,
            max_gap_ms=_ms(0.0, self.max_gap) if self.max_gap else None,
            http_status=self.status,
            request_id=self.headers.get("request-id") or self.headers.get("x-request-id"),
        )


def _status(failure: Failure | None) -> Status:
    """Return the attempt's status in the Message Batches API's words."""
    if failure is None:
        return "succeeded"
    return "canceled" if failure.kind == "interrupted" else "errored"


def _ms(begin: float | None, end: float | None) -> float | None:
    """Return the milliseconds between two moments, to the microsecond; None where one is missing."""
    return None if begin is None or end is None else math.floor((end - begin) * 1e6 + 0.5) / 1000  # `round` is far slower


def broke_off(attempt: Attempt, ended: EndedHow | None) -> bool:
    """Tell whether an attempt was sent and neither answered nor refused: it may have been billed for more than it told.

    `ended` is how its exchange ended, None where we broke it off.
    """
    refused = attempt.http_status is not None and not 200 <= attempt.http_status < 300
    return attempt.reply is None and not refused and attempt.started_at_us is not None and ended not in NEVER_SENT
