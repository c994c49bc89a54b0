"""The values in the vectors are those that a real server sends, key by key and type by type.

Goal: a vector is normative for its bytes, but nobody would notice if the server's facts lost a key
or changed a type. Method: a small show is played, everything three people heard is collected, and
each value must fit a vector of the same name: all of its keys, with the same types. More keys are
allowed, as the protocol says; null fits anything.
"""

import contextlib
import functools
import re
from typing import Any

import pytest
from typing_extensions import override

from loadtests import client
from loadtests.api import Api
from loadtests.client import Session
from loadtests.journey import DELIVERY
from loadtests.server import OwnServer
from loadtests.shopper import Host, Shopper
from loadtests.stage import Stage
from tests import vectors

PLAYED = {
    "fact show", "fact pin", "fact announcement", "fact drop:", "state stock:", "state viewers",
    "state likes", "comment", "direct hold", "direct order", "direct sale", "direct console",
    "reply join", "reply ping", "reply comment", "reply buy", "reply cancel", "reply like",
    "reply take_console", "reply open_drop", "reply adjust_stock",
}  # fmt: skip


def name_of(envelope: list[Any]) -> str:
    """What a pushed envelope is about, such as `fact drop:`."""
    match envelope:
        case [client.CONTROL, _, str(key), *_]:
            return "fact " + re.sub(":.*", ":", key)
        case [client.STATE, str(key), *_]:
            return "state " + re.sub(":.*", ":", key)
        case [client.CHAT, *_]:
            return "comment"
        case [client.DIRECT, str(name), *_]:
            return f"direct {name}"
    return ""


def models() -> dict[str, list[Any]]:
    """The values of all vectors, by name."""
    found: dict[str, list[Any]] = {}
    for vector in vectors.read()["pushes"]:
        meaning = vector["meaning"]
        name = name_of(meaning)
        if meaning[0] == client.REPLY:
            name = re.sub("^reply to (\\w+).*", r"reply \1", vector["name"])
        found.setdefault(name, []).append(meaning[-1])
    return found


def fits(value: Any, model: Any) -> bool:
    match value, model:
        case (None, _) | (_, None):
            return True
        case dict(), dict():
            return all(key in value and fits(value[key], model[key]) for key in model)
        case list(), list():
            return all(any(fits(one, other) for other in model) for one in value if model)
    return type(value) is type(model)


class Ear(Session):
    """A session that remembers every value it heard, by name."""

    def __init__(self, show: str, token: str, heard: list[tuple[str, Any]]) -> None:
        super().__init__(show, token)
        self._heard = heard

    @override
    def receive(self, frame: bytes) -> list[list[Any]]:
        envelopes = super().receive(frame)
        for envelope in envelopes:
            self._heard.append((name_of(envelope), envelope[-1]))
            if envelope[0] == client.SNAPSHOT:
                facts, states = envelope[1]["facts"], envelope[1]["states"]
                self._heard += [(name_of([2, 0, key, 0]), facts[key]) for key in facts]
                self._heard += [(name_of([3, key, 0, 0]), states[key][1]) for key in states]
        return envelopes


def listen(shopper: Shopper, heard: list[tuple[str, Any]]) -> None:
    shopper.session = Ear(shopper.session.show, shopper.session.token, heard)


def told(shopper: Shopper, any_of: set[str]) -> bool:
    """Whether one of these direct pushes has come."""
    return bool(any_of & {name for name, _ in shopper.session.directs})


async def play(api: Api, heard: list[tuple[str, Any]]) -> None:
    """Every command once; one hold is sold, one cancelled from another window."""

    async def ask(shopper: Shopper, name: str, /, **params: Any) -> Any:
        reply = await (shopper.act if isinstance(shopper, Host) else shopper.command)(
            name, **params
        )
        heard.append((f"reply {name}", reply))
        return reply

    stage = Stage(api, units=3)
    async with stage.on_air(hold_s=60) as host:
        token = await api.guest("Ada")
        second = Host(api.url, stage.show, api.token)
        viewer, window = (Shopper(api.url, stage.show, token) for _ in range(2))
        for one in (viewer, window, second):
            listen(one, heard)
        async with contextlib.AsyncExitStack() as left:
            for one in (viewer, window, second):
                heard.append(("reply join", await one.join()))
                left.push_async_callback(one.close)
            rids = ["shape-of-a-hold-1", "shape-of-a-hold-2"]
            await ask(viewer, "ping")
            await ask(viewer, "like", n=3)
            await ask(viewer, "comment", text="hello", rid="shape-of-a-comment")
            for rid in rids:
                await ask(viewer, "buy", rid=rid, drop=stage.drop, lines=[[stage.sku, 1]])
            await ask(window, "cancel", rid=rids[0])
            await viewer.wait_for(
                lambda: viewer.session.holds[rids[0]]["state"] == "cancelled", what="cancelled"
            )
            path = f"/api/v1/holds/{rids[1]}/payment"
            page = await api.call("POST", path, DELIVERY, token=token, key="shape")
            await api.press(await api.payment_form(page["url"]))
            for one in (viewer, second):
                await one.wait_for(functools.partial(told, one, {"order", "sale"}), what="the sale")
            heard.append(("reply take_console", await second.command("take_console")))
            await second.take_console()
            await ask(second, "announce", text="hello")
            await second.act("close_drop", drop=stage.drop)
            opened = await ask(second, "open_drop", lines=[{"sku": stage.sku}], countdown_s=600)
            await ask(second, "adjust_stock", sku=stage.sku, delta=1)
            said = {f"drop:{opened['drop']}", "announcement", "likes", "viewers"}
            await viewer.wait_for(
                lambda: said <= {*viewer.room.facts, *viewer.room.states}, what="everything said"
            )
            await host.take_console()
            await second.wait_for(lambda: told(second, {"console"}), what="console")


async def test_what_a_server_sends_has_the_shape_of_the_vectors(
    own_server: OwnServer, host_token: str
) -> None:
    heard: list[tuple[str, Any]] = []
    async with Api(own_server.url, host_token) as api:
        await play(api, heard)
    known = models()
    assert {name for name, _ in heard} >= PLAYED
    for name, value in heard:
        if name:
            # A command whose result is not written down has an empty one.
            allowed = known.get(name, [{}] if name.startswith("reply") else [])
            assert any(fits(value, model) for model in allowed), (name, value, allowed)


@pytest.mark.parametrize(
    ("value", "model", "fitting"),
    [
        ({"a": 1, "b": 2}, {"a": 3}, True),
        ({"b": 2}, {"a": 3}, False),
        ({"a": "1"}, {"a": 3}, False),
        ({"a": None}, {"a": 3}, True),
        ([1, "x"], ["y", 2], True),
        ([{"a": True}], [{"a": 1}], False),
    ],
)
def test_shapes_are_told_apart(value: Any, model: Any, fitting: bool) -> None:
    assert fits(value, model) is fitting
