"""Migrations make exactly the schema the code has, once, however many start at the same time."""

import asyncio

from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text

from commerce.database_sql import Database
from live.migrate_sql import SCRIPTS, differences, migrate, revisions


async def test_an_empty_database_gets_the_schema_of_the_code(database_url: str) -> None:
    database = await Database.open(database_url)
    assert await migrate(database) == revisions()[-1]
    assert await differences(database) == []
    assert await migrate(database) == revisions()[-1]
    await database.close()


async def test_processes_that_start_at_once_migrate_once(database_url: str) -> None:
    databases = [await Database.open(database_url, poolsize=2) for _ in range(3)]
    newest = revisions()[-1]
    assert await asyncio.gather(*(migrate(database) for database in databases)) == [newest] * 3
    async with databases[0].read() as conn:
        rows = (await conn.execute(text("SELECT version_num FROM alembic_version"))).all()
        assert [row[0] for row in rows] == [newest]
    for database in databases:
        await database.close()


def test_the_names_of_the_scripts_are_their_revisions() -> None:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    walked = ScriptDirectory.from_config(config).walk_revisions()
    assert [script.revision for script in walked][::-1] == revisions()
