"""What every test may ask for: real engines, isolated, and a check that nothing is left behind.

`valkey_url` is a real Valkey, emptied before each test; `postgres_url` a fresh database of a real
PostgreSQL; `sqlite_url` a file; `database_url` runs a test on both. Servers are started once per
run, on first use, by Unix socket in a folder that is removed, and die with this process. In CI
(`CI=true`) a skipped test that needs an engine or a browser is a failure.
"""

import asyncio.constants
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from live.data_folder import DataFolder
from live.engines import EmbeddedValkey, find_valkey
from tests.leaks import Stray, stray_children, stray_tasks
from tests.servers import PostgresServer, ValkeyServer

asyncio.constants.DEBUG_STACK_DEPTH = 2
"""Debug mode notes where each task, future and callback was made, ten calls deep: with its looks
at the files' times this was a third of the run. Two calls deep a test says enough."""
ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"
IN_CI = os.environ.get("CI") == "true"
NEVER_SKIPPED_FIXTURES = {
    "valkey_url",
    "private_valkey",
    "postgres_url",
    "database_url",
    "kosoku",
}
NEVER_SKIPPED_MARKS = {"browser", "postgres"}
OWN_PROCESSES: set[int] = set()
"""Servers that live as long as the run: the leak check does not count them."""


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        OWN_PROCESSES.add(server.pid)
        yield server


@pytest.fixture
def valkey_url(valkey_server: ValkeyServer) -> str:
    """A real Valkey (unix://…), empty. Shared by the run: for killing one, take private_valkey."""
    valkey_server.flush()
    return valkey_server.url


@pytest.fixture
async def private_valkey(tmp_path: Path) -> AsyncIterator[EmbeddedValkey]:
    """A supervised Valkey of the test's own, not started: `url = await private_valkey.start()`."""
    with DataFolder(tmp_path / "private-valkey") as folder:
        engine = EmbeddedValkey(folder, find_valkey())
        yield engine
        await engine.stop()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'vitrine.db'}"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        OWN_PROCESSES.add(server.pid)
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A fresh, empty PostgreSQL database (postgresql://…), dropped after the test."""
    name = postgres_server.create_database()
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest) -> str:
    """Runs the test twice: on SQLite and on PostgreSQL."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def shared_data() -> Path:
    """Real shops' files beside the repository; a clone elsewhere has none and skips."""
    if not SHARED_DATA.is_dir():
        pytest.skip("../shared/data is not here")
    return SHARED_DATA


@pytest.fixture(autouse=True)
def no_stray_processes() -> Iterator[None]:
    """Fail a test that leaves a child process."""
    before = stray_children(set(), grace_s=0)
    yield
    left = stray_children({child.id for child in before} | OWN_PROCESSES)
    assert not left, f"left running: {_listed(left)}"


@pytest.fixture
async def no_stray_tasks() -> AsyncIterator[None]:
    """Fail an async test that leaves tasks. Added to each of them as its outermost fixture."""
    yield
    left = await stray_tasks()
    assert not left, f"left running: {_listed(left)}"


def pytest_itemcollected(item: pytest.Item) -> None:
    if isinstance(item, pytest.Function) and item.get_closest_marker("asyncio"):
        item.fixturenames.insert(0, "no_stray_tasks")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[None] | pytest.TestReport:
    """In CI, what needs an engine or a browser must run."""
    report: pytest.TestReport = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        marks = {mark.name for mark in item.iter_markers()}
        if marks & NEVER_SKIPPED_MARKS or NEVER_SKIPPED_FIXTURES & set(
            getattr(item, "fixturenames", ())
        ):
            report.outcome = "failed"
            report.longrepr = f"skipped, which is a failure in CI: {report.longrepr}"
    return report


def _listed(left: list[Stray]) -> str:
    return "; ".join(stray.text for stray in left)
