"""uvicorn as we need it: our socket class, our way in, limits, an orderly end.

Responsible for every option of uvicorn that matters, given explicitly, and for taking its signal
handling away: it re-raises the signal after its own shutdown, which would cancel the clean-up of
our engines half-way. It must not know what is served.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Generator, Sequence
from typing import Final, Protocol, cast

import uvicorn
from starlette.types import ASGIApp
from typing_extensions import override

from live.node import open_files
from live.proxies import RealAddress
from realtime.doorman_uvicorn import Enter, Entrance, Gate
from realtime.socket_uvicorn import LiveWebSocketProtocol
from realtime.upgrade import Upgrade

BACKLOG: Final = 2048
"""Connections that the kernel keeps for us."""
OPEN_FILES_KEPT: Final = 64
"""Of the limit: for engines, files, and refusing whom we cannot serve."""
FRAME_BYTES_MAX: Final = 65_536
"""A larger frame is closed at once with 1009; a command may have 16 KiB."""
KEEP_ALIVE_S: Final = 20
CLOSE_WAIT_S: Final = 5
"""After the drain: how long connections that do not close themselves are waited for."""


class Server(uvicorn.Server):
    """A server that leaves signals to its owner, and accepts at a pace (`doorman_uvicorn`)."""

    def __init__(
        self,
        config: uvicorn.Config,
        gate: Gate | None = None,
        held: Callable[[], bool] | None = None,
    ) -> None:
        super().__init__(config)
        self._gate = gate
        self._held = held

    @contextlib.contextmanager
    @override
    def capture_signals(self) -> Generator[None, None, None]:
        """Nothing: the owner decides when to stop."""
        yield

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve on `sockets`, which listen already."""
        await self.lifespan.startup()
        entrances = [
            Entrance(
                listener,
                self.config,
                self.server_state,
                self.lifespan.state,
                gate=self._gate,
                held=self._held,
            )
            for listener in sockets or []
        ]
        self.servers = cast("list[asyncio.Server]", entrances)
        for entrance in entrances:
            entrance.start()
        self.started = True

    def stop_accepting(self) -> None:
        """Close the listeners; connections stay. Others who share a listener go on accepting."""
        for listener in getattr(self, "servers", []):
            listener.close()

    def stop(self) -> None:
        """End `serve` soon; a second call does not wait for anybody."""
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """A listening address. Raises `OSError` when it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(BACKLOG)
        found.setblocking(False)
    except BaseException:
        found.close()
        raise
    return found


def inherited(descriptor: int) -> socket.socket:
    """The listening socket that our starter has left open for us."""
    found = socket.socket(fileno=descriptor)
    found.setblocking(False)
    return found


class ShortWay(Protocol):
    """What an application offers to those who come in without going through it."""

    def gate(self, upgrade: Upgrade, address: str) -> Enter | None:
        """Who takes the socket of a plain upgrade from `address`; None: go through the app."""

    def held(self) -> bool:
        """Whether those who came in wait for us, so that no others should be taken."""


def make_server(
    app: ASGIApp, *, log_level: str, proxies: Sequence[str], way: ShortWay | None = None
) -> Server:
    """A server for `app`; `proxies` are those whose X-Forwarded-For is believed.

    `way` is the app's own (`app.state.short_way`) if it is not given.
    """
    files = open_files()
    real = RealAddress(app, proxies)
    short: ShortWay | None = way or getattr(getattr(app, "state", None), "short_way", None)

    def gate(upgrade: Upgrade, peer: str) -> Enter | None:
        if short is None:
            return None
        return short.gate(upgrade, real.address(peer, upgrade.forwarded))

    return Server(
        uvicorn.Config(
            real,
            ws=LiveWebSocketProtocol,
            ws_max_size=FRAME_BYTES_MAX,
            ws_per_message_deflate=False,
            ws_ping_interval=None,  # pings are shared frames of the hub
            ws_ping_timeout=None,
            lifespan="off",
            interface="asgi3",
            loop="asyncio",  # 16.1 us against uvloop's 20.9 per frame at 15,000 viewers
            http="httptools",
            access_log=False,
            log_config=None,
            log_level="warning" if log_level == "info" else log_level,
            server_header=False,
            proxy_headers=False,  # see live.proxies
            # HTTP gets a 503 before the files run out; WebSockets are bounded by the door.
            limit_concurrency=max(OPEN_FILES_KEPT, files - OPEN_FILES_KEPT),
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=CLOSE_WAIT_S,
        ),
        gate if short is not None else None,
        short.held if short is not None else None,
    )


async def serve(server: Server, listener: socket.socket, started: asyncio.Event) -> None:
    """Serve until `stop`; sets `started` when connections are accepted."""
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="serve")
    try:
        while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event
            await asyncio.sleep(0.005)
        started.set()
        await asyncio.shield(serving)
    finally:
        server.stop()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
