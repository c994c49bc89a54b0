"""`python -m loadtests`: what benches and drills there are, and running one.

Responsible for the table, the options all of them share and the form of the result: progress for a
person on standard error, one JSON object as the last line of standard output, exit code 1 when `ok`
is false. A new drill is a module with `options(parser)` and `main(options) -> dict`, and a row.
"""

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from loadtests import (
    crowd,
    drain,
    drop,
    fanout,
    fuzz,
    idle,
    journey,
    kill,
    money,
    restore,
    show,
    simulate,
    slow,
    storm,
)
from loadtests.server import ServerFailed
from loadtests.target import NoHost, target_options


class Drill(NamedTuple):
    """A row: what it is called, what it shows, its own options, how it is run."""

    name: str
    sentence: str
    options: Callable[[argparse.ArgumentParser], None]
    main: Callable[[argparse.Namespace], dict[str, Any]]


DRILLS = (
    Drill(
        "journey",
        "One small show from end to end: 5 viewers, 3 units, one of each fate. A synthetic check.",
        journey.options,
        journey.main,
    ),
    Drill(
        "crowd",
        "Locust's watchers, chatters and buyers against one show, headless.",
        crowd.options,
        crowd.main,
    ),
    Drill(
        "fanout",
        "The hub's whole publish path against a bare os.write to the same sockets, CPU per frame.",
        fanout.options,
        fanout.main,
    ),
    Drill(
        "show",
        "A busy show in ticks against the same show relayed event by event: CPU, latency, skew.",
        show.options,
        show.main,
    ),
    Drill(
        "idle",
        "What a viewer costs who only watches: resident bytes, and the CPU of heartbeats.",
        idle.options,
        idle.main,
    ),
    Drill(
        "slow",
        "Some viewers stop reading: the others do not notice, and all end up with the same room.",
        slow.options,
        slow.main,
    ),
    Drill(
        "storm",
        "The whole crowd is cut off at once and comes back, while others buy.",
        storm.options,
        storm.main,
    ),
    Drill(
        "drain",
        "Two nodes are restarted one after the other under chat and buys.",
        drain.options,
        drain.main,
    ),
    Drill(
        "kill",
        "Nodes and engines are killed under a buying crowd; every unit is accounted for.",
        kill.options,
        kill.main,
    ),
    Drill(
        "money",
        "Random journeys of thousands of orders under faults and kills; every cent accounted for.",
        money.options,
        money.main,
    ),
    Drill(
        "restore",
        "A lost database, an older copy, the provider's books: no paid order is missing.",
        restore.options,
        restore.main,
    ),
    Drill(
        "drop",
        "A crowd presses Buy within one second, against a shop that locks the row each time.",
        drop.options,
        drop.main,
    ),
    Drill(
        "fuzz",
        "Hostile bytes over thousands of connections: no crash, no leak, nobody else notices.",
        fuzz.options,
        fuzz.main,
    ),
    Drill(
        "simulate",
        "Thousands of small worlds on real engines in virtual time: nobody oversold, no win lost.",
        simulate.options,
        simulate.main,
    ),
)


def parser() -> argparse.ArgumentParser:
    """The command line of all drills."""
    whole = argparse.ArgumentParser(
        prog="python -m loadtests",
        description="Benches and drills. Each starts a server of its own unless --url names one.",
    )
    rows = whole.add_subparsers(dest="drill", metavar="NAME")
    for drill in DRILLS:
        row = rows.add_parser(drill.name, help=drill.sentence, description=drill.sentence)
        row.add_argument(
            "--json", action="store_true", dest="quiet", help="nothing but the JSON object"
        )
        target_options(row)
        drill.options(row)
        row.set_defaults(main=drill.main)
    return whole


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line says; the exit code."""
    whole = parser()
    options = whole.parse_args(arguments)
    if options.drill is None:
        whole.print_help()
        return 0
    try:
        result = options.main(options)
    except (ServerFailed, NoHost) as error:
        result = {"ok": False, "problems": [str(error)]}
    print(json.dumps({"drill": options.drill, **result}), flush=True)
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
