"""The port to one viewer's socket: what the rest of realtime may ask of it, and nothing more.

It must not know frames of any one server, rooms or commands. Three promises carry the design, and
every adapter has to keep them exactly:

* `write` takes a ready frame that is shared with every other viewer and either takes all of it or
  nothing. It never waits and never queues behind unsent bytes, so a slow viewer costs one boolean.
* `congested` is exact: true from the instant when one byte could not be handed to the kernel until
  all of them were. So "not congested" means that nothing is waiting in this process, and a shared
  frame can go straight to the descriptor (9.4 µs against 9.6 µs through a transport; a bare C send
  is 7.5 µs).
* What is meant for one viewer alone (`send`) may wait in memory, but only up to
  `DIRECT_BUFFER_BYTES_MAX`; past that the viewer is ended by abort, for it would read stale money.
"""

from collections.abc import Callable
from typing import Final, Protocol

EXTENSION: Final = "vitrine.socket"
"""Where an adapter puts the Socket: `scope["extensions"][EXTENSION]`."""
FRAME_BYTES_MAX: Final = 65_536
"""A larger message from a client ends the connection with 1009 before it is read to its end."""
DIRECT_BUFFER_BYTES_MAX: Final = 256 * 1024
"""Unsent bytes for one congested viewer. The byte budget of a slow one."""
CLOSE_TIMEOUT_S: Final = 5.0
"""How long a closing handshake may take before the socket is aborted."""


class Losses:
    """Counts how often any socket of this process lost its `direct`, so that many can be packed.

    A list of `direct`s may be used as long as `count` is what it was when the list was made: a
    congested socket's would overtake what waits in it.
    """

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


LOSSES: Final = Losses()
"""Raised by every adapter, each time it sets a `direct` to None."""


class SocketListener(Protocol):
    """Who is told what happens on a socket; called on the event loop, must not raise or wait."""

    def on_frame(self, data: bytes) -> None:
        """One whole binary message, at most FRAME_BYTES_MAX bytes."""

    def on_text(self) -> None:
        """One whole text message: not our protocol."""

    def on_drain(self) -> None:
        """The socket was congested and is not any more."""

    def on_closed(self) -> None:
        """The socket is gone. Exactly once, and nothing is called after it."""


class Socket(Protocol):
    """One accepted WebSocket. Used on the event loop's thread only."""

    listener: SocketListener | None
    direct: Callable[[bytes], int] | None
    """The kernel's own send while nothing waits and the socket is open, else None.

    For the fan-out's hot loop alone, which saves a Python call per socket (0.2 of 7 µs). Who calls
    it must hand what it did not take, or what it raised, to `unsent`; otherwise use `write`. It may
    be kept while `LOSSES` counts no more.
    """
    quiet: int
    """Raised by whoever watches for silence; set to 0 by any bytes that arrive, pongs too."""

    @property
    def congested(self) -> bool:
        """Whether bytes wait in this process because the peer does not read."""

    @property
    def peer(self) -> str:
        """Remote address, without the port; empty if unknown."""

    def write(self, frame: bytes) -> bool:
        """Take a ready frame whole. False, and nothing written, when congested or not open."""

    def unsent(self, frame: bytes, sent: int) -> bool:
        """`direct` took only `sent` bytes of `frame` (-1: it raised OSError); keep the rest.

        False when the socket was broken and is aborted.
        """

    def send(self, payload: bytes) -> bool:
        """Frame and take `payload` even if congested, within DIRECT_BUFFER_BYTES_MAX.

        Over that the socket is aborted. False when nothing was taken.
        """

    def buffered(self) -> int:
        """Bytes that wait in this process."""

    def close(self, code: int, reason: str = "") -> None:
        """Start the closing handshake; aborts by itself after CLOSE_TIMEOUT_S."""

    def abort(self) -> None:
        """End now, without a word and without sending what waits."""
