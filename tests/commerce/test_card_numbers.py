"""Cards are found however they are typed; barcodes, times and order numbers pass."""

import json
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commerce.card_fields import card_field
from commerce.card_numbers import (
    ISSUERS,
    find_card_number,
    gs1_valid,
    luhn_valid,
    refuse_card_numbers,
)
from commerce.errors import CardNumberFound

# Published test numbers of the networks and of payment providers.
TEST_CARDS = {
    "visa": "4111111111111111",
    "visa, another": "4242424242424242",
    "mastercard": "5555555555554444",
    "mastercard, the 2 series": "2223003122003222",
    "american express": "378282246310005",
    "american express, another": "371449635398431",
    "diners": "30569309025904",
    "diners, another": "36227206271667",
    "discover": "6011111111111117",
    "jcb": "3566002020360505",
    "unionpay": "6200000000000005",
    "unionpay, 19 digits": "6205500000000000004",
}


def with_luhn(body: str) -> str:
    return next(body + digit for digit in "0123456789" if luhn_valid(body + digit))


def with_gs1(body: str) -> str:
    return next(body + digit for digit in "0123456789" if gs1_valid(body + digit))


def fours(number: str, between: str = " ") -> str:
    return between.join(number[at : at + 4] for at in range(0, len(number), 4))


def in_script(number: str, zero: str) -> str:
    return "".join(chr(ord(zero) + int(digit)) for digit in number)


@pytest.mark.parametrize("number", TEST_CARDS.values(), ids=TEST_CARDS.keys())
def test_every_network_is_found_alone_in_a_sentence_and_grouped(number: str) -> None:
    assert luhn_valid(number)
    assert find_card_number(number)
    assert find_card_number(f"hi, please charge {number} thanks!")
    assert find_card_number(f"卡号{number}，谢谢")
    assert find_card_number(f"({number})")
    assert find_card_number(fours(number))
    assert find_card_number(fours(number, "-"))


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1111 12/27 123",
        "4111 1111 1111 1111 1227 123",
        "2 x 4111 1111 1111 1111",
        "1227 4111 1111 1111 1111",
        "1227 123 4111 1111 1111 1111",
        "4111 1111 1111 1111 4111 1111 1111 1111 5555 5555 5555 4444",
        "4111111111111111 12 27",
        "4111111111111111/12/27/123",
        "4111.1111.1111.1111",
        "4111_1111_1111_1111",
        "4111  1111  1111  1111",
        "4111 - 1111 - 1111 - 1111",
        "4111–1111–1111–1111",
        "4111\u00a01111\u00a01111\u00a01111",
        "4111\u200b1111\u200b1111\u200b1111",
        "4111\n1111\n1111\n1111",
        "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
        "41 11 11 11 11 11 11 11",
        "41111111 11111111",
        "3782 822463 10005",
        "3782-822463-10005",
        "3056 930902 5904",
        "620550 0000000000004",
        "visa-4111111111111111",
        "VISA4111111111111111",
        "my card is4111111111111111",
        "I mean 4111111111111111",
        "pay for my order with card 4111111111111111",
        "4111 1111 1111 1111 and 5555 5555 5555 4444",
        "4111 1111 1111 1111 5555 5555 5555 4444",
        "4111-1111 1111-1111 no, 4111-1111-1111-1111",
    ],
)
def test_a_card_is_found_however_it_is_typed(text: str) -> None:
    assert find_card_number(text)


@pytest.mark.parametrize("zero", ["٠", "۰", "०", "০", "๐", "０", "𝟎", "𝟬"])
def test_digits_of_other_scripts_are_digits(zero: str) -> None:
    assert find_card_number(in_script("4111111111111111", zero))
    assert find_card_number(fours(in_script("5555555555554444", zero)))


def test_digits_dressed_as_emoji_are_digits() -> None:
    assert find_card_number("".join(f"{digit}\ufe0f\u20e3" for digit in "4111111111111111"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4111",
        "4111111111111112",  # the check digit is wrong
        "1234567890123452",  # it is right, but nobody issues that
        "41111111111111111111",  # longer than any card
        "994111111111111111100",  # inside a longer number
        "4111-1111 1111-1111",  # separators that do not agree
        "0.4111111111111111",
        "+49 170 1234567",
        "+378282246310005",
        "order no. 4111111111111111",
        "Order number: 4111111111111111",
        "tracking 4111111111111111",
        "订单号：4111111111111111",
        "ORD-4111111111111111",
        "SN4111111111111111",
        "IMEI 356938035643809",
        "356938035643809",
        "https://shop.example/item/4111111111111111",
        "DE89 3704 0044 0532 0130 00",
        "GB82WEST12345698765432",
        "2333333333333333",
        "6666666666666666",
        "233 233 233 233 233 2333",
        "978-3-16-148410-0",
        "4 006381 333931",
        "2000 2004 2008 2012 2016 2020 2024",
        "€ 4.111.111.111.111,11",
        "4,111,111,111,111,111",
        "2611220815540001",
        "30112026081554",
        "192.168.100.200 10.20.30.40",
        "41111111-1111-4111-8111-111111111111",
        "1:0 2:1 3:1 4:2 5:2 6:3 7:3",
    ],
)
def test_what_is_no_card_passes(text: str) -> None:
    assert not find_card_number(text)


def test_the_check_digit_alone_refuses_nothing() -> None:
    for prefix in ("0", "1", "7", "9000"):
        number = with_luhn(prefix.ljust(15, "5"))
        assert luhn_valid(number)
        assert not find_card_number(number)
        assert not find_card_number(fours(number))


def _barcode(length: int, prefix: str = "") -> Callable[[random.Random], str]:
    def one(dice: random.Random) -> str:
        missing = length - 1 - len(prefix)
        return with_gs1(prefix + "".join(dice.choices("0123456789", k=missing)))

    return one


def _moment(dice: random.Random) -> datetime:
    return datetime(1990, 1, 1, tzinfo=UTC) + timedelta(seconds=dice.random() * 45 * 365 * 86_400)


def _time(form: str) -> Callable[[random.Random], str]:
    return lambda dice: _moment(dice).strftime(form)


def _epoch(scale: int) -> Callable[[random.Random], str]:
    """From September 2001, when the epoch got its present number of digits."""
    return lambda dice: str(int(dice.uniform(1.0e9, 2.0e9) * scale))


MUST_PASS: dict[str, Callable[[random.Random], str]] = {
    "EAN-8": _barcode(8),
    "UPC-A": _barcode(12),
    "EAN-13": _barcode(13),
    "ISBN-13": _barcode(13, "978"),
    "German EAN-13": _barcode(13, "4"),
    "GTIN-14": _barcode(14),
    "GTIN-14 of outer boxes": _barcode(14, "3"),
    "SSCC": _barcode(18),
    "epoch s": _epoch(1),
    "epoch ms": _epoch(1_000),
    "epoch us": _epoch(1_000_000),
    "epoch ns": _epoch(1_000_000_000),
    "YYYYMMDDHHMMSS": _time("%Y%m%d%H%M%S"),
    "YYYYMMDDHHMMSS and milliseconds": lambda dice: _time("%Y%m%d%H%M%S%f")(dice)[:17],
    "YYYYMMDDHHMMSS and microseconds": _time("%Y%m%d%H%M%S%f"),
    "DDMMYYYYHHMMSS": _time("%d%m%Y%H%M%S"),
    "ISO 8601": _time("%Y-%m-%dT%H:%M:%S.%f+00:00"),
    "12 random digits": lambda dice: "".join(dice.choices("0123456789", k=12)),
    "13 random digits": lambda dice: "".join(dice.choices("0123456789", k=13)),
    "17 random digits": lambda dice: "".join(dice.choices("0123456789", k=17)),
    "20 random digits": lambda dice: "".join(dice.choices("0123456789", k=20)),
}


@pytest.mark.parametrize("kind", MUST_PASS)
def test_no_barcode_and_no_time_is_refused(kind: str) -> None:
    dice = random.Random(kind)
    samples = [MUST_PASS[kind](dice) for _ in range(4_000)]
    assert any(luhn_valid(sample) for sample in samples if sample.isdigit()) or kind == "ISO 8601"
    assert [sample for sample in samples if find_card_number(sample)] == []
    assert [sample for sample in samples[:500] if find_card_number(f"code {sample}, ok")] == []


def test_of_random_16_digit_numbers_only_the_valid_card_numbers_are_refused() -> None:
    dice = random.Random(16)
    samples = ["".join(dice.choices("0123456789", k=16)) for _ in range(20_000)]
    refused = [sample for sample in samples if find_card_number(sample)]
    luhn = [sample for sample in samples if luhn_valid(sample)]
    assert 0.09 < len(luhn) / len(samples) < 0.11
    assert 0.02 < len(refused) / len(samples) < 0.035  # the share that an issuer could have issued
    assert not [sample for sample in samples if find_card_number(f"order {sample}")]


def test_no_comment_of_real_chats_is_refused(shared_data: Path) -> None:
    refused, seen = [], 0
    for log in sorted((shared_data / "chat").glob("*.jsonl")):
        for line in log.read_text(encoding="utf-8").splitlines():
            seen += 1
            if find_card_number(json.loads(line)["text"]):
                refused.append(line)
    assert seen > 16_000
    assert refused == []


@st.composite
def card(draw: st.DrawFn) -> str:
    issuer = draw(st.sampled_from(ISSUERS))
    low, high = draw(st.sampled_from(issuer.prefixes))
    prefix = str(draw(st.integers(int(low), int(high)))).zfill(len(low))
    length = draw(st.sampled_from(sorted(issuer.usual)))
    rest = draw(st.text("0123456789", min_size=length - 1, max_size=length - 1))
    return with_luhn((prefix + rest)[: length - 1])


@settings(deadline=None)  # the machine may be busy
@given(number=card(), between=st.sampled_from([" ", "-", ".", "  ", "\u00a0", " - ", "‑"]))
def test_any_issued_number_in_fours_is_found(number: str, between: str) -> None:
    assert find_card_number(f"card {fours(number, between)} ok")


@settings(deadline=None)  # the machine may be busy
@given(number=card(), before=st.sampled_from(["", "my visa ", "支付 ", "(", "tel? no: "]))
def test_any_issued_bare_number_is_found_unless_it_is_also_a_barcode_or_a_time(
    number: str, before: str
) -> None:
    also = (len(number) in (14, 18) and gs1_valid(number)) or number[2:4] in {
        f"{month:02}" for month in range(1, 13)
    }
    laughs = len(set(number[1:])) == 1
    assert find_card_number(before + number) or also or laughs


@settings(deadline=None)  # the machine may be busy
@given(st.text(max_size=400), st.integers(0, 12))
def test_fewer_than_13_digits_are_never_a_card(text: str, digits: int) -> None:
    words = "".join(" " if character.isdigit() else character for character in text)
    assert not find_card_number(words + "4111111111111"[:digits] + words)


@pytest.mark.parametrize("part", ["12 ", "1 ", "4111 ", "4 1 ", "https://x4", "AB12 ", "order no"])
def test_a_long_text_without_a_card_is_answered_in_linear_time(part: str) -> None:
    def cost(times: int) -> float:
        started = time.process_time()
        assert not find_card_number(part * times + "x")
        return time.process_time() - started

    cost(100)
    small = min(cost(5_000) for _ in range(3))
    assert cost(40_000) < max(small, 0.001) * 32  # eight times as much, not sixty-four


CARD_NAMES = """
    card_number cardNumber CardNumber card-number cardno pan PAN cvv CVV2 cvc cc-number ccNumber
    card_expiry cc-exp cardExpMonth payment_card_number billing_cc_number creditCardNumber 卡号
    银行卡号 信用卡号 номер_карты カード番号 카드번호 Kartennummer numéro_de_carte
    número_de_tarjeta
"""
OTHER_NAMES = """
    card gift_card_number gift_card discard_number panel span company exp expires expiry number
    order_number barcode discount_code postcode cardigan_number scorecard title 有效期
"""


@pytest.mark.parametrize("name", CARD_NAMES.split())
def test_a_field_named_like_a_card_is_one(name: str) -> None:
    assert card_field(name)
    with pytest.raises(CardNumberFound) as refused:
        refuse_card_numbers({"payment": {name: "4111111111111112"}})  # not even a valid number
    assert refused.value.field == f"payment.{name}"


@pytest.mark.parametrize("name", OTHER_NAMES.split())
def test_a_field_named_otherwise_is_not(name: str) -> None:
    assert not card_field(name)
    refuse_card_numbers({name: "2026-12-31"})


def test_a_name_with_two_meanings_counts_only_with_a_value_that_fits() -> None:
    refuse_card_numbers({"options": {"Pan": "28 cm"}, "security_code": "none", "exp_month": "May"})
    refuse_card_numbers({"cvv": "", "card_number": None})
    for wrong in ({"pan": "1234 5678 9012 3456"}, {"csc": "123"}, {"exp_month": 12}, {"cvv": 123}):
        with pytest.raises(CardNumberFound):
            refuse_card_numbers(wrong)


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"name": "A", "address": {"line1": "4111 1111 1111 1111"}}, "address.line1"),
        ({"lines": [{"note": "x"}, {"note": "card 378282246310005"}]}, "lines.1.note"),
        ({"n": 4111111111111111}, "n"),
        ({"n": 4111111111111111.0}, "n"),
        ([b"4111111111111111"], "0"),
        ({"card": {"number": "1234"}}, "card.number"),
        ({"a": {"4111111111111111": 1}}, "a.key"),
    ],
)
def test_the_refusal_names_the_field_and_never_the_number(value: object, field: str) -> None:
    with pytest.raises(CardNumberFound) as refused:
        refuse_card_numbers(value)
    assert refused.value.field == field
    assert "4111" not in str(refused.value)
    assert refused.value.__context__ is None


def test_a_bare_text_is_refused_by_the_name_it_is_given() -> None:
    with pytest.raises(CardNumberFound) as refused:
        refuse_card_numbers("4111 1111 1111 1111", "comment")
    assert refused.value.field == "comment"


def test_a_shop_s_ordinary_data_passes() -> None:
    refuse_card_numbers(
        {
            "order_number": "4111111111111111",
            "trackingNumber": "6200000000000005",
            "barcode": "4006381333931",
            "gtin": 4006381333931,
            "placed_at": 1_763_798_400_000,
            "at_us": 1_763_798_400_000_000,
            "phone": "+49 170 1234567",
            "amount": 999,
            "rate": 0.4111111111111111,
            "live": True,
            "note": None,
            "lines": [["MUG-S", 2], ["MUG-L", 1]],
        }
    )


def test_depth_is_no_trouble() -> None:
    value: object = "4111111111111111"
    for _ in range(20_000):
        value = [value]
    with pytest.raises(CardNumberFound) as refused:
        refuse_card_numbers(value, "deep")
    assert len(refused.value.field) <= 120
