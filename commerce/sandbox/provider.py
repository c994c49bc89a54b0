"""The provider's own rules: what a session and an intent may do next, and what Stripe refuses.

Responsible for every change of a session or intent and for the events it emits. It must not know
HTTP or HTML. The rules are the ones a shop trips over: `expires_at` at least 30 minutes ahead, no
expiry of a session that is complete, no capture of a canceled intent, no cancel of one that is
paid, and an intent that belongs to an open session is ended by expiring the session.

    session   open -> complete | expired
    intent    requires_payment_method -> requires_action -> (requires_payment_method | below)
              requires_payment_method -> requires_capture | succeeded | processing | canceled
              processing -> requires_capture | succeeded
              requires_capture -> succeeded (capture) | canceled
"""

import secrets
import string
from collections.abc import Callable
from typing import Any, Final

from commerce.sandbox import forms, objects
from commerce.sandbox.faults import Faults
from commerce.sandbox.objects import Object
from commerce.sandbox.refunds import Refunds
from commerce.sandbox.refusals import ApiRefused, invalid, missing, wrong_intent_state
from commerce.sandbox.store import Store

EXPIRES_MIN_S: Final = 30 * 60
EXPIRES_MAX_S: Final = 24 * 3600
AMOUNT_MAX: Final = 99_999_999
AMOUNT_MIN: Final = 50
"""Stripe's floor is 0.50 USD; other currencies have their own, this one stands for all."""
CARD_SUCCEEDS: Final = "4242424242424242"
CARD_DECLINED: Final = "4000000000000002"
CARD_ASKS: Final = "4000002500003155"
CARD_LATE: Final = "4000000000000093"
"""Ours, not Stripe's: the bank takes its time, the money arrives after `late_ms`."""
CARDS: Final = (CARD_SUCCEEDS, CARD_DECLINED, CARD_ASKS, CARD_LATE)
CANCELLABLE: Final = (
    "requires_payment_method",
    "requires_confirmation",
    "requires_action",
    "requires_capture",
)
_ALPHABET: Final = string.ascii_letters + string.digits


def new_id(prefix: str, length: int = 24) -> str:
    """`pi_…` and friends."""
    return f"{prefix}_" + "".join(secrets.choice(_ALPHABET) for _ in range(length))


class Provider:
    """All calls run inside one store transaction that the caller opened."""

    def __init__(
        self,
        store: Store,
        faults: Faults,
        clock: Callable[[], int],
        *,
        base_url: Callable[[], str],
        late_ms: int,
    ) -> None:
        self._store = store
        self._faults = faults
        self._clock = clock
        self._base_url = base_url
        self._late_ms = late_ms
        self.refunds = Refunds(
            store, faults, new_id=new_id, clock=clock, emit=self.emit, late_ms=late_ms
        )
        self.key: str | None = None
        """The idempotency key of the request that is being served, for its events."""

    def now_s(self) -> int:
        """Seconds, as Stripe counts."""
        return self._clock() // 1000

    # Look-ups

    def session(self, id_: str) -> Object:
        """A session; it expires here if its time has passed. Raises `ApiRefused` (404)."""
        session = self._store.get("checkout.session", id_)
        if session is None:
            raise missing("checkout.session", id_)
        if session["status"] == "open" and session["expires_at"] <= self.now_s():
            self._expire(session)
        return session

    def intent(self, id_: str) -> Object:
        """An intent. Raises `ApiRefused` (404)."""
        intent = self._store.get("payment_intent", id_)
        if intent is None:
            raise missing("payment_intent", id_)
        return intent

    def intent_of(self, session: Object) -> Object | None:
        """The intent of a session, once somebody tried to pay."""
        id_ = session["payment_intent"]
        return None if id_ is None else self.intent(id_)

    # The API

    def create_session(self, params: forms.Params) -> Object:
        """POST /v1/checkout/sessions. Raises `ApiRefused`."""
        if forms.text(params, "mode") != "payment":
            raise invalid("This sandbox knows mode=payment only.", param="mode")
        lines, currency, total = _lines(params)
        now = self.now_s()
        expires_at = forms.integer(params, "expires_at", default=now + EXPIRES_MAX_S)
        if not now + EXPIRES_MIN_S <= expires_at <= now + EXPIRES_MAX_S:
            raise invalid(
                "The `expires_at` timestamp must be between 30 minutes and 24 hours from Checkout "
                "Session creation.",
                param="expires_at",
            )
        intent_data = params.get("payment_intent_data", {})
        if not isinstance(intent_data, dict):
            raise invalid("Invalid object", param="payment_intent_data")
        methods = ("automatic", "automatic_async", "manual")
        id_ = new_id("cs_test", 58)
        session = objects.checkout_session(
            id_=id_,
            url=f"{self._base_url()}/c/pay/{id_}",
            created=now,
            expires_at=expires_at,
            currency=currency,
            total=total,
            lines=lines,
            success_url=_url(forms.text(params, "success_url"), "success_url"),
            cancel_url=_url(forms.text(params, "cancel_url", default=""), "cancel_url") or None,
            client_reference_id=forms.text(params, "client_reference_id", default="") or None,
            metadata=forms.metadata(params),
            intent_data={
                "capture_method": forms.choice(intent_data, "capture_method", methods, "automatic"),
                "metadata": forms.metadata(intent_data),
            },
        )
        self._store.put(session)
        return session

    def expire_session(self, id_: str) -> Object:
        """POST /v1/checkout/sessions/{id}/expire. Raises `ApiRefused` unless it is open."""
        session = self.session(id_)
        if session["status"] != "open":
            raise invalid(
                'Only Checkout Sessions with a status in ["open"] can be expired. This Checkout '
                f"Session has a status of {session['status']}.",
            )
        self._refuse_by_fault(f"expire {id_}")
        return self._expire(session)

    def capture(self, id_: str, params: forms.Params) -> Object:
        """POST /v1/payment_intents/{id}/capture. Raises `ApiRefused`."""
        intent = self.intent(id_)
        if intent["status"] != "requires_capture":
            raise wrong_intent_state(intent, "captured")
        amount = forms.integer(params, "amount_to_capture", default=intent["amount_capturable"])
        if not 0 < amount <= intent["amount_capturable"]:
            raise invalid("Invalid amount to capture.", param="amount_to_capture")
        intent.update(status="succeeded", amount_received=amount, amount_capturable=0)
        self._store.put(intent)
        session = self._store.get("checkout.session", intent["_session"])
        if session is not None:
            session["payment_status"] = "paid"
            self._store.put(session)
        self.emit("charge.captured", self.refunds.charge(intent))
        self.emit("payment_intent.succeeded", intent)
        return intent

    def cancel(self, id_: str, params: forms.Params) -> Object:
        """POST /v1/payment_intents/{id}/cancel. Raises `ApiRefused`."""
        intent = self.intent(id_)
        if intent["status"] not in CANCELLABLE:
            raise wrong_intent_state(intent, "canceled")
        session = self.session(intent["_session"])
        if session["status"] == "open":
            raise invalid(
                "You cannot cancel a PaymentIntent that was created by a Checkout Session which is "
                "open. Expire the Checkout Session instead.",
                code="payment_intent_unexpected_state",
            )
        self._refuse_by_fault(f"cancel {id_}")
        reasons = ("duplicate", "fraudulent", "requested_by_customer", "abandoned")
        reason = forms.choice(params, "cancellation_reason", reasons, "abandoned")
        given = "cancellation_reason" in params
        return self._cancel(intent, reason if given else None)

    def create_endpoint(self, url: str, events: list[str], secret: str | None = None) -> Object:
        """POST /v1/webhook_endpoints; the same URL is kept once with the newest secret."""
        now = self.now_s()
        made = objects.webhook_endpoint(
            id_=new_id("we"),
            created=now,
            url=_url(url, "url"),
            events=events,
            secret=secret if secret is not None else new_id("whsec", 32),
        )
        for known in self._store.newest("webhook_endpoint"):
            if known["url"] == url and secret is not None:
                made["id"] = known["id"]
        self._store.put(made)
        return made

    # The person at the hosted page

    def pay(self, session: Object, card: str) -> Object:
        """A card was given. Returns the intent; nothing happens unless the session is open."""
        intent = self._attempt(session)
        if session["status"] != "open" or intent["status"] not in (
            "requires_payment_method",
            "requires_action",
        ):
            return intent
        charge = new_id("ch")
        intent.update(next_action=None, last_payment_error=None, latest_charge=charge)
        if card == CARD_DECLINED:
            return self._fail(intent, objects.card_declined(charge))
        if card == CARD_ASKS:
            back = {"url": session["url"], "return_url": session["success_url"]}
            intent.update(
                status="requires_action",
                latest_charge=None,
                next_action={"type": "redirect_to_url", "redirect_to_url": back},
            )
            self._store.put(intent)
            self.emit("payment_intent.requires_action", intent)
            return intent
        if card == CARD_LATE:
            intent["status"] = "processing"
            self._store.put(intent)
            self._store.set_timer(intent["id"], self._clock() + self._late_ms)
            self.emit("payment_intent.processing", intent)
            self._complete(session)
            return intent
        return self._succeed(session, intent)

    def answer_bank(self, session: Object, *, approve: bool) -> Object | None:
        """The bank's question was answered."""
        intent = self.intent_of(session)
        if intent is None or session["status"] != "open" or intent["status"] != "requires_action":
            return intent
        intent["next_action"] = None
        if approve:
            return self._succeed(session, intent)
        return self._fail(intent, objects.authentication_failed())

    def tick(self) -> bool:
        """Late money arrives, old sessions expire. True if anything changed."""
        changed = False
        for id_ in self._store.due_timers(self._clock()):
            if id_.startswith("re_"):
                self.refunds.settle(id_)
                changed = True
                continue
            intent = self.intent(id_)
            if intent["status"] == "processing":
                session = self.session(intent["_session"])
                self._succeed(session, intent)
                changed = True
        return changed

    def emit(self, kind: str, body: Object) -> None:
        """An event, and its deliveries to the endpoints that want it."""
        shown = objects.event(
            id_=new_id("evt"),
            created=self.now_s(),
            kind=kind,
            body=objects.public(body),
            key=self.key,
        )
        self._store.put(shown)
        for endpoint in self._store.newest("webhook_endpoint"):
            wanted = endpoint["enabled_events"]
            if "*" in wanted or kind in wanted:
                self._schedule(endpoint["id"], shown)

    # Steps

    def _schedule(self, endpoint: str, event: Object) -> None:
        now, kind = self._clock(), str(event["type"])
        if self._faults.take("webhook_lose", kind) is not None:
            return
        delay = self._faults.take("webhook_delay", kind)
        due = now + (delay.ms if delay is not None else 0)
        if self._faults.take("webhook_reorder", kind) is not None:
            due += 400  # the ones that follow within that time arrive first
        duplicate = self._faults.take("webhook_duplicate", kind)
        for _ in range(1 + (duplicate.copies if duplicate is not None else 0)):
            self._store.add_delivery(endpoint, event["id"], due)

    def _attempt(self, session: Object) -> Object:
        intent = self.intent_of(session)
        if intent is not None:
            return intent
        id_ = new_id("pi")
        intent = objects.payment_intent(
            id_=id_,
            client_secret=f"{id_}_secret_{secrets.token_hex(12)}",
            created=self.now_s(),
            amount=session["amount_total"],
            currency=session["currency"],
            capture_method=session["_intent_data"]["capture_method"],
            metadata=session["_intent_data"]["metadata"],
            session=session["id"],
        )
        if session["status"] == "open":
            session["payment_intent"] = id_
            self._store.put(intent)
            self._store.put(session)
            self.emit("payment_intent.created", intent)
        return intent

    def _succeed(self, session: Object, intent: Object) -> Object:
        amount = intent["amount"]
        intent["latest_charge"] = intent["latest_charge"] or new_id("ch")
        if intent["capture_method"] == "manual":
            intent.update(status="requires_capture", amount_capturable=amount)
            kind = "payment_intent.amount_capturable_updated"
        else:
            intent.update(status="succeeded", amount_received=amount)
            session["payment_status"] = "paid"
            kind = "payment_intent.succeeded"
        self._store.put(intent)
        self.emit("charge.succeeded", self.refunds.charge(intent))
        self.emit(kind, intent)
        if session["status"] == "open":
            self._complete(session)
        else:
            self._store.put(session)
            self.emit("checkout.session.async_payment_succeeded", session)
        return intent

    def _complete(self, session: Object) -> None:
        session["status"] = "complete"
        session["url"] = None
        self._store.put(session)
        self.emit("checkout.session.completed", session)

    def _fail(self, intent: Object, error: Object) -> Object:
        intent.update(status="requires_payment_method", last_payment_error=error)
        self._store.put(intent)
        self.emit("payment_intent.payment_failed", intent)
        return intent

    def _expire(self, session: Object) -> Object:
        session.update(status="expired", url=None)
        self._store.put(session)
        intent = self.intent_of(session)
        if intent is not None and intent["status"] in CANCELLABLE:
            self._cancel(intent, "expired")
        self.emit("checkout.session.expired", session)
        return session

    def _cancel(self, intent: Object, reason: str | None) -> Object:
        intent.update(
            status="canceled",
            amount_capturable=0,
            canceled_at=self.now_s(),
            cancellation_reason=reason,
            next_action=None,
        )
        self._store.put(intent)
        self.emit("payment_intent.canceled", intent)
        return intent

    def _refuse_by_fault(self, where: str) -> None:
        if self._faults.take("refuse_cancel", where) is not None:
            message = "This object cannot be changed right now because another request changes it."
            error = {"type": "invalid_request_error", "code": "lock_timeout", "message": message}
            raise ApiRefused(400, error)


def _lines(params: forms.Params) -> tuple[list[Object], str, int]:
    """Line items with inline prices -> (lines, currency, total). Raises `ApiRefused`."""
    given = params.get("line_items")
    if not isinstance(given, list) or not given:
        raise invalid("Missing required param: line_items.", param="line_items")
    lines: list[Object] = []
    currencies: set[str] = set()
    total = 0
    for n, item in enumerate(given):
        where = f"line_items[{n}]"
        price: Any = item.get("price_data") if isinstance(item, dict) else None
        product: Any = price.get("product_data") if isinstance(price, dict) else None
        if not isinstance(product, dict) or not isinstance(price, dict):
            raise invalid("You must specify price_data.", param=f"{where}[price_data]")
        amount = forms.integer(price, "unit_amount")
        quantity = forms.integer(item, "quantity", default=1)
        if amount < 0 or quantity < 1:
            raise invalid("Invalid non-negative integer", param=f"{where}[price_data][unit_amount]")
        currencies.add(forms.text(price, "currency").lower())
        name = forms.text(product, "name")
        lines.append({"name": name, "amount": amount, "quantity": quantity})
        total += amount * quantity
    if len(currencies) != 1 or not all(len(code) == 3 and code.isalpha() for code in currencies):
        raise invalid("Invalid currency.", param="currency")
    if total > AMOUNT_MAX:
        raise invalid("The Checkout Session's total amount is too large.", code="amount_too_large")
    if total < AMOUNT_MIN:
        raise invalid(
            "The Checkout Session's total amount must convert to at least 50 cents.",
            code="amount_too_small",
        )
    return lines, currencies.pop(), total


def _url(value: str, param: str) -> str:
    if value and not value.startswith(("http://", "https://")):
        raise invalid("Not a valid URL", param=param, code="url_invalid")
    return value
