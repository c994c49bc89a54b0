"""Coming in: many at once, too many, from one address, and to a node that is full."""

import asyncio

import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from commerce.errors import CommerceError, Unavailable
from live import belongings
from live.app import App, make_asgi
from live.belongings import Belongings
from live.server_uvicorn import listen, make_server, serve
from loadtests.client import SUBPROTOCOL, decode, encode
from loadtests.refused import Refused
from realtime.admission import Admission, JoinLimits
from tests.live.conftest import Node
from tests.live.test_commands import open_sale, product, show
from tests.waiting import until

__all__ = ["product", "show"]  # fixtures


class Stuck(Belongings):
    """Counts what is asked, and waits until it may answer."""

    def __init__(self, fails: CommerceError | None = None) -> None:
        self.gate = asyncio.Event()
        self.asked: list[list[str]] = []
        self.fails = fails
        super().__init__(self, self, self)  # type: ignore[arg-type]

    async def open_holds_of(self, viewers: list[str]) -> dict[str, list[object]]:
        self.asked.append(viewers)
        await self.gate.wait()
        if self.fails is not None:
            raise self.fails
        return {"v1": ["a hold"]}

    async def of_viewers(self, viewers: list[str], limit: int = 0) -> dict[str, list[object]]:
        return {}

    async def find_all(self, rids: list[str]) -> dict[str, object]:
        return {}


async def test_joins_that_come_together_are_one_question() -> None:
    shop = Stuck()
    first = asyncio.create_task(shop.of("v0"))
    await until(lambda: shop.asked == [["v0"]])
    others = [asyncio.create_task(shop.of(f"v{n}")) for n in range(1, 51)]
    gone = asyncio.create_task(shop.of("gone"))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    shop.gate.set()
    await first
    answers = await asyncio.gather(*others)
    assert len(shop.asked) == 2
    assert shop.asked[1] == sorted(f"v{n}" for n in range(1, 51))
    assert answers[0].holds == ["a hold"]
    assert answers[1].holds == ()


async def test_an_outage_is_told_to_all_who_wait_and_ends_with_it() -> None:
    shop = Stuck(Unavailable(10))
    waiting = [asyncio.create_task(shop.of(f"v{n}")) for n in range(3)]
    await until(lambda: bool(shop.asked))
    shop.gate.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable] * 3
    shop.fails = None
    assert (await shop.of("v1")).holds == ["a hold"]


async def test_a_node_that_ends_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(belongings, "WAITING_MAX", 2)
    shop = Stuck()
    waiting = [asyncio.create_task(shop.of(f"v{n}")) for n in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Exception, match="busy"):
        await shop.of("v3")
    await shop.close()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable] * 2


async def test_a_crowd_joins_with_a_few_questions_and_each_gets_its_own(
    node: Node, show: str
) -> None:
    async with node.host(show) as host:
        await host.take_console()
        await host.act("go_live")
        drop = await open_sale(host)
        async with node.viewer(show, "g_buyer") as buyer:
            rid = (await buyer.buy(drop, [("MUG-S", 1)]))["rid"]
        before = node.app.belongings.questions
        crowd = [node.viewer(show, f"g_{n}") for n in range(40)]
        buyer.undecided = {rid}
        stranger = node.viewer(show, "g_stranger")
        stranger.undecided = {rid}
        replies = await asyncio.gather(*(one.join() for one in [buyer, stranger, *crowd]))
        assert node.app.belongings.questions - before < 42
        assert [hold["rid"] for hold in replies[0]["holds"]] == [rid]
        assert replies[0]["decided"][0]["state"] == "held"
        assert replies[1]["decided"] == [{"rid": rid, "state": "unknown"}]
        assert all(reply["holds"] == [] for reply in replies[1:])
        for one in [buyer, stranger, *crowd]:
            await one.close()


class Sized:
    """The node's application once more, on a port of its own, with other bounds."""

    def __init__(self, app: App, admission: Admission, proxies: tuple[str, ...] = ()) -> None:
        object.__setattr__(app, "admission", admission)
        self.app = app
        self.listener = listen("127.0.0.1", 0)
        self.address = f"ws://127.0.0.1:{self.listener.getsockname()[1]}/live"
        asgi = make_asgi(app, (), "http://127.0.0.1")
        self.server = make_server(asgi, log_level="warning", proxies=proxies)

    async def __aenter__(self) -> "Sized":
        started = asyncio.Event()
        self.serving = asyncio.create_task(serve(self.server, self.listener, started))
        await started.wait()
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.server.stop()
        await self.serving
        self.listener.close()

    async def join(self, show: str, token: str, **headers: str) -> tuple[object, ...]:
        """(kind, body) of the answer to a join, from whoever the headers say."""
        async with connect(
            self.address,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            proxy=None,
            additional_headers={name.replace("_", "-"): text for name, text in headers.items()},
        ) as socket:
            await socket.send(encode(1, "join", {"show": show, "token": token}))
            while True:
                for envelope in decode(await socket.recv(decode=False)):
                    if envelope[0] in (0, 1):
                        return envelope[0], envelope[2]


async def test_one_address_is_paced_behind_a_proxy_and_the_others_are_not(
    node: Node, show: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realtime.admission.WAIT_MAX_MS", 0)
    limits = Admission(connections_max=1000, limits=JoinLimits(1000, 1))
    async with Sized(node.app, limits, ("127.0.0.0/8",)) as door:
        crowd = [
            await door.join(show, node.token(id_=f"g_{n}"), x_forwarded_for="1.1.1.1, 203.0.113.9")
            for n in range(8)
        ]
        kinds = [kind for kind, _ in crowd]
        assert kinds[:5] == [0] * 5
        assert 1 in kinds[5:]
        refused = next(body for kind, body in crowd if kind == 1)
        assert isinstance(refused, dict)
        assert refused["code"] == "busy"
        assert refused["retry_after_ms"] > 0
        other = await door.join(show, node.token(id_="g_o"), x_forwarded_for="203.0.113.10")
        assert other[0] == 0


async def test_a_full_node_says_when_to_come_back_and_where(node: Node, show: str) -> None:
    object.__setattr__(node.app, "elsewhere", "wss://other.example/live")
    async with Sized(node.app, Admission(connections_max=1)) as door, node.viewer(show):
        async with connect(
            door.address, subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None, proxy=None
        ) as late:
            ((kind, name, value),) = decode(await late.recv(decode=False))
            assert (kind, name) == (5, "goodbye")
            assert value == {"after_ms": 0, "url": "wss://other.example/live"}
            await late.wait_closed()
            assert late.close_code == 4005
        assert node.app.numbers()["connections_turned_away"] == 1


async def test_a_join_in_a_burst_waits_for_its_place_and_hosts_do_not(
    node: Node, show: str
) -> None:
    node.app.admission._limits = JoinLimits(5, 1000)
    replies = await asyncio.gather(*(node.viewer(show, f"g_{n}").join() for n in range(8)))
    assert len(replies) == 8
    assert node.app.admission.waited == 3
    for _ in range(20):
        async with node.host(show):
            pass
    assert node.app.admission.refused == 0


async def test_joins_of_unknown_shows_leave_nothing_behind(node: Node, show: str) -> None:
    for n in range(3):
        lost = node.viewer(f"s_nowhere{n}")
        with pytest.raises(Refused, match="unknown_show"):
            await lost.join()
        await lost.close()
    assert f"s_nowhere{0}" not in node.app.admission._rooms
