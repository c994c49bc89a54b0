"""A worker's engines: its Valkeys and its database, kept from seed to seed.

Responsible for making and ending them. It must not know what is played on them. New processes for
each seed would cost more than the seed, and so would an engine's compiled statements.
"""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from commerce.database_sql import Database
from loadtests.simulation import databases_sql
from loadtests.simulation.postgres_sql import postgres
from loadtests.simulation.seed import Verdict, run_seed
from loadtests.simulation.valkeys_redis import ScriptChange, Valkeys
from loadtests.simulation.virtual_time import VirtualLoop

T = TypeVar("T")

MEMORY: Final = Path("/dev/shm")
"""A file system in memory, where there is one: the simulation pulls no plug."""


class Stand:
    """Plays seeds, one after the other."""

    def __init__(self, valkeys: Valkeys, database: Database) -> None:
        self._valkeys = valkeys
        self._database = database

    def play(self, seed: int, *, keep_lines: bool = False) -> Verdict:
        """One seed."""
        return run_seed(seed, self._valkeys, self._database, keep_lines=keep_lines)


@contextlib.contextmanager
def open_stand(kind: str = "sqlite", *, change: ScriptChange | None = None) -> Iterator[Stand]:
    """Engines of our own: Valkeys, and a database of the kind `sqlite` or `postgresql`."""
    place = MEMORY if MEMORY.is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="vitrine-sim-", dir=place))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o711)  # PostgreSQL works in it as somebody else
        valkeys = Valkeys(folder, change or ScriptChange())
        stack.callback(valkeys.stop)
        url = f"sqlite:///{folder}/db"
        if kind == "postgresql":
            url = stack.enter_context(postgres(folder / "pg"))
        database = _run(databases_sql.Kept.open(url, poolsize=databases_sql.POOL))
        stack.callback(lambda: _run(database.close()))
        _run(_prepare(database))
        yield Stand(valkeys, database)


async def _prepare(database: databases_sql.Kept) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    with loop.really() if database.dialect == "postgresql" else contextlib.nullcontext():
        await database.prepare()


def _run(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)
