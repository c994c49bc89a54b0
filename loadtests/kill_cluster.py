"""The processes that the kill drill kills: nodes, Valkey, PostgreSQL. The provider lives.

Responsible for starting and ending them and for the data that a Valkey finds when it comes back
(its own, none, or an old copy). It must not know when or why. Two shapes: `cluster` (two nodes on
PostgreSQL and a Valkey of their own) and `embedded` (one node as a newcomer starts it: SQLite, and
a Valkey that is its child). The payment sandbox stands aside in both: a provider does not die with
the shop. Nothing here outlives the drill: each process is tied to it by `live/child_guard.py`.
"""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final, Literal

from redis.asyncio import Redis
from redis.exceptions import RedisError

from live.child import guarded
from live.data_folder import DataFolder
from live.engines import find_valkey, socket_url, valkey_arguments
from live.identity import Identity, Role, Tokens
from live.settings import DRILL_WORD
from loadtests.own_postgres import OwnPostgres
from loadtests.server import ROOT, free_port
from loadtests.shopper import wall_ms

NODES: Final = 2
START_S: Final = 60.0
GONE_S: Final = 5.0
PROBE_S: Final = 2.0
POLL_S: Final = 0.02
TOKEN_S: Final = 24 * 3600
PROVIDER_KEY: Final = "sk_test_vitrine_sandbox"
LOG_TAIL_CHARS: Final = 3_000
LAST_WORD_CHARS: Final = 120

Data = Literal["kept", "empty", "stale"]
"""What a Valkey finds when it comes back."""


class Program:
    """One process of ours that may be killed and started again."""

    def __init__(self, name: str, argv: list[str], folder: Path, environ: dict[str, str]) -> None:
        self.name = name
        self._argv = argv
        self._environ = _environ(environ)
        self._log = folder / f"{name}.log"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Of the running process; 0 when there is none."""
        return 0 if self._process is None else self._process.pid

    async def start(self) -> None:
        """Returns when it has begun, not when it is ready."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *guarded(self._argv),
                cwd=ROOT,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def kill(self) -> None:
        """kill -9, and gone."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


class Nursery:
    """Forks nodes (`kill_nursery`) and hears how they ended."""

    def __init__(self) -> None:
        self._born: asyncio.Queue[int] = asyncio.Queue(maxsize=1)
        self._ends: dict[int, asyncio.Future[int]] = {}
        self._turn = asyncio.Lock()

    @property
    def pid(self) -> int:
        """Of the process that is parent of all nodes."""
        return self._process.pid

    async def start(self) -> None:
        """Imports the program; takes a second or two."""
        self._process = await asyncio.create_subprocess_exec(
            *guarded([sys.executable, "-m", "loadtests.kill_nursery"]),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        if not await self._process.stdout.readline():
            raise RuntimeError("the nursery did not start")
        self._listening = asyncio.create_task(self._listen(self._process.stdout))

    async def fork(
        self, environ: Mapping[str, str], log: Path
    ) -> tuple[int, "asyncio.Future[int]"]:
        """A node: its process id and how it will have ended."""
        assert self._process.stdin is not None
        order = {"environ": dict(environ), "log": str(log)}
        async with self._turn:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            pid = await self._born.get()
        return pid, self._ends[pid]

    async def close(self) -> None:
        """Ends it, and its children with it."""
        self._process.kill()
        await self._process.wait()
        await asyncio.gather(self._listening)

    async def _listen(self, said: asyncio.StreamReader) -> None:
        while line := await said.readline():
            word = json.loads(line)
            if "code" in word:
                self._ends.pop(word["pid"]).set_result(word["code"])
            else:
                self._ends[word["pid"]] = asyncio.get_running_loop().create_future()
                self._born.put_nowait(word["pid"])


class Node:
    """One node of the shop, started again and again under one name and on one port."""

    def __init__(self, name: str, nursery: Nursery, folder: Path, environ: dict[str, str]) -> None:
        self.name = name
        self._nursery = nursery
        self._log = folder / f"{name}.log"
        self._environ = _environ(environ)
        self._end: asyncio.Future[int] | None = None
        self._pid = 0
        self.port = int(environ["LIVE_PORT"])

    @property
    def pid(self) -> int:
        """Of the running process; 0 when there is none."""
        return 0 if self._end is None or self._end.done() else self._pid

    async def start(self, environ: Mapping[str, str] | None = None) -> None:
        """Returns when it has begun, not when it is ready."""
        self._pid, self._end = await self._nursery.fork(
            {**self._environ, **(environ or {})}, self._log
        )

    @property
    def environ(self) -> Mapping[str, str]:
        """With which it is started."""
        return self._environ

    async def ended(self) -> int:
        """Waits for its end; -9 if it was killed, by others or by itself."""
        assert self._end is not None
        return await asyncio.shield(self._end)

    async def kill(self) -> None:
        """kill -9, and gone."""
        if self.pid:
            os.kill(self._pid, signal.SIGKILL)
            await self.ended()

    async def ready(self) -> bool:
        """Whether it says so itself."""
        try:
            async with asyncio.timeout(PROBE_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    writer.write(b"GET /readyz HTTP/1.0\r\n\r\n")
                    return b" 200 " in await reader.readline()
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False

    def last_word(self) -> str:
        """The last line of its log."""
        return (self.tail().strip().splitlines() or ["nothing"])[-1][:LAST_WORD_CHARS]

    def tail(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace")[-LOG_TAIL_CHARS:]


def _environ(more: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without settings of somebody else's node."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("LIVE_")}
    return {**own, **more}


class ValkeyFiles:
    """The data folder of a Valkey, and an older copy of it."""

    def __init__(self, data: Path, copy: Path) -> None:
        self.data = data
        self._copy = copy

    def keep_copy(self) -> None:
        """What is on disk now is what a stale one will come back with. It may be running."""
        if self.data.is_dir():
            with contextlib.suppress(shutil.Error, OSError):  # a file may go while it is copied
                draft = self._copy.with_name("draft")
                shutil.rmtree(draft, ignore_errors=True)
                shutil.copytree(self.data, draft)
                shutil.rmtree(self._copy, ignore_errors=True)
                draft.rename(self._copy)

    def restore(self, how: Data) -> None:
        """Only while it does not run."""
        if how == "kept":
            return
        shutil.rmtree(self.data, ignore_errors=True)
        if how == "stale" and self._copy.is_dir():
            shutil.copytree(self._copy, self.data)
        else:
            self.data.mkdir(mode=0o700)


class OwnValkey:
    """A Valkey that is nobody's child but the drill's."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.socket = folder / "s"
        self.files = ValkeyFiles(folder / "data", folder / "copy")
        self.files.data.mkdir()
        argv = [str(find_valkey()), *valkey_arguments(self.socket, self.files.data)]
        self._program = Program("valkey", argv, folder, {})

    @property
    def pid(self) -> int:
        """Of the running process; 0 when there is none."""
        return self._program.pid

    async def start(self) -> None:
        """On whatever data there is; returns when it answers."""
        self.socket.unlink(missing_ok=True)
        await self._program.start()
        client = Redis.from_url(socket_url(self.socket))
        try:
            async with asyncio.timeout(START_S):
                while not await _pings(client):  # noqa: ASYNC110 - another process
                    await asyncio.sleep(POLL_S)
        finally:
            await client.aclose()

    async def kill(self) -> None:
        """kill -9."""
        await self._program.kill()


class Cluster:
    """What runs, and how to reach it."""

    def __init__(
        self,
        folder: Path,
        *,
        nodes: int,
        valkey: str,
        database: str,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.valkey: OwnValkey | None = None
        self.postgres: OwnPostgres | None = None
        self.files: ValkeyFiles | None = None
        self.database_url = database
        self.nursery = Nursery()
        self._secret = secrets.token_hex(32)
        self._tokens = Tokens(self._secret, wall_ms)
        ports = [free_port() for _ in range(nodes + 1)]
        webhook_secret = f"whsec_{secrets.token_hex(16)}"
        self.provider_url = provider = f"http://127.0.0.1:{ports[-1]}"
        self.urls = [f"http://127.0.0.1:{port}" for port in ports[:-1]]
        self.sandbox_file = folder / "sandbox" / "sandbox.sqlite3"
        self.sandbox = Program(
            "sandbox",
            [
                *(sys.executable, "-m", "commerce.sandbox"),
                *("--port", str(ports[-1]), "--data", str(folder / "sandbox")),
                *("--key", PROVIDER_KEY, "--secret", webhook_secret),
                *("--webhook", f"{self.urls[0]}/api/v1/webhooks/stripe"),
            ],
            folder,
            {},
        )
        shared = {
            "LIVE_HOST": "127.0.0.1",
            "LIVE_SECRET": self._secret,
            "LIVE_STRIPE_API": provider,
            "LIVE_STRIPE_WEBHOOK_SECRET": webhook_secret,
            "LIVE_JOIN_LIMITS": "off",
            "LIVE_LOG_LEVEL": "warning",
            **({"LIVE_VALKEY_URL": valkey} if valkey else {}),
            **({"LIVE_DATABASE_URL": database} if valkey else {}),
            **(settings or {}),
        }
        self.nodes = [
            Node(
                f"node-{number}",
                self.nursery,
                folder,
                {
                    **shared,
                    "LIVE_PORT": str(port),
                    "LIVE_PUBLIC_URL": self.urls[number],
                    "LIVE_NODE_NAME": f"node-{number}",
                    "LIVE_DATA": str(folder / f"data-{number}"),
                },
            )
            for number, port in enumerate(ports[:-1])
        ]

    @property
    def valkey_socket(self) -> Path:
        """Where the gate is now."""
        if self.valkey is not None:
            return self.valkey.socket
        return DataFolder(self.folder / "data-0").live_socket()

    def token(self, who: str, role: Role = Role.GUEST) -> str:
        """For somebody, good on all nodes."""
        return self._tokens.issue(Identity(who, who, role), TOKEN_S)

    def embedded_valkey(self) -> int:
        """The process id of the node's own Valkey; 0 while it has none."""
        pid = self.nodes[0].pid
        with contextlib.suppress(OSError):
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                if b"valkey-server" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
        return 0

    async def embedded_is_gone(self) -> bool:
        """Waits until nobody has the node's folder any more; False if somebody keeps it."""
        data = DataFolder(self.folder / "data-0")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GONE_S):
                while data.owner() is not None:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(POLL_S)
                return True
        return False

    async def close(self) -> None:
        """Ends everything."""
        for node in self.nodes:
            await node.kill()
        await self.sandbox.kill()
        await self.nursery.close()
        if self.valkey is not None:
            await self.valkey.kill()
        if self.postgres is not None:
            await self.postgres.end("stop")


def armed(point: str, nth: int) -> dict[str, str]:
    """Settings of a node that is to kill itself there."""
    return {"LIVE_DRILL": DRILL_WORD, "LIVE_CRASH_AT": f"{point}:{nth}"}


@contextlib.asynccontextmanager
async def cluster(
    folder: Path, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Cluster]:
    """Two nodes (not started) on PostgreSQL and a Valkey, both running, and the provider.

    `settings`: more LIVE_ variables of the nodes.
    """
    valkey = OwnValkey(folder / "v")
    postgres = OwnPostgres(folder / "pg")
    url = socket_url(valkey.socket)
    whole = Cluster(folder, nodes=NODES, valkey=url, database=postgres.url, settings=settings)
    whole.valkey, whole.postgres, whole.files = valkey, postgres, valkey.files
    await whole.nursery.start()
    try:
        await asyncio.to_thread(postgres.make)
        await valkey.start()
        await postgres.start()
        await whole.sandbox.start()
        yield whole
    finally:
        await whole.close()


@contextlib.asynccontextmanager
async def embedded(
    folder: Path, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Cluster]:
    """One node (not started) with SQLite and a Valkey of its own, and the provider."""
    data = DataFolder(folder / "data-0")
    whole = Cluster(folder, nodes=1, valkey="", database=data.database_url, settings=settings)
    whole.files = ValkeyFiles(data.valkey, folder / "copy")
    await whole.nursery.start()
    try:
        await whole.sandbox.start()
        yield whole
    finally:
        await whole.close()


async def _pings(client: Redis) -> bool:
    try:
        return bool(await client.ping())
    except (RedisError, OSError):
        return False
