"""Every attribute of uvicorn, websockets and asyncio that `socket_uvicorn` relies on.

They are internal, so a new version may change them in silence; this is where it shows.
"""

import asyncio
import inspect
import selectors
import socket

import uvicorn
import websockets
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode
from websockets.protocol import CONNECTING, OPEN
from websockets.server import ServerProtocol

from realtime.socket_uvicorn import LiveWebSocketProtocol


def test_the_versions_are_the_ones_that_were_read():
    assert uvicorn.__version__ == "0.54.0"
    assert websockets.__version__.startswith("17.")


def protocol() -> LiveWebSocketProtocol:
    async def app(scope, receive, send):
        pass

    config = uvicorn.Config(app, ws=LiveWebSocketProtocol, lifespan="off", interface="asgi3")
    config.load()
    assert config.ws_protocol_class is LiveWebSocketProtocol
    return LiveWebSocketProtocol(config, ServerState(), {})


async def test_the_state_that_we_read_and_set_is_there():
    one = protocol()
    base = vars(WebSocketsSansIOProtocol(one.config, ServerState(), {}))
    for name in (
        *("app", "loop", "queue", "conn", "transport", "client", "frames", "curr_msg_data_type"),
        *("read_paused", "close_sent", "close_timer", "handshake_complete", "disconnected"),
        *("connections", "tasks", "writable", "app_state", "handshake_initiated"),
    ):
        assert name in base, name
    for name in (
        *("available_extensions", "max_message_size", "current_size", "parser", "reader"),
        *("events", "parser_exc", "handshake_exc", "close_sent", "logger"),
    ):
        assert name in vars(one.conn), name
    assert one.conn.reader.buffer == b""
    assert inspect.isgenerator(one.conn.parser)
    assert list(inspect.signature(ServerProtocol.recv_frame).parameters) == ["self", "frame"]
    assert one.conn.state is CONNECTING
    assert len(vars(one)) <= 42, "one more attribute doubles the dict of every idle viewer"
    assert one.conn.available_extensions is None
    assert one.conn.max_message_size == 65_536
    assert callable(one.conn.send_close)
    assert callable(one.conn.data_to_send)
    assert one.conn.state is not OPEN


async def test_between_two_frames_the_parser_waits_for_the_next_and_nowhere_else():
    loop = asyncio.get_running_loop()
    one = LiveWebSocketProtocol.straight(protocol().config, ServerState(), loop)
    frame = Frame(Opcode.BINARY, b"data").serialize(mask=True)
    assert one.at_rest()
    for cut in range(1, len(frame)):
        one.conn.receive_data(frame[:cut])
        assert not one.at_rest(), cut
        one.conn.receive_data(frame[cut:])
        assert one.at_rest(), cut


def test_the_methods_that_we_override_have_their_signatures():
    base = WebSocketsSansIOProtocol
    for name, arguments in {
        "__init__": ["self", "config", "server_state", "app_state", "_loop"],
        "connection_made": ["self", "transport"],
        "connection_lost": ["self", "exc"],
        "eof_received": ["self"],
        "pause_writing": ["self"],
        "resume_writing": ["self"],
        "data_received": ["self", "data"],
        "shutdown": ["self"],
        "start_keepalive": ["self"],
        "send_receive_event_to_app": ["self"],
        "handle_close": ["self", "event"],
        "handle_parser_exception": ["self"],
        "handle_events": ["self"],
        "handle_ping": ["self"],
        "send": ["self", "message"],
        "run_asgi": ["self"],
        "send_500_response": ["self"],
    }.items():
        assert list(inspect.signature(getattr(base, name)).parameters) == arguments, name


def test_the_101_is_followed_by_start_keepalive_and_the_request_is_not_read_after_it():
    source = inspect.getsource(WebSocketsSansIOProtocol.send)
    accepted = source.index("self.handshake_complete = True")
    assert source.index("self.start_keepalive()") > accepted
    assert "self.response" not in source[source.index("self.start_keepalive()") :]
    assert "self.request" not in source


async def test_below_asyncios_transport_is_a_socket_whose_buffer_we_know():
    left, right = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().connect_accepted_socket(asyncio.Protocol, left)
    assert type(transport).__name__ == "_SelectorSocketTransport"
    below = transport.get_extra_info("socket")._sock
    assert isinstance(below, socket.socket)
    assert below.gettimeout() == 0
    assert transport.max_size == 256 * 1024, "what one read takes"
    transport.set_write_buffer_limits(high=0)
    assert transport.get_write_buffer_limits() == (0, 0)
    assert below.send(b"x") == 1
    transport.abort()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert below.fileno() == -1, "a closed socket has no number that another could get"
    right.close()


async def test_the_short_way_leaves_what_the_long_way_leaves_when_it_is_slim():
    long = protocol()
    config = long.config
    long.slim()
    short = LiveWebSocketProtocol.straight(config, ServerState(), asyncio.get_running_loop())
    left = {"close_timeout", "transport", "scope"}
    assert vars(long).keys() - left == vars(short).keys()
    assert "close_timeout" not in inspect.getsource(WebSocketsSansIOProtocol.connection_lost)
    for method in (
        WebSocketsSansIOProtocol.shutdown,
        WebSocketsSansIOProtocol.handle_close,
        WebSocketsSansIOProtocol.handle_parser_exception,
        WebSocketsSansIOProtocol.handle_events,
        WebSocketsSansIOProtocol.send_receive_event_to_app,
    ):
        for name in left - {"transport"}:
            assert f"self.{name}" not in inspect.getsource(method), name
    assert short.conn.state is OPEN
    assert inspect.isgenerator(short.conn.parser)


async def test_asyncio_makes_transports_and_registers_handles_as_we_know_it():
    loop = asyncio.get_running_loop()
    make = list(inspect.signature(loop._make_socket_transport).parameters)
    assert make == ["sock", "protocol", "waiter", "extra", "server"]
    assert asyncio.Handle(print, (), loop)._callback is print
    reader = inspect.getsource(asyncio.SelectorEventLoop._add_reader)
    assert "(handle, None))" in reader
    writer = inspect.getsource(asyncio.SelectorEventLoop._add_writer)
    assert "(None, handle))" in writer
    for method in ("register", "unregister", "modify"):
        source = inspect.getsource(getattr(selectors.EpollSelector, method))
        assert f"self._selector.{method}(key.fd" in source, method
    assert "super().unregister(fileobj)\n            raise" in inspect.getsource(
        selectors.EpollSelector.modify
    ) or "super().unregister(fileobj)\n                raise" in inspect.getsource(
        selectors.EpollSelector.modify
    )
