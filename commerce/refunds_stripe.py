"""Stripe's way to count money, and its refunds, disputes and charges in our words.

Responsible for translating objects of the SDK and nothing else: no calls, no decisions. Unlike a
session, these are read from lists and events too, so every field that may lack is asked for gently.
"""

from types import MappingProxyType
from typing import Any, Final

import stripe

from commerce.refunds import SeenCharge, SeenDispute, SeenRefund

HUNDREDTHS: Final = MappingProxyType({"ISK": 100, "UGX": 100})
"""Stripe counts these in hundredths, although ISO 4217 gives them no decimals."""


def to_provider(amount: int, currency: str) -> int:
    """Our minor units (ISO 4217) as Stripe counts them."""
    return amount * HUNDREDTHS.get(currency, 1)


def from_provider(amount: int, currency: str) -> int:
    """Stripe's count as our minor units; -1, which equals no amount, if it does not come out."""
    whole, rest = divmod(amount, HUNDREDTHS.get(currency, 1))
    return -1 if rest else whole


def seen_refund(found: stripe.Refund) -> SeenRefund:
    """A refund; `failure` is Stripe's reason, if it gives one."""
    currency = found.currency.upper()
    metadata = found.metadata.to_dict() if found.metadata is not None else {}
    return SeenRefund(
        id=found.id,
        refund=metadata.get("refund"),
        intent=_id(found.payment_intent),
        status=found.status or "pending",
        amount=from_provider(found.amount, currency),
        currency=currency,
        failure=str(getattr(found, "failure_reason", None) or ""),
    )


def seen_dispute(found: stripe.Dispute) -> SeenDispute:
    """A chargeback."""
    currency = found.currency.upper()
    return SeenDispute(
        id=found.id,
        intent=_id(found.payment_intent),
        status=found.status,
        amount=from_provider(found.amount, currency),
        currency=currency,
    )


def seen_charge(found: stripe.Charge) -> SeenCharge:
    """A charge; its metadata is the intent's."""
    currency = found.currency.upper()
    return SeenCharge(
        intent=_id(found.payment_intent),
        payment=found.metadata.to_dict().get("payment"),
        captured=from_provider(found.amount_captured, currency),
        refunded=from_provider(found.amount_refunded, currency),
        currency=currency,
    )


def _id(value: Any) -> str:
    """An id, or that of an expanded object; empty for nothing."""
    return str(getattr(value, "id", value) or "")
