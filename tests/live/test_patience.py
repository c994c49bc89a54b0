"""A start waits for engines that restart, says so once, and not for ever."""

import threading
from functools import partial
from pathlib import Path

import pytest

from commerce.database_sql import Database
from commerce.errors import Unavailable
from live.migrate_sql import migrate, revisions
from live.patience import EngineAway, meet_database, meet_valkey
from live.terminal import run
from realtime.cluster_redis import scheme_found
from tests.waiting import until

AIOSQLITE = "_connection_worker_thread"
NOBODY = "postgresql://nobody@127.0.0.1:1/nothing"


class Pauses:
    """Waits for nothing, and lets something happen at the n-th time."""

    def __init__(self, at: int = 0, happens: object = None) -> None:
        self.count = 0
        self._at = at
        self._happens = happens

    async def __call__(self, _seconds: float) -> None:
        self.count += 1
        if self.count == self._at and callable(self._happens):
            self._happens()


async def closed(database: Database) -> None:
    """With the threads of connections that failed: aiosqlite ends them behind our back."""
    await database.close()

    async def ended() -> bool:
        return not any(AIOSQLITE in thread.name for thread in threading.enumerate())

    await until(ended)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.name != "asyncio"]


async def test_a_database_that_comes_back_is_met_and_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "later"
    database = await Database.open(f"sqlite:///{folder / 'shop.db'}")
    pauses = Pauses(3, folder.mkdir)
    try:
        met = await meet_database(database, partial(migrate, database), pause=pauses)
    finally:
        await closed(database)
    assert met == revisions()[-1]
    assert pauses.count == 3
    assert said(caplog) == ["the database does not answer yet; waiting up to 20 s for it"]


async def test_one_that_goes_away_in_the_middle_is_met_again(sqlite_url: str) -> None:
    database = await Database.open(sqlite_url)
    tries = 0

    async def meet() -> int:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise Unavailable(300)
        return tries

    try:
        assert await meet_database(database, meet, pause=Pauses()) == 2
    finally:
        await database.close()


@pytest.mark.parametrize("url", [NOBODY, "sqlite:////nowhere/shop.db"])
async def test_one_that_stays_away_ends_the_start_with_a_sentence(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    database = await Database.open(url)
    try:
        with pytest.raises(EngineAway, match=r"did not answer within 0\.05 s"):
            await meet_database(database, partial(migrate, database), wait_s=0.05)
    finally:
        await closed(database)
    assert len(said(caplog)) == 1


@pytest.mark.parametrize("wrong", [EngineAway("it is away"), Unavailable(300)])
def test_the_command_line_says_it_in_one_line(
    wrong: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    async def work() -> None:
        raise wrong

    with pytest.raises(SystemExit) as ended:
        run(work())
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("vitrine: ")
    assert told.count("\n") == 1


async def test_a_valkey_that_is_away_is_waited_for_and_then_done_without(
    caplog: pytest.LogCaptureFixture,
) -> None:
    look = partial(scheme_found, "redis://127.0.0.1:1/")
    assert await meet_valkey(look, wait_s=0.05) is None
    assert len(said(caplog)) == 1


async def test_a_valkey_that_comes_back_is_asked_what_it_is() -> None:
    answers = [None, None, "redis+cluster://there/"]

    async def look() -> str | None:
        return answers.pop(0)

    assert await meet_valkey(look, pause=Pauses()) == "redis+cluster://there/"
    assert await scheme_found("unix:///nowhere/s") == "unix:///nowhere/s"
