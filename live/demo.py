"""The demo show: something to look at within a minute of cloning.

Responsible for a sample catalogue, a show that is live with the looped video, a pinned product and
an open sale. Everything goes through the same doors as a real show, with the console of a real
host (the demo's own; whoever opens the console takes it over). Started again, it finds what is
there.
"""

from pathlib import Path
from typing import Any, Final

from commerce.stock import Drop, DropLine
from live.app import App
from live.identity import Role
from live.imports import import_file
from live.shop import Shop
from live.shows import Show, ShowState, moved
from live.trade import clock, new_id
from realtime.errors import Rejected

DEMO_SHOW: Final = "demo"
CURRENCY: Final = "EUR"
SHIPPING_AMOUNT: Final = 490
SAMPLE: Final = Path(__file__).resolve().parent.parent / "commerce" / "sample_catalog.csv"
PINNED: Final = "morning-mug"
UNITS: Final = 12
HOLD_S: Final = 300
WELCOME: Final = "Welcome! This is a demo: nothing is shipped, no money moves."


async def open_demo(app: App) -> None:
    """Make the demo show what a newcomer should see: live, a product pinned and on sale."""
    show = await _show(app)
    if show.state is ShowState.ENDED:
        return  # somebody played it to its end; `make run` with a new data folder starts over
    products = (await app.trade.catalog.list(PINNED)).products
    pinned = products[0].id if products else None
    if _opening(show, pinned):
        fence, _ = await app.shows.take_console(show.id, None)
        await app.shows.act(show.id, fence, 1, lambda found: _opening(found, pinned))
    if products and not await app.trade.checkout.drops(show.id):
        await app.trade.checkout.open_drop(
            Drop(
                id=f"d_{new_id()}",
                show=show.id,
                title=products[0].title,
                opens_at=clock(),
                closes_at=None,
                hold_s=HOLD_S,
                per_viewer=2,
                lines=tuple(
                    DropLine(sku.sku, UNITS if at == 0 else None)
                    for at, sku in enumerate(products[0].skus)
                ),
            )
        )
    app.stage.refresh_soon(show.id)


def _opening(found: Show, pinned: str | None) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if found.state is not ShowState.LIVE:
        values |= moved(found, "go_live", clock())
    if found.pinned is None and pinned is not None:
        values |= {"pinned": pinned, "pinned_at": clock()}
    if not found.announcement:
        values |= {"announcement": WELCOME, "announced_at": clock()}
    return values


async def _show(app: App) -> Show:
    """The demo show, made with its shop and its catalogue the first time."""
    try:
        return await app.shows.get(DEMO_SHOW)
    except Rejected:
        await app.accounts.add("host", "Host", Role.HOST)
        if not (await app.trade.catalog.list(limit=1)).products:
            await app.shop.put(Shop("Slow Kiln", CURRENCY, SHIPPING_AMOUNT))
            await import_file(app.trade.catalog, app.shop, SAMPLE.read_bytes(), CURRENCY)
        return await app.shows.create(
            title="Slow Kiln, live from the workshop",
            video="/media/demo/live.m3u8",
            id_=DEMO_SHOW,
        )
