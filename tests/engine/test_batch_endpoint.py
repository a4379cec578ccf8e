"""A submission leaves once, whatever becomes of its connection: a second batch would be paid for and never fetched."""

import asyncio

import pytest

from batchrun.engine.batch_endpoint import BatchEndpoint, BatchStatus, Refusal
from batchrun.job import Endpoint
from batchrun.records import Failure
from batchrun.transport import Credential, open_transport
from tests.transport.servers import Peer, serve

BATCH = b'{"id":"b1","processing_status":"in_progress","request_counts":{"processing":1}}'
REPLY = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(BATCH), BATCH)


PAGES = [b"<html>maintenance</html>", b"", BATCH[:20], b"{}"]


@pytest.mark.parametrize("page", PAGES, ids=["a page", "nothing", "cut", "another object"])
async def test_what_cannot_be_read_is_asked_again_and_never_submitted_again(page: bytes) -> None:
    """Something in between said it with a 200: a wait of a day does not end for that, and a batch may have been accepted."""
    said = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(page), page)

    async def script(peer: Peer) -> None:
        while True:
            try:
                await peer.request()
            except asyncio.IncompleteReadError:
                return
            await peer.say(said)

    async with serve(script) as server:
        transport = open_transport(Endpoint(base_url=server.base_url, auth="none"), Credential(), connections=2, environ={})
        endpoint = BatchEndpoint(transport, max_line=1000)
        asked = [await endpoint.show("b1"), await endpoint.cancel("b1"), *[found async for found in endpoint.recent(0.0)]]
        assert [found.retry for found in asked if isinstance(found, Failure)] == ["retry"] * 3
        refusal = await endpoint.create(b"batch")
        assert isinstance(refusal, Refusal)
        assert (refusal.failure.retry, refusal.certain) == ("stop_run", False)
        await transport.aclose()


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("kind", ["own", "httpx"])
async def test_a_submission_is_not_sent_again_on_another_connection(kind: str, how: str) -> None:
    """The endpoint takes it, says nothing and hangs up: on a connection that had been kept, that looks like a stale one."""
    submitted: list[bytes] = []

    async def script(peer: Peer) -> None:
        while True:
            try:
                asked = await peer.request()
            except asyncio.IncompleteReadError:
                return
            if asked.line.startswith("POST"):
                submitted.append(asked.body)
                if how == "reset":
                    peer.reset()
                return
            await peer.say(REPLY)

    async with serve(script) as server:
        spec = Endpoint(base_url=server.base_url, transport=kind, auth="none")  # type: ignore[arg-type]  # one of the two kinds
        transport = open_transport(spec, Credential(), connections=2, environ={})
        endpoint = BatchEndpoint(transport, max_line=1000)
        for number in (1, 2):
            assert isinstance(await endpoint.show("b1"), BatchStatus)
            refusal = await endpoint.create(b"batch %d" % number)
            assert isinstance(refusal, Refusal)
            assert not refusal.certain
        await transport.aclose()
    assert submitted == [b"batch 1", b"batch 2"]
