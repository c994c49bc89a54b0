"""`python -m live raffle`: a draw is recomputed, and one that was tampered with is found."""

import asyncio
import subprocess
import sys
from pathlib import Path

from sqlalchemy import update

from commerce.database_sql import Database
from commerce.raffle import commitment, ranking
from commerce.schema_sql import sale_drop, waiting
from live.data_folder import DataFolder
from live.migrate_sql import migrate
from tests.conftest import ROOT

SEED = "07" * 32
ENTRIES = [f"entry-{n}-0123456789" for n in range(3)]


async def prepare(url: str) -> None:
    """A raffle that was drawn as promised."""
    database = await Database.open(url)
    await migrate(database)
    async with database.begin() as conn:
        await conn.execute(
            sale_drop.insert().values(
                id="d_1",
                show="s",
                title="",
                opens_at=1,
                hold_s=60,
                created_at=1,
                draws_at=2,
                seed=SEED,
                seed_sha=commitment(SEED),
                drawn_at=3,
                entries=3,
            )
        )
        for rank, rid in enumerate(ranking(SEED, ENTRIES), start=1):
            await conn.execute(
                waiting.insert().values(
                    rid=rid,
                    drop="d_1",
                    sku="A",
                    viewer=rid,
                    quantity=1,
                    fingerprint="",
                    state="waiting",
                    place=rank,
                    created_at=1,
                )
            )
    await database.close()


async def tamper(url: str) -> None:
    database = await Database.open(url)
    async with database.begin() as conn:
        await conn.execute(update(sale_drop).values(seed="08" * 32))
    await database.close()


def raffle(folder: Path, drop: str = "d_1") -> tuple[int, str]:
    command = [sys.executable, "-m", "live", "raffle", drop, "--data", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_draw_is_recomputed_and_a_wrong_one_fails(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    url = DataFolder(folder).database_url
    asyncio.run(prepare(url))
    code, text = raffle(folder)
    assert code == 0, text
    assert [line.split()[-1] for line in text.splitlines()[2:5]] == ranking(SEED, ENTRIES)
    assert "drawn as promised" in text
    asyncio.run(tamper(url))
    code, text = raffle(folder)
    assert (code, "NOT drawn as promised" in text) == (1, True)
    code, text = raffle(folder, "d_2")
    assert code != 0
    assert "no raffle d_2" in text
