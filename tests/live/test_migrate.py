"""Migrations make exactly the schema the code has, once, however many start at the same time."""

import asyncio

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from commerce.database_sql import Database
from commerce.dossier_sql import SqlDossiers
from commerce.ledger_sql import SqlLedger
from live.migrate_sql import SCRIPTS, config_on, differences, migrate, revisions

FIRST_VERSION = (
    "INSERT INTO product (id, handle, title, description_html, vendor, kind, tags, options, "
    "published, fingerprint, created_at, updated_at) VALUES "
    "('p', 'p', 'Mug', '', '', '', '[]', '[]', true, '', 1, 1)",
    "INSERT INTO sku (sku, product, position, title, options, amount, currency, barcode, "
    "image_url, grams, active) VALUES ('MUG', 'p', 0, '', '{}', 333, 'USD', '', '', 0, true)",
    "INSERT INTO sku_stock (sku, on_hand, held, committed) VALUES ('MUG', 9, 0, 3)",
    "INSERT INTO stock_ledger (sku, kind, d_on_hand, d_held, d_committed, ref, at) VALUES "
    "('MUG', 'receive', 9, 0, 0, 'i', 1), ('MUG', 'commit', 0, 0, 3, 'r1', 1)",
    "INSERT INTO sale_drop (id, show, title, opens_at, hold_s, created_at) VALUES "
    "('d', 's', '', 1, 60, 1)",
    *(
        'INSERT INTO reservation (rid, viewer, "drop", fingerprint, state, until_ms, epoch, n, '
        f"currency, total, created_at) VALUES ('{rid}', 'v', 'd', '', '{state}', 1, 1, 1, 'USD', "
        "999, 1)"
        for rid, state in (("r1", "sold"), ("r2", "cancelled"))
    ),
    "INSERT INTO orders (id, rid, viewer, show, state, currency, subtotal, shipping, total, "
    "placed_at, updated_at) VALUES ('o', 'r1', 'v', 's', 'paid', 'USD', 999, 100, 1099, 1, 1)",
    'INSERT INTO order_line ("order", position, sku, title, quantity, unit_amount) VALUES '
    "('o', 0, 'MUG', 'Mug', 3, 333)",
    *(
        "INSERT INTO payment (id, rid, provider, state, amount, currency, shipping, captured, "
        f"refunded, url, created_at, updated_at, tries) VALUES ('{id_}', '{rid}', 'stripe', "
        f"'{state}', 1099, 'USD', 100, 1099, 0, '', 1, 1, 0)"
        for id_, rid, state in (("p1", "r1", "captured"), ("p2", "r2", "unallocated"))
    ),
)
"""A shop of the first released schema: a paid order of three units, and money without a unit."""


async def test_an_empty_database_gets_the_schema_of_the_code(database_url: str) -> None:
    database = await Database.open(database_url)
    newest = revisions()[-1]
    assert await migrate(database) == newest
    assert await differences(database) == []
    assert await migrate(database) == newest
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


async def test_orders_of_the_first_version_get_units_and_a_ledger_that_adds_up(
    database_url: str,
) -> None:
    database = await Database.open(database_url)

    def first(connection: Connection) -> None:
        command.upgrade(config_on(connection), "0001")

    async with database.begin() as conn:
        await conn.run_sync(first)
    async with database.begin() as conn:
        for statement in FIRST_VERSION:
            await conn.execute(text(statement))
    await migrate(database)
    assert await differences(database) == []
    dossier = await SqlDossiers(database).get("o")
    assert [unit.amount for unit in dossier.units] == [367, 366, 366]
    assert dossier.refundable == 1099
    ledger = SqlLedger(database)
    assert await ledger.faults() == []
    assert (await ledger.balances())["USD"] == {
        "provider_clearing": 2198,
        "refunds_payable": -1099,
        "sales": -999,
        "shipping_income": -100,
        "unallocated_money": 0,
    }
    with pytest.raises(IntegrityError):
        async with database.begin() as conn:
            await conn.execute(text("UPDATE ledger_posting SET amount = 1"))
    await database.close()
