"""A real Valkey on a unix socket for the tests of realtime, and nodes on it."""

from collections.abc import Iterator

import pytest

from tests.realtime.engine import Valkey


@pytest.fixture(scope="session")
def realtime_valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One engine for all tests; each test uses a prefix of its own."""
    valkey = Valkey(tmp_path_factory.mktemp("valkey"))
    valkey.start()
    yield valkey.url
    valkey.kill()


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """Keeps the keys of tests apart."""
    return "t:" + request.node.name.replace("{", "").replace("}", "")[:100]


@pytest.fixture(params=[False, True], ids=["memory", "aof"])
def own_valkey(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """An engine of the test's own, without and with a log on disk."""
    valkey = Valkey(tmp_path_factory.mktemp("own"), aof=request.param)
    valkey.start()
    yield valkey
    valkey.kill()
