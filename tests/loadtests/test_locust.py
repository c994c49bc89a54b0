"""Locust's users against a real server, headless and short."""

import json

import pytest

from loadtests.__main__ import main
from loadtests.server import OwnServer

MEASURED = {
    "POST /api/v1/guests", "LIVE join", "LIVE ping", "LIVE comment", "PUSH comment",
    "PUSH announcement", "LIVE like", "LIVE buy held", "CHECK gaps", "CHECK duplicates",
    "CHECK newest", "CHECK stock",
}  # fmt: skip


@pytest.mark.slow
def test_twenty_users_for_ten_seconds_end_without_a_failure(
    own_server: OwnServer, host_token: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--url", own_server.url, "--token", host_token, "--json", "--spawn-rate", "10"]
    code = main(["crowd", *arguments, "--users", "20", "--seconds", "10"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["problems"] == [], result
    assert code == 0
    assert (result["failures"], result["oversold"]) == (0, 0)
    assert set(result["by"]) >= MEASURED
    assert result["by"]["LIVE join"]["count"] >= 20
