import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from realtime.errors import Rejected
from realtime.wire import (
    COMMAND_BYTES_MAX,
    Command,
    Position,
    decode_command,
    pack_chat,
    pack_control,
    pack_snapshot,
    pack_state,
    ready_frame,
)
from tests.realtime.kit import unpack_all

CODES = {"bad_frame", "too_large", "too_deep"}


@given(st.binary(max_size=300))
@example(b"\x93\x01\xa1a\x81\x80\xc0")  # a map as the key of a map
@example(b"\x93\x01\xa1a\x81\x91\x80\xc0")  # a list with a map as the key
@example(b"\x93\x01\xa1a\x81\xa1k\xd7\xff" + b"\xff" * 8)  # a timestamp out of range
@example(b"\x93\x01\xa1a\x81\xa1k\xc7\x03\x05abc")  # an extension type
@example(b"\x93\x01\xa1\xff\x80")  # a name that is not UTF-8
@example(b"\xdd\xff\xff\xff\xff")  # an array that claims four billion elements
@example(b"\x91" * 5000)
@example(b"\x93\x01\xa1a" + b"\x81\xa1k" * 4000 + b"\xc0")
def test_no_bytes_do_more_than_be_refused(data):
    outcome: Command | Rejected
    try:
        outcome = decode_command(data)
    except Rejected as rejected:
        outcome = rejected
    assert isinstance(outcome, Command) or outcome.code in CODES


def test_a_command_has_an_id_a_name_and_params():
    assert decode_command(msgpack.packb([1, "join", {"show": "s"}])) == (1, "join", {"show": "s"})
    assert decode_command(msgpack.packb([2**31 - 1, "n" * 32, {}])).id == 2**31 - 1
    for wrong in (
        [],
        [1, "a"],
        [1, "a", {}, 1],
        [-1, "a", {}],
        [2**31, "a", {}],
        [True, "a", {}],
        [1, "", {}],
        [1, "n" * 33, {}],
        [1, "a", []],
        [1, "a", {1: 2}],
        {"id": 1},
        None,
    ):
        with pytest.raises(Rejected) as refused:
            decode_command(msgpack.packb(wrong))
        assert refused.value.code == "bad_frame", wrong


def test_size_and_depth_have_limits_that_are_told():
    with pytest.raises(Rejected) as refused:
        decode_command(b"\x00" * (COMMAND_BYTES_MAX + 1))
    assert (refused.value.code, refused.value.details) == ("too_large", {"limit": 16_384})
    deep: object = 1
    for _ in range(6):
        deep = [deep]
    assert decode_command(msgpack.packb([1, "a", {"k": deep}])).name == "a"
    with pytest.raises(Rejected) as refused:
        decode_command(msgpack.packb([1, "a", {"k": [deep]}]))
    assert refused.value.code == "too_deep"


@given(st.integers(0, 200_000))
@example(125)
@example(126)
@example(65_535)
@example(65_536)
def test_a_ready_frame_is_one_whole_unmasked_binary_frame(size):
    frame = ready_frame(b"x" * size)
    assert frame[0] == 0x82
    short = frame[1]
    header = 2 if short < 126 else 4 if short == 126 else 10
    length = short if short < 126 else int.from_bytes(frame[2:header], "big")
    assert length == size == len(frame) - header
    assert (short < 126) == (size < 126)
    assert (short == 127) == (size > 65_535)


def test_pushes_are_read_back_by_another_codec():
    data = pack_control(1, "pin", None) + pack_state("s", 2, 3) + pack_chat(4, {"text": "é"})
    data += pack_snapshot(Position("e", 1, 4), {"f": 1}, {"s": (2, 3)}, [(4, "c")])
    assert unpack_all(data) == [
        [2, 1, "pin", None],
        [3, "s", 2, 3],
        [4, 4, {"text": "é"}],
        [
            8,
            {
                "epoch": "e",
                "control": 1,
                "chat": 4,
                "facts": {"f": 1},
                "states": {"s": [2, 3]},
                "comments": [[4, "c"]],
            },
        ],
    ]
