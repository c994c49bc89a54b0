"""A show for a drill: a product with units, live, pinned, on sale, and all of it closed afterwards.

Responsible for what a host does before and after a crowd comes, over HTTP and the wire only, so
that it works against any server. The show is hidden and its handles and SKUs are new each time, so
that it can be run against a shop that is open.
"""

import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

from loadtests.api import Api
from loadtests.client import new_rid
from loadtests.refused import Refused
from loadtests.shopper import Host, wall_ms

NAME_CHARS: Final = 23
"""Of a UUIDv7: its time and 24 random bits."""
CSV_COLUMNS: Final = (
    "Handle,Title,Body (HTML),Vendor,Type,Tags,Published,Option1 Name,Option1 Value,Variant SKU,"
    "Variant Grams,Variant Inventory Qty,Variant Price,Variant Requires Shipping,Image Src"
)


@dataclass
class Stage:
    """What was made for this run."""

    api: Api
    """Signed in as host."""
    units: int
    name: str = field(default_factory=lambda: new_rid(wall_ms(), random.Random())[:NAME_CHARS])
    product: str = ""
    show: str = ""
    drop: str = ""

    @property
    def sku(self) -> str:
        """The only SKU."""
        return f"CHECK-{self.name}"

    async def import_product(self) -> None:
        """A file of one product with `units` in stock, not published: a show may sell it all the
        same, but nobody finds it in the shop. Raises `Refused`."""
        shop = await self.api.get("/api/v1/shop")
        row = (
            f"{self.sku.lower()},Synthetic check,<p>Not for sale.</p>,Check,Check,,FALSE,Title,"
            f"Default Title,{self.sku},100,{self.units},5,TRUE,"
        )
        path = f"/api/v1/imports?currency={shop['currency']}"
        report = await self.api.send_csv(path, f"{CSV_COLUMNS}\n{row}\n")
        if report.get("refused"):
            raise Refused("csv_refused", str(report["refused"]))
        found = (await self.api.get(f"/api/v1/products?query={self.sku.lower()}"))["products"]
        if not found:
            raise Refused("unknown_product", "the imported product is not in the catalogue")
        self.product = found[0]["id"]

    async def create_show(self) -> None:
        """Hidden. Raises `Refused`."""
        body = {"title": "Synthetic check", "hidden": True}
        show = await self.api.call("POST", "/api/v1/shows", body, key=self.name)
        self.show = show["id"]

    async def open_drop(self, host: Host, **more: Any) -> None:
        """All units on sale. Raises as `Host.act`."""
        lines = [{"sku": self.sku, "units": self.units}]
        opened = await host.act("open_drop", lines=lines, title="Synthetic check", **more)
        self.drop = opened["drop"]

    async def stock(self) -> dict[str, Any]:
        """The record's row: on_hand, held, committed. Raises `Refused`."""
        row: dict[str, Any] = await self.api.get(f"/api/v1/stock/{self.sku}")
        return row

    @contextlib.asynccontextmanager
    async def on_air(self, **drop: Any) -> AsyncIterator[Host]:
        """A live show with an open drop; ended when left. Raises as its steps do."""
        await self.import_product()
        await self.create_show()
        async with Host(self.api.url, self.show, self.api.token) as host:
            await host.take_console()
            await host.act("go_live")
            try:
                await host.act("pin_product", product=self.product)
                await self.open_drop(host, **drop)
                yield host
            finally:
                await host.act("end")


def oversold(stock: dict[str, Any]) -> int:
    """Units promised that do not exist, by the record's row."""
    return max(0, int(stock["held"]) + int(stock["committed"]) - int(stock["on_hand"]))
