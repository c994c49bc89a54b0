"""The program as processes: two that share a room, several on one port, leaving, restarting."""

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from live.identity import ACCOUNT_TTL_S, Identity, Role, Tokens
from live.trade import clock
from loadtests.api import Api
from loadtests.refused import ConnectionLost, Refused, TooLate
from loadtests.shopper import Host, Shopper
from tests.program import Program
from tests.realtime.engine import Valkey
from tests.waiting import until

SECRET = "0123456789abcdef" * 4
CSV = (
    "Handle,Title,Option1 Name,Option1 Value,Variant SKU,Variant Inventory Qty,"
    "Variant Inventory Tracker,Variant Inventory Policy,Variant Price\n"
    "mug,Mug,Size,Small,MUG-S,{units},shopify,deny,12.50\n"
)
TOKENS = Tokens(SECRET, clock)


def token(id_: str, role: Role = Role.GUEST) -> str:
    return TOKENS.issue(Identity(id_, id_, role), ACCOUNT_TTL_S)


HOST = token("a_host", Role.HOST)


def program(folder: Path, valkey: str, database: str, *more: str, **settings: str) -> Program:
    """A node that has everything given: no folder, no sandbox, no engine of its own."""
    environment = {
        "LIVE_SECRET": SECRET,
        "LIVE_VALKEY_URL": valkey,
        "LIVE_DATABASE_URL": database,
        "LIVE_STRIPE_KEY": "sk_test_nobody",
        "LIVE_STRIPE_API": "http://127.0.0.1:9",
        **settings,
    }
    return Program(folder, "serve", "--port", "0", *more, environment=environment)


async def new_show(url: str, units: int) -> str:
    async with Api(url, HOST) as api:
        await api.send_csv("/api/v1/imports?currency=EUR", CSV.format(units=units))
        return str((await api.call("POST", "/api/v1/shows", {"title": "Mugs"}))["id"])


async def open_drop(host: Host) -> str:
    await host.take_console()
    await host.act("go_live")
    return str((await host.act("open_drop", lines=[{"sku": "MUG-S"}], per_viewer=1))["drop"])


async def status(url: str, path: str = "/readyz") -> tuple[int, str]:
    async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
        answer = await http.get(url + path)
        return answer.status_code, answer.text


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


async def test_two_processes_with_the_same_engines_share_a_room_and_a_stock(
    valkey_url: str, database_url: str, tmp_path: Path, stack: ExitStack
) -> None:
    left = stack.enter_context(program(tmp_path / "l", valkey_url, database_url))
    right = stack.enter_context(program(tmp_path / "r", valkey_url, database_url))
    show = await new_show(left.url, 6)
    async with (
        Host(left.url, show, HOST) as host,
        Shopper(left.url, show, token("g_ada")) as ada,
        Shopper(right.url, show, token("g_bob")) as bob,
    ):
        offset = await ada.comment("hello from the left")
        await bob.wait_for(lambda: offset in dict(bob.room.comments), what="the comment")
        drop = await open_drop(host)
        await bob.wait_for(lambda: f"drop:{drop}" in bob.room.facts, what="the drop")
        crowd = [Shopper((left, right)[n % 2].url, show, token(f"g_{n}")) for n in range(20)]
        await asyncio.gather(*(one.join() for one in crowd))
        outcomes = await asyncio.gather(
            *(one.buy(drop, [("MUG-S", 1)]) for one in crowd), return_exceptions=True
        )
        won = [one for one in outcomes if isinstance(one, dict)]
        lost = [one.code for one in outcomes if isinstance(one, Refused)]
        assert (len(won), len(lost), set(lost)) == (6, 14, {"sold_out"})
        for one in (ada, bob):
            await one.wait_for(lambda one=one: one.room.value("stock:MUG-S") == 0, what="sold out")
        for one in crowd:
            await one.close()


class Returning(Shopper):
    """Comes back by itself, to whichever node answers, as PROTOCOL.md says; repeats what it may."""

    urls: list[str]

    async def back(self) -> None:
        async with asyncio.timeout(40):
            while True:
                for url in self.urls:
                    self.address = url.replace("http", "ws") + "/live"
                    try:
                        await self.close()
                        await self.join()
                    except (OSError, ConnectionLost, Refused, TooLate):
                        continue
                    except Exception as wrong:
                        if type(wrong).__module__.startswith("websockets"):
                            continue
                        raise
                    return
                await asyncio.sleep(0.05)

    async def surely(self, name: str, **params: object) -> dict[str, object]:
        """Until it is answered; the rid makes a repetition harmless."""
        while True:
            try:
                return dict(await self.command(name, **params))
            except ConnectionLost:
                await self.back()
            except Refused as refused:
                if refused.code not in ("busy", "unavailable", "rate_limited"):
                    raise
                await asyncio.sleep((refused.retry_after_ms or 100) / 1000)


async def test_a_rolling_restart_under_load_loses_no_entry_and_no_answered_command(
    valkey_url: str, postgres_url: str, tmp_path: Path, stack: ExitStack
) -> None:
    settings = {"LIVE_DRAIN_S": "5", "LIVE_LOG_LEVEL": "warning"}

    def node(name: str) -> Program:
        return program(tmp_path / name, valkey_url, postgres_url, **settings)

    nodes = [stack.enter_context(node(name)) for name in ("a", "b")]
    urls = [one.url for one in nodes]
    show = await new_show(urls[0], 1000)
    async with Host(urls[0], show, HOST) as host:
        drop = await open_drop(host)
    crowd = []
    for n in range(10):
        one = Returning(urls[n % 2], show, token(f"g_{n}"))
        one.urls = urls
        crowd.append(one)
    await asyncio.gather(*(one.join() for one in crowd))
    done = asyncio.Event()
    comments: dict[int, str] = {}
    holds: list[tuple[Returning, str]] = []

    async def busy(one: Returning, n: int) -> None:
        count = 0
        while not done.is_set():
            count += 1
            rid = f"rid-{n:04d}-{count:010d}"
            if count % 5 == 1:
                buyer = Returning(
                    one.address.replace("ws", "http").removesuffix("/live"),
                    show,
                    token(f"g_buyer_{n}_{count}"),
                )
                buyer.urls = urls
                await buyer.back()
                hold = await buyer.surely("buy", rid=rid, drop=drop, lines=[["MUG-S", 1]])
                assert hold["state"] == "held"
                holds.append((buyer, rid))
                await buyer.close()
            said = await one.surely("comment", text=f"{n} {count}", rid=rid)
            comments[int(str(said["offset"]))] = f"{n} {count}"
            await asyncio.sleep(0.4)

    work = [asyncio.create_task(busy(one, n)) for n, one in enumerate(crowd)]

    async def more() -> None:
        before = len(comments)
        await until(lambda: len(comments) > before + 10)

    times = []
    for place, old in enumerate(nodes):
        await more()
        began = time.monotonic()
        assert await asyncio.to_thread(old.stop) == 0, old.output
        times.append(time.monotonic() - began)
        port = int(urls[place].rpartition(":")[2])
        again = program(tmp_path / f"again{place}", valkey_url, postgres_url, **settings)
        again._command[again._command.index("--port") + 1] = str(port)
        stack.enter_context(again)
    await more()
    done.set()
    await asyncio.gather(*work)
    goodbyes = sum(name == "goodbye" for one in crowd for name, _ in one.session.directs)
    for one in crowd:
        if one.close_code is not None or one._socket is None:
            await one.back()
        await one.wait_for(lambda one=one: one.room.chat >= max(comments), what="the last comment")
        assert (one.room.missing_control, one.room.missing_comments) == (0, 0)
        assert one.room.snapshots == 1, "recovered each time, exactly"
        seen = {offset: value["text"] for offset, value in one.room.comments}
        assert {offset: seen.get(offset) for offset in comments} == comments
        await one.close()
    assert goodbyes >= 10
    assert max(times) < 15
    async with Api(urls[0], HOST) as api:
        for buyer, rid in holds:
            own = await api.get("/api/v1/holds", token=buyer.session.token)
            assert rid in str(own), "a hold that was answered is there"


async def test_several_nodes_serve_one_port_and_a_dead_one_comes_back(
    tmp_path: Path, valkey_url: str, sqlite_url: str
) -> None:
    with program(tmp_path / "n", valkey_url, sqlite_url, "--nodes", "2") as parent:
        names: set[str] = set()

        async def both() -> bool:
            _, text = await status(parent.url, "/metrics")
            names.update(re.findall(r'vitrine_node_info{node="(.*)"}', text))
            return len(names) == 2

        await until(both)
        show = await new_show(parent.url, 3)
        crowd = [Shopper(parent.url, show, token(f"g_{n}")) for n in range(12)]
        await asyncio.gather(*(one.join() for one in crowd))
        offset = await crowd[0].comment("to all")
        for one in crowd:
            await one.wait_for(
                lambda one=one: offset in dict(one.room.comments), what="the comment"
            )
        children = _children(parent.pid)
        os.kill(children[0], signal.SIGKILL)
        await until(lambda: "restart in" in parent.output)
        await until(lambda: len(set(_children(parent.pid)) - {children[0]}) == 2)
        for one in crowd:
            if one.close_code is not None:
                await one.close()
                await one.join()
        assert await crowd[0].comment("still here") > offset
        os.kill(parent.pid, signal.SIGTERM)
        await asyncio.gather(
            *(
                one.wait_for(lambda one=one: one.close_code is not None, what="the close")
                for one in crowd
            )
        )
        assert {one.close_code for one in crowd} == {4000}
        assert all(one.session.directs[-1][0] == "goodbye" for one in crowd)
        for one in crowd:
            await one.close()


async def test_a_second_signal_ends_at_once(
    tmp_path: Path, valkey_url: str, sqlite_url: str
) -> None:
    for arguments in ((), ("--nodes", "2")):
        running = program(
            tmp_path / "x", valkey_url, sqlite_url, *arguments, LIVE_DRAIN_S="600"
        ).start()
        try:
            show = await new_show(running.url, 1)
            ada = Shopper(running.url, show, token("g_ada"))
            await ada.join()
            assert ada._socket is not None
            ada._socket.transport.pause_reading()  # type: ignore[attr-defined]
            os.kill(running.pid, signal.SIGTERM)
            await until(lambda running=running: _refuses(running.url))
            began = time.monotonic()
            assert await asyncio.to_thread(running.stop) == 0, running.output
            assert time.monotonic() - began < 4, "the close alone may take 5 s"
            await ada.cut()
        finally:
            running.kill()


async def _refuses(url: str) -> bool:
    try:
        await status(url, "/healthz")
    except httpx.ConnectError:
        return True
    except httpx.HTTPError:
        return False
    return False


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_a_broker_outage_leaves_the_rest_working_is_visible_and_heals(
    how: str, tmp_path: Path, sqlite_url: str, stack: ExitStack
) -> None:
    (tmp_path / "valkey").mkdir()
    valkey = Valkey(tmp_path / "valkey", aof=True)
    valkey.start()
    stack.callback(valkey.kill)
    node = stack.enter_context(program(tmp_path / "n", valkey.url, sqlite_url))
    show = await new_show(node.url, 5)
    async with Host(node.url, show, HOST) as host, Shopper(node.url, show, token("g_a")) as ada:
        drop = await open_drop(host)
        before = await ada.comment("before")
        await ada.wait_for(lambda: before in dict(ada.room.comments), what="her own comment")
        if how == "stopped":
            valkey.signal(signal.SIGSTOP)
        else:
            valkey.kill()
        assert (await ada.command("ping"))["now_ms"] > 0
        hold = await _buy(ada, drop)
        assert hold["state"] == "held"
        with pytest.raises(Refused, match="unavailable"):
            await ada.comment("nobody hears this")

        async def visible() -> bool:
            code, text = await status(node.url)
            _, numbers = await status(node.url, "/metrics")
            # Not 503: all nodes lose the broker at once, and there is enough left to serve.
            away = json.loads(text) == {"broker": "away", "database": "ok"}
            return code == 200 and away and "vitrine_broker_ok 0.0" in numbers

        await until(visible, 30)
        # Who comes back meanwhile gets the room as it is known here.
        async with Shopper(node.url, show, token("g_b")) as bob:
            assert before in dict(bob.room.comments)
            assert (await ada.command("cancel", rid=hold["rid"]))["state"] == "cancelled"
            if how == "stopped":
                valkey.signal(signal.SIGCONT)
            else:
                valkey.start()

            async def healed() -> bool:
                return '"broker":"ok"' in (await status(node.url))[1]

            await until(healed, 30)
            snapshots = bob.room.snapshots
            after = await ada.comment("after")
            await bob.wait_for(lambda: "after" in str(list(bob.room.comments)), what="the comment")
            assert (bob.room.missing_control, bob.room.missing_comments) == (0, 0)
            if how == "stopped":  # the numbering lived on: nothing was sent anew
                assert bob.room.snapshots == snapshots == 1
                assert dict(bob.room.comments).keys() >= {before, after}


async def _buy(one: Shopper, drop: str) -> dict[str, object]:
    """The same press until it is decided."""
    rid = "rid-outage-0000000001"
    async with asyncio.timeout(30):
        while True:
            try:
                return await one.buy(drop, [("MUG-S", 1)], rid=rid, retry=True)
            except Refused as refused:
                if refused.code not in ("busy", "unavailable"):
                    raise
                await asyncio.sleep((refused.retry_after_ms or 100) / 1000)
