"""A PostgreSQL of a drill's own, to be stopped without warning and started again with recovery.

Responsible for its processes and their end (`embedded_postgres` makes it ready). It must not know
what is stored. It runs with its own defaults for durability (fsync and synchronous_commit on): a
drill that asks what survives must not run on a server that was told not to care.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Final, Literal

import psycopg

from loadtests.embedded_postgres import Installed, NoPostgres, install

START_S: Final = 60.0
POLL_S: Final = 0.02
GONE_S: Final = 10.0
SETTINGS: Final = {"max_connections": 100, "shared_buffers": "32MB"}

How = Literal["stop", "kill"]


class OwnPostgres:
    """`folder` must be short (a socket lies in it) and must not exist yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._installed: Installed | None = None
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Of its one database."""
        return f"postgresql://postgres@/postgres?host={self.folder}"

    @property
    def pid(self) -> int:
        """Of the running server; 0 when there is none."""
        return 0 if self._process is None else self._process.pid

    def make(self) -> None:
        """A new cluster of databases; takes a second. Raises NoPostgres."""
        self._installed = install(self.folder)

    async def start(self) -> None:
        """Starts it, with recovery if it needs one, and waits until it answers."""
        installed = self._installed
        assert installed is not None
        with (self.folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *installed.command(SETTINGS),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **installed.options,
            )
        deadline = time.monotonic() + START_S
        while not await self._answers():
            if self._process.returncode is not None or time.monotonic() > deadline:
                raise NoPostgres(f"PostgreSQL did not start:\n{installed.log_tail()}")
            await asyncio.sleep(POLL_S)

    async def end(self, how: How) -> None:
        """`stop`: its own immediate shutdown; `kill`: kill -9 of it and of all its children.

        The children are sessions of their own, so no group holds them. The parent is stopped
        before they are counted, or it would start new ones meanwhile.
        """
        process, self._process = self._process, None
        if process is None:
            return
        if how == "stop":
            process.send_signal(signal.SIGQUIT)
            await process.wait()
            return
        process.send_signal(signal.SIGSTOP)
        children = _children(process.pid)
        process.kill()
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await process.wait()
        deadline = time.monotonic() + GONE_S
        while any(map(_alive, children)):
            if time.monotonic() > deadline:
                raise RuntimeError("children of PostgreSQL outlived a kill -9")
            await asyncio.sleep(POLL_S)

    async def _answers(self) -> bool:
        try:
            async with await psycopg.AsyncConnection.connect(self.url, connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False


def _children(pid: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    return []


def _alive(pid: int) -> bool:
    """Running, and not merely waiting for its parent to look."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
