"""`fuzz`: a crowd that sends nothing but hostile bytes, and one honest viewer who must not notice.

The crowd (`attack`, a process of its own) opens connection after connection at a real server:
noise, mutated commands, broken framing, floods, half frames that stay. Beside it a viewer of the
same show asks for a ping all the time. At the end the server must be alive, must have said
`internal` to nobody, must have logged no failure, and must hold no more descriptors and hardly more
memory than after a first short round, which pays for what is made once.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

from loadtests.api import Api
from loadtests.refused import Refused
from loadtests.server import ROOT, OwnServer
from loadtests.shopper import Shopper
from loadtests.stage import Stage
from loadtests.steps import FAILURES, StepFailed, Steps
from loadtests.target import Target, open_target

FRAMES: Final = 200_000
WARM_SHARE: Final = 0.1
TOKENS: Final = 12
PING_EVERY_S: Final = 0.15
"""Within the limit of 10 commands a second."""
WORST_PING_MS_MAX: Final = 2_000
"""More is a stall. The crowd, the server and the viewer share the machine's cores."""
POOL_FDS_MAX: Final = 8
"""Files and connections to its own engines that a server may open later: pools grow on demand."""
RSS_GROWTH_MAX: Final = 24 * 1024 * 1024
SETTLE_S: Final = 45.0
"""Until the server has let go of everything; its own deadlines are 5 s."""
ATTACK_S: Final = 3_600.0
SERVER_FAULTS: Final = ("Traceback (most", "Fatal error", "exception was never retrieved")
CLOSE_FAULTS: Final = ("1011", "4006")
INTERNAL: Final = "internal"


def options(parser: argparse.ArgumentParser) -> None:
    """Options beside the common ones."""
    parser.add_argument("--frames", type=int, default=FRAMES, help="hostile frames to send")
    parser.add_argument("--seed", type=int, default=1, help="the same seed sends the same bytes")


def main(options_: argparse.Namespace) -> dict[str, Any]:
    """Run it; the result."""
    with open_target(options_) as target:
        return asyncio.run(_Fuzz(target, options_).run())


class _Fuzz:
    def __init__(self, target: Target, options_: argparse.Namespace) -> None:
        self._target, self._options = target, options_
        self._steps = Steps(quiet=options_.quiet)
        self._pings: list[float] = []
        self._facts: dict[str, Any] = {
            "frames": 0, "connections": 0, "crashes": 0, "leaked_fds": None,
            "rss_growth_bytes": None, "worst_ping_ms": None, "internal_errors": 0,
        }  # fmt: skip

    async def run(self) -> dict[str, Any]:
        """All of it; the result."""
        try:
            async with Api(self._target.url) as api:
                with self._steps.step("stage"):
                    api.token = await self._target.host_token(api)
                    stage = Stage(api, units=100)
                    tokens = [await api.guest(f"Hostile {n}") for n in range(TOKENS)]
                    honest = await api.guest("Honest")
                async with stage.on_air():
                    await self._beside(stage.show, tokens, honest)
        except (StepFailed, *FAILURES) as error:
            if not isinstance(error, StepFailed):
                self._steps.wrong(f"{type(error).__name__}: {error}")
        return self._steps.result(seed=self._options.seed, **self._facts)

    async def _beside(self, show: str, tokens: list[str], honest: str) -> None:
        async with Shopper(self._target.url, show, honest) as viewer:
            with self._steps.step("warm_up"):
                await self._attack(show, tokens, WARM_SHARE, seed=self._options.seed + 1)
            before = await self._held()
            watching = asyncio.create_task(self._watch(viewer), name="honest viewer")
            try:
                with self._steps.step("attack"):
                    told = await self._attack(show, tokens, 1.0, seed=self._options.seed)
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
            with self._steps.step("settle"):
                self._judge_memory(before, await self._held(before))
                self._judge(told, viewer)

    async def _attack(
        self, show: str, tokens: list[str], share: float, seed: int
    ) -> dict[str, Any]:
        """The crowd's own numbers."""
        order = {
            "url": self._target.url, "show": show, "tokens": tokens, "seed": seed,
            "frames": max(1, int(self._options.frames * share)),
        }  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "loadtests.attack", cwd=ROOT,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(ATTACK_S):
                out, _ = await process.communicate(json.dumps(order).encode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            self._steps.stop(f"the crowd's process ended with {process.returncode}")
        told: dict[str, Any] = json.loads(out)
        return told

    async def _watch(self, viewer: Shopper) -> None:
        while True:
            started = time.perf_counter()
            try:
                await viewer.command("ping")
            except Refused as refused:
                self._steps.wrong(f"the honest viewer was refused: {refused.code}")
            except FAILURES as error:
                self._steps.wrong(f"the honest viewer: {type(error).__name__}: {error}")
                return
            took = time.perf_counter() - started
            self._pings.append(took * 1000)
            await asyncio.sleep(max(0.0, PING_EVERY_S - took))

    async def _held(self, before: "_Held | None" = None) -> "_Held | None":
        """What our own server holds, once it stands still."""
        own = self._target.own
        if own is None:
            return None
        deadline = time.monotonic() + SETTLE_S
        last = _held(own)
        while time.monotonic() < deadline:
            await asyncio.sleep(1)
            now = _held(own)
            if now.peers == last.peers and (before is None or now.peers <= before.peers):
                return now
            last = now
        return last

    def _judge_memory(self, before: "_Held | None", after: "_Held | None") -> None:
        if before is None or after is None:
            return
        leaked, growth = max(0, after.peers - before.peers), after.rss_bytes - before.rss_bytes
        pools = after.others - before.others
        self._facts.update(leaked_fds=leaked, pool_fds=pools, rss_growth_bytes=growth)
        self._steps.check(leaked == 0, f"{leaked} descriptors were not given back")
        self._steps.check(pools <= POOL_FDS_MAX, f"{pools} more files and connections to engines")
        self._steps.check(growth <= RSS_GROWTH_MAX, f"the server grew by {growth} bytes")

    def _judge(self, told: dict[str, Any], viewer: Shopper) -> None:
        check, facts = self._steps.check, self._facts
        internal = told["codes"].get(INTERNAL, 0) + sum(
            told["closes"].get(code, 0) for code in CLOSE_FAULTS
        )
        facts.update(
            frames=told["frames"],
            connections=told["connections"],
            internal_errors=internal,
            kinds=told["kinds"],
            refusals=told["codes"],
            closes=told["closes"],
            pings=len(self._pings),
            worst_ping_ms=round(max(self._pings, default=0.0), 1),
        )
        check(internal == 0, f"{internal} answers were the server's own fault")
        check(told["problem_count"] == 0, f"{told['problem_count']}: {told['problems']}")
        check(len(self._pings) > 0, "the honest viewer was not served")
        worst = facts["worst_ping_ms"]
        check(worst <= WORST_PING_MS_MAX, f"the honest viewer waited {worst} ms")
        check(viewer.close_code is None, f"the honest viewer was closed with {viewer.close_code}")
        books = (viewer.room.missing_control, viewer.room.missing_comments, viewer.room.duplicates)
        check(books == (0, 0, 0), f"the honest viewer missed, missed, saw twice: {books}")
        own = self._target.own
        if own is not None:
            log = own.log
            facts["crashes"] = sum(log.count(fault) for fault in SERVER_FAULTS)
            check(facts["crashes"] == 0, f"the server's log: {log[-2000:]}")
            check(_alive(own), "the server has ended")


class _Held(NamedTuple):
    peers: int
    """Open TCP sockets."""
    others: int
    """All other descriptors."""
    rss_bytes: int


def _held(own: OwnServer) -> _Held:
    root = Path(f"/proc/{own.pid}")
    tcp: set[str] = set()
    for name in ("tcp", "tcp6"):
        lines = (root / "net" / name).read_text(encoding="ascii").splitlines()[1:]
        tcp.update(f"socket:[{line.split()[9]}]" for line in lines)
    links = []
    for entry in (root / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(entry))
    peers = sum(link in tcp for link in links)
    pages = int((root / "statm").read_text(encoding="ascii").split()[1])
    return _Held(peers, len(links) - peers, pages * os.sysconf("SC_PAGE_SIZE"))


def _alive(own: OwnServer) -> bool:
    try:
        os.kill(own.pid, 0)
    except ProcessLookupError:
        return False
    return True
