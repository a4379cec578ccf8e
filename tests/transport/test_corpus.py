"""The whole wire corpus through real sockets, both transports and the real decoder."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from batchrun.job import Timeout
from batchrun.records import Ended, EndedHow, Failure, Reply
from batchrun.wire.reply import ReplyDecoder
from tests.transport.conftest import PLAIN, Authority, Opener
from tests.transport.replay import Case, load, names, replay
from tests.transport.servers import serve

NOW = 1_800_000_000.0
AT_ONCE = 24  # enough for bytes to gather
COMPARED = ("kind", "retry", "type", "status", "retry_after_s", "usage", "slows_run")


class Decoding:
    """A receiver that decodes."""

    marks: tuple[bytes, ...] = ()
    max_gap = 0.0

    def __init__(self) -> None:
        self.decoder = ReplyDecoder()

    @property
    def eager(self) -> bool:
        """Until the first call."""
        return not self.decoder.first_call

    @property
    def done(self) -> bool:
        """Once the decoder is."""
        return self.decoder.complete

    def sent(self, at: float) -> None:
        """Take no note."""

    def head(self, status: int, headers: Mapping[str, str], at: float) -> None:  # noqa: ARG002 - the receiver's signature
        """Hand it on."""
        self.decoder.head(status, headers)

    def data(self, chunk: bytes, at: float) -> None:  # noqa: ARG002 - the receiver's signature
        """Hand it on."""
        self.decoder.feed(chunk)


def ends(case: Case) -> set[EndedHow]:
    """Return how the exchange may end: by its framing, or as the case says; sooner where the answer is complete."""
    if case.cut or case.meta["status"] == 0:
        return {"reset"} if case.cut == "rst" else {"closed"}
    if "stall_s" in case.meta:
        return {"timeout_idle"}
    if "endless_pings" in case.meta:
        return {"timeout_total"}
    return {"closed"} if case.meta.get("content_length_delta") else {"complete"}


def decoded_whole(case: Case, ended: Ended) -> Reply | Failure:
    """Return what the decoder alone makes of the case."""
    decoder = ReplyDecoder()
    if case.meta["status"]:
        decoder.head(case.meta["status"], case.meta["headers"])
        decoder.feed(case.body)
    return decoder.finish(ended, now=NOW)


def differences(case: Case, ended: Ended, receiver: Decoding) -> list[str]:
    """Return what the socket has changed."""
    found = receiver.decoder.finish(ended, now=NOW)
    may = ends(case) | ({"enough"} if receiver.done else set())
    wrong = [] if ended.how in may else [f"ended {ended}"]
    alone = decoded_whole(case, ended)
    if isinstance(found, Reply) or isinstance(alone, Reply):
        return wrong if found == alone else [*wrong, f"{found} is not {alone}"]
    same = all(getattr(found, name) == getattr(alone, name) for name in COMPARED)
    kept = (found.partial or "")[:500] == (alone.partial or "")[:500] or "endless_pings" in case.meta
    return wrong if same and kept else [*wrong, f"{found} is not {alone}"]


@pytest.mark.parametrize(("mode", "tls"), [("whole", False), ("byte", False), ("random", False), ("random", True)])
async def test_every_case_comes_through_the_socket_as_it_is(
    connect: Opener,
    authority: Authority,
    mode: str,
    tls: bool,  # noqa: FBT001 - a column
) -> None:
    """However a reply is cut, framed, delayed or broken off, the decoder makes of it what it makes of the bytes alone."""
    wrong: dict[str, list[str]] = {}
    gate = asyncio.Semaphore(AT_ONCE)
    context, ca_file = authority if tls else PLAIN
    patience = Timeout(connect_s=5, first_byte_s=15, idle_s=3, total_s=40)
    none = Timeout(connect_s=5, first_byte_s=5, idle_s=3, total_s=3)
    async with serve(replay, tls=context) as server:
        patient = connect(server.base_url, connections=AT_ONCE, timeout=patience, ca_file=ca_file)
        strict = connect(server.base_url, connections=AT_ONCE, timeout=none, ca_file=ca_file)

        async def check(name: str) -> None:
            case, receiver = load(name), Decoding()
            transport = strict if "endless_pings" in case.meta else patient
            async with gate:
                ended = await transport.post(f"/case/{name}/mode/{mode}/v1/messages", b'{"tools":[]}', receiver)
            if found := differences(case, ended, receiver):
                wrong[name] = found

        # A silence is as long in every mode: once is enough.
        chosen = [name for name in names() if mode == "whole" or not {"stall_s", "endless_pings"} & set(load(name).meta)]
        async with asyncio.TaskGroup() as group:
            for name in chosen:
                group.create_task(check(name))
    assert len(chosen) > 100
    assert wrong == {}
