"""The synthetic check against a real server: all of it, as an operator would run it."""

import json

import pytest

from loadtests.__main__ import DRILLS, main
from loadtests.journey import UNITS, VIEWERS
from loadtests.server import OwnServer

STEPS = [
    "sign_in", "import_csv", "create_show", "go_live", "join", "pin", "chat", "open_drop", "buy",
    "pay", "cut_off", "cancel", "expire", "come_back", "end", "tidy",
]  # fmt: skip


@pytest.mark.slow
def test_a_show_from_end_to_end(
    own_server: OwnServer, host_token: str, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--url", own_server.url, "--token", host_token]
    code = main(["journey", "--json", *where, "--hold-s", "5"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["problems"] == []
    assert (code, result["ok"], result["oversold"]) == (0, True, 0)
    assert (result["viewers"], result["units"]) == (VIEWERS, UNITS)
    assert (result["paid"], result["recovered"]) == ("paid", True)
    assert list(result["steps"]) == STEPS


def test_a_server_that_is_not_there_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["journey", "--json", "--url", "http://127.0.0.1:9", "--link", "x"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (code, result["ok"]) == (1, False)
    assert result["problems"][0].startswith("sign_in: ConnectError")


def test_a_running_server_needs_a_way_to_sign_in(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["journey", "--json", "--url", "http://127.0.0.1:9"]) == 1
    assert "--link" in capsys.readouterr().out


def test_every_drill_is_listed_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    listed = capsys.readouterr().out
    for drill in DRILLS:
        assert drill.name in listed
        assert drill.sentence.endswith(".")
