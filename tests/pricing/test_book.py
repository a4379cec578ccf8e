"""Whose price counts, what is kept of it for the record, and what happens where there is none."""

import json
from decimal import Decimal

import pytest

from batchrun.errors import JobError
from batchrun.job import PriceOverride, Prices, parse_job
from batchrun.pricing import PriceBook, open_book
from batchrun.pricing.rates import us_of
from batchrun.records import Usage

MODEL = "claude-sonnet-4-20250514"  # 3, 15, 0.30, 3.75, 6 dollars a million; 10 a thousand searches
AT = us_of("2025-07-01")
ONE_EACH = Usage(
    input_tokens=1_000_000,
    output_tokens=1_000_000,
    cache_read_tokens=1_000_000,
    cache_write_5m_tokens=1_000_000,
    cache_write_1h_tokens=1_000_000,
)


def usd(book: PriceBook, model: str = MODEL, at_us: int = AT, *, batch: bool = False) -> Decimal | None:
    """A million tokens of each kind."""
    return book.cost(ONE_EACH, model, at_us, batch=batch).usd


def test_the_library_s_prices_hold_where_the_user_gives_none() -> None:
    assert usd(open_book(Prices())) == Decimal("28.05")


def test_the_user_s_price_of_one_kind_leaves_the_others() -> None:
    book = open_book(Prices(models=(PriceOverride(model=MODEL, output=Decimal(20)),)))
    assert usd(book) == Decimal("33.05")


def test_a_reseller_s_multiplier_is_on_everything_searches_included() -> None:
    book = open_book(Prices(multiplier=Decimal("1.1"), currency="EUR"))
    usage = Usage(input_tokens=1_000_000, output_tokens=0, server_tool_use={"web_search_requests": 1000})
    assert book.cost(usage, MODEL, AT).parts == {"input": Decimal("3.3"), "web_search": Decimal(11)}
    assert book.terms.currency == "EUR"


def test_the_batch_discount_halves_what_the_batches_endpoint_ran() -> None:
    book = open_book(Prices())
    assert usd(book, batch=True) == Decimal("14.025")
    assert book.cost(Usage(input_tokens=1_000_000, output_tokens=0, service_tier="batch"), MODEL, AT).usd == Decimal("1.5")
    assert usd(open_book(Prices(batch_discount=Decimal("0.75"))), batch=True) == Decimal("21.0375")


def test_a_price_holds_from_its_first_day_until_before_its_last() -> None:
    early = PriceOverride(model=MODEL, input=Decimal(100), to_date="2025-07-01")
    late = PriceOverride(model=MODEL, input=Decimal(200), from_date="2025-07-02")
    book = open_book(Prices(models=(early, late)))
    costs = [usd(book, at_us=us_of(day)) for day in ("2025-06-30", "2025-07-01", "2025-07-02")]
    assert costs == [Decimal("125.05"), Decimal("28.05"), Decimal("225.05")]


def test_a_fixed_date_prices_every_call_as_of_that_day() -> None:
    price = PriceOverride(model=MODEL, input=Decimal(100), from_date="2030-01-01")
    assert usd(open_book(Prices(models=(price,), date="2030-01-01"))) == Decimal("125.05")


@pytest.mark.parametrize(
    "written", [MODEL, "claude-sonnet-4", "anthropic/claude-sonnet-4", "anthropic.claude-sonnet-4-20250514-v1:0"]
)
def test_the_user_s_price_is_found_under_the_model_s_other_names(written: str) -> None:
    book = open_book(Prices(models=(PriceOverride(model=written, input=Decimal(100)),)))
    assert usd(book) == Decimal("125.05")
    assert usd(book, "us.anthropic.claude-sonnet-4-20250514-v1:0") == Decimal("125.05")


def test_a_dated_price_is_not_another_date_s() -> None:
    book = open_book(Prices(models=(PriceOverride(model="claude-sonnet-4-20250101", input=Decimal(100)),)))
    assert usd(book) == Decimal("28.05")


def test_a_model_only_the_user_knows_needs_input_and_output() -> None:
    whole = PriceOverride(model="house-model", input=Decimal(1), output=Decimal(2))
    book = open_book(Prices(models=(whole, PriceOverride(model="half-model", input=Decimal(1)))))
    assert usd(book, "house-model") == Decimal("6.35")  # cache kinds by the Messages API's multiples of input
    assert usd(book, "half-model") is None


def test_an_alias_is_priced_as_what_it_stands_for() -> None:
    own = PriceOverride(model="small", input=Decimal(1), output=Decimal(1))
    book = open_book(Prices(aliases={"Prod-Large": MODEL, "tiny": "small"}, models=(own,)))
    assert usd(book, "prod-large") == Decimal("28.05")
    assert usd(book, "tiny") == usd(book, "small") == Decimal("5.35")


def test_an_unknown_model_and_an_untold_count_cost_none_and_are_counted_by_name() -> None:
    book = open_book(Prices())
    assert [
        usd(book, "mystery-1"),
        usd(book, "mystery-1"),
        book.cost(None, MODEL, AT).usd,
        book.cost(Usage(), MODEL, AT).usd,
    ] == [None] * 4
    assert book.unpriced == {"mystery-1": 2, MODEL: 2}
    assert book.worst_case("mystery-1", 1, 1, AT) is None


def test_the_worst_case_is_the_dearest_way_to_send_the_input_and_fill_the_output() -> None:
    book = open_book(Prices())
    assert book.worst_case(MODEL, 1000, 100, AT) == Decimal("0.0045")
    assert book.worst_case(MODEL, 1000, 100, AT, cache_marks=True) == Decimal("0.0075")
    assert book.worst_case(MODEL, 1000, 100, AT, batch=True) == Decimal("0.00225")


def test_a_snapshot_prices_the_same_usages_again_to_the_last_digit() -> None:
    """Through JSON and back, without library, file or job; what it does not hold is unpriced."""
    spec = Prices(
        multiplier=Decimal("1.07"), models=(PriceOverride(model=MODEL, output=Decimal("15.123456789"), from_date="2025-01-01"),)
    )
    book = open_book(spec)
    times = [us_of(day) for day in ("2024-06-01", "2025-07-01", "2026-11-01")]
    models = [MODEL, "claude-sonnet-4-5", "claude-opus-4-6", "mystery-1"]
    costs = [usd(book, model, at_us, batch=batch) for model in models for at_us in times for batch in (False, True)]
    kept = json.loads(json.dumps(book.snapshot()))
    again = PriceBook.from_snapshot(kept)
    assert [usd(again, model, at_us, batch=batch) for model in models for at_us in times for batch in (False, True)] == costs
    assert again.snapshot() == book.snapshot()
    assert again.unpriced == book.unpriced
    assert kept["library"].startswith("genai-prices")
    assert kept["cards"]["mystery-1"] is None
    assert usd(again, "claude-3-haiku-20240307") is None


FILE = """
multiplier = 1.2
currency = "EUR"
[[models]]
model = "house-model"
input = 0.1
output = 0.3
"""


def test_a_price_file_in_toml_or_json_says_the_same_and_its_numbers_are_exact() -> None:
    as_json = '{"multiplier": 1.2, "currency": "EUR", "models": [{"model": "house-model", "input": 0.1, "output": 0.3}]}'
    for text in (FILE, as_json):
        book = open_book(Prices(file="prices"), file_text=text)
        assert book.cost(Usage(input_tokens=10, output_tokens=0), "house-model", AT).usd == Decimal("0.0000012")
        assert book.terms.multiplier == Decimal("1.2")


def test_the_job_wins_over_the_file_kind_by_kind_and_multipliers_multiply() -> None:
    job = Prices(multiplier=Decimal(2), currency="CHF", models=(PriceOverride(model="house-model", output=Decimal(1)),))
    book = open_book(job, file_text=FILE)
    cost = book.cost(Usage(input_tokens=1_000_000, output_tokens=1_000_000), "house-model", AT)
    assert cost.parts == {"input": Decimal("0.24"), "output": Decimal("2.4")}
    assert book.terms.currency == "CHF"


@pytest.mark.parametrize(
    "text",
    ["multiplier = ", "{", '{"models": 3}', "colour = 1", "[[models]]\ninput = 1", '{"a":' * 100_000, "a = " + "[" * 100_000],
)
def test_a_file_that_is_no_price_book_is_a_problem_with_its_name(text: str) -> None:
    with pytest.raises(JobError) as error:
        open_book(Prices(file="prices.toml"), file_text=text)
    assert error.value.problems[0].file == "prices.toml"
    assert error.value.hint is not None


def test_every_amount_that_is_no_price_and_every_day_that_is_no_date_is_reported_at_once() -> None:
    bad = PriceOverride(
        model="m",
        input=Decimal(-1),
        output=Decimal("NaN"),
        cache_read=Decimal("1e-400"),
        web_search=Decimal("1e400"),
        from_date="yesterday",
    )
    with pytest.raises(JobError) as error:
        open_book(Prices(multiplier=Decimal("Infinity"), date="2025-02-30", models=(bad,)), file_text="batch_discount = -1")
    assert [problem.field for problem in error.value.problems] == [
        "prices.batch_discount",
        "prices.multiplier",
        "prices.models[0].input",
        "prices.models[0].output",
        "prices.models[0].cache_read",
        "prices.models[0].web_search",
        "prices.date",
        "prices.models[0].from_date",
    ]


def test_a_job_s_floats_reach_the_book_digit_by_digit() -> None:
    job = parse_job('name = "a"\ndataset = "d"\n[prices]\n[[prices.models]]\nmodel = "m"\ninput = 0.1\noutput = 0.7')
    assert open_book(job.prices).cost(Usage(input_tokens=3, output_tokens=3), "m", AT).usd == Decimal("0.0000024")


def test_a_book_knows_whose_prices_it_was_asked_for() -> None:
    """Those that its snapshot holds, the unpriced too: so two books that were asked alike say the same."""
    book = open_book(Prices())
    assert not book.asked
    usd(book)
    usd(book, "mystery")
    assert book.asked == (MODEL, "mystery") == tuple(book.snapshot()["cards"])
