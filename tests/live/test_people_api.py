"""What is held about people, over HTTP: one's own, and a host on somebody's behalf."""

import pytest

from live.identity import Role
from loadtests.journey import DELIVERY
from loadtests.refused import Refused
from tests.live.conftest import Node
from tests.live.test_commands import CSV


async def held(node: Node) -> str:
    """The rid of something that a viewer has reserved."""
    async with node.api(node.host_token) as api:
        await api.send_csv("/api/v1/imports?currency=EUR", CSV)
        show = (await api.call("POST", "/api/v1/shows", {"title": "Held"}))["id"]
        async with node.host(show) as host, node.viewer(show) as viewer:
            await host.take_console()
            await host.act("go_live")
            drop = (await host.act("open_drop", lines=[{"sku": "MUG-S"}]))["drop"]
            return str((await viewer.buy(drop, [("MUG-S", 1)]))["rid"])


async def begin_to_pay(node: Node, rid: str) -> None:
    """The payment is committed; nobody knows what the provider, which is not there, made of it."""
    async with node.api(node.token()) as api:
        with pytest.raises(Refused) as refused:
            await api.call("POST", f"/api/v1/holds/{rid}/payment", DELIVERY, key="pay")
        assert refused.value.retry_after_ms is not None


async def test_a_viewer_takes_their_own_data_along_and_is_forgotten_when_nothing_is_open(
    node: Node,
) -> None:
    rid = await held(node)
    async with node.api(node.token()) as api, node.api(node.token(id_="g_eve")) as stranger:
        mine = await api.get("/api/v1/me/data")
        assert mine["person"] == "g_ada"
        assert [row["rid"] for row in mine["tables"]["reservation"]] == [rid]
        assert (await stranger.get("/api/v1/me/data"))["tables"] == {}
        await begin_to_pay(node, rid)
        with pytest.raises(Refused) as refused:
            await api.call("POST", "/api/v1/me/erasure")
        assert refused.value.code == "orders_under_way"
        assert refused.value.details == {"holds": 1, "orders": 0}
        with pytest.raises(Refused, match="forbidden"):
            await stranger.get("/api/v1/people/g_ada/data")
        with pytest.raises(Refused, match="forbidden"):
            await stranger.call("POST", "/api/v1/people/g_ada/erasure", {"force": True})
        await stranger.call("POST", "/api/v1/me/erasure")


async def test_a_host_does_it_on_somebodys_behalf(node: Node) -> None:
    rid = await held(node)
    async with node.api(node.token(Role.HOST, id_="a_host")) as api:
        theirs = await api.get("/api/v1/people/g_ada/data")
        assert [row["rid"] for row in theirs["tables"]["reservation"]] == [rid]
        await begin_to_pay(node, rid)
        with pytest.raises(Refused) as refused:
            await api.call("POST", "/api/v1/people/g_ada/erasure", {})
        assert refused.value.code == "orders_under_way"
        await api.call("POST", "/api/v1/people/g_ada/erasure", {"force": True})
