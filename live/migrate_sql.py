"""Bringing a database to the present schema, with Alembic.

Responsible for running the migrations under a lock, so that two processes that start at once do it
one after the other, and the second finds nothing left to do. It must not know what a migration
contains. PostgreSQL has an advisory lock for this; on SQLite a write transaction is one. All in
one transaction: a process killed in the middle leaves the schema as it was.

Alembic is imported only when there is something to do (0.2 s of every start otherwise): the names
of the scripts begin with their revisions, so what is newest can be read off the folder.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, inspect, text

import commerce.money_schema_sql  # noqa: F401 - joins its tables to the metadata
import live.schema_sql  # noqa: F401 - likewise
from commerce.database_sql import Database
from commerce.schema_sql import metadata

if TYPE_CHECKING:
    from alembic.config import Config

SCRIPTS: Final = Path(__file__).parent / "migrations"
_LOCK: Final = 0x76697473
"""Number of the advisory lock on PostgreSQL."""
_WAIT_S: Final = 60
"""How long the second process waits for the first one's migration."""


async def migrate(database: Database) -> str:
    """Runs what is missing; the revision the database has now. Raises Unavailable."""
    async with database.begin() as conn:
        if database.dialect == "postgresql":
            await conn.execute(text(f"SET LOCAL lock_timeout = '{_WAIT_S}s'"))
            await conn.execute(text(f"SET LOCAL statement_timeout = '{10 * _WAIT_S}s'"))
            await conn.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        present = await conn.run_sync(_revision)
        return present if present == revisions()[-1] else await conn.run_sync(_upgrade)


async def differences(database: Database) -> list[object]:
    """What the schema in the code has and the database has not, or the other way round."""
    async with database.read() as conn:
        return await conn.run_sync(_compare)


def config_on(connection: Connection) -> "Config":
    """Alembic's configuration for a connection in an open transaction."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def revisions() -> list[str]:
    """The schema revisions that this program knows, oldest first."""
    return sorted(script.name.partition("_")[0] for script in SCRIPTS.glob("versions/[0-9]*.py"))


def _revision(connection: Connection) -> str:
    if not inspect(connection).has_table("alembic_version"):
        return ""
    return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or "")


def _upgrade(connection: Connection) -> str:
    from alembic import command

    command.upgrade(config_on(connection), "head")
    return _revision(connection)


def _compare(connection: Connection) -> list[object]:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, metadata))
