"""Nothing personal or secret is written where it does not belong: logs, Valkey, SQL, its dump.

A buyer with a name, an address and a card number that occur nowhere else goes through a whole
purchase on the real program; then every byte that it left behind is searched for them. The payment
sandbox's own folder is left out: it plays the provider, who must know what it was told.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from loadtests.api import Api
from loadtests.refused import Refused
from loadtests.server import OwnServer
from loadtests.shopper import Host, Shopper
from tests.live.test_commands import CSV
from tests.waiting import until_sync

DELIVERY = {
    "name": "Canaryname Zwitscher",
    "email": "canary-zq@example.com",
    "phone": "+49 30 5550177",
    "address": {
        "line1": "77 Canaryroad Qx",
        "line2": "Canaryfloor Qx",
        "city": "Canarycity Qx",
        "postcode": "C4N4RY",
        "country": "DE",
    },
}
CARD = "4242424242424242"
SECRET = "canary-secret-of-thirty-two-characters"
DATA_KEY = "canary-data-key-of-thirty-two-characters"
SEEN = "Canaries are singing tonight, in public"
"""A text that is kept in the clear: the search must find it, or it would find nothing."""
CANARIES = [
    "Zwitscher", "canary-zq", "5550177", "Canaryroad", "Canaryfloor", "Canarycity", "C4N4RY",
    CARD, "4242 4242", SECRET, DATA_KEY,
]  # fmt: skip


async def purchase(server: OwnServer) -> str:
    """Somebody buys and pays, and makes the mistakes that people make; their token."""
    async with Api(server.url) as api:
        api.token = await api.sign_in(await asyncio.to_thread(server.host_link))
        await api.send_csv("/api/v1/imports?currency=EUR", CSV)
        show = (await api.call("POST", "/api/v1/shows", {"title": SEEN}))["id"]
        token = await api.guest("Ada")
        async with (
            Host(server.url, show, api.token) as host,
            Shopper(server.url, show, token) as viewer,
        ):
            await host.take_console()
            await host.act("go_live")
            drop = (await host.act("open_drop", lines=[{"sku": "MUG-S"}]))["drop"]
            for text in (CARD, "my card is 4242 4242 4242 4242 ok"):
                with pytest.raises(Refused, match="card_number"):
                    await viewer.comment(text)
            hold = await viewer.buy(drop, [("MUG-S", 1)])
            wrong = {**DELIVERY, "name": CARD}
            with pytest.raises(Refused, match="card_number"):
                await api.call(
                    "POST", f"/api/v1/holds/{hold['rid']}/payment", wrong, token=token, key="k1"
                )
            page = await api.call(
                "POST", f"/api/v1/holds/{hold['rid']}/payment", DELIVERY, token=token, key="k2"
            )
            await api.press(await api.payment_form(page["url"]))
            rid = hold["rid"]
            await viewer.wait_for(
                lambda: viewer.session.holds[rid]["state"] == "sold", what="the hold is sold"
            )
            with pytest.raises(Refused):
                await api.call("POST", "/api/v1/sessions", {"login": "host", "password": CARD})
            mine = await api.get("/api/v1/me/data", token=token)
            assert "Zwitscher" in str(mine), "the buyer sees what is held"
        return token


def everything(server: OwnServer) -> Iterator[tuple[str, bytes]]:
    """(where, content) of all that the program wrote, and of the database as text."""
    for path in sorted(server.folder.rglob("*")):
        inside = path.relative_to(server.folder).parts
        if path.is_file() and inside[:2] != ("data", "sandbox") and inside[-1] != "secret":
            yield str(path.relative_to(server.folder)), path.read_bytes()


def valkey_content(folder: Path) -> Iterator[tuple[str, bytes]]:
    with Redis(unix_socket_path=str(folder / "data" / "valkey.sock")) as client:
        client.config_set("rdbcompression", "no")
        for key in client.scan_iter(count=1000):
            dumped = client.dump(key)
            yield key.decode(errors="replace"), bytes(dumped or b"")
        client.save()  # the file of all keys, for the search of files


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_no_canary_is_found_in_logs_valkey_or_the_database() -> None:
    with OwnServer({"LIVE_SECRET": SECRET, "LIVE_DATA_KEYS": DATA_KEY}) as server:
        token = asyncio.run(purchase(server))
        until_sync(lambda: (server.folder / "data" / "valkey.sock").exists())
        keys = list(valkey_content(server.folder))
        searched = [*keys, *everything(server)]
        assert len(keys) > 5
        assert any(name.endswith("vitrine.db") for name, _ in searched)
        assert any(name.endswith("server.log") and content for name, content in searched)
        for places in (keys, [*everything(server)]):
            assert any(SEEN.encode() in content for _, content in places)
        found = [
            (canary, name)
            for name, content in searched
            for canary in [*CANARIES, token]
            if canary.encode() in content
        ]
    assert found == []
