"""A copy of the whole database in one file, and back: the same for SQLite and PostgreSQL.

Responsible for a file that holds one snapshot of every table, taken while the shop is open, and for
filling an empty database of either kind with it. It must not know what a table means.

Why not the databases' own tools: a newcomer's machine has neither `pg_dump` nor `sqlite3`, and a
file that both engines read is also the way from the embedded database to a PostgreSQL. The file is
gzipped JSON lines: a head (format, schema revision, time), per table a line with its columns and
one line per row, and an end with the number of rows, without which a copy that was cut off is
refused. Restoring lays the schema of the file's revision, fills it, and only then migrates, all in
one transaction: afterwards there is all of it or nothing.

The gate's epoch moves on, so a Valkey that still has numbers of the lost database is fenced.
"""

import gzip
import json
import os
from collections.abc import AsyncIterator, Container, Iterator
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, MetaData, Table, func, inspect, literal, select, text, tuple_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

import live.schema_sql  # noqa: F401 - joins its tables to commerce's metadata
from commerce.database_sql import Database
from commerce.schema_sql import metadata, shop
from live.backup import BadBackup, Summary
from live.migrate_sql import config_on, revisions

FORMAT: Final = 1
BATCH: Final = 500
"""Rows of one INSERT, and of one fetch."""
SUFFIX: Final = ".part"


async def backup(database: Database, path: Path, now: int) -> Summary:
    """Writes a copy; the file appears under its name only when it is whole. Raises Unavailable.

    FileExistsError if it is there already: a backup is never overwritten.
    """
    _refuse_existing(path)
    draft = path.with_name(path.name + SUFFIX)
    rows: dict[str, int] = {}
    try:
        async with database.read() as conn:
            revision = str(
                (await conn.execute(text("SELECT version_num FROM alembic_version"))).scalar_one()
            )
            with gzip.open(draft, "wt", encoding="utf-8", compresslevel=6) as file:

                def write(value: object) -> None:
                    file.write(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")

                write({"vitrine": FORMAT, "revision": revision, "at": now})
                for table in metadata.sorted_tables:
                    write({"table": table.name, "columns": [column.name for column in table.c]})
                    rows[table.name] = 0
                    async for row in _rows(conn, table):
                        write(row)
                        rows[table.name] += 1
                    counted = select(func.count()).select_from(table)
                    if rows[table.name] != (await conn.execute(counted)).scalar_one():
                        raise BadBackup(f"{table.name} could not be read as a whole")
                write({"end": rows})
        _publish(draft, path)
    finally:
        _forget(draft)
    return Summary(revision, now, rows)


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise FileExistsError(path)


def _publish(draft: Path, path: Path) -> None:
    """On disk and whole before it has its name; never in the place of another file."""
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.chmod(0o600)
    os.link(draft, path)


def _forget(draft: Path) -> None:
    draft.unlink(missing_ok=True)


async def _rows(conn: AsyncConnection, table: Table) -> AsyncIterator[list[Any]]:
    """By the primary key, page by page: SQLite's driver brings a whole result at once."""
    key = list(table.primary_key.columns)
    places = [list(table.c).index(column) for column in key]
    wanted = select(table).order_by(*key).limit(BATCH)
    rows = (await conn.execute(wanted)).all()
    while rows:
        for row in rows:
            yield list(row)
        last = tuple_(*(literal(rows[-1][place], list(table.c)[place].type) for place in places))
        rows = (await conn.execute(wanted.where(tuple_(*key) > last))).all()


async def restore(database: Database, path: Path) -> Summary:
    """Fills an empty database. Raises BadBackup, Unavailable; then nothing has changed."""
    summary = read_summary(path)
    known = revisions()
    if summary.revision not in known:
        raise BadBackup(
            f"this copy has the schema {summary.revision}, which this program does not know: "
            "restore it with the version that made it, or a newer one"
        )
    try:
        await _fill(database, path, summary)
    except IntegrityError:
        raise BadBackup("its rows do not fit together") from None
    return summary


async def _fill(database: Database, path: Path, summary: Summary) -> None:
    async with database.begin() as conn:
        await conn.run_sync(_refuse_full)
        await conn.run_sync(_lay, summary.revision)
        tables = await conn.run_sync(_reflect)
        if database.dialect == "sqlite":
            await conn.execute(text("PRAGMA defer_foreign_keys = ON"))
        counted: dict[str, int] = dict.fromkeys(summary.rows, 0)
        for name, batch in _batches(path):
            if name not in tables:
                raise BadBackup(f"its revision has no table {name}")
            await conn.execute(tables[name].insert(), batch)
            counted[name] += len(batch)
        if counted != summary.rows:
            raise BadBackup("it does not hold as many rows as it says")
        if database.dialect == "postgresql":
            await _continue_numbers(conn, summary.rows)
        await conn.run_sync(_lay, revisions()[-1])
        await conn.execute(shop.update().values(gate_epoch=shop.c.gate_epoch + 1))


def read_summary(path: Path) -> Summary:
    """Reads the file to its end. Raises BadBackup unless it is whole."""
    head, end = None, None
    for line in _lines(path):
        head = line if head is None else head
        end = line
    if not isinstance(head, dict) or head.get("vitrine") != FORMAT:
        raise BadBackup(f"{path} is not a backup of this program")
    if not isinstance(end, dict) or "end" not in end:
        raise BadBackup(f"{path} was cut off: its end is missing")
    return Summary(str(head["revision"]), int(head["at"]), dict(end["end"]))


def _lines(path: Path) -> Iterator[Any]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)
    except (OSError, EOFError, ValueError) as wrong:
        raise BadBackup(f"{path} cannot be read ({type(wrong).__name__})") from None


def _batches(path: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(table, up to BATCH rows) in the order of the file, which is that of the references."""
    name, columns = "", [""]
    batch: list[dict[str, Any]] = []
    for line in _lines(path):
        if isinstance(line, list):
            batch.append(dict(zip(columns, line, strict=True)))
        if batch and (isinstance(line, dict) or len(batch) == BATCH):
            yield name, batch
            batch = []
        if isinstance(line, dict) and "table" in line:
            name, columns = line["table"], line["columns"]


def _refuse_full(connection: Connection) -> None:
    inspector = inspect(connection)
    for name in inspector.get_table_names():
        if name == "alembic_version":
            continue
        rows = connection.execute(select(func.count()).select_from(text(f'"{name}"'))).scalar_one()
        if rows:
            raise BadBackup("the database is not empty: restore into a new one")


def _lay(connection: Connection, revision: str) -> None:
    from alembic import command

    command.upgrade(config_on(connection), revision)


def _reflect(connection: Connection) -> dict[str, Table]:
    """The tables as they are at the file's revision, which may be older than this program's."""
    found = MetaData()
    found.reflect(connection)
    return dict(found.tables)


async def _continue_numbers(conn: AsyncConnection, restored: Container[str]) -> None:
    """Numbers that PostgreSQL gives out go on after those that were restored."""
    for table in metadata.sorted_tables:
        column = table.autoincrement_column
        if column is None or column.autoincrement is not True or table.name not in restored:
            continue
        sequence = f"pg_get_serial_sequence('{table.name}', '{column.name}')"
        newest = f'(SELECT max("{column.name}") FROM "{table.name}")'
        await conn.execute(text(f"SELECT setval({sequence}, {newest}) WHERE {newest} IS NOT NULL"))
