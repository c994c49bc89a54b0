"""Claims for tests of stock: a keeper on a node's gate, and everything it has kept."""

import asyncio
from collections.abc import Callable

from commerce.batcher import Pause
from commerce.claims import Claim, ClaimKeeper, Kept
from commerce.claims_check import Check, Report
from commerce.claims_sql import SqlClaims
from tests.commerce.stock_support import Node, Shop

ALL = (0, 2**31)


def keeper_of(
    shop: Shop,
    node: Node,
    source: str = "node",
    pause: Pause = asyncio.sleep,
    busy: Callable[[], bool] = lambda: False,
) -> ClaimKeeper:
    """A keeper that works when it is told to."""
    board = node.checkout.board
    return ClaimKeeper(
        node.gate.log,
        SqlClaims(shop.database),
        flagged=lambda: board.refused_in,
        source=source,
        clock=shop.clock,
        pause=pause,
        busy=busy,
    )


async def kept(shop: Shop, node: Node) -> list[Kept]:
    """Whatever took a number, in order, the gate's log emptied into the record first."""
    keeper = keeper_of(shop, node)
    while await keeper.drain():
        pass
    await keeper.tell_flagged()
    return await SqlClaims(shop.database).page(ALL, (-1, -1), 100_000)


async def claims(shop: Shop, node: Node) -> list[Claim]:
    """The same without the states of winners."""
    return [found.claim for found in await kept(shop, node)]


def judged(found: list[Claim]) -> Report:
    """What the check says."""
    check = Check()
    for claim in found:
        check.feed(claim)
    return check.report
