"""`drain`: two nodes of one shop are restarted one after the other under chat and buys.

Two `python -m live serve` on one Valkey and one database. Visitors sit on both, some speak, some
buy; each node gets SIGTERM, is waited for and started again, and only then the other. Nothing may
be missing: every visitor's room has no gap in its offsets and is the room that a new visitor sees;
every comment that was answered is there with its text, every press of Buy that was answered is
still known.
"""

import argparse
import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from live.data_folder import DataFolder
from live.engines import EmbeddedValkey, find_valkey
from live.identity import Identity, Role, Tokens
from live.settings import VARIABLES
from loadtests.api import Api
from loadtests.bench import NO_LIMITS, TOKEN_S, folder_of_a_bench, machine
from loadtests.server import OwnServer
from loadtests.shopper import Host, Shopper, wall_ms
from loadtests.stage import Stage, oversold
from loadtests.steps import StepFailed, Steps
from loadtests.visitor import Visitor

NODES: Final = 2
UNITS: Final = 100_000
HOLD_S: Final = 3600
PER_VIEWER: Final = 99
SPEAK_EVERY_S: Final = 2.0
BUY_EVERY_S: Final = 1.0
BACK_S: Final = 40.0
BETWEEN_S: Final = 2.0
EQUAL_S: Final = 10.0
UNDECIDED_MAX: Final = 8
"""Presses asked about in one join; the wire allows no more."""


def options(parser: argparse.ArgumentParser) -> None:
    """Options beside the common ones."""
    parser.add_argument("--viewers", type=int, default=60, help="visitors; a third speak")
    parser.add_argument("--buyers", type=int, default=6, help="more who buy")
    parser.add_argument("--between-s", type=float, default=BETWEEN_S, help="between restarts")
    parser.add_argument("--database-url", default="", help="of both nodes; default: an SQLite file")


def main(options_: argparse.Namespace) -> dict[str, Any]:
    """Run it; the result."""
    return asyncio.run(_run(options_))


class Pair:
    """Two nodes and the people on them."""

    def __init__(self, servers: list[OwnServer], secret: str) -> None:
        self.servers = servers
        self.urls = [server.url for server in servers]
        self._tokens = Tokens(secret, wall_ms)

    def token(self, who: str, role: Role = Role.GUEST) -> str:
        """For somebody, good on both."""
        return self._tokens.issue(Identity(who, who, role), TOKEN_S)


@contextlib.asynccontextmanager
async def _valkey(folder: Path) -> AsyncIterator[str]:
    with DataFolder(folder) as data:
        data.logs.mkdir(mode=0o700, exist_ok=True)
        engine = EmbeddedValkey(data, find_valkey())
        try:
            yield await engine.start()
        finally:
            await engine.stop()


@contextlib.asynccontextmanager
async def _pair(database_url: str) -> AsyncIterator[Pair]:
    with folder_of_a_bench() as folder:
        secret = secrets.token_hex(32)
        async with _valkey(folder / "valkey") as valkey_url, contextlib.AsyncExitStack() as stack:
            shared = {
                "LIVE_VALKEY_URL": valkey_url,
                "LIVE_DATABASE_URL": database_url or f"sqlite:///{folder / 'shop.db'}",
                "LIVE_SECRET": secret,
                "LIVE_LOG_LEVEL": "warning",
            }
            if any(variable.name == NO_LIMITS for variable in VARIABLES):
                shared[NO_LIMITS] = "off"
            servers: list[OwnServer] = []
            for number in range(NODES):
                server = OwnServer(shared | {"LIVE_NODE_NAME": f"node-{number}"})
                servers.append(await asyncio.to_thread(server.__enter__))
                stack.push_async_callback(asyncio.to_thread, server.__exit__, None, None, None)
            yield Pair(servers, secret)


async def _run(options_: argparse.Namespace) -> dict[str, Any]:
    steps = Steps(quiet=options_.quiet)
    found: dict[str, Any] = {}
    try:
        async with _pair(options_.database_url) as pair, Api(pair.urls[0]) as api:
            api.token = pair.token("bench-host", Role.HOST)
            stage = Stage(api, units=UNITS)
            with steps.step("prepare"):
                await _open_show(stage)
            visitors = [
                Visitor(pair.urls, stage.show, pair.token(f"v{number}"), number)
                for number in range(options_.viewers + options_.buyers)
            ]
            found = await _restarts(steps, pair, stage, visitors, options_)
    except StepFailed:
        pass
    steps.check(found.get("entries_missing") == 0, "entries are missing")
    steps.check(found.get("answered_lost") == 0, "something that was answered is lost")
    steps.check(found.get("different_rooms") == 0, "visitors do not hold the room as it is")
    steps.check(found.get("oversold") == 0, "more was promised than there is")
    steps.check(not found.get("failures"), "visitors failed")
    steps.check(found.get("answered_comments", 0) > 0, "nobody spoke")
    steps.check(found.get("answered_buys", 0) > 0, "nobody bought")
    return steps.result(viewers=options_.viewers, buyers=options_.buyers, **found, **machine())


async def _open_show(stage: Stage) -> None:
    await stage.import_product()
    await stage.create_show()
    async with Host(stage.api.url, stage.show, stage.api.token) as host:
        await host.take_console()
        await host.act("go_live")
        await host.act("pin_product", product=stage.product)
        await stage.open_drop(host, hold_s=HOLD_S, per_viewer=PER_VIEWER)


async def _restarts(
    steps: Steps,
    pair: Pair,
    stage: Stage,
    visitors: list[Visitor],
    options_: argparse.Namespace,
) -> dict[str, Any]:
    staying = [asyncio.create_task(visitor.stay()) for visitor in visitors]
    doing: list[asyncio.Task[None]] = []
    nodes: list[dict[str, float]] = []
    try:
        with steps.step("join"):
            await _all_here(steps, visitors)
        buyers, others = visitors[: options_.buyers], visitors[options_.buyers :]
        doing += [asyncio.create_task(one.chat(SPEAK_EVERY_S)) for one in others[::3]]
        doing += [
            asyncio.create_task(one.press(stage.drop, stage.sku, BUY_EVERY_S)) for one in buyers
        ]
        for number, server in enumerate(pair.servers):
            with steps.step(f"restart {number}"):
                await asyncio.sleep(options_.between_s)
                nodes.append(await _restart(server))
                await _all_here(steps, visitors)
        await asyncio.sleep(options_.between_s)
        with steps.step("quiet"):
            for task in doing:
                task.cancel()
            await asyncio.gather(*doing, return_exceptions=True)
        with steps.step("compare"):
            return {"nodes": nodes, **await _compare(pair, stage, visitors)}
    finally:
        for task in (*doing, *staying):
            task.cancel()
        await asyncio.gather(*doing, *staying, return_exceptions=True)


async def _restart(server: OwnServer) -> dict[str, float]:
    stopped_s = await asyncio.to_thread(server.stop)
    started = time.monotonic()
    await asyncio.to_thread(server.start)
    return {"stop_s": round(stopped_s, 2), "start_s": round(time.monotonic() - started, 2)}


async def _all_here(steps: Steps, visitors: list[Visitor]) -> None:
    here = await asyncio.gather(*(visitor.wait_here(BACK_S) for visitor in visitors))
    if not all(here):
        failures = [failure for visitor in visitors for failure in visitor.failures]
        steps.stop(f"{here.count(False)} visitors did not come back: {failures[:3]}")


async def _compare(pair: Pair, stage: Stage, visitors: list[Visitor]) -> dict[str, Any]:
    """Everybody against a newcomer's room, and against what was answered."""
    async with Shopper(pair.urls[0], stage.show, pair.token("newcomer")) as newcomer:
        different = await _different(newcomer, visitors)
    comments = {at: text for one in visitors for at, text in one.answered.comments.items()}
    lost = 0
    for one in visitors:
        seen = {offset: comment["text"] for offset, comment in one.room.comments}
        # Who was given a snapshot has only the newest comments before it, and was told so.
        first = 0 if one.recovered == one.joins - 1 else min(seen, default=0)
        lost += sum(seen.get(at) != text for at, text in comments.items() if at >= first)
    answered = [(one, rid) for one in visitors for rid in one.answered.holds]
    unknown = await _unknown_holds(pair, stage, visitors)
    return {
        "answered_comments": len(comments),
        "answered_buys": len(answered),
        "answered_lost": lost + unknown,
        "entries_missing": sum(
            one.room.missing_control + one.room.missing_comments for one in visitors
        ),
        "entries_twice": sum(one.room.duplicates for one in visitors),
        "different_rooms": different,
        "joins": sum(one.joins for one in visitors),
        "came_back": sum(one.joins - 1 for one in visitors),
        "recovered": sum(one.recovered for one in visitors),
        "goodbyes": sum(one.goodbyes for one in visitors),
        "repeated_commands": sum(one.repeats for one in visitors),
        "failures": [failure for one in visitors for failure in one.failures][:5],
        "oversold": oversold(await stage.stock()),
    }


async def _different(newcomer: Shopper, visitors: list[Visitor]) -> int:
    """How many hold other facts or states, or another position, than a newcomer."""
    keys = ("epoch", "control", "chat", "facts", "states")
    deadline = time.monotonic() + EQUAL_S
    while True:
        wanted = {key: newcomer.room.picture()[key] for key in keys}
        rooms = [{key: one.room.picture()[key] for key in keys} for one in visitors]
        different = sum(room != wanted for room in rooms)
        if not different or time.monotonic() > deadline:
            return different
        await asyncio.sleep(0.1)


async def _unknown_holds(pair: Pair, stage: Stage, visitors: list[Visitor]) -> int:
    """Answered presses and cancellations that the shop does not know as they were answered."""
    unknown = 0
    for one in visitors:
        wanted = list(one.answered.holds)
        for at in range(0, len(wanted), UNDECIDED_MAX):
            again = Shopper(pair.urls[1], stage.show, one.session.token)
            again.undecided = set(wanted[at : at + UNDECIDED_MAX])
            async with again:
                known = again.session.holds
            unknown += sum(
                known.get(rid, {}).get("state") != one.answered.holds[rid]
                for rid in wanted[at : at + UNDECIDED_MAX]
            )
    return unknown
