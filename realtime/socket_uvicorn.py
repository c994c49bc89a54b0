"""uvicorn's sans-I/O WebSocket protocol, taught to take shared frames and to stay lean.

Responsible for the bytes of one connection and for the `Socket` port over them. It must not know
commands, rooms or Starlette; uvicorn is told `ws=LiveWebSocketProtocol` and an application finds
the socket in `scope["extensions"]["vitrine.socket"]`.

Why a subclass of internal API (uvicorn is pinned, and `test_socket_uvicorn_contract` holds every
attribute used here): the public ASGI `send` costs a coroutine, a frame header and a join per viewer
and message, 16.9 µs against 9.4 µs for a shared ready frame. What the subclass relies on is that
each of uvicorn's own writes happens in one synchronous stretch, so between callbacks nothing waits
in `conn` and the stream always ends on a frame boundary.

* What it writes goes through its `writer_uvicorn.UvicornSocket`, which bypasses the transport.
* permessage-deflate is never negotiated: it costs 64 KiB per viewer and forbids shared frames.
* uvicorn's keepalive (two timers per connection) stays off; the hub's wheel pings for all.
* `transport.close()` waits for ever on a peer that does not read, so each ending has a deadline
  after which it is aborted.

* A read that is exactly one whole message, as nearly every command of a browser is, does not go
  through the parser's generators: 22 of the 80 µs that a refused press of Buy costs. Whatever else
  came (several frames, half of one, a fragment, a close) is the parser's, and it is only passed by
  while it stands between two frames.

What a hostile peer can do between whole messages is bounded here: reads are short (256 KiB of empty
pings cost the loop 460 ms, 4 KiB cost 8), small frames are counted, and what was begun has to end.
"""

import asyncio
import logging
from asyncio.transports import BaseTransport
from collections.abc import Callable
from typing import Any, Final, Self, cast

from typing_extensions import override
from uvicorn._types import ASGISendEvent
from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode
from websockets.protocol import CONNECTING, OPEN
from websockets.server import ServerProtocol
from websockets.streams import StreamReader

from realtime.masking import BINARY_FRAME, whole_message
from realtime.slim_uvicorn import NO_HEADERS, at_rest_on_class, forget
from realtime.socket import (
    CLOSE_TIMEOUT_S,
    DIRECT_BUFFER_BYTES_MAX,
    EXTENSION,
    FRAME_BYTES_MAX,
    Socket,
    SocketListener,
)
from realtime.writer_uvicorn import UvicornSocket

log = logging.getLogger(__name__)

SMALL_FRAMES_MAX: Final = 256
"""Pings, pongs, fragments and frames behind our close, per SMALL_FRAMES_S. An honest client sends
one pong in 20 s. Over it: 1008, and once more over it: abort."""
SMALL_FRAMES_S: Final = 10.0
HALF_FRAME_S: Final = 30.0
"""From the first byte of a message to its last: 16 KiB over the slowest phone. Over it: 1008."""
REASON_BYTES_MAX: Final = 123
"""RFC 6455 5.5: a close frame has 125 bytes with its code."""
POLICY: Final = 1008
FAILED: Final = 1011
_BAD_REQUEST: Final = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class _Nowhere:
    """Stands in for the queue and the event of an application that has left.

    Their empty deques alone are 3 KiB per connection, and nobody reads or waits any more.
    """

    def put_nowait(self, item: object) -> None:
        """Nobody will receive it."""

    def qsize(self) -> int:
        """Nothing is in it."""
        return 0

    def set(self) -> None:
        """Nobody waits."""

    def clear(self) -> None:
        """Nobody will wait."""


_NOWHERE: Final[Any] = _Nowhere()
_PARSER_LOG: Final = logging.getLogger("uvicorn.error")
_STRAIGHT: Final[dict[str, Any]] = {
    "queue": _NOWHERE,
    "writable": _NOWHERE,
    "handshake_initiated": True,
    "handshake_complete": True,
    "close_sent": False,
    "disconnected": False,
}
"""Where the handshake leaves a protocol whose application has left it to its listener."""
_BETWEEN_FRAMES: Final = StreamReader.at_eof.__code__
"""Where the parser waits when it has no part of a frame."""
_MESSAGE_ENDS: Final = (Opcode.BINARY, Opcode.TEXT, Opcode.CONT)


class _Parser(ServerProtocol):
    """websockets' own, but a close between two fragments is a close (RFC 6455 5.4, 5.5).

    It answers 1002 there, because its own API cannot end a message that was begun. Ours can.
    """

    @override
    def recv_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)


@at_rest_on_class
class LiveWebSocketProtocol(WebSocketsSansIOProtocol):
    """Give it to uvicorn as `ws=`; pings, compression and read pauses of the base are off."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn: ServerProtocol = _Parser(max_size=FRAME_BYTES_MAX, logger=self.conn.logger)
        self.socket = UvicornSocket(self)
        self.end_timer: asyncio.TimerHandle | None = None
        self.half_timer: asyncio.TimerHandle | None = None
        self.small_frames = 0
        self.small_frames_until = 0.0

    @classmethod
    def straight(
        cls, config: Config, server_state: ServerState, loop: asyncio.AbstractEventLoop
    ) -> Self:
        """One whose handshake is answered by whoever makes it: `begin` follows at once.

        What `slim` would leave of the other kind after its handshake, without having made the rest.
        """
        one = cls.__new__(cls)
        one.__dict__ = {
            **_STRAIGHT,
            "loop": loop,
            "connections": server_state.connections,
            "tasks": server_state.tasks,
            "logger": _PARSER_LOG,
            "conn": _Parser(state=OPEN, max_size=FRAME_BYTES_MAX, logger=_PARSER_LOG),
            "socket": UvicornSocket(one),
            "frames": [],
        }
        return one

    def begin(
        self, transport: asyncio.Transport, answer: bytes, enter: Callable[[Socket], object]
    ) -> None:
        """Write the `answer` to the handshake; `enter` gives the open socket its listener."""
        self.transport = transport
        self.connections.add(self)
        transport.set_protocol(self)
        transport.set_write_buffer_limits(high=0)
        self.socket.attach(transport, "")
        transport.write(answer)
        self.socket.opened()
        enter(self.socket)

    # The transport's callbacks.

    @override
    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=0)
        self.socket.attach(self.transport, self.client[0] if self.client else "")

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.end_timer is not None:
            self.end_timer.cancel()
            self.end_timer = None
        self.whole()
        self.conn.parser.close()  # a suspended generator that refers to its owner
        self.socket.lost()

    @override
    def eof_received(self) -> None:
        super().eof_received()
        self.end()

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self.socket.paused()

    @override
    def resume_writing(self) -> None:
        super().resume_writing()
        self.socket.resumed()

    @override
    def data_received(self, data: bytes) -> None:
        self.socket.quiet = 0
        listener = self.socket.listener
        if listener is not None and self.at_rest():
            message = whole_message(data)
            if message is not None:
                if data[0] == BINARY_FRAME:
                    listener.on_frame(message)
                else:
                    self.small_frame()
                return
        self.conn.receive_data(data)
        for event in self.conn.events:
            if isinstance(event, Frame) and not (event.fin and event.opcode in _MESSAGE_ENDS):
                self.small_frame()
        # Whole messages that came before bad bytes, in the same read, count.
        self.handle_events()
        if self.conn.parser_exc is not None:
            self.handle_parser_exception()
        elif self.conn.handshake_exc is not None and not self.handshake_initiated:
            self.refuse_request()
        elif self.socket.listener is not None:
            if not self.conn.reader.buffer and not self.frames:
                self.whole()
            elif self.half_timer is None:
                self.half_timer = self.loop.call_later(HALF_FRAME_S, self.half_frame)

    def at_rest(self) -> bool:
        """Whether nothing is begun and nothing ends: the next byte begins a frame."""
        conn = self.conn
        if self.frames or self.close_sent or conn.state is not OPEN:
            return False
        handshake: Any = conn.parser
        frames = handshake.gi_yieldfrom
        waits = frames and frames.gi_yieldfrom
        return waits is not None and waits.gi_code is _BETWEEN_FRAMES

    @override
    def shutdown(self) -> None:
        """uvicorn stops: 1012 to the peer, and a bound on how long that may take."""
        self.end()
        if self.handshake_complete and not self.close_sent and self.conn.state is not OPEN:
            self.transport.close()  # the peer has closed; the base would raise, and stop stopping
        else:
            super().shutdown()

    # Steps of the base that we change.

    @override
    def start_keepalive(self) -> None:
        """Called once, right after the 101 was written: the socket is open, the wheel pings."""
        self.request.headers = NO_HEADERS  # the parser's generator keeps the request
        self.socket.opened()

    @override
    def send_receive_event_to_app(self) -> None:
        """A whole message: straight to the listener once there is one, never pausing reads."""
        listener = self.socket.listener
        if listener is None or self.close_sent:
            if self.close_sent:
                self.small_frame()
            super().send_receive_event_to_app()
            return
        data = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        self.frames = []
        self.whole()
        self.deliver(listener, data)

    def deliver(self, listener: SocketListener, data: bytes) -> None:
        """One whole message of the kind `curr_msg_data_type`."""
        if self.curr_msg_data_type == "bytes":
            listener.on_frame(data)
        else:
            listener.on_text()

    @override
    def handle_ping(self) -> None:
        """The pong is packed; send it if it may be sent and somebody reads."""
        if self.close_sent or self.conn.state is CONNECTING:
            self.conn.data_to_send()  # nothing behind our close, nothing before our 101
        elif self.conn.state is OPEN:
            if self.socket.buffered() > DIRECT_BUFFER_BYTES_MAX:
                self.socket.abort()
            if not self.transport.is_closing():
                super().handle_ping()
        # Else a close came in the same read: its answer is packed too, and goes out with it.

    @override
    def handle_close(self, event: Frame) -> None:
        """The peer closes, or answers our close."""
        self.end()
        super().handle_close(event)

    @override
    def handle_parser_exception(self) -> None:
        """Bytes that are no WebSocket frames, or a message over FRAME_BYTES_MAX (1009)."""
        self.end()
        self.frames = []
        if self.conn.close_sent is None:  # before our 101
            self.transport.abort()
        elif not self.transport.is_closing():
            super().handle_parser_exception()

    def refuse_request(self) -> None:
        """An upgrade that uvicorn's HTTP parser let through, but not ours (129 headers).

        The base would keep it for ever: no event, no answer, no deadline.
        """
        answer = b"".join(self.conn.data_to_send())
        self.end()
        self.transport.write(answer or _BAD_REQUEST)
        self.transport.close()

    @override
    async def run_asgi(self) -> None:
        """As in the base, but a socket with a listener outlives the application's coroutine.

        A suspended ASGI call chain costs a few KiB per viewer, so an application may attach a
        listener, return, and leave the connection to it.
        """
        extensions = cast("dict[str, object]", self.scope["extensions"])
        extensions[EXTENSION] = self.socket
        try:
            await self.app(self.scope, self.receive, self.send)
        except ClientDisconnected:
            pass
        except asyncio.CancelledError:
            self.socket.abort()
            raise
        except Exception:
            log.exception("the application failed on a WebSocket")
            self.send_500_response()
            self.begin_close(FAILED, "")
        else:
            if self.transport.is_closing():
                pass  # the peer left before the 101
            elif not self.handshake_complete:
                log.error("the application returned without accepting or refusing a WebSocket")
                self.send_500_response()
            elif self.socket.listener is not None:
                self.slim()
                return
        if self.close_timer is None:
            self.end()
            self.transport.close()

    @override
    async def send(self, message: ASGISendEvent) -> None:
        """For the application; whatever ends the connection ends our writes and has a deadline."""
        await super().send(message)
        if self.close_sent:
            self.end()

    def slim(self) -> None:
        """The application has left the connection to its listener: keep what that needs."""
        self.queue = self.writable = _NOWHERE
        self.scope = {}  # type: ignore[typeddict-item]
        forget(self)

    # What the socket asks for.

    def hand_over(self) -> None:
        """Give messages that came before there was a listener to it, and read on."""
        waiting = [self.queue.get_nowait() for _ in range(self.queue.qsize())]
        listener = self.socket.listener
        for event in waiting:
            if event["type"] != "websocket.receive" or listener is None:
                self.queue.put_nowait(event)
            elif event.get("bytes") is not None:
                listener.on_frame(cast("bytes", event["bytes"]))
            else:
                listener.on_text()
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()

    def begin_close(self, code: int, reason: str) -> None:
        """Send a close frame behind what waits; the peer has CLOSE_TIMEOUT_S to answer."""
        self.socket.shut()
        if self.close_sent or self.transport.is_closing() or self.conn.state is not OPEN:
            return
        cut = reason.encode()[:REASON_BYTES_MAX].decode(errors="ignore")
        self.conn.send_close(code, cut)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.close_timer = self.loop.call_later(CLOSE_TIMEOUT_S, self.socket.abort)

    def end(self) -> None:
        """No more writes from us, and an abort if the ending takes too long."""
        self.socket.shut()
        if self.end_timer is None and not self.disconnected:
            self.end_timer = self.loop.call_later(CLOSE_TIMEOUT_S, self.socket.abort)

    def small_frame(self) -> None:
        """Count a frame that no listener hears of; end a peer that lives on them."""
        now = self.loop.time()
        if now >= self.small_frames_until:
            self.small_frames_until = now + SMALL_FRAMES_S
            self.small_frames = 0
        self.small_frames += 1
        if self.small_frames <= SMALL_FRAMES_MAX:
            return
        self.small_frames = 0
        if self.close_sent or self.conn.state is not OPEN:
            self.socket.abort()
        else:
            self.begin_close(POLICY, "too many frames that are no message")

    def half_frame(self) -> None:
        """A message was begun and never ended."""
        self.half_timer = None
        self.begin_close(POLICY, "a message that does not end")

    def whole(self) -> None:
        """Nothing is begun."""
        if self.half_timer is not None:
            self.half_timer.cancel()
            self.half_timer = None
