"""Payments by Stripe through its official SDK; the sandbox speaks the same API and is met here too.

Responsible for calls, keys, time limits, Stripe's way to count currencies, its signature, and for
turning its errors into "not known" (`Unavailable`) or "no" (`ProviderRefused`). It must not know
rows, holds or orders, and decides nothing.

Why Checkout Sessions with manual capture: the card is typed at Stripe (SAQ A), the session can be
expired by us at any moment although Stripe's own minimum is 30 minutes, and an authorisation that
comes too late is cancelled for free. Every POST carries a key that is derived from our payment row:
the SDK would otherwise invent a random one per call, and a retry by us would pay twice. The SDK's
telemetry is switched off: it writes an id into the home folder and reports it.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import httpx
import stripe
from typing_extensions import override

from commerce import refunds_stripe
from commerce.errors import BadSignature, Unavailable
from commerce.payments import Event, ProviderRefused, Seen, SessionRequest
from commerce.refunds import SeenCharge, SeenDispute, SeenRefund
from commerce.refunds_stripe import from_provider, to_provider

TIMEOUT_S: Final = 10.0
CONNECTIONS_MAX: Final = 20
RETRIES: Final = 2
"""By the SDK, with the same idempotency key, after 0.5 and 1 s."""
RETRY_AFTER_MS: Final = 2_000
TOLERANCE_MS: Final = 300_000
"""Stripe's own tolerance; here it also bounds timestamps from the future."""
BODY_BYTES_MAX: Final = 256 * 1024
HEADER_CHARS_MAX: Final = 4096
SECRETS_MAX: Final = 2
"""The current webhook secret and, while it is being rotated, the one before."""
NAME_CHARS_MAX: Final = 250
PAGE: Final = 100
SKEW_S: Final = 60
"""So far may the provider's clock be from ours."""
FIND_PAGES_MAX: Final = 200
"""Of sessions made within the three minutes in which one may have been: 110 a second."""

_NOT_NOW: Final = frozenset({"lock_timeout", "idempotency_key_in_use", "rate_limit"})
"""Refusals that only mean "not now"."""

T = TypeVar("T")
_log = logging.getLogger(__name__)


class StripeProvider:
    """`api_base` None: Stripe itself. Build it inside a running loop; `close` it there."""

    name = "stripe"

    def __init__(
        self,
        api_key: str,
        webhook_secrets: Sequence[str],
        *,
        api_base: str | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: int = RETRIES,
    ) -> None:
        if len(webhook_secrets) > SECRETS_MAX:
            raise ValueError("at most two webhook secrets: the current and the previous one")
        stripe.enable_telemetry = False
        self._whole_s = timeout_s * (retries + 1) + 2.0 * retries
        self._http = _Client(timeout_s, trust_env=api_base is None)
        base = {"base_addresses": {"api": api_base.rstrip("/")}} if api_base is not None else {}
        self._client = stripe.StripeClient(
            api_key,
            http_client=self._http,
            max_network_retries=retries,
            **base,  # type: ignore[arg-type]
        )
        self._secrets = tuple(secret for secret in webhook_secrets if secret)

    async def create_session(self, request: SessionRequest) -> Seen:
        """See `Provider`. `expires_at` must be 30 minutes to 24 hours ahead (Stripe's limits)."""
        ours = dict(request.about)
        params: Any = {
            "mode": "payment",
            "line_items": _line_items(request),
            "payment_intent_data": {"capture_method": "manual", "metadata": ours},
            "metadata": ours,
            "client_reference_id": request.payment,
            "expires_at": request.expires_at_ms // 1000,
            "success_url": request.success_url,
            "cancel_url": request.cancel_url,
            "expand": ["payment_intent"],
        }
        sessions = self._client.v1.checkout.sessions
        return _seen_session(
            await self._call(sessions.create_async(params, {"idempotency_key": request.key}))
        )

    async def expire_session(self, session: str, key: str) -> Seen:
        """See `Provider`."""
        sessions = self._client.v1.checkout.sessions
        return _seen_session(
            await self._call(
                sessions.expire_async(
                    session, {"expand": ["payment_intent"]}, {"idempotency_key": key}
                )
            )
        )

    async def look(self, object_id: str) -> Seen | None:
        """See `Provider`: `cs_…` or `pi_…`; anything else is nothing of ours."""
        try:
            if object_id.startswith("cs_"):
                sessions = self._client.v1.checkout.sessions
                expand: Any = {"expand": ["payment_intent"]}
                return _seen_session(await self._call(sessions.retrieve_async(object_id, expand)))
            if object_id.startswith("pi_"):
                intents = self._client.v1.payment_intents
                return _seen_intent(await self._call(intents.retrieve_async(object_id)))
        except ProviderRefused as refused:
            if refused.code != "resource_missing":
                raise
        return None

    async def find_session(self, payment: str, since_ms: int, until_ms: int) -> Seen | None:
        """See `Provider`. Reads what was made then, give or take `SKEW_S`, the newest first."""
        sessions = self._client.v1.checkout.sessions
        params: dict[str, Any] = {
            "created": {"gte": since_ms // 1000 - SKEW_S, "lte": until_ms // 1000 + SKEW_S},
            "limit": PAGE,
            "expand": ["data.payment_intent"],
        }
        for _ in range(FIND_PAGES_MAX):
            page = await self._call(sessions.list_async(params))  # type: ignore[arg-type]
            for session in page.data:
                if session.client_reference_id == payment:
                    return _seen_session(session)
            if not page.has_more or not page.data:
                return None
            params["starting_after"] = page.data[-1].id
        raise Unavailable(RETRY_AFTER_MS)

    async def list_sessions(self, since_ms: int, limit: int) -> Sequence[Seen]:
        """See `Provider`."""
        sessions = self._client.v1.checkout.sessions
        expand = ["data.payment_intent"]
        found = await self._list(sessions.list_async, since_ms, limit, expand=expand)
        return [_seen_session(one) for one in found]

    async def capture(self, intent: str, amount: int, currency: str, key: str) -> Seen:
        """See `Provider`."""
        intents = self._client.v1.payment_intents
        wanted = to_provider(amount, currency)
        return _seen_intent(
            await self._call(
                intents.capture_async(
                    intent, {"amount_to_capture": wanted}, {"idempotency_key": key}
                )
            )
        )

    async def cancel(self, intent: str, key: str) -> Seen:
        """See `Provider`."""
        intents = self._client.v1.payment_intents
        return _seen_intent(
            await self._call(intents.cancel_async(intent, {}, {"idempotency_key": key}))
        )

    async def refund(
        self, intent: str, amount: int, currency: str, *, refund: str, key: str
    ) -> SeenRefund:
        """See `Provider`."""
        params: Any = {
            "payment_intent": intent,
            "amount": to_provider(amount, currency),
            "metadata": {"refund": refund},
        }
        made = self._client.v1.refunds.create_async(params, {"idempotency_key": key})
        return refunds_stripe.seen_refund(await self._call(made))

    async def look_refunds(self, object_id: str) -> Sequence[SeenRefund]:
        """See `Provider`: `re_…`, `pi_…` or `ch_…`; at most 100 of one payment."""
        refunds = self._client.v1.refunds
        try:
            if object_id.startswith("re_"):
                one = await self._call(refunds.retrieve_async(object_id))
                return [refunds_stripe.seen_refund(one)]
            name = {"pi_": "payment_intent", "ch_": "charge"}.get(object_id[:3])
            if name is not None:
                params: Any = {name: object_id, "limit": PAGE}
                page = await self._call(refunds.list_async(params))
                return [refunds_stripe.seen_refund(one) for one in page.data]
        except ProviderRefused as refused:
            if refused.code != "resource_missing":
                raise
        return []

    async def look_dispute(self, object_id: str) -> SeenDispute | None:
        """See `Provider`."""
        if not object_id.startswith(("dp_", "du_")):
            return None
        try:
            found = self._client.v1.disputes.retrieve_async(object_id)
            return refunds_stripe.seen_dispute(await self._call(found))
        except ProviderRefused as refused:
            if refused.code != "resource_missing":
                raise
        return None

    async def list_charges(self, since_ms: int, limit: int) -> Sequence[SeenCharge]:
        """See `Provider`."""
        found = await self._list(self._client.v1.charges.list_async, since_ms, limit)
        return [refunds_stripe.seen_charge(one) for one in found]

    async def list_refunds(self, since_ms: int, limit: int) -> Sequence[SeenRefund]:
        """See `Provider`."""
        found = await self._list(self._client.v1.refunds.list_async, since_ms, limit)
        return [refunds_stripe.seen_refund(one) for one in found]

    async def _list(
        self, ask: Callable[..., Any], since_ms: int, limit: int, **more: Any
    ) -> list[Any]:
        """Oldest first; at most `limit`, the newest ones if there are more."""
        found: list[Any] = []
        params: dict[str, Any] = {"created": {"gte": since_ms // 1000}, "limit": min(PAGE, limit)}
        params |= more
        while len(found) < limit:
            page = await self._call(ask(params))
            found.extend(page.data)
            if not page.has_more or not page.data:
                break
            params["starting_after"] = page.data[-1].id
        return found[:limit][::-1]

    def verify(self, raw: bytes, signature: str, now_ms: int) -> Event:
        """A webhook by Stripe's scheme (`t=…,v1=…`), against every secret we have.

        The time is checked by our clock in both directions. Raises `BadSignature` for whatever is
        wrong with it, without saying what: the caller may be anybody.
        """
        if len(raw) > BODY_BYTES_MAX or len(signature) > HEADER_CHARS_MAX:
            raise BadSignature
        if not signature.isascii() or not any(
            self._signed(raw, signature, s) for s in self._secrets
        ):
            raise BadSignature
        try:
            at_ms = _timestamp(signature) * 1000
            event = _event(json.loads(raw))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise BadSignature from None
        if abs(now_ms - at_ms) > TOLERANCE_MS:
            raise BadSignature
        return event

    async def list_events(self, since_ms: int, limit: int) -> Sequence[Event]:
        """See `Provider`. At most `limit`, the newest ones if there are more."""
        found = await self._list(self._client.v1.events.list_async, since_ms, limit)
        return [_event(event.to_dict()) for event in found]

    async def close(self) -> None:
        """See `Provider`."""
        await self._http.close_async()

    @staticmethod
    def _signed(raw: bytes, signature: str, secret: str) -> bool:
        try:
            stripe.WebhookSignature.verify_header(raw, signature, secret)
        except (stripe.SignatureVerificationError, ValueError, TypeError, OverflowError):
            return False
        return True

    async def _call(self, request: Awaitable[T]) -> T:
        """Stripe's errors in our words. Nothing of their text is kept: it may name a person."""
        try:
            async with asyncio.timeout(self._whole_s):
                return await request
        except (stripe.InvalidRequestError, stripe.CardError, stripe.IdempotencyError) as refused:
            code = refused.code or (refused.error.type if refused.error else None) or "refused"
            if code in _NOT_NOW:
                raise Unavailable(RETRY_AFTER_MS) from None
            raise ProviderRefused(code) from None
        except (stripe.AuthenticationError, stripe.PermissionError) as wrong:
            _log.error("the payment provider refuses our key (status %s)", wrong.http_status)
            raise Unavailable(RETRY_AFTER_MS) from None
        except (stripe.StripeError, TimeoutError) as wrong:
            _log.warning("the payment provider did not answer (%s)", type(wrong).__name__)
            raise Unavailable(RETRY_AFTER_MS) from None


class _Client(stripe.HTTPClient):
    """The SDK's transport over httpx: bounded connections, no proxy for an address of our own.

    The SDK brings one for httpx as well; it hands its body over in a way that httpx has deprecated
    (a warning per call) and leaves the number of connections open.
    """

    name = "httpx"

    def __init__(self, timeout_s: float, *, trust_env: bool) -> None:
        super().__init__()
        limits = httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=10)
        self._http = httpx.AsyncClient(timeout=timeout_s, limits=limits, trust_env=trust_env)

    @override
    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str] | None, post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        try:
            answer = await self._http.request(method, url, headers=headers, content=post_data)
        except httpx.HTTPError as wrong:
            name = type(wrong).__name__
            raise stripe.APIConnectionError(name, should_retry=True) from wrong  # type: ignore[no-untyped-call]
        return answer.content, answer.status_code, answer.headers

    @override
    def sleep_async(self, secs: float) -> Awaitable[None]:
        return asyncio.sleep(secs)

    @override
    async def close_async(self) -> None:
        await self._http.aclose()


def _line_items(request: SessionRequest) -> list[Mapping[str, Any]]:
    items = [(line.title or line.sku, line.unit_amount, line.quantity) for line in request.lines]
    if request.shipping:
        items.append((request.shipping_label, request.shipping, 1))
    return [
        {
            "quantity": quantity,
            "price_data": {
                "currency": request.currency.lower(),
                "unit_amount": to_provider(amount, request.currency),
                "product_data": {"name": name[:NAME_CHARS_MAX]},
            },
        }
        for name, amount, quantity in items
    ]


def _seen_session(session: stripe.checkout.Session) -> Seen:
    intent = session.payment_intent
    whole = intent if isinstance(intent, stripe.PaymentIntent) else None
    currency = (session.currency or "").upper()
    metadata = session.metadata.to_dict() if session.metadata is not None else {}
    return Seen(
        payment=metadata.get("payment"),
        rid=metadata.get("rid"),
        session=session.id,
        session_status=session.status,
        intent=whole.id if whole is not None else (str(intent) if intent else None),
        intent_status=whole.status if whole is not None else None,
        amount=from_provider(_amount(session, whole), currency),
        currency=currency if whole is None else whole.currency.upper(),
        captured=from_provider(whole.amount_received, currency) if whole is not None else 0,
        declined=whole is not None and _declined(whole),
        url=session.url or "",
        about=metadata,
    )


def _amount(session: stripe.checkout.Session, intent: stripe.PaymentIntent | None) -> int:
    """What would be charged. For a reserved one it is what is reserved."""
    if intent is None:
        return session.amount_total if session.amount_total is not None else -1
    return _reserved(intent)


def _reserved(intent: stripe.PaymentIntent) -> int:
    if intent.status == "requires_capture":
        return min(intent.amount, intent.amount_capturable)
    return intent.amount


def _seen_intent(intent: stripe.PaymentIntent) -> Seen:
    currency = intent.currency.upper()
    metadata = intent.metadata.to_dict()
    return Seen(
        payment=metadata.get("payment"),
        rid=metadata.get("rid"),
        session=None,
        session_status=None,
        intent=intent.id,
        intent_status=intent.status,
        amount=from_provider(_reserved(intent), currency),
        currency=currency,
        captured=from_provider(intent.amount_received, currency),
        declined=_declined(intent),
        url="",
    )


def _declined(intent: stripe.PaymentIntent) -> bool:
    return intent.status == "requires_payment_method" and intent.last_payment_error is not None


def _event(body: Mapping[str, Any]) -> Event:
    """Raises KeyError, TypeError or ValueError for what is no event."""
    id_, kind = body["id"], body["type"]
    about, created = body["data"]["object"], body["created"]
    if not isinstance(about, Mapping):
        raise TypeError
    object_id = about.get("id") or ""  # some objects have none
    if not (isinstance(id_, str) and isinstance(kind, str) and isinstance(object_id, str)):
        raise TypeError
    if not isinstance(created, int) or not 0 < len(id_) <= 255 or len(object_id) > 255:
        raise ValueError
    return Event(id=id_, kind=kind[:80], object_id=object_id, created_ms=created * 1000)


def _timestamp(signature: str) -> int:
    """The `t` that was signed: the SDK takes the first one."""
    values = [part[2:] for part in signature.split(",") if part.startswith("t=")]
    return int(values[0][:20])
