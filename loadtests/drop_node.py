"""The server of the drop bench: the whole program, which can be told to buy the usual way.

Responsible for the switch between the program's own way of a press and the baseline's, at run time
and in the same process: so both are measured with the same sockets, the same frames, the same
dispatch and the same crowd in the room.

    python -m loadtests.drop_node FD {}     as `bench_node`, and the asks way, cpu
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from typing_extensions import override

from commerce.checkout import Checkout
from commerce.errors import CommerceError
from commerce.reserving import Answer
from commerce.stock import Press
from live.app import App
from loadtests.bench_node import Node, run_product
from loadtests.drop_baseline_sql import RowLock
from loadtests.drop_stages import Stages
from loadtests.vitals import raise_file_limit


class DropNode(Node):
    """What the bench may ask."""

    def __init__(self, app: App, port: int, database_url: str) -> None:
        super().__init__(app.hub, None, port)
        self._checkout: Checkout = app.trade.checkout
        self._row_lock = RowLock(database_url, app.now)
        self._presses: set[asyncio.Task[None]] = set()
        self._app = app
        self._stages: Stages | None = None

    @override
    async def answer(self, ask: dict[str, Any]) -> dict[str, Any]:
        """One answer."""
        match ask["ask"]:
            case "way":
                return await self._way(ask["way"])
            case "cpu":
                return {"cpu_s": time.process_time()}
            case "watch":
                self._stages = self._stages or Stages(self._app)
                self._stages.take()
                return {}
            case "stages":
                return {"stages": self._stages.take() if self._stages else {}}
        return await super().answer(ask)

    async def _way(self, way: str) -> dict[str, Any]:
        if way == "row_lock":
            await self._row_lock.open()
            self._checkout.begin = self._begin  # type: ignore[method-assign]
        else:
            del self._checkout.begin
            await self._row_lock.close()
        return {}

    def _begin(self, press: Press, done: Callable[[Answer], None]) -> None:
        """As `Checkout.begin`: a task per press, as a shop does that awaits its database."""

        async def answer() -> None:
            try:
                done(await self._row_lock.reserve(press))
            except CommerceError as refused:
                done(refused)

        task = asyncio.get_running_loop().create_task(answer())
        self._presses.add(task)
        task.add_done_callback(self._presses.discard)


def main(arguments: list[str]) -> None:
    """FD and a JSON object: database_url."""
    raise_file_limit()
    options = json.loads(arguments[1])
    url = options["database_url"]
    run_product(int(arguments[0]), options, lambda app, port: DropNode(app, port, url))


if __name__ == "__main__":
    main(sys.argv[1:])
