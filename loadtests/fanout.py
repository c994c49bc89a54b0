"""`fanout`: what the hub's whole publish path costs, as a multiple of bare `os.write`.

Responsible for the crowd around `bench_floor`, which measures inside the server, and for checking
from outside that every listener got every tick.
"""

import argparse
import asyncio
from typing import Any, Final

from loadtests.bench import hub_bench, machine, targets
from loadtests.steps import StepFailed, Steps
from loadtests.workers import merge

FRAME_BYTES: Final = 120
PAIRS: Final = 200
LAG_TICKS: Final = 50
INTERVAL_US: Final = 18
"""Between two ticks, per viewer: the listeners read on the other core and must be done."""
INTERVAL_S_MIN: Final = 0.08
TICK_S_MAX: Final = 1.5
"""Of a room's own tick and the fan-out behind it."""
LAG_MS_MOST: Final = 10
JOIN_S_PER_1000: Final = 20
QUIET_MS: Final = 360_000_000
"""No beats: they would fall into some ticks and not into others."""


def options(parser: argparse.ArgumentParser) -> None:
    """Options beside the common ones."""
    parser.add_argument("--viewers", type=int, default=2000, help="listeners at once")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="pairs of ticks to compare")
    parser.add_argument("--lag-ticks", type=int, default=LAG_TICKS, help="ticks with the lag probe")


def main(options_: argparse.Namespace) -> dict[str, Any]:
    """Run it; the result."""
    return asyncio.run(_run(options_))


async def _run(options_: argparse.Namespace) -> dict[str, Any]:
    viewers, pairs, lag_ticks = options_.viewers, options_.pairs, options_.lag_ticks
    steps = Steps(quiet=options_.quiet)
    interval_s = max(INTERVAL_S_MIN, viewers * INTERVAL_US / 1e6)
    measured: dict[str, Any] = {}
    books: dict[str, Any] = {}
    try:
        async with hub_bench(viewers, beat_ms=QUIET_MS) as bench:
            with steps.step("join"):
                await bench.swarm.join(bench.port, bench.joins())
                within_s = 30 + viewers / 1000 * JOIN_S_PER_1000
                await bench.swarm.wait_live(viewers, within_s=within_s)
                await bench.swarm.ask("mark")
            with steps.step("pairs"):
                measured = await bench.node.ask(
                    "fanout",
                    timeout_s=60 + (2 * pairs + lag_ticks + 10) * (interval_s + TICK_S_MAX),
                    pairs=pairs,
                    lag_ticks=lag_ticks,
                    size=FRAME_BYTES,
                    interval_s=interval_s,
                )
            with steps.step("books"):
                await bench.one_picture(within_s=10)
                books = merge(await bench.swarm.ask("books"))
    except StepFailed:
        pass
    else:
        sent = measured["sent"]
        steps.check(measured["sockets"] == viewers, "not every viewer was measured")
        steps.check(books["chat"] == sent * viewers, "a comment did not reach every viewer")
        steps.check(books["other"] == pairs * viewers, "a plain frame did not reach every viewer")
        steps.check(not books["missing_chat"] and not books["duplicates"], "entries lost or twice")
    lag = measured.pop("lag", {})
    return steps.result(
        viewers=viewers,
        pairs=pairs,
        frame_bytes=FRAME_BYTES,
        **measured,
        targets=targets(
            ratio=(measured.get("ratio"), *_ratio_most(viewers)),
            loop_lag_ms_p99=(lag.get("p99"), LAG_MS_MOST, "most"),
        ),
        loop_lag_ms_p99=lag.get("p99"),
        loop_lag_own_ms_p99=lag.get("own_p99"),
        loop_lag_ms_max=lag.get("max"),
        delivered=books.get("chat", 0),
        **machine(),
    )


def _ratio_most(viewers: int) -> tuple[float, str]:
    return (1.10 if viewers <= 2000 else 1.15), "most"
