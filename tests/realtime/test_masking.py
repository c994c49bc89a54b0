"""The short way takes whole messages as the parser would, and nothing else."""

import pytest
from websockets.frames import Frame, Opcode

from realtime.masking import whole_message

SIZES = (0, 1, 5, 125, 126, 127, 4000, 65_535)


def framed(opcode: Opcode, data: bytes = b"", *, fin: bool = True, mask: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=mask)


@pytest.mark.parametrize("size", SIZES)
def test_a_whole_binary_message_is_unmasked(size: int):
    data = bytes(n * 7 % 256 for n in range(size))
    frame = framed(Opcode.BINARY, data)
    assert whole_message(frame) == data
    assert whole_message(frame + b"x") is None
    assert whole_message(frame + frame) is None
    for cut in (1, 2, len(frame) // 2, len(frame) - 1):
        assert whole_message(frame[:cut]) is None


def test_a_pong_is_taken_and_all_other_kinds_are_the_parsers():
    assert whole_message(framed(Opcode.PONG, b"ab")) == b"ab"
    for other in (
        framed(Opcode.TEXT, b"ab"),
        framed(Opcode.PING, b"ab"),
        framed(Opcode.CLOSE, b"\x03\xe8"),
        framed(Opcode.CONT, b"ab"),
        framed(Opcode.BINARY, b"ab", fin=False),
        framed(Opcode.BINARY, b"ab", mask=False),
        framed(Opcode.BINARY, b"x" * 65_536),
    ):
        assert whole_message(other) is None


@pytest.mark.parametrize("bit", [0x40, 0x20, 0x10])
def test_reserved_bits_are_the_parsers(bit: int):
    frame = bytearray(framed(Opcode.BINARY, b"ab"))
    frame[0] |= bit
    assert whole_message(bytes(frame)) is None


def test_a_length_that_is_longer_than_it_need_be_is_the_parsers():
    assert whole_message(b"\x82\xfe\x00\x02" + b"mask" + b"ab") is None
    assert whole_message(b"\x8a\xfe\x00\x7e" + b"mask" + b"x" * 126) is None
