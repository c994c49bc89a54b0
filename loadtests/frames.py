"""Bytes that a client of the swarm sends, and the first look at what it gets.

Responsible for the handshake's request, for masked frames and for taking one envelope off the front
of a frame. It must not know sockets or rooms, and nothing of the server. Written here instead of
taken from a library, because the swarm has to be cheaper than what it measures.
"""

import struct
from typing import Any, Final

import msgpack  # type: ignore[import-untyped]

from loadtests.client import SUBPROTOCOL, BadServerFrame

PONG: Final = b"\x8a\x80\x00\x00\x00\x00"
REQUEST: Final = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
    f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
)


def masked(payload: bytes) -> bytes:
    """A binary client frame; the mask is zero, which masks nothing and is allowed."""
    size = len(payload)
    if size < 126:
        return struct.pack("!BBI", 0x82, 0x80 | size, 0) + payload
    return struct.pack("!BBHI", 0x82, 0xFE, size, 0) + payload


def unmasked(opcode: int, payload: bytes) -> bytes:
    """A frame as the server sends it: what stands behind a reply is put together again."""
    return bytes([0x80 | opcode, *_size(len(payload))]) + payload


def _size(size: int) -> bytes:
    if size < 126:
        return bytes([size])
    if size < 65536:
        return b"\x7e" + size.to_bytes(2, "big")
    return b"\x7f" + size.to_bytes(8, "big")


def own_envelope(payload: bytes) -> tuple[int, Any, int]:
    """(kind, body, length) of the first envelope in a frame. Raises `BadServerFrame`."""
    unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=0)
    unpacker.feed(payload)
    try:
        envelope = unpacker.unpack()
        return int(envelope[0]), envelope[-1], unpacker.tell()
    except (msgpack.UnpackException, ValueError, IndexError, TypeError):
        raise BadServerFrame("no answer to join") from None
