"""A dataset row and the job's `[request]` → the JSON body to send, byte for byte what the row said.

Nothing of the row is decoded and encoded again: its fields are JSON text and are spliced in as they came, so
big integers, key order and escapes survive. Fields come in the order model, max_tokens, stream, system,
tools, tool_choice, other parameters, messages; each key once, the row's over the job's, a row's `params` over
both. All but the messages, the head, is the same for many rows: it is made once for each distinct
combination and kept, so that a body costs one look-up and one concatenation.

Refuses to know what fields mean (`lint` knows some), except the two it needs: `max_tokens`, and where a
prompt-cache mark goes.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

import msgspec

from batchrun.job import RequestSpec
from batchrun.records import Request, Sample
from batchrun.wire.cacheable import may_be_kept

BYTES_PER_TOKEN: Final = 4
"""Rule of thumb for English JSON; other scripts and base64 take more bytes a token, so they are overestimated."""

MAX_HEADS: Final = 1024
"""Distinct heads kept at once; rows that differ in tools or parameters beyond that are encoded anew."""

MOST_MARKS: Final = 4
"""Of `cache_control` in one body: the Messages API refuses more (its prompt caching page: up to 4 breakpoints)."""

MARK_KEY: Final = b'"cache_control"'
_ORDER: Final = ("model", "max_tokens", "stream", "system", "tools", "tool_choice")
_OWN_PLACE: Final = ("model", "messages", "stream")
_Fields = dict[str, bytes]
_HeadKey = tuple[str, bytes | None, bytes | None, bytes | None, bytes | None, int]

_raw_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_raw_array: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_integer: Final = msgspec.json.Decoder(int).decode


class _Head(NamedTuple):
    """Everything of a body before its messages, and what follows from it."""

    text: bytes
    max_tokens: int
    prefix: int


class BodyBuilder:
    """Builds request bodies for one job."""

    def __init__(self, spec: RequestSpec) -> None:
        """Encode the job's own fields once."""
        self._mark = _cache_control(spec.cache_ttl)
        self._shared = _Fields(max_tokens=_encode(spec.max_tokens))
        if spec.stream and spec.mode == "messages":
            self._shared["stream"] = b"true"
        for name in ("system", "tools", "tool_choice"):
            value = getattr(spec, name)
            if value is not None:
                self._shared[name] = _encode(value)
        self._shared.update((name, _encode(value)) for name, value in spec.params.items())
        self._heads: dict[_HeadKey, _Head] = {}

    def build(self, sample: Sample, model: str, *, cache: bool = False) -> bytes:
        """Return the body for one row and model; `cache` marks the shared head for the prompt cache.

        Raises `ValueError` where the row's `params` cannot be used; rows that `lint` passed never do.
        """
        return b"%b%b}" % (self._head(sample, model, cache=cache).text, sample.messages)

    def request(self, sample: Sample, model: str, ordinal: int, *, cache: bool = False) -> Request:
        """Return the call for one (row, model, repeat), with estimates for the gate. Raises as `build` does."""
        head = self._head(sample, model, cache=cache)
        body = b"%b%b}" % (head.text, sample.messages)
        return Request(
            ordinal=ordinal,
            model=model,
            body=body,
            input_tokens=estimate_tokens(body),
            max_tokens=head.max_tokens,
            prefix=head.prefix,
        )

    def _head(self, sample: Sample, model: str, *, cache: bool) -> _Head:
        room = MOST_MARKS - sample.messages.count(MARK_KEY) if cache else 0
        key = (model, sample.tools, sample.system, sample.tool_choice, sample.params, room)
        head = self._heads.get(key)
        if head is None:
            if len(self._heads) >= MAX_HEADS:
                self._heads.clear()
            head = self._heads[key] = self._encoded_head(sample, model, room)
        return head

    def _encoded_head(self, sample: Sample, model: str, room: int) -> _Head:
        fields: _Fields = {"model": _encode(model), **self._shared}
        for name in ("system", "tools", "tool_choice"):
            own = getattr(sample, name)
            if own is not None:
                fields[name] = own
        fields.update(row_params(sample.params))
        prefix = _prefix(fields, model)
        if prefix and sum(value.count(MARK_KEY) for value in fields.values()) < room:
            _place_mark(fields, self._mark)
        ordered = {name: fields.pop(name) for name in _ORDER if name in fields} | fields
        text = b",".join(b"%b:%b" % (_encode(name), value) for name, value in ordered.items())
        return _Head(b"{%b" % text + b',"messages":', _max_tokens(ordered["max_tokens"]), prefix)


def row_params(params: bytes | None) -> dict[str, bytes]:
    """Return a row's `params` as field → JSON text; raises `ValueError` where they are none, or not the row's to set."""
    if params is None:
        return {}
    try:
        found = {name: bytes(value) for name, value in _raw_object(params).items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("params is not a JSON object") from None
    for name in _OWN_PLACE:
        if name in found:
            raise ValueError(f"params.{name} has a place of its own")
    return found


def estimate_tokens(body: bytes) -> int:
    """Return about how many input tokens a body is: its bytes over `BYTES_PER_TOKEN`, rounded up."""
    return -(-len(body) // BYTES_PER_TOKEN)


def _encode(value: object) -> bytes:
    return msgspec.json.encode(value)


def _max_tokens(text: bytes) -> int:
    try:
        return _integer(text)
    except msgspec.DecodeError:
        raise ValueError("params.max_tokens is not an integer") from None


def _prefix(fields: _Fields, model: str) -> int:
    """Return a positive 63-bit digest of what the prompt cache keeps apart: model, tools and system; 0 of too short ones."""
    tools, system = fields.get("tools", b""), fields.get("system", b"")
    if not may_be_kept(model, tools=len(tools), system=len(system)):
        return 0
    parts = (fields["model"], tools, system)
    digest = hashlib.blake2b(b"".join(b"%d:%b" % (len(part), part) for part in parts), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1 or 1


def _cache_control(ttl: str) -> bytes:
    """Return the mark; five minutes is what the API takes it to mean when it is not said."""
    return b'{"type":"ephemeral"}' if ttl == "5m" else b'{"type":"ephemeral","ttl":"%b"}' % ttl.encode()


def _place_mark(fields: _Fields, mark: bytes) -> None:
    """Mark the last block that rows share: the last of `system`, else the last tool (the order of the prompt)."""
    system = fields.get("system", b"").strip()
    if system.startswith(b'"') and system != b'""':
        fields["system"] = b'[{"type":"text","text":%b,"cache_control":%b}]' % (system, mark)
        return
    for name in ("system", "tools"):
        marked = _marked_last(fields.get(name, b""), mark)
        if marked is not None:
            fields[name] = marked
            return


def _marked_last(array: bytes, mark: bytes) -> bytes | None:
    """Return a JSON array of objects with the mark put into its last one, None where there is none to put it in.

    One that carries a mark of its own keeps it.
    """
    try:
        items = [bytes(item) for item in _raw_array(array)]
        last = _raw_object(items[-1])
    except (msgspec.DecodeError, IndexError):
        return None
    if "cache_control" in last:
        return array
    fields = items[-1].strip()[1:-1].strip()
    items[-1] = b'{%b%b"cache_control":%b}' % (fields, b"," if fields else b"", mark)
    return b"[%b]" % b",".join(items)
