"""What a shop does with a paid order, at random: cancel, refund, ship, deliver, take back, dispute.

Responsible for the host's and the buyer's calls after the payment and for repeating a fifth of them
under the same key. It must not know what is killed. A call that is never answered is not sent again
under another key: that would be another wish.
"""

import asyncio
import random
from typing import Any, Final

from loadtests.kill_shoppers import OUTAGES, Crowd
from loadtests.money_shoppers import TWICE_SHARE, Bank, Memory
from loadtests.refused import Refused

WEIGHTS: Final = {
    "keep": 30,
    "cancel": 12,
    "cancel_part": 8,
    "refund_amount": 10,
    "refund_units": 8,
    "wish": 10,
    "ship_part": 10,
    "return": 9,
    "dispute": 3,
}
"""What becomes of a paid order, in shares."""
CHANGES: Final = frozenset({"updated_at"})


class Desk:
    """The host, and buyers with a wish. `intents` finds the provider's name of an order's money."""

    def __init__(self, crowd: Crowd, memory: Memory, bank: Bank, host: str, intents: Any) -> None:
        self._crowd = crowd
        self._memory = memory
        self._bank = bank
        self._host = host
        self._intents = intents
        self._number = 0

    async def after(self, order: str, buyer: str, luck: random.Random) -> None:
        """One fate."""
        fate = luck.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        self._memory.counts[f"then {fate}"] += 1
        steps = {
            "cancel": self._cancel,
            "cancel_part": self._cancel_part,
            "refund_amount": self._refund_amount,
            "refund_units": self._refund_units,
            "wish": self._wish,
            "ship_part": self._ship_part,
            "return": self._return,
            "dispute": self._dispute,
        }
        if fate not in steps:
            return
        try:
            await steps[fate](order, buyer, luck)
        except Refused as refused:
            self._memory.counts[f"{fate}: {refused.code}"] += 1
        except OUTAGES:
            self._memory.counts[f"{fate}: no answer"] += 1

    async def _do(
        self, path: str, body: dict[str, Any] | None, luck: random.Random, *, token: str = ""
    ) -> dict[str, Any]:
        """One call with a key; perhaps twice, and then the answers must be the same."""
        self._number += 1
        key, token = f"desk-{self._number}", token or self._host
        answer = await self._crowd.ask("POST", path, body, token=token, key=key)
        if luck.random() < TWICE_SHARE:
            again = await self._crowd.ask("POST", path, body, token=token, key=key)
            if again != answer:
                self._memory.failures.append(f"{path}: a repetition was answered otherwise")
        found: dict[str, Any] = answer
        told = self._memory.told.setdefault(found["order"]["id"], set())
        told |= {one["id"] for one in found["refunds"]}
        return found

    def _order(self, order: str) -> str:
        return f"/api/v1/orders/{order}"

    async def _look(self, order: str) -> dict[str, Any]:
        for api in [*self._crowd.apis] * 20:
            try:
                found: dict[str, Any] = await api.get(self._order(order), token=self._host)
                return found
            except OUTAGES:
                await asyncio.sleep(0.2)
            except Refused as refused:
                if refused.retry_after_ms is None:
                    raise
                await asyncio.sleep(0.3)
        raise TimeoutError

    async def _cancel(self, order: str, buyer: str, luck: random.Random) -> None:
        body = {"goods": luck.choice(("restock", "write_off")), "reason": "drill"}
        by = luck.choice((self._host, buyer))
        await self._do(f"{self._order(order)}/cancel", body, luck, token=by)

    async def _cancel_part(self, order: str, _buyer: str, luck: random.Random) -> None:
        body = {"units": [{"position": 0, "quantity": 1}], "goods": "restock"}
        await self._do(f"{self._order(order)}/cancel", body, luck)

    async def _refund_amount(self, order: str, _buyer: str, luck: random.Random) -> None:
        for _ in range(luck.randint(1, 3)):
            body = {"amount": luck.randint(50, 400), "reason": "drill"}
            await self._do(f"{self._order(order)}/refunds", body, luck)

    async def _refund_units(self, order: str, _buyer: str, luck: random.Random) -> None:
        body = {"units": [{"position": 0, "quantity": 1}]}
        await self._do(f"{self._order(order)}/refunds", body, luck)
        if luck.random() < 0.5:
            await self._do(f"{self._order(order)}/refunds", {}, luck)

    async def _wish(self, order: str, buyer: str, luck: random.Random) -> None:
        path = f"{self._order(order)}/refunds"
        made = await self._do(path, {"amount": luck.randint(50, 300)}, luck, token=buyer)
        wish = next((one["id"] for one in made["refunds"] if one["state"] == "asked"), "")
        if wish:
            verdict = luck.choice(("approve", "approve", "reject"))
            await self._do(f"/api/v1/refunds/{wish}/{verdict}", None, luck)

    async def _ship_part(self, order: str, _buyer: str, luck: random.Random) -> None:
        body = {"carrier": "Post", "units": [{"position": 0, "quantity": 1}]}
        made = await self._do(f"{self._order(order)}/shipments", body, luck)
        if luck.random() < 0.5 and made["cancellable"]:
            await self._do(f"{self._order(order)}/cancel", {"goods": "restock"}, luck)
        for parcel in made["shipments"]:
            end = luck.choice(("deliver", "deliver", "lose"))
            await self._do(f"/api/v1/shipments/{parcel['id']}/{end}", None, luck)

    async def _return(self, order: str, buyer: str, luck: random.Random) -> None:
        made = await self._do(f"{self._order(order)}/shipments", {"carrier": "Post"}, luck)
        parcel = made["shipments"][0]["id"]
        await self._do(f"/api/v1/shipments/{parcel}/deliver", None, luck)
        body = {"units": [{"position": 0, "quantity": 1}]}
        made = await self._do(f"{self._order(order)}/returns", body, luck, token=buyer)
        case = made["returns"][0]["id"]
        await self._do(f"/api/v1/returns/{case}/approve", None, luck)
        goods = {"goods": luck.choice(("restock", "write_off")), "refund": luck.random() < 0.8}
        await self._do(f"/api/v1/returns/{case}/receive", goods, luck)

    async def _dispute(self, order: str, _buyer: str, luck: random.Random) -> None:
        rid = (await self._look(order))["order"]["rid"]
        made = await self._bank.dispute(intent=self._intents(rid))
        if luck.random() < 0.7:
            await asyncio.sleep(luck.uniform(0, 1.0))
            verdict = luck.choice(("won", "lost"))
            await self._bank.dispute(dispute=made["id"], status=verdict)
