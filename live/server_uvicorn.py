"""uvicorn as we need it: our socket class, limits, an orderly end.

Responsible for every option of uvicorn that matters, given explicitly, and for taking its signal
handling away: it re-raises the signal after its own shutdown, which would cancel the clean-up of
our engines half-way. It must not know what is served.
"""

import asyncio
import contextlib
import socket
from collections.abc import Generator, Sequence
from typing import Final

import uvicorn
from starlette.types import ASGIApp
from typing_extensions import override

from live.node import open_files
from live.proxies import RealAddress
from realtime.socket_uvicorn import LiveWebSocketProtocol

BACKLOG: Final = 2048
"""Connections that the kernel keeps for us."""
ACCEPTS_AT_ONCE: Final = 32
"""Connections taken in one turn of the event loop. asyncio uses one number for both: with 2,048 a
storm stops the loop for 100 ms, and of several processes on one listener the first takes all."""
OPEN_FILES_KEPT: Final = 64
"""Of the limit: for engines, files, and refusing whom we cannot serve."""
FRAME_BYTES_MAX: Final = 65_536
"""A larger frame is closed at once with 1009; a command may have 16 KiB."""
KEEP_ALIVE_S: Final = 20
CLOSE_WAIT_S: Final = 5
"""After the drain: how long connections that do not close themselves are waited for."""


class Server(uvicorn.Server):
    """A server that leaves signals to its owner."""

    @contextlib.contextmanager
    @override
    def capture_signals(self) -> Generator[None, None, None]:
        """Nothing: the owner decides when to stop."""
        yield

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve, with the kernel's queue as long as it should be; see ACCEPTS_AT_ONCE."""
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(BACKLOG)

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


def make_server(app: ASGIApp, *, log_level: str, proxies: Sequence[str]) -> Server:
    """A server for `app`; `proxies` are those whose X-Forwarded-For is believed."""
    files = open_files()
    return Server(
        uvicorn.Config(
            RealAddress(app, proxies),
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
            backlog=ACCEPTS_AT_ONCE,
        )
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
