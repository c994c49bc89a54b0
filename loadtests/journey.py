"""`journey`: one small show from end to end, as a synthetic check that an operator may run any day.

A host signs in, imports a product with 3 units, opens a hidden show and sells it to 5 viewers: 3
win, 2 hear "sold out"; of the 3 one pays, one cancels, one lets the hold lapse. The counter that
every viewer saw must be right at each step, and a viewer who was cut off in the middle must end
with the same room as the others. Nothing is left open or buyable afterwards.

It goes over HTTP and the wire only, and presses the pay button only on a page that calls itself a
sandbox: with a real provider the hold is given back instead, and the result says "skipped".
"""

import argparse
import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from loadtests.api import Api
from loadtests.client import new_rid
from loadtests.refused import Refused
from loadtests.shopper import Host, Shopper, wall_ms
from loadtests.stage import Stage, oversold
from loadtests.steps import FAILURES, StepFailed, Steps
from loadtests.target import NoHost, Target, open_target

VIEWERS: Final = 5
UNITS: Final = 3
COUNTDOWN_S: Final = 1
HOLD_S: Final = 6
"""Long enough to pay and to cancel in, short enough to wait for."""
LATE_MS_MAX: Final = 2_000
"""A lapsed hold is sellable again within a second; the second one is for a busy machine."""
DELIVERY: Final = {
    "name": "Synthetic Check",
    "email": "check@example.com",
    "phone": "+1 555 0100",
    "address": {
        "line1": "1 Test Street",
        "city": "Testville",
        "postcode": "10115",
        "country": "DE",
    },
}


def options(parser: argparse.ArgumentParser) -> None:
    """Options beside the common ones."""
    parser.add_argument("--hold-s", type=int, default=HOLD_S, help="length of a hold, 5 or more")
    parser.add_argument(
        "--also", action="append", default=[], metavar="URL", help="another node of that house"
    )


def main(options_: argparse.Namespace) -> dict[str, Any]:
    """Run it; the result."""
    with open_target(options_) as target:
        return asyncio.run(_run(target, options_))


async def _run(target: Target, options_: argparse.Namespace) -> dict[str, Any]:
    async with Api(target.url) as api:
        journey = Journey(
            api, target, also=options_.also, hold_s=options_.hold_s, quiet=options_.quiet
        )
        return await journey.run()


class Journey:
    """One run. Its steps are its public methods, in the order of `run`."""

    def __init__(
        self, api: Api, target: Target, *, also: Sequence[str] = (), hold_s: int, quiet: bool
    ) -> None:
        self.steps = Steps(quiet=quiet)
        self._api = api
        self._target = target
        self._nodes = [target.url, *(url.rstrip("/") for url in also)]
        self._hold_s = hold_s
        self._random = random.Random()
        self._stage = Stage(api, UNITS)
        self._host: Host | None = None
        self._viewers: list[Shopper] = []
        self._cut: Shopper | None = None
        self._seen: dict[Shopper, list[int]] = {}
        """Stock that each viewer showed, change by change."""
        self._holds: dict[Shopper, str] = {}
        self._losers: list[Shopper] = []
        self._left = UNITS
        self._facts: dict[str, Any] = {
            "oversold": None,
            "paid": "no",
            "recovered": None,
            "expired_late_ms": None,
        }

    async def run(self) -> dict[str, Any]:
        """All steps; the result."""
        story: Sequence[Callable[[], Any]] = (
            self.sign_in, self.import_csv, self.create_show, self.go_live, self.join, self.pin,
            self.chat, self.open_drop, self.buy, self.pay, self.cut_off, self.cancel, self.expire,
            self.come_back, self.end,
        )  # fmt: skip
        try:
            with contextlib.suppress(StepFailed):
                for chapter in story:
                    with self.steps.step(chapter.__name__):
                        await chapter()
        except NoHost as error:
            self.steps.wrong(str(error))
        finally:
            with contextlib.suppress(StepFailed), self.steps.step("tidy"):
                await self._tidy()
        return self.steps.result(
            viewers=VIEWERS,
            units=UNITS,
            show=self._stage.show,
            **self._facts,
        )

    async def sign_in(self) -> None:
        self._api.token = await self._target.host_token(self._api)
        me = await self._api.get("/api/v1/me")
        self.steps.check(me["role"] in {"host", "operator"}, f"signed in as {me['role']}")

    async def import_csv(self) -> None:
        await self._stage.import_product()

    async def create_show(self) -> None:
        await self._stage.create_show()
        listed = await self._api.get("/api/v1/shows", token="")
        hidden = self._stage.show not in {show["id"] for show in listed["shows"]}
        self.steps.check(hidden, "a hidden show is listed")

    async def go_live(self) -> None:
        self._host = Host(self._target.url, self._stage.show, self._api.token)
        await self._host.join()
        await self._host.take_console()
        await self._host.act("go_live")
        await self._all_see(lambda one: _state(one, "show") == "live", "the show is live")

    async def join(self) -> None:
        self._viewers = await asyncio.gather(*(self._viewer(n) for n in range(VIEWERS)))
        await self._all_see(lambda one: _state(one, "show") == "live", "the show is live")

    async def _viewer(self, number: int) -> Shopper:
        token = await self._api.guest(f"Check {number + 1}")
        seen: list[int] = []

        def note(key: str, _version: int, value: Any) -> None:
            if key == f"stock:{self._stage.sku}":
                seen.append(value)

        node = self._nodes[number % len(self._nodes)]
        viewer = Shopper(node, self._stage.show, token, on_change=note)
        self._seen[viewer] = seen
        await viewer.join()
        return viewer

    async def pin(self) -> None:
        assert self._host is not None
        await self._host.act("pin_product", product=self._stage.product)
        await self._all_see(
            lambda one: (one.room.facts.get("pin") or {}).get("product") == self._stage.product,
            "the pinned product",
        )
        await self._counter_is(UNITS)

    async def chat(self) -> None:
        said = {f"hello from {n}": viewer for n, viewer in enumerate(self._viewers)}
        await asyncio.gather(*(viewer.comment(text) for text, viewer in said.items()))
        await self._all_see(lambda one: said.keys() <= set(_texts(one)), "every comment")
        for viewer in self._viewers:
            once = sorted(text for text in _texts(viewer) if text in said) == sorted(said)
            self.steps.check(once, "a comment was shown twice")

    async def open_drop(self) -> None:
        assert self._host is not None
        await self._stage.open_drop(
            self._host, countdown_s=COUNTDOWN_S, hold_s=self._hold_s, per_viewer=1
        )
        await self._all_see(lambda one: _state(one, self._fact) == "open", "the open drop")
        await self._counter_is(UNITS)

    @property
    def _fact(self) -> str:
        return f"drop:{self._stage.drop}"

    async def buy(self) -> None:
        outcomes = await asyncio.gather(*(self._press(viewer) for viewer in self._viewers))
        heard = sorted(outcomes)
        expected = ["held"] * UNITS + ["sold_out"] * (VIEWERS - UNITS)
        self.steps.check(heard == expected, f"{VIEWERS} presses were answered {heard}")
        self._left = UNITS - len(self._holds)
        await self._counter_is(self._left)
        await self._all_see(lambda one: _state(one, self._fact) == "sold_out", "sold out")
        for viewer, rid in self._holds.items():
            again = await viewer.buy(self._stage.drop, [(self._stage.sku, 1)], rid=rid, retry=True)
            first = viewer.session.holds[rid]
            self.steps.check(again["receipt"] == first["receipt"], "a repeated press won again")

    async def _press(self, viewer: Shopper) -> str:
        try:
            hold = await viewer.buy(self._stage.drop, [(self._stage.sku, 1)])
        except Refused as refused:
            self._losers.append(viewer)
            return refused.code
        self._holds[viewer] = hold["rid"]
        return str(hold["state"])

    def _winner(self, number: int) -> tuple[Shopper, str]:
        winners = list(self._holds.items())
        if len(winners) <= number:
            self.steps.stop("the story needs three winners")
        return winners[number]

    async def pay(self) -> None:
        assert self._host is not None
        viewer, rid = self._winner(0)
        page = await self._api.call(
            "POST",
            f"/api/v1/holds/{rid}/payment",
            DELIVERY,
            token=viewer.session.token,
            key=new_rid(wall_ms(), self._random),
        )
        form = await self._api.payment_form(page["url"])
        if not form.sandbox:
            self._facts["paid"] = "skipped"
            await self._give_back(viewer, rid)
            return
        await self._api.press(form)
        await viewer.wait_for(
            lambda: viewer.session.holds[rid]["state"] == "sold", what="the hold is sold"
        )
        await viewer.wait_for(
            lambda: any(
                order["rid"] == rid and order["state"] == "paid"
                for order in viewer.session.orders.values()
            ),
            what="the paid order",
        )
        await self._host.wait_for(
            lambda: any(
                name == "sale" and value["order"]["rid"] == rid
                for name, value in self._host.session.directs  # type: ignore[union-attr]
            ),
            what="the host hears of the sale",
        )
        self._facts["paid"] = "paid"
        await self._counter_is(self._left)

    async def cut_off(self) -> None:
        if not self._losers:
            self.steps.stop("the story needs a viewer who did not win")
        self._cut = self._losers[0]
        await self._cut.cut()

    async def cancel(self) -> None:
        viewer, rid = self._winner(1)
        await self._give_back(viewer, rid)
        await viewer.comment("not for me after all")

    async def _give_back(self, viewer: Shopper, rid: str) -> None:
        await viewer.command("cancel", rid=rid)
        await viewer.wait_for(
            lambda: viewer.session.holds[rid]["state"] == "cancelled", what="the hold is cancelled"
        )
        await self._unit_comes_back()

    async def _unit_comes_back(self) -> None:
        self._left += 1
        await self._counter_is(self._left)
        await self._all_see(lambda one: _state(one, self._fact) == "open", "the drop is open again")

    async def expire(self) -> None:
        assert self._host is not None
        viewer, rid = self._winner(2)
        offset_ms = (await viewer.command("ping"))["now_ms"] - wall_ms()
        until_ms = viewer.session.holds[rid]["until_ms"]
        await viewer.wait_for(
            lambda: viewer.session.holds[rid]["state"] == "expired",
            what="the hold lapses",
            timeout_s=self._hold_s + 10,
        )
        await self._unit_comes_back()
        late_ms = wall_ms() + offset_ms - until_ms
        self._facts["expired_late_ms"] = late_ms
        self.steps.check(late_ms <= LATE_MS_MAX, f"the unit came back {late_ms} ms late")
        self.steps.check(late_ms >= 0, f"the hold lapsed {-late_ms} ms early")
        await self._host.act("announce", text="nearly over")

    async def come_back(self) -> None:
        assert self._cut is not None
        joined = await self._cut.join()
        self._facts["recovered"] = joined["recovered"]
        await self._same_rooms()

    async def end(self) -> None:
        assert self._host is not None
        await self._host.act("close_drop", drop=self._stage.drop)
        await self._host.act("adjust_stock", sku=self._stage.sku, delta=-self._left)
        self._left = 0
        await self._counter_is(0)
        await self._host.act("end")
        await self._all_see(lambda one: _state(one, "show") == "ended", "the show has ended")
        await self._all_see(
            lambda one: _state(one, self._fact) in {None, "closed"}, "the drop is closed"
        )
        await self._same_rooms()
        self._check_books()
        for viewer in self._viewers:
            open_ = await self._api.get("/api/v1/holds", token=viewer.session.token)
            self.steps.check(not open_["holds"], "a hold is still open")
        stock = await self._stage.stock()
        sold = 1 if self._facts["paid"] == "paid" else 0
        numbers = [stock[name] for name in ("on_hand", "held", "committed")]
        self.steps.check(numbers == [sold, 0, sold], f"the books say {stock}")

    def _check_books(self) -> None:
        """Each viewer got everything once, and saw the stock fall, then rise, and nothing else."""
        for viewer in self._viewers:
            room = viewer.room
            books = (room.missing_control, room.missing_comments, room.duplicates)
            self.steps.check(books == (0, 0, 0), f"missing, missing, twice: {books}")
            seen = self._seen[viewer]
            lowest = seen.index(min(seen)) if seen else 0
            # The last value is the host taking the unsold units away.
            falls, rises = seen[: lowest + 1], seen[lowest:-1]
            lawful = (
                falls == sorted(falls, reverse=True)
                and rises == sorted(rises)
                and all(0 <= value <= UNITS for value in seen)
            )
            self.steps.check(lawful, f"a viewer saw the stock as {seen}")

    async def _tidy(self) -> None:
        """Leave nothing open, whatever happened, and count what was promised."""
        ended = self._host is None or _state(self._host, "show") == "ended"
        if self._host is not None and not ended:
            with contextlib.suppress(*FAILURES):
                await self._host.act("end")
        everybody = [*self._viewers, *([self._host] if self._host is not None else [])]
        await asyncio.gather(*(one.close() for one in everybody))
        if self._stage.product:
            self._facts["oversold"] = oversold(await self._stage.stock())
            self.steps.check(self._facts["oversold"] == 0, "more was promised than there is")

    def _connected(self) -> list[Shopper]:
        watching: list[Shopper] = [viewer for viewer in self._viewers if viewer.close_code is None]
        return [*watching, *([self._host] if self._host is not None else [])]

    async def _all_see(self, true: Callable[[Shopper], bool], what: str) -> None:
        for one in self._connected():
            await one.wait_for(lambda one=one: true(one), what=what)  # type: ignore[misc]

    async def _counter_is(self, left: int) -> None:
        key = f"stock:{self._stage.sku}"
        await self._all_see(lambda one: one.room.value(key) == left, f"{left} left")

    async def _same_rooms(self) -> None:
        """Everybody ends with the same room; the number of viewers may lag behind."""
        reference = self._viewers[-1]
        for viewer in self._connected():
            await viewer.wait_for(
                lambda viewer=viewer: _picture(viewer) == _picture(reference),  # type: ignore[misc]
                what="the same room as everybody",
            )


def _state(one: Shopper, key: str) -> str | None:
    fact = one.room.facts.get(key)
    return None if fact is None else str(fact["state"])


def _texts(one: Shopper) -> list[str]:
    return [comment["text"] for _, comment in one.room.comments]


def _picture(one: Shopper) -> dict[str, Any]:
    picture = one.room.picture()
    picture["states"].pop("viewers", None)
    return picture
