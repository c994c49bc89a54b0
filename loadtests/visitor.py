"""A shopper who does not leave: comes back to another node, and repeats what was not answered.

Responsible for the reconnect rule and for commands that must be answered once, as a page does it:
the same rid until there is a reply. It keeps what was answered, because that is a promise which
the drill can check afterwards.
"""

import asyncio
import contextlib
import random
from dataclasses import dataclass, field
from typing import Any, Final

from loadtests.client import BACKOFF_MOST_MS, backoff_ceiling_ms, new_rid, reconnects
from loadtests.refused import ConnectionLost, Refused, TooLate
from loadtests.shopper import LOST, Shopper, wall_ms

TRIES_MAX: Final = 60
PAUSE_S: Final = 0.1
ANSWER_S: Final = 5.0


@dataclass
class Answered:
    """What a visitor was promised."""

    comments: dict[int, str] = field(default_factory=dict)
    """Text by chat offset."""
    holds: dict[str, str] = field(default_factory=dict)
    """State by rid, as last answered."""


class Visitor(Shopper):
    """Stays in the show while `stay` runs. `urls` are the nodes.

    `back_most_s`: never wait longer than this before coming back (a page waits up to 20 s).
    """

    def __init__(
        self,
        urls: list[str],
        show: str,
        token: str,
        number: int,
        *,
        back_most_s: float = BACKOFF_MOST_MS / 1000,
    ) -> None:
        super().__init__(urls[number % len(urls)], show, token)
        self._addresses = [url.replace("http", "ws", 1) + "/live" for url in urls]
        self._next = number
        self._back_most_s = back_most_s
        self._chance = random.Random(number)
        self.answered = Answered()
        self.here = asyncio.Event()
        self.joins = self.recovered = self.goodbyes = self.repeats = 0
        self.failures: list[str] = []

    async def stay(self) -> None:
        """Until cancelled."""
        attempt = 0
        try:
            while True:
                self.address = self._addresses[self._next % len(self._addresses)]
                try:
                    reply = await self.join()
                except (ConnectionLost, TooLate, Refused, OSError, TimeoutError) as wrong:
                    if isinstance(wrong, Refused) and wrong.retry_after_ms is None:
                        raise
                    attempt += 1
                else:
                    attempt = 0
                    self.joins += 1
                    self.recovered += reply["recovered"]
                    self.here.set()
                    await self.wait_for(self._left, what="the end", timeout_s=3600)
                    self.here.clear()
                    if not reconnects(self.close_code or LOST):
                        raise ConnectionLost(self.close_code or LOST)
                self._next += 1
                await asyncio.sleep(self._wait_s(attempt))
        except (ConnectionLost, Refused) as wrong:
            self.failures.append(f"{type(wrong).__name__}: {wrong}")
        finally:
            self.here.clear()
            await self.close()

    def _left(self) -> bool:
        return self.close_code is not None

    def _wait_s(self, attempt: int) -> float:
        said = [value for name, value in self.session.directs if name == "goodbye"]
        self.session.directs.clear()
        if said:
            self.goodbyes += 1
            return float(said[-1]["after_ms"]) / 1000
        most_s = min(backoff_ceiling_ms(attempt) / 1000, self._back_most_s)
        return self._chance.uniform(0, most_s)

    async def until_answered(self, name: str, **params: Any) -> Any:
        """The reply, over as many connections as it takes. Raises `Refused`, `TooLate`."""
        for _ in range(TRIES_MAX):
            await self.here.wait()
            try:
                return await self.command(name, timeout_s=ANSWER_S, **params)
            except (ConnectionLost, TooLate):
                self.repeats += 1
                if name == "buy":
                    params["retry"] = True
            except Refused as refused:
                if refused.retry_after_ms is None:
                    raise
                await asyncio.sleep(refused.retry_after_ms / 1000)
            await asyncio.sleep(PAUSE_S)
        raise TooLate(f"{name} was never answered")

    async def chat(self, every_s: float) -> None:
        """Speak until cancelled."""
        number = 0
        while True:
            number += 1
            text = f"{self.session.you.get('id', '')} says {number}"
            rid = new_rid(wall_ms(), self._chance)
            await self._said(text, rid)
            await asyncio.sleep(self._chance.uniform(0.5, 1.5) * every_s)

    async def _said(self, text: str, rid: str) -> None:
        try:
            reply = await self.until_answered("comment", text=text, rid=rid)
            self.answered.comments[reply["offset"]] = text
        except (Refused, TooLate) as wrong:
            self.failures.append(f"comment: {wrong}")

    async def press(self, drop: str, sku: str, every_s: float) -> None:
        """Buy one unit again and again until cancelled, and give back the one before."""
        before = ""
        while True:
            rid = new_rid(wall_ms(), self._chance)
            await self._bought(drop, sku, rid)
            if before in self.answered.holds:
                await self._given_back(before)
            before = rid
            await asyncio.sleep(self._chance.uniform(0.5, 1.5) * every_s)

    async def _given_back(self, rid: str) -> None:
        # Until there is an answer either state is right.
        held = self.answered.holds.pop(rid)
        try:
            self.answered.holds[rid] = (await self.until_answered("cancel", rid=rid))["state"]
        except (Refused, TooLate) as wrong:
            self.answered.holds[rid] = held
            self.failures.append(f"cancel: {wrong}")

    async def _bought(self, drop: str, sku: str, rid: str) -> None:
        try:
            hold = await self.until_answered("buy", rid=rid, drop=drop, lines=[[sku, 1]])
            self.answered.holds[rid] = hold["state"]
        except (Refused, TooLate) as wrong:
            self.failures.append(f"buy: {wrong}")

    async def wait_here(self, within_s: float) -> bool:
        """Whether it is in the room, in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self.here.wait()
        return self.here.is_set()
