"""TLS between the bytes of one socket and those of HTTP, without a socket.

asyncio's own TLS reads its socket as it likes and keeps a packet back when it is told to pause, so that nobody knows
when that packet came. This one is given what was read and says what to send: a connection is read the same way with
TLS and without, and gathers the same way. The protocol itself is OpenSSL's, through `ssl.SSLObject`.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Final, cast

RECORD_BYTES: Final = 17 * 1024
"""More than a record holds (RFC 8446, 5.2): what was read before and could not be decrypted yet is less than one."""


class Tls:
    """One client's side. `secure` once the handshake is over; `closed`: no more text will come, for the error `broken` if any."""

    __slots__ = ("_incoming", "_object", "_outgoing", "broken", "closed", "secure")

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        """Begin a session with `host`, which the certificate must name."""
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self.secure = False
        self.closed = False
        self.broken: ssl.SSLError | None = None

    def shake_hands(self, received: memoryview | bytes) -> bool:
        """Go on with the handshake; tell whether it is over. Raises `ssl.SSLError`: a certificate not to be trusted, too."""
        self._incoming.write(received)
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self.secure = True
        return True

    def encrypt(self, plain: bytes) -> bytes:
        """Return what to send for a text, once the handshake is over."""
        self._object.write(plain)
        return self._outgoing.read()

    def to_send(self) -> bytes:
        """Return what the protocol has to say by itself."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def decrypt(self, received: memoryview, into: memoryview) -> int:
        """Write the plain text of what was read to `into`, which has room for `RECORD_BYTES` more; return its length."""
        incoming, read, filled = self._incoming, self._object.read, 0
        incoming.write(received)
        try:
            while incoming.pending:
                count = cast("int", read(RECORD_BYTES, into[filled:]))  # typeshed knows no buffer here
                if not count:
                    self.closed = True
                    break
                filled += count
        except ssl.SSLWantReadError:
            pass  # the rest of a record is on its way, or what came was not text
        except ssl.SSLError as error:
            self.closed, self.broken = True, error
        return filled

    def decrypt_by(self, received: memoryview, counts: Sequence[int], into: memoryview) -> list[int]:
        """Decrypt as `decrypt`; return how much plain text there was by each of `counts` bytes; the last count means all."""
        ends = []
        begin = filled = 0
        for count in (*counts[:-1], len(received)):
            if begin < count and not self.closed:
                filled += self.decrypt(received[begin:count], into[filled:])
                begin = count
            ends.append(filled)
        return ends
