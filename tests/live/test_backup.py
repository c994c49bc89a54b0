"""A copy of the database, its loss, and everything back; also from every schema ever released."""

import asyncio
import gzip
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select, text, update

from commerce.database_sql import Database
from commerce.people import Erasure, ErasureList
from commerce.people_sql import SqlPeople
from commerce.schema_sql import metadata, outbox, shop, webhook_event
from commerce.vault import Vault
from live.backup import BadBackup
from live.backup_sql import backup, read_summary, restore
from live.migrate_sql import differences, migrate, revisions
from tests.program import Program
from tests.servers import PostgresServer

RELEASED = sorted((Path(__file__).parent / "released").glob("schema_*.jsonl"))
MASTER = "a master of thirty-two characters or more"
NOW = 1_800_000_000_000


def packed(source: Path, target: Path) -> Path:
    """A released shop as `backup` writes it."""
    target.write_bytes(gzip.compress(source.read_bytes()))
    return target


async def content(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    found = {}
    async with database.read() as conn:
        for table in metadata.sorted_tables:
            rows = (await conn.execute(select(table))).all()
            found[table.name] = sorted(tuple(map(str, row)) for row in rows)
    return found


@pytest.fixture
async def full(database_url: str, tmp_path: Path) -> AsyncIterator[Database]:
    """A shop that has sold something, at the present schema."""
    database = await Database.open(database_url)
    await restore(database, packed(RELEASED[0], tmp_path / "old.backup"))
    yield database
    await database.close()


@pytest.fixture
async def other(
    database_url: str, tmp_path: Path, postgres_server: PostgresServer
) -> AsyncIterator[Database]:
    """An empty database of the other kind."""
    if database_url.startswith("postgresql"):
        database = await Database.open(f"sqlite:///{tmp_path / 'other.db'}")
        yield database
        await database.close()
        return
    name = postgres_server.create_database()
    database = await Database.open(postgres_server.url(name))
    yield database
    await database.close()
    postgres_server.drop_database(name)


def test_every_schema_but_the_newest_has_a_shop_to_start_from() -> None:
    have = {path.stem.removeprefix("schema_") for path in RELEASED}
    assert "0001" in have
    assert have <= set(revisions())


@pytest.mark.parametrize("released", RELEASED, ids=lambda path: path.stem)
async def test_a_shop_of_a_released_schema_comes_forward_with_all_its_rows(
    database_url: str, released: Path, tmp_path: Path
) -> None:
    database = await Database.open(database_url)
    try:
        summary = await restore(database, packed(released, tmp_path / "x.backup"))
        assert await differences(database) == []
        assert await migrate(database) == revisions()[-1]
        found = await content(database)
        assert {name: len(found[name]) for name in summary.rows} == summary.rows
        people = SqlPeople(database, Vault([MASTER]), ErasureList(tmp_path / "none"))
        assert await people.seal_old() == summary.rows["customer_detail"] == 1
    finally:
        await database.close()


async def test_a_copy_is_the_same_in_a_database_of_the_other_kind(
    full: Database, other: Database, tmp_path: Path
) -> None:
    file = tmp_path / "shop.backup"
    made = await backup(full, file, NOW)
    assert made == read_summary(file)
    assert made.rows["orders"] == 1
    assert file.stat().st_mode & 0o777 == 0o600
    assert [name for name in os.listdir(tmp_path) if name.endswith(".part")] == []
    await restore(other, file)
    there, here = await content(other), await content(full)
    epochs = [{row[4] for row in found.pop("shop")} for found in (here, there)]
    assert there == here
    assert int(epochs[1].pop()) == int(epochs[0].pop()) + 1, "a gate of the lost one is fenced"


async def test_numbers_that_the_database_gives_out_go_on(
    full: Database, other: Database, tmp_path: Path
) -> None:
    file = tmp_path / "shop.backup"
    await backup(full, file, NOW)
    await restore(other, file)
    async with other.begin() as conn:
        newest = (await conn.execute(select(func.max(outbox.c.id)))).scalar_one()
        row: dict[str, object] = {"topic": "show", "key": "k", "payload": {}, "created_at": 1}
        made = await conn.execute(insert(outbox).values(row).returning(outbox.c.id))
        assert made.scalar_one() > newest
        event = {"uid": "u", "type": "t", "key": "k", "body": "", "created_at": 1}
        await conn.execute(insert(webhook_event).values(event))  # an empty table counts from one


async def test_a_copy_is_one_moment_of_an_open_shop(
    full: Database, other: Database, tmp_path: Path
) -> None:
    stop = asyncio.Event()

    async def sell() -> None:
        while not stop.is_set():
            async with full.begin() as conn:  # two tables that always change together
                await conn.execute(update(shop).values(shipping_amount=shop.c.shipping_amount + 1))
                row = {"topic": "show", "key": "count", "payload": {}, "created_at": 1}
                await conn.execute(insert(outbox).values(row))

    selling = asyncio.create_task(sell())
    await backup(full, tmp_path / "shop.backup", NOW)
    stop.set()
    await selling
    await restore(other, tmp_path / "shop.backup")
    async with other.read() as conn:
        amount = (await conn.execute(select(shop.c.shipping_amount))).scalar_one()
        counted = select(func.count()).where(outbox.c.key == "count")
        assert (await conn.execute(counted)).scalar_one() == amount


async def test_a_full_database_a_cut_file_and_a_strange_one_are_refused(
    full: Database, other: Database, tmp_path: Path
) -> None:
    file = tmp_path / "shop.backup"
    await backup(full, file, NOW)
    with pytest.raises(FileExistsError):
        await backup(full, file, NOW)
    before = await content(full)
    with pytest.raises(BadBackup, match="not empty"):
        await restore(full, file)
    assert await content(full) == before
    whole = file.read_bytes()
    lines = gzip.decompress(whole).decode().splitlines(keepends=True)
    a_row = next(n for n, line in enumerate(lines) if line.startswith("["))
    newer = json.dumps({"vitrine": 1, "revision": "9999", "at": 1}) + "\n"
    for name, damaged, why in (
        ("cut", whole[: len(whole) // 2], "cannot be read|cut off"),
        ("endless", gzip.compress("".join(lines[:-1]).encode()), "cut off"),
        ("strange", b"PK not a backup", "cannot be read"),
        ("other", gzip.compress(b'{"a": 1}\n'), "not a backup"),
        ("newer", gzip.compress("".join([newer, *lines[1:]]).encode()), "newer"),
        (
            "short",
            gzip.compress("".join(lines[:a_row] + lines[a_row + 1 :]).encode()),
            "many rows|fit together",
        ),
    ):
        path = tmp_path / name
        path.write_bytes(damaged)
        with pytest.raises(BadBackup, match=why):
            await restore(other, path)
    async with other.read() as conn:
        query = (
            "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'"
            if other.dialect == "postgresql"
            else "SELECT count(*) FROM sqlite_master"
        )
        assert (await conn.execute(text(query))).scalar_one() == 0, "nothing was half done"


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_lost_database_file_is_restored_by_the_command_line_and_the_shop_opens_again(
    tmp_path: Path,
) -> None:
    data, file = tmp_path / "data", tmp_path / "shop.backup"
    old = packed(RELEASED[0], tmp_path / "old.backup")

    def command(*arguments: str) -> tuple[int, str]:
        program = Program(data, *arguments)
        return program.run()

    assert command("restore", str(old))[0] == 0
    with Program(data) as server:
        assert "running at" in server.output
        code, said = command("backup", str(file))  # while the shop is open
        assert (code, "rows of schema" in said) == (0, True)
        code, said = command("restore", str(file))
        assert (code, "in use by process" in said) == (2, True)
    ErasureList(data / "erasures.jsonl").add(Erasure(_buyer(old), 9_000_000_000_000))
    for path in data.glob("vitrine.db*"):
        path.unlink()
    code, said = command("restore", str(file))
    assert (code, "1 persons forgotten again" in said) == (0, True)
    with Program(data) as server:
        assert "running at" in server.output


def _buyer(file: Path) -> str:
    """Who bought something in the released shop."""
    lines = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    at = next(
        n
        for n, line in enumerate(lines)
        if isinstance(line, dict) and line.get("table") == "orders"
    )
    return str(dict(zip(lines[at]["columns"], lines[at + 1], strict=True))["viewer"])
