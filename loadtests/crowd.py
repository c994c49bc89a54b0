"""`crowd`: Locust's users against one show, headless, with the verdict as JSON.

A host puts a product on sale, Locust brings watchers, chatters and buyers, the host speaks now and
then so that the control lane has something to carry, and at the end the books are compared with
what was promised. Responsible for the frame around Locust only: what users do is in `locustfile`.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import sys
from typing import Any, Final

from loadtests.api import Api
from loadtests.server import ROOT
from loadtests.shopper import Host
from loadtests.stage import Stage, oversold
from loadtests.steps import StepFailed, Steps
from loadtests.target import Target, open_target

HOLD_S: Final = 10
UNITS_PER_USER: Final = 0.05
"""Few enough to be sold out most of the time: a crowd is made of losers."""
SPEAK_S: Final = 3.0
GRACE_S: Final = 60
"""For starting Locust and its last users' leaving, beside the run itself."""
PERCENTILES: Final = (50, 99)


def options(parser: argparse.ArgumentParser) -> None:
    """Options beside the common ones."""
    parser.add_argument("--users", type=int, default=200, help="viewers at once")
    parser.add_argument("--spawn-rate", type=float, default=20, help="viewers joining per second")
    parser.add_argument("--seconds", type=int, default=60, help="length of the run")


def main(options_: argparse.Namespace) -> dict[str, Any]:
    """Run it; the result."""
    with open_target(options_) as target:
        return asyncio.run(_run(target, options_))


async def _run(target: Target, options_: argparse.Namespace) -> dict[str, Any]:
    steps = Steps(quiet=options_.quiet)
    measured: dict[str, Any] = {}
    async with Api(target.url) as api:
        try:
            with steps.step("prepare"):
                api.token = await target.host_token(api)
            stage = Stage(api, units=max(1, round(options_.users * UNITS_PER_USER)))
            with steps.step("locust"):
                async with stage.on_air(hold_s=HOLD_S) as host:
                    rows = await _locust(target.url, stage.show, host, options_)
            with steps.step("books"):
                measured = _summary(rows)
                measured["oversold"] = oversold(await stage.stock())
        except StepFailed:
            pass
    steps.check(measured.get("oversold") == 0, "more was promised than there is")
    steps.check(measured.get("requests", 0) > 0, "nothing was measured")
    steps.check(measured.get("failures") == 0, "some requests failed")
    return steps.result(users=options_.users, seconds=options_.seconds, **measured)


async def _locust(
    url: str, show: str, host: Host, options_: argparse.Namespace
) -> list[dict[str, Any]]:
    """Locust's statistics, one row per kind and name."""
    arguments = [
        "--headless",
        "--only-summary",
        "--json",
        "--host",
        url,
        "--show",
        show,
        "--loglevel",
        "WARNING",
    ]
    arguments += ["--users", str(options_.users), "--spawn-rate", str(options_.spawn_rate)]
    arguments += ["--run-time", f"{options_.seconds}s", "--stop-timeout", "10"]
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", *arguments],
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=None if not options_.quiet else asyncio.subprocess.DEVNULL,
    )
    speaking = asyncio.create_task(_speak(host), name="the host speaks")
    try:
        async with asyncio.timeout(options_.seconds + GRACE_S):
            said, _ = await process.communicate()
    finally:
        speaking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await speaking
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = said.decode(errors="replace")
    rows: list[dict[str, Any]] = json.loads(text[text.index("[") :])
    return rows


async def _speak(host: Host) -> None:
    for number in itertools.count(1):
        await asyncio.sleep(SPEAK_S)
        await host.act("announce", text=f"Announcement {number}")


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    by = {
        f"{row['method']} {row['name']}": {
            "count": row["num_requests"],
            "failures": row["num_failures"],
            **{f"p{share}_ms": _percentile(row["response_times"], share) for share in PERCENTILES},
        }
        for row in rows
    }
    return {
        "requests": sum(row["count"] for row in by.values()),
        "failures": sum(row["failures"] for row in by.values()),
        "by": by,
    }


def _percentile(times: dict[str, int], share: int) -> float:
    """Of Locust's histogram {milliseconds: how often}."""
    left = sum(times.values()) * share / 100
    for ms, count in sorted((float(ms), count) for ms, count in times.items()):
        left -= count
        if left <= 0:
            return ms
    return 0.0
