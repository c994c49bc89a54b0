"""Real Valkeys for the simulation: several processes, of which one is the gate's engine at a time.

Responsible for starting them, for asking one without the loop (a command is sent and its answer is
read at once, so the engine takes part in virtual time without a thread), and for replacing it: a
restart, a failover to an old copy and a lost machine are all "from now on another process answers",
which is what the gate's run_id check must notice. It must not know what is decided in them.

A prepared process takes the place of a restarted one because a restart costs 30 ms and a copy of
eleven small keys 0.3 ms. Each process serves at most once per seed, so no run_id comes back.
"""

import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, cast

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from commerce.claims import Logged
from commerce.log_redis import GateLog
from live.child import guarded
from live.engines import find_valkey

LOG_KEY: Final = "vitrine:{stock:shop}:log"
LOG_MAX: Final = 10_000
ENGINES: Final = 4
"""So an engine can be replaced three times in one seed."""
START_S: Final = 300.0
"""A start takes 30 ms; at the lowest priority beside others it may take long."""
POLL_S: Final = 0.01
_SETTINGS: Final = {
    "port": "0",
    "unixsocketperm": "700",
    "appendonly": "no",
    "save": "",
    "maxmemory-policy": "noeviction",
    "enable-debug-command": "yes",
}

Copy = list[tuple[bytes, bytes]]
R = TypeVar("R")


class GatePort(Protocol):
    """What a node puts around each of its calls to the gate's engine."""

    async def ask_gate(self, real: Callable[[int], Awaitable[R]]) -> R:
        """Makes the call, at an engine by its number; or loses it, before or after."""


class Passing:
    """A node's way to the gate (see `slot_redis.Home`): its port around each call."""

    def __init__(self, port: GatePort, valkeys: "Valkeys") -> None:
        self._port = port
        self._valkeys = valkeys

    async def ask(self, call: Callable[[Any], Awaitable[R]]) -> R:
        """See `Home.ask`."""
        return await self._port.ask_gate(lambda number: call(self._valkeys.direct(number)))

    async def aclose(self) -> None:
        """The engines belong to the worker."""


def no_connection() -> Exception:
    """What the client library raises when the engine is not there."""
    return RedisConnectionError("simulated")


def no_answer() -> Exception:
    """What the client library raises when the answer does not come in time."""
    return RedisTimeoutError("simulated")


class Engine:
    """One Valkey process."""

    def __init__(self, folder: Path, number: int) -> None:
        socket = folder / f"v{number}"
        settings = _SETTINGS | {"unixsocket": str(socket), "dir": str(folder)}
        command = [str(find_valkey())]
        for name, value in settings.items():
            command += [f"--{name}", value]
        self._process = subprocess.Popen(
            guarded(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.client = Redis(
            unix_socket_path=str(socket), protocol=2, single_connection_client=False
        )
        self._wait()
        self._wire: Any = self.client.connection_pool.get_connection()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_S
        while True:
            try:
                self.client.ping()
            except RedisError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(POLL_S)
            else:
                return

    def command(self, *words: object) -> Any:
        """Sends one command and returns its answer. Raises what the engine says."""
        self._wire.send_command(*words)
        return self._wire.read_response()

    def copy(self) -> Copy:
        """Everything in it."""
        keys = sorted(self.command("KEYS", "*"))
        return [(key, self.command("DUMP", key)) for key in keys]

    def restore(self, copy: Copy) -> None:
        """Nothing but what was copied."""
        self.command("FLUSHALL")
        for key, value in copy:
            self.command("RESTORE", key, 0, value)

    def stop(self) -> None:
        """Ends the process."""
        self.client.close()
        self._process.terminate()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


class Direct:
    """What `stock_redis` asks a client for, answered at once by an engine."""

    def __init__(self, engine: Engine, change: "ScriptChange") -> None:
        self._engine = engine
        self._change = change
        self._shas: dict[str, str] = {}

    async def evalsha(self, sha: str, keys: int, *words: object) -> Any:
        """EVALSHA"""
        return self._engine.command("EVALSHA", sha, keys, *words)

    async def script_load(self, text: str) -> str:
        """SCRIPT LOAD, of the script with a mutant's change in it."""
        if text not in self._shas:  # neither a new seed nor FLUSHALL makes an engine forget them
            sha = self._engine.command("SCRIPT", "LOAD", self._change(text))
            self._shas[text] = cast("str", sha.decode())
        return self._shas[text]

    def pipeline(self, *, transaction: bool) -> "_Pipe":
        """A pipeline; what it collects is sent when it is executed."""
        return _Pipe(self._engine.client.pipeline(transaction=transaction))


class ScriptChange:
    """Replaces pieces of the Lua scripts on their way into an engine."""

    def __init__(self, pieces: Sequence[tuple[str, str]] = ()) -> None:
        self._pieces = pieces

    def __call__(self, text: str) -> str:
        for old, new in self._pieces:
            text = text.replace(old, new)
        return text


class _Reader:
    """A way for the reader of the log."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def ask(self, call: Callable[[Any], Awaitable[R]]) -> R:
        """See `Home.ask`."""
        return await call(self)

    async def xrange(self, key: str, count: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """XRANGE"""
        rows = self._engine.command("XRANGE", key, "-", "+", "COUNT", count)
        return [(id_, dict(zip(flat[::2], flat[1::2], strict=True))) for id_, flat in rows]

    async def aclose(self) -> None:
        """The engines belong to the worker."""


class _Pipe:
    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipe, name)

    async def execute(self) -> Any:
        return self._pipe.execute()


class Valkeys:
    """The engines of one worker. `now` answers; `spare` are those that may take its place."""

    def __init__(self, folder: Path, change: ScriptChange) -> None:
        self.engines = [Engine(folder, number) for number in range(ENGINES)]
        self._direct = [Direct(engine, change) for engine in self.engines]
        self._now = 0
        self._used = 1

    def begin(self) -> None:
        """A new seed: the first engine, empty."""
        self._now, self._used = 0, 1
        self.engines[0].command("FLUSHALL")

    @property
    def number(self) -> int:
        """Which engine answers now."""
        return self._now

    @property
    def now(self) -> Engine:
        """The engine that answers now."""
        return self.engines[self._now]

    def direct(self, number: int) -> Direct:
        """The way to one of the engines."""
        return self._direct[number]

    @property
    def spare(self) -> bool:
        """Whether there is another process to put in its place."""
        return self._used < len(self.engines)

    def replace(self, copy: Copy) -> None:
        """Another process answers from now on, with this in it."""
        self._now, self._used = self._used, self._used + 1
        self.now.restore(copy)

    async def logs(self) -> list[list[Logged]]:
        """What each engine of this seed has in its log."""
        return [
            await GateLog(_Reader(engine), LOG_KEY).read(LOG_MAX)
            for engine in self.engines[: self._used]
        ]

    def stop(self) -> None:
        """Ends all of them."""
        for engine in self.engines:
            engine.stop()
