"""A submission leaves once, whatever becomes of its connection: a second batch would be paid for and never fetched."""

import asyncio

import pytest

from batchrun.engine.batch_endpoint import BatchEndpoint, BatchStatus, Refusal
from batchrun.job import Endpoint
from batchrun.transport import Credential, open_transport
from tests.transport.servers import Peer, serve

BATCH = b'{"id":"b1","processing_status":"in_progress","request_counts":{"processing":1}}'
REPLY = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(BATCH), BATCH)


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
