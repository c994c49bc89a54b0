"""What peers and callers can do to a socket around its end, byte by byte on a raw connection."""

import asyncio
import contextlib
import gc
import logging
import os
import socket
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvicorn
from websockets.frames import Frame, Opcode

from realtime import socket_uvicorn, writer_uvicorn
from realtime.socket import EXTENSION
from realtime.socket_uvicorn import SMALL_FRAMES_MAX, LiveWebSocketProtocol
from realtime.wire import ready_frame
from realtime.writer_uvicorn import UvicornSocket
from tests.waiting import until

UPGRADE = (
    b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
CLOSE_1000 = b"\x03\xe8"


def framed(opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


def warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Without asyncio's complaints about a slow machine ("Executing … took")."""
    found = [one for one in caplog.records if one.levelno >= logging.WARNING]
    return [one for one in found if not one.getMessage().startswith("Executing ")]


class Listener:
    def __init__(self, socket_: UvicornSocket) -> None:
        self.socket = socket_
        self.frames: list[bytes] = []
        self.drains = 0
        self.closed = 0
        self.on_drained: Callable[[], None] = lambda: None
        socket_.listener = self

    def on_frame(self, data: bytes) -> None:
        self.frames.append(bytes(data))
        if data.startswith(b"echo"):
            self.socket.send(data)

    def on_text(self) -> None:
        self.socket.close(4500)

    def on_drain(self) -> None:
        self.drains += 1
        self.on_drained()

    def on_closed(self) -> None:
        self.closed += 1


class Peer:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, *frames: bytes) -> None:
        self.writer.write(b"".join(frames))

    async def rest(self) -> bytes:
        """All bytes until the end of the connection."""
        if not self.writer.transport.is_reading():
            self.writer.transport.resume_reading()
        with contextlib.suppress(ConnectionResetError):
            return await self.reader.read()
        return b"reset"


class Stand:
    """A server whose application accepts and leaves the socket to a Listener."""

    def __init__(self) -> None:
        self.listeners: list[Listener] = []
        self.protocols: list[weakref.ref[LiveWebSocketProtocol]] = []
        self.accept = asyncio.Event()
        self.accept.set()
        self.fail = False
        self.listen = True

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        socket_ = scope["extensions"][EXTENSION]
        self.protocols.append(weakref.ref(socket_._protocol))
        if self.listen:
            self.listeners.append(Listener(socket_))
        await self.accept.wait()
        if not self.listen:
            self.listeners.append(Listener(socket_))
        await send({"type": "websocket.accept"})
        if self.fail:
            raise RuntimeError("ours")

    @contextlib.asynccontextmanager
    async def raw(self, upgrade: bytes = UPGRADE + b"\r\n") -> AsyncIterator[Peer]:
        end = socket.socket()
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        end.connect(("127.0.0.1", self.port))
        peer = Peer(*await asyncio.open_connection(sock=end))
        try:
            peer.send(upgrade)
            yield peer
        finally:
            peer.writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await peer.writer.wait_closed()

    @contextlib.asynccontextmanager
    async def open(self, *, stalled: bool = False) -> AsyncIterator[tuple[Peer, Listener]]:
        before = len(self.listeners)
        async with self.raw() as peer:
            assert b" 101 " in await peer.reader.readuntil(b"\r\n\r\n")
            if stalled:
                peer.writer.transport.pause_reading()
            assert len(self.listeners) == before + 1
            yield peer, self.listeners[-1]


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    stand = Stand()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32_768)
        listener.bind(("127.0.0.1", 0))
        stand.port = listener.getsockname()[1]
        config = uvicorn.Config(
            stand.app, ws=LiveWebSocketProtocol, lifespan="off", interface="asgi3"
        )
        config.load()
        stand.server = uvicorn.Server(config)
        stand.server.lifespan = config.lifespan_class(config)
        await stand.server.startup(sockets=[listener])
        yield stand
        for one in list(stand.server.server_state.connections):
            one.transport.abort()
        async with asyncio.timeout(20):
            await stand.server.shutdown(sockets=[listener])
    assert all(listener.closed == 1 for listener in stand.listeners)


def congest(listener: Listener) -> int:
    """Write until the kernel refuses; how many bytes were taken."""
    frame, taken = ready_frame(b"x" * 8000), 0
    while listener.socket.write(frame):
        taken += len(frame)
        assert taken < 64 * 1024 * 1024
    assert listener.socket.congested
    assert listener.socket.direct is None
    return taken


# Descriptors.


async def test_a_reused_descriptor_gets_nothing_of_a_closed_viewer(stand: Stand):
    frame = ready_frame(b"meant for a viewer who left")
    async with stand.open() as (_, listener):
        socket_ = listener.socket
        stale = socket_.direct  # as a fan-out holds it between two members
        assert stale is not None
        number = stale.__self__.fileno()
        socket_.abort()
        await until(lambda: listener.closed)
        await until(lambda: stale.__self__.fileno() == -1)
        pairs = []
        while not any(number in (a.fileno(), b.fileno()) for a, b in pairs):
            pairs.append(socket.socketpair())
            assert len(pairs) < 200
        left, right = pairs[-1]
        stranger, friend = (left, right) if left.fileno() == number else (right, left)
        friend.setblocking(False)
        with pytest.raises(OSError, match="Bad file descriptor"):
            stale(frame)
        assert not socket_.unsent(frame, -1)
        assert not socket_.write(frame)
        assert not socket_.send(b"x")
        socket_.close(1000)
        socket_.abort()
        assert socket_.direct is None
        assert socket_.buffered() == 0
        with pytest.raises(BlockingIOError):
            friend.recv(1)
        os.write(number, b"!")  # what a bare number would have done
        assert friend.recv(9) == b"!"
        assert stranger.fileno() == number
        for pair in pairs:
            for end in pair:
                end.close()


@pytest.mark.parametrize("ending", ["close", "abort"])
async def test_nothing_follows_a_close_or_an_abort_in_the_same_turn(stand: Stand, ending: str):
    async with stand.open() as (peer, listener):
        socket_ = listener.socket
        socket_.close(1000, "enough") if ending == "close" else socket_.abort()
        assert socket_.direct is None
        assert not socket_.write(ready_frame(b"late"))
        assert not socket_.send(b"late")
        assert not socket_.unsent(ready_frame(b"late"), 1)
        peer.send(framed(Opcode.CLOSE, CLOSE_1000))
        expected = [b"\x88\x08\x03\xe8enough"] if ending == "close" else [b"", b"reset"]
        assert await peer.rest() in expected
        await until(lambda: listener.closed)


async def test_a_reason_that_is_too_long_is_cut_at_a_character(stand: Stand):
    async with stand.open() as (peer, listener):
        listener.socket.close(4001, "ж" * 200)
        peer.send(framed(Opcode.CLOSE, CLOSE_1000))
        assert await peer.rest() == b"\x88\x7c\x0f\xa1" + ("ж" * 61).encode()


# Peers that leave, half or whole.


@pytest.mark.parametrize(
    "half", [b"", framed(Opcode.BINARY, b"abcdef")[:-3], b"\x82", b"\x82\xfe\x01"]
)
async def test_an_eof_even_inside_a_frame_ends_the_viewer_once(
    stand: Stand, half: bytes, caplog: pytest.LogCaptureFixture
):
    async with stand.open() as (peer, listener):
        peer.send(framed(Opcode.BINARY, b"whole") + half)
        peer.writer.write_eof()  # it could still read
        assert await peer.rest() == b""
        await until(lambda: listener.closed)
        assert listener.frames == [b"whole"]
        assert not listener.socket.write(ready_frame(b"x"))
    assert not warnings(caplog)


async def test_a_peer_that_closes_while_congested_gets_everything_and_then_the_answer(stand: Stand):
    async with stand.open(stalled=True) as (peer, listener):
        taken = congest(listener)
        peer.send(framed(Opcode.CLOSE, CLOSE_1000))
        await until(lambda: not listener.socket.write(b"") and listener.socket._open is False)
        data = await peer.rest()
        assert data.endswith(b"\x88\x02\x03\xe8")
        assert len(data) == taken + 4
        await until(lambda: listener.closed)
        listener.socket.abort()  # asyncio's own transport raises here
        assert listener.socket.buffered() == 0


async def test_closing_a_viewer_that_does_not_read_is_bounded(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(socket_uvicorn, "CLOSE_TIMEOUT_S", 0.05)
    async with stand.open(stalled=True) as (_, listener):
        congest(listener)
        listener.socket.close(4001)
        assert not listener.closed
        assert not listener.socket.send(b"x")
        await until(lambda: listener.closed)


async def test_an_abort_in_the_middle_of_a_fan_out_and_in_a_drain_is_harmless(stand: Stand):
    async with stand.open(stalled=True) as (first, one), stand.open(stalled=True) as (_, two):
        congest(one)
        one.on_drained = one.socket.abort
        for target in (one, two):  # a fan-out that ends one of its members
            two.socket.abort()
            assert not target.socket.write(ready_frame(b"x"))
        await first.rest()
        await until(lambda: one.closed and two.closed)
        assert (one.drains, two.drains) == (1, 0)


async def test_a_transport_without_a_socket_below_keeps_the_same_promises(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(writer_uvicorn, "_DIRECT_TRANSPORTS", ())
    async with stand.open() as (peer, listener):
        socket_ = listener.socket
        assert socket_.direct is None
        assert socket_.write(ready_frame(b"one"))
        assert await peer.reader.readexactly(5) == ready_frame(b"one")
        peer.writer.transport.pause_reading()
        taken = congest(listener)
        assert not socket_.write(ready_frame(b"x"))
        peer.writer.transport.resume_reading()
        await peer.reader.readexactly(taken)
        await until(lambda: listener.drains)
        assert not socket_.congested
        assert socket_.write(ready_frame(b"two"))
        listener.socket._transport.close()  # by uvicorn, behind our back
        assert not socket_.write(ready_frame(b"late"))
        assert await peer.rest() == ready_frame(b"two")


# What arrives at a bad moment.


async def test_a_listener_that_comes_after_the_end_hears_of_it(stand: Stand):
    stand.listen = False
    stand.accept.clear()
    async with stand.raw() as peer:
        await until(lambda: stand.protocols)
        peer.writer.transport.abort()
        await until(lambda: not stand.server.server_state.connections)
    stand.accept.set()
    await until(lambda: stand.listeners)
    assert stand.listeners[0].closed == 1


@pytest.mark.parametrize(
    "early",
    [
        framed(Opcode.PING),
        framed(Opcode.CLOSE, CLOSE_1000),
        b"\xff\xff",
        framed(Opcode.BINARY, b"x"),
    ],
)
async def test_frames_before_the_101_are_not_answered(
    stand: Stand, early: bytes, caplog: pytest.LogCaptureFixture
):
    stand.accept.clear()
    async with stand.raw() as peer:
        await until(lambda: stand.listeners)
        stand.listeners[0].socket.quiet = 1
        peer.send(early)
        ends = early[0] & 15 == 8 or early[0] == 255
        listener = stand.listeners[0]
        await until(lambda: listener.closed if ends else listener.socket.quiet == 0)
        stand.accept.set()
        if ends:
            assert await peer.rest() in (b"", b"reset")
        else:
            assert (await peer.reader.readline()).startswith(b"HTTP/1.1 101 ")
            peer.send(framed(Opcode.CLOSE, CLOSE_1000))
            assert (await peer.rest()).endswith(b"\r\n\r\n\x88\x02\x03\xe8")
        await until(lambda: listener.closed)
    assert not warnings(caplog)


async def test_an_upgrade_that_only_the_http_parser_understands_is_refused(stand: Stand):
    many = b"".join(b"x-%d: 1\r\n" % number for number in range(130))
    async with stand.raw(UPGRADE + many + b"\r\n") as peer:
        assert b" 431 " in await peer.rest()
    assert not stand.listeners


async def test_nothing_follows_the_answer_to_a_close_in_the_same_read(stand: Stand):
    async with stand.open() as (peer, _):
        peer.send(
            framed(Opcode.BINARY, b"echo 1"),
            framed(Opcode.PING, b"p"),
            framed(Opcode.BINARY, b"echo 2"),
            framed(Opcode.CLOSE, CLOSE_1000),
        )
        data = await peer.rest()
        assert data == (
            ready_frame(b"echo 1") + ready_frame(b"echo 2") + b"\x8a\x01p\x88\x02\x03\xe8"
        )


async def test_a_whole_message_before_bad_bytes_counts_and_a_close_between_fragments_is_a_close(
    stand: Stand,
):
    async with stand.open() as (peer, listener):
        peer.send(framed(Opcode.BINARY, b"echo"), b"\xf2\x80abcd")
        data = await peer.rest()
        assert data.startswith(ready_frame(b"echo") + b"\x88")
        assert data[8:10] == (1002).to_bytes(2, "big")
        assert listener.frames == [b"echo"]
    async with stand.open() as (peer, _):
        peer.send(framed(Opcode.BINARY, b"begun", fin=False), framed(Opcode.CLOSE, CLOSE_1000))
        assert await peer.rest() == b"\x88\x02\x03\xe8"


async def test_what_looks_like_a_message_inside_another_is_its_data(stand: Stand):
    inner = framed(Opcode.BINARY, b"inner")
    for cut in (1, 2, 4, 6):
        async with stand.open() as (peer, listener):
            peer.send(framed(Opcode.BINARY, b"first"))
            await until(lambda: len(listener.frames) == 1)
            # A mask of zeros: its data are these very bytes.
            outer = bytes([0x82, 0x80 | len(inner), 0, 0, 0, 0]) + inner
            peer.send(outer[:cut])
            await asyncio.sleep(0.01)
            peer.send(outer[cut:6])
            await asyncio.sleep(0.01)
            peer.send(inner)
            await until(lambda: len(listener.frames) == 2)
            assert listener.frames == [b"first", inner]


async def test_a_message_between_two_fragments_is_an_error_however_it_is_read(stand: Stand):
    async with stand.open() as (peer, listener):
        peer.send(framed(Opcode.BINARY, b"begun", fin=False))
        await asyncio.sleep(0.01)
        peer.send(framed(Opcode.BINARY, b"whole"))
        assert (await peer.rest())[2:4] == (1002).to_bytes(2, "big")
        assert listener.frames == []


async def test_a_whole_message_leaves_an_idle_viewer_as_small_as_it_was(stand: Stand):
    async with stand.open() as (peer, listener):
        one = stand.protocols[0]()
        assert one is not None
        before = set(vars(one))
        peer.send(framed(Opcode.BINARY, b"whole"))
        await until(lambda: listener.frames)
        assert set(vars(one)) == before


@pytest.mark.parametrize(
    "flood",
    [framed(Opcode.PING), framed(Opcode.PONG), framed(Opcode.CONT, fin=False)],
    ids=["pings", "pongs", "fragments"],
)
async def test_a_flood_of_frames_that_are_no_message_is_ended(stand: Stand, flood: bytes):
    async with stand.open() as (peer, listener):
        peer.send(framed(Opcode.BINARY, b"begun", fin=False))
        peer.send(flood * (SMALL_FRAMES_MAX // 2))
        peer.send(framed(Opcode.CONT, b"!"), framed(Opcode.BINARY, b"x", fin=False))
        await until(lambda: listener.frames)
        assert not listener.closed
        peer.send(flood * (SMALL_FRAMES_MAX * 3))
        data = await peer.rest()
        assert b"\x88" in data or data == b"reset"
        await until(lambda: listener.closed)
        assert listener.frames == [b"begun!"]


async def test_a_message_has_to_end(stand: Stand, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(socket_uvicorn, "HALF_FRAME_S", 0.05)
    for half in (b"\x82", framed(Opcode.BINARY, b"begun", fin=False)):
        async with stand.open() as (peer, listener):
            peer.send(framed(Opcode.BINARY, b"whole") + half[:1])
            await until(lambda: listener.frames)
            peer.send(half[1:])
            assert (await peer.reader.readexactly(4))[2:] == (1008).to_bytes(2, "big")


# The server's own endings.


async def test_stopping_reaches_everybody_even_past_a_peer_that_is_closing(stand: Stand):
    async with stand.open(stalled=True) as (closing, one), stand.open() as (peer, two):
        congest(one)
        closing.send(framed(Opcode.CLOSE, CLOSE_1000))
        await until(lambda: one.socket._open is False)
        assert not one.closed
        for connection in list(stand.server.server_state.connections):
            connection.shutdown()
        assert (await peer.rest())[:4] == b"\x88\x02\x03\xf4"
        await closing.rest()
        await until(lambda: one.closed and two.closed)


async def test_an_application_that_fails_says_1011(stand: Stand, caplog: pytest.LogCaptureFixture):
    stand.fail = True
    async with stand.open() as (peer, _):
        peer.send(framed(Opcode.CLOSE, CLOSE_1000))
        assert (await peer.rest())[:4] == b"\x88\x02\x03\xf3"
    assert [one.message for one in warnings(caplog)] == ["the application failed on a WebSocket"]


async def test_a_viewer_who_left_is_freed_without_the_collector(stand: Stand):
    gc.collect()
    gc.disable()
    try:
        async with stand.open() as (peer, listener):
            peer.send(framed(Opcode.BINARY, b"x"), framed(Opcode.CLOSE, CLOSE_1000))
            await peer.rest()
            await until(lambda: listener.closed)
        await until(lambda: stand.protocols[0]() is None)
    finally:
        gc.enable()
