"""When the log of SQLite is moved into its file, and what is in the file then."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import insert

from commerce.checkpoints_sql import LOOKS_MAX, Checkpoints
from commerce.database_sql import Database
from commerce.schema_sql import idempotency, metadata


async def _open(path: Path) -> Database:
    database = await Database.open(f"sqlite:///{path}", poolsize=2)
    async with database.begin() as conn:
        await conn.run_sync(metadata.create_all)
    return database


async def _write(database: Database, key: str) -> None:
    row = {"scope": "s", "key": key, "request_sha": "x", "status": None, "created_at": 1}
    async with database.begin() as conn:
        await conn.execute(insert(idempotency).values(**row))


def _rows_without_log(path: Path, copy: Path) -> int:
    """What somebody sees who has the file and not the log beside it."""
    shutil.copyfile(path, copy)
    with closing(sqlite3.connect(copy)) as connection:
        try:
            return int(connection.execute("SELECT count(*) FROM idempotency").fetchone()[0])
        except sqlite3.OperationalError:
            return 0  # not even the table


async def test_the_log_is_moved_when_nobody_has_written_since_the_last_look(
    tmp_path: Path,
) -> None:
    path = tmp_path / "shop.db"
    database = await _open(path)
    checkpoints = Checkpoints(database)
    await _write(database, "a")
    assert not await checkpoints.step()
    assert _rows_without_log(path, tmp_path / "copy-1") == 0
    assert await checkpoints.step()
    assert _rows_without_log(path, tmp_path / "copy-2") == 1
    assert not await checkpoints.step()
    await database.close()


async def test_a_database_that_is_never_quiet_has_its_log_moved_after_a_while(
    tmp_path: Path,
) -> None:
    path = tmp_path / "shop.db"
    database = await _open(path)
    checkpoints = Checkpoints(database)
    moved = []
    for turn in range(LOOKS_MAX):
        await _write(database, f"k-{turn}")
        moved.append(await checkpoints.step())
    assert moved == [False] * (LOOKS_MAX - 1) + [True]
    assert _rows_without_log(path, tmp_path / "copy") == LOOKS_MAX
    await database.close()


async def test_a_log_that_cannot_be_moved_ends_nothing(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    database = await _open(path)
    checkpoints = Checkpoints(database)
    await _write(database, "a")
    await checkpoints.step()
    await database.close()
    path.unlink()
    path.mkdir()
    assert await checkpoints.step()
