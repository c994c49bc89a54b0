"""The drop bench in its short form: what it counts is so, on both databases, at any speed."""

import json
from typing import Any

import pytest

from loadtests.__main__ import main
from loadtests.drop_truth_sql import Truth

DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]


def test_the_truth_takes_the_worst_of_its_counts() -> None:
    fine = Truth(frozenset("ab"), units=2, on_hand=2, held=2, committed=0, ledger_held=2)
    assert (fine.oversold, fine.agrees) == (0, True)
    for found in (
        Truth(frozenset("abc"), units=3, on_hand=2, held=2, committed=0, ledger_held=2),
        Truth(frozenset("ab"), units=2, on_hand=2, held=2, committed=1, ledger_held=2),
        Truth(frozenset("ab"), units=2, on_hand=2, held=2, committed=0, ledger_held=3),
    ):
        assert (found.oversold, found.agrees) == (1, False)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("database", DATABASES)
def test_as_many_win_as_there_are_units_whichever_way_they_are_sold(
    capsys: pytest.CaptureFixture[str], database: str
) -> None:
    code = main(
        [
            *("drop", "--json", f"--database={database}", "--within-s=0.3"),
            *("--buyers=60", "--stock=7", "--baseline-buyers=30", "--baseline-winners=20"),
        ]
    )
    result: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["problems"] == []
    assert (code, result["ok"]) == (0, True)
    found = result[database]
    wanted = {
        "drop": (60, 7),
        "winners": (60, 60),
        "baseline": (30, 3),
        "baseline_winners": (20, 20),
    }
    for part, (decided, winners) in wanted.items():
        assert (found[part]["decided"], found[part]["winners"]) == (decided, winners), part
    for part in (*wanted, "half"):
        numbers = ("oversold", "unanswered", "lost_acknowledged")
        assert [found[part][name] for name in numbers] == [0, 0, 0], part
    assert found["decisions_times_baseline"] > 0 < found["winners_times_baseline"]
