"""What one would write first: a Starlette endpoint that sends each event to each viewer.

Responsible for being that, honestly: uvicorn as it comes (its sans-I/O class, compression off as in
ours, the asyncio loop, which is the faster one here), the same codec, the same envelopes, one
`await websocket.send_bytes` per event and viewer. No ticks, no lanes, no recovery. `show` measures
against it.

    python -m loadtests.relay FD       says {"port": …} and serves until the pipe ends
"""

import asyncio
import contextlib
import itertools
import json
import os
import socket
import sys
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from live.server_uvicorn import BACKLOG, KEEP_ALIVE_S, Server, listen, serve
from loadtests.vitals import raise_file_limit
from realtime.wire import (
    SUBPROTOCOL,
    Position,
    decode_command,
    pack_chat,
    pack_control,
    pack_reply,
    pack_snapshot,
    pack_state,
)


class Relay:
    """One room."""

    def __init__(self) -> None:
        self.viewers: dict[WebSocket, None] = {}
        self._control = itertools.count(1)
        self._chat = itertools.count(1)
        self._likes = itertools.count(1)
        self._one = asyncio.Lock()

    async def open(self, websocket: WebSocket) -> None:
        """One connection: a viewer, or a speaker."""
        await websocket.accept(SUBPROTOCOL)
        try:
            while True:
                command = decode_command(await websocket.receive_bytes())
                await self._handle(websocket, command.id, command.name, command.params)
        except WebSocketDisconnect:
            self.viewers.pop(websocket, None)

    async def _handle(
        self, websocket: WebSocket, id_: int, name: str, params: dict[str, Any]
    ) -> None:
        if name == "join":
            snapshot = pack_snapshot(Position("relay", 0, 0), {}, {}, [])
            await websocket.send_bytes(pack_reply(id_, {"recovered": False}) + snapshot)
            if not params.get("speaker"):
                self.viewers[websocket] = None
            return
        async with self._one:  # in the same order for everybody
            await self._send_all(self._envelope(name, params))
        await websocket.send_bytes(pack_reply(id_, {}))

    def _envelope(self, name: str, params: dict[str, Any]) -> bytes:
        match name:
            case "comment":
                return pack_chat(next(self._chat), params["value"])
            case "like":
                likes = next(self._likes)
                return pack_state("likes", likes, likes)
            case "stock":
                return pack_state(f"stock:{params['sku']}", params["t"], params["value"])
        return pack_control(next(self._control), name, params["value"])

    async def _send_all(self, payload: bytes) -> None:
        for viewer in list(self.viewers):
            await viewer.send_bytes(payload)


async def run(fd: int) -> None:
    """Serve until the pipe ends."""
    listener = listen("127.0.0.1", 0)
    relay = Relay()
    server = Server(
        uvicorn.Config(
            Starlette(routes=[WebSocketRoute("/live", relay.open)]),
            ws="websockets-sansio",
            ws_per_message_deflate=False,
            ws_ping_interval=None,
            lifespan="off",
            loop="asyncio",
            http="httptools",
            access_log=False,
            log_config=None,
            log_level="warning",
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=1,
            backlog=BACKLOG,
        )
    )
    started = asyncio.Event()
    with contextlib.closing(listener):
        serving = asyncio.create_task(serve(server, listener, started))
        await started.wait()
        reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=fd))
        hello = {"port": listener.getsockname()[1], "pid": os.getpid()}
        writer.write(json.dumps(hello).encode() + b"\n")
        with contextlib.closing(writer):
            await reader.read()
        server.stop()
        server.stop()
        await serving


if __name__ == "__main__":
    raise_file_limit()
    asyncio.run(run(int(sys.argv[1])))
