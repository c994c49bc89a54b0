"""The courier: takes deliveries to the shop's other systems.

Responsible for sending what is due and for what each answer means. It must not know tables or what
an event says. One endpoint that hangs keeps no other one waiting: each has a round of its own, at
most four deliveries at once, and a try ends after fifteen seconds.

A 2xx is taken, whatever it says (the body is never read: somebody else's server is not trusted with
our memory). 410 stops the endpoint. Anything else is tried again by the schedule. Redirects are
not followed: whoever moves an endpoint says so here.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final

import httpx

from commerce.errors import CommerceError
from commerce.webhooks import LEASE_MS, Deliveries, Delivery, Endpoint, next_try, signed_headers

log = logging.getLogger(__name__)

TRY_S: Final = 15.0
AT_ONCE: Final = 4
"""Deliveries under way to one endpoint."""
LOOK_S: Final = 0.5
RETRY_AFTER_MAX_S: Final = 86_400
_AGENT: Final = "Vitrine-Webhooks/1"


class Courier:
    """One per node. `master` is the server's secret; `clock` in milliseconds."""

    def __init__(
        self,
        deliveries: Deliveries,
        master: str,
        *,
        clock: Callable[[], int],
        chance: Callable[[], float] = random.random,
        try_s: float = TRY_S,
    ) -> None:
        self._deliveries = deliveries
        self._master = master
        self._clock = clock
        self._chance = chance
        self._client = httpx.AsyncClient(
            timeout=try_s,
            follow_redirects=False,
            trust_env=False,
            headers={"user-agent": _AGENT},
        )
        self._try_s = try_s
        self.delivered = 0
        self.failed = 0
        """Tries that came to nothing; most of them are repeated."""

    async def run(self) -> None:
        """For ever; an outage of the record only makes deliveries wait."""
        rounds: dict[str, asyncio.Task[int]] = {}
        try:
            while True:
                for id_ in [id_ for id_, task in rounds.items() if task.done()]:
                    _heed(rounds.pop(id_))
                try:
                    for endpoint in await self._deliveries.due(self._clock()):
                        if endpoint.id not in rounds:
                            name = f"webhooks {endpoint.id}"
                            task = asyncio.create_task(self.round(endpoint), name=name)
                            rounds[endpoint.id] = task
                except CommerceError as outage:
                    log.warning("webhooks wait: %s", type(outage).__name__)
                await asyncio.sleep(LOOK_S)
        finally:
            for task in rounds.values():
                task.cancel()
            await asyncio.gather(*rounds.values(), return_exceptions=True)
            await self.close()

    async def close(self) -> None:
        """Closes its connections."""
        await self._client.aclose()

    async def round(self, endpoint: Endpoint) -> int:
        """Sends what is due for one endpoint, until nothing is; how many tries."""
        tries = 0
        while True:
            due = await self._deliveries.claim(endpoint.id, AT_ONCE, self._clock(), LEASE_MS)
            if not due:
                return tries
            tries += len(due)
            await asyncio.gather(*(self._deliver(endpoint, delivery) for delivery in due))

    async def _deliver(self, endpoint: Endpoint, delivery: Delivery) -> None:
        headers = signed_headers(
            endpoint, delivery.uid, delivery.body, master=self._master, now=self._clock()
        )
        status, answer, wait_s = await self._send(endpoint.url, headers, delivery.body)
        now = self._clock()
        if 200 <= status < 300:
            self.delivered += 1
            await self._deliveries.delivered(delivery, answer, now)
            return
        self.failed += 1
        if status == httpx.codes.GONE:
            log.warning("webhook endpoint %s answered 410 and is stopped", endpoint.id)
            await self._deliveries.gone(delivery, now)
        else:
            again = next_try(delivery.tries + 1, now, self._chance, wait_s)
            if again is None:
                log.warning("webhook %s to %s was given up", delivery.uid, endpoint.id)
            await self._deliveries.failed(delivery, answer, again, now)

    async def _send(self, url: str, headers: dict[str, str], body: str) -> tuple[int, str, int]:
        """(status or 0, what to show of it, seconds that the receiver wants to be left alone)."""
        try:
            async with (
                asyncio.timeout(self._try_s),
                self._client.stream("POST", url, headers=headers, content=body) as response,
            ):
                asked = response.headers.get("retry-after", "")
                wait_s = min(int(asked), RETRY_AFTER_MAX_S) if asked.isdecimal() else 0
                return response.status_code, str(response.status_code), wait_s
        except (httpx.TimeoutException, TimeoutError):
            return 0, "timeout", 0
        except httpx.TransportError:
            return 0, "no connection", 0
        except (httpx.InvalidURL, httpx.HTTPError):
            return 0, "not understood", 0


def _heed(task: "asyncio.Task[int]") -> None:
    """An outage ends a round; the next look begins another one."""
    error = task.exception() if not task.cancelled() else None
    if error is None:
        return
    if not isinstance(error, CommerceError):
        raise error
    log.warning("webhooks wait: %s", type(error).__name__)
