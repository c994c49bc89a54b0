"""Fixtures over `pay_support`, for test modules that name this one in `pytest_plugins`."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from commerce.schema_sql import metadata
from tests.commerce.pay_support import Api, Sandbox, Till, make_tables, open_till
from tests.servers import PostgresServer


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """One for the run; `till` and `api` empty it."""
    sandbox = Sandbox(tmp_path_factory.mktemp("sandbox")).start()
    yield sandbox
    sandbox.stop()


@pytest.fixture
def mortal_sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """One of the test's own, to be killed."""
    mortal = Sandbox(tmp_path / "mortal").start()
    yield mortal
    mortal.stop()


@pytest.fixture
async def api(sandbox: Sandbox) -> AsyncIterator[Api]:
    """The sandbox, empty and well-behaved."""
    api = Api(sandbox.url)
    await api.reset()
    yield api
    await api.http.aclose()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty shop in a file, to be copied: making the tables takes longer than most tests."""
    path = tmp_path_factory.mktemp("till") / "template.db"
    asyncio.run(make_tables(f"sqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def postgres_shop(postgres_server: PostgresServer) -> Iterator[str]:
    """One database for all tills; each empties it."""
    name = postgres_server.create_database()
    asyncio.run(make_tables(postgres_server.url(name)))
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture
def sqlite_till_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A file with the tables."""
    shutil.copy(sqlite_template, tmp_path / "till.db")
    return f"sqlite:///{tmp_path / 'till.db'}"


@pytest.fixture
def postgres_till_url(postgres_shop: str) -> str:
    """A database with the tables."""
    with psycopg.connect(postgres_shop) as connection:
        tables = sql.SQL(", ").join(sql.Identifier(name) for name in metadata.tables)
        connection.execute(sql.SQL("TRUNCATE {}").format(tables))
    return postgres_shop


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def till_url(request: pytest.FixtureRequest) -> str:
    """A test runs on both."""
    url: str = request.getfixturevalue(f"{request.param}_till_url")
    return url


@pytest.fixture
async def mortal_till(sqlite_till_url: str, mortal_sandbox: Sandbox) -> AsyncIterator[Till]:
    """A node whose provider may be killed. On SQLite: what dies here is not the database."""
    api = Api(mortal_sandbox.url)
    async with open_till(sqlite_till_url, api) as till:
        yield till
    await api.http.aclose()


@pytest.fixture
async def till(till_url: str, api: Api) -> AsyncIterator[Till]:
    """A node with an empty shop; on SQLite and on PostgreSQL."""
    async with open_till(till_url, api) as till:
        yield till


@pytest.fixture
async def sqlite_till(sqlite_till_url: str, api: Api) -> AsyncIterator[Till]:
    """The same on SQLite only, for what does not depend on the database."""
    async with open_till(sqlite_till_url, api) as till:
        yield till
