"""The crowd of the kill drill: buyers who keep every answer they heard, and a host who sells.

Responsible for behaving as a page does (the same press until it is decided, whatever dies) and for
a memory that is no part of the server: who was told what. What is told is a promise, and
`kill_truth` holds the record to it. It must not know what is killed, nor look into an engine.

A buyer presses, and then cancels, pays at the sandbox, opens the payment page and leaves it, or
lets the hold lapse. Some walk away in the middle of a press and never ask again: their units must
come back by themselves. Some join the wait list instead of pressing; what they are offered they
treat like any other hold.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from typing_extensions import override

from loadtests.api import Api
from loadtests.client import new_rid
from loadtests.journey import DELIVERY
from loadtests.refused import ConnectionLost, Refused, TooLate
from loadtests.shopper import Host, wall_ms
from loadtests.visitor import Visitor

BACK_MOST_S: Final = 1.0
"""A page would wait up to 20 s after a few failures; minutes of the drill would be waiting."""
BETWEEN_S: Final = (0.1, 0.6)
HOLD_S: Final = (5, 7)
OPEN_S: Final = (6, 14)
OPEN_CALM_S: Final = 120
TRIES_MAX: Final = 200
AGAIN_S: Final = 0.15
RUNNING_MAX: Final = 3
"""Answers "in progress" after which a request is left alone: its node died in the middle, and the
key is taken for 90 s."""
PAGE_TRIES: Final = 3
HEAR_S: Final = 8.0
WAIT_SHARE: Final = 0.2
OFFER_S: Final = 4.0
STOCK_LOW: Final = 6
STOCK_MORE: Final = 12
OUTAGES: Final = (ConnectionLost, TooLate, OSError, TimeoutError, httpx.HTTPError)


@dataclass
class Press:
    """One press of Buy, as its viewer remembers it."""

    rid: str
    viewer: str
    lines: list[tuple[str, int]]
    heard: list[tuple[int, str, str]] = field(default_factory=list)
    """(ms since 1970, what was asked, what was answered), oldest first."""
    hold: dict[str, Any] | None = None
    """The first hold that was answered or, of an offer, pushed."""
    told: set[str] = field(default_factory=set)
    """Final states, and `paid`, that the viewer was told."""
    wanted_cancel: bool = False
    waited: str = ""
    """The last state of its entry in a wait list that was answered; "" for who pressed."""

    def hear(self, asked: str, answer: str) -> None:
        """Remember an answer, or that none came."""
        self.heard.append((wall_ms(), asked, answer))


@dataclass
class Adjustment:
    """What the host asked of a SKU, and whether it was answered."""

    sku: str
    key: str
    delta: int
    answered: bool = False


@dataclass
class Crowd:
    """Everything the drill's people share and remember."""

    urls: list[str]
    show: str
    skus: list[str]
    token: Callable[..., str]
    random: random.Random
    on_win: Callable[[str, float], None]
    """A press that was sent to this address at this instant (monotonic, s) has won."""
    apis: list[Api] = field(default_factory=list)
    presses: dict[str, Press] = field(default_factory=dict)
    adjustments: list[Adjustment] = field(default_factory=list)
    pressing: bool = True
    calm: bool = False
    """No new drops: what a rebuild would sweep away is left to the upkeep."""

    async def ask(self, method: str, path: str, body: Any, *, token: str, key: str) -> Any:
        """HTTP at one node after the other until it answers. Raises `Refused`, `TooLate`."""
        first = self.random.randrange(len(self.apis))
        running = 0
        for attempt in range(TRIES_MAX):
            api = self.apis[(first + attempt) % len(self.apis)]
            try:
                return await api.call(method, path, body, token=token, key=key)
            except httpx.HTTPError:
                await asyncio.sleep(AGAIN_S)
            except Refused as refused:
                if refused.retry_after_ms is None and not refused.code.startswith("http_5"):
                    raise
                running += refused.code == "key_in_progress"
                if running == RUNNING_MAX:
                    break
                await asyncio.sleep((refused.retry_after_ms or 300) / 1000)
        raise TooLate(f"{method} {path} was never answered")


class Buyer(Visitor):
    """Buys for as long as the crowd is pressing."""

    def __init__(self, crowd: Crowd, number: int) -> None:
        super().__init__(
            crowd.urls,
            crowd.show,
            crowd.token(f"buyer-{number}"),
            number,
            back_most_s=BACK_MOST_S,
        )
        self.name = f"buyer-{number}"
        self._crowd = crowd
        self._luck = random.Random(crowd.random.getrandbits(32))
        self.held = self.refused = 0

    @override
    async def command(self, name: str, /, timeout_s: float = 10.0, **params: Any) -> Any:
        """As `Shopper.command`; every try of a press is remembered."""
        press = self._crowd.presses.get(str(params.get("rid")))
        if press is None:
            return await super().command(name, timeout_s, **params)
        address, asked_at = self.address, time.monotonic()
        try:
            answer = await super().command(name, timeout_s, **params)
        except (Refused, ConnectionLost, TooLate) as wrong:
            press.hear(name, str(wrong))
            raise
        press.hear(name, f"{answer['state']} {answer.get('until_ms', '')}".strip())
        if name in ("wait", "stop_waiting"):
            press.waited = str(answer["state"])
        if name == "buy":
            self._crowd.on_win(address, asked_at)
        return answer

    async def shop(self) -> None:
        """Press after press."""
        while self._crowd.pressing:
            await self.here.wait()
            drop = self._luck.choice(self._drops() or [""])
            if drop:
                await self._one(drop)
            await asyncio.sleep(self._luck.uniform(*BETWEEN_S))

    def _drops(self) -> list[str]:
        """What this viewer's page shows as on sale."""
        return [
            fact["id"]
            for key, fact in self.room.facts.items()
            if key.startswith("drop:") and fact["state"] in ("open", "sold_out")
        ]

    async def _one(self, drop: str) -> None:
        fact = self.room.facts[f"drop:{drop}"]
        skus = [line["sku"] for line in fact["lines"]]
        chosen = self._luck.sample(skus, min(len(skus), 1 + (self._luck.random() < 0.3)))
        lines = [(sku, 1 + (self._luck.random() < 0.2)) for sku in chosen]
        press = Press(new_rid(wall_ms(), self._luck), self.name, lines)
        self._crowd.presses[press.rid] = press
        params = {"rid": press.rid, "drop": drop, "lines": [list(line) for line in lines]}
        if self._luck.random() < 0.15:
            await self._walk_away(press, params)
            return
        if self._luck.random() < WAIT_SHARE:
            await self._wait(press, drop)
            return
        try:
            press.hold = await self.until_answered("buy", **params)
        except Refused:
            self.refused += 1
            return
        except TooLate:
            press.hear("buy", "given up")
            return
        self.held += 1
        await self._decide(press)

    async def _wait(self, press: Press, drop: str) -> None:
        """In the list for the first of them; some leave, others take what they are offered."""
        sku, quantity = press.lines[0]
        press.lines = press.lines[:1]
        try:
            await self.until_answered("wait", rid=press.rid, drop=drop, sku=sku, quantity=quantity)
            if self._luck.random() < 0.3:
                await self.until_answered("stop_waiting", rid=press.rid)
            with contextlib.suppress(TooLate):
                await self.wait_for(
                    lambda: press.rid in self.session.holds, what="an offer", timeout_s=OFFER_S
                )
        except Refused:
            self.refused += 1
            return
        except (ConnectionLost, TooLate):
            press.hear("wait", "given up")
            return
        if press.rid in self.session.holds:
            press.hold = dict(self.session.holds[press.rid])
            self.held += 1
            await self._decide(press)

    async def _walk_away(self, press: Press, params: dict[str, Any]) -> None:
        """The tunnel, in the middle of a press; and no second thought."""
        asking = asyncio.create_task(self.command("buy", **params))
        await asyncio.sleep(self._luck.uniform(0, 0.03))
        await self.cut()
        answers = await asyncio.gather(asking, return_exceptions=True)
        if isinstance(answers[0], dict):
            press.hold = answers[0]
            self.held += 1
        elif not isinstance(answers[0], (Refused, ConnectionLost, TooLate)):
            raise answers[0]

    async def _decide(self, press: Press) -> None:
        fate = self._luck.random()
        if fate < 0.4:
            await self._cancel(press)
        elif fate < 0.75:
            with contextlib.suppress(*OUTAGES):
                await self._pay(press, leave=fate > 0.65)

    async def _cancel(self, press: Press) -> None:
        press.wanted_cancel = True
        try:
            answer = await self.until_answered("cancel", rid=press.rid)
        except (Refused, TooLate):
            return
        if answer["state"] == "cancelled":
            press.told.add("cancelled")

    async def _pay(self, press: Press, *, leave: bool) -> None:
        try:
            page = await self._page(press)
        except Refused as refused:
            press.hear("payment", refused.code)
            return
        press.hear("payment", "page")
        if leave:
            if self._luck.random() < 0.3:
                await self._cancel(press)
            return
        await asyncio.sleep(self._luck.uniform(0, 1.0))
        api = self._crowd.apis[0]
        await api.press(await api.payment_form(page["url"]))
        press.hear("page", "paid")
        with contextlib.suppress(TooLate):
            await self.wait_for(lambda: self._is_paid(press.rid), what="paid", timeout_s=HEAR_S)

    async def _page(self, press: Press) -> dict[str, Any]:
        path = f"/api/v1/holds/{press.rid}/payment"
        for attempt in range(PAGE_TRIES):
            key = f"pay-{press.rid}-{attempt}"
            with contextlib.suppress(TooLate):
                page: dict[str, Any] = await self._crowd.ask(
                    "POST", path, DELIVERY, token=self.session.token, key=key
                )
                return page
            press.hear("payment", "no answer")
        raise TooLate("no payment page")

    def _is_paid(self, rid: str) -> bool:
        return any(
            order["rid"] == rid and order["state"] == "paid"
            for order in self.session.orders.values()
        )

    def collect(self) -> None:
        """What was pushed to this viewer becomes part of what it was told."""
        for rid, hold in self.session.holds.items():
            if rid in self._crowd.presses and hold["state"] in ("sold", "expired", "cancelled"):
                self._crowd.presses[rid].told.add(str(hold["state"]))
        for order in self.session.orders.values():
            if order["rid"] in self._crowd.presses:
                self._crowd.presses[order["rid"]].told |= {"sold"} | (
                    {"paid"} if order["state"] == "paid" else set()
                )


class Desk:
    """The host: opens drops over the wire, moves stock over HTTP."""

    def __init__(self, crowd: Crowd, token: str) -> None:
        self._crowd = crowd
        self._token = token
        self._luck = random.Random(crowd.random.getrandbits(32))
        self.opened = 0

    async def sell(self) -> None:
        """Keeps drops open, for as long as the crowd is pressing."""
        while self._crowd.pressing:
            with contextlib.suppress(Refused, *OUTAGES):
                await self.open_what_is_free()
            await asyncio.sleep(0.5)

    async def open_what_is_free(self) -> None:
        """One more drop, of SKUs that are in none. Raises as a console does."""
        url = self._luck.choice(self._crowd.urls)
        host = Host(url, self._crowd.show, self._token)
        async with contextlib.aclosing(host):
            await host.join()
            busy: set[str] = set()
            for key, fact in host.room.facts.items():
                if key.startswith("drop:") and fact["state"] != "closed":
                    busy |= {line["sku"] for line in fact["lines"]}
            free = [sku for sku in self._crowd.skus if sku not in busy]
            if not free:
                return
            chosen = free if self._crowd.calm else self._luck.sample(free, min(2, len(free)))
            open_s = OPEN_CALM_S if self._crowd.calm else self._luck.randint(*OPEN_S)
            await host.take_console()
            await host.act(
                "open_drop",
                lines=[{"sku": sku} for sku in chosen],
                hold_s=self._luck.randint(*HOLD_S),
                open_s=open_s,
                per_viewer=9,
            )
            self.opened += 1

    async def restock(self) -> None:
        """Gives and takes units, each change once."""
        while self._crowd.pressing:
            sku = self._luck.choice(self._crowd.skus)
            with contextlib.suppress(Refused, *OUTAGES):
                row = await self._row(sku)
                if row["available"] < STOCK_LOW:
                    await self._adjust(sku, STOCK_MORE)
                elif self._luck.random() < 0.3:
                    await self._adjust(sku, -self._luck.randint(1, 3))
            await asyncio.sleep(0.25)

    async def _row(self, sku: str) -> dict[str, Any]:
        api = self._luck.choice(self._crowd.apis)
        row: dict[str, Any] = await api.get(f"/api/v1/stock/{sku}", token=self._token)
        return row

    async def _adjust(self, sku: str, delta: int) -> None:
        change = Adjustment(sku, new_rid(wall_ms(), self._luck), delta)
        self._crowd.adjustments.append(change)
        try:
            await self._crowd.ask(
                "POST",
                f"/api/v1/stock/{sku}/adjustments",
                {"delta": delta},
                token=self._token,
                key=change.key,
            )
        except Refused:
            self._crowd.adjustments.remove(change)
            return
        change.answered = True
