"""The benches in their short forms: what they say is right, at any speed of the machine."""

import json
from typing import Any

import pytest

from loadtests.__main__ import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code = main([*arguments, "--json"])
    result: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["problems"] == []
    assert (code, result["ok"]) == (0, True)
    return result


@pytest.mark.slow
def test_the_hub_and_the_floor_are_measured_on_every_socket(
    capsys: pytest.CaptureFixture[str],
) -> None:
    viewers, pairs, lag_ticks = 60, 6, 3
    result = run(
        capsys, "fanout", f"--viewers={viewers}", f"--pairs={pairs}", f"--lag-ticks={lag_ticks}"
    )
    assert result["sockets"] == viewers
    assert result["delivered"] == viewers * (pairs + lag_ticks)
    assert 0 < result["floor_us"] < result["hub_us"]
    assert result["ratio"] > 1
    assert result["loop_lag_ms_p99"] >= result["loop_lag_own_ms_p99"] >= 0


@pytest.mark.slow
def test_a_show_reaches_everybody_in_ticks_and_relayed(capsys: pytest.CaptureFixture[str]) -> None:
    viewers = 50
    result = run(capsys, "show", f"--viewers={viewers}", "--seconds=2")
    ours, naive = result["ours"], result["naive"]
    assert ours["sent"] == {"comment": 400, "like": 600, "stock": 100}
    assert ours["comments_delivered"] == 400 * viewers
    assert ours["comments_sampled"] == 0
    assert ours["latency"]["chat"]["count"] == 400 * viewers
    assert ours["latency"]["direct"]["count"] == ours["events"]
    assert ours["events_per_frame"] > 1
    assert naive["events_per_frame"] == 1
    assert naive["comments_delivered"] == naive["sent"]["comment"] * viewers
    assert ours["cpu_s"] > 0 < naive["cpu_s"]


@pytest.mark.slow
def test_idle_viewers_are_in_the_room_while_they_are_weighed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = run(capsys, "idle", "--viewers=80", "--settle-s=0.5", "--measure-s=1.5")
    assert result["members"] == 81  # and the host
    assert result["beats"] > 0
    assert result["rss_after"] - result["rss_before"] == pytest.approx(
        80 * result["bytes_per_viewer"], abs=80
    )


@pytest.mark.slow
def test_stalled_viewers_are_exactly_the_congested_ones_and_end_up_equal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = run(capsys, "slow", "--viewers=60", "--stalled=0.2", "--seconds=1")
    assert result["stalled"] == result["congested"] == result["congested_at_end"] == 12
    assert result["said_to_be_left_out"] > 0
    assert (result["pictures"], result["missing"], result["twice"]) == (1, 0, 0)
    assert result["slow_ended"] == 0


@pytest.mark.slow
def test_a_storm_brings_everybody_back_exactly(capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, "storm", "--viewers=60", "--spread-s=2", "--calm-s=1")
    assert (result["back"], result["joins"], result["newcomers"]) == (60, 60, 6)
    assert result["recovered"] == 1
    assert result["snapshots_encoded"] <= result["versions"] + 1
    assert result["buy"]["count"] > 0
    assert (result["pictures"], result["missing"], result["twice"]) == (1, 0, 0)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_rolling_restart_loses_nothing_that_was_answered(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = run(capsys, "drain", "--viewers=12", "--buyers=3", "--between-s=1")
    assert len(result["nodes"]) == 2
    assert result["came_back"] >= 15
    assert (result["entries_missing"], result["answered_lost"], result["different_rooms"]) == (
        0,
        0,
        0,
    )
    assert result["answered_buys"] > 0 < result["answered_comments"]
