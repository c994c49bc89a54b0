"""A process is killed by SIGKILL at each crash point; the next one ends the same story alike."""

import ast
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert, select

from commerce import schema_sql as tables
from commerce.crash_points import POINTS
from commerce.database_sql import Database
from tests.commerce.crash_child import LAST, MORE, SKU, UNITS
from tests.commerce.pay_support import Api
from tests.commerce.stock_support import OwnValkey, Shop

pytest_plugins = ["tests.commerce.pay_fixtures"]

ROOT = Path(__file__).resolve().parent.parent.parent
ENDED = {"expired", "cancelled"}
PAID = ["placed", "paid"]


class Stem:
    """`crash_child`, which forks a process for each life."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.commerce.crash_child"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid

    def live(self, order: dict[str, str]) -> int:
        """How it ended: 0 when the story came to its end, -9 when it was killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(10)


@pytest.fixture(scope="module")
def stem() -> Iterator[Stem]:
    stem = Stem()
    yield stem
    stem.close()


async def seed(shop: Shop) -> None:
    async with shop.database.begin() as conn:
        row = {"id": 1, "name": "Shop", "currency": "USD", "shipping_amount": 500}
        await conn.execute(insert(tables.shop).values(gate_epoch=0, **row))
    await shop.add_skus({SKU: UNITS, LAST: 1})


@pytest.mark.parametrize("point", POINTS)
async def test_a_day_interrupted_anywhere_ends_as_one_that_was_not(
    stem: Stem,
    own_valkey: OwnValkey,
    database: Database,
    database_url: str,
    api: Api,
    tmp_path: Path,
    point: str,
) -> None:
    """Each point meets both gates, the one that stayed and the one that was lost, one each."""
    lost = (POINTS.index(point) % 2 == 0) != database_url.startswith("sqlite")
    await own_valkey.start()
    shop = Shop(database, own_valkey.url)
    await seed(shop)
    order = {
        "database": database_url,
        "valkey": own_valkey.url,
        "sandbox": api.url,
        "clock": str(tmp_path / "clock"),
    }
    assert stem.live(order | {"point": point}) == -signal.SIGKILL
    await shop.check()
    if lost:
        await own_valkey.flush()
    assert stem.live(order | {"point": ""}) == 0
    await check_the_end(shop, api)
    async with shop.node() as node:
        shop.clock.now += 10**9
        await shop.check_gate(node)


async def check_the_end(shop: Shop, api: Api) -> None:
    """One sold and paid once, nothing held, everything else free."""
    assert await shop.rows() == {SKU: (UNITS + MORE, 0, 1), LAST: (1, 0, 0)}
    states = await shop.states()
    assert states.pop("paid") == "sold"
    assert states.pop("ghost", "cancelled") == "cancelled"
    assert states.keys() == {"cancelled", "left", "lapsed", "first", "next"}
    assert set(states.values()) <= ENDED
    async with shop.database.read() as conn:
        waits = (await conn.execute(select(tables.waiting.c.rid, tables.waiting.c.state))).all()
        assert dict(waits) == {"leaver": "left", "next": "offered"}
        orders = (await conn.execute(select(tables.orders.c.rid, tables.orders.c.state))).all()
        told = await conn.execute(
            select(tables.outbox.c.payload)
            .where(tables.outbox.c.topic == "order")
            .order_by(tables.outbox.c.id)
        )
        assert [payload["state"] for payload in told.scalars()] == PAID
    assert [tuple(row) for row in orders] == [("paid", "paid")]
    assert len(await api.events("payment_intent.succeeded")) == 1
    sessions = (await api.get("/v1/checkout/sessions", limit="100"))["data"]
    assert {session["status"] for session in sessions} == {"complete", "expired"}


def test_every_named_point_is_called_and_nothing_else_is() -> None:
    called = {
        str(node.args[0].value)
        for path in (ROOT / "commerce").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "_crash_point"
        and isinstance(node.args[0], ast.Constant)
    }
    assert called == set(POINTS)
    assert len(set(POINTS)) == len(POINTS)
