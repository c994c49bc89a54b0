"""Field names that ask for a card: card_number, pan, cvv, 卡号, and what a card expires on.

Responsible for names only, in the languages a shop's forms come in; `card_numbers` looks at values.
A value under such a name is refused even when it is no valid number, because a security code has no
check digit and must not be stored at all, not even encrypted (PCI DSS 3.3). Names match as a whole,
never in part: `gift_card_number`, `discard`, `panel` and `exp` are nobody's card.
"""

import re
import unicodedata
from typing import Final

_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_OWNER: Final = re.compile(r"(?:(?:payment|billing|customer|user|my|bank|new|order|source)_)+")
"""Words before a name that do not change what it asks for."""


def _normal(name: str) -> str:
    """CardNumber, card-number and Card Number are one name: card_number."""
    name = unicodedata.normalize("NFKD", _CAMEL.sub("_", name)).casefold()
    letters = (ch if ch.isalnum() else "_" for ch in name if not unicodedata.combining(ch))
    return re.sub("_+", "_", "".join(letters)).strip("_")


def _names(text: str) -> frozenset[str]:
    return frozenset(_normal(name) for name in text.split())


_ALWAYS: Final = _names(
    """
    card_number card_no card_num card_nr cardnumber cardno cardnum card_account_number
    credit_card_number credit_card_no credit_card_num creditcard_number creditcardnumber
    debit_card_number debit_card_no debitcardnumber bank_card_number bankcard_number
    cc_number cc_no cc_num ccnumber ccnum primary_account_number full_pan card_pan pan_number
    cvv cvv2 cvc cvc2 cvn cvn2 cvv_code cvc_code card_cvv card_cvc card_csc card_cid card_code
    cc_cvv cc_cvc cc_csc card_security_code card_verification_code card_verification_value
    card_pin track1 track2 track_1 track_2 track_data
    card_expiry card_expiration card_exp card_expiry_date card_expiration_date card_exp_date
    card_expiry_month card_expiry_year card_exp_month card_exp_year card_expires card_valid_thru
    cc_exp cc_exp_month cc_exp_year cc_expiry cc_expiration
    credit_card_expiry credit_card_exp credit_card_cvv credit_card_cvc credit_card_expiration
    卡号 银行卡号 信用卡号 借记卡号 储蓄卡号 卡號 銀行卡號 信用卡號
    卡有效期 信用卡有效期 卡安全码 信用卡安全码
    カード番号 クレジットカード番号 カード有効期限 카드번호 카드_번호 신용카드번호
    номер_карты номер_банковской_карты
    kartennummer kreditkartennummer kartenprüfnummer kartenprüfziffer
    numéro_carte numéro_de_carte numéro_de_la_carte numéro_carte_bancaire
    número_tarjeta número_de_tarjeta número_de_la_tarjeta número_cartão número_do_cartão
    numero_carta numero_della_carta
    """
)
_IF_LONG: Final = _names(
    """
    pan card cc credit_card creditcard debit_card debitcard bank_card bankcard payment_card
    银行卡 信用卡 借记卡 銀行卡 kreditkarte carte_bancaire tarjeta cartão
    """
)
"""Also the names of other things (a frying pan): refused with at least 12 digits."""
_IF_SHORT: Final = _names(
    "csc cid security_code exp_month exp_year expiry_month expiry_year expiration_month "
    "expiration_year valid_thru 安全码 安全碼 セキュリティコード"
)
"""Also the names of other things: refused with 1 to 6 digits and no word."""
_LONG: Final = re.compile(r"(?:\d\D*){12}")
_SHORT: Final = re.compile(r"\s*(?:\d\s*[/-]?\s*){1,6}")


def card_field(name: str, value: str | None = None) -> bool:
    """Whether a field of this name asks for a card number, a security code or an expiry.

    Names that also mean something else count only with a `value` that fits (None: they do not).
    """
    plain = _OWNER.sub("", _normal(name))
    if plain in _ALWAYS:
        return value is None or bool(value.strip())
    if value is None:
        return plain == "pan"
    if plain in _IF_LONG:
        return _LONG.search(value) is not None
    return plain in _IF_SHORT and _SHORT.fullmatch(value) is not None
