"""`slow`: some of the viewers stop reading; the others must not notice, and all must end up equal.

The server's sockets have an SO_SNDBUF of 32 KiB and the listeners a small SO_RCVBUF, because an
unread loopback socket swallows about 4 MB otherwise and nobody would ever be congested. One run
has three spans with the same traffic: all read; the first tenth does not (measured from the instant
when exactly that many sockets are congested); all read again. Latency is that of the viewers who
always read, in both spans.
"""

import argparse
import asyncio
import time
from typing import Any, Final

from loadtests.bench import LANES, Bench, hub_bench, lanes_of, machine, targets
from loadtests.speakers import Speakers, talking
from loadtests.steps import StepFailed, Steps
from loadtests.workers import merge

SNDBUF: Final = 32 * 1024
RCVBUF: Final = 4 * 1024
RATES: Final = {"comment": 40.0, "stock": 20.0, "pin": 8.0}
"""So many pins that the p99 is not the latency of one unlucky pin: 120 in a span."""
TEXT: Final = "x" * 260
"""Long comments fill buffers within seconds: 40 of them are 14 KB/s."""
JOIN_S_PER_1000: Final = 20
CONGEST_S: Final = 40.0
"""A congested viewer is ended after 60 s, so all of it fits before that."""
CATCH_UP_S: Final = 20.0
BETWEEN_S: Final = 0.2
BUFFER_BYTES_MAX: Final = 256 * 1024
"""What one congested viewer may hold in the server's memory, by its own rule."""


def options(parser: argparse.ArgumentParser) -> None:
    """Options beside the common ones."""
    parser.add_argument("--viewers", type=int, default=2000, help="listeners at once")
    parser.add_argument("--stalled", type=float, default=0.1, help="share that stops reading")
    parser.add_argument("--seconds", type=float, default=15, help="length of each span")


def main(options_: argparse.Namespace) -> dict[str, Any]:
    """Run it; the result."""
    return asyncio.run(_run(options_))


async def _run(options_: argparse.Namespace) -> dict[str, Any]:
    steps = Steps(quiet=options_.quiet)
    viewers, seconds = options_.viewers, options_.seconds
    found: dict[str, Any] = {}
    try:
        async with hub_bench(viewers, sndbuf=SNDBUF) as bench:
            shares = bench.swarm.shares(round(viewers * options_.stalled))
            with steps.step("join"):
                await bench.swarm.join(bench.port, bench.joins(), rcvbuf=RCVBUF)
                within_s = 30 + viewers / 1000 * JOIN_S_PER_1000
                await bench.swarm.wait_live(viewers, within_s=within_s)
            async with Speakers(bench.port) as speakers:
                async with talking(speakers, RATES, TEXT):
                    with steps.step("all read"):
                        found |= {"without": await _span(bench, shares, seconds)}
                    with steps.step("some do not"):
                        found |= await _stalled(bench, shares, seconds)
                    with steps.step("all again"):
                        await _ask_each(bench, "resume")
                        found |= {"again": await _span(bench, shares, seconds)}
                await speakers.settle()
                with steps.step("equal"):
                    found |= await _equal(bench, speakers)
    except StepFailed:
        pass
    else:
        _check(steps, found)
    return steps.result(viewers=viewers, **found, targets=_targets(found), **machine())


def _targets(found: dict[str, Any]) -> dict[str, Any]:
    """p99 of the others, as a multiple of what it was while all read."""
    with_, without = found.get("with", {}), found.get("without", {})

    def ratio(lane: str) -> float | None:
        ms, plain_ms = (span.get(lane, {}).get("p99_ms") for span in (with_, without))
        return ms / plain_ms if ms and plain_ms else None

    return targets(**{f"{lane}_p99_ratio": (ratio(lane), 1.1, "most") for lane in LANES})


def _check(steps: Steps, found: dict[str, Any]) -> None:
    stalled = found["stalled"]
    steps.check(found["congested"] == stalled, "congested is not stalled")
    steps.check(found["congested_at_end"] == stalled, "somebody was ended, or was congested too")
    steps.check(found["buffered_most"] <= BUFFER_BYTES_MAX, "a congested viewer holds too much")
    steps.check(
        found["buffered_later"] <= found["buffered"] + stalled * 1024, "what waits still grows"
    )
    steps.check(found["with"].keys() >= set(LANES), "a lane was silent")
    steps.check(found["caught_up"], "stalled viewers were not caught up in time")
    steps.check(found["pictures"] == 1, "viewers do not hold the same room")
    steps.check(found["lost"] == 0, "connections were lost")
    steps.check(not found["missing"] and not found["twice"], "entries missing or twice")


async def _ask_each(bench: Bench, what: str, counts: list[int] | None = None) -> None:
    for number, worker in enumerate(bench.swarm.workers):
        await worker.ask(what, **({} if counts is None else {"count": counts[number]}))


async def _span(bench: Bench, shares: list[int], seconds: float) -> dict[str, Any]:
    """Latency of those who always read."""
    for worker, share in zip(bench.swarm.workers, shares, strict=True):
        await worker.ask("mark", record=True, skip=share)
    before = bench.cpu_s()
    await asyncio.sleep(seconds)
    cpu = bench.cpu_s() - before
    found = merge(await bench.swarm.ask("latency"))
    return {"cpu_share": round(cpu / seconds, 3), **lanes_of(found)}


async def _stalled(bench: Bench, shares: list[int], seconds: float) -> dict[str, Any]:
    rss = (await bench.stats())["rss"]
    stalled = sum(shares)
    await _ask_each(bench, "stall", shares)
    started = time.monotonic()
    stats = await bench.stats()
    while stats["congested"] < stalled and time.monotonic() - started < CONGEST_S:
        await asyncio.sleep(BETWEEN_S)
        stats = await bench.stats()
    congest_s = time.monotonic() - started
    await asyncio.sleep(BETWEEN_S)
    first = await bench.stats()
    span = await _span(bench, shares, seconds)
    last = await bench.stats()
    return {
        "stalled": stalled,
        "congested": first["congested"],
        "congested_at_end": last["congested"],
        "lagging": last["lagging"],
        "congested_after_s": round(congest_s, 1),
        "buffered": first["buffered"],
        "buffered_later": last["buffered"],
        "buffered_most": max(first["buffered_most"], last["buffered_most"]),
        "rss_grew": last["rss"] - rss,
        "with": span,
    }


async def _equal(bench: Bench, speakers: Speakers) -> dict[str, Any]:
    """Everybody reads, nobody speaks: all must hold one room."""
    started = time.monotonic()
    stats = await bench.stats()
    while (stats["lagging"] or stats["congested"]) and time.monotonic() - started < CATCH_UP_S:
        await asyncio.sleep(BETWEEN_S)
        stats = await bench.stats()
    pictures = await bench.one_picture(within_s=CATCH_UP_S)
    totals = await bench.swarm.totals()
    return {
        "caught_up": not stats["lagging"] and not stats["congested"],
        "pictures": len(pictures),
        "lost": totals["lost"] + totals["bad"],
        "refused": dict(speakers.failures),
        "slow_ended": stats["slow_ended"],
        **await _entries(bench),
    }


async def _entries(bench: Bench) -> dict[str, int]:
    """Of the whole run, whatever was marked in between."""
    books = merge(await bench.swarm.ask("books", whole=True))
    return {
        "missing": books["missing_control"] + books["missing_chat"],
        "twice": books["duplicates"],
        "said_to_be_left_out": books["skipped"],
    }
