"""The simulation itself: it repeats itself exactly, finds planted faults, and finds none unplanted.

Goal: a simulation that cannot fail shows nothing, and one that differs from run to run cannot be
looked into. Method: seeds are played by the drill's own workers, in processes of their own with
other hash seeds and other seeds before them; mutants of the production code must die by name.
"""

import asyncio
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from loadtests.__main__ import parser
from loadtests.server import ROOT
from loadtests.simulate import MODULE, PRESSES_MIN, STEPS_MIN, main
from loadtests.simulation.mutants import FOUND_AT, MUTANTS, pieces_of
from loadtests.simulation.virtual_time import Stuck, VirtualLoop

SEEDS = 300
"""Some 70 s of CPU, engines included; the run of 20,000 is the drill's."""


def played(*words: str, **environ: str) -> list[dict[str, Any]]:
    """What a worker says of its seeds."""
    done = subprocess.run(
        [sys.executable, "-m", MODULE, *words],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        check=True,
        timeout=300,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def simulated(*words: str) -> dict[str, Any]:
    options = parser().parse_args(["simulate", "--json", *words])
    return main(options)


@pytest.mark.timeout(600)
def test_no_seed_finds_anything_wrong_with_stock() -> None:
    result = simulated("--seeds", str(SEEDS))
    assert result["ok"], result["problems"]
    assert (result["seeds"], result["violations"], result["oversold"]) == (SEEDS, 0, 0)
    assert result["least"]["steps"] >= STEPS_MIN
    assert result["least"]["presses"] >= PRESSES_MIN
    assert result["least"]["faults"] >= 1
    assert len(result["faults"]) > 15


@pytest.mark.timeout(300)
def test_the_same_seed_is_the_same_trace_in_another_process_after_other_seeds() -> None:
    one = played("5", "3", PYTHONHASHSEED="1")
    two = played("7", "1", PYTHONHASHSEED="2")
    assert one[2]["seed"] == two[0]["seed"] == 7
    assert one[2]["trace"] == two[0]["trace"]
    assert len({seed["trace"] for seed in one}) == 3


@pytest.mark.timeout(300)
def test_a_run_that_is_stopped_tells_what_it_has() -> None:
    command = [sys.executable, "-m", "loadtests", "simulate", "--json", "--seeds", "5000"]
    with subprocess.Popen(
        [*command, "--seed", "20", "--workers", "1", "--trace"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stderr is not None
        assert running.stderr.readline()  # the first seed is over
        running.terminate()
        told, _trace = running.communicate(timeout=120)
    result = json.loads(told.splitlines()[-1])
    assert not result["complete"]
    assert 1 <= result["seeds"] < 5_000


@pytest.mark.timeout(300)
@pytest.mark.postgres
def test_the_record_may_be_a_postgresql() -> None:
    one, two = (played("3", "1", "--database", "postgresql") for _time in range(2))
    assert one[0]["violations"] == []
    assert (one[0]["trace"], one[0]["steps"]) == (two[0]["trace"], two[0]["steps"])


@pytest.mark.timeout(1_200)
def test_each_planted_fault_is_found_by_its_seed() -> None:
    """Which finds nothing without it: it is one of those that are played above."""
    result = simulated("--mutants")
    found = {
        name: (what["seed"], what["by"])
        for name, what in result["mutants"].items()
        if what["killed"]
    }
    assert found == {name: (known.seed, known.by) for name, known in FOUND_AT.items()}
    assert found.keys() == MUTANTS.keys()
    assert max(seed for seed, _by in found.values()) <= SEEDS


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_each_mutant_still_fits_the_production_code(name: str) -> None:
    assert pieces_of(name)


def test_virtual_time_jumps_and_says_so_when_nothing_will_ever_happen() -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(asyncio.sleep(3_600))
        assert runner.get_loop().time() == pytest.approx(3_600)
        with pytest.raises(Stuck):
            runner.run(asyncio.Event().wait())
