"""The words of giving money back: refund, its table of moves, disputes. Types only; no engine.

A refund is a committed row before the provider hears of it; its id makes the provider's idempotency
key and stands in the refund's metadata there, so it can be found again when an answer was lost.
What the provider's own object says, fetched fresh, decides; an event only says "look again".

    asked ─► rejected                                a viewer asks, the host says no
      └────► requested ─► submitted ─► succeeded ─► failed       a bank may still return it
                 └───────────┴───────► failed

From `requested` on the money counts as given back (`payment.refunded`), so that two refunds at once
can never exceed what was taken; only `failed` makes it free again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

REASON_CHARS_MAX: Final = 200
OUTSIDE: Final = "outside"
"""`asked_by` of a refund that somebody made at the provider itself."""


class RefundState(StrEnum):
    """Where a refund is. Moved by compare-and-set along `MOVES` only."""

    ASKED = "asked"
    """By the viewer; nothing is promised."""
    REJECTED = "rejected"
    REQUESTED = "requested"
    """Promised and counted; the provider may not have heard of it."""
    SUBMITTED = "submitted"
    """The provider has it; the bank takes its time."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """The money stayed with us; the host may begin another one."""


R = RefundState

MOVES: Final[Mapping[RefundState, frozenset[RefundState]]] = MappingProxyType(
    {
        R.ASKED: frozenset({R.REJECTED, R.REQUESTED}),
        R.REJECTED: frozenset(),
        R.REQUESTED: frozenset({R.SUBMITTED, R.SUCCEEDED, R.FAILED}),
        R.SUBMITTED: frozenset({R.SUCCEEDED, R.FAILED}),
        R.SUCCEEDED: frozenset({R.FAILED}),
        R.FAILED: frozenset(),
    }
)
"""From each state to those it may become."""

COUNTED: Final = (R.REQUESTED, R.SUBMITTED, R.SUCCEEDED)
"""States whose amount is given back or promised."""


@dataclass(frozen=True, slots=True)
class Refund:
    """One refund; `amount` in minor units. `order` None: money for which there was no unit."""

    id: str
    rid: str
    payment: str
    order: str | None
    provider_id: str | None
    state: RefundState
    amount: int
    currency: str
    reason: str
    asked_by: str
    return_case: str | None
    failure: str
    created_at: int
    updated_at: int
    tries: int


@dataclass(frozen=True, slots=True)
class SeenRefund:
    """A refund as the provider has it now. Amount in our minor units."""

    id: str
    refund: str | None
    """Our refund's id, from the metadata; None: made by somebody at the provider."""
    intent: str
    status: str
    """pending, requires_action, succeeded, failed or canceled."""
    amount: int
    currency: str
    failure: str


@dataclass(frozen=True, slots=True)
class SeenDispute:
    """A chargeback as the provider has it now."""

    id: str
    intent: str
    status: str
    """Stripe's: warning_…, needs_response, under_review, won, lost, prevented."""
    amount: int
    currency: str


@dataclass(frozen=True, slots=True)
class SeenCharge:
    """Money that was taken, as the provider lists it, for reconciling."""

    intent: str
    payment: str | None
    captured: int
    refunded: int
    currency: str


def judge(status: str) -> RefundState:
    """What a status at the provider means. An unknown one is looked at again."""
    if status == "succeeded":
        return R.SUCCEEDED
    return R.FAILED if status in ("failed", "canceled") else R.SUBMITTED


class DisputeState(StrEnum):
    """Of a chargeback. While it is open, and when it is lost, its money cannot be refunded."""

    OPEN = "open"
    WON = "won"
    LOST = "lost"


DISPUTE_MOVES: Final[Mapping[DisputeState, frozenset[DisputeState]]] = MappingProxyType(
    {
        DisputeState.OPEN: frozenset({DisputeState.WON, DisputeState.LOST}),
        DisputeState.WON: frozenset(),
        DisputeState.LOST: frozenset(),
    }
)


def judge_dispute(status: str) -> DisputeState:
    """An inquiry ("warning") that is closed took no money; so has a prevented one."""
    if status == "lost":
        return DisputeState.LOST
    won = status in ("won", "warning_closed", "prevented")
    return DisputeState.WON if won else DisputeState.OPEN


Units = Sequence[tuple[int, int]]
"""Single units of an order: (position of the line, number from 0)."""
