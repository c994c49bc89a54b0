"""One whole message of a client out of the bytes of one read, without a parser. Pure.

Responsible for the common case alone (RFC 6455 5.2): a read that is exactly one final, masked
binary frame below 64 KiB, or one pong. Whatever else it is, the answer is None and the parser of
the connection decides. It must not know connections.
"""

from typing import Final

from websockets.frames import Opcode

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without its C code
    from websockets.utils import apply_mask

FINAL: Final = 0x80
MASKED: Final = 0x80
BINARY_FRAME: Final = FINAL | Opcode.BINARY
PONG_FRAME: Final = FINAL | Opcode.PONG
SHORT_MAX: Final = 125
"""Bytes of payload whose number fits the second byte."""
_TWO_BYTES: Final = MASKED | 126
_MASK: Final = 4


def whole_message(data: bytes) -> bytes | None:
    """The unmasked payload if `data` is one such frame and nothing more, else None."""
    size = len(data)
    if size < 2 + _MASK or data[0] not in (BINARY_FRAME, PONG_FRAME):
        return None
    second = data[1]
    if second == MASKED | size - 2 - _MASK and size <= SHORT_MAX + 2 + _MASK:
        at = 2
    elif (
        second == _TWO_BYTES
        and data[0] == BINARY_FRAME
        and size > SHORT_MAX + 4 + _MASK
        and data[2] << 8 | data[3] == size - 4 - _MASK
    ):
        at = 4
    else:
        return None
    return apply_mask(data[at + _MASK :], data[at : at + _MASK])
