"""What a host may do from the console: run the show, pin, announce, sell, adjust stock, retract.

Responsible for host commands. Each is "change the record, then show the record" (`stage.refresh`),
carried out once and only for the newest console (`shows_sql.action`). It must not publish facts of
its own, except the retraction of a comment, which is not a fact of the record but of the chat.
"""

from collections.abc import Callable
from typing import Any, Final

from commerce.catalog import Catalog
from commerce.checkout import Checkout
from commerce.raffle import commitment
from commerce.stock import Drop, DropLine, Raffle
from live.chat import announcement_text, clean
from live.codes import refuse
from live.identity import Identity
from live.messages import (
    HOST_COMMANDS,
    AdjustStock,
    Announce,
    CancelDrain,
    CloseDrop,
    Fenced,
    OpenDrop,
    PinProduct,
    Retract,
    SetStock,
    TakeConsole,
    read,
)
from live.shows import Shows, moved, on_air, running
from live.stage import Stage
from realtime.broker import Control, Direct
from realtime.connection import Connection
from realtime.hub import Hub

DROPS_OPEN_MAX: Final = 20
"""Open drops of one show: each is a fact in every snapshot."""


class Console:
    """Host commands of all shows on this node. `clock` in milliseconds; `new_id` makes ids,
    `new_seed` 32 bytes as hex that nobody can guess.
    """

    def __init__(
        self,
        *,
        hub: Hub,
        stage: Stage,
        shows: Shows,
        catalog: Catalog,
        checkout: Checkout,
        clock: Callable[[], int],
        new_id: Callable[[], str],
        new_seed: Callable[[], str],
    ) -> None:
        self._new_seed = new_seed
        self._hub = hub
        self._stage = stage
        self._shows = shows
        self._catalog = catalog
        self._checkout = checkout
        self._clock = clock
        self._new_id = new_id

    async def handle(
        self, connection: Connection, who: Identity, name: str, raw: dict[str, Any]
    ) -> dict[str, Any]:
        """Carry out one host command in the connection's show."""
        assert connection.room is not None
        show_id = connection.room.name
        params = read(HOST_COMMANDS[name], raw)
        if isinstance(params, TakeConsole):
            return await self.take(show_id, params)
        assert isinstance(params, Fenced)
        result: dict[str, Any]
        match params:
            case OpenDrop():
                result = await self.open_drop(show_id, params)
            case CloseDrop():
                result = await self.close_drop(show_id, params)
            case AdjustStock() | SetStock() | CancelDrain():
                result = await self.change_stock(show_id, params)
            case Retract():
                return await self.retract(show_id, params)
            case PinProduct() | Announce():
                result = await self._write(show_id, params)
            case _ if name == "unpin_product":
                result = await self._write(show_id, params)
            case _:
                result = await self._move(show_id, params, name)
        await self._stage.refresh(show_id)
        return result

    async def take(self, show_id: str, params: TakeConsole) -> dict[str, Any]:
        """Become the console; the one before is told."""
        fence, n = await self._shows.take_console(show_id, params.fence)
        if fence != params.fence:
            await self._hub.publish(show_id, [Direct("tag:console", "console", {"fence": fence})])
        return {"fence": fence, "n": n}

    async def _move(self, show_id: str, params: Fenced, name: str) -> dict[str, Any]:
        """go_live, pause, end."""
        now = self._clock()
        await self._shows.act(show_id, params.fence, params.n, lambda show: moved(show, name, now))
        if name == "end":
            for drop in await self._checkout.drops(show_id):
                await self._checkout.close_drop(drop.id)
        return {}

    async def _write(self, show_id: str, params: Fenced) -> dict[str, Any]:
        """pin_product, unpin_product, announce."""
        values: dict[str, Any]
        now = self._clock()
        match params:
            case PinProduct(product=product):
                await self._catalog.product(product)
                values = {"pinned": product, "pinned_at": now}
            case Announce(text=text):
                values = {"announcement": announcement_text(text), "announced_at": now}
            case _:
                values = {"pinned": None, "pinned_at": None}
        await self._shows.act(
            show_id, params.fence, params.n, lambda show: {**running(show), **values}
        )
        return {}

    async def open_drop(self, show_id: str, params: OpenDrop) -> dict[str, Any]:
        """A sale that opens after the countdown, by the server's clock."""
        if len(await self._checkout.drops(show_id)) >= DROPS_OPEN_MAX:
            raise refuse("wrong_state", limit=DROPS_OPEN_MAX)
        await self._shows.act(show_id, params.fence, params.n, on_air)
        if params.entry_s is not None and len(params.lines) != 1:
            raise refuse("bad_params", field="lines")
        opens_at = self._clock() + params.countdown_s * 1000
        raffle = None if params.entry_s is None else self._raffle(opens_at, params.entry_s)
        sells_at = opens_at if raffle is None else raffle.draws_at
        drop = Drop(
            id=f"d_{self._new_id()}",
            show=show_id,
            title=clean(params.title),
            opens_at=opens_at,
            closes_at=None if params.open_s is None else sells_at + params.open_s * 1000,
            hold_s=params.hold_s,
            per_viewer=params.per_viewer,
            lines=tuple(DropLine(line.sku, line.units) for line in params.lines),
            raffle=raffle,
        )
        await self._checkout.open_drop(drop)
        return {"drop": drop.id}

    def _raffle(self, opens_at: int, entry_s: int) -> Raffle:
        seed = self._new_seed()
        return Raffle(opens_at + entry_s * 1000, commitment(seed), seed)

    async def close_drop(self, show_id: str, params: CloseDrop) -> dict[str, Any]:
        """No press after this wins; what is held stays held."""
        if params.drop not in {drop.id for drop in await self._checkout.drops(show_id)}:
            raise refuse("unknown_drop")
        await self._shows.act(show_id, params.fence, params.n, lambda _: {})
        await self._checkout.close_drop(params.drop)
        return {}

    async def change_stock(
        self, show_id: str, params: AdjustStock | SetStock | CancelDrain
    ) -> dict[str, Any]:
        """Add or take units, set them, or stop them running down."""
        await self._shows.act(show_id, params.fence, params.n, lambda _: {})
        ref = f"{show_id}:{params.fence}:{params.n}"
        match params:
            case AdjustStock():
                change = self._checkout.adjust(params.sku, params.delta, ref=ref)
            case SetStock():
                change = self._checkout.set_on_hand(
                    params.sku, params.on_hand, params.expected, ref=ref, drain=params.drain
                )
            case _:
                change = self._checkout.cancel_drain(params.sku, ref=ref)
        row, level = await change
        return {
            "sku": params.sku,
            "on_hand": row.on_hand,
            "held": row.held,
            "committed": row.committed,
            "draining": row.draining,
            "available": level.available,
        }

    async def retract(self, show_id: str, params: Retract) -> dict[str, Any]:
        """Take a comment away from every page, the history and all later joins."""
        await self._shows.act(show_id, params.fence, params.n, lambda _: {})
        await self._hub.publish(
            show_id,
            [
                Control(
                    "retracted",
                    {"comment": params.comment},
                    keep=False,
                    retracts=params.comment,
                )
            ],
        )
        return {}
