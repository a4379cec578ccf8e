"""What a job is going to send, and which of it a sample takes."""

import msgspec
import pytest

from batchrun.estimation.survey import Draw, draw, drawn, survey
from batchrun.job import Job, parse_job
from batchrun.pricing.pilot import stratum_of
from batchrun.records import Sample
from batchrun.wire.request import BodyBuilder

LONG = "You look things up. " * 300


def a_job(*overrides: tuple[str, object]) -> Job:
    return parse_job(
        "", default_name="j", default_dataset="d.jsonl", overrides=[("request.model", ["m", "other-model"]), *overrides]
    )


def samples(number: int = 50) -> list[Sample]:
    return [
        Sample(
            index=index,
            id=str(index),
            messages=msgspec.json.encode([{"role": "user", "content": "word " * (index % 17)}]),
            tags=("even",) if index % 2 == 0 else ("odd",),
        )
        for index in range(number)
    ]


def test_every_row_is_counted_once_a_model_with_the_bytes_that_would_be_sent() -> None:
    job, rows = a_job(("request.repeat", 3)), samples()
    rows[7] = msgspec.structs.replace(rows[7], problem="is broken")
    got = survey(job, rows)
    assert (got.calls, got.bad_rows, got.repeats) == (49 * 2 * 3, 1, 3)
    for one in got.models:
        bodies = [len(BodyBuilder(job.request).build(row, one.model)) for row in rows if row.problem is None]
        assert (one.rows, one.bytes) == (49, sum(bodies))
        assert sum(stratum.length for stratum in one.lengths.values()) == sum(bodies)
        assert one.weights == one.lengths
        assert sum(bucket.rows for bucket in one.buckets.values()) == 49
        assert sum(bucket.max_tokens for bucket in one.buckets.values()) == 49 * 1024


def test_a_prefix_that_is_cached_weighs_a_tenth() -> None:
    """Only where the job places the marks, and the prefix is long enough to be kept."""
    for cache, system, lighter in (("auto", LONG, True), ("off", LONG, False), ("auto", "short", False)):
        (one, _) = survey(a_job(("request.cache", cache), ("request.system", system)), samples()).models
        weight, length = (sum(part.length for part in each.values()) for each in (one.weights, one.lengths))
        assert (weight < length / 4) is lighter
        assert (weight == length) is not lighter
        assert [rows for _, rows in one.prefixes.values()] == ([] if system == "short" else [50])


@pytest.mark.parametrize(("sample", "repeats"), [(8, 1), (20, 1), (40, 4), (1000, 2)])
def test_the_calls_found_are_those_drawn(sample: int, repeats: int) -> None:
    """Each once, in the order of their ordinals, in the stratum they belong to; all of them where more are asked for."""
    job, rows = a_job(("request.repeat", repeats)), samples()
    models = survey(job, rows).models
    draws: dict[str, Draw] = {one.model: draw(one, sample, seed=3, repeats=repeats) for one in models}
    found = list(drawn(job, rows, draws))
    ordinals = [call.request.ordinal for call in found]
    assert ordinals == sorted(set(ordinals))
    assert len(found) == 2 * min(sample, 50 * repeats)
    for call in found:
        row, place = divmod(call.request.ordinal, 2 * repeats)
        assert call.model == ("m", "other-model")[place // repeats]
        assert call.request == BodyBuilder(job.request).request(rows[row], call.model, call.request.ordinal)
        assert call.stratum == draws[call.model].into[stratum_of(rows[row].tags, call.weight)]
    assert found == list(drawn(job, rows, draws))
    alone = list(drawn(job, rows, {"m": draws["m"]}))
    assert alone == [call for call in found if call.model == "m"]


def test_rows_that_cannot_be_sent_are_not_drawn() -> None:
    job, rows = a_job(), samples(10)
    rows[0] = msgspec.structs.replace(rows[0], problem="is broken")
    draws = {one.model: draw(one, 100, seed=0) for one in survey(job, rows).models}
    assert [call.request.ordinal for call in drawn(job, rows, draws)] == list(range(2, 20))
