"""Stripe's objects as the sandbox makes them: every documented field is there, most of them null.

Responsible for field names and types; they are held to Stripe's published fixtures by a test. It
must not decide anything. Fields that begin with an underscore are the sandbox's own notes and never
leave it (`public`).
"""

from copy import deepcopy
from typing import Any, Final

Object = dict[str, Any]

API_VERSION: Final = "2026-10-28.endive"


def public(body: Object, intent: Object | None = None) -> Object:
    """What a client may see; `intent` replaces the id where `expand[]=payment_intent` asked."""
    shown = {name: value for name, value in body.items() if not name.startswith("_")}
    if intent is not None:
        shown["payment_intent"] = public(intent)
    return shown


_SESSION: Final[Object] = {
    "object": "checkout.session",
    "adaptive_pricing": {"enabled": False},
    "after_expiration": None,
    "allow_promotion_codes": None,
    "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
    "billing_address_collection": None,
    "client_secret": None,
    "collected_information": None,
    "consent": None,
    "consent_collection": None,
    "currency_conversion": None,
    "custom_fields": [],
    "custom_text": {
        "after_submit": None,
        "shipping_address": None,
        "submit": None,
        "terms_of_service_acceptance": None,
    },
    "customer": None,
    "customer_account": None,
    "customer_creation": "if_required",
    "customer_details": None,
    "customer_email": None,
    "discounts": [],
    "integration_identifier": None,
    "invoice": None,
    "invoice_creation": None,
    "livemode": False,
    "locale": None,
    "managed_payments": None,
    "mode": "payment",
    "origin_context": None,
    "payment_intent": None,
    "payment_link": None,
    "payment_method_collection": "if_required",
    "payment_method_configuration_details": None,
    "payment_method_options": {},
    "payment_method_types": ["card"],
    "payment_status": "unpaid",
    "permissions": None,
    "phone_number_collection": {"enabled": False},
    "recovered_from": None,
    "saved_payment_method_options": None,
    "setup_intent": None,
    "shipping_address_collection": None,
    "shipping_cost": None,
    "shipping_options": [],
    "status": "open",
    "submit_type": None,
    "subscription": None,
    "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
    "ui_mode": "hosted",
    "wallet_options": None,
}
"""What every new session has alike: fields of Stripe's that the adapter never sets."""


def checkout_session(
    *,
    id_: str,
    url: str,
    created: int,
    expires_at: int,
    currency: str,
    total: int,
    lines: list[Object],
    success_url: str,
    cancel_url: str | None,
    client_reference_id: str | None,
    metadata: dict[str, str],
    intent_data: Object,
) -> Object:
    """An open Checkout Session in payment mode; its intent is made at the first attempt to pay."""
    return {
        **deepcopy(_SESSION),
        "id": id_,
        "amount_subtotal": total,
        "amount_total": total,
        "cancel_url": cancel_url,
        "client_reference_id": client_reference_id,
        "created": created,
        "currency": currency,
        "expires_at": expires_at,
        "metadata": metadata,
        "success_url": success_url,
        "url": url,
        "_lines": lines,
        "_intent_data": intent_data,
    }


def payment_intent(
    *,
    id_: str,
    client_secret: str,
    created: int,
    amount: int,
    currency: str,
    capture_method: str,
    metadata: dict[str, str],
    session: str,
) -> Object:
    """An intent that waits for a card."""
    return {
        "id": id_,
        "object": "payment_intent",
        "amount": amount,
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": 0,
        "application": None,
        "application_fee_amount": None,
        "automatic_payment_methods": None,
        "canceled_at": None,
        "cancellation_reason": None,
        "capture_method": capture_method,
        "client_secret": client_secret,
        "confirmation_method": "automatic",
        "created": created,
        "currency": currency,
        "customer": None,
        "customer_account": None,
        "description": None,
        "excluded_payment_method_types": None,
        "last_payment_error": None,
        "latest_charge": None,
        "livemode": False,
        "managed_payments": None,
        "metadata": metadata,
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": None,
        "payment_method_configuration_details": None,
        "payment_method_options": {},
        "payment_method_types": ["card"],
        "processing": None,
        "receipt_email": None,
        "review": None,
        "setup_future_usage": None,
        "shipping": None,
        "source": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": None,
        "status": "requires_payment_method",
        "transfer_data": None,
        "transfer_group": None,
        "_session": session,
    }


def card_declined(charge: str) -> Object:
    """The `last_payment_error` of a generic decline."""
    return {
        "charge": charge,
        "code": "card_declined",
        "decline_code": "generic_decline",
        "doc_url": "https://stripe.com/docs/error-codes/card-declined",
        "message": "Your card was declined.",
        "type": "card_error",
    }


def authentication_failed() -> Object:
    """The `last_payment_error` after the bank's question was answered with no."""
    return {
        "code": "payment_intent_authentication_failure",
        "doc_url": "https://stripe.com/docs/error-codes/payment-intent-authentication-failure",
        "message": "The provided PaymentMethod has failed authentication.",
        "type": "invalid_request_error",
    }


def event(*, id_: str, created: int, kind: str, body: Object, key: str | None) -> Object:
    """A snapshot event about `body`."""
    return {
        "id": id_,
        "object": "event",
        "api_version": API_VERSION,
        "created": created,
        "data": {"object": body},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": key},
        "type": kind,
    }


def webhook_endpoint(*, id_: str, created: int, url: str, events: list[str], secret: str) -> Object:
    """An endpoint; the secret is shown once, in the answer to its creation."""
    return {
        "id": id_,
        "object": "webhook_endpoint",
        "api_version": None,
        "application": None,
        "created": created,
        "description": None,
        "enabled_events": events,
        "livemode": False,
        "metadata": {},
        "status": "enabled",
        "url": url,
        "_secret": secret,
    }


def listing(url: str, data: list[Object], *, more: bool) -> Object:
    """A page of a list."""
    return {"object": "list", "url": url, "has_more": more, "data": data}


def refund(
    *,
    id_: str,
    created: int,
    amount: int,
    currency: str,
    charge: str,
    intent: str,
    metadata: dict[str, str],
) -> Object:
    """A refund that the bank took at once."""
    return {
        "id": id_,
        "object": "refund",
        "amount": amount,
        "balance_transaction": None,
        "charge": charge,
        "created": created,
        "currency": currency,
        "customer": None,
        "customer_account": None,
        "destination_details": {"type": "card", "card": {"type": "refund"}},
        "metadata": metadata,
        "payment_intent": intent,
        "payment_method": None,
        "reason": None,
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": "succeeded",
        "transfer_reversal": None,
        "_outcome": "succeeded",
        "_failure": None,
    }


def charge(intent: Object, *, refunded: int, disputed: bool) -> Object:
    """An intent's charge. The card itself is not described: the sandbox never keeps one."""
    captured = intent["amount_received"]
    blank = (
        "application",
        "application_fee",
        "application_fee_amount",
        "balance_transaction",
        "calculated_statement_descriptor",
        "customer",
        "description",
        "failure_balance_transaction",
        "failure_code",
        "failure_message",
        "on_behalf_of",
        "outcome",
        "payment_method",
        "payment_method_details",
        "receipt_email",
        "receipt_number",
        "receipt_url",
        "review",
        "shipping",
        "source_transfer",
        "source",
        "statement_descriptor",
        "statement_descriptor_suffix",
        "transfer_data",
        "transfer_group",
    )
    return {
        **dict.fromkeys(blank),
        "id": intent["latest_charge"],
        "object": "charge",
        "amount": intent["amount"],
        "amount_captured": captured,
        "amount_refunded": refunded,
        "billing_details": {"address": None, "email": None, "name": None, "phone": None},
        "captured": captured > 0,
        "created": intent["created"],
        "currency": intent["currency"],
        "disputed": disputed,
        "fraud_details": {},
        "livemode": False,
        "metadata": intent["metadata"],
        "paid": True,
        "payment_intent": intent["id"],
        "refunded": 0 < captured <= refunded,
        "refunds": None,
        "status": "succeeded",
    }


def dispute(
    *, id_: str, created: int, amount: int, currency: str, charge: str, intent: str
) -> Object:
    """A chargeback that waits for the shop's answer."""
    return {
        "id": id_,
        "object": "dispute",
        "amount": amount,
        "balance_transactions": [],
        "charge": charge,
        "created": created,
        "currency": currency,
        "enhanced_eligibility_types": [],
        "evidence": {},
        "evidence_details": {},
        "is_charge_refundable": False,
        "livemode": False,
        "metadata": {},
        "payment_intent": intent,
        "payment_method_details": None,
        "reason": "fraudulent",
        "status": "needs_response",
    }
