"""The way in of a server: portions, the short way and the long one, silence, an end."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from live.server_uvicorn import BACKLOG, Server, listen, make_server, serve
from realtime import doorman_uvicorn
from realtime.doorman_uvicorn import ACCEPTS_AT_ONCE, Doorman
from realtime.socket import Socket
from realtime.upgrade import Upgrade
from realtime.wire import SUBPROTOCOL
from tests.waiting import until

UPGRADE = (
    b"GET /live HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    b"Sec-WebSocket-Protocol: live.v1\r\n\r\n"
)


class Ear:
    def __init__(self, socket_: Socket) -> None:
        self.heard: list[bytes] = []
        self.closed = 0
        self.socket = socket_
        socket_.listener = self

    def on_frame(self, data: bytes) -> None:
        self.heard.append(data)

    def on_text(self) -> None:
        pass

    def on_drain(self) -> None:
        pass

    def on_closed(self) -> None:
        self.closed += 1


class Stand:
    """A server whose gate lets /live in, and an application that says who came to it."""

    def __init__(self) -> None:
        self.listener = listen("127.0.0.1", 0)
        self.port = self.listener.getsockname()[1]
        self.full = False
        self.ears: list[Ear] = []
        self.asked: list[str] = []
        self.addresses: list[str] = []
        self.server: Server

    def gate(self, upgrade: Upgrade, address: str) -> Callable[[Socket], object] | None:
        self.addresses.append(address)
        if upgrade.path != "/live" or SUBPROTOCOL not in upgrade.protocols:
            return None
        return lambda socket_: self.ears.append(Ear(socket_))

    def held(self) -> bool:
        return self.full

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(f"{scope['type']} {scope['path']}")
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": 4000})
            return
        head = [(b"content-length", b"5")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": b"hello"})

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    stand = Stand()
    stand.server = make_server(stand.app, log_level="warning", proxies=(), way=stand)
    started = asyncio.Event()
    serving = asyncio.create_task(serve(stand.server, stand.listener, started))
    await started.wait()
    yield stand
    for one in list(stand.server.server_state.connections):
        one.transport.abort()  # type: ignore[union-attr]
    stand.server.stop()
    async with asyncio.timeout(20):
        await serving
    assert all(ear.closed == 1 for ear in stand.ears)


async def test_a_plain_upgrade_is_answered_without_the_application(stand: Stand):
    async with stand.client() as (reader, writer):
        writer.write(UPGRADE)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"Sec-WebSocket-Protocol: live.v1\r\n" in head
        writer.write(b"\x82\x82\0\0\0\0hi")
        await until(lambda: stand.ears and stand.ears[0].heard == [b"hi"])
        assert stand.ears[0].socket.send(b"there")
        assert await reader.readexactly(7) == b"\x82\x05there"
        writer.write(b"\x88\x82\0\0\0\0\x03\xe8")
        assert await reader.read() == b"\x88\x02\x03\xe8"
    assert stand.asked == []
    assert stand.addresses == ["127.0.0.1"]
    await until(lambda: stand.ears[0].closed == 1)


async def test_whatever_else_comes_takes_the_long_way(stand: Stand):
    async with stand.client() as (reader, writer):
        for path in (b"/x", b"/y"):  # the connection is kept
            writer.write(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path)
            assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 ")
    for upgrade in (
        UPGRADE.replace(b"/live", b"/other"),
        UPGRADE.replace(b"live.v1", b"live.v0"),
        UPGRADE.replace(b"/live", b"/live?x=1"),
    ):
        async with stand.client() as (reader, writer):
            writer.write(upgrade)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            assert await reader.readexactly(4) == b"\x88\x02\x0f\xa0"
    assert stand.asked == [
        "http /x",
        "http /y",
        "websocket /other",
        "websocket /live",
        "websocket /live",
    ]
    assert not stand.ears


async def test_a_request_in_pieces_gets_in_as_well(stand: Stand):
    async with stand.client() as (reader, writer):
        writer.write(UPGRADE[:40])
        connections = stand.server.server_state.connections
        await until(lambda: any(not isinstance(one, Doorman) for one in connections))
        writer.write(UPGRADE[40:])
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    assert stand.asked == ["websocket /live"]


async def test_a_connection_that_says_nothing_is_closed(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(doorman_uvicorn, "FIRST_BYTES_S", 0.05)
    monkeypatch.setattr(doorman_uvicorn, "SWEEP_S", 0.02)
    async with stand.client() as (reader, _):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    await until(lambda: not stand.server.server_state.connections)
    assert stand.asked == []


async def test_those_who_come_together_are_taken_in_portions(stand: Stand):
    stand.full = True
    many = [socket.create_connection(("127.0.0.1", stand.port)) for _ in range(40)]
    for one in many:
        one.send(UPGRADE)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not stand.ears, "while what was taken is not done, nobody is taken"
    stand.full = False
    most = 0
    async with asyncio.timeout(10):
        while len(stand.ears) < len(many):
            before = len(stand.ears)
            await asyncio.sleep(0)
            most = max(most, len(stand.ears) - before)
    assert 0 < most <= ACCEPTS_AT_ONCE
    for one in many:
        assert one.recv(100).startswith(b"HTTP/1.1 101 ")
        one.close()
    await until(lambda: all(ear.closed for ear in stand.ears))


async def test_even_while_joins_wait_for_the_database_the_node_answers(stand: Stand):
    stand.full = True
    async with stand.client() as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(20):
            assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 ")


async def test_who_left_before_being_taken_costs_nothing(stand: Stand):
    stand.full = True
    with socket.create_connection(("127.0.0.1", stand.port)) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    stand.full = False
    async with stand.client() as (reader, writer):
        writer.write(UPGRADE)
        await reader.readuntil(b"\r\n\r\n")
        assert len(stand.ears) == 1


async def test_an_end_refuses_newcomers_and_keeps_those_who_are_in(stand: Stand):
    async with stand.client() as (reader, writer):
        writer.write(UPGRADE)
        await reader.readuntil(b"\r\n\r\n")
        stand.server.stop_accepting()
        stand.server.stop_accepting()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", stand.port)
        assert stand.ears[0].socket.send(b"still here")
        assert await reader.readexactly(12) == b"\x82\x0astill here"


async def test_without_descriptors_it_waits_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(doorman_uvicorn, "NO_FILES_S", 0.01)

    class Poor(socket.socket):
        left = 2

        def accept(self) -> Any:
            if self.left:
                self.left -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    stand = Stand()
    stand.listener.close()
    stand.listener = Poor()
    stand.listener.bind(("127.0.0.1", 0))
    stand.listener.listen(BACKLOG)
    stand.port = stand.listener.getsockname()[1]
    server = make_server(stand.app, log_level="warning", proxies=(), way=stand)
    started = asyncio.Event()
    serving = asyncio.create_task(serve(server, stand.listener, started))
    await started.wait()
    async with stand.client() as (reader, writer):
        writer.write(UPGRADE)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "no connection can be accepted: Too many open files"
    ] * 2
    server.stop()
    await serving
