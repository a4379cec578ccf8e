"""A batch that is found is told of, whatever fails beside it: a search that forgets one loses all its calls."""

from collections.abc import AsyncGenerator, Callable

import pytest

from batchrun.engine.batch_endpoint import BatchEndpoint, BatchStatus
from batchrun.engine.batch_ledger import Intent, Submission, packed
from batchrun.engine.batch_search import EMPTY_TRIES, Found, Search
from batchrun.records import Failure
from batchrun.wire.batch_lines import RequestName, entry

CUT = Failure(kind="connection", retry="retry", message="cut")


def submission(ordinal: int) -> Submission:
    """Return a batch of one call, whose check is its ordinal."""
    return Submission(
        Intent(
            key=f"{ordinal:016x}",
            at_us=10_000_000,
            ordinals=[(ordinal, ordinal)],
            checks=packed([ordinal]),
            body_bytes=1,
            sha256="",
            reserved_usd="0",  # type: ignore[arg-type]  # nobody counts it here
            worst_usd="0",  # type: ignore[arg-type]
        )
    )


class Listing(BatchEndpoint):
    """An endpoint with a list of ended batches of one call each; a failure in the list, or for a download, is met there."""

    def __init__(self, *listed: int | Failure, cut: tuple[int, ...] = (), empty: tuple[int, ...] = ()) -> None:
        self.listed, self.cut, self.empty = listed, set(cut), set(empty)

    async def recent(self, since: float) -> AsyncGenerator[BatchStatus | Failure, None]:
        """Yield what is listed, to its end or the first failure."""
        assert since < 10
        for one in self.listed:
            if isinstance(one, Failure):
                yield one
                return
            yield BatchStatus(id=str(one), processing_status="ended", request_counts={"succeeded": 1})

    async def download(self, batch: str, on_line: Callable[[bytes], bool]) -> Failure | None:
        """Hand one line on, or be cut, or have none."""
        if int(batch) in self.cut:
            return CUT
        if int(batch) in self.empty:
            return None
        custom_id = entry(RequestName(int(batch), int(batch)), b"{}").split(b'"')[3].decode()
        on_line(f'{{"custom_id":"{custom_id}","result":{{"type":"expired"}}}}'.encode())
        return None


@pytest.mark.parametrize(
    "endpoint", [Listing(1, 2, cut=(2,)), Listing(1, CUT)], ids=["the next one's results are cut", "the list is cut"]
)
async def test_what_was_found_before_a_call_failed_is_told(endpoint: Listing) -> None:
    search, first, second = Search(endpoint, settle_s=60), submission(1), submission(2)
    search.expect(first, now=10)
    search.expect(second, now=10)
    assert await search.look((), now=11) == [Found(first, "1")]
    endpoint.listed, endpoint.cut = (1, 2), set()
    assert await search.look(("1",), now=12) == [Found(second, "2")]
    assert not search


async def test_a_failure_before_anything_was_found_is_told_and_nothing_is_decided() -> None:
    search, wanted = Search(Listing(CUT), settle_s=0), submission(1)
    search.expect(wanted, now=10)
    assert await search.look((), now=1000) == CUT
    assert search


async def test_a_batch_without_a_line_of_results_is_asked_again_and_then_in_doubt() -> None:
    endpoint = Listing(1, empty=(1,))
    search, wanted = Search(endpoint, settle_s=0), submission(1)
    search.expect(wanted, now=10)
    assert [await search.look((), now=1000) for _ in range(EMPTY_TRIES)] == [[]] * EMPTY_TRIES
    why = "batch 1 may be it, and its results cannot be read"
    assert await search.look((), now=1000) == [Found(wanted, None, certain=False, why=why)]


async def test_a_batch_whose_results_come_late_is_found() -> None:
    endpoint = Listing(1, empty=(1,))
    search, wanted = Search(endpoint, settle_s=0), submission(1)
    search.expect(wanted, now=10)
    assert await search.look((), now=1000) == []
    endpoint.empty = set()
    assert await search.look((), now=1001) == [Found(wanted, "1")]
