"""Two processes of `python -m live serve`, given the same URLs, are one house."""

import asyncio
from pathlib import Path

import httpx
import pytest

from live.data_folder import DataFolder
from live.engines import EmbeddedValkey
from loadtests.api import Api
from loadtests.refused import Refused
from loadtests.shopper import Host, Shopper
from tests.live.test_commands import CSV
from tests.program import Program
from tests.waiting import until

SECRET = "two nodes, one secret, thirty-two characters"


@pytest.mark.postgres
@pytest.mark.timeout(180)
async def test_two_processes_share_a_room_and_a_stock(
    tmp_path: Path, private_valkey: EmbeddedValkey, postgres_url: str
) -> None:
    environment = {
        "LIVE_VALKEY_URL": await private_valkey.start(),
        "LIVE_DATABASE_URL": postgres_url,
        "LIVE_SECRET": SECRET,
        "LIVE_STRIPE_API": "http://127.0.0.1:9",  # no node starts a sandbox; nobody pays here
    }
    one = Program(tmp_path / "one", environment=environment)
    two = Program(tmp_path / "two", environment=environment)
    await asyncio.gather(asyncio.to_thread(one.start), asyncio.to_thread(two.start))
    try:
        await sell_on_both(one, two)
    finally:
        codes = await asyncio.gather(asyncio.to_thread(one.stop), asyncio.to_thread(two.stop))
    assert codes == [0, 0]


async def sell_on_both(one: Program, two: Program) -> None:
    async with Api(one.url) as api, Api(two.url) as other:
        await until(lambda: all("Ctrl-C" in node.output for node in (one, two)))
        first = one if "#link=" in one.output else two
        api.token = await api.sign_in(first.host_link)
        await api.send_csv("/api/v1/imports?currency=EUR", CSV)
        show = (await api.call("POST", "/api/v1/shows", {"title": "Both"}))["id"]
        guests = [
            (node, await made.guest(f"Guest {n}"))
            for n in range(4)
            for node, made in ((one, api), (two, other))
        ]
        async with Host(one.url, show, api.token) as host:
            await host.take_console()
            await host.act("go_live")
            drop = (await host.act("open_drop", lines=[{"sku": "MUG-S"}]))["drop"]
            viewers = [Shopper(node.url, show, token) for node, token in guests]
            await asyncio.gather(*(viewer.join() for viewer in viewers))
            far = viewers[1]
            await far.wait_for(lambda: f"drop:{drop}" in far.room.facts, what="the drop")
            offset = await viewers[0].comment("heard over there?")
            await far.wait_for(lambda: offset in dict(far.room.comments), what="the comment")
            answers = await asyncio.gather(
                *(viewer.buy(drop, [("MUG-S", 1)]) for viewer in viewers), return_exceptions=True
            )
            assert sorted(type(one).__name__ for one in answers) == ["Refused"] * 5 + ["dict"] * 3
            assert {one.code for one in answers if isinstance(one, Refused)} == {"sold_out"}
            for viewer in viewers:
                await viewer.wait_for(
                    lambda viewer=viewer: viewer.room.states["stock:MUG-S"][1] == 0, what="none"
                )
            await asyncio.gather(*(viewer.close() for viewer in viewers))
        row = await api.get("/api/v1/stock/MUG-S")
        assert (row["held"], row["available"]) == (3, 0)


def test_a_second_process_on_the_same_folder_is_refused_by_name(tmp_path: Path) -> None:
    with Program(tmp_path / "data") as first:
        second = Program(tmp_path / "data")
        with pytest.raises(AssertionError, match="in use by process"):
            second.start()
        assert httpx.get(f"{first.url}/healthz").status_code == 200
    assert DataFolder(tmp_path / "data").owner() is None


def test_an_orderly_end_leaves_no_socket_and_no_temporary_file(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Program(data):
        assert (data / "valkey.sock").exists()
    assert not list(data.rglob("*.sock"))
    assert not (data / "socket-folder").exists()
