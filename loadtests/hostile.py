"""What a hostile client sends: bytes made on purpose to be wrong, from one seed.

Responsible for the repertoire alone; no socket, no clock. A `Visit` is what one connection does:
how it opens, what it sends in which pieces, how it leaves. The same seed gives the same visits, so
that what broke a server can be sent again. It must not import anything of the server: vectors come
from the file that clients are written from.
"""

import json
import random as random_
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from loadtests.client import SUBPROTOCOL, encode

VECTORS: Final = Path(__file__).resolve().parent.parent / "live" / "protocol_vectors.json"
FRAMES_PER_VISIT: Final = 40
"""At most; most visits are ended by the server before."""
FLOOD: Final = 400
FLOOD_SHARE: Final = 0.15
"""Of the turns that a flood has: about a quarter of all frames."""
LINGER_SHARE: Final = 0.05
"""Visits that stop in the middle and stay."""
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
CLOSE_FRAME: Final = b"\x88\x82\0\0\0\0\x03\xe8"

Leave = Literal["close", "abort", "eof", "linger", "deaf"]
"""deaf: it never reads, and aborts."""


@dataclass
class Visit:
    """One connection."""

    kind: str
    upgrade: bytes
    join: bool
    pieces: list[bytes]
    leave: Leave = "close"
    frames: int = 0
    handshake: bool = True
    """Whether a 101 can be expected."""


def frame(
    opcode: int,
    payload: bytes,
    *,
    head: int = 0x80,
    mask: bytes | None = b"\x37\xfa\x21\x3d",
    size: int | None = None,
    form: int | None = None,
) -> bytes:
    """A WebSocket frame, lawful unless asked otherwise: `size` lies about the length, `form` (7, 16
    or 64 bits) writes it longer than needed, `mask` None leaves it out, `head` sets FIN and RSV."""
    told = len(payload) if size is None else size
    form = form or (7 if told < 126 else 16 if told < 65536 else 64)
    flag = 0 if mask is None else 0x80
    if form == 7:
        length = bytes((flag | told,))
    elif form == 16:
        length = bytes((flag | 126,)) + told.to_bytes(2, "big")
    else:
        length = bytes((flag | 127,)) + told.to_bytes(8, "big")
    if mask is not None:
        key = (mask * (len(payload) // 4 + 1))[: len(payload)]
        data = (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(
            len(payload), "big"
        )
        return bytes((head | opcode,)) + length + mask + data
    return bytes((head | opcode,)) + length + payload


def upgrade(host: str, *more: str, version: str = "13", protocol: str = SUBPROTOCOL) -> bytes:
    """The opening request; `more` are further header lines."""
    lines = [
        "GET /live HTTP/1.1", f"Host: {host}", "Connection: Upgrade", "Upgrade: websocket",
        f"Sec-WebSocket-Version: {version}", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        f"Sec-WebSocket-Protocol: {protocol}", *more, "", "",
    ]  # fmt: skip
    return "\r\n".join(lines).encode("latin-1")


def vector_bytes() -> list[bytes]:
    """Every command of the vectors, good and bad, as the bytes of a message."""
    vectors = json.loads(VECTORS.read_text(encoding="utf-8"))
    found = [bytes.fromhex(one["hex"]) for one in vectors["commands"]]
    for one in vectors["refused_commands"]:
        if "hex" in one:
            found.append(bytes.fromhex(one["hex"]))
        elif "repeat" in one:
            shape = one["repeat"]
            units = bytes.fromhex(shape["unit"]) * int(shape["times"])
            found.append(bytes.fromhex(shape["prefix"]) + units + bytes.fromhex(shape["suffix"]))
    return found


@dataclass
class Hostile:
    """Endless visits. `host` is the server's name; `join` packs a lawful join."""

    host: str
    random: random_.Random
    _vectors: list[bytes] = field(default_factory=vector_bytes)

    def visits(self) -> Iterator[Visit]:
        """One kind after the other, in random order."""
        makers: list[Callable[[], Visit]] = [
            self._noise, self._mutants, self._mutants, self._out_of_turn, self._framing,
            self._lengths, self._fragments, self._closes, self._controls, self._text,
            self._flood, self._half, self._handshake, self._crumbs,
        ]  # fmt: skip
        while True:
            self.random.shuffle(makers)
            for maker in makers:
                if maker == self._flood and self.random.random() > FLOOD_SHARE:
                    continue
                visit = maker()
                visit.frames = visit.frames or len(visit.pieces)
                if visit.leave == "close" and self.random.random() < LINGER_SHARE:
                    visit.leave = self.random.choice(("abort", "eof", "linger", "deaf"))
                yield visit

    def _visit(self, kind: str, pieces: list[bytes], **more: Any) -> Visit:
        join = bool(more.pop("join", self.random.random() < 0.5))
        return Visit(kind, upgrade(self.host), join, pieces, **more)

    def _some(self, make: Callable[[], bytes], most: int = FRAMES_PER_VISIT) -> list[bytes]:
        return [make() for _ in range(self.random.randint(1, most))]

    def _noise(self) -> Visit:
        return self._visit(
            "noise", self._some(lambda: self.random.randbytes(self.random.randint(1, 300)))
        )

    def _mutant(self) -> bytes:
        """A vector with some of its bytes changed, lost, doubled or mixed with another's."""
        random = self.random
        data = bytearray(random.choice(self._vectors))
        for _ in range(random.randint(1, 4)):
            at = random.randrange(len(data) + 1)
            match random.randrange(5):
                case 0 if data:
                    data[at % len(data)] = random.randrange(256)
                case 1:
                    del data[at : at + random.randint(1, 8)]
                case 2:
                    data[at:at] = random.randbytes(random.randint(1, 8))
                case 3:
                    other = random.choice(self._vectors)
                    data[at:] = other[random.randrange(len(other) + 1) :]
                case 4:
                    data[at:at] = data[at : at + random.randint(1, 16)]
        return bytes(data[:70_000])

    def _mutants(self) -> Visit:
        return self._visit("mutants", self._some(lambda: frame(BINARY, self._mutant())))

    def _command(self) -> bytes:
        return self.random.choice(self._vectors)

    def _out_of_turn(self) -> Visit:
        return self._visit("out_of_turn", self._some(lambda: frame(BINARY, self._command())))

    def _framing(self) -> Visit:
        """One lawful frame, then one that is not: reserved bits, opcodes, no mask."""
        random, data = self.random, self._command()
        bad = random.choice(
            (
                frame(BINARY, data, head=0x80 | random.choice((0x10, 0x20, 0x40, 0x70))),
                frame(random.choice((3, 4, 5, 6, 7, 11, 12, 13, 14, 15)), data[:100]),
                frame(BINARY, data, mask=None),
                frame(CONT, data),
            )
        )
        return self._visit("framing", [frame(BINARY, data), bad, *self._some(lambda: bad, 5)])

    def _lengths(self) -> Visit:
        """Lengths that lie, are huge, or are written longer than needed."""
        random = self.random
        data = random.randbytes(random.choice((0, 1, 125, 126, 1000)))
        huge = random.choice((65_537, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1))
        pieces = [
            frame(BINARY, data, form=random.choice((16, 64))),
            frame(random.choice((BINARY, TEXT, CONT, PING)), data, size=huge, form=64),
        ]
        return self._visit("lengths", pieces)

    def _fragments(self) -> Visit:
        """Commands in pieces with controls between them; pieces without a start or an end."""
        random, pieces = self.random, list[bytes]()
        for _ in range(random.randint(1, 8)):
            data = self._command()[:2000]
            cuts = sorted(random.randrange(len(data) + 1) for _ in range(random.randint(0, 4)))
            parts = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
            for number, part in enumerate(parts):
                last = number == len(parts) - 1 and random.random() < 0.9
                pieces.append(frame(CONT if number else BINARY, part, head=0x80 if last else 0))
                if random.random() < 0.3:
                    pieces.append(frame(random.choice((PING, PONG)), data[:20]))
        return self._visit("fragments", pieces)

    def _closes(self) -> Visit:
        random = self.random
        code = random.choice((0, 999, 1004, 1005, 1006, 1015, 2999, 1000, 4000, 65_535))
        body = random.choice(
            (b"\x03", code.to_bytes(2, "big"), b"\x03\xe8\xff\xfe", b"\x03\xe8" + b"\xed\xa0\x80",
             b"\x03\xe8" + "я".encode() * 61, b"")
        )  # fmt: skip
        before = self._some(lambda: frame(BINARY, self._command()), 3)
        after = self._some(lambda: frame(random.choice((BINARY, PING, CLOSE)), b"late"), 5)
        return self._visit("closes", [*before, frame(CLOSE, body), *after])

    def _controls(self) -> Visit:
        random = self.random
        pieces = self._some(
            lambda: frame(random.choice((PING, PONG)), random.randbytes(random.randint(0, 125)))
        )
        kind = random.choice((PING, PONG, CLOSE))
        pieces.append(
            random.choice(
                (
                    frame(kind, random.randbytes(random.choice((126, 1000, 65_536)))),
                    frame(kind, b"part", head=0),
                )
            )
        )
        return self._visit("controls", pieces)

    def _text(self) -> Visit:
        random = self.random
        data = random.choice((b'[1,"ping",{}]', b"\xff\xfe", b"\xed\xa0\x80", b"", b"a" * 70_000))
        return self._visit("text", [frame(TEXT, data), frame(BINARY, self._command())])

    def _flood(self) -> Visit:
        """Hundreds of frames in one piece: pings, pongs, empty fragments, empty messages, likes."""
        one = self.random.choice(
            (
                frame(PING, b""),
                frame(PING, b"p" * 125),
                frame(PONG, b""),
                frame(BINARY, b"", head=0) + frame(CONT, b"", head=0) * 9,
                frame(BINARY, b""),
                frame(BINARY, encode(0, "like", {"n": 1})),
                frame(BINARY, encode(7, "ping", {})),
            )
        )
        leave: Leave = self.random.choice(("close", "deaf", "abort"))
        return self._visit("flood", [one * FLOOD], leave=leave, frames=FLOOD)

    def _half(self) -> Visit:
        """Stops inside a frame and stays."""
        whole = frame(BINARY, self._command() or b"x")
        cut = self.random.randrange(1, len(whole))
        return self._visit(
            "half", [whole[:cut]], leave=self.random.choice(("linger", "eof", "abort"))
        )

    def _handshake(self) -> Visit:
        """Openings that are no openings, whole or half, and frames before the answer."""
        random, good = self.random, upgrade(self.host)
        many = upgrade(self.host, *(f"X-{n}: 1" for n in range(130)))
        opening = random.choice(
            (
                many, upgrade(self.host, "X: " + "y" * 9000), upgrade(self.host, version="12"),
                good.replace(b"AAAA==", b"!"), good.replace(b"GET", b"POST"),
                good.replace(b"/live", b"/live" + b"?x" * 5000), random.randbytes(200),
                good.replace(b"Connection: Upgrade", b"Connection: close"), good[:-2],
                upgrade(self.host, protocol="other"), b"GET / HTTP/1.1\r\n" * 3,
            )
        )  # fmt: skip
        leave: Leave = "linger" if opening == good[:-2] else "abort"
        early = [frame(BINARY, self._command())] if random.random() < 0.5 else [b""]
        return Visit("handshake", opening, False, early, leave, handshake=False)

    def _crumbs(self) -> Visit:
        """Lawful and broken frames in pieces that no frame ends in."""
        whole = b"".join(self._some(lambda: frame(BINARY, self._mutant()[:200]), 10))
        cuts = sorted(self.random.randrange(len(whole)) for _ in range(20))
        pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
        return self._visit("crumbs", [piece for piece in pieces if piece])
