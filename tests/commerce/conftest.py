"""What tests of stock ask for: an empty database of either kind, and a shop on it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from commerce.database_sql import Database
from commerce.schema_sql import metadata
from tests.commerce.stock_support import OwnValkey, Shop


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open database with the schema and nothing in it; the test runs on both kinds."""
    opened = await Database.open(database_url, poolsize=6)
    async with opened.begin() as conn:
        await conn.run_sync(metadata.create_all)
    yield opened
    await opened.close()


@pytest.fixture
async def shop(database: Database, valkey_url: str) -> Shop:
    """A shop without products."""
    return Shop(database, valkey_url)


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[OwnValkey]:
    """A Valkey of this test's own, not started yet."""
    with OwnValkey(tmp_path / "valkey") as server:
        yield server
