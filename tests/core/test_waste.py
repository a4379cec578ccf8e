"""What was thrown away has its price, none, or one that nobody knows: never 0 for the last."""

from decimal import Decimal
from pathlib import Path

import pytest
from msgspec.structs import replace

from batchrun.finish.batch import Finisher, _made
from batchrun.job import Prices, parse_job
from batchrun.pricing import open_book
from batchrun.records import Attempt, Failure, Reply, Sample, Usage
from batchrun.scoring import open_scorer
from batchrun.storage.index import JournalIndex
from batchrun.storage.journal import Journal

MODEL = "claude-sonnet-4-20250514"
USAGE = Usage(input_tokens=1_000_000, output_tokens=0)


def thrown(status: int | None, usage: Usage | None, *, number: int = 1, final: bool = False) -> Attempt:
    failure = Failure(kind="truncated", retry="retry", message="cut", usage=usage, status=status)
    return Attempt(
        ordinal=0,
        attempt=number,
        final=final,
        status="errored",
        model=MODEL,
        failure=failure,
        started_at_us=1_750_000_000_000_000,
        http_status=status,
    )


def answer() -> Attempt:
    reply = Reply(form="anthropic_json", text="", tool_uses=(), stop_reason="end_turn", usage=USAGE)
    return Attempt(
        ordinal=0, attempt=9, final=True, status="succeeded", model=MODEL, reply=reply, started_at_us=1_750_000_000_000_000
    )


@pytest.mark.parametrize(
    ("attempts", "wasted"),
    [
        ([answer()], "0"),
        ([thrown(200, USAGE), answer()], "3"),
        ([thrown(200, USAGE), thrown(200, USAGE, number=2), answer()], "6"),
        ([thrown(500, None), answer()], "0"),
        ([thrown(None, None, final=True)], "0"),
        ([thrown(200, USAGE, final=True)], "3"),
        ([thrown(200, None), answer()], None),
        ([replace(thrown(None, None), cost_reserved="0.5"), answer()], None),
        ([replace(thrown(None, None, final=True), cost_reserved="0.5")], None),
        ([replace(thrown(None, None), broke_off=True), answer()], None),
        ([replace(thrown(None, USAGE), broke_off=True), answer()], "3"),
        ([thrown(200, USAGE), thrown(200, None, number=2), answer()], "3 or more"),
        ([thrown(200, None), thrown(200, USAGE, number=2), answer()], "3 or more"),
        ([thrown(200, Usage(input_tokens=5)), answer()], None),
    ],
)
def test_the_waste_of_a_row(attempts: list[Attempt], wasted: str | None, tmp_path: Path) -> None:
    """Refused is free, told is priced, sent and then silent is unknown; what is known still counts."""
    with Journal(tmp_path / "journal") as journal:
        for attempt in attempts:
            journal.append(attempt, None)
    job = parse_job("", default_name="j", default_dataset="d", overrides=[("request.model", [MODEL])])
    with JournalIndex(tmp_path / "journal") as index:
        finisher = Finisher(job, index, open_scorer(job.scoring), open_book(Prices()))
        (batch,) = finisher.batches([Sample(index=0, id="0", messages=b"[]")])
    known, _, more = (wasted or "").partition(" ")
    assert batch.row(0).wasted_usd == (Decimal(known) if known else None)
    assert batch.partly == bool(more)


def test_each_session_of_a_run_counts_its_attempts_from_one() -> None:
    """Not every attempt is kept: one that was refused before the answer to the second may be missing."""
    first, second, third = (replace(thrown(500, None, number=number), started_at_us=number) for number in (1, 2, 3))
    again, later = replace(first, started_at_us=4), replace(third, started_at_us=5)
    assert [_made(tried) for tried in ([first], [third], [first, third], [first, second, again, third], [third, later])] == [
        *(1, 3, 3, 5, 6)
    ]


def test_what_became_of_a_call_in_a_batch_is_one_attempt_however_often_it_was_fetched() -> None:
    """A batch that was not landed to its end is fetched again by each session, and says of its calls what it said before."""
    expired = replace(thrown(None, None, final=True), status="expired", started_at_us=1)
    answered = replace(answer(), attempt=2, started_at_us=2)
    assert [_made(tried) for tried in ([expired, expired], [expired] * 3 + [answered], [expired, answered])] == [1, 2, 2]
