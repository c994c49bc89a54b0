"""`simulate`: the production code of stock on real engines, under a seeded scheduler.

Thousands of small worlds, each with its own crowd and its own faults, played in virtual time, so a
minute of somebody's bad luck takes a tenth of a second and the same seed is the same bad luck
again. After each the books must add up and nobody may have heard a lie (`loadtests/simulation`).
`--mutants` plants faults into the production code instead, one after the other: each must be found.

    python -m loadtests simulate --seeds 20000 --workers 2
    python -m loadtests simulate --seed 4711 --seeds 1 --trace      one seed, step by step
    python -m loadtests simulate --mutants

Each worker is a process with engines of its own. Seeds are dealt out in turn, so any number of
workers plays the same ones.
"""

import argparse
import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from live.child import guarded
from loadtests.server import ROOT, ServerFailed
from loadtests.simulation.mutants import FOUND_AT, MUTANTS

SEEDS: Final = 300
WORKERS: Final = 2
MUTANT_SEEDS: Final = 150
"""A mutant that lives through so many seeds is not found."""
STEPS_MIN: Final = 200
PRESSES_MIN: Final = 20
SHOWN_MAX: Final = 20
"""Violating seeds that are told in full."""
SILENT_S: Final = 1_800.0
"""A worker that says nothing for so long is stuck; one at the lowest priority may be slow."""
PIECE_BYTES: Final = 1 << 16
TELL_EVERY: Final = 100
LONG: Final = 2_000
"""A run of so many seeds tells how far it is, whatever was asked."""
MODULE: Final = "loadtests.simulation.worker"
OVERSOLD: Final = "I1 "


class _Stopped(Exception):
    """Somebody wants the result now."""


def options(parser: argparse.ArgumentParser) -> None:
    """Options beside the common ones."""
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many worlds to play")
    parser.add_argument("--seed", type=int, default=1, help="the first of them")
    parser.add_argument("--workers", type=int, default=WORKERS, help="processes that play")
    parser.add_argument(
        "--database", choices=("sqlite", "postgresql"), default="sqlite", help="the record's engine"
    )
    parser.add_argument(
        "--mutant", action="append", choices=sorted(MUTANTS), help="plant this fault; it must die"
    )
    parser.add_argument(
        "--mutants",
        action="store_true",
        help="plant each fault in turn, from the seed on that is known to find it",
    )
    parser.add_argument("--trace", action="store_true", help="every step of each seed")


def main(options_: argparse.Namespace) -> dict[str, Any]:
    """Run it; the result."""
    names = sorted(MUTANTS) if options_.mutants else options_.mutant or []
    if names:
        return _hunt(options_, names)
    return _play(options_)


def _play(options_: argparse.Namespace) -> dict[str, Any]:
    sums: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    bad: dict[int, list[str]] = {}
    least = {"steps": sys.maxsize, "presses": sys.maxsize, "faults": sys.maxsize}
    started = time.monotonic()
    for seed in _until_stopped(_seeds(options_, options_.workers, options_.seeds)):
        counted = {"steps": seed["steps"], "presses": seed["presses"]}
        counted["faults"] = sum(seed["faults"].values())
        sums.update(counted)
        sums["seeds"] += 1
        sums["cpu_ms"] += round(seed["cpu_s"] * 1000)
        faults.update(seed["faults"])
        least = {name: min(least[name], value) for name, value in counted.items()}
        if seed["violations"]:
            bad[seed["seed"]] = seed["violations"]
        _tell(options_, seed, sums, bad, time.monotonic() - started)
    wall_s = time.monotonic() - started
    if not sums["seeds"]:
        least = dict.fromkeys(least, 0)
    violations = [what for found in bad.values() for what in found]
    enough = least["steps"] >= STEPS_MIN and least["presses"] >= PRESSES_MIN
    complete = sums["seeds"] == options_.seeds
    problems = [f"seed {seed}: {found[0]}" for seed, found in sorted(bad.items())[:SHOWN_MAX]]
    if not (enough and complete):
        problems.append(f"{sums['seeds']} seeds, at least {least}")
    return {
        "ok": not bad and enough and complete,
        "problems": problems,
        "database": options_.database,
        "workers": options_.workers,
        "complete": complete,
        "seeds": sums["seeds"],
        "steps": sums["steps"],
        "presses": sums["presses"],
        "least": least,
        "faults": dict(faults.most_common()),
        "violations": len(violations),
        "oversold": sum(what.startswith(OVERSOLD) for what in violations),
        "first_failing_seed": min(bad, default=None),
        "seeds_per_s": round(sums["seeds"] / wall_s, 2),
        "seeds_per_s_per_core": round(
            sums["seeds"] / wall_s / min(options_.workers, os.cpu_count() or 1), 2
        ),
        "cpu_ms_per_seed": round(sums["cpu_ms"] / max(sums["seeds"], 1), 1),
        "wall_s": round(wall_s, 1),
    }


def _until_stopped(seeds: Generator[dict[str, Any], None, None]) -> Iterator[dict[str, Any]]:
    """The same; SIGTERM and Ctrl-C end it early, and what was played until then counts."""
    stopped = waiting = False

    def stop(*_signal: object) -> None:
        nonlocal stopped
        stopped = True
        if waiting:  # else whoever counts the last seed is busy, and looks afterwards
            raise _Stopped

    if threading.current_thread() is not threading.main_thread():
        yield from seeds
        return
    before = {kind: signal.signal(kind, stop) for kind in (signal.SIGTERM, signal.SIGINT)}
    try:
        with contextlib.closing(seeds):
            while not stopped:
                waiting = True
                seed = next(seeds, None)
                waiting = False
                if seed is None:
                    return
                yield seed
    except _Stopped:
        return
    except ServerFailed as error:  # what was played counts; too few seeds make it a failure
        print(error, file=sys.stderr, flush=True)
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def _tell(
    options_: argparse.Namespace,
    seed: dict[str, Any],
    sums: Counter[str],
    bad: dict[int, list[str]],
    wall_s: float,
) -> None:
    if options_.trace:
        print("\n".join(seed["lines"]), file=sys.stderr)
    if seed["violations"]:
        print(f"seed {seed['seed']}: {seed['violations'][0]}", file=sys.stderr)
    if sums["seeds"] % TELL_EVERY == 0 and not (options_.quiet and options_.seeds < LONG):
        rate = sums["seeds"] / wall_s
        words = f"{sums['seeds']} seeds, {len(bad)} bad, {rate:.1f} a second"
        print(words, file=sys.stderr, flush=True)


def _hunt(options_: argparse.Namespace, names: list[str]) -> dict[str, Any]:
    """Each mutant until it is found, or until it has lived too long."""
    with ThreadPoolExecutor(options_.workers) as pool:
        found = dict(
            zip(names, pool.map(lambda name: _hunt_one(options_, name), names), strict=True)
        )
    alive = [name for name, what in found.items() if not what["killed"]]
    return {
        "ok": not alive,
        "problems": [f"{name} was not found in {MUTANT_SEEDS} seeds" for name in alive],
        "mutants": found,
    }


def _hunt_one(options_: argparse.Namespace, name: str) -> dict[str, Any]:
    started, played = time.monotonic(), 0
    found: dict[str, Any] = {"killed": False}
    if options_.mutants:
        options_ = argparse.Namespace(**vars(options_) | {"seed": FOUND_AT[name].seed})
    for seed in _seeds(options_, 1, MUTANT_SEEDS, "--mutant", name, "--stop"):
        played += 1
        if seed["violations"]:
            what = seed["violations"][0]
            found = {"killed": True, "seed": seed["seed"], "by": what.partition(":")[0]}
            break
    found |= {"seeds": played, "wall_s": round(time.monotonic() - started, 1)}
    print(f"{name}: {found}", file=sys.stderr, flush=True)
    return found


def _seeds(
    options_: argparse.Namespace, workers: int, count: int, *more: str
) -> Generator[dict[str, Any], None, None]:
    """What each seed showed, as the workers report it. Raises `ServerFailed`."""
    if options_.trace:
        more += ("--trace",)
    chooser = selectors.DefaultSelector()
    processes = []
    rest: dict[int, bytes] = {}
    try:
        for place in range(min(workers, count)):
            share = len(range(place, count, workers))
            numbers = (options_.seed + place, share, "--step", workers)
            command = [sys.executable, "-m", MODULE, *map(str, numbers)]
            command += ["--database", options_.database, *more]
            process = subprocess.Popen(
                guarded(command),
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            processes.append(process)
            assert process.stdout is not None
            chooser.register(process.stdout.fileno(), selectors.EVENT_READ)
            rest[process.stdout.fileno()] = b""
        while chooser.get_map():
            ready = chooser.select(SILENT_S)
            if not ready:
                raise ServerFailed("a simulation has said nothing for a long time")
            for key, _events in ready:
                piece = os.read(key.fd, PIECE_BYTES)
                if not piece:
                    chooser.unregister(key.fd)
                *lines, rest[key.fd] = (rest[key.fd] + piece).split(b"\n")
                yield from map(json.loads, lines)
        for process in processes:
            if process.wait():
                raise ServerFailed(f"a simulation ended with {process.returncode}")
    finally:
        chooser.close()
        for process in processes:
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    if process.stdout is not None:
        process.stdout.close()  # so that it cannot wait for somebody who reads no more
    process.wait()
    if process.stdin is not None:
        process.stdin.close()
