"""The opening handshake of a WebSocket (RFC 6455 4.2), read from the first bytes of a connection.

Responsible for saying of some bytes whether they are one whole, plain, faultless upgrade request,
and what it asks for; and for the answer to it. Pure: no socket, no server. It must not refuse
anybody: whatever is not plain (a query, a body, a doubled header, half a request, a fault) is None
here and takes the long way through the HTTP server, which knows how to say what is wrong.

Why it exists: the long way parses the headers three times (httptools, websockets, Starlette) and
costs a task and a stack of middleware, 0.5 of the 0.9 ms of CPU that one join cost. This costs 12
microseconds. When 15,000 viewers come back at once that is the difference between a loop that
still answers Buy and one that does not.
"""

import base64
import binascii
import hashlib
from typing import Final, NamedTuple

REQUEST_BYTES_MAX: Final = 4096
"""Of a request on the short way; browsers send 400 to 900, more with cookies."""
HEADERS_MAX: Final = 64
_END: Final = b"\r\n\r\n"
_GET: Final = b"GET "
_HTTP: Final = b" HTTP/1.1"
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION: Final = b"13"
_KEY_BYTES: Final = 16
_ONCE: Final = frozenset(
    {
        b"connection",
        b"host",
        b"origin",
        b"sec-websocket-key",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
        b"upgrade",
    }
)
"""Headers that we read and that have to be there at most once."""
_BODY: Final = frozenset({b"content-length", b"transfer-encoding", b"expect"})
_TEXT: Final = bytes({9, 10, 13, *range(0x20, 0x7F), *range(0x80, 0x100)})
_NAME_BYTES: Final = frozenset(
    b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)


class Upgrade(NamedTuple):
    """A request that can be answered with 101."""

    path: str
    host: str
    origin: str | None
    protocols: tuple[str, ...]
    forwarded: str | None
    """`X-Forwarded-For`, all of its lists."""
    key: bytes


def read_upgrade(data: bytes) -> Upgrade | None:
    """The upgrade that `data` is, wholly and exactly; None: it is something else."""
    if len(data) > REQUEST_BYTES_MAX or not data.startswith(_GET) or not data.endswith(_END):
        return None
    first, *lines = data[: -len(_END)].split(b"\r\n")
    breaks = len(lines) + 2
    if data.count(b"\n") != breaks or data.count(b"\r") != breaks or data.translate(None, _TEXT):
        return None  # more than one head, half a line break, or bytes that are no text
    found = _headers(lines) if len(lines) <= HEADERS_MAX else None
    path = _path(first)
    if found is None or path is None or not _is_websocket(found):
        return None
    asked = found.get(b"sec-websocket-protocol")
    offered = [] if asked is None else _tokens(asked)
    if not all(offered):
        return None
    origin, forwarded = found.get(b"origin"), found.get(b"x-forwarded-for")
    return Upgrade(
        path,
        found.get(b"host", b"").decode("latin-1"),
        None if origin is None else origin.decode("latin-1"),
        tuple(token.decode() for token in offered),
        None if forwarded is None else forwarded.decode("latin-1"),
        found[b"sec-websocket-key"],
    )


def _path(line: bytes) -> str | None:
    """Of a request line whose path needs no decoding."""
    path = line[len(_GET) : -len(_HTTP)]
    plain = line.endswith(_HTTP) and path.startswith(b"/") and path.isascii()
    return path.decode() if plain and not any(byte in path for byte in b" %?#\t") else None


def _headers(lines: list[bytes]) -> dict[bytes, bytes] | None:
    """By name in lower case; lists of the same name are joined as RFC 9110 5.3 says."""
    found: dict[bytes, bytes] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or not _NAME_BYTES.issuperset(name):
            return None
        name, value = name.lower(), value.strip(b" \t")
        if name in found:
            if name in _ONCE:
                return None
            value = b",".join((found[name], value))
        found[name] = value
    return found


def _tokens(value: bytes) -> list[bytes]:
    """What a list holds (RFC 9110 5.6.1); empty where something is no token."""
    items = [item.strip(b" \t") for item in value.split(b",")]
    return [item if _NAME_BYTES.issuperset(item) else b"" for item in items]


def _is_websocket(found: dict[bytes, bytes]) -> bool:
    """RFC 6455 4.2.1: everything that has to be there, and nothing that promises a body."""
    key = found.get(b"sec-websocket-key", b"")
    try:
        raw = base64.b64decode(key, validate=True)
    except binascii.Error:
        return False
    options = _tokens(found.get(b"connection", b"").lower())
    return (
        len(raw) == _KEY_BYTES
        and found.get(b"upgrade", b"").lower() == b"websocket"
        and all(options)
        and b"upgrade" in options
        and found.get(b"sec-websocket-version") == _VERSION
        and not _BODY & found.keys()
    )


def switching(key: bytes, protocol: str) -> bytes:
    """The answer: 101, with the subprotocol that was chosen."""
    accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    return b"".join(
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: ",
            accept,
            b"\r\nSec-WebSocket-Protocol: ",
            protocol.encode(),
            _END,
        )
    )
