"""`show`: a busy show in ticks against the same show relayed event by event, in one run.

200 comments, 300 likes, 50 changes of stock over 10 SKUs a second and a pin every 5 s, for 20 s.
The naive relay gets the same mix at a rate that it can hold, found by a first second of it.

* CPU per event and viewer: the server's user and system time from the first event until every
  viewer has everything, over events sent times viewers. Events are what was asked for (each like
  is one), on both sides, whether they were passed on one by one or as a newer value.
* Latency: from the instant before a speaker sends the command to the instant after a listener's
  `recv`. Of stock only values that were passed on can be measured: newest wins. `direct` is the
  time to a speaker's reply.
* Skew of a pin: from the first listener that has it to the last, over all processes.
"""

import argparse
import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any, Final

from loadtests.bench import (
    Bench,
    folder_of_a_bench,
    hub_bench,
    lanes_of,
    machine,
    targets,
)
from loadtests.speakers import Speakers
from loadtests.steps import StepFailed, Steps
from loadtests.vitals import percentile
from loadtests.workers import Swarm, Worker, merge

RATES: Final = {"comment": 200.0, "like": 300.0, "stock": 50.0, "pin": 0.2}
P99_MS_MOST: Final = {"control": 60, "state": 300, "chat": 300}
SHARE: Final = 0.5
"""Of the rate that the naive relay reaches: what it holds, or its latencies are queues."""
TRIAL: Final = 8
"""Events sent at once; how long they take says what it can hold on this machine now."""
JOIN_S_PER_1000: Final = 20
SETTLE_S: Final = 30.0
BETWEEN_S: Final = 1.0


def options(parser: argparse.ArgumentParser) -> None:
    """Options beside the common ones."""
    parser.add_argument("--viewers", type=int, default=2000, help="listeners at once")
    parser.add_argument("--seconds", type=float, default=20, help="length of either show")


def main(options_: argparse.Namespace) -> dict[str, Any]:
    """Run it; the result."""
    return asyncio.run(_run(options_))


async def _run(options_: argparse.Namespace) -> dict[str, Any]:
    steps = Steps(quiet=options_.quiet)
    viewers, seconds = options_.viewers, options_.seconds
    ours: dict[str, Any] = {}
    naive: dict[str, Any] = {}
    try:
        with steps.step("ours"):
            async with hub_bench(viewers) as bench:
                ours = await _show(bench, RATES, seconds)
        with steps.step("naive"):
            async with _relay_bench(viewers) as bench:
                rates = await _rates_it_holds(bench)
                naive = await _show(bench, rates, seconds, joined=True)
    except StepFailed:
        pass
    else:
        _check(steps, ours, "ours", viewers)
        _check(steps, naive, "naive", viewers)
    per_event = ours.get("cpu_us_per_event_and_viewer") or 0.0
    cheaper = naive["cpu_us_per_event_and_viewer"] / per_event if per_event and naive else 0.0
    lanes = ours.get("latency", {})
    return steps.result(
        viewers=viewers,
        seconds=seconds,
        times_cheaper=round(cheaper, 1),
        targets=targets(
            times_cheaper=(cheaper, 20, "least"),
            **{
                f"{lane}_p99_ms": (lanes.get(lane, {}).get("p99_ms"), most, "most")
                for lane, most in P99_MS_MOST.items()
            },
        ),
        ours=ours,
        naive=naive,
        **machine(),
    )


def _check(steps: Steps, side: dict[str, Any], name: str, viewers: int) -> None:
    comments = side["sent"].get("comment", 0)
    steps.check(side["comments_delivered"] == comments * viewers, f"{name}: not every comment")
    pins = side["sent"].get("pin", 0)
    steps.check(side["pins_delivered"] == pins * viewers, f"{name}: not every pin")
    seen = side["latency"].keys()
    steps.check("state" in seen or not side["sent"].get("stock"), f"{name}: no stock was seen")
    steps.check(not side["missing"] and not side["twice"], f"{name}: entries missing or twice")
    steps.check(side["pictures"] == 1, f"{name}: viewers do not see the same room")
    steps.check(not side["lost"], f"{name}: connections were lost")
    steps.check(not side["refused"], f"{name}: commands were refused: {side['refused']}")


@contextlib.asynccontextmanager
async def _relay_bench(viewers: int) -> AsyncIterator[Bench]:
    with folder_of_a_bench() as folder:
        async with (
            Worker("loadtests.relay", log=folder / "relay.log") as node,
            Swarm(viewers, folder) as swarm,
        ):
            yield Bench(node, swarm)


async def _join(bench: Bench) -> None:
    viewers = bench.swarm.viewers
    await bench.swarm.join(bench.port, bench.joins())
    await bench.swarm.wait_live(viewers, within_s=30 + viewers / 1000 * JOIN_S_PER_1000)


async def _rates_it_holds(bench: Bench) -> dict[str, float]:
    """The same mix, slower: half of what it does at its best."""
    await _join(bench)
    async with Speakers(bench.port) as speakers:
        started = time.monotonic()
        for _ in range(TRIAL):
            speakers.say("comment")
        await speakers.settle(SETTLE_S)
        per_event_s = (time.monotonic() - started) / TRIAL
    slower = min(1.0, SHARE / per_event_s / sum(RATES.values()))
    return {kind: rate * slower for kind, rate in RATES.items()}


async def _show(
    bench: Bench, rates: dict[str, float], seconds: float, *, joined: bool = False
) -> dict[str, Any]:
    swarm, viewers = bench.swarm, bench.swarm.viewers
    if not joined:
        await _join(bench)
    async with Speakers(bench.port) as speakers:
        await asyncio.sleep(BETWEEN_S)
        await swarm.ask("mark", record=True)
        before = bench.cpu_s()
        await speakers.talk(seconds, rates)
        answered = await speakers.settle(SETTLE_S)
        wanted = speakers.sent["comment"] * viewers
        await _delivered(bench, wanted)
        pictures = await bench.one_picture(within_s=5)
        cpu = bench.cpu_s() - before
        books = merge(await swarm.ask("books"))
        found = merge(await swarm.ask("latency"))
        totals = await swarm.totals()
        events = sum(speakers.sent.values())
        return {
            "events": events,
            "events_per_s": round(events / seconds, 1),
            "sent": dict(speakers.sent),
            "cpu_s": round(cpu, 2),
            "cpu_us_per_event_and_viewer": round(cpu * 1e6 / events / viewers, 4),
            "frames_per_viewer": round(books["frames"] / viewers, 1),
            "events_per_frame": round(events / (books["frames"] / viewers), 1),
            "bytes_per_viewer": round(books["size"] / viewers),
            "latency": _latency(found, speakers),
            "pin_skew_ms": _skew_ms(found.get("pins", [])),
            "comments_delivered": books["chat"],
            "comments_sampled": books["skipped"],
            "pins_delivered": books["control"],
            "missing": books["missing_control"] + books["missing_chat"],
            "twice": books["duplicates"],
            "pictures": len(pictures),
            "lost": totals["lost"] + totals["bad"],
            "answered": answered,
            "refused": dict(speakers.failures),
        }


async def _delivered(bench: Bench, comments: int) -> None:
    """Until the swarm has as many comments, or has been waited for."""
    for _ in range(int(SETTLE_S / 0.1)):
        books = merge(await bench.swarm.ask("books"))
        if books["chat"] + books["skipped"] >= comments:
            return
        await asyncio.sleep(0.1)


def _latency(found: dict[str, Any], speakers: Speakers) -> dict[str, Any]:
    lanes: dict[str, Any] = lanes_of(found)
    direct = [us / 1000 for us in speakers.replies_us]
    lanes["direct"] = {
        "p50_ms": round(percentile(direct, 50), 1),
        "p99_ms": round(percentile(direct, 99), 1),
        "count": len(direct),
    }
    return lanes


def _skew_ms(pins: list[list[int]]) -> dict[str, float]:
    """Between the first and the last listener of a pin: the median and the most of all pins."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for offset, began, ended in pins:
        first[offset] = min(began, first.get(offset, began))
        last[offset] = max(ended, last.get(offset, ended))
    skews = [(last[offset] - first[offset]) / 1000 for offset in first]
    return {"median": round(percentile(skews, 50), 1), "most": round(max(skews, default=0), 1)}
