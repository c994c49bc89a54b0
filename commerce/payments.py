"""The words of payment: states, their table, what a provider can do, and what its answer means.

Responsible for the port to a payment provider and for `judge`, the one place that reads a state of
affairs at the provider and says what it means for us. Pure: no engine, no HTTP, no SDK. It must
not know holds or orders.

Three rules carry the rest. **The provider's object, fetched fresh, is the truth**; an event only
says "look again", so order, repetition and loss of events cannot matter. **A payment only moves
forward** (`RANK`), by compare-and-set along `MOVES`; anything not listed is refused. **Money is
authorised first and captured second** (manual capture): an authorisation for which there is no unit
left is cancelled and costs nobody anything, a captured one would have to be refunded.

    created ─ open ─ declined ─ requires_action ─ processing ─ authorised ─ capturing ─ captured
       └────────┴───────┴─────────────┴────────────┴─ cancel_requested / mismatch ─ cancelled
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Protocol

from commerce.pricing import Adjustment
from commerce.refunds import SeenCharge, SeenDispute, SeenRefund
from commerce.stock import HeldLine, Hold


class PaymentState(StrEnum):
    """Where a payment is. One row of `payment` is one hosted page."""

    CREATED = "created"
    """The row is committed; whether the provider has heard of it is not known."""
    OPEN = "open"
    """The hosted page can be used."""
    DECLINED = "declined"
    """The last card was declined; the same page can still be used."""
    REQUIRES_ACTION = "requires_action"
    """The bank asks the buyer something."""
    PROCESSING = "processing"
    """The bank takes its time. Nothing can stop it, so the units stay held."""
    AUTHORISED = "authorised"
    """The money is reserved and the units are sold, in one commit."""
    CAPTURING = "capturing"
    """The money is being taken; from here a cancellation is a refund."""
    CAPTURED = "captured"
    """The money is ours."""
    CANCEL_REQUESTED = "cancel_requested"
    """Its page is being ended at the provider; who pays in that very moment has still paid."""
    MISMATCH = "mismatch"
    """The provider has another amount or currency than we asked for. Never sells."""
    UNALLOCATED = "unallocated"
    """Money was taken although there is no unit for it: it must go back (a refund)."""
    CANCELLED = "cancelled"
    """Nobody can pay by it any more and no money moved."""


class Sale(StrEnum):
    """What became of an authorised payment."""

    SOLD = "sold"
    UNSELLABLE = "unsellable"
    """The hold has ended: the money must be let go."""
    LOST = "lost"
    """Somebody else moved this payment first."""


P = PaymentState

RANK: Final = MappingProxyType(
    {
        P.CREATED: 0,
        P.OPEN: 1,
        P.DECLINED: 1,
        P.REQUIRES_ACTION: 1,
        P.PROCESSING: 2,
        P.CANCEL_REQUESTED: 3,
        P.AUTHORISED: 4,
        P.CAPTURING: 5,
        P.CAPTURED: 6,
        P.MISMATCH: 7,
        P.CANCELLED: 8,
        P.UNALLOCATED: 8,
    }
)
"""Only forward, or sideways within a rank: a decline and the next attempt alternate."""

PAYABLE: Final = (P.CREATED, P.OPEN, P.DECLINED, P.REQUIRES_ACTION, P.PROCESSING)
"""States in which somebody may still pay and nobody has asked for the end."""
_UNCAPTURED: Final = (*PAYABLE, P.AUTHORISED, P.CAPTURING)

MOVES: Final = MappingProxyType(
    {
        P.OPEN: frozenset({P.CREATED, P.DECLINED, P.REQUIRES_ACTION}),
        P.DECLINED: frozenset({P.CREATED, P.OPEN, P.REQUIRES_ACTION, P.PROCESSING}),
        P.REQUIRES_ACTION: frozenset({P.CREATED, P.OPEN, P.DECLINED}),
        P.PROCESSING: frozenset({P.CREATED, P.OPEN, P.DECLINED, P.REQUIRES_ACTION}),
        P.AUTHORISED: frozenset({*PAYABLE, P.CANCEL_REQUESTED}),
        P.CAPTURING: frozenset({P.AUTHORISED}),
        P.CAPTURED: frozenset({P.AUTHORISED, P.CAPTURING, P.UNALLOCATED}),
        P.CANCEL_REQUESTED: frozenset({*PAYABLE, P.AUTHORISED, P.CANCELLED}),
        P.MISMATCH: frozenset({*PAYABLE, P.CANCEL_REQUESTED}),
        P.UNALLOCATED: frozenset({*PAYABLE, P.CANCEL_REQUESTED, P.MISMATCH, P.CANCELLED}),
        P.CANCELLED: frozenset({*_UNCAPTURED, P.CANCEL_REQUESTED}),
    }
)
"""State -> the states it may be reached from. Refunds and disputes have tables of their own
(`commerce.refunds`): they never change what was taken.

Four steps go back in rank. DECLINED from PROCESSING: a bank that took its time said no.
CANCEL_REQUESTED from CANCELLED: money turned up after all, and is let go again, never in silence.
CANCEL_REQUESTED from AUTHORISED: the order was cancelled before its money was taken. CAPTURED from
UNALLOCATED: there was a unit left for late money after all. CANCEL_REQUESTED may still become
AUTHORISED: the buyer was faster than the request."""

SHOWN: Final = frozenset({P.OPEN, P.DECLINED, P.REQUIRES_ACTION})
"""States in which the hosted page can be used by a person."""


class Meaning(StrEnum):
    """What the state of affairs at the provider means."""

    OPEN = "open"
    DECLINED = "declined"
    REQUIRES_ACTION = "requires_action"
    PROCESSING = "processing"
    AUTHORISED = "authorised"
    CAPTURED = "captured"
    MISMATCH = "mismatch"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """A hosted page to be made. Everything in it follows from committed rows, so that the same
    request can be sent twice under the same `key`. Nothing personal goes to the provider."""

    key: str
    payment: str
    rid: str
    lines: tuple[HeldLine, ...]
    shipping: int
    shipping_label: str
    amount: int
    currency: str
    expires_at_ms: int
    success_url: str
    cancel_url: str
    about: Mapping[str, str]
    """Goes along as metadata (`commerce.snapshot`)."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A session or an intent, or both, as the provider has them now. Amounts in our minor units."""

    payment: str | None
    """Our payment's id, from the metadata; None: not ours."""
    rid: str | None
    session: str | None
    session_status: str | None
    """"open", "complete" or "expired"; None when only the intent was looked at."""
    intent: str | None
    intent_status: str | None
    amount: int
    currency: str
    captured: int
    declined: bool
    url: str
    about: Mapping[str, str] = field(default_factory=dict)
    """All metadata of a session."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to an object at the provider. Only the id of the object is used."""

    id: str
    kind: str
    object_id: str
    created_ms: int

    @property
    def about_payment(self) -> bool:
        """Whether it is worth a look; others, and those about nothing, are filed away."""
        return bool(self.object_id) and self.kind.startswith(
            ("checkout.session.", "payment_intent.", "refund.", "charge.refund", "charge.dispute.")
        )


@dataclass(frozen=True, slots=True)
class Payment:
    """One row of `payment`."""

    id: str
    rid: str
    session: str | None
    intent: str | None
    state: PaymentState
    amount: int
    shipping: int
    currency: str
    captured: int
    url: str
    created_at: int
    tries: int
    steps: tuple[Adjustment, ...] = ()
    """From the price of the goods to `amount`."""

    def page(self, hold: Hold) -> "PaymentPage":
        """Where to pay it."""
        return PaymentPage(
            url=self.url,
            hold=hold,
            total=self.amount,
            shipping=self.shipping,
            currency=self.currency,
        )


class ProviderRefused(Exception):
    """The provider decided: no. `code` is its own word for why."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Address:
    """Where to send it. `country` is ISO 3166 alpha-2."""

    line1: str
    line2: str
    city: str
    region: str
    postcode: str
    country: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """Who gets it and how to reach them. Personal: kept in `customer_detail` alone."""

    name: str
    email: str
    phone: str
    address: Address


@dataclass(frozen=True, slots=True)
class PaymentPage:
    """Where to pay, for what, and how much. Amounts in minor units; `total` includes shipping."""

    url: str
    hold: Hold
    total: int
    shipping: int
    currency: str


class Provider(Protocol):
    """A payment provider. Calls that change something take a derived key and may be repeated.

    Each call ends within a bounded time. It raises `commerce.errors.Unavailable` when the outcome
    is not known (it may have acted), `ProviderRefused` when the provider said no.
    """

    name: str

    async def create_session(self, request: SessionRequest) -> Seen:
        """Make the hosted page."""
        ...

    async def expire_session(self, session: str, key: str) -> Seen:
        """Nobody can pay by this page any more. Refused unless it is open."""
        ...

    async def look(self, object_id: str) -> Seen | None:
        """A session (with its intent) or an intent, fresh. None: there is no such object."""
        ...

    async def find_session(self, payment: str, since_ms: int, until_ms: int) -> Seen | None:
        """The session that was made for our payment, if the answer to its creation was lost.

        It was made between the two instants or never.
        """
        ...

    async def list_sessions(self, since_ms: int, limit: int) -> Sequence[Seen]:
        """Sessions made since then with their intents, oldest first; at most `limit`."""
        ...

    async def capture(self, intent: str, amount: int, currency: str, key: str) -> Seen:
        """Take the reserved money. Refused unless it waits for that."""
        ...

    async def cancel(self, intent: str, key: str) -> Seen:
        """Let the reserved money go. Refused when it was taken or its page is open."""
        ...

    async def refund(
        self, intent: str, amount: int, currency: str, *, refund: str, key: str
    ) -> SeenRefund:
        """Give money back; `refund` is our id of it. Refused beyond what was taken."""
        ...

    async def look_refunds(self, object_id: str) -> Sequence[SeenRefund]:
        """The refund of this id, or all of this intent or charge, fresh; none: not known there."""
        ...

    async def look_dispute(self, object_id: str) -> SeenDispute | None:
        """A chargeback, fresh."""
        ...

    async def list_charges(self, since_ms: int, limit: int) -> Sequence[SeenCharge]:
        """Money taken since then, oldest first; at most `limit`, the newest if there is more."""
        ...

    async def list_refunds(self, since_ms: int, limit: int) -> Sequence[SeenRefund]:
        """Money given back since then, likewise."""
        ...

    def verify(self, raw: bytes, signature: str, now_ms: int) -> Event:
        """A webhook body. Raises `commerce.errors.BadSignature`."""
        ...

    async def list_events(self, since_ms: int, limit: int) -> Sequence[Event]:
        """What happened since then, oldest first, for those that no webhook told."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...


def judge(seen: Seen, amount: int, currency: str) -> Meaning:
    """What `seen` means for a payment over `amount` of `currency`. Total over all inputs.

    An intent or session with an unknown status counts as open: it is looked at again and never
    sells. A dead payment is dead whatever its amount, and a wrong amount matters before any money
    is authorised, because a page over the wrong amount must not stay open.
    """
    if _dead(seen):
        return Meaning.DEAD
    if seen.amount != amount or seen.currency != currency:
        return Meaning.MISMATCH
    status = seen.intent_status
    if status == "succeeded":
        return Meaning.CAPTURED if seen.captured == amount else Meaning.MISMATCH
    if status == "requires_capture":
        return Meaning.AUTHORISED
    if status == "processing":
        return Meaning.PROCESSING
    if status == "requires_action":
        return Meaning.REQUIRES_ACTION
    return Meaning.DECLINED if seen.declined else Meaning.OPEN


def _dead(seen: Seen) -> bool:
    if seen.intent_status == "canceled":
        # A session that is still open would make a new intent, so it has to be expired first.
        return seen.session_status != "open"
    moneyed = seen.intent_status in ("requires_capture", "succeeded", "processing")
    return seen.session_status == "expired" and not moneyed
