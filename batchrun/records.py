"""The nouns: every value that walks from a dataset to `results.parquet`.

One row's way: `Sample` (a dataset row) → `Request` (bytes to send) → `Reply` or `Failure` (what the
wire said) → `Attempt` (that, with its clocks; what the journal holds) → `Score` and `Cost` → `Row`
(one line of `results.parquet`).

All are frozen msgspec structs: the journal encodes them as they are, without what nobody told, and building one
costs a fraction of a frozen dataclass. JSON that we only carry stays JSON *text*, byte for byte as it came
(`bytes` on the way to the endpoint, `str` on the way to Parquet): big integers, key order and escapes
survive because nobody decoded them. This module refuses to know where values come from or go to.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final, Literal

from msgspec import Struct

Form = Literal["anthropic_sse", "anthropic_json", "openai_sse", "openai_json"]
"""Which of the four reply forms arrived, told by the bytes and never by what was asked for."""

Status = Literal["succeeded", "errored", "canceled", "expired"]
"""What became of a call, in the Message Batches API's words."""

OutcomeKind = Literal[
    "correct",
    "wrong_call",
    "missing_call",
    "extra_call",
    "unexpected_call",
    "unknown_tool",
    "invalid_json",
    "schema_violation",
    "truncated",
    "refused",
    "infra_error",
    "unscored",
]
"""Contract 4. `infra_error` and `unscored` are outside accuracy's denominator."""

NOT_IN_DENOMINATOR: Final = frozenset({"infra_error", "unscored"})

FailureKind = Literal[
    "http",  # a non-2xx status
    "api_error",  # an error object or event inside a 2xx reply
    "connection",  # refused, reset, DNS, TLS: no complete reply head
    "timeout",  # connect, first byte, idle or total
    "truncated",  # ended before its stop reason
    "empty",  # 2xx with nothing in it
    "corrupt_event",  # an event before completion that cannot be decoded
    "redirect",  # 3xx: never followed
    "not_api",  # HTML or another thing that is no API reply
    "unknown_shape",  # JSON that is none of the four forms
    "too_large",  # over a size bound of ours
    "bad_row",  # the dataset row itself could not be turned into a request
    "interrupted",  # given up by us: drain, deadline
]

Retry = Literal["retry", "stop_row", "stop_run"]
"""What a failure asks for. `retry` waits `Failure.retry_after_s` if it is told, else backs off."""


class Secret:
    """A credential that no `repr`, `str`, format or pickle shows; `reveal()` is the one way out."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        """Hold the value."""
        self._value = value

    def reveal(self) -> str:
        """Return the credential itself: for the request head only."""
        return self._value

    def __repr__(self) -> str:
        """Show that there is one and nothing of it."""
        return "Secret(…)"

    __str__ = __repr__

    def __reduce__(self) -> str:
        """Refuse to be pickled."""
        raise TypeError("a Secret is not serialized")


class Sample(Struct, frozen=True, kw_only=True, gc=False):
    """One dataset row, its structured fields as the JSON text that arrived (UTF-8 bytes).

    `index` is the row's 0-based place in the whole dataset (before any sampling or sharding). `tools`
    bytes that repeat should be one shared object (intern them): a million rows have a few hundred.
    `messages` is always a JSON array (a `prompt` has been turned into one user message).
    """

    index: int
    id: str
    messages: bytes
    system: bytes | None = None  # JSON string or array of blocks
    tools: bytes | None = None  # JSON array, None: the job's tools
    tool_choice: bytes | None = None
    params: bytes | None = None  # JSON object: body fields for this row
    expected: bytes | None = None  # JSON (contract 3), None: not scored
    cluster: str | None = None
    tags: tuple[str, ...] = ()
    metadata: bytes | None = None  # JSON object: every other field of the row
    problem: str | None = None  # why the row cannot be sent (`on_bad_row = "skip"`): lands as errored


class Request(Struct, frozen=True, kw_only=True, gc=False):
    """One call, ready to send.

    `ordinal` numbers (row, model, repeat) over the run:
    `index * models * repeats + model_position * repeats + repeat`, so results sort by it.
    """

    ordinal: int
    model: str
    body: bytes  # the JSON body, UTF-8
    input_tokens: int  # estimate, for the gate and the budget
    max_tokens: int  # upper bound of output tokens
    prefix: int = 0  # rows with equal non-zero prefix share a cacheable head (model, tools, system)


class ToolUse(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One tool call as it arrived: `input` is the arguments' JSON text, None when it did not parse.

    `raw` is what arrived; `error` says why `input` is None: `invalid_json` (a syntax error, duplicate
    key, NaN, trailing bytes), `not_object`, `too_deep`, `too_large`, or `truncated` (cut by max_tokens).
    """

    id: str | None
    name: str
    input: str | None
    raw: str | None = None
    error: str | None = None


class Usage(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Token counts in disjoint kinds; None is "not told", never 0.

    `input_tokens` is uncached input only, in every reply form. `thinking_tokens` is the part of
    `output_tokens` spent on thinking (not added to it).
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_5m_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    thinking_tokens: int | None = None
    server_tool_use: dict[str, int] | None = None  # e.g. {"web_search_requests": 1}
    service_tier: str | None = None


class Reply(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A complete answer: a stop reason (chat form: a finish reason) was seen.

    `stop_reason` is in the Messages API's words; unknown ones pass through. `completions` and
    `logprobs` are JSON text, present when the reply held several completions or log-probabilities.
    `warnings` are short stable names; `unknown` counts events, blocks and deltas nobody knows.
    """

    form: Form
    text: str
    tool_uses: tuple[ToolUse, ...]
    stop_reason: str | None
    usage: Usage
    thinking: str | None = None
    stop_sequence: str | None = None
    message_id: str | None = None
    model: str | None = None
    completions: str | None = None
    logprobs: str | None = None
    warnings: tuple[str, ...] = ()
    unknown: int = 0


class Failure(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a call has no answer, whose fault it is not (the model's), and what to do next.

    `type` and `message` are the endpoint's own words where it had any. `retry_after_s` is a stated
    wait in seconds of any length, None when none was stated. `usage` is what had been reported before
    the end: it was billed and thrown away. `partial` is what had arrived, for the record, bounded.
    """

    kind: FailureKind
    retry: Retry
    message: str
    type: str | None = None
    status: int | None = None
    retry_after_s: float | None = None
    usage: Usage | None = None
    partial: str | None = None
    slows_run: bool = False  # a 429 or 529 (or the like in a stream): the whole run slows down


class Attempt(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One finished attempt: what the journal holds. Exactly one of `reply` and `failure` is set.

    `final` marks the landing of its row: the answer, or the failure after which we gave up. Attempts
    before it are journalled too when they cost something. Clocks are this attempt's alone, in
    milliseconds from its send; `queued_ms` is all waiting before the send.
    """

    ordinal: int
    attempt: int  # 1-based over the row's life
    final: bool
    status: Status
    model: str
    reply: Reply | None = None
    failure: Failure | None = None
    started_at_us: int | None = None  # microseconds since the epoch, at the send; None: never sent
    queued_ms: float | None = None
    ttft_ms: float | None = None  # send → first event (JSON reply: first byte)
    first_call_ms: float | None = None  # send → first tool_use block begun
    latency_ms: float | None = None  # send → end of the reply
    events: int = 0  # stream events, for inter-event gaps
    max_gap_ms: float | None = None
    http_status: int | None = None
    request_id: str | None = None
    cached_from: str | None = None  # run_id of the run whose answer this is (`--cache`); costs nothing
    cost_reserved: str | None = None  # decimal text: worst case reserved for it
    broke_off: bool = False  # sent, and neither answered nor refused

    @property
    def usage(self) -> Usage | None:
        """Return what was billed, of the answer or of what was thrown away."""
        if self.reply is not None:
            return self.reply.usage
        return self.failure.usage if self.failure is not None else None

    @property
    def billed_unseen(self) -> bool:
        """Whether it may have been billed and did not say for what: it broke off, or it was accepted and nothing was told."""
        accepted = self.http_status is not None and 200 <= self.http_status < 300
        return self.usage is None and (self.broke_off or accepted or self.cost_reserved is not None)


class CallScore(Struct, frozen=True, kw_only=True, gc=False):
    """One expected call, one call made, or the two matched with each other; counts are of arguments.

    An optional argument that is absent, and an unnamed one that equals its default, count nowhere.
    """

    tool: str
    expected: bool
    called: bool
    right: bool
    arguments_expected: int = 0
    arguments_given: int = 0
    arguments_right: int = 0


class ScoreDetail(Struct, frozen=True, kw_only=True):
    """What the metrics count of one answer beside its verdict."""

    should_call: bool | None  # None: both are right
    called: bool
    schema_valid: bool | None = None  # every call keeps its tool's schema; None: there was nothing to check
    invalid_json: int = 0  # calls whose arguments did not parse
    hallucinated: tuple[str, ...] = ()  # called names that no tool has
    calls: tuple[CallScore, ...] = ()


class Score(Struct, frozen=True, kw_only=True):
    """The verdict on one answer. `correct` is None where there is no verdict (not in the denominator)."""

    outcome: OutcomeKind
    correct: bool | None
    score: float | None  # partial credit in [0, 1]
    explanation: str | None = None
    detail: ScoreDetail | None = None


class Cost(Struct, frozen=True, kw_only=True):
    """Money for one row, in US dollars; None means a price or a count is not known, never 0.

    `usd` is the landed answer's, `wasted_usd` that of attempts billed and thrown away. `parts` maps a token
    kind (`input`, `output`, `cache_read`, `cache_write_5m`, `cache_write_1h`, server tools) to its money.
    """

    usd: Decimal | None
    wasted_usd: Decimal | None = None
    parts: dict[str, Decimal] = {}


class Row(Struct, frozen=True, kw_only=True):
    """One line of `results.parquet`; the fields are contract 5's columns, in its order."""

    id: str
    index: int
    model: str
    repeat: int
    status: Status
    outcome: OutcomeKind
    correct: bool | None
    score: float | None
    explanation: str | None
    tool_calls: tuple[ToolUse, ...]
    expected: str | None
    text: str | None
    thinking: str | None
    stop_reason: str | None
    completions: str | None
    logprobs: str | None
    input_tokens: int | None
    output_tokens: int | None
    cache_read_tokens: int | None
    cache_write_5m_tokens: int | None
    cache_write_1h_tokens: int | None
    thinking_tokens: int | None
    cost_usd: Decimal | None
    wasted_usd: Decimal | None
    queued_ms: float | None
    ttft_ms: float | None
    first_call_ms: float | None
    latency_ms: float | None
    attempts: int
    http_status: int | None
    error_type: str | None
    error_message: str | None
    request_id: str | None
    message_id: str | None
    response_model: str | None
    started_at: int | None  # microseconds since the epoch, UTC
    tags: tuple[str, ...]
    cluster: str | None
    metadata: str | None


EndedHow = Literal[
    "complete",  # the HTTP body ended where its framing says
    "closed",  # FIN before that
    "reset",  # RST or another socket error before that
    "connect",  # no connection: refused, DNS, unreachable
    "tls",  # the handshake or the certificate
    "bad_http",  # what came is not HTTP
    "timeout_connect",
    "timeout_first_byte",
    "timeout_idle",
    "timeout_total",
    "too_large",  # over `endpoint.max_reply_mb`, or a head over its bound
    "enough",  # the receiver had seen all it wanted and we closed
]


class Ended(Struct, frozen=True, kw_only=True, gc=False):
    """How an exchange ended, told by `transport` and judged by `wire`: where the bytes stopped, and why."""

    how: EndedHow
    message: str = ""
