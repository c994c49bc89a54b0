"""The short way in: what it answers, and everything that it leaves to the long way."""

import pytest
from websockets.http11 import Request
from websockets.server import ServerProtocol

from realtime.upgrade import REQUEST_BYTES_MAX, Upgrade, read_upgrade, switching

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
PLAIN = [
    b"GET /live HTTP/1.1",
    b"Host: shop.example:8080",
    b"Upgrade: websocket",
    b"Connection: Upgrade",
    b"Sec-WebSocket-Key: " + KEY,
    b"Sec-WebSocket-Version: 13",
]


def request(*more: bytes, without: bytes = b"\0") -> bytes:
    lines = [line for line in PLAIN if not line.startswith(without)]
    return b"\r\n".join([*lines, *more]) + b"\r\n\r\n"


def test_a_browsers_upgrade_is_understood():
    found = read_upgrade(
        request(
            b"Origin: https://shop.example",
            b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
            b"sec-websocket-protocol: other, live.v1",
            b"X-Forwarded-For: 1.2.3.4",
            b"x-forwarded-for: 5.6.7.8",
            b"Cookie: a=b; c=d",
        )
    )
    assert found == Upgrade(
        "/live",
        "shop.example:8080",
        "https://shop.example",
        ("other", "live.v1"),
        "1.2.3.4,5.6.7.8",
        KEY,
    )


def test_the_answer_is_the_one_of_the_rfc():
    answer = switching(KEY, "live.v1")
    assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer
    assert answer.endswith(b"\r\nSec-WebSocket-Protocol: live.v1\r\n\r\n")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET /live HTTP/1.1\r\n\r\n",
        request()[:-1],
        request() + b"\x82\x80\0\0\0\0",
        request() + request(),
        request().replace(b"GET", b"POST"),
        request().replace(b"HTTP/1.1", b"HTTP/1.0"),
        request().replace(b"/live", b"/li%76e"),
        request().replace(b"/live", b"/live?token=1"),
        request().replace(b"/live", b"http://shop.example/live"),
        request().replace(b"/live", b"/live /x"),
        request().replace(b"\r\nUpgrade", b"\nUpgrade"),
        request().replace(b"Upgrade: websocket", b"Upgrade: h2c"),
        request().replace(b"Connection: Upgrade", b"Connection: close"),
        request().replace(b"13", b"8"),
        request().replace(KEY, b"c2hvcnQ="),
        request().replace(KEY, b"!" * 24),
        request(without=b"Sec-WebSocket-Key"),
        request(without=b"Upgrade"),
        request(b"Sec-WebSocket-Key: " + KEY),
        request(b"Host: other.example"),
        request(b"Origin: https://a.example", b"Origin: https://b.example"),
        request(b"Content-Length: 5"),
        request(b"Transfer-Encoding: chunked"),
        request(b" folded: yes"),
        request(b"no colon"),
        request(b"sp ace: yes"),
        request(b": nameless"),
        request(b"X-Zero: \0"),
        request(b"X-Return: a\rb"),
        request(*[b"X-Many: 1"] * 64),
        request(b"X-Long: " + b"x" * REQUEST_BYTES_MAX),
    ],
)
def test_whatever_is_not_plain_takes_the_long_way(data: bytes):
    assert read_upgrade(data) is None


def test_nothing_takes_the_short_way_that_the_long_way_would_refuse():
    """Each byte of a request changed in turn, against the parser of the long way."""
    whole = request(b"Sec-WebSocket-Protocol: live.v1")
    taken = 0
    for place in range(len(whole)):
        for byte in (b"\0", b" ", b"\r", b"\n", b":", b"x", b"\xff"):
            data = whole[:place] + byte + whole[place + 1 :]
            if read_upgrade(data) is None:
                continue
            taken += 1
            server = ServerProtocol()
            server.receive_data(data)
            (found,) = server.events_received()
            assert isinstance(found, Request), data
            assert server.accept(found).status_code == 101, data
    assert taken > 100
