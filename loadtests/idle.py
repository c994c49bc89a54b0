"""`idle`: what a viewer costs who only watches: resident memory, and the CPU of heartbeats.

The whole program serves a live show with a pinned product; the crowd joins it and says nothing.
A small crowd comes and goes first, so that what the first viewers make the program load is not
charged to them; garbage is collected before the first reading and not before the second. Then

    bytes_per_viewer = (RSS with all joined and beaten - RSS before) / viewers

RSS is the server process's, from `smaps_rollup`; socket buffers are the kernel's and not in it.
Heartbeats: CPU of the process over some beats, less what it used before anybody came.
"""

import argparse
import asyncio
from typing import Any, Final

from live.identity import Role
from loadtests.api import Api
from loadtests.bench import Bench, machine, product_bench, targets
from loadtests.stage import Stage
from loadtests.steps import StepFailed, Steps
from loadtests.vitals import rss_bytes
from loadtests.workers import merge

JOIN_S_PER_1000: Final = 20
BYTES_MOST: Final = 8192
GONE_S: Final = 30.0
POLL_S: Final = 0.05
WARM: Final = 200
SETTLE_S: Final = 25.0
"""Longer than one beat: the first one makes the kernel's and our lazy parts."""
MEASURE_S: Final = 40.0
"""Two beats."""


def options(parser: argparse.ArgumentParser) -> None:
    """Options beside the common ones."""
    parser.add_argument("--viewers", type=int, default=2000, help="listeners at once")
    parser.add_argument("--settle-s", type=float, default=SETTLE_S, help="before memory is read")
    parser.add_argument("--measure-s", type=float, default=MEASURE_S, help="of heartbeats")


def main(options_: argparse.Namespace) -> dict[str, Any]:
    """Run it; the result."""
    return asyncio.run(_run(options_))


async def _run(options_: argparse.Namespace) -> dict[str, Any]:
    steps = Steps(quiet=options_.quiet)
    viewers = options_.viewers
    found: dict[str, Any] = {}
    try:
        async with product_bench(viewers) as bench, Api(bench.url) as api:
            api.token = bench.token("bench-host", Role.HOST)
            async with Stage(api, units=1).on_air() as host:
                with steps.step("warm"):
                    await _come_and_go(bench, host.session.show)
                    await bench.node.ask("collect")
                with steps.step("before"):
                    before = rss_bytes(bench.node.pid)
                    idle_cpu = await _cpu_share(bench, options_.measure_s / 2)
                with steps.step("join"):
                    await _join(bench, host.session.show, viewers)
                with steps.step("settle"):
                    await asyncio.sleep(options_.settle_s)
                with steps.step("measure"):
                    found = await _measure(bench, viewers, options_.measure_s, before, idle_cpu)
    except StepFailed:
        pass
    else:
        steps.check(found["members"] >= viewers, "not everybody is in the room")
        steps.check(not found["lost"], "connections were lost")
        steps.check(found["pictures"] == 1, "viewers do not see the same room")
    return steps.result(
        viewers=viewers,
        **found,
        targets=targets(bytes_per_viewer=(found.get("bytes_per_viewer"), BYTES_MOST, "most")),
        **machine(),
    )


async def _measure(
    bench: Bench, viewers: int, seconds: float, before: int, idle_cpu: float
) -> dict[str, Any]:
    after = rss_bytes(bench.node.pid)
    await bench.swarm.ask("mark")
    share = await _cpu_share(bench, seconds)
    books = merge(await bench.swarm.ask("books"))
    totals = await bench.swarm.totals()
    stats = await bench.stats()
    beats = books["pings"]
    used_us = (share - idle_cpu) * seconds * 1e6
    return {
        "bytes_per_viewer": round((after - before) / viewers),
        "rss_before": before,
        "rss_after": after,
        "rss_end": rss_bytes(bench.node.pid),
        "cpu_share": round(share, 4),
        "cpu_share_empty": round(idle_cpu, 4),
        "beats": beats,
        "us_per_beat": round(used_us / beats, 1) if beats else None,
        "members": stats["members"],
        "lost": totals["lost"] + totals["bad"],
        "pictures": len(await bench.one_picture(within_s=5)),
    }


async def _join(bench: Bench, show: str, viewers: int) -> None:
    await bench.swarm.join(bench.port, bench.joins(show)[:viewers], returns=True)
    await bench.swarm.wait_live(viewers, within_s=60 + viewers / 1000 * JOIN_S_PER_1000)


async def _come_and_go(bench: Bench, show: str) -> None:
    await _join(bench, show, min(WARM, bench.swarm.viewers))
    await bench.swarm.ask("leave")
    for _ in range(int(GONE_S / POLL_S)):
        if (await bench.stats())["members"] <= 1:
            break
        await asyncio.sleep(POLL_S)


async def _cpu_share(bench: Bench, seconds: float) -> float:
    """Of one core."""
    began = bench.cpu_s()
    await asyncio.sleep(seconds)
    return (bench.cpu_s() - began) / seconds
