"""The gate on a cluster: it lives and dies with the one master that owns its slot."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from commerce.database_sql import Database
from commerce.errors import Busy, SoldOut
from commerce.gate import GateUnavailable
from commerce.schema_sql import metadata
from commerce.slot_redis import node_urls
from commerce.stock import Hold
from commerce.stock_redis import RedisGate
from tests.commerce.stock_support import KEYS, Shop
from tests.valkey_cluster import Master, ValkeyCluster
from tests.waiting import until


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyCluster]:
    with ValkeyCluster(tmp_path_factory.mktemp("cluster")) as found:
        yield found


@pytest.fixture
async def shop(sqlite_url: str, cluster: ValkeyCluster) -> AsyncIterator[Shop]:
    """A shop of 10 A and 5 B; its nodes know all three masters."""
    database = await Database.open(sqlite_url, poolsize=6)
    async with database.begin() as conn:
        await conn.run_sync(metadata.create_all)
    shop = Shop(database, url_of(cluster.home(KEYS)))
    shop.gate_url = cluster.url
    await shop.add_skus({"A": 10, "B": 5})
    yield shop
    await database.close()


def url_of(master: Master) -> str:
    return f"redis://127.0.0.1:{master.port}/"


async def test_a_gate_lives_on_one_master_and_does_not_miss_the_others(
    shop: Shop, cluster: ValkeyCluster
) -> None:
    home = cluster.home(KEYS)
    others = [master for master in cluster.masters if master is not home]
    async with shop.node() as one, shop.node() as two:
        await one.checkout.open_drop(shop.drop(("A", 8), ("B", None), per_viewer=2))
        held = await one.buy("r1", "v", ("A", 1), ("B", 1))
        assert await two.buy("r1", "v", ("A", 1), ("B", 1)) == held
        with pytest.raises(SoldOut):
            await two.buy("r2", "w", ("B", 5))
        epoch = one.checkout.keeper.epoch
        assert [master.ask("DBSIZE") for master in others] == [0, 0]
        others[0].kill()  # of two, the last master would be in the minority and stop by itself
        await until(lambda: "cluster_slots_ok:16384" not in home.ask("CLUSTER", "INFO"))
        await two.buy("r3", "x", ("A", 2))
        await one.checkout.cancel("v", "r1")
        async with shop.node() as three:  # its first seeds may be dead, and no script is loaded
            await three.buy("r4", "y", ("A", 2), ("B", 2))
            await shop.check_gate(three)  # the answer comes before the gate hears of it
        assert one.checkout.keeper.epoch == epoch
        await shop.check_gate(one)


async def test_a_killed_gate_is_the_records_affair_until_it_is_back_and_loaded(
    shop: Shop, cluster: ValkeyCluster
) -> None:
    home = cluster.home(KEYS)
    async with shop.node() as one, shop.node() as two:
        await one.checkout.open_drop(shop.drop(("A", 8), ("B", None), per_viewer=1))
        await one.buy("r0", "v0")
        before = one.checkout.keeper.epoch
        home.kill()
        answers = await asyncio.gather(
            *((one, two)[n % 2].buy(f"r{n}", f"v{n}") for n in range(1, 61)),
            return_exceptions=True,
        )
        won = [answer for answer in answers if isinstance(answer, Hold)]
        assert len(won) == 7
        assert all(isinstance(answer, Hold | Busy | SoldOut) for answer in answers)
        assert await one.level("A") == 0
        await one.checkout.cancel("v0", "r0")
        home.start()
        fenced_by = max(hold.receipt for hold in won)[0]
        assert fenced_by > before
        await until(lambda: one.checkout.keeper.epoch > fenced_by)
        assert await two.buy(won[0].rid, won[0].viewer, retry=True) == won[0]
        await two.buy("last", "w", ("A", 1), ("B", 1))
        with pytest.raises(SoldOut):
            await one.buy("late", "x")
        await shop.check_gate(two)


async def test_a_gate_whose_slot_moves_is_followed_and_loaded_there(
    shop: Shop, cluster: ValkeyCluster
) -> None:
    home = cluster.home(KEYS)
    target = next(master for master in cluster.masters if master is not home)
    async with shop.node() as one, shop.node() as two:
        await one.checkout.open_drop(shop.drop(("A", None)))
        held = await one.buy("r1", "v", ("A", 2))
        before = one.checkout.keeper.epoch
        await asyncio.to_thread(cluster.migrate, KEYS, target)
        shop.valkey_url = url_of(target)
        assert await two.buy("r1", "v", ("A", 2), retry=True) == held
        await one.buy("r2", "w", ("A", 3))
        assert two.checkout.keeper.epoch > before, "another engine process is never trusted"
        assert await one.level("A") == 5
        await shop.check_gate(one)


async def test_a_cluster_that_nobody_answers_for_is_an_unavailable_gate() -> None:
    gate = RedisGate.connect("redis+cluster://127.0.0.1:1,127.0.0.1:2")
    async with asyncio.timeout(5):
        with pytest.raises(GateUnavailable):
            await gate.epoch()
    await gate.close()


def test_the_url_of_a_cluster_names_any_of_its_nodes() -> None:
    assert node_urls("rediss+cluster://me:p%40ss@a:1,[::1]:7001/?ssl_cert_reqs=none") == [
        "rediss://me:p%40ss@a:1/?ssl_cert_reqs=none",
        "rediss://me:p%40ss@[::1]:7001/?ssl_cert_reqs=none",
    ]
    for bad in ("http://a", "redis+cluster:///"):
        with pytest.raises(ValueError, match="cluster"):
            node_urls(bad)
