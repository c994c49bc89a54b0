"""The independent client, held to the vectors and to its own books."""

import random
import re
from typing import Any

import pytest

from loadtests import client
from loadtests.client import BadServerFrame, Room, Session
from tests import vectors
from tests.vectors import Vector, frame_of

DOCUMENT = vectors.read()
ADA = {"at": 1, "by": {"id": "v", "name": "Ada", "role": "guest"}, "text": "hi"}


def each(group: str) -> pytest.MarkDecorator:
    chosen = DOCUMENT[group]
    return pytest.mark.parametrize(
        "vector", chosen, ids=[str(next(iter(v.values()))) for v in chosen]
    )


def room_from(picture: dict[str, Any] | None) -> Room:
    room = Room()
    if picture is not None:
        room.apply([client.SNAPSHOT, picture])
    return room


@each("commands")
def test_it_writes_this_command(vector: Vector) -> None:
    meaning = vector["meaning"]
    frame = client.encode(meaning["id"], meaning["name"], meaning["params"])
    assert frame == frame_of(vector)


@each("frames")
def test_it_reads_this_frame(vector: Vector) -> None:
    assert client.decode(frame_of(vector)) == vector["meaning"]


@each("pushes")
def test_it_reads_this_push(vector: Vector) -> None:
    assert client.decode(frame_of(vector)) == [vector["meaning"]]


@each("refused_frames")
def test_it_does_not_read_this_frame(vector: Vector) -> None:
    with pytest.raises(BadServerFrame):
        client.decode(frame_of(vector))


@each("recovery")
def test_the_room_ends_as_the_vector_says(vector: Vector) -> None:
    room = room_from(vector["start"])
    for envelope in vector["envelopes"]:
        room.apply(envelope)
    assert room.picture() == vector["room"]
    assert (room.skipped, room.ignored) == (vector["skipped"], vector["ignored"])


@each("close_codes")
def test_it_reconnects_after_these_codes_only(vector: Vector) -> None:
    assert client.reconnects(vector["code"]) is vector["reconnect"]


@each("backoff")
def test_it_waits_at_most_so_long(vector: Vector) -> None:
    assert client.backoff_ceiling_ms(vector["attempt"]) == vector["ceiling_ms"]


def empty(control: int = 0, chat: int = 0) -> Room:
    picture = {"epoch": "e", "control": control, "chat": chat}
    return room_from({**picture, "facts": {}, "states": {}, "comments": []})


def test_entries_that_came_twice_are_counted() -> None:
    room = empty()
    for envelope in ([2, 1, "pin", None], [2, 1, "pin", None], [4, 1, ADA], [4, 1, ADA]):
        room.apply(envelope)
    assert (room.duplicates, room.missing_control, room.missing_comments) == (2, 0, 0)


def test_a_stale_state_is_no_duplicate() -> None:
    room = empty()
    room.apply([3, "likes", 2, 2])
    room.apply([3, "likes", 1, 1])
    assert (room.duplicates, room.ignored) == (0, 1)


def test_control_entries_that_never_came_are_counted() -> None:
    room = empty(control=5)
    room.apply([2, 8, "pin", None])
    assert room.missing_control == 2


def test_comments_that_never_came_are_missing_until_a_marker_accounts_for_them() -> None:
    room = empty(chat=10)
    room.apply([4, 12, ADA])
    room.apply([4, 14, ADA])
    assert room.missing_comments == 2
    room.apply([6, 3, 15])
    assert (room.missing_comments, room.skipped, room.chat) == (0, 3, 15)


def test_a_retracted_comment_that_never_came_is_not_missing() -> None:
    room = empty(chat=10)
    room.apply([2, 1, "retracted", {"comment": 11}])
    room.apply([4, 12, ADA])
    assert room.missing_comments == 0


def test_a_session_knows_its_own_holds_and_joins_from_where_it_was() -> None:
    session = Session("show-1", "token")
    assert session.join_params() == {"show": "show-1", "token": "token"}
    for vector in DOCUMENT["pushes"]:
        if vector["name"] in {"reply to join", "reply to buy", "snapshot", "direct hold: sold"}:
            session.receive(frame_of(vector))
    assert [hold["state"] for hold in session.holds.values()] == ["sold"]
    assert session.you["name"] == "Ada"
    assert session.join_params(["r" * 16]) == {
        "show": "show-1",
        "token": "token",
        "position": ["e-7f3a", 17, 4243],
        "undecided": ["r" * 16],
    }


def test_ids_start_again_before_they_grow_too_large() -> None:
    session = Session("show-1", "token", _id=client.ID_MAX - 1)
    assert [session.command("ping", {})[0] for _ in range(2)] == [client.ID_MAX, 1]


def test_a_rid_is_a_uuid_of_version_7() -> None:
    rid = client.new_rid(0x0193661C7A00, random.Random(1))
    assert re.fullmatch(r"0193661c-7a00-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", rid)
