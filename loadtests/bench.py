"""The frame around a bench: a folder, a server process, a swarm, and nothing left afterwards.

Responsible for starting the two and for what every bench needs of them: tokens for a crowd that
nobody has to sign in one by one, the CPU of the server over a span, percentiles of the swarm's
histograms. What is measured is each bench's own business.
"""

import asyncio
import contextlib
import json
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from live.identity import Identity, Role, Tokens
from live.settings import VARIABLES
from loadtests.api import Api
from loadtests.refused import Refused, TooLate
from loadtests.server import free_port
from loadtests.vitals import cpu_s, load_average
from loadtests.workers import Swarm, Worker

READY_S: Final = 60.0
POLL_S: Final = 0.05
TOKEN_S: Final = 3600
BIN_MS: Final = 0.1
LANES: Final = ("control", "state", "chat")
NO_LIMITS: Final = "LIVE_JOIN_LIMITS"
"""Admission by address would measure the bench's one address."""


@dataclass
class Bench:
    """A server process and a crowd for it."""

    node: Worker
    swarm: Swarm
    secret: str = ""

    @property
    def port(self) -> int:
        """Where the server listens."""
        return int(self.node.hello["port"])

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def token(self, who: str, role: Role = Role.GUEST) -> str:
        """A token of the product for somebody."""
        tokens = Tokens(self.secret, lambda: time.time_ns() // 1_000_000)
        return tokens.issue(Identity(who, who, role), TOKEN_S)

    def joins(self, show: str = "bench") -> list[dict[str, Any]]:
        """Join params for the whole crowd."""
        if not self.secret:
            return [{"token": f"v{n}"} for n in range(self.swarm.viewers)]
        return [{"show": show, "token": self.token(f"v{n}")} for n in range(self.swarm.viewers)]

    def cpu_s(self) -> float:
        """The server's CPU time so far."""
        return cpu_s(self.node.pid)

    async def stats(self) -> dict[str, Any]:
        """The server's counters."""
        return await self.node.ask("stats")

    async def one_picture(self, *, within_s: float, skip: int = 0) -> dict[str, int]:
        """Pictures that live listeners hold, when there is one alone or time is up."""
        deadline = time.monotonic() + within_s
        while True:
            found: dict[str, int] = {}
            for answer in await self.swarm.ask("pictures", skip=skip):
                for picture, count in answer["pictures"].items():
                    found[picture] = found.get(picture, 0) + count
            if len(found) == 1 or time.monotonic() > deadline:
                return found
            await asyncio.sleep(POLL_S)


@contextlib.contextmanager
def folder_of_a_bench() -> Any:
    """A folder with a short name, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="vitrine-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.asynccontextmanager
async def hub_bench(viewers: int, **more: Any) -> AsyncIterator[Bench]:
    """The hub alone; `more`: sndbuf, beat_ms."""
    with folder_of_a_bench() as folder:
        options = {"compose": "hub", "folder": str(folder / "node"), **more}
        async with (
            Worker("loadtests.bench_node", json.dumps(options), log=folder / "node.log") as node,
            Swarm(viewers, folder) as swarm,
        ):
            yield Bench(node, swarm)


@contextlib.asynccontextmanager
async def product_bench(
    viewers: int,
    *,
    node_module: str = "loadtests.bench_node",
    crowd_module: str = "loadtests.swarm",
    settings: Mapping[str, str] | None = None,
    **more: Any,
) -> AsyncIterator[Bench]:
    """The whole program, with more `settings` (LIVE_ variables) if they are given.

    Raises `TooLate` when it does not become ready.
    """
    with folder_of_a_bench() as folder:
        secret = secrets.token_hex(32)
        environ = {
            "LIVE_PORT": str(free_port()),
            "LIVE_DATA": str(folder / "data"),
            "LIVE_SECRET": secret,
            "LIVE_LOG_LEVEL": "warning",
            **(settings or {}),
        }
        if any(variable.name == NO_LIMITS for variable in VARIABLES):
            environ[NO_LIMITS] = "off"
        options = json.dumps({"compose": "product", **more})
        async with (
            Worker(node_module, options, log=folder / "node.log", environ=environ) as node,
            Swarm(viewers, folder, module=crowd_module) as swarm,
        ):
            bench = Bench(node, swarm, secret)
            await wait_until_ready(bench.url)
            yield bench


async def wait_until_ready(url: str) -> None:
    """Until /readyz says so. Raises `TooLate`."""
    deadline = time.monotonic() + READY_S
    async with Api(url) as api:
        while True:
            with contextlib.suppress(httpx.HTTPError, Refused):
                await api.get("/readyz")
                return
            if time.monotonic() > deadline:
                raise TooLate(f"{url} was not ready within {READY_S:g} s")
            await asyncio.sleep(POLL_S)


def latency_ms(histogram: Mapping[str, int]) -> dict[str, float]:
    """p50, p99 and the count of a swarm's histogram."""
    ordered = sorted((int(at), count) for at, count in histogram.items())
    whole = sum(count for _, count in ordered)
    return {
        "p50_ms": _at(ordered, whole * 0.50),
        "p99_ms": _at(ordered, whole * 0.99),
        "count": whole,
    }


def lanes_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """Percentiles of the lanes that a swarm has seen."""
    return {name: latency_ms(found[name]) for name in LANES if name in found}


def targets(**wanted: tuple[float | None, float, str]) -> dict[str, Any]:
    """Value, bound ("most" or "least") and whether it is met; never part of `ok`: a busy machine
    is not a defect, a lost entry is."""
    found: dict[str, Any] = {}
    for name, (value, bound, kind) in wanted.items():
        if value is None:
            found[name] = {"value": None, kind: bound, "met": False}  # it was not measured
        else:
            met = value <= bound if kind == "most" else value >= bound
            found[name] = {"value": round(value, 3), kind: bound, "met": met}
    return found


def _at(ordered: list[tuple[int, int]], wanted: float) -> float:
    seen = 0
    for at, count in ordered:
        seen += count
        if seen >= wanted:
            return round((at + 1) * BIN_MS, 1)
    return 0.0


def machine() -> dict[str, Any]:
    """What else the figures depend on."""
    return {"load_average": load_average()}
