"""A server process of the bench's own: the program's parts, with an ear for the bench inside.

Responsible for two compositions and for what can only be measured from inside: how late the event
loop is, how many sockets are congested, CPU per tick. They are

* `hub`: the real hub, broker, Valkey and socket class behind the real door and uvicorn, with a
  handler that only joins and publishes. Nothing else runs, so its CPU is that of the hub.
* `product`: `python -m live serve` itself, in this process, nothing left out or added; its
  environment says what it is to do.

    python -m loadtests.bench_node FD {"compose": …}    questions and answers as in `workers`
"""

import asyncio
import contextlib
import gc
import importlib
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from live import collector
from live.counters import Counters as Numbers
from live.data_folder import DataFolder
from live.engines import EmbeddedValkey, find_valkey
from live.server_uvicorn import Server, listen, make_server, serve
from loadtests.bench_floor import WatchedCounters, alternate
from loadtests.bench_handler import ROOM, BenchHandler, NoStage
from loadtests.vitals import percentile, raise_file_limit, rss_bytes
from realtime.audience_redis import RedisAudience
from realtime.broker_redis import RedisBroker, connect
from realtime.connection import Connection
from realtime.crowd import new_loop
from realtime.errors import BrokerUnavailable
from realtime.hub import Hub
from realtime.socket import EXTENSION, Socket
from realtime.wire import SUBPROTOCOL

PROBE_S: Final = 0.005
LAG_SAMPLES_MAX: Final = 200_000
LINE_BYTES_MAX: Final = 1 << 20
BEAT_MS: Final = 20_000
OPEN_TRIES: Final = 100
OPEN_PAUSE_S: Final = 0.1


def clock() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class LagProbe:
    """How late the loop is, as something that arrives at a random instant would see it.

    A block of 100 ms is not one late sample but twenty: each instant at which the probe should have
    run counts, or long blocks would hide behind their rarity. On a machine that others use too, a
    part of the lag is waiting for a core: the kernel counts that per thread, and `own_p99` is
    without it.
    """

    def __init__(self) -> None:
        self._late: list[tuple[float, float]] = []
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin anew."""
        self.stop()
        self._late = []
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        """Measure no more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        file = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
        try:
            while len(self._late) < LAG_SAMPLES_MAX:
                due, waited = loop.time() + PROBE_S, _waited_s(file)
                await asyncio.sleep(PROBE_S)
                late = loop.time() - due
                own = max(0.0, late - (_waited_s(file) - waited))
                while late > 0:
                    self._late.append((late, max(0.0, own)))
                    late -= PROBE_S
                    own -= PROBE_S
        finally:
            os.close(file)

    def result(self) -> dict[str, float]:
        """Percentiles in ms."""
        ms = [late * 1000 for late, _ in self._late]
        own = [late * 1000 for _, late in self._late]
        return {
            "p50": round(percentile(ms, 50), 2),
            "p99": round(percentile(ms, 99), 2),
            "max": round(max(ms, default=0.0), 2),
            "own_p99": round(percentile(own, 99), 2),
        }


def _waited_s(file: int) -> float:
    """How long this thread has been ready to run and had no core, since it began."""
    return int(os.pread(file, 100, 0).split()[1]) / 1e9


class Node:
    """What the bench may ask."""

    def __init__(self, hub: Hub, server: Server | None, port: int) -> None:
        self.hub = hub
        self.server = server
        self.port = port
        self.probe = LagProbe()

    async def answer(self, ask: dict[str, Any]) -> dict[str, Any]:
        """One answer."""
        match ask["ask"]:
            case "mark":
                self.probe.start()
            case "lag":
                self.probe.stop()
                return self.probe.result()
            case "stats":
                return self.stats()
            case "collect":
                gc.collect()
            case "fanout":
                assert self.server is not None
                return await alternate(self.hub, self.server, ROOM, self.probe, ask)
            case other:
                raise ValueError(f"unknown: {other}")
        return {}

    def stats(self) -> dict[str, Any]:
        """Counters of the hub, sockets as they are at this instant, memory."""
        counters = self.hub.counters
        members = [member for room in self.hub.rooms for member in room.members]
        waiting = [member.socket.buffered() for member in members]
        numbers = {
            name: value
            for name in dir(counters)
            if not name.startswith("_") and isinstance(value := getattr(counters, name), int)
        }
        return {
            **numbers,
            "connections": self.hub.connections,
            "members": len(members),
            "congested": sum(member.socket.congested for member in members),
            "lagging": self.hub.lagging,
            "buffered": sum(waiting),
            "buffered_most": max(waiting, default=0),
            "rss": rss_bytes(os.getpid()),
            "cpu_s": time.process_time(),
        }


async def obey(node: Node, fd: int) -> None:
    """Answer until the pipe ends."""
    reader, writer = await asyncio.open_unix_connection(
        sock=socket.socket(fileno=fd), limit=LINE_BYTES_MAX
    )
    writer.write(json.dumps({"port": node.port, "pid": os.getpid()}).encode() + b"\n")
    with contextlib.closing(writer):
        while line := await reader.readline():
            try:
                answer = await node.answer(json.loads(line))
            except Exception as wrong:  # noqa: BLE001 - the bench is told, and ends us
                answer = {"error": f"{type(wrong).__name__}: {wrong}"}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()


def small_listener(host: str, port: int, sndbuf: int) -> socket.socket:
    """As the program's own; accepted sockets inherit a send buffer of `sndbuf` bytes."""
    listener = listen(host, port)
    if sndbuf:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sndbuf)
    return listener


# The hub alone.


@contextlib.asynccontextmanager
async def open_hub(folder: Path, beat_ms: int) -> AsyncIterator[tuple[Hub, BenchHandler]]:
    """A hub on a Valkey of its own."""
    with DataFolder(folder) as data:
        data.logs.mkdir(mode=0o700, exist_ok=True)
        engine = EmbeddedValkey(data, find_valkey())
        client = connect(await engine.start())
        broker = RedisBroker(client, new_id=lambda: secrets.token_urlsafe(12))
        hub = Hub(broker, RedisAudience(client), node="bench", clock=clock, beat_ms=beat_ms)
        hub.counters = WatchedCounters()
        stage = NoStage()
        handler = BenchHandler(hub, Numbers(hub, stage))
        running = [asyncio.create_task(work) for work in (hub.run(), handler.run())]
        try:
            yield hub, handler
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await broker.close()
            await engine.stop()


async def run_hub(fd: int, options: dict[str, Any]) -> None:
    """Serve the bench's one room until the pipe ends."""
    listener = small_listener("127.0.0.1", 0, options.get("sndbuf", 0))
    folder = Path(options["folder"])
    with contextlib.closing(listener):
        async with open_hub(folder, options.get("beat_ms", BEAT_MS)) as (hub, handler):
            await open_room(hub)
            app = Starlette(routes=[WebSocketRoute("/live", door(hub, handler))])
            server = make_server(app, log_level="warning", proxies=())
            started = asyncio.Event()
            serving = asyncio.create_task(serve(server, listener, started))
            await started.wait()
            await obey(Node(hub, server, listener.getsockname()[1]), fd)
            await leave_abruptly(hub)
            server.stop()
            await serving


async def leave_abruptly(hub: Hub) -> None:
    """No drain: the crowd is ours."""
    for room in hub.rooms:
        for member in room.members:
            member.socket.abort()
    await asyncio.sleep(0)


async def open_room(hub: Hub) -> None:
    """As soon as the subscription stands. Raises BrokerUnavailable."""
    for _ in range(OPEN_TRIES):
        with contextlib.suppress(BrokerUnavailable):
            await hub.room(ROOM)
            return
        await asyncio.sleep(OPEN_PAUSE_S)
    await hub.room(ROOM)


def door(hub: Hub, handler: BenchHandler) -> Callable[[WebSocket], Awaitable[None]]:
    """As the product's, without its questions: who asks, from where, is there a place."""

    async def open_(websocket: WebSocket) -> None:
        its_socket: Socket = websocket.scope["extensions"][EXTENSION]
        connection = Connection(its_socket, handler.handle, hub, clock=clock)
        await websocket.accept(SUBPROTOCOL)
        connection.start()

    return open_


# The whole program.


def _node_of(app: Any, port: int) -> Node:
    return Node(app.hub, None, port)


def run_product(
    fd: int, options: dict[str, Any], node_of: Callable[[Any, int], Node] = _node_of
) -> None:
    """`python -m live serve` with the bench's ear; ended by the pipe, as by SIGTERM.

    `node_of` makes the ear out of the running `App` and its port.
    """
    program: Any = importlib.import_module("live.__main__")  # the hub alone needs none of it
    original_open, original_listen = program.open_app, program.listen

    @contextlib.asynccontextmanager
    async def open_app(*given: Any, **more: Any) -> AsyncIterator[Any]:
        async with original_open(*given, **more) as app:
            port = given[0].port
            listening = asyncio.create_task(_hear(app, port))
            try:
                yield app
            finally:
                listening.cancel()

    async def _hear(app: Any, port: int) -> None:
        await obey(node_of(app, port), fd)
        await leave_abruptly(app.hub)
        os.kill(os.getpid(), 15)

    def heard_listen(host: str, port: int, *more: Any, **named: Any) -> socket.socket:
        listener: socket.socket = original_listen(host, port, *more, **named)
        if options.get("sndbuf"):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, options["sndbuf"])
        return listener

    program.open_app = open_app
    program.listen = heard_listen
    program.cli(["serve"])


def main(arguments: list[str]) -> None:
    """FD and a JSON object of options."""
    raise_file_limit()
    fd, options = int(arguments[0]), json.loads(arguments[1])
    if options["compose"] == "product":
        run_product(fd, options)
    else:
        collector.tune()  # as the product's, and on its loop
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(run_hub(fd, options))


if __name__ == "__main__":
    main(sys.argv[1:])
