"""One connection, and at most one exchange on it.

Bytes are read into one buffer that all connections of a transport share (a read is parsed before the next
one begins), so that nothing is allocated a read. The exchange's end is a future of `Ended`; on the way there
are: the end of the reply, the loss of the connection, a time-out, and cancellation, which closes the socket.
It refuses to know requests' contents and where connections are kept.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from bisect import bisect_right
from collections.abc import Sequence
from operator import sub
from time import monotonic
from typing import Final, cast

from batchrun.records import Ended
from batchrun.transport.base import DRAIN_S, Bounds, Receiver
from batchrun.transport.own.deadlines import due_by
from batchrun.transport.own.reply import ReplyReader, first_mark
from batchrun.transport.own.shared import Shared
from batchrun.transport.own.tls import Tls

_GIVEN_UP: Final = Ended(how="closed", message="the transport was closed")

_CONFIRM_S: Final = 0.002
"""Silence counts once the loop has polled its sockets again: after a long computation bytes may be waiting."""


class Connection(asyncio.BufferedProtocol):
    """A connected socket. `alive` until it is lost or closed; `untouched` while a reply's first byte is out.

    `unwritten` is a request that has not left yet; where it leaves on a kept connection, its receiver's clock begins.

    The loop reads it, until it leaves the loop (`_away`): then it is read when `pacing` says, which knows of the arrivals
    since the last read. `_descriptor` is the socket's, from the first time on that the connection leaves.
    """

    __slots__ = (
        "_away",
        "_bounds",
        "_descriptor",
        "_done_at",
        "_ended",
        "_exact",
        "_first_at",
        "_last_at",
        "_reader",
        "_receiver",
        "_secured",
        "_shared",
        "_started",
        "_tls",
        "_transport",
        "alive",
        "check_at",
        "idle_since",
        "untouched",
        "unwritten",
    )

    def __init__(self, shared: Shared, tls: Tls | None) -> None:
        """Begin without a socket: asyncio gives it in `connection_made`."""
        self._shared = shared
        self._transport: asyncio.Transport | None = None
        self._tls = tls
        self._secured = shared.loop.create_future() if tls is not None else None
        self._reader: ReplyReader | None = None
        self._receiver: Receiver | None = None
        self._ended: asyncio.Future[Ended] | None = None
        self._bounds: Bounds | None = None
        self._started = 0.0
        self._first_at: float | None = None  # of the body
        self._last_at = 0.0
        self._done_at: float | None = None
        self._away = False
        self._exact = False  # the times of what gathers matter
        self._descriptor: int | None = None
        self.check_at = 0.0
        self.idle_since = 0.0
        self.alive = False
        self.untouched = True
        self.unwritten = b""

    @property
    def usable(self) -> bool:
        """Whether a request can be written now."""
        return self.alive and self._transport is not None and not self._transport.is_closing()

    async def secured(self) -> None:
        """Wait for the end of the TLS handshake, where there is one. Raises what ended it, an `OSError`; then this is closed."""
        try:
            if self._secured is not None:
                await self._secured
        except BaseException:
            self.close()
            raise

    async def exchange(self, request: bytes, receiver: Receiver, bounds: Bounds, started: float | None = None) -> Ended:
        """Send `request`, push its reply into `receiver`, and return how that ended.

        `started` is when the receiver's clock began, with a connection that was opened for it; None: it begins with the write.
        """
        ended = self._begin(receiver, bounds, monotonic() if started is None else started)
        try:
            if started is None:
                self.unwritten = request
                self._shared.write_soon(self)
            elif self.usable:
                self._write(request)
            else:
                self._lost(None)  # it was, before this began
            return await ended
        finally:
            if not ended.done() or ended.cancelled():
                self.close()

    def write_now(self) -> None:
        """Write the request that waits, unless its exchange has ended in the meantime."""
        request, ended, receiver = self.unwritten, self._ended, self._receiver
        if request and receiver is not None and ended is not None and not ended.done():
            self.unwritten = b""
            receiver.sent(monotonic())
            self._write(request)

    def close(self) -> None:
        """Close the socket at once; an exchange that is under way ends as `closed`."""
        future = self._ended
        self.alive = False
        self._forget()
        if self._transport is not None:
            self._transport.abort()
        if future is not None and not future.done():
            future.set_result(_GIVEN_UP)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket."""
        self._transport = cast("asyncio.Transport", transport)
        self.alive = True
        if self._tls is not None:
            self._shake_hands(self._tls, b"")

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Lend the shared buffer for one read."""
        return self._shared.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Parse what was read."""
        shared, descriptor, tls = self._shared, self._descriptor, self._tls
        if tls is not None and not tls.secure:
            self._shake_hands(tls, shared.buffer[:nbytes])
            return
        if descriptor is None:
            self._take(nbytes, monotonic())
            return
        times, counts = shared.pacing.take(descriptor)
        if times and times[-1] != self._last_at:
            self._take_gathered(nbytes, times, counts, exact=self._exact)
        else:
            self._take(nbytes, monotonic())
        if self._away and nbytes == len(shared.buffer):
            shared.pacing.note(descriptor, self._last_at)  # there may be more, of which nobody will tell again

    def eof_received(self) -> None:
        """End the exchange where the server stopped sending."""
        self._lost(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the exchange where the connection broke."""
        self._lost(exc)

    # What the timers call.

    def read_now(self) -> None:
        """Read what is there, for a connection that has left the loop."""
        shared, descriptor = self._shared, self._descriptor
        if not self._away or descriptor is None:
            return
        try:
            count = os.readv(descriptor, [shared.buffer])
        except (BlockingIOError, InterruptedError):
            shared.pacing.take(descriptor)
        except OSError as error:
            self._lost(error)
        else:
            if count:
                self.buffer_updated(count)
            else:
                self._lost(None)

    def check(self, now: float) -> None:
        """End the exchange if one of its limits has passed, else say when to ask again."""
        bounds = self._bounds
        if bounds is None:
            return
        overdue = self._overdue(bounds, now)
        if overdue is None:
            return
        if overdue.how in {"timeout_idle", "timeout_first_byte"}:
            self.check_at = now + 1  # until the confirmation, which comes first
            self._return_to_loop()
            self._shared.loop.call_later(_CONFIRM_S, self._confirm, self._ended)
        else:
            self._finish(overdue, reusable=False)

    # Within.

    def _begin(self, receiver: Receiver, bounds: Bounds, started: float) -> asyncio.Future[Ended]:
        """Set up the exchange's state and return its end to come."""
        shared = self._shared
        ended: asyncio.Future[Ended] = shared.loop.create_future()
        self._ended = ended
        self._receiver = receiver
        self._bounds = bounds
        self._reader = ReplyReader(receiver, bounds.max_body)
        self._started = self._last_at = started
        self._first_at = self._done_at = None
        self.untouched = True
        self.check_at = started + min(bounds.first_byte_s, bounds.total_s)
        shared.deadlines.add(self)
        return ended

    def _shake_hands(self, tls: Tls, received: memoryview | bytes) -> None:
        """Go on with the TLS handshake."""
        try:
            if tls.shake_hands(received):
                self._settle(None)
        except ssl.SSLError as error:
            self._settle(error)
        cast("asyncio.Transport", self._transport).write(tls.to_send())

    def _settle(self, error: OSError | None) -> None:
        """Tell whoever waits for the end of the handshake, if it is not over."""
        secured = self._secured
        if secured is None or secured.done():
            return
        if error is None:
            secured.set_result(None)
        else:
            secured.set_exception(error)
            secured.exception()  # nobody may be waiting any more, and asyncio must not complain of that

    def _write(self, data: bytes) -> None:
        """Send, encrypted where there is TLS."""
        cast("asyncio.Transport", self._transport).write(data if self._tls is None else self._tls.encrypt(data))

    def _take_gathered(self, nbytes: int, times: list[float], counts: list[int] | None, *, exact: bool) -> None:
        """Take what had gathered, and let `pacing` learn from it."""
        reader, before = self._reader, 0 if self._reader is None else self._reader.pieces
        times[:2] = [max(at, self._last_at) for at in times[:2]]  # the middle between two looks may be before the last read
        eager = self._receiver is not None and self._receiver.eager
        self._take(nbytes, times[-1], times, (counts or ()) if eager else ())
        if exact and reader is not None and reader is self._reader:  # the reply goes on
            self._shared.pacing.compare(reader.pieces - before, len(times))

    def _take(self, nbytes: int, at: float, times: Sequence[float] = (), counts: Sequence[int] = ()) -> None:
        """Decrypt, where there is TLS, and parse what was read: it came at the time `at`, or gathered until then.

        Then `times` are its arrivals', and where that is known, `counts` bytes had come by each.
        """
        shared, tls = self._shared, self._tls
        data = shared.buffer[:nbytes]
        if tls is not None and counts:
            counts = tls.decrypt_by(data, counts, shared.plain)
            data = shared.plain[: counts[-1]]
        elif tls is not None:
            data = shared.plain[: tls.decrypt(data, shared.plain)]
        if counts:
            self._parse_counted(data, times, counts)
        elif data:
            self._parse(data, at, times)
        if tls is None:
            return
        transport = cast("asyncio.Transport", self._transport)
        if answer := tls.to_send():
            transport.write(answer)
        if tls.closed:
            self._lost(tls.broken)
            transport.close()

    def _parse_counted(self, data: memoryview, times: Sequence[float], counts: Sequence[int]) -> None:
        """Parse bytes of HTTP: arrival by arrival where one of the times may matter, and the others at once."""
        begin = place = 0
        marks = () if self._receiver is None else self._receiver.marks
        if (matters := first_mark(data, marks)) is not None:
            place = bisect_right(counts, matters, hi=len(counts) - 1)
            begin = min(counts[place - 1], len(data)) if place else 0
            if begin:
                self._parse(data[:begin], times[place - 1], times[:place])
            while begin < len(data) and self._receiver is not None and self._receiver.eager:
                end = len(data) if place == len(counts) - 1 else min(counts[place], len(data))
                if begin < end:
                    self._parse(data[begin:end], times[place], ())
                    begin = end
                place += 1
        if begin < len(data):
            self._parse(data[begin:], times[-1], times[place:])

    def _parse(self, data: memoryview, at: float, times: Sequence[float]) -> None:
        """Parse bytes of HTTP."""
        reader, receiver = self._reader, self._receiver
        if reader is None or receiver is None or self.unwritten:
            self.close()  # bytes that nobody asked for: the connection is not to be trusted
            return
        if self._first_at is not None and self._done_at is None:
            gap = max(map(sub, times, (self._last_at, *times))) if times else at - self._last_at
            receiver.max_gap = max(receiver.max_gap, gap)
        self._last_at = at
        self.untouched = False
        try:
            ended = reader.feed(data, at, times)
            if ended is None:
                self._go_on(reader, at)
                return
        except Exception as error:  # noqa: BLE001 - the receiver's own: it goes to whoever awaits the exchange
            self._fail(error)
            return
        self._finish(ended, reusable=reader.reusable)

    def _go_on(self, reader: ReplyReader, at: float) -> None:
        """After a read that did not end the reply: leave the loop where that is worth it, come back for the end."""
        receiver, bounds, pacing = self._receiver, self._bounds, self._shared.pacing
        if not reader.body or receiver is None or bounds is None:
            return
        if self._first_at is None:
            self._first_at = at
            self.check_at = min(self.check_at, at + bounds.idle_s)
        if receiver.done:
            self._return_to_loop()
            if self._done_at is None:
                self._done_at = at
                self.check_at = min(self.check_at, at + DRAIN_S)
        elif pacing.worth_waiting(reader.raw, at - self._first_at):
            self._stay_away(eager=receiver.eager)
        else:
            self._return_to_loop()

    def _stay_away(self, *, eager: bool) -> None:
        """Leave the loop, or keep away from it."""
        if self._away and self._exact == eager:
            return
        transport, pacing = cast("asyncio.Transport", self._transport), self._shared.pacing
        if self._descriptor is None:
            self._descriptor = transport.get_extra_info("socket").fileno()
            pacing.register(self._descriptor)
        if not self._away:
            transport.pause_reading()
        self._away, self._exact = True, eager
        pacing.leave(self._descriptor, self, exact=eager)

    def _return_to_loop(self) -> None:
        """Be read by the loop again."""
        if self._away and self._descriptor is not None:
            self._away = False
            self._shared.pacing.come_back(self._descriptor)
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    def _overdue(self, bounds: Bounds, now: float) -> Ended | None:
        """Return the end that is due by now; else the next moment at which one could be is `check_at`."""
        due, self.check_at = due_by(now, bounds, self._started, self._first_at, self._last_at, self._done_at)
        return due

    def _confirm(self, ended: asyncio.Future[Ended] | None) -> None:
        """End the exchange for its silence, if it is the same one and still silent."""
        bounds = self._bounds
        if bounds is None or self._ended is not ended:
            return
        overdue = self._overdue(bounds, monotonic())
        if overdue is not None:
            self._finish(overdue, reusable=False)

    def _lost(self, error: BaseException | None) -> None:
        """End what is under way, now that there is no connection any more."""
        self.alive = False
        self._settle(error if isinstance(error, OSError) else ConnectionResetError("closed during the TLS handshake"))
        if self._reader is not None:
            self._finish(self._reader.end_of_stream(error), reusable=False)

    def _finish(self, ended: Ended, *, reusable: bool) -> None:
        """Tell how the exchange ended, and close the socket unless it can be used again."""
        future, transport = self._ended, self._transport
        self._forget()
        if transport is None or transport.is_closing():
            self.alive = False
        elif not reusable or transport.get_write_buffer_size():
            self.alive = False
            transport.abort()
        else:
            self._return_to_loop()
        if future is not None and not future.done():
            future.set_result(ended)

    def _fail(self, error: Exception) -> None:
        """Hand a receiver's own exception to whoever awaits the exchange."""
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(error)
        self.close()

    def _forget(self) -> None:
        """Let go of the exchange."""
        self._shared.deadlines.discard(self)
        if self._reader is not None:
            self._reader.close()
            if self._descriptor is not None:
                self._shared.pacing.ended(self._descriptor)
        self._reader = self._receiver = self._ended = self._bounds = None
