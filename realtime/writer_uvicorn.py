"""The `Socket` port over one connection of uvicorn: shared ready frames, exact congestion, abort.

Responsible for writing below asyncio's transport while nothing waits in it, and for the promises of
`realtime.socket`. It must not know handshakes or frames that come in: the protocol that owns it
(`socket_uvicorn`) tells it what happens on the connection.

* The transport's high-water mark is 0: `pause_writing` comes with the first byte that the kernel
  refused and `resume_writing` when the last one went. While not paused, the transport's buffer is
  empty, so writing to the socket below it cannot overtake anything.
* The socket object is used, never its number: after a close its `send` fails with EBADF, where a
  bare descriptor could by then belong to a stranger.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from realtime.socket import DIRECT_BUFFER_BYTES_MAX, LOSSES, SocketListener
from realtime.wire import ready_frame

READ_BYTES: Final = 4096
"""Taken from one peer in one turn of the loop."""
_DIRECT_TRANSPORTS: Final = ("_SelectorSocketTransport",)
"""Transports whose unsent bytes we know exactly. Others (TLS, uvloop) get `transport.write`."""


class Owner(Protocol):
    """What a socket needs of the protocol that owns it."""

    def hand_over(self) -> None:
        """There is a listener: give it what came before it."""

    def begin_close(self, code: int, reason: str) -> None:
        """Start the closing handshake."""


class UvicornSocket:
    """The `Socket` port over one connection. `protocol` owns it."""

    __slots__ = (
        "_listener", "_open", "_paused", "_protocol", "_send", "_transport",
        "direct", "peer", "quiet",
    )  # fmt: skip

    def __init__(self, protocol: Owner) -> None:
        self._protocol: Owner | None = protocol
        self._transport: asyncio.Transport
        self._listener: SocketListener | None = None
        self._send: Callable[[bytes], int] | None = None
        self._open = False
        self._paused = False
        self.direct: Callable[[bytes], int] | None = None
        self.peer = ""
        self.quiet = 0

    @property
    def listener(self) -> SocketListener | None:
        """Who hears of frames, drains and the end."""
        return self._listener

    @listener.setter
    def listener(self, listener: SocketListener | None) -> None:
        if listener is None:
            self._listener = None
        elif self._protocol is None:
            listener.on_closed()  # it came too late; nothing else would ever tell it
        else:
            self._listener = listener
            self._protocol.hand_over()

    @property
    def congested(self) -> bool:
        """Bytes wait in this process."""
        return self._paused

    def write(self, frame: bytes) -> bool:
        """Take a ready frame whole; see `Socket.write`."""
        send = self.direct
        if send is None:
            if self._paused or not self._open or self._transport.is_closing():
                return False
            self._transport.write(frame)
            return True
        try:
            sent = send(frame)
        except OSError:
            sent = -1
        return sent == len(frame) or self.unsent(frame, sent)

    def unsent(self, frame: bytes, sent: int) -> bool:
        """Keep the rest of a frame; see `Socket.unsent`."""
        # The transport tries again itself. If the kernel is full, it keeps the rest and its
        # pause_writing marks us congested; if the socket is broken, it ends the connection.
        if self._open and not self._transport.is_closing():
            self._transport.write(memoryview(frame)[max(sent, 0) :])
            if not self._transport.is_closing():
                return True
        self.shut()
        return False

    def send(self, payload: bytes) -> bool:
        """Frame and take `payload`; see `Socket.send`."""
        if not self._open:
            return False
        frame = ready_frame(payload)
        if not self._paused:
            return self.write(frame)
        if self.buffered() + len(frame) > DIRECT_BUFFER_BYTES_MAX:
            self.abort()
            return False
        self._transport.write(frame)
        return not self._transport.is_closing()

    def buffered(self) -> int:
        """Bytes that wait in this process."""
        return self._transport.get_write_buffer_size() if self._paused else 0

    def close(self, code: int, reason: str = "") -> None:
        """Start the closing handshake."""
        if self._open and self._protocol is not None:
            self._protocol.begin_close(code, reason)

    def abort(self) -> None:
        """End now."""
        self.shut()
        # Not on a lost one: asyncio's raises if its last byte went after close().
        if self._protocol is not None:
            self._transport.abort()

    # What the protocol tells its socket.

    def opened(self) -> None:
        """The 101 is written."""
        self._open = True
        if not self._paused:
            self.direct = self._send

    def shut(self) -> None:
        """Nothing more is to be written."""
        self._open = False
        self.direct = None
        LOSSES.count += 1

    def paused(self) -> None:
        """A byte could not be sent."""
        self._paused = True
        self.direct = None
        LOSSES.count += 1

    def resumed(self) -> None:
        """All bytes were sent."""
        self._paused = False
        if self._open:
            self.direct = self._send
            if self._listener is not None:
                self._listener.on_drain()

    def attach(self, transport: asyncio.Transport, peer: str) -> None:
        """The transport is known; find the way below it."""
        self.peer = peer
        self._transport = transport
        if type(transport).__name__ in _DIRECT_TRANSPORTS:
            wrapped = transport.get_extra_info("socket")
            self._send = wrapped._sock.send
            transport.max_size = READ_BYTES  # type: ignore[attr-defined]

    def lost(self) -> None:
        """The connection is gone; tell the listener once and let go of everything."""
        self.shut()
        self._send = None
        self._protocol = None  # no cycle: 15,000 cut viewers are freed at once, not by the GC
        self._paused = False
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.on_closed()
