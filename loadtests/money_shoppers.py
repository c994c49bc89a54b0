"""The crowd of the money drill: each buyer walks one random journey after the other, as pages do.

Responsible for pressing (Buy over the WebSocket, payment pages by plain HTTP, the rest over the
API), for repeating what was not answered under its key, and for a memory of what was answered that
is no part of the server. It must not know what is killed, nor look into an engine.

Holds are made as viewers make them, over the wire: about 3 ms of CPU each, a tenth of what a paid
order costs, so a cheaper way would save little and prove less.
"""

import asyncio
import contextlib
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from loadtests.client import new_rid
from loadtests.journey import DELIVERY
from loadtests.kill_shoppers import OUTAGES, Crowd
from loadtests.refused import Refused, TooLate
from loadtests.shopper import wall_ms
from loadtests.visitor import Visitor

BACK_MOST_S: Final = 1.0
PAID_S: Final = 60.0
"""How long a buyer waits to be told "paid", with a webhook lost and a node away; then they leave,
and what becomes of the money is the judge's business."""
LOOK_S: Final = 1.5
"""Between looking and looking again; twice as long each time."""
PAGE_TRIES: Final = 3
TWICE_SHARE: Final = 0.2
"""Of the calls with a key: sent a second time, and the answers compared."""
CARD_GOOD: Final = "4242424242424242"
CARD_BAD: Final = "4000000000000002"
CARD_ASKS: Final = "4000002500003155"
CARD_LATE: Final = "4000000000000093"
WEIGHTS: Final = {
    "lapse": 6,
    "cancel": 8,
    "abandon": 6,
    "pay_and_cancel": 4,
    "decline": 10,
    "bank_asks": 8,
    "late": 6,
    "pay": 52,
}
"""What becomes of a hold, in shares."""


@dataclass
class Memory:
    """What was answered to whom; the judge holds the record to it."""

    target: int
    plain: bool = False
    """Nothing but paying: what the figures of cost are measured with."""
    paid: dict[str, str] = field(default_factory=dict)
    """Order by rid, of those who were told "paid"."""
    told: dict[str, set[str]] = field(default_factory=dict)
    """Refund ids by order, as hosts and buyers were answered."""
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    ended: bool = False
    """No more time: what was reached is what is judged."""

    def end(self) -> None:
        """Enough, however many there are."""
        self.ended = True
        self.target = len(self.paid)

    @property
    def done(self) -> bool:
        """Enough orders were paid."""
        return len(self.paid) >= self.target


class Bank(httpx.AsyncClient):
    """The provider's pages and its control port, from outside the shop."""

    def __init__(self, url: str, key: str) -> None:
        super().__init__(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"},
            trust_env=False,
            timeout=30.0,
        )

    async def press_page(self, page: str, **form: str) -> bool:
        """A button of a hosted page; False if it is gone."""
        answer = await self.post(page, data=form)
        return answer.status_code < 400

    async def arm(self, kind: str, **values: object) -> None:
        """One more fault. Raises httpx.HTTPError."""
        answer = await self.post("/sandbox/faults", json={"kind": kind, "times": 10**6, **values})
        answer.raise_for_status()

    async def behave(self) -> None:
        """No faults any more."""
        (await self.delete("/sandbox/faults")).raise_for_status()

    async def dispute(self, **body: object) -> dict[str, Any]:
        """Open or close a chargeback. Raises httpx.HTTPError."""
        answer = await self.post("/sandbox/disputes", json=body)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found


class Buyer(Visitor):
    """Walks journeys until enough orders are paid. `after` is what follows a paid order."""

    def __init__(self, crowd: Crowd, memory: Memory, bank: Bank, after: Any, number: int) -> None:
        super().__init__(
            crowd.urls, crowd.show, crowd.token(f"buyer-{number}"), number, back_most_s=BACK_MOST_S
        )
        self.name = f"buyer-{number}"
        self._crowd = crowd
        self._memory = memory
        self._bank = bank
        self._after = after
        self._luck = random.Random(crowd.random.getrandbits(32))

    async def shop(self) -> None:
        """Journey after journey."""
        while not self._memory.done:
            await self.here.wait()
            drop = next(
                (
                    fact["id"]
                    for key, fact in self.room.facts.items()
                    if key.startswith("drop:") and fact["state"] == "open"
                ),
                "",
            )
            if not drop:
                await asyncio.sleep(0.1)
                continue
            with contextlib.suppress(*OUTAGES):
                await self._journey(drop)

    async def _journey(self, drop: str) -> None:
        count = self._memory.counts
        rid = new_rid(wall_ms(), self._luck)
        skus = self._luck.sample(self._crowd.skus, 1 + (self._luck.random() < 0.25))
        lines = [[sku, 1 + int(self._luck.random() * 2.2)] for sku in skus]
        try:
            await self.until_answered("buy", rid=rid, drop=drop, lines=lines)
        except Refused as refused:
            count[f"buy: {refused.code}"] += 1
            return
        fate = "pay"
        if not self._memory.plain:
            fate = self._luck.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        count[fate] += 1
        if fate == "lapse":
            return
        if fate == "cancel":
            await self._cancel(rid)
            return
        page = await self._page(rid)
        if not page or fate == "abandon":
            return
        if fate == "pay_and_cancel":
            await asyncio.gather(self._press(page, "pay"), self._cancel(rid))
            return
        if await self._press(page, fate):
            await self._told_paid(rid)

    async def _cancel(self, rid: str) -> None:
        with contextlib.suppress(Refused, TooLate):
            await self.until_answered("cancel", rid=rid)

    async def _page(self, rid: str) -> str:
        path = f"/api/v1/holds/{rid}/payment"
        for attempt in range(PAGE_TRIES):
            with contextlib.suppress(TooLate):
                try:
                    page = await self._crowd.ask(
                        "POST", path, DELIVERY, token=self.session.token, key=f"{rid}-{attempt}"
                    )
                except Refused as refused:
                    self._memory.counts[f"page: {refused.code}"] += 1
                    return ""
                return str(page["url"])
        self._memory.counts["page: no answer"] += 1
        return ""

    async def _press(self, page: str, fate: str) -> bool:
        press = self._bank.press_page
        if fate == "decline":
            await press(page, card=CARD_BAD)
            await asyncio.sleep(self._luck.uniform(0, 0.2))
        if fate == "bank_asks":
            await press(page, card=CARD_ASKS)
            return await press(page, action="approve")
        card = CARD_LATE if fate == "late" else CARD_GOOD
        if self._luck.random() < 0.1:  # a double click
            return any(await asyncio.gather(press(page, card=card), press(page, card=card)))
        return await press(page, card=card)

    async def _told_paid(self, rid: str) -> None:
        """Most come back from the page; the others hear of it if somebody tells them."""
        comes_back = self._memory.plain or self._luck.random() < 0.7
        pause_s = LOOK_S
        try:
            async with asyncio.timeout(PAID_S):
                while not (order := self._order(rid)):
                    if comes_back:
                        api = self._luck.choice(self._crowd.apis)
                        with contextlib.suppress(Refused, *OUTAGES):
                            await api.get(f"/api/v1/holds/{rid}", token=self.session.token)
                    with contextlib.suppress(TooLate):
                        await self.wait_for(
                            lambda: bool(self._order(rid)), what="paid", timeout_s=pause_s
                        )
                    pause_s *= 2
        except TimeoutError:
            self._memory.counts["paid: not told in time"] += 1
            return
        self._memory.paid[rid] = order
        if not self._memory.plain:
            await self._after(order, self.session.token, self._luck)

    def _order(self, rid: str) -> str:
        for order in self.session.orders.values():
            if order["rid"] == rid and order["state"] == "paid":
                return str(order["id"])
        return ""
