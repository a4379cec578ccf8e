"""Content-encoded bytes → the bytes they stand for, as they come, and never more than a bound.

gzip, deflate (zlib-wrapped or raw: servers send both under that name), br and zstd, also one around another.
A bomb is stopped while it unpacks: every step asks for at most a slice. Where the input turns out to be
damaged, what came before the damage is still handed out, the same bytes whatever the chunks were, because an
answer that was complete by then is an answer: the input is kept, and played again byte by byte around the
damage. The label is not trusted: bytes that do not begin as gzip or zstd must are passed on as they are.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, Final, Literal

_SLICE: Final = 64 * 1024
_INPUT_SLICE: Final = {"zstd": 256}  # bytes; that decoder cannot bound its output, and 4 bytes can hold 128 KB
_REPLAY: Final = 4 * 1024
_MAGIC: Final = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}
_BY_FIRST_BYTE: Final = {magic[:1]: name for name, magic in _MAGIC.items()}
_TELLING: Final = {"gzip": 2, "deflate": 2, "zstd": 4}  # how many first bytes tell what it is
_ALIASES: Final = {"x-gzip": "gzip", "x-deflate": "deflate", "zst": "zstd"}
_KNOWN: Final = ("gzip", "deflate", "br", "zstd")


_Stage = Literal["first", "running", "next", "plain", "over"]


class DamagedError(Exception):
    """The bytes are not what their encoding says."""


class TooLargeError(Exception):
    """There is more content than allowed."""


class ContentDecoder:
    """Undoes one `content-encoding` header, incrementally; `limit` bounds the bytes of each layer."""

    __slots__ = ("_layers",)

    def __init__(self, encoding: str, limit: int) -> None:
        """Take the header's value as it came; raises `DamagedError` for an encoding nobody knows."""
        names = [
            _ALIASES.get(name, name) for part in encoding.split(",") if (name := part.strip().lower()) not in {"", "identity"}
        ]
        for name in names:
            if name not in _KNOWN:
                raise DamagedError(f"unknown content-encoding {name[:40]!r}")
        self._layers = [_Layer(name, limit) for name in reversed(names)]

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what `data` unpacks to, in slices; then raises `DamagedError` or `TooLargeError` where it must."""
        return self._through(data, 0)

    def _through(self, data: bytes, depth: int) -> Iterator[bytes]:
        if depth == len(self._layers):
            yield data
            return
        for piece in self._layers[depth].feed(data):
            yield from self._through(piece, depth + 1)


def sniffed(first: bytes) -> str | None:
    """Return the encoding that unlabelled bytes seem to have, by the byte they begin with."""
    return _BY_FIRST_BYTE.get(first[:1])


class _Layer:
    """One encoding, its output counted and its input kept for the case of damage."""

    __slots__ = ("_codec", "_count", "_limit", "_name", "_seen")

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._codec = _Codec(name)
        self._seen = list[bytes]()
        self._count = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._seen.append(data)
        try:
            for piece in self._codec.feed(data):
                yield from self._within(piece)
        except DamagedError:
            yield from self._salvaged()
            raise

    def _within(self, piece: bytes) -> Iterator[bytes]:
        """Yield what of a piece is within the bound; then raises `TooLargeError` where that was not all."""
        room = self._limit - self._count
        self._count += len(piece)
        yield piece[: max(0, room)]
        if len(piece) > room:
            raise TooLargeError(f"more than {self._limit} bytes of content")

    def _salvaged(self) -> Iterator[bytes]:
        """Play the input again, byte by byte where it is damaged, for the output that the failed call lost."""
        whole = b"".join(self._seen)
        near = _first_damaged(self._name, whole)
        codec = _Codec(self._name)
        skip = self._count
        steps = [whole[at : at + _REPLAY] for at in range(0, near, _REPLAY)]
        steps += [whole[at : at + 1] for at in range(near, min(len(whole), near + _REPLAY))]
        try:
            for step in steps:  # pragma: no branch  # the damage is among them
                for piece in codec.feed(step):
                    fresh = piece[skip:]
                    skip = max(0, skip - len(piece))
                    yield from self._within(fresh)
        except DamagedError:
            return


def _first_damaged(name: str, whole: bytes) -> int:
    """Return where the first `_REPLAY` bytes begin that cannot be unpacked."""
    codec = _Codec(name)
    at = 0
    for at in range(0, len(whole), _REPLAY):  # pragma: no branch  # the damage is somewhere
        try:
            for _ in codec.feed(whole[at : at + _REPLAY]):
                pass
        except DamagedError:
            break
    return at


class _Codec:
    """One encoding's decoder, begun again for each gzip member or zstd frame."""

    __slots__ = ("_engine", "_held", "_name", "_stage")

    def __init__(self, name: str) -> None:
        self._name = name
        self._engine: Any = None
        self._held = b""  # the first bytes of a stream, member or frame, until they tell what it is
        self._stage: _Stage = "first"

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what `data` unpacks to, in bounded slices."""
        while data and self._stage != "over":
            if self._stage == "plain":
                yield data
                return
            if self._stage == "running":
                size = _INPUT_SLICE.get(self._name, len(data))
                yield from _STEPS[self._name](self._engine, data[:size])
                data = self._ended() + data[size:]
            else:
                data = self._begin(data)

    def _begin(self, data: bytes) -> bytes:
        """Start an engine once enough bytes are there to tell which; return the bytes to go on with (none: wait)."""
        self._held += data
        magic = _MAGIC.get(self._name, b"")
        if len(self._held) < _TELLING.get(self._name, 1) and magic.startswith(self._held[: len(magic)]):
            return b""
        held, self._held = self._held, b""
        if held.startswith(magic):
            self._engine, self._stage = _engine(self._name, held), "running"
        else:  # no such content at all, or the padding after a whole member
            self._stage = "plain" if self._stage == "first" else "over"
        return held

    def _ended(self) -> bytes:
        """Return what follows the end of a member or frame, its engine put away; b"" where it has not ended."""
        if not getattr(self._engine, "eof", False):
            return b""
        rest: bytes = self._engine.unused_data
        self._engine, self._stage = None, "next" if self._name in _MAGIC else "over"
        return rest


def _engine(name: str, first: bytes) -> Any:
    """Return a fresh decompressor; raw deflate is told from zlib's by the two bytes of a zlib header (RFC 1950)."""
    if name == "gzip":
        return zlib.decompressobj(31)
    if name == "deflate":
        wrapped = first[0] & 0x8F == 0x08 and int.from_bytes(first[:2], "big") % 31 == 0
        return zlib.decompressobj(15 if wrapped else -15)
    if name == "br":
        import brotli  # noqa: PLC0415  # only for the rare reply that is encoded so: start-up stays cheap

        return brotli.Decompressor()
    import zstandard  # noqa: PLC0415  # the same

    return zstandard.ZstdDecompressor(max_window_size=2**27).decompressobj()


def _inflate(engine: Any, data: bytes) -> Iterator[bytes]:
    try:
        while piece := engine.decompress(data, _SLICE):
            yield piece
            data = engine.unconsumed_tail
    except zlib.error as error:
        raise DamagedError(str(error)) from None


def _unbrotli(engine: Any, data: bytes) -> Iterator[bytes]:
    import brotli  # noqa: PLC0415  # loaded by `_engine` already

    try:
        yield engine.process(data, output_buffer_limit=_SLICE)
        while piece := engine.process(b"", output_buffer_limit=_SLICE):  # it may hold output back without saying so
            yield piece
    except brotli.error as error:
        raise DamagedError(str(error)) from None


def _unzstd(engine: Any, data: bytes) -> Iterator[bytes]:
    import zstandard  # noqa: PLC0415  # loaded by `_engine` already

    try:
        yield engine.decompress(data)
    except zstandard.ZstdError as error:
        raise DamagedError(str(error)) from None


_STEPS: Final = {"gzip": _inflate, "deflate": _inflate, "br": _unbrotli, "zstd": _unzstd}
