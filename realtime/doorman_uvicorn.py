"""Who comes in from outside: accepts connections in portions and takes their first bytes.

Responsible for the listening socket, for the pace at which connections are taken from it, and for
sending each connection the short way (a plain WebSocket upgrade that the `Gate` lets in is answered
here) or the long way (uvicorn's HTTP protocol, and everything behind it). It must not know who may
come in: the gate does.

The pace. asyncio's own server takes as many connections in one turn of the loop as its backlog has,
makes a task for each, and everything that follows from them stands in front of whoever presses Buy.
Here a turn of the loop takes ACCEPTS_AT_ONCE connections, about 2.5 ms with all that follows from
them up to the snapshot, so that in a loop with other work (a slice of a fan-out is 4 ms) newcomers
get less than half, and in a loop without any they get all. Those not taken wait in the kernel's
queue, and beyond that in the backoff of their own clients. `held` stops the taking for a moment
when what was taken is not done: joins that wait for the database.

Several processes may accept from one listener: none of them takes all.
"""

import asyncio
import errno
import logging
import socket
from asyncio.transports import BaseTransport
from collections.abc import Callable
from typing import Any, Final, cast

from typing_extensions import override
from uvicorn.config import Config
from uvicorn.server import ServerState

from realtime.crowd import CROWD
from realtime.socket import Socket
from realtime.socket_uvicorn import LiveWebSocketProtocol
from realtime.upgrade import Upgrade, read_upgrade, switching
from realtime.wire import SUBPROTOCOL
from realtime.writer_uvicorn import READ_BYTES

log = logging.getLogger(__name__)

ACCEPTS_AT_ONCE: Final = 8
"""Connections taken in one turn of the loop."""
HELD_S: Final = 0.005
"""Until the next look when what was taken is not done."""
HOLDS_MAX: Final = 20
"""Such looks in a row before a portion is taken all the same: who comes may be no viewer but ask
for /healthz, and a database that is away must not make the node look dead."""
NO_FILES_S: Final = 1.0
"""Until the next try when there is no descriptor for another connection."""
FIRST_BYTES_S: Final = 10.0
"""For the first bytes of a connection; one that says nothing is closed."""
SWEEP_S: Final = 1.0

Enter = Callable[[Socket], object]
Gate = Callable[[Upgrade, str], Enter | None]
"""(request, peer's address): who takes the open socket; None: the long way."""


class Doorman(asyncio.Protocol):
    """The protocol of a connection until its first bytes are here."""

    __slots__ = ("_early", "_entrance", "transport")

    def __init__(self, entrance: "Entrance", early: bytes) -> None:
        self._entrance = entrance
        self._early = early
        self.transport: asyncio.Transport

    @override
    def connection_made(self, transport: BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self._early:
            self._entrance.first(self.transport, self._early)
        else:
            self._entrance.wait_for(self)

    @override
    def data_received(self, data: bytes) -> None:
        self._entrance.waits_no_more(self)
        self._entrance.first(self.transport, data)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._entrance.waits_no_more(self)

    def shutdown(self) -> None:
        """uvicorn stops."""
        self.transport.close()


class Entrance:
    """One listening socket of a server. In uvicorn's list it stands for an asyncio server."""

    def __init__(
        self,
        listener: socket.socket,
        config: Config,
        state: ServerState,
        app_state: dict[str, Any],
        *,
        gate: Gate | None = None,
        held: Callable[[], bool] | None = None,
    ) -> None:
        self._listener = listener
        self._config = config
        self._state = state
        self._app_state = app_state
        self._gate = gate
        self._held = held
        self._loop: Any = asyncio.get_running_loop()  # Any: asyncio's own way to a transport
        self._waiting: dict[Doorman, float] = {}
        """Deadlines, in order."""
        self._sweep: asyncio.TimerHandle | None = None
        self._rest: asyncio.TimerHandle | None = None
        self._holds = 0
        self.open = False

    def start(self) -> None:
        """Take connections from now on."""
        self._listener.setblocking(False)
        self.open = True
        self._resume()

    def close(self) -> None:
        """Take none any more; those that were taken stay. As asyncio's, it closes the listener."""
        if not self.open:
            return
        self.open = False
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()

    async def wait_closed(self) -> None:
        """Nothing is left to wait for."""

    # Taking.

    def _resume(self) -> None:
        self._rest = None
        if self.open:
            self._loop.add_reader(self._listener.fileno(), self._take)

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._rest = self._loop.call_later(seconds, self._resume)

    def _take(self) -> None:
        if self._held is not None and self._held() and self._holds < HOLDS_MAX:
            self._holds += 1
            self._pause(HELD_S)
            return
        self._holds = 0
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                sock, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as wrong:
                if wrong.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    raise
                log.error("no connection can be accepted: %s", wrong.strerror)
                self._pause(NO_FILES_S)
                return
            self._taken(sock, peer)

    def _taken(self, sock: socket.socket, peer: object) -> None:
        """In a storm the request is here before we are: one look saves a turn of the loop."""
        sock.setblocking(False)
        early = b""
        try:
            early = sock.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            sock.close()
            return
        else:
            if not early:
                sock.close()
                return
        self._loop._make_socket_transport(
            sock, Doorman(self, early), extra={"peername": peer, CROWD: True}
        )

    # The first bytes.

    def first(self, transport: asyncio.Transport, data: bytes) -> None:
        """Send a connection its way."""
        upgrade = None if self._gate is None else read_upgrade(data)
        if upgrade is not None and self._gate is not None:
            peer = transport.get_extra_info("peername")
            enter = self._gate(upgrade, str(peer[0]) if peer else "")
            if enter is not None:
                protocol = LiveWebSocketProtocol.straight(self._config, self._state, self._loop)
                protocol.begin(transport, switching(upgrade.key, SUBPROTOCOL), enter)
                return
        http: Any = self._config.http_protocol_class
        found = http(
            config=self._config,
            server_state=self._state,
            app_state=self._app_state,
            _loop=self._loop,
        )
        transport.set_protocol(found)
        found.connection_made(transport)
        found.data_received(data)

    def wait_for(self, doorman: Doorman) -> None:
        """It has said nothing yet."""
        self._waiting[doorman] = self._loop.time() + FIRST_BYTES_S
        self._state.connections.add(cast("Any", doorman))
        if self._sweep is None:
            self._sweep = self._loop.call_later(SWEEP_S, self._end_silent)

    def waits_no_more(self, doorman: Doorman) -> None:
        """It has spoken, or has gone."""
        self._waiting.pop(doorman, None)
        self._state.connections.discard(cast("Any", doorman))

    def _end_silent(self) -> None:
        self._sweep = None
        now = self._loop.time()
        for doorman, deadline in self._waiting.items():
            if deadline > now:
                break
            doorman.transport.abort()  # `connection_lost` comes in a later turn
        if self._waiting:
            self._sweep = self._loop.call_later(SWEEP_S, self._end_silent)
