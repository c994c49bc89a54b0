"""One document, one file of bytes: the server's codec and an independent one are held to both.

Goal: a command, push, code or close code cannot exist without a vector, a vector cannot disagree
with the code or with PROTOCOL.md, and the server's codec (msgspec) writes the very bytes that
`msgpack` writes. Method: everything is enumerated from the code (messages, codes, errors, wire) and
from the tables of PROTOCOL.md, and looked up in the vectors, in both directions.
"""

import re
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest

from commerce import raffle
from live.codes import CODES
from live.messages import HOST_COMMANDS, VIEWER_COMMANDS
from live.messages import read as read_params
from realtime.errors import CloseCode, Rejected
from realtime.wire import SUBPROTOCOL, Kind, decode_command, pack, pack_command, unpack
from tests import vectors
from tests.vectors import Vector, envelope_of, frame_of

DOCUMENT = vectors.read()
PROTOCOL = vectors.PROSE.read_text(encoding="utf-8")
COMMANDS = {**VIEWER_COMMANDS, **HOST_COMMANDS}


def each(group: str, **having: str) -> pytest.MarkDecorator:
    """The test runs once per vector of the group and is named after it."""
    chosen = [
        vector
        for vector in DOCUMENT[group]
        if all(vector.get(key) == value for key, value in having.items())
    ]
    assert chosen
    return pytest.mark.parametrize("vector", chosen, ids=[vector["name"] for vector in chosen])


def chapter(number: int) -> str:
    found = re.search(rf"^## {number}\. .*?(?=^## |\Z)", PROTOCOL, re.DOTALL | re.MULTILINE)
    assert found
    return found[0]


def table(text: str, heading: str) -> list[list[str]]:
    """The rows of the table whose first column is headed so."""
    lines = text.splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    rows = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    assert rows
    return rows


def first_column(number: int, heading: str) -> set[str]:
    return {row[0].strip("`") for row in table(chapter(number), heading)}


# ---- the server's codec


@each("commands")
def test_the_server_reads_and_writes_this_command(vector: Vector) -> None:
    command = decode_command(frame_of(vector))
    assert command._asdict() == vector["meaning"]
    assert pack_command(*command) == frame_of(vector)
    read_params(COMMANDS[command.name], command.params)


@each("refused_commands", stage="frame")
def test_the_server_refuses_this_frame(vector: Vector) -> None:
    with pytest.raises(Rejected) as refused:
        decode_command(frame_of(vector))
    assert refused.value.code == vector["code"]


@each("refused_commands", stage="name")
def test_the_server_knows_no_such_command(vector: Vector) -> None:
    assert decode_command(frame_of(vector)).name not in COMMANDS
    assert vector["code"] == "unknown_command"


@each("refused_commands", stage="params")
def test_the_server_refuses_these_params_and_names_the_field(vector: Vector) -> None:
    command = decode_command(frame_of(vector))
    assert list(command) == envelope_of(vector["meaning"])
    with pytest.raises(Rejected) as refused:
        read_params(COMMANDS[command.name], command.params)
    assert (refused.value.code, refused.value.details) == (
        vector["code"],
        {"field": vector["field"]},
    )


@each("refused_commands", stage="rules")
def test_what_the_rules_refuse_is_well_formed(vector: Vector) -> None:
    command = decode_command(frame_of(vector))
    assert list(command) == envelope_of(vector["meaning"])
    read_params(COMMANDS[command.name], command.params)
    assert vector["code"] in CODES


@each("pushes")
def test_the_server_writes_this_push(vector: Vector) -> None:
    assert unpack(frame_of(vector)) == vector["meaning"]
    assert pack(vector["meaning"]) == frame_of(vector)


@each("frames")
def test_a_frame_is_its_envelopes_back_to_back(vector: Vector) -> None:
    assert b"".join(pack(envelope) for envelope in vector["meaning"]) == frame_of(vector)


# ---- the independent codec


@each("commands")
def test_an_independent_codec_writes_the_same_command(vector: Vector) -> None:
    assert msgpack.packb(envelope_of(vector["meaning"])) == frame_of(vector)


@pytest.mark.parametrize(
    "vector",
    [vector for vector in DOCUMENT["refused_commands"] if "meaning" in vector],
    ids=lambda vector: vector["name"],
)
def test_an_independent_codec_writes_the_same_refused_command(vector: Vector) -> None:
    assert msgpack.packb(envelope_of(vector["meaning"])) == frame_of(vector)


@each("pushes")
def test_an_independent_codec_reads_and_writes_the_same_push(vector: Vector) -> None:
    assert msgpack.unpackb(frame_of(vector)) == vector["meaning"]
    assert msgpack.packb(vector["meaning"]) == frame_of(vector)


# ---- nothing without a vector


def test_every_command_has_a_vector_and_a_refused_one() -> None:
    accepted = {vector["meaning"]["name"] for vector in DOCUMENT["commands"]}
    refused = {
        vector["meaning"]["name"]
        for vector in DOCUMENT["refused_commands"]
        if vector["stage"] == "params"
    }
    assert accepted == set(COMMANDS)
    # A ping has no params that could be wrong.
    assert refused == set(COMMANDS) - {"ping"}


def test_every_field_of_every_command_is_used_in_a_vector() -> None:
    used: dict[str, set[str]] = {name: set() for name in COMMANDS}
    for vector in DOCUMENT["commands"]:
        used[vector["meaning"]["name"]] |= set(vector["meaning"]["params"])
    unused = {name: set(type_.__struct_fields__) - used[name] for name, type_ in COMMANDS.items()}
    assert not {name: fields for name, fields in unused.items() if fields}


def test_protocol_and_messages_name_the_same_commands() -> None:
    assert first_column(4, "command") == set(VIEWER_COMMANDS) - {"join"}
    assert first_column(5, "command") == set(HOST_COMMANDS) - {"take_console"}
    assert "    join {" in chapter(3)
    assert "    take_console {" in chapter(5)


def meanings_of(kind: Kind) -> list[list[Any]]:
    """Envelopes of this kind among the pushes; what a client must ignore is called `later`."""
    return [
        vector["meaning"]
        for vector in DOCUMENT["pushes"]
        if vector["meaning"][0] == kind.value and "later" not in vector["meaning"]
    ]


def test_every_kind_has_a_vector_and_a_row() -> None:
    kinds = {str(kind.value) for kind in Kind}
    assert {str(vector["meaning"][0]) for vector in DOCUMENT["pushes"]} == kinds | {"99"}
    assert first_column(2, "kind") == kinds


def test_every_fact_has_a_vector() -> None:
    keys = {envelope[2].replace("drop-1", "<id>") for envelope in meanings_of(Kind.CONTROL)}
    assert keys == {row[0].strip("`") for row in table(chapter(6), "key")}


def test_every_state_has_a_vector() -> None:
    keys = {re.sub(":.*", ":<sku>", env[1]) for env in meanings_of(Kind.STATE)}
    states = chapter(6).partition("### States")[2]
    assert keys == {row[0].strip("`") for row in table(states, "key")}


def test_every_direct_push_has_a_vector() -> None:
    names = {envelope[1] for envelope in meanings_of(Kind.DIRECT)}
    assert names == first_column(6, "name")


def test_every_state_of_a_hold_has_a_vector() -> None:
    found = re.search(r"^    state: ([a-z |]+)$", chapter(4), re.MULTILINE)
    assert found
    seen = {env[2]["state"] for env in meanings_of(Kind.DIRECT) if env[1] == "hold"}
    assert seen == set(found[1].split(" | "))


def test_codes_in_the_table_the_vectors_and_the_prose_are_the_same() -> None:
    assert DOCUMENT["codes"] == vectors.codes_group()
    assert table(chapter(7), "code") == vectors.codes_rows()


def test_every_code_a_vector_expects_exists() -> None:
    expected = {vector["code"] for vector in DOCUMENT["refused_commands"]}
    expected |= {envelope[2]["code"] for envelope in meanings_of(Kind.FAILURE)} - {"later_code"}
    assert expected <= set(CODES)


def test_close_codes_in_the_enum_the_vectors_and_the_prose_are_the_same() -> None:
    vectors_ = {vector["code"]: vector["reconnect"] for vector in DOCUMENT["close_codes"]}
    ours = {code.value: code.reconnect for code in CloseCode}
    for code, reconnect in ours.items():
        assert vectors_[code] is reconnect
    assert first_column(8, "code") == {str(code) for code in ours}
    # Codes outside of the enum stand for the ranges: a client decides by range.
    assert {vectors_[4499], not vectors_[4999]} == {True}


def test_vectors_are_named_once_and_stand_one_per_line() -> None:
    for group in ("commands", "refused_commands", "pushes", "frames", "recovery"):
        names = [vector["name"] for vector in DOCUMENT[group]]
        assert len(names) == len(set(names))
    assert vectors.PATH.read_text(encoding="utf-8") == vectors.layout(DOCUMENT)
    assert vectors.fill(vectors.read()) == 0
    assert DOCUMENT["version"] == SUBPROTOCOL


def test_backoff_doubles_up_to_twenty_seconds() -> None:
    for vector in DOCUMENT["backoff"]:
        assert vector["ceiling_ms"] == min(20_000, 500 * 2 ** vector["attempt"])
    assert "min(20 s, 0.5 s · 2^attempt)" in chapter(8)


def test_a_vector_added_without_bytes_gets_them() -> None:
    document: dict[str, Any] = {
        group: [] for group in ("commands", "refused_commands", "frames")
    } | {"pushes": [{"name": "beat", "meaning": [7, 1]}]}
    assert vectors.fill(document) == 1
    assert document["pushes"] == [{"name": "beat", "hex": "920701", "meaning": [7, 1]}]


@each("raffle")
def test_a_draw_can_be_recomputed_from_the_protocol(vector: Vector) -> None:
    assert raffle.commitment(vector["seed"]) == vector["seed_sha"]
    assert {one: raffle.lot(vector["seed"], one) for one in vector["entries"]} == vector["lots"]
    assert raffle.ranking(vector["seed"], vector["entries"]) == vector["ranking"]
    assert vector["seed_sha"] in PROTOCOL
    assert vector["lots"][vector["entries"][0]] in PROTOCOL
    assert f"rank {', '.join(entry[6] for entry in vector['ranking'])};" in PROTOCOL
