"""The calls of the Batches endpoint: create, ask, list, cancel, download. Each gives its answer or a `Failure`.

`POST/GET /v1/messages/batches`, `GET …/{id}`, `POST …/{id}/cancel`, `GET …/{id}/results`, as the API documents them.
Results are read line by line as they come, whatever the file's size; `results_url` is not followed, since it may
name another origin. A 2xx reply that cannot be read is somebody else's (a proxy's page) or was cut: one may ask again, and
must not submit again. Refuses to know what a batch is for, when to ask again, and what anything costs.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import datetime
from typing import Final, NamedTuple, Protocol, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from batchrun.engine.attempt import NEVER_SENT
from batchrun.records import Ended, Failure, Retry
from batchrun.transport.base import Receiver, SmallReply
from batchrun.wire.content import ContentDecoder, DamagedError, TooLargeError
from batchrun.wire.status import Oddity, classify_end, classify_http, classify_oddity

BATCHES_PATH: Final = "/v1/messages/batches"
PAGE: Final = 100
MAX_ERROR_BODY: Final = 64 * 1024
ENOUGH_BYTES: Final = 1 << 50  # a download has no bound but that of its lines

NEVER_ACCEPTED: Final = frozenset(range(400, 500)) - {408, 409, 425, 499} | {529}
"""Statuses that refuse a batch for certain; after any other, it may have been created all the same."""

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
Found = TypeVar("Found")


class Transport(Protocol):
    """What this needs of a transport."""

    async def get(self, path: str, receiver: Receiver) -> Ended:
        """GET a long download."""

    async def request(self, method: str, path: str, body: bytes | None = None, *, once: bool = False) -> SmallReply:
        """Make one small JSON call; `once`: never send it a second time."""


class BatchStatus(Struct, frozen=True, kw_only=True):
    """The API's `MessageBatch` object, as far as it is used."""

    id: str
    processing_status: str  # in_progress, canceling, ended
    request_counts: dict[str, int] = {}
    created_at: datetime | None = None
    archived_at: datetime | None = None
    cancel_initiated_at: datetime | None = None

    @property
    def ended(self) -> bool:
        """Whether every request of it has a result."""
        return self.processing_status == "ended"

    @property
    def count(self) -> int:
        """Return how many requests are in it: its counts always add up to that."""
        return sum(self.request_counts.values())


class Refusal(NamedTuple):
    """Why a batch was not seen to be created. `certain`: it was not; else somebody has to look."""

    failure: Failure
    certain: bool


class _Page(Struct, frozen=True, kw_only=True):
    """One page of the list, the newest batch first."""

    data: list[BatchStatus]
    has_more: bool = False
    last_id: str | None = None


_status: Final = msgspec.json.Decoder(BatchStatus).decode
_page: Final = msgspec.json.Decoder(_Page).decode


class BatchEndpoint:
    """One endpoint's batches."""

    def __init__(self, transport: Transport, *, max_line: int) -> None:
        """`max_line` bounds one line of results, in bytes."""
        self._transport = transport
        self._max_line = max_line

    async def create(self, body: bytes) -> BatchStatus | Refusal:
        """Submit a batch."""
        reply = await self._transport.request("POST", BATCHES_PATH, body, once=True)
        found = _one(reply, unreadable="stop_run")
        if isinstance(found, BatchStatus):
            return found
        return Refusal(found, reply.status in NEVER_ACCEPTED or (reply.status is None and reply.ended.how in NEVER_SENT))

    async def show(self, batch: str) -> BatchStatus | Failure:
        """Ask how far a batch is."""
        return _one(await self._transport.request("GET", f"{BATCHES_PATH}/{batch}"))

    async def cancel(self, batch: str) -> BatchStatus | Failure:
        """Ask for a batch to be stopped; what has been processed by then keeps its result."""
        return _one(await self._transport.request("POST", f"{BATCHES_PATH}/{batch}/cancel"))

    async def recent(self, since: float) -> AsyncGenerator[BatchStatus | Failure, None]:
        """Yield the batches of the workspace created after `since` (epoch seconds), the newest first; a failure ends it."""
        after = ""
        while True:
            reply = await self._transport.request("GET", f"{BATCHES_PATH}?limit={PAGE}{after}")
            page = _read(reply, _page)
            if isinstance(page, Failure):
                yield page
                return
            for batch in page.data:
                if batch.created_at is not None and batch.created_at.timestamp() < since:
                    return
                yield batch
            if not page.has_more or page.last_id is None or _ID.fullmatch(page.last_id) is None:
                return
            after = f"&after_id={page.last_id}"

    async def download(self, batch: str, on_line: Callable[[bytes], bool]) -> Failure | None:
        """Hand each line of a batch's results to `on_line` until it returns False; return why the end was not reached.

        A line that the connection was cut in is not handed on.
        """
        lines = Lines(on_line, self._max_line)
        ended = await self._transport.get(f"{BATCHES_PATH}/{batch}/results", lines)
        return lines.finish(ended)


class Lines:
    """The receiver of a download: bytes in, whole lines out."""

    eager = False
    marks: tuple[bytes, ...] = ()
    max_gap = 0.0

    def __init__(self, on_line: Callable[[bytes], bool], max_line: int) -> None:
        """Hand whole lines to `on_line`."""
        self.done = False
        self._on_line = on_line
        self._max_line = max_line
        self._status: int | None = None
        self._headers: Mapping[str, str] = {}
        self._content: ContentDecoder | None = None
        self._rest = bytearray()
        self._spoiled: Oddity | None = None

    def sent(self, at: float) -> None:
        """Take no note of the time."""

    def head(self, status: int, headers: Mapping[str, str], at: float) -> None:  # noqa: ARG002 - the receiver's signature
        """Keep the head."""
        self._status, self._headers = status, headers
        encoding = headers.get("content-encoding")
        try:
            self._content = ContentDecoder(encoding, ENOUGH_BYTES) if encoding else None
        except DamagedError as error:
            self._spoil(Oddity("not_api", str(error)))

    def data(self, chunk: bytes, at: float) -> None:  # noqa: ARG002 - the receiver's signature
        """Take the next bytes."""
        if self.done:
            return
        if self._content is None:
            self._take(chunk)
            return
        try:
            for piece in self._content.feed(chunk):
                self._take(piece)
        except (DamagedError, TooLargeError) as error:
            self._spoil(Oddity("corrupt_event", f"the content-encoding is damaged: {error}"))

    def finish(self, ended: Ended) -> Failure | None:
        """Return why the download is not whole, None where it is, or where no more of it was wanted."""
        if self._spoiled is not None:
            return classify_oddity(self._spoiled, status=self._status or 200)
        if self._status is None:
            return classify_end(ended, status=None)
        if not 200 <= self._status < 300:
            return classify_http(self._status, self._headers, bytes(self._rest), now=time.time())
        if self.done:
            return None
        if ended.how == "complete":
            self._line(bytes(self._rest))  # the last line may have no line end
            return None
        return classify_end(ended, status=self._status)

    def _take(self, piece: bytes) -> None:
        """Cut decoded bytes into lines."""
        if self._status is None or not 200 <= self._status < 300:
            self._rest += piece[: max(0, MAX_ERROR_BODY - len(self._rest))]
            return
        *lines, rest = piece.split(b"\n")
        for line in lines:
            self._line(bytes(self._rest) + line)
            self._rest.clear()
        self._rest += rest
        if len(self._rest) > self._max_line:
            self._spoil(Oddity("too_large", f"a line of results is larger than {self._max_line} bytes"))

    def _line(self, line: bytes) -> None:
        if not self.done and line.strip() and not self._on_line(line):
            self.done = True

    def _spoil(self, why: Oddity) -> None:
        self._spoiled = why
        self.done = True


def _one(reply: SmallReply, *, unreadable: Retry = "retry") -> BatchStatus | Failure:
    """Return the batch that a reply describes; see `_read`."""
    found = _read(reply, _status, unreadable=unreadable)
    if isinstance(found, BatchStatus) and _ID.fullmatch(found.id) is None:
        return Failure(kind="unknown_shape", retry="stop_run", message=f"a batch with an unusable id: {found.id[:60]!r}")
    return found


def _read(reply: SmallReply, decode: Callable[[bytes], Found], *, unreadable: Retry = "retry") -> Found | Failure:
    """Return what a reply holds, or why it holds nothing; `unreadable` says what follows from one that makes no sense."""
    if reply.status is None:
        return classify_end(reply.ended, status=None)
    if not 200 <= reply.status < 300:
        return classify_http(reply.status, reply.headers, reply.body, now=time.time())
    try:
        body = reply.body
        if reply.headers.get("content-encoding"):
            body = b"".join(ContentDecoder(reply.headers["content-encoding"], ENOUGH_BYTES).feed(body))
        return decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, DamagedError, TooLargeError):
        if reply.ended.how != "complete":
            return classify_end(reply.ended, status=reply.status)
        oddity = Oddity("unknown_shape", "the reply is not what the Batches endpoint is documented to say")
        return replace(classify_oddity(oddity, status=reply.status), retry=unreadable)
