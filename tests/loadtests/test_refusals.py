"""Every refused vector, sent to a real server over a real socket: each gets its documented code.

Nothing a client sends ends its connection, except too many frames that are no commands; so the
connection is renewed before there are as many. A host sends them, because hosts have no rate limit.
"""

import contextlib
from collections.abc import AsyncIterator

import pytest

from loadtests.api import Api
from loadtests.refused import Refused
from loadtests.server import OwnServer
from loadtests.shopper import Host
from loadtests.stage import Stage
from tests import vectors
from tests.vectors import Vector, frame_of, plain

REFUSED = vectors.read()["refused_commands"]
BAD_FRAMES_BORNE = 6
JOINS_BORNE = 10
"""Before it has joined, even a host has a rate limit."""


def staged(stage: str) -> list[Vector]:
    chosen = [vector for vector in REFUSED if vector["stage"] == stage]
    assert chosen
    return chosen


@pytest.fixture
async def stage(own_server: OwnServer, host_token: str) -> AsyncIterator[Stage]:
    async with Api(own_server.url, host_token) as api:
        yield Stage(api, units=3)


@pytest.fixture
async def host(stage: Stage) -> AsyncIterator[Host]:
    async with stage.on_air() as host:
        yield host


async def answer(host: Host, frame: bytes, id_: int) -> dict[str, object]:
    try:
        await host.ask(frame, id_)
    except Refused as refused:
        return {"code": refused.code, "field": refused.details.get("field")}
    return {"code": "accepted", "field": None}


async def test_what_is_no_command_is_refused_and_the_connection_lives_on(host: Host) -> None:
    for number, vector in enumerate(staged("frame")):
        if number % BAD_FRAMES_BORNE == BAD_FRAMES_BORNE - 1:
            await host.close()
            await host.join()
        heard = await answer(host, frame_of(vector), 0)
        assert heard["code"] == vector["code"], vector["name"]
        assert "now_ms" in await host.command("ping"), vector["name"]


@pytest.mark.parametrize("kind", ["name", "params"])
async def test_what_is_no_such_command_is_refused(host: Host, kind: str) -> None:
    for vector in staged(kind):
        if vector["meaning"]["name"] != "join":  # joined already: refused for another reason
            heard = await answer(host, frame_of(vector), 1)
            expected = {"code": vector["code"], "field": vector.get("field")}
            assert heard == expected, vector["name"]


async def test_a_join_with_wrong_params_is_refused_and_may_be_repeated(
    host: Host, stage: Stage
) -> None:
    joins = [vector for vector in staged("params") if vector["meaning"]["name"] == "join"]
    assert joins
    for first in range(0, len(joins), JOINS_BORNE):
        newcomer = Host(stage.api.url, stage.show, stage.api.token)
        async with contextlib.aclosing(newcomer):
            await newcomer.connect()
            for vector in joins[first : first + JOINS_BORNE]:
                heard = await answer(newcomer, frame_of(vector), 1)
                assert heard == {"code": vector["code"], "field": vector["field"]}, vector["name"]
            reply = await newcomer.command("join", **newcomer.session.join_params())
            assert reply["you"]["role"] == "host"


async def test_what_breaks_the_rules_is_refused(host: Host, stage: Stage) -> None:
    for vector in staged("rules"):
        params = plain(vector["meaning"]["params"])
        assert isinstance(params, dict)
        if vector["meaning"]["name"] == "buy":
            params |= {"drop": stage.drop, "lines": [[stage.sku, params["lines"][0][1]]]}
        with pytest.raises(Refused) as refused:
            await host.command(vector["meaning"]["name"], **params)
        assert refused.value.code == vector["code"], vector["name"]
