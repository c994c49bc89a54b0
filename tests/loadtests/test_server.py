"""A server of one's own: a failure says why, and nothing is left behind either way."""

import os
import tempfile
from pathlib import Path

import pytest

from loadtests.server import OwnServer, ServerFailed


def test_a_server_that_does_not_start_says_why_and_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ServerFailed, match="LIVE_NONSENSE is not a setting"):
        OwnServer({"LIVE_NONSENSE": "1"}).__enter__()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_server_of_ones_own_is_gone_afterwards_with_its_folder() -> None:
    with OwnServer() as server:
        assert server.host_link("somebody").startswith(f"{server.url}/host#link=")
        assert server.folder.is_dir()
    assert not server.folder.exists()
    with pytest.raises(ProcessLookupError):
        os.killpg(server.pid, 0)
