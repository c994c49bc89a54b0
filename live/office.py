"""The composition root, beside a running node: people, products, claims, copies of the database.

What the command line does without a room and without a gate; a running node does not mind. It must
not serve anybody.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from commerce import recovery_sql
from commerce.catalog_sql import SqlCatalog
from commerce.database_sql import Database
from commerce.people_sql import SqlPeople
from commerce.provider_check import ProviderCheck
from commerce.recovery import Recovery
from commerce.waiting_sql import SqlWaitlist
from live import backup_sql
from live.accounts_sql import SqlAccounts
from live.audit import Audit
from live.backup import Summary
from live.data_folder import DataFolder
from live.migrate_sql import migrate
from live.patience import meet_database
from live.settings import Settings
from live.shop_sql import SqlShop
from live.trade import (
    clock,
    new_id,
    open_audit,
    open_check,
    open_people,
    open_provider,
    open_recovery,
    open_refunding,
)


@dataclass(frozen=True, slots=True)
class Office:
    """What can be done beside a running node: people, products, looking at claims."""

    settings: Settings
    accounts: SqlAccounts
    catalog: SqlCatalog
    shop: SqlShop
    database: Database
    audit: Audit
    lists: SqlWaitlist

    async def people(self) -> SqlPeople:
        """Names and addresses, for the commands that need them: the secret may be elsewhere.

        Raises MasterLost, Unavailable.
        """
        return await open_people(self.settings, _secret(self.settings), self.database)

    async def backup(self, file: Path) -> Summary:
        """A copy of everything. Raises FileExistsError, Unavailable."""
        return await backup_sql.backup(self.database, file, clock())


def _secret(settings: Settings) -> str:
    """The one that was given, or else the data folder's, which may not exist yet."""
    if settings.secret:
        return settings.secret
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    return DataFolder(settings.data).secret().hex()


@contextlib.asynccontextmanager
async def open_office(settings: Settings) -> AsyncIterator[Office]:
    """The database alone, for commands that need no room. A running node does not mind."""
    folder = DataFolder(settings.data)
    if not settings.database_url:
        settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = await Database.open(settings.database_url or folder.database_url)
    try:
        await meet_database(database, partial(migrate, database))
        yield Office(
            settings,
            SqlAccounts(database, clock, new_id),
            SqlCatalog(database, clock, new_id),
            SqlShop(database, clock),
            database,
            open_audit(database, settings, clock),
            SqlWaitlist(database),
        )
    finally:
        await database.close()


async def restore_database(settings: Settings, file: Path) -> tuple[Summary, int]:
    """Fills an empty database; what the file had, and how many persons were forgotten again.

    Raises BadBackup, Unavailable, FolderInUse.
    """
    folder = DataFolder(settings.data)
    with contextlib.ExitStack() as stack:
        if not settings.database_url:
            stack.enter_context(folder)  # no node may be using it
        database = await Database.open(settings.database_url or folder.database_url)
        try:
            summary = await backup_sql.restore(database, file)
            await recovery_sql.mark(database, summary.at)
            people = await open_people(settings, _secret(settings), database)
            return summary, await people.repeat_erasures()
        finally:
            await database.close()


@contextlib.asynccontextmanager
async def open_books(settings: Settings) -> AsyncIterator[tuple[ProviderCheck, Recovery]]:
    """The books beside the provider's, for a command. Needs `LIVE_STRIPE_KEY`: a sandbox belongs to
    the node that started it, which compares by itself and when its host asks."""
    async with open_office(settings) as office:
        provider = open_provider(settings.stripe_key, (), settings.stripe_api)
        refunding = open_refunding(provider, office.database, clock)

        async def look_again(_payment: str, intent: str) -> None:
            await refunding.heard_of(intent)

        try:
            check = open_check(provider, office.database, clock, look_again)
            recovery = open_recovery(
                provider, office.database, await office.people(), clock, _untold
            )
            yield check, recovery
        finally:
            await provider.close()


async def _untold(_rids: Sequence[str]) -> None:
    """A running node's relay tells the gate: the facts stand in the outbox."""
