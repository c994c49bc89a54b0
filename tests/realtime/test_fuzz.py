"""Hostile bytes in short form: in this process, where tasks can be counted, and as the drill.

The long form is `python -m loadtests fuzz`.
"""

import asyncio
import json
import os
import random
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.__main__ import main
from loadtests.attack import Attack
from loadtests.hostile import Hostile, frame
from realtime.connection import Connection
from realtime.errors import Rejected
from realtime.wire import COMMAND_BYTES_MAX, Command, decode_command
from tests.realtime.kit import Node, until, viewer

FRAMES = 2_000


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0


class Strict(Node):
    """Checks its parameters, as the product does: an `internal` is then a fault of realtime."""

    async def handle(self, connection: Connection, command: Command) -> object:
        known = command.params.keys() <= {"show", "token", "n"}
        if not known or command.params.get("show", "show") != "show" or command.name == "fail":
            raise Rejected("bad_params", "No.")
        if command.name == "join" and "show" in command.params:
            return await super().handle(connection, command)
        return {}


async def test_a_hub_survives_hostile_peers_and_keeps_nothing_of_them(
    realtime_valkey_url: str, prefix: str
):
    asyncio.get_running_loop().set_debug(False)
    async with Strict(realtime_valkey_url, prefix).running() as one, viewer(one) as honest:
        await honest.join("show")
        before = asyncio.all_tasks(), descriptors()
        address = f"http://127.0.0.1:{one.port}"
        async with asyncio.timeout(90):
            attack = asyncio.create_task(Attack(address, "show", ["t"], seed=2).run(FRAMES))
            pings = 0
            while not attack.done():
                await honest.command("echo", n=pings)
                pings += 1
                await asyncio.wait([attack], timeout=0.15)
            told = attack.result()
        assert told["problems"] == []
        assert told["frames"] >= FRAMES
        assert told["codes"]["bad_frame"] > 50
        assert told["codes"]["bad_params"] > 0
        assert "internal" not in told["codes"]
        assert not {"1011", "4006"} & set(told["closes"])
        assert pings > 0
        await until(lambda: len(one.server.server_state.connections) == 1, "all others gone")
        await until(lambda: one.hub.connections == 1, "the hub has let go")
        await until(lambda: asyncio.all_tasks() == before[0], "no task is left")
        await until(lambda: descriptors() <= before[1], "no descriptor is left")
        assert not one.server.server_state.tasks - before[0]


@pytest.mark.slow
def test_the_drill_in_short_form(capsys: pytest.CaptureFixture[str]):
    code = main(["fuzz", "--json", "--frames", str(FRAMES)])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["problems"] == []
    assert (code, result["ok"]) == (0, True)
    assert (result["crashes"], result["leaked_fds"], result["internal_errors"]) == (0, 0, 0)
    assert result["frames"] >= FRAMES
    assert result["connections"] > 20
    assert result["pings"] > 0


def test_the_same_seed_makes_the_same_visits_of_every_kind():
    def told(seed: int) -> list[tuple[str, list[bytes]]]:
        visits = Hostile("localhost", random.Random(seed)).visits()
        return [(visit.kind, visit.pieces) for visit, _ in zip(visits, range(600), strict=False)]

    assert told(1) == told(1)
    assert told(1) != told(2)
    assert min(Counter(kind for kind, _ in told(1)).values()) > 0
    assert len({kind for kind, _ in told(1)}) == 13


def test_the_framing_of_the_hostile_crowd_is_lawful_where_it_means_to_be():
    assert frame(2, b"abcde", mask=b"\1\2\3\4") == b"\x82\x85\1\2\3\4`````"[:6] + bytes(
        byte ^ key for byte, key in zip(b"abcde", b"\1\2\3\4\1", strict=True)
    )
    assert frame(9, b"", mask=None) == b"\x89\x00"
    assert frame(2, b"x" * 200)[:4] == b"\x82\xfe\x00\xc8"


def outcome(data: bytes) -> str:
    try:
        command = decode_command(data)
    except Rejected as refused:
        return refused.code
    assert isinstance(command, Command)
    return "a command"


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400) | st.binary(max_size=9).map(lambda b: b * COMMAND_BYTES_MAX))
def test_any_bytes_are_a_command_or_refused(data: bytes):
    assert outcome(data) in {"a command", "bad_frame", "too_large", "too_deep"}


def test_the_crowd_does_not_import_the_server():
    for name in ("hostile", "attack"):
        source = Path(__file__).parents[2] / "loadtests" / f"{name}.py"
        text = source.read_text(encoding="utf-8")
        assert "from realtime" not in text
        assert "from live" not in text
