"""Facts that were committed and must still be told: the words and the port.

A fact without a caller (a hold that lapsed, a webhook) has nobody who waits for an answer. It is
stored in the transaction that made it true (`outbox_sql` keeps it) and waits for whoever tells it.
This module must not know tables, and not what a fact means.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that is true and committed. `at` is milliseconds since 1970."""

    id: int
    topic: str
    key: str
    payload: Mapping[str, Any]
    at: int


class Outbox(Protocol):
    """What a teller needs. Every method raises Unavailable when the record is away."""

    async def claim(self, topics: Sequence[str], limit: int, now: int, lease_ms: int) -> list[Fact]:
        """Up to `limit` untold facts, oldest first, that nobody else gets for `lease_ms`."""
        ...

    async def done(self, ids: Sequence[int], now: int) -> None:
        """These facts were told. Repeating is harmless."""
        ...
