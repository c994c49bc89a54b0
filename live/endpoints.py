"""The door of the room: one WebSocket route, health, metrics, refusals outside the API.

Responsible for deciding whether a connection may be opened at all (Origin, subprotocol, a place on
this node) and for handing it to realtime. It must not know commands.
"""

import random
from collections.abc import Awaitable, Callable, Collection
from typing import Final
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from live.codes import refuse
from live.http import problem
from realtime.admission import Admission
from realtime.connection import Connection, Handler, Quick
from realtime.errors import CloseCode
from realtime.hub import Hub
from realtime.socket import EXTENSION, Socket
from realtime.upgrade import Upgrade
from realtime.wire import SUBPROTOCOL, pack_direct

DONE_WITHOUT: Final = frozenset({("broker", "away")})
"""Without the broker a node still has its pages, sign-in, the room as it knows it, and buys (the
database decides them). All nodes lose it at once, and 503 from all of them would take the shop
down. One that never had it ("not yet") may have a wrong address, and must stop a roll-out. Without
the database a node has nothing to give to a newcomer."""
PATH: Final = "/live"
JOINS_WAITING_MAX: Final = 256
"""Two questions to the record, some 50 ms; who is not let in yet waits in the kernel's queue."""
READY_RETRY_MS: Final = 1_000
FULL_RETRY_MS: Final = (5_000, 15_000)
"""When to try a full node again, from and to: places come free as viewers leave."""


def origin_allowed(origin: str | None, host: str, allowed: Collection[str]) -> bool:
    """Whether a browser's page at `origin` may connect to the server that it calls `host`.

    No Origin is no browser: a native app or a load test, which has a token or has nothing.
    """
    if origin is None:
        return True
    if origin.rstrip("/") in allowed:
        return True
    parts = urlsplit(origin)
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


class Door:
    """Opens connections. `origins` are further sites that may connect.

    `elsewhere` is a ws:// address for whom this node has no place, None: the same address.
    `waiting` says how many joins wait for an answer of the database.
    """

    def __init__(
        self,
        hub: Hub,
        handler: Handler,
        origins: Collection[str],
        clock: Callable[[], int],
        *,
        admission: Admission,
        elsewhere: str | None = None,
        quick: Quick | None = None,
        chance: Callable[[], float] = random.random,
        waiting: Callable[[], int] = lambda: 0,
    ) -> None:
        self._admission = admission
        self._elsewhere = elsewhere
        self._chance = chance
        self._waiting = waiting
        self._hub = hub
        self._handler = handler
        self._quick = quick
        self._origins = frozenset(origins)
        self._clock = clock

    async def open(self, websocket: WebSocket) -> None:
        """Let one viewer in."""
        headers = websocket.headers
        if not origin_allowed(headers.get("origin"), headers.get("host", ""), self._origins):
            await websocket.close()  # before accept: the handshake is answered with 403
            return
        if SUBPROTOCOL not in websocket.scope.get("subprotocols", []):
            await websocket.accept()
            await websocket.close(CloseCode.VERSION, "offer live.v1")
            return
        if self._hub.draining:
            await self._turn_away(websocket, CloseCode.DRAIN, 0)
            return
        if self._admission.full(self._hub.connections):
            least, most = FULL_RETRY_MS
            wait_ms = least + int(self._chance() * (most - least))
            # Where there is another address there is no reason to wait.
            await self._turn_away(websocket, CloseCode.FULL, 0 if self._elsewhere else wait_ms)
            return
        socket: Socket = websocket.scope["extensions"][EXTENSION]
        client = websocket.client
        connection = self._connection(socket, client.host if client else "")
        await websocket.accept(SUBPROTOCOL)
        # The socket's callbacks do the rest; the task and its stack of frames are given back.
        connection.start()

    def gate(self, upgrade: Upgrade, address: str) -> Callable[[Socket], object] | None:
        """The short way of nearly everybody; None: `open` has more to say."""
        if (
            upgrade.path != PATH
            or SUBPROTOCOL not in upgrade.protocols
            or not origin_allowed(upgrade.origin, upgrade.host, self._origins)
            or self._hub.draining
            or self._hub.connections >= self._admission.connections_max
        ):
            return None
        return lambda socket: self._connection(socket, address).start()

    def held(self) -> bool:
        """So many joins wait for the database that no more should come in just now."""
        return self._waiting() >= JOINS_WAITING_MAX

    def _connection(self, socket: Socket, address: str) -> Connection:
        return Connection(
            socket,
            self._handler,
            self._hub,
            clock=self._clock,
            address=address,
            quick=self._quick,
        )

    async def _turn_away(self, websocket: WebSocket, code: CloseCode, after_ms: int) -> None:
        """`goodbye`, which every client knows, says when and where; the close code says why."""
        goodbye: dict[str, object] = {"after_ms": after_ms}
        if self._elsewhere is not None:
            goodbye["url"] = self._elsewhere
        await websocket.accept(SUBPROTOCOL)
        await websocket.send_bytes(pack_direct("goodbye", goodbye))
        await websocket.close(code)


def routes(
    door: Door, ready: Callable[[], Awaitable[dict[str, str]]], metrics: Callable[[], bytes]
) -> list[BaseRoute]:
    """The WebSocket, `/healthz`, `/readyz` and `/metrics`.

    `/readyz` says whether a balancer should send newcomers here, and in its body what is missing.
    """

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        found = await ready()
        fine = all(state == "ok" or (name, state) in DONE_WITHOUT for name, state in found.items())
        return JSONResponse(found, 200 if fine else 503)

    async def show_metrics(_: Request) -> Response:
        return Response(metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return [
        WebSocketRoute(PATH, door.open),
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", show_metrics),
    ]


async def refused(request: Request, error: Exception) -> Response:
    """404 and 405 outside the table of routes, as problem documents like all others."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, "bad_params")
    response = problem(refuse(code))
    if isinstance(error, HTTPException):
        for name, value in (error.headers or {}).items():
            response.headers[name] = value
    return response


async def failed(request: Request, error: Exception) -> Response:
    """Our fault; the text of the exception stays in the log."""
    return problem(refuse("internal", retry_after_ms=READY_RETRY_MS))
