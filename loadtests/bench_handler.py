"""What the hub of a bench does with commands: join, and publish as the product would.

Responsible for the way from a command to `Hub.publish`: comments one by one, likes and stock
through the product's own counters at the product's own pace, pins as control. It must not measure;
values carry the instant at which the speaker sent them (`picture` reads it).
"""

from typing import Any, Final

from typing_extensions import override

from commerce.checkout import Checkout
from commerce.stock import Level
from commerce.waiting import Waitlist
from live.counters import Counters
from live.stage import Stage
from realtime.broker import Chat, Control
from realtime.connection import Connection
from realtime.hub import Hub
from realtime.wire import Command, Position

ROOM: Final = "bench"


class NoStage(Stage):
    """A stage with every SKU on it; nothing is ever refreshed."""

    def __init__(self) -> None:
        """No shows, no catalogue."""

    @override
    def shows_of(self, sku: str) -> list[str]:
        """The one room."""
        return [ROOM]

    @override
    def skus(self) -> frozenset[str]:
        """None that a checkout should be asked for."""
        return frozenset()

    @override
    def refresh_soon(self, show_id: str) -> None:
        """There are no drops."""


class NoCheckout(Checkout):
    """Never asked, because the stage names no SKU."""

    def __init__(self) -> None:
        """No gate, no record."""

    @property
    @override
    def crowded(self) -> bool:
        """Nobody buys."""
        return False


class NoWaits(Waitlist):
    """Never asked either."""

    def __init__(self) -> None:
        """No gate, no record."""


class BenchHandler:
    """Answers the commands of listeners and speakers."""

    def __init__(self, hub: Hub, numbers: Counters) -> None:
        self._hub = hub
        self._numbers = numbers

    async def run(self) -> None:
        """The counters' pace."""
        await self._numbers.run(NoCheckout(), NoWaits(), lambda: 0)

    async def handle(self, connection: Connection, command: Command) -> object:
        """join, comment, like, stock, pin."""
        params = command.params
        match command.name:
            case "join":
                return await self._join(connection, params)
            case "comment":
                published = await self._hub.publish(
                    ROOM, [Chat(params["value"], str(params["rid"]))]
                )
                return {"offset": published.numbers[0]}
            case "like":
                self._numbers.like(ROOM, params["n"])
            case "stock":
                level = Level(available=params["value"], version=params["t"])
                self._numbers.mark({params["sku"]: level})
            case _:
                await self._hub.publish(ROOM, [Control(command.name, params["value"])])
        return {}

    async def _join(self, connection: Connection, params: dict[str, Any]) -> object:
        room = await self._hub.room(ROOM)
        connection.viewer = str(params.get("token", connection.id))
        connection.exempt = bool(params.get("speaker"))
        connection.counted = not connection.exempt
        position = params.get("position")
        recovered = connection.enter(room, None if position is None else Position(*position))
        return {"recovered": recovered}
