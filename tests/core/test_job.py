"""The job file: every key converted, every problem told at once, and nothing guessed."""

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.errors import JobError
from batchrun.job import Job, digest, from_builtins, parse_job, parse_set, parse_value, to_builtins, with_overrides

MINIMAL = 'name = "weather"\ndataset = "weather.jsonl"\n'


def problems(text: str, **how: object) -> dict[str | None, str]:
    with pytest.raises(JobError) as caught:
        parse_job(text, **how)  # type: ignore[arg-type]  # keyword arguments of parse_job
    return {problem.field: problem.message for problem in caught.value.problems}


def test_the_contracts_example_is_a_valid_job() -> None:
    job = parse_job(
        MINIMAL
        + """
[endpoint]
base_url = "https://api.anthropic.com"
timeout = { connect_s = 10, first_byte_s = 120, idle_s = 60, total_s = 600 }
[request]
model = ["claude-sonnet-4-20250514"]
max_tokens = 1024
repeat = 1
[limits]
concurrency = 64
rpm = 4000
itpm = 2_000_000
otpm = 400_000
max_cost_usd = 5.00
max_attempts = 8
max_wait_s = 600
max_error_rate = 0.05
[scoring]
profile = "default"
[gate]
min_accuracy = 0.90
no_regression = { against = "last", alpha = 0.05 }
[schedule]
cron = "0 6 * * *"
timezone = "UTC"
[simulate]
seed = 1
accuracy = 0.9
faults = { 429 = 0.02, 529 = 0.01, 500 = 0, error_event = 0, cut = 0.01, stall = 0, bad_json = 0 }
"""
    )
    assert job.limits.max_cost_usd == Decimal("5.0")
    assert job.simulate.faults.http_429 == 0.02
    assert job.gate.no_regression is not None
    assert from_builtins(to_builtins(job)) == job


def test_all_problems_are_told_at_once_with_their_key_paths() -> None:
    found = problems(
        """
dataset = 5
nmae = "x"
limits = 3
[request]
max_tokens = 0
params = { model = "m" }
[endpoint.timeout]
idle_s = "long"
[gate]
no_regression = { against = 1 }
[[prices.models]]
input = 3.0
""",
        file="jobs/a.toml",
    )
    assert found.keys() == {
        "dataset",
        "nmae",
        "limits",
        "name",
        "request.max_tokens",
        "endpoint.timeout.idle_s",
        "gate.no_regression.against",
        "prices.models",
    }


def test_a_misspelt_key_names_the_nearest_known_one() -> None:
    with pytest.raises(JobError) as caught:
        parse_job(MINIMAL + "[limits]\nrmp = 5\n", file="jobs/a.toml")
    assert str(caught.value) == "jobs/a.toml, field `limits.rmp`: is not a field of a job"
    assert caught.value.hint == "did you mean `rpm`?"
    with pytest.raises(JobError) as caught:
        parse_job(MINIMAL + "[scoring.stop_when]\nzzzzzz = 5\n")
    assert "known here: alpha" in str(caught.value.hint)


def test_values_that_contradict_each_other_are_refused() -> None:
    text = MINIMAL.replace("weather", "../x", 1) + (
        '[endpoint]\nbase_url = "api.example.com"\n[schedule]\ncron = "* * * * *"\nevery_s = 5\n'
        "[limits]\nmax_cost_usd = 0\n[request]\nparams = { stream = true }\n"
    )
    assert problems(text).keys() == {"name", "endpoint.base_url", "schedule", "limits.max_cost_usd", "request.params.stream"}


def test_a_model_that_is_there_twice_would_be_billed_twice_and_is_refused() -> None:
    text = MINIMAL + '[request]\nmodel = ["x", "y", "x"]\n'
    assert problems(text) == {"request.model[2]": "'x' is there twice"}
    with pytest.raises(JobError) as caught:
        with_overrides(parse_job(MINIMAL), [("request.model", ["x", "x"])])
    assert "repeat" in str(caught.value.hint)


@pytest.mark.parametrize("text", ["name = ", "a = " + "[" * 5000])
def test_text_that_is_no_toml_is_one_problem(text: str) -> None:
    assert "not valid TOML" in problems(text)[None]


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert parse_job("\ufeff" + MINIMAL) == parse_job(MINIMAL)


def test_overrides_win_and_reach_any_path() -> None:
    job = parse_job(
        MINIMAL,
        overrides=[("limits.rpm", 600), ("simulate.faults.cut", 0.1), ("request.model", "m"), ("prices.multiplier", 1.1)],
    )
    assert (job.limits.rpm, job.simulate.faults.cut, job.request.model) == (600, 0.1, ("m",))
    assert job.prices.multiplier == Decimal("1.1")
    assert problems(MINIMAL, overrides=[("name.x", 1)]) == {"name": "is a value, not a table"}


def test_a_job_can_be_overridden_after_it_was_made() -> None:
    job = parse_job(MINIMAL + '[gate]\nno_regression = { against = "last" }\n[limits]\nmax_cost_usd = 5.1\n')
    assert with_overrides(job, []) == job
    assert with_overrides(job, [("limits.max_cost_usd", 10)]).limits.max_cost_usd == Decimal(10)
    with pytest.raises(JobError, match="not a field"):
        with_overrides(job, [("limits.rmp", 10)])


def test_money_in_a_price_book_is_exact() -> None:
    job = parse_job(MINIMAL + '[[prices.models]]\nmodel = "m"\ninput = 0.1\noutput = 0.7\n')
    assert job.prices.models[0].input == Decimal("0.1")
    assert problems(MINIMAL + "[prices]\nmodels = [5]\n").keys() == {"prices.models"}


def test_a_dataset_alone_is_a_job() -> None:
    job = parse_job("", default_name="d", default_dataset="d.jsonl", overrides=[("request.model", ["a", "b"])])
    assert (job.name, job.dataset, job.request.model) == ("d", "d.jsonl", ("a", "b"))


def test_set_reads_toml_values_and_takes_the_rest_as_text() -> None:
    assert parse_set("limits.rpm=600") == ("limits.rpm", 600)
    assert parse_set("name = my run") == ("name", "my run")
    assert parse_set('request.model=["a"]') == ("request.model", ["a"])
    assert parse_value("[" * 5000) == "[" * 5000
    assert parse_set("endpoint.version=2023-06-01") == ("endpoint.version", "2023-06-01"), "no setting is a date or a time"
    assert [parse_value(text) for text in ("2023-06-01T06:00:00Z", "06:00:00")] == ["2023-06-01T06:00:00Z", "06:00:00"]
    for wrong in ("limits.rpm", "=5"):
        with pytest.raises(JobError, match=r"key\.path=value"):
            parse_set(wrong)


def test_the_digest_follows_the_named_sections_only() -> None:
    job, other = parse_job(MINIMAL), parse_job(MINIMAL, overrides=[("limits.rpm", 5)])
    assert digest(job, "request") == digest(other, "request")
    assert digest(job) != digest(other)


@given(st.text(max_size=200))
def test_no_text_ends_in_anything_but_a_job_or_its_problems(text: str) -> None:
    try:
        outcome: object = parse_job(text)
    except JobError as error:
        outcome = error
    assert isinstance(outcome, Job) or (isinstance(outcome, JobError) and outcome.problems)


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "jobs").glob("*.toml")), ids=lambda path: path.name)
def test_every_job_that_is_shipped_is_valid(path: Path) -> None:
    assert parse_job(path.read_text(encoding="utf-8"), file=path.name).request.model
