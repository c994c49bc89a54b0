"""What a listener of the swarm concludes from bytes: gaps, repeats, and that equals are shared."""

import gc

import pytest

from loadtests.client import BadServerFrame
from loadtests.picture import Gallery, Picture, Step, split
from realtime.wire import (
    PING_FRAME,
    Position,
    pack_chat,
    pack_control,
    pack_direct,
    pack_skipped,
    pack_snapshot,
    pack_state,
    ready_frame,
)

EPOCH = "e1"


def snapshot(control: int = 3, chat: int = 10) -> bytes:
    return ready_frame(
        pack_snapshot(Position(EPOCH, control, chat), {"pin": "a"}, {"stock:x": (5, 7)}, [])
    )


def after(gallery: Gallery, *frames: bytes) -> tuple[Picture, list[Step]]:
    picture, steps = gallery.empty, []
    for frame in frames:
        steps.append(gallery.step(picture, frame))
        picture = steps[-1].to
    return picture, steps


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_frames_of_every_length_are_split_and_the_rest_is_left(size: int) -> None:
    frame = ready_frame(b"x" * size)
    found, taken = split(PING_FRAME + frame + frame[:-1])
    assert [(opcode, len(payload)) for opcode, payload in found[:2]] == [(9, 0), (2, size)]
    assert taken == len(PING_FRAME + frame)
    assert len(found) == 2


def test_a_frame_in_pieces_is_not_the_protocol() -> None:
    with pytest.raises(BadServerFrame):
        split(b"\x02\x01x")


def test_a_snapshot_replaces_everything() -> None:
    picture, steps = after(Gallery(), snapshot())
    assert picture.position == [EPOCH, 3, 10]
    assert (picture.facts, picture.states) == ({"pin": "a"}, {"stock:x": (5, 7)})
    assert steps[0].tally.snapshots == 1


def test_what_follows_on_is_no_gap_and_what_does_not_is_one() -> None:
    gallery = Gallery()
    tick = ready_frame(pack_control(4, "pin", None) + pack_chat(11, "a") + pack_chat(12, "b"))
    picture, steps = after(gallery, snapshot(), tick, ready_frame(pack_chat(15, "c")))
    assert (steps[1].tally.missing_control, steps[1].tally.missing_chat) == (0, 0)
    assert (steps[1].tally.control, steps[1].tally.chat) == (1, 2)
    assert steps[2].tally.missing_chat == 2
    assert picture.facts == {}
    gap = gallery.step(picture, ready_frame(pack_control(6, "pin", "b")))
    assert gap.tally.missing_control == 1


def test_a_marker_that_follows_takes_a_gap_back() -> None:
    _, steps = after(Gallery(), snapshot(), ready_frame(pack_chat(13, "c") + pack_skipped(3, 14)))
    assert (steps[1].tally.missing_chat, steps[1].tally.skipped) == (0, 3)


def test_what_comes_twice_is_counted_and_changes_nothing() -> None:
    gallery = Gallery()
    tick = ready_frame(pack_chat(11, "a"))
    picture, _ = after(gallery, snapshot(), tick)
    again = gallery.step(picture, tick)
    assert again.tally.duplicates == 1
    assert again.to is picture


def test_an_older_version_of_a_state_never_replaces_a_newer_one() -> None:
    picture, _ = after(Gallery(), snapshot(), ready_frame(pack_state("stock:x", 4, 99)))
    assert picture.states == {"stock:x": (5, 7)}


def test_listeners_that_know_the_same_share_one_picture_whatever_the_way() -> None:
    gallery = Gallery()
    one, _ = after(gallery, snapshot(chat=10), ready_frame(pack_chat(11, "a")))
    other, _ = after(gallery, snapshot(chat=11))
    different, _ = after(gallery, snapshot(chat=12))
    assert one is other
    assert one is not different


def test_pictures_that_nobody_holds_are_forgotten() -> None:
    gallery = Gallery()
    after(gallery, snapshot())
    assert len(gallery) == 1
    gallery.empty.next.clear()
    gc.collect()
    assert len(gallery) == 0


def test_pings_closes_and_what_is_for_one_alone_are_special() -> None:
    gallery = Gallery()
    picture, _ = after(gallery, snapshot())
    assert not gallery.step(picture, ready_frame(pack_chat(11, "a"))).special
    assert gallery.step(picture, PING_FRAME).special
    assert gallery.step(picture, b"\x88\x02\x0f\xa0").close == 4000
    assert gallery.step(picture, ready_frame(pack_direct("goodbye", {}))).alone
