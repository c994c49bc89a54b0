"""Deliveries: signed POSTs to the shop's endpoints, again and again until one is answered with 2xx.

Responsible for Stripe's signature scheme as a sender and for the retries. It must not know what an
event means. Signing is written out here instead of borrowed from the SDK, so that the shop's check
is tested against an independent hand.
"""

import asyncio
import hashlib
import hmac
import json
import logging
from collections.abc import Callable
from typing import Final

import httpx

from commerce.sandbox.store import Store

BATCH_MAX: Final = 20
TIMEOUT_S: Final = 10.0
IDLE_S: Final = 0.2
RETRY_MS: Final = (500, 1_000, 2_000, 4_000, 8_000, 15_000, 30_000, 60_000)
TRIES_MAX: Final = 60
"""About an hour; Stripe goes on for three days."""

_log = logging.getLogger(__name__)


def sign(payload: str, secret: str, at_s: int) -> str:
    """The `Stripe-Signature` header."""
    mac = hmac.new(secret.encode(), f"{at_s}.{payload}".encode(), hashlib.sha256).hexdigest()
    return f"t={at_s},v1={mac}"


class Deliveries:
    """Sends what the store says is due. The store is only touched between awaits."""

    def __init__(self, store: Store, clock: Callable[[], int], tick: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._tick = tick
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """There may be something to send."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
            while True:
                self._tick()
                due = self._store.due_deliveries(self._clock(), BATCH_MAX)
                async with asyncio.TaskGroup() as group:
                    for id_, endpoint, event, tries in due:
                        group.create_task(self._send(client, id_, endpoint, event, tries))
                if len(due) < BATCH_MAX:
                    self._wake.clear()
                    try:
                        async with asyncio.timeout(IDLE_S):
                            await self._wake.wait()
                    except TimeoutError:
                        pass

    async def _send(
        self, client: httpx.AsyncClient, id_: int, endpoint: str, event: str, tries: int
    ) -> None:
        target = self._store.get("webhook_endpoint", endpoint)
        body = self._store.get("event", event)
        if target is None or body is None or target["status"] != "enabled":
            self._done(id_)
            return
        payload = json.dumps(body, indent=2)
        header = sign(payload, target["_secret"], self._clock() // 1000)
        headers = {"Stripe-Signature": header, "Content-Type": "application/json; charset=utf-8"}
        try:
            response = await client.post(target["url"], content=payload.encode(), headers=headers)
            taken = response.is_success
        except httpx.HTTPError as wrong:
            _log.info("webhook not delivered: %s", type(wrong).__name__)
            taken = False
        if taken or tries + 1 >= TRIES_MAX:
            self._done(id_)
            return
        wait = RETRY_MS[min(tries, len(RETRY_MS) - 1)]
        with self._store.transaction():
            self._store.again(id_, self._clock() + wait)

    def _done(self, id_: int) -> None:
        with self._store.transaction():
            self._store.delivered(id_)
