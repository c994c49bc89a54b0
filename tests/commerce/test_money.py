"""Money is exact: read from text, divided, written back."""

import random
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commerce.errors import BadCurrency
from commerce.money import (
    AMOUNT_MAX,
    BadAmount,
    Money,
    allocate,
    currencies,
    currency_exponent,
    format_amount,
    parse_amount,
)

CODES = st.sampled_from(["USD", "EUR", "JPY", "KWD", "RSD", "CNY", "IQD"])


@pytest.mark.parametrize(
    ("code", "decimals"),
    [
        *(("USD", 2), ("EUR", 2), ("CNY", 2), ("JPY", 0), ("KRW", 0), ("KWD", 3), ("TND", 3)),
        *(("RSD", 2), ("ALL", 2), ("MMK", 2), ("HUF", 2), ("ISK", 0), ("IQD", 3), ("UGX", 0)),
    ],
)
def test_decimals_are_those_of_iso_4217_not_of_habit(code: str, decimals: int) -> None:
    assert currency_exponent(code) == decimals


@pytest.mark.parametrize("code", ["", "usd", "US", "USDD", "XXX", "XTS", "DEM", "HRK", "ЕUR", "12"])
def test_a_code_that_is_no_tender_today_is_refused(code: str) -> None:
    with pytest.raises(BadCurrency):
        currency_exponent(code)
    with pytest.raises(BadCurrency):
        parse_amount("1", code)
    with pytest.raises(BadCurrency):
        Money(1, code)


def test_every_currency_has_a_sane_number_of_decimals() -> None:
    assert len(currencies()) > 140
    assert {currency_exponent(code) for code in currencies()} == {0, 2, 3}


@pytest.mark.parametrize(
    ("text", "code", "amount"),
    [
        ("9.99", "USD", 999),
        ("9.9", "USD", 990),
        ("9", "USD", 900),
        ("0", "USD", 0),
        ("0.00", "USD", 0),
        ("007.5", "USD", 750),
        (" 9.99\u00a0", "USD", 999),
        ("9.9900", "USD", 999),
        ("500", "JPY", 500),
        ("500.00", "JPY", 500),
        ("1.234", "KWD", 1234),
        ("10000000000.00", "USD", AMOUNT_MAX),
        ("0.29", "USD", 29),  # 28.999999999999996 in floats
    ],
)
def test_a_price_is_read_exactly(text: str, code: str, amount: int) -> None:
    assert parse_amount(text, code) == amount


@pytest.mark.parametrize(
    ("text", "code", "reason"),
    [
        ("", "USD", "empty"),
        ("   ", "USD", "empty"),
        ("-1", "USD", "negative"),
        ("-0.01", "USD", "negative"),
        ("−5", "USD", "negative"),
        ("-1,000", "USD", "negative"),
        ("9.999", "USD", "decimals"),
        ("9.5", "JPY", "decimals"),
        ("1.2345", "KWD", "decimals"),
        ("1,299.00", "USD", "comma"),
        ("9,99", "USD", "comma"),
        ("$9.99", "USD", "garbage"),
        ("9.99 USD", "USD", "garbage"),
        ("1e3", "USD", "garbage"),
        ("+5", "USD", "garbage"),
        ("9.", "USD", "garbage"),
        (".5", "USD", "garbage"),
        ("1.2.3", "USD", "garbage"),
        ("１２", "USD", "garbage"),
        ("NaN", "USD", "garbage"),
        ("-", "USD", "garbage"),
        ("10000000000.01", "USD", "too_large"),
        ("9" * 39, "USD", "too_large"),
        ("9" * 5_000, "USD", "too_large"),
        ("x" * 5_000, "USD", "garbage"),
    ],
)
def test_anything_else_is_refused_with_its_reason(text: str, code: str, reason: str) -> None:
    with pytest.raises(BadAmount) as refused:
        parse_amount(text, code)
    assert refused.value.reason == reason
    assert refused.value.sentence


@settings(deadline=None)  # the machine may be busy
@given(st.integers(0, AMOUNT_MAX), CODES)
def test_what_is_written_is_read_back(amount: int, code: str) -> None:
    text = format_amount(amount, code)
    assert parse_amount(text, code) == amount
    assert Decimal(text).scaleb(currency_exponent(code)) == amount


@settings(deadline=None)  # the machine may be busy
@given(st.text(max_size=20), CODES)
def test_text_is_read_as_decimal_would_or_refused(text: str, code: str) -> None:
    try:
        amount = parse_amount(text, code)
    except BadAmount:
        return
    assert Decimal(text.strip()).scaleb(currency_exponent(code)) == amount
    assert 0 <= amount <= AMOUNT_MAX


WEIGHTS = st.lists(st.integers(0, 10**9), min_size=1, max_size=30)
TOTALS = st.integers(-(10**12), 10**12)


@settings(deadline=None)  # the machine may be busy
@given(TOTALS, WEIGHTS)
def test_parts_add_up_and_none_is_a_whole_unit_from_its_share(
    total: int, weights: list[int]
) -> None:
    parts = allocate(total, weights)
    assert sum(parts) == total
    assert len(parts) == len(weights)
    whole = sum(weights)
    if whole:
        assert all(
            abs(part * whole - total * weight) < whole
            for part, weight in zip(parts, weights, strict=True)
        )
        assert all(not part for part, weight in zip(parts, weights, strict=True) if not weight)


@settings(deadline=None)  # the machine may be busy
@given(TOTALS, WEIGHTS)
def test_who_weighs_more_never_gets_less(total: int, weights: list[int]) -> None:
    sizes = [abs(part) for part in allocate(total, weights)]
    ranked = sorted(zip(weights, sizes, strict=True))
    assert all(low[1] <= high[1] for low, high in pairwise(ranked) if low[0] < high[0])


def test_ties_go_to_the_first_and_zero_weights_share_equally() -> None:
    assert allocate(10, [1, 1, 1]) == [4, 3, 3]
    assert allocate(11, [1, 1, 1]) == [4, 4, 3]
    assert allocate(-10, [1, 1, 1]) == [-4, -3, -3]
    assert allocate(5, [0, 0]) == [3, 2]
    assert allocate(0, [3, 1]) == [0, 0]
    assert allocate(100, [1, 2]) == [33, 67]


def test_returning_units_one_by_one_gives_back_the_whole_price() -> None:
    dice = random.Random(7)
    for _ in range(200):
        total, units = dice.randrange(1, 10_000), dice.randrange(1, 20)
        assert sum(allocate(total, [1] * units)) == total


@pytest.mark.parametrize("weights", [[], [1, -1]])
def test_no_weights_or_a_negative_one_is_an_error(weights: list[int]) -> None:
    with pytest.raises(ValueError, match="weights"):
        allocate(1, weights)


def test_currencies_do_not_mix() -> None:
    nine = Money.parse("9.99", "USD")
    assert nine + Money(1, "USD") == Money(1000, "USD")
    assert nine - nine == Money(0, "USD")
    assert (nine * 3).text == "29.97 USD"
    assert [part.amount for part in nine.allocate([1, 1])] == [500, 499]
    with pytest.raises(ValueError, match="mix"):
        nine + Money(1, "EUR")
    with pytest.raises(ValueError, match="mix"):
        nine - Money(1, "EUR")
