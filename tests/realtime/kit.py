"""What the tests of realtime share: a node with a real server, and a viewer with its own codec."""

import asyncio
import contextlib
import itertools
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgpack
import uvicorn
from websockets.asyncio.client import ClientConnection, connect

from realtime.audience_redis import RedisAudience
from realtime.broker import Chat
from realtime.broker_redis import RedisBroker
from realtime.broker_redis import connect as connect_broker
from realtime.connection import Connection, Limits
from realtime.errors import Rejected
from realtime.hub import Hub
from realtime.socket import EXTENSION
from realtime.socket_uvicorn import LiveWebSocketProtocol
from realtime.wire import SUBPROTOCOL, Command, Position

DEADLINE_S = 10.0
_ids = itertools.count(1)


def clock() -> int:
    return int(time.monotonic() * 1000) + 1_700_000_000_000


def new_id() -> str:
    return f"e{next(_ids):06d}"


async def until(condition: Callable[[], bool], what: str = "", timeout_s: float = DEADLINE_S):
    """Wait for a condition; the only way in which tests wait."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what or condition}"
        await asyncio.sleep(0.005)


class Node:
    """One hub behind a real uvicorn on a free loopback port."""

    def __init__(
        self, url: str, prefix: str, *, limits: Limits | None = None, **options: Any
    ) -> None:
        self.client = connect_broker(url)
        self.broker = RedisBroker(self.client, new_id=new_id, prefix=prefix)
        audience = RedisAudience(self.client, prefix=prefix, stale_s=options.pop("stale_s", 10.0))
        self._send_buffer = options.pop("send_buffer", None)
        self._return_early = options.pop("return_early", False)
        self._quick = options.pop("quick", None)
        options.setdefault("node", f"n{next(_ids)}")
        options.setdefault("tick_ms", 10)
        self.hub = Hub(self.broker, audience, clock=clock, **options)
        self.limits = limits or Limits()
        self.gate = asyncio.Event()
        self.connections: list[Connection] = []
        self.handled: list[str] = []

    async def handle(self, connection: Connection, command: Command) -> object:
        self.handled.append(command.name)
        params = command.params
        match command.name:
            case "join":
                return await self._join(connection, params)
            case "say":
                rid = params.get("rid", new_id())
                chat = Chat({"text": params["text"]}, rid, keep=params.get("keep", False))
                published = await self.hub.publish(str(params["show"]), [chat])
                return {"offset": published.numbers[0]}
            case "echo":
                return params
            case "wait":
                await self.gate.wait()
                return {}
            case "fail":
                raise RuntimeError("a secret of ours")
            case "strange":
                return {"what": object()}
        raise Rejected("unknown_command", "There is no such command.", details={"n": 1})

    async def _join(self, connection: Connection, params: Mapping[str, Any]) -> object:
        if params.get("token") == "bad":
            raise Rejected("token_invalid", "This sign-in is not valid.")
        connection.viewer = params.get("viewer")
        connection.tags = frozenset(params.get("tags", ()))
        connection.exempt = params.get("exempt", False)
        room = await self.hub.room(params["show"])
        position = params.get("position")
        recovered = connection.enter(room, Position(*position) if position else None)
        if params.get("pause"):
            await self.gate.wait()
        if params.get("refuse"):
            raise Rejected("forbidden", "You may not do that.")
        return {"recovered": recovered}

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        connection = Connection(
            scope["extensions"][EXTENSION],
            self.handle,
            self.hub,
            clock=clock,
            limits=self.limits,
            quick=self._quick,
        )
        self.connections.append(connection)
        await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
        if self._return_early:
            connection.start()
        else:
            await connection.run()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Node"]:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self._send_buffer:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer)
        listener.bind(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            self.app,
            ws=LiveWebSocketProtocol,
            lifespan="off",
            log_level="warning",
            interface="asgi3",
        )
        config.load()
        self.server = uvicorn.Server(config)
        self.server.lifespan = config.lifespan_class(config)
        running = asyncio.create_task(self.hub.run())
        await until(lambda: self.hub.broker_ok or running.done(), "the broker's subscription")
        await self.server.startup(sockets=[listener])
        try:
            yield self
        finally:
            async with asyncio.timeout(2 * DEADLINE_S):
                for state in list(self.server.server_state.connections):
                    state.transport.abort()
                await self.server.shutdown(sockets=[listener])
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                await self.broker.close()
            assert not self.hub.connections


def node(url: str, prefix: str, **options: Any) -> contextlib.AbstractAsyncContextManager[Node]:
    return Node(url, prefix, **options).running()


class View:
    """A client's idea of a room, written from PROTOCOL.md and nothing else."""

    def __init__(self) -> None:
        self.epoch: str | None = None
        self.control = self.chat = 0
        self.facts: dict[str, Any] = {}
        self.states: dict[str, list[Any]] = {}
        self.comments: dict[int, Any] = {}
        self.pushes: list[list[Any]] = []
        self.doubles = 0
        self.gaps = 0
        self.skipped = 0

    def apply(self, push: list[Any]) -> None:
        self.pushes.append(push)
        match push:
            case [2, offset, key, value]:
                if offset <= self.control:
                    self.doubles += 1
                    return
                self.gaps += offset != self.control + 1
                self.control = offset
                if key == "retracted":
                    self.comments.pop(value["comment"], None)
                elif value is None:
                    self.facts.pop(key, None)
                else:
                    self.facts[key] = value
            case [3, key, version, value]:
                known = self.states.get(key)
                if known is None or version > known[0]:
                    self.states[key] = [version, value]
            case [4, offset, comment]:
                if offset <= self.chat:
                    self.doubles += 1
                    return
                self.chat = offset
                self.comments[offset] = comment
            case [6, count, offset]:
                assert offset >= self.chat
                self.chat = max(self.chat, offset)
                self.skipped += count
            case [8, image]:
                self.epoch = image["epoch"]
                self.control, self.chat = image["control"], image["chat"]
                self.facts = dict(image["facts"])
                self.states = {key: list(value) for key, value in image["states"].items()}
                self.comments = dict(image["comments"])

    @property
    def position(self) -> list[Any]:
        return [self.epoch, self.control, self.chat]

    @property
    def room(self) -> tuple[Any, Any]:
        return self.facts, self.states


def unpack_all(data: bytes) -> list[Any]:
    unpacker = msgpack.Unpacker(strict_map_key=False)
    unpacker.feed(data)
    return list(unpacker)


class Viewer:
    """A client: real websockets, msgpack's own codec."""

    def __init__(self, view: View | None = None) -> None:
        self.view = view or View()
        self.answers: dict[int, list[Any]] = {}
        self.refused: list[dict[str, Any]] = []
        self.directs: list[list[Any]] = []
        self.frames: list[list[Any]] = []
        self.beats = 0
        self._ids = itertools.count(1)
        self.socket: ClientConnection

    async def open(self, node: Node, **options: Any) -> "Viewer":
        options.setdefault("subprotocols", [SUBPROTOCOL])
        self.socket = await connect(
            f"ws://127.0.0.1:{node.port}/live",
            compression=options.pop("compression", None),
            ping_interval=None,
            max_size=None,
            max_queue=None,
            close_timeout=2,
            **options,
        )
        self._reader = asyncio.create_task(self._read())
        return self

    async def _read(self) -> None:
        with contextlib.suppress(Exception):
            async for frame in self.socket:
                pushes = unpack_all(frame)
                self.frames.append(pushes)
                for push in pushes:
                    self._take(push)

    def _take(self, push: list[Any]) -> None:
        if push[0] == 0:
            self.answers[push[1]] = push
        elif push[0] == 1:
            self.refused.append(push[2])
            if push[1]:
                self.answers[push[1]] = push
        elif push[0] == 5:
            self.directs.append(push[1:])
        elif push[0] == 7:
            self.beats += 1
        else:
            self.view.apply(push)

    async def send(self, name: str, **params: Any) -> int:
        id_ = next(self._ids)
        await self.socket.send(msgpack.packb([id_, name, params]))
        return id_

    async def answer(self, id_: int) -> list[Any]:
        await until(lambda: id_ in self.answers, f"an answer to {id_}")
        return self.answers[id_]

    async def command(self, name: str, **params: Any) -> Any:
        """The result; a refusal fails the test."""
        kind, _, result = await self.answer(await self.send(name, **params))
        assert kind == 0, result
        return result

    async def refusal(self, name: str, **params: Any) -> dict[str, Any]:
        kind, _, body = await self.answer(await self.send(name, **params))
        assert kind == 1, body
        return body

    async def join(self, show: str, **params: Any) -> Any:
        if self.view.epoch is not None:
            params.setdefault("position", self.view.position)
        return await self.command("join", show=show, **params)

    async def closed(self) -> int | None:
        async with asyncio.timeout(DEADLINE_S):
            await self._reader
            await self.socket.wait_closed()
        return self.socket.close_code

    async def cut(self) -> View:
        """The network is gone, without a word."""
        self.socket.transport.abort()
        await self.closed()
        return self.view


@contextlib.asynccontextmanager
async def viewer(node: Node, view: View | None = None, **options: Any) -> AsyncIterator[Viewer]:
    one = await Viewer(view).open(node, **options)
    try:
        yield one
    finally:
        one.socket.transport.abort()
        await one.closed()
