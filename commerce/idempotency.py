"""The words of Idempotency-Key: what makes a request the same request, and its stored answer.

Responsible for the port; `idempotency_sql` keeps the rows and explains what a crash between the
effect and its answer means. It must not know HTTP beyond a status and a body.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Final, Protocol

KEY_CHARS_MAX: Final = 255
SCOPE_CHARS_MAX: Final = 160
LEASE_MS: Final = 90_000
"""How long a request counts as running; twice as long as the slowest call to a provider."""


@dataclass(frozen=True, slots=True)
class Replay:
    """The stored answer of the first request."""

    status: int
    body: str


def request_sha(*parts: bytes) -> str:
    """A hash of what makes a request the same request: method, path and raw body."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "big"))
        whole.update(part)
    return whole.hexdigest()


class Idempotency(Protocol):
    """Keys that were used. Every method raises Unavailable when the record is away."""

    async def begin(
        self, scope: str, key: str, sha: str, *, lease_ms: int = LEASE_MS
    ) -> Replay | None:
        """The stored answer, or None: carry it out and call `finish` or `abandon`.

        Raises KeyConflict (the key was used for another request) and KeyInProgress: it was begun
        less than `lease_ms` ago and has not ended.
        """
        ...

    async def finish(self, scope: str, key: str, status: int, body: str) -> None:
        """Store the answer."""
        ...

    async def keep(self, transaction: Any, scope: str, key: str, status: int, body: str) -> None:
        """Store the answer in the open transaction of the effect."""
        ...

    async def abandon(self, scope: str, key: str) -> None:
        """Nothing was done: the key can be used again."""
        ...
