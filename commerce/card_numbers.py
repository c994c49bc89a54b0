"""Card numbers in what people type: found, refused and never stored or logged.

A card number must not reach our database (PCI DSS scope SAQ A; viewers do type them into chat), and
barcodes, times and order numbers must pass, though one in ten random digit strings satisfies the
check digit (Luhn). So the check digit alone refuses nothing. A number is a card when an issuer
has that prefix at that length, Luhn holds, and it stands alone or is grouped as cards are printed;
and not when it is a barcode by its own check digit, a time, or declared to be something else.

What that costs, measured in the tests: of barcodes and times none is refused, of bare random
16-digit numbers about 1 in 40 (that is how many are a valid card number). Cards are missed only
where a bare number has two readings: one in ten 14-digit Diners numbers is also a valid barcode,
one in 300 Mastercards of the 2 series also a time. It finds accidents; who spells digits out as
words to get past it will.

Knows nothing about commands or forms. Not for what a payment provider sends: its objects rightly
have an `exp_year`. Names of fields are in `card_fields`.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from commerce.card_fields import card_field
from commerce.errors import CardNumberFound

DIGITS_MIN: Final = 13
DIGITS_MAX: Final = 19
PHONE_DIGITS_MAX: Final = 15
"""E.164."""
FIELD_CHARS_MAX: Final = 120
"""How much of a field's path a refusal repeats."""

PATH_PARTS_MAX: Final = 16
"""Of a deeper path the middle is left out, or walking it would take quadratic time."""


class Issuer(NamedTuple):
    """Prefixes (inclusive ranges of equal length) and lengths of one network."""

    name: str
    prefixes: tuple[tuple[str, str], ...]
    usual: frozenset[int]
    """Lengths believed of a bare number."""
    rare: frozenset[int]
    """Lengths believed only of a number grouped like a card or called one."""


def _issuer(name: str, prefixes: str, usual: tuple[int, ...], rare: tuple[int, ...]) -> Issuer:
    ranges = (one.partition("-") for one in prefixes.split())
    spans = tuple((low, high or low) for low, _, high in ranges)
    return Issuer(name, spans, frozenset(usual), frozenset(rare))


ISSUERS: Final = (
    _issuer("visa", "4", (16,), (13, 19)),
    _issuer("mastercard", "51-55 2221-2720", (16,), ()),
    _issuer("american express", "34 37", (15,), ()),
    _issuer("diners", "300-305 3095 36 38-39", (14,), (16, 17, 18, 19)),
    _issuer("discover", "6011 644-649 65", (16,), (17, 18, 19)),
    _issuer("unionpay", "62", (16, 19), (17, 18)),
    _issuer("unionpay", "81", (16,), (17, 18, 19)),
    _issuer("jcb", "3528-3589", (16,), (17, 18, 19)),
    _issuer("mir", "2200-2204", (16,), (17, 18, 19)),
    _issuer("maestro", "5018 5020 5038 5893 6304 6759 6761-6763", (16, 18, 19), (13, 14, 15, 17)),
    _issuer("rupay", "60 82 508", (16,), ()),
    _issuer("verve", "506099-506198", (16,), (18, 19)),
    _issuer("elo", "5067 509 627780 636", (16,), ()),
    _issuer("hiper", "637095 637568 637599 637609 637612", (16,), ()),
    _issuer("troy", "9792", (16,), ()),
    _issuer("uzcard", "8600", (16,), ()),
    _issuer("humo", "9860", (16,), ()),
)

_LAYOUTS: Final = frozenset(
    {(4, 6, 5), (4, 6, 4), (4, 3, 3, 3), (5, 5, 5), (8, 8), (6, 10), (6, 13)}
)
"""Groups as printed on cards or typed from them, besides fours with a shorter last group."""
_SEPARATOR: Final = re.compile(r" {1,3}| ?[-._] ?")
_GROUP: Final = re.compile(r"[0-9]+")
_ENOUGH: Final = re.compile(r"[0-9](?:[^0-9]{0,3}[0-9]){12}")
"""Thirteen digits not further apart than a separator: what every card number has."""
_BLANKS: Final = re.compile(r"[\t\n\r\f\v]")
_FOREIGN: Final = re.compile(r"[^\x00-\x7f]")
_CALLED_CARD: Final = re.compile(
    r"\b(?:visa|master ?card|amex|american express|maestro|diners|discover|unionpay|mir|rupay|elo"
    r"|(?:credit|debit|bank)? ?card|cc|pan|cvv|cvc"
    r"|(?:kredit)?karte|carte|tarjeta|cart[aã]o|carta|kart)(?:s|n)?(?![a-z])|卡|銀聯|银联|カード|카드|карт",
    re.IGNORECASE,
)
_DECLARED: Final = re.compile(
    r"(?:\b(?:order|invoice|tracking|parcel|shipment|waybill|imei|isbn|ean|upc|gtin|barcode|sku|ticket"
    r"|transaction|ref|reference|receipt|serial|bestellung|bestellnummer|rechnung|sendung|commande"
    r"|colis|pedido|ordine|заказ)|订单|訂單|单号|單號|运单|運單|快递|条码|條碼|流水|注文|伝票|주문)"
    r"[^\w]{0,2}(?:no|nr|num|number|nummer|id|code|号|號|编号|編號|番号|번호|(?<=-)1[034])?"
    r"[^\w]{0,3}(?:is|was|ist|是|为)?[^\w]{0,3}$",
    re.IGNORECASE,
)
"""What stands directly before a number that its writer calls something else."""
_PREFIXED: Final = re.compile(r"(?:[A-Za-z]+[-_#]|(?<![A-Za-z])[A-Z]{2,})$")
"""ORD-4000…, SN4000…: an identifier."""
_URL: Final = re.compile(r"https?://[^\s]*$", re.IGNORECASE)
_IBAN: Final = re.compile(r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_TIME: Final = re.compile(
    r"(?:0[1-9]|[12][0-9]|3[01])(?:0[1-9]|1[0-2])(?:19|20)[0-9]{2}"  # day, month, year …
    r"(?:[01][0-9]|2[0-3])(?:[0-5][0-9]){2}(?:[0-9]{2})?"  # … hour, minute, second, hundredths
    r"|2[2-7](?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])"  # year, month, day …
    r"(?:[01][0-9]|2[0-3])(?:[0-5][0-9]){2}[0-9]{4}"  # … hour, minute, second, a counter
)
"""Times that begin like a card: 30112026081554 (Diners) and 2611220815540001 (Mastercard). Years
first in four digits and the epoch in any unit begin like no card."""
_LAUGHTER: Final = re.compile(r"(.)\1*|23+")
"""66666… and 23333… are how Chinese chat laughs; 2 with fifteen 3s is a valid Mastercard."""


def luhn_valid(digits: str) -> bool:
    """The check digit of card numbers (ISO/IEC 7812-1)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = ord(digit) - 48
        if place % 2:
            value = value * 2 - 9 if value > 4 else value * 2
        total += value
    return total % 10 == 0


def gs1_valid(digits: str) -> bool:
    """The check digit of EAN, UPC, GTIN, ISBN-13 and SSCC (weights 3 and 1 from the right)."""
    weighed = ((ord(digit) - 48) * (3 if place % 2 else 1) for place, digit in _from_right(digits))
    return sum(weighed) % 10 == 0


def find_card_number(text: str, *, declared: bool = False) -> bool:
    """Whether `text` contains a card number.

    `declared`: the field says the bare number is something else (an order number); a number that is
    grouped like a card is found all the same. Linear in the length of the text; 5 µs for a comment
    as people write them.
    """
    if len(text) < DIGITS_MIN:
        return False
    if not text.isascii():
        if sum(map(str.isdigit, text)) < DIGITS_MIN:
            return False
        text = _FOREIGN.sub(_as_ascii, text)
    text = _BLANKS.sub(" ", text)
    if _ENOUGH.search(text) is None:
        return False
    text = _IBAN.sub(_without_iban, text)
    return any(_has_card(text, chain, declared) for chain in _chains(text))


def refuse_card_numbers(value: object, field: str = "") -> None:
    """Walks a JSON-like value; raises `CardNumberFound` with the path of the first field found.

    Looks into texts, whole numbers, bytes, lists and maps (keys too), and at the names of fields.
    `field` is the name of `value` itself. The number is not in the exception.
    """
    waiting: list[tuple[tuple[str, ...], object]] = [((field,) if field else (), value)]
    while waiting:
        path, one = waiting.pop()
        if len(path) > PATH_PARTS_MAX:
            path = path[: PATH_PARTS_MAX // 2] + path[-PATH_PARTS_MAX // 2 :]
        if isinstance(one, Mapping):
            for key, inner in one.items():
                if find_card_number(str(key)):
                    raise CardNumberFound(_shown((*path, "key")))
                waiting.append(((*path, str(key)), inner))
        elif isinstance(one, list | tuple | set | frozenset):
            waiting.extend(((*path, str(at)), inner) for at, inner in enumerate(one))
        elif _holds_card(path, _leaf_text(one)):
            raise CardNumberFound(_shown(path))


class _Chain(NamedTuple):
    """Groups of digits with a separator between each and the next."""

    groups: list[tuple[int, int]]
    """Start and end in the text."""
    separators: list[str]
    """One fewer than groups."""


def _chains(text: str) -> Iterator[_Chain]:
    chain = _Chain([], [])
    for found in _GROUP.finditer(text):
        start, end = found.span()
        if chain.groups:
            between = text[chain.groups[-1][1] : start]
            if len(between) > 3 or _SEPARATOR.fullmatch(between) is None:
                yield chain
                chain = _Chain([], [])
            else:
                chain.separators.append(between)
        chain.groups.append((start, end))
    if chain.groups:
        yield chain


def _has_card(text: str, chain: _Chain, declared: bool) -> bool:
    sizes = [end - start for start, end in chain.groups]
    kinds = [separator.strip() or " " for separator in chain.separators]
    for first in range(len(sizes)):
        if _is_bare_card(text, chain, first, declared):
            return True
        digits = sizes[first]
        for last in range(first + 1, len(sizes)):
            digits += sizes[last]
            if digits > DIGITS_MAX or kinds[last - 1] != kinds[first]:
                break
            if digits >= DIGITS_MIN and _printed_like_card(sizes, kinds, first, last):
                number = "".join(text[start:end] for start, end in chain.groups[first : last + 1])
                start = chain.groups[first][0]
                phone = len(number) <= PHONE_DIGITS_MAX and text.startswith("+", start - 1)
                if _issued(number, rare=True) and luhn_valid(number) and not phone:
                    return True
    return False


def _printed_like_card(sizes: list[int], kinds: list[str], first: int, last: int) -> bool:
    """Whether these groups look like a card's and are not a part of a longer row of such groups."""
    shape = tuple(sizes[first : last + 1])
    if shape in _LAYOUTS:
        return True
    size = shape[0]
    before = _alike(sizes, kinds, first, -1, 3)
    if size == 4:
        # An expiry or a code may stand next to it, or more cards; but no table of years.
        after = _alike(sizes, kinds, last, 1, 3 if before else len(sizes))
        row = len(shape) >= 4 and set(shape[:-1]) == {4} and shape[-1] <= 4
        return row and (before + after <= 2 or (not before and after % 4 == 0))
    alone = not before and not _alike(sizes, kinds, last, 1, 1)
    return size <= 2 and set(shape) == {size} and alone


def _alike(sizes: list[int], kinds: list[str], at: int, step: int, most: int) -> int:
    """How many groups beside group `at` have its size and are joined alike, at most `most`."""
    found = 0
    kind = kinds[at - 1] if step > 0 else kinds[at]
    while found < most:
        beside = at + (found + 1) * step
        joint = min(beside, beside - step)
        if not 0 <= beside < len(sizes) or sizes[beside] != sizes[at] or kinds[joint] != kind:
            break
        found += 1
    return found


def _is_bare_card(text: str, chain: _Chain, at: int, declared: bool) -> bool:
    start, end = chain.groups[at]
    if not DIGITS_MIN <= end - start <= DIGITS_MAX:
        return False
    number = text[start:end]
    if not luhn_valid(number) or _LAUGHTER.fullmatch(number):
        return False
    before = text[max(0, start - 48) : start]
    called = _CALLED_CARD.search(before) is not None
    if not _issued(number, rare=called) or (len(number) < 19 and _is_barcode(number)):
        return False
    if declared or _DECLARED.search(before):
        return False
    if called:
        return True
    decimals = at > 0 and chain.separators[at - 1] == "."
    phone = before.endswith("+") and len(number) <= PHONE_DIGITS_MAX
    named = _PREFIXED.search(before) or _URL.search(text[max(0, start - 512) : start])
    return not (decimals or phone or named or _TIME.fullmatch(number))


def _is_barcode(number: str) -> bool:
    return len(number) in (13, 14, 17, 18) and gs1_valid(number)


def _issued(number: str, *, rare: bool) -> bool:
    length = len(number)
    return any(
        (length in issuer.usual or (rare and length in issuer.rare))
        and any(low <= number[: len(low)] <= high for low, high in issuer.prefixes)
        for issuer in ISSUERS
    )


def _from_right(digits: str) -> Iterator[tuple[int, str]]:
    return enumerate(reversed(digits))


def _as_ascii(found: re.Match[str]) -> str:
    """A digit of any script as 0 to 9, a dash as "-", a blank as " ", the unseen as nothing."""
    character = found[0]
    digit = unicodedata.digit(character, None)
    if digit is not None:
        return str(digit)
    category = unicodedata.category(character)
    if category in ("Cf", "Mn", "Me"):
        return ""
    if category in ("Zs", "Zl", "Zp"):
        return " "
    if category == "Pd" or character == "−":
        return "-"
    return "." if character in "·•・．。" else character


def _without_iban(found: re.Match[str]) -> str:
    """Account numbers have a check of their own (ISO 13616: modulo 97) and are printed in fours."""
    account = found[0].replace(" ", "")
    digits = "".join(str(int(character, 36)) for character in account[4:] + account[:4])
    return " " if int(digits) % 97 == 1 else found[0]


def _leaf_text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray):
        return value.decode("utf-8", "replace")
    if isinstance(value, bool) or value is None:
        return ""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else ""
    if isinstance(value, int) and abs(value) < 10**DIGITS_MAX:
        return str(abs(value))
    return ""


def _holds_card(path: tuple[str, ...], text: str) -> bool:
    if not text:
        return False
    names = [name for name in path if not name.isdecimal()][-2:]
    if names and (card_field(names[-1], text) or card_field(" ".join(names), text)):
        return True
    declared = bool(names) and _DECLARED.search(names[-1].replace("_", " ")) is not None
    return find_card_number(text, declared=declared)


def _shown(path: tuple[str, ...]) -> str:
    return ".".join(path)[:FIELD_CHARS_MAX]
