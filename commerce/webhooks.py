"""Webhooks to the shop's other systems: the words, the rules of retrying, and the signature.

Responsible for what an endpoint and a delivery are, when a failed one is tried again, and how it is
signed (Standard Webhooks, by their own library). It must not know tables, nor send anything.

A delivery is made at least once, and in order for one key (an order, a SKU, a show): a later event
of a key waits until the earlier one was taken or given up. Receivers tell repetitions by the
header `webhook-id`.

The signing secret is not stored. It is derived from the server's own secret, the endpoint and a
generation, so that a copy of the database signs nothing.
"""

import base64
import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Protocol

from standardwebhooks import Webhook

TYPES: Final = (
    "order.paid",
    "order.partly_shipped",
    "order.shipped",
    "order.delivered",
    "order.closed",
    "order.cancelling",
    "order.cancelled",
    "stock.changed",
    "show.live",
    "show.paused",
    "show.ended",
)
"""What can be told. An endpoint that names no types gets all of them."""
TEST_TYPE: Final = "webhook.test"
"""Sent by hand to one endpoint, whatever it asked for."""
RETRY_S: Final = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Waits after the first, second, … failure (Standard Webhooks' schedule: about three days)."""
JITTER: Final = 0.2
ROTATION_MS: Final = 24 * 3_600_000
"""After a rotation the old secret signs as well for this long."""
ENDPOINTS_MAX: Final = 20
LEASE_MS: Final = 30_000
"""A courier that has not come back by then is dead, and another one takes the delivery."""


class DeliveryState(StrEnum):
    """PENDING waits for its next try; DEAD was given up and can be sent again by hand."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


class Stopped(StrEnum):
    """Why an endpoint gets nothing; its deliveries wait."""

    PAUSED = "paused"
    """By hand."""
    GONE = "gone"
    """It answered 410."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address that wants to hear. Times are milliseconds since 1970."""

    id: str
    url: str
    types: tuple[str, ...]
    generation: int
    rotated_at: int | None
    created_at: int
    stopped: Stopped | None = None
    delivered_at: int | None = None

    def wants(self, type_: str) -> bool:
        """Whether it asked for events of this type."""
        return not self.types or type_ in self.types


@dataclass(frozen=True, slots=True)
class Event:
    """Something to be told; `body` is the JSON that is signed and sent."""

    type: str
    key: str
    body: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one endpoint."""

    endpoint: str
    event: int
    uid: str
    type: str
    key: str
    body: str
    state: DeliveryState
    tries: int
    next_at: int
    answer: str
    created_at: int
    updated_at: int


class Deliveries(Protocol):
    """What a courier needs. Every method raises Unavailable when the record is away."""

    async def due(self, now: int) -> list[Endpoint]:
        """Endpoints for which something may be sent now."""
        ...

    async def claim(self, endpoint: str, limit: int, now: int, lease_ms: int) -> list[Delivery]:
        """Due ones of different keys, oldest first, that nobody else gets for `lease_ms`."""
        ...

    async def delivered(self, delivery: Delivery, answer: str, now: int) -> None:
        """The endpoint has taken it."""
        ...

    async def failed(self, delivery: Delivery, answer: str, next_at: int | None, now: int) -> None:
        """It has not; None: it is given up."""
        ...

    async def gone(self, delivery: Delivery, now: int) -> None:
        """The endpoint wants nothing any more: it is stopped, and the delivery given up."""
        ...


class Webhooks(Protocol):
    """What a desk for endpoints needs. Every method raises Unavailable."""

    async def endpoints(self) -> list[Endpoint]:
        """All, oldest first."""
        ...

    async def endpoint(self, id_: str) -> Endpoint | None:
        """One."""
        ...

    async def add_endpoint(self, url: str, types: Sequence[str], now: int) -> Endpoint | None:
        """A new one; None if there are ENDPOINTS_MAX already."""
        ...

    async def change_endpoint(self, id_: str, values: dict[str, Any]) -> Endpoint | None:
        """Sets url, types or stopped; the endpoint afterwards, None if there is none."""
        ...

    async def rotate(self, id_: str, generation: int, now: int) -> Endpoint | None:
        """The next secret, if its present one is of `generation` (a repetition rotates once)."""
        ...

    async def remove_endpoint(self, id_: str) -> bool:
        """With all its deliveries; whether there was one."""
        ...

    async def test(self, id_: str, body: str, now: int) -> None:
        """A test event for one endpoint alone."""
        ...

    async def deliveries(
        self, endpoint: str, state: DeliveryState | None, after: int | None, limit: int
    ) -> list[Delivery]:
        """Newest first; `after` is the event number of the last one of the page before."""
        ...

    async def replay(self, endpoint: str, event: int | None, now: int) -> int:
        """Sends one again (None: all that were given up), from the first try on; how many."""
        ...

    async def counts(self) -> dict[str, dict[DeliveryState, int]]:
        """Deliveries by endpoint and state."""
        ...


def next_try(tries: int, now: int, chance: Callable[[], float], at_least_s: int = 0) -> int | None:
    """When a delivery that has failed `tries` times is tried again; None: never.

    `at_least_s` is the receiver's own wish (Retry-After), bounded by the longest wait.
    """
    if tries > len(RETRY_S):
        return None
    wait_s = max(RETRY_S[tries - 1], min(at_least_s, RETRY_S[-1]))
    return now + int(wait_s * 1000 * (1 + JITTER * chance()))


def secret_of(master: str, endpoint: str, generation: int) -> str:
    """The secret of an endpoint in the form receivers' libraries take: `whsec_` and base64."""
    named = f"vitrine webhook {endpoint} {generation}".encode()
    derived = hmac.new(master.encode(), named, hashlib.sha256).digest()
    return "whsec_" + base64.b64encode(derived).decode()


def signed_headers(
    endpoint: Endpoint, uid: str, body: str, *, master: str, now: int
) -> dict[str, str]:
    """The headers of one try; while a rotation is young, signed by the old secret too."""
    at = datetime.fromtimestamp(now // 1000, UTC)
    generations: Sequence[int] = [endpoint.generation]
    if endpoint.rotated_at is not None and now < endpoint.rotated_at + ROTATION_MS:
        generations = [endpoint.generation, endpoint.generation - 1]
    signatures = [
        Webhook(secret_of(master, endpoint.id, generation)).sign(uid, at, body)
        for generation in generations
    ]
    return {
        "content-type": "application/json",
        "webhook-id": uid,
        "webhook-timestamp": str(now // 1000),
        "webhook-signature": " ".join(signatures),
    }
