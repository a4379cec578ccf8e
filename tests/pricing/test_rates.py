"""Money is exact: to the last digit, whatever the context, and the parts of a row sum to its total."""

import decimal
from decimal import Decimal
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.pricing.rates import DAY_US, KINDS, TOKEN_KINDS, Card, Period, Steps, Tariff, day_of, prices_at, quantized, us_of
from batchrun.records import Usage

SONNET = {"input": "3", "output": "15", "cache_read": "0.3", "cache_write_5m": "3.75", "cache_write_1h": "6", "web_search": "10"}


def flat(**prices: str) -> dict[str, Steps]:
    """Unit prices without steps."""
    return {kind: ((0, Decimal(price)),) for kind, price in prices.items()}


counts = st.integers(0, 10**7)
usages = st.builds(
    Usage,
    input_tokens=counts,
    output_tokens=counts,
    cache_read_tokens=counts,
    cache_write_5m_tokens=counts,
    cache_write_1h_tokens=counts,
    thinking_tokens=st.none() | counts,
)
prices = st.decimals(0, 1000, places=7).map(str)


def test_the_published_prices_of_a_model_give_the_amount_worked_out_by_hand() -> None:
    """1,000 × 3 + 500 × 15 + 20,000 × 0.30 + 400 × 3.75 + 100 × 6 dollars a million, and two searches at 10 a thousand."""
    usage = Usage(
        input_tokens=1000,
        output_tokens=500,
        cache_read_tokens=20_000,
        cache_write_5m_tokens=400,
        cache_write_1h_tokens=100,
        thinking_tokens=450,
        server_tool_use={"web_search_requests": 2, "web_fetch_requests": 7},
    )
    cost = Tariff(flat(**SONNET)).cost(usage)
    assert str(cost.usd) == "0.038600000"
    assert {kind: str(part) for kind, part in cost.parts.items()} == {
        "input": "0.003000000",
        "output": "0.007500000",
        "cache_read": "0.006000000",
        "cache_write_5m": "0.001500000",
        "cache_write_1h": "0.000600000",
        "web_search": "0.020000000",
    }


def test_thinking_is_inside_output_and_never_added() -> None:
    tariff = Tariff(flat(**SONNET))
    plain = Usage(input_tokens=1, output_tokens=900)
    assert tariff.cost(plain) == tariff.cost(Usage(input_tokens=1, output_tokens=900, thinking_tokens=900))


@given(usages, st.fixed_dictionaries(dict.fromkeys(KINDS, prices)), st.decimals(0, 3, places=4), st.decimals(0, 1, places=3))
def test_a_cost_is_the_exact_sum_rounded_once_and_its_parts_sum_to_it(
    usage: Usage, by_kind: dict[str, str], multiplier: Decimal, factor: Decimal
) -> None:
    cost = Tariff(flat(**by_kind), multiplier=multiplier, token_factor=factor).cost(usage)
    exact = sum(
        getattr(usage, f"{kind}_tokens") * Fraction(by_kind[kind]) * Fraction(multiplier) * Fraction(factor) / 10**6
        for kind in TOKEN_KINDS
    )
    assert cost.usd is not None
    assert cost.usd.as_tuple().exponent == -9
    assert Fraction(cost.usd) == Fraction(round(exact * 10**9), 10**9)  # Python rounds a Fraction half to even
    assert sum(cost.parts.values(), Decimal(0)) == cost.usd


@given(st.lists(usages, max_size=5))
def test_cost_is_additive_over_usages(several: list[Usage]) -> None:
    """At prices of at most three decimals a million nothing is ever rounded."""
    tariff = Tariff(flat(**SONNET))
    together = Usage(**{f"{kind}_tokens": sum(getattr(usage, f"{kind}_tokens") for usage in several) for kind in TOKEN_KINDS})
    assert tariff.cost(together).usd == sum((tariff.cost(usage).usd or Decimal(0) for usage in several), Decimal(0))


@given(st.none() | counts | st.just(10**18), st.none() | counts, prices, prices)
def test_plain_tokens_cost_what_a_usage_of_them_costs(fresh: int | None, output: int | None, low: str, high: str) -> None:
    steps = {"input": ((0, Decimal(low)), (200_000, Decimal(high))), "output": ((0, Decimal(high)),)}
    tariff = Tariff(flat(**SONNET) | steps)
    amounts = tariff.amounts(Usage(input_tokens=fresh, output_tokens=output))
    assert tariff.plain(fresh, output) == (None if amounts is None else sum(amounts.values()))


def test_the_ambient_decimal_context_changes_nothing() -> None:
    usage = Usage(input_tokens=123_456_789, output_tokens=987_654_321)
    expected = Tariff(flat(**SONNET)).cost(usage)
    with decimal.localcontext(prec=3, rounding=decimal.ROUND_UP):
        assert Tariff(flat(**SONNET)).cost(usage) == expected


def test_a_count_that_was_not_told_is_unknown_and_never_0() -> None:
    tariff = Tariff(flat(**SONNET))
    for usage in (Usage(), Usage(input_tokens=5), Usage(output_tokens=5), Usage(cache_read_tokens=5, output_tokens=5)):
        assert tariff.cost(usage).usd is None


def test_cache_counts_that_were_not_told_are_inside_the_input() -> None:
    cost = Tariff(flat(**SONNET)).cost(Usage(input_tokens=10, output_tokens=0))
    assert cost.usd == Decimal("0.00003")
    assert set(cost.parts) == {"input"}


def test_a_count_that_nobody_was_billed_for_is_unknown_and_fits_no_column() -> None:
    """`cost_usd` is decimal(18,9); a server that reports 10¹⁸ tokens must not break the run's last step."""
    tariff = Tariff(flat(**SONNET))
    assert tariff.cost(Usage(input_tokens=10**18, output_tokens=0)).usd is None
    assert tariff.cost(Usage(input_tokens=333_333_333_333_333, output_tokens=0)).usd == Decimal("999999999.999999")


def test_no_tokens_cost_exactly_nothing() -> None:
    cost = Tariff(flat(**SONNET | {"input": "0.00001"})).cost(Usage(input_tokens=0, output_tokens=0))
    assert str(cost.usd) == "0E-9"
    assert cost.parts == {}


@pytest.mark.parametrize(
    ("tools", "usd"),
    [
        ({"web_search_requests": 0}, "0"),
        ({"web_fetch_requests": 3}, "0"),
        ({"web_search_requests": 3}, "0.03"),
        ({"code_execution_requests": 1}, None),
        ({"code_execution_requests": 0}, "0"),
    ],
)
def test_server_tools_are_priced_by_request_and_an_unknown_one_is_unknown(tools: dict[str, int], usd: str | None) -> None:
    cost = Tariff(flat(**SONNET)).cost(Usage(input_tokens=0, output_tokens=0, server_tool_use=tools))
    assert cost.usd == (None if usd is None else Decimal(usd))


def test_a_search_without_a_price_is_unknown() -> None:
    tariff = Tariff(flat(**{kind: price for kind, price in SONNET.items() if kind != "web_search"}))
    assert tariff.cost(Usage(input_tokens=1, output_tokens=1, server_tool_use={"web_search_requests": 1})).usd is None


def test_the_batch_discount_is_on_tokens_and_not_on_server_tools() -> None:
    """The batch prices that genai-prices lists override the token prices alone."""
    usage = Usage(input_tokens=1000, output_tokens=0, server_tool_use={"web_search_requests": 1})
    cost = Tariff(flat(**SONNET), token_factor=Decimal("0.5")).cost(usage)
    assert cost.parts == {"input": Decimal("0.0015"), "web_search": Decimal("0.01")}


def test_a_long_prompt_pays_its_step_on_every_token_once_the_step_is_crossed() -> None:
    """The whole prompt decides, cached tokens included; at the threshold itself the lower price still holds."""
    tariff = Tariff(
        flat(**SONNET)
        | {"input": ((0, Decimal(3)), (200_000, Decimal(6))), "output": ((0, Decimal(15)), (200_000, Decimal("22.5")))}
    )
    at = tariff.cost(Usage(input_tokens=100_000, cache_read_tokens=100_000, output_tokens=100))
    over = tariff.cost(Usage(input_tokens=100_000, cache_read_tokens=100_001, output_tokens=100))
    assert (at.parts["input"], at.parts["output"]) == (Decimal("0.3"), Decimal("0.0015"))
    assert (over.parts["input"], over.parts["output"]) == (Decimal("0.6"), Decimal("0.00225"))


@given(
    st.integers(0, 400_000),
    st.integers(0, 10_000),
    st.integers(0, 10_000),
    st.sampled_from(("input", *TOKEN_KINDS[2:])),
)
def test_no_usage_within_the_bounds_costs_more_than_the_worst_case(prompt: int, output: int, more: int, kind: str) -> None:
    tariff = Tariff(
        flat(**SONNET)
        | {"input": ((0, Decimal(3)), (200_000, Decimal("0.0000007"))), "output": ((0, Decimal(15)), (200_000, Decimal("22.5")))}
    )
    worst = tariff.worst(prompt + more, output + more, cache_marks=True)
    used = msgspec.structs.replace(Usage(input_tokens=0, output_tokens=output), **{f"{kind}_tokens": prompt})
    assert worst >= (tariff.cost(used).usd or 0)
    assert worst >= tariff.worst(prompt + more, output + more, cache_marks=False)


def test_the_worst_case_rounds_up() -> None:
    tariff = Tariff(flat(**SONNET | {"input": "0.0001", "output": "0"}))
    assert str(tariff.worst(1, 5, cache_marks=False)) == "1E-9"


def test_unit_prices_are_those_of_one_token_with_every_factor_in_them() -> None:
    tariff = Tariff(flat(**SONNET), multiplier=Decimal("1.1"), token_factor=Decimal("0.5"))
    assert tariff.unit_prices(10)["input"] == Decimal("0.00000165")
    assert tariff.unit_prices(10)["web_search"] == Decimal("0.011")
    assert "web_search" not in Tariff(flat(**{k: v for k, v in SONNET.items() if k != "web_search"})).unit_prices(10)


def test_days_are_utc_and_a_period_ends_before_its_last_day() -> None:
    period = Period(prices={}, from_date="2025-01-02", to_date="2025-01-04")
    days = {day: period.active(us_of(day)) for day in ("2025-01-01", "2025-01-02", "2025-01-03", "2025-01-04")}
    assert list(days.values()) == [False, True, True, False]
    assert period.active(us_of("2025-01-04") - 1)
    assert day_of(us_of("2025-01-04") - 1) == "2025-01-03"
    assert day_of(-1) == "1969-12-31"


def test_a_daily_window_may_go_over_midnight() -> None:
    at = [hour * DAY_US // 24 for hour in range(24)]
    night = Period(prices={}, from_minute=22 * 60, to_minute=2 * 60)
    noon = Period(prices={}, from_minute=11 * 60, to_minute=13 * 60)
    assert [hour for hour in range(24) if night.active(at[hour])] == [0, 1, 22, 23]
    assert [hour for hour in range(24) if noon.active(at[hour])] == [11, 12]


def test_the_last_period_in_force_is_the_price_and_the_first_one_before_all() -> None:
    card = Card(
        name="m",
        periods=(
            Period(prices=flat(input="1", output="2"), from_date="2025-01-01"),
            Period(prices=flat(input="3", output="4"), from_date="2025-06-01"),
        ),
    )
    assert [prices_at(card, us_of(day))["input"] for day in ("2024-01-01", "2025-01-01", "2025-06-01")] == [  # type: ignore[index] # priced
        ((0, Decimal(1)),),
        ((0, Decimal(1)),),
        ((0, Decimal(3)),),
    ]


def test_tiers_and_overrides_change_single_kinds_the_user_s_last() -> None:
    card = Card(
        name="m",
        periods=(Period(prices=flat(input="1", output="2")),),
        tiers={"flex": (Period(prices=flat(input="0.5", output="1")), Period(prices=flat(input="9", cache_read="0.2")))},
        overrides=(Period(prices=flat(output="7")), Period(prices=flat(output="8"), from_date="2030-01-01")),
    )
    assert prices_at(card, 0, "flex") == flat(input="0.5", output="7", cache_read="0.2") | flat(
        cache_write_5m="0.625", cache_write_1h="1.0"
    )
    assert prices_at(card, 0, "unheard of") == prices_at(card, 0)


def test_cache_kinds_nobody_priced_follow_the_messages_api_or_are_plain_input() -> None:
    """Messages API pricing page: reads 0.1, 5-minute writes 1.25, 1-hour writes 2 times the input price."""
    period = Period(prices=flat(input="3", output="15"))
    ours, other = (prices_at(Card(name="m", periods=(period,), messages_api=messages), 0) for messages in (True, False))
    assert ours is not None
    assert other is not None
    assert [ours[kind][0][1] for kind in TOKEN_KINDS[2:]] == [Decimal("0.3"), Decimal("3.75"), Decimal(6)]
    assert [other[kind][0][1] for kind in TOKEN_KINDS[2:]] == [Decimal(3)] * 3


def test_a_model_without_an_input_or_output_price_has_no_prices() -> None:
    assert prices_at(Card(name="m"), 0) is None
    assert prices_at(Card(name="m", overrides=(Period(prices=flat(input="1")),)), 0) is None


def test_money_is_rounded_half_to_even_to_nine_places() -> None:
    assert str(quantized(Decimal("0.0000000005"))) == "0E-9"
    assert str(quantized(Decimal("0.0000000015"))) == "2E-9"
