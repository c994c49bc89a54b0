"""A process that plays seeds: `python -m loadtests.simulation.worker FIRST COUNT STEP …`.

Responsible for planting a mutant before anything of the shop is imported, for playing its share of
the seeds and for printing one JSON line per seed. It leaves when whoever started it is gone. It
must not know what the lines are used for.
"""

import argparse
import contextlib
import dataclasses
import gc
import json
import logging
import signal
import sys
import time
from collections.abc import Sequence

from loadtests.simulation import mutants

COLLECT_EVERY = 20
"""Seeds between two collections of garbage: each seed's tasks are cycles, and all end with it."""


def main(arguments: list[str] | None = None) -> int:
    """Play what the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("first", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--mutant", default="")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--stop", action="store_true", help="at the first violation")
    parser.add_argument("--trace", action="store_true", help="with every step of each seed")
    options = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)
    stopped: list[int] = []  # after the present seed, so that the engines and their folder go
    signal.signal(signal.SIGTERM, lambda number, _frame: stopped.append(number))
    with contextlib.suppress(BrokenPipeError):
        _play(options, stopped)
    return 0


def _play(options: argparse.Namespace, stopped: Sequence[int]) -> None:
    lua = mutants.plant(options.mutant) if options.mutant else []
    # Only now: a mutant is planted while modules are imported.
    from loadtests.simulation.stand import open_stand
    from loadtests.simulation.valkeys_redis import ScriptChange

    with open_stand(options.database, change=ScriptChange(lua)) as stand:
        gc.freeze()
        gc.disable()
        last = options.first + options.count * options.step
        for turn, seed in enumerate(range(options.first, last, options.step)):
            started = time.process_time()
            verdict = stand.play(seed, keep_lines=options.trace)
            line = dataclasses.asdict(verdict) | {"cpu_s": time.process_time() - started}
            print(json.dumps(line), flush=True)
            if stopped or (verdict.violations and options.stop):
                return
            if turn % COLLECT_EVERY == 0:
                gc.collect()


if __name__ == "__main__":
    sys.exit(main())
