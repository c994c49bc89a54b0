"""One process of the buying crowd: listeners of the swarm who also press Buy, each at its instant.

Responsible for sending each press when it is due, for telling a buyer's own answer from what the
whole room gets, and for coming back with the same rid when the answer was no decision. It must
know only the wire. Latency counts from the instant at which the press was due: a crowd (or a
server) that is late does not make its own figures better.

    python -m loadtests.drop_swarm FD      as `swarm`, and the asks arm, pending, presses
"""

import contextlib
import heapq
import itertools
import random
import sys
import time
from array import array
from collections import Counter
from typing import Any, Final

import msgpack  # type: ignore[import-untyped]
from typing_extensions import override

from loadtests.client import REPLY, encode
from loadtests.frames import masked, unmasked
from loadtests.picture import BINARY, split
from loadtests.swarm import At, Crowd, Listener, serve

OWN: Final = (b"\x93\x00", b"\x93\x01")
"""How a reply and a refusal begin: an array of three, kind 0 or 1."""
UNDECIDED: Final = frozenset({"busy", "unavailable", "internal", "rate_limited"})
"""PROTOCOL.md, chapter 4: refusals that decide nothing."""
AGAIN_MS: Final = 500
"""Before coming back when the refusal does not say."""
FIRST_ID: Final = 2
"""A join is 1."""
ID_MAX: Final = 2**31 - 1
SEED: Final = 4


class Press:
    """One buyer's press, over all its attempts."""

    __slots__ = ("due", "id", "listener", "rid", "sent")

    def __init__(self, listener: Listener, rid: str, due: float) -> None:
        self.listener = listener
        self.rid = rid
        self.due = due
        self.sent = due
        self.id = FIRST_ID


class Buyers(Crowd):
    """A crowd of which some press Buy."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: dict[Listener, Press] = {}
        self._sends: list[tuple[float, int, Press, bytes]] = []
        self._sequence = itertools.count()
        self._params: dict[str, Any] = {}
        self._clear()

    def _clear(self) -> None:
        self.won: list[str] = []
        self.won_us = array("q")
        self.won_due = array("d")
        self.won_sent = array("d")
        self.lost_us = array("q")
        self.late_us = array("q")
        self.other: Counter[str] = Counter()
        self.undecided: Counter[str] = Counter()
        self.last = 0.0

    @override
    def answer(self, ask: dict[str, Any]) -> dict[str, Any]:
        """One answer; what is no business of buyers is the crowd's."""
        match ask["ask"]:
            case "arm":
                return self.arm(ask)
            case "pending":
                return {"pending": len(self._waiting)}
            case "presses":
                return self.presses()
        return super().answer(ask)

    def arm(self, ask: dict[str, Any]) -> dict[str, Any]:
        """The first `count` listeners press within `within_s` of `start` (monotonic seconds).

        `label` makes their rids; `drop` and `sku` say what of.
        """
        self._clear()
        chance = random.Random(f"{SEED}{ask['label']}")
        self._params = {"drop": ask["drop"], "lines": [[ask["sku"], 1]]}
        live = [listener for listener in self.listeners if listener.at is At.LIVE]
        for number, listener in enumerate(live[: ask["count"]]):
            due = ask["start"] + chance.uniform(0, ask["within_s"])
            press = Press(listener, f"{ask['label']}-{number:06d}", due)
            self._waiting[listener] = press
            self._send_at(due, press, retry=False)
        return {"armed": len(self._waiting)}

    def _send_at(self, at: float, press: Press, *, retry: bool) -> None:
        params = {"rid": press.rid, **self._params}
        if retry:
            params["retry"] = True
        frame = masked(encode(press.id, "buy", params))
        heapq.heappush(self._sends, (at, next(self._sequence), press, frame))

    @override
    def turn(self) -> float:
        """Press what is due, then what the crowd has to do; seconds until something is due."""
        sends, now = self._sends, time.monotonic()
        while sends and sends[0][0] <= now:
            _at, _number, press, frame = heapq.heappop(sends)
            if press.id == FIRST_ID:
                self.late_us.append(round((now - press.due) * 1e6))
                press.sent = now
            if press.listener.sock is not None:
                with contextlib.suppress(OSError):
                    press.listener.sock.send(frame)
            now = time.monotonic()
        wait = super().turn()
        return max(0.0, min(wait, sends[0][0] - time.monotonic())) if sends else wait

    @override
    def _take(self, listener: Listener, chunk: bytes) -> None:
        press = self._waiting.get(listener)
        if press is None or (not listener.rest and chunk in listener.picture.next):
            super()._take(listener, chunk)
            return
        data = listener.rest + chunk
        frames, taken = split(data)
        listener.rest = data[taken:]
        others = b""
        for opcode, payload in frames:
            if opcode == BINARY and payload[:2] in OWN:
                self._answered(press, payload)
            else:
                others += unmasked(opcode, payload)
        if others:
            self._apply(listener, self.gallery.step(listener.picture, others))

    def _answered(self, press: Press, payload: bytes) -> None:
        now = time.monotonic()
        kind, id_, body = msgpack.unpackb(payload, strict_map_key=False)
        if id_ != press.id:
            return
        if kind == REPLY:
            self.won.append(body["rid"])
            self.won_us.append(round((now - press.due) * 1e6))
            self.won_due.append(press.due)
            self.won_sent.append(press.sent)
        elif body["code"] in UNDECIDED:
            self.undecided[body["code"]] += 1
            press.id += 1
            wait_ms = body.get("retry_after_ms", AGAIN_MS)
            self._send_at(now + wait_ms / 1000, press, retry=True)
            return
        elif body["code"] == "sold_out":
            self.lost_us.append(round((now - press.due) * 1e6))
        else:
            self.other[body["code"]] += 1
        self.last = max(self.last, now)
        del self._waiting[press.listener]

    def presses(self) -> dict[str, Any]:
        """What became of them. Whoever has no answer by now presses no more."""
        unanswered = len(self._waiting)
        self._waiting.clear()
        self._sends.clear()
        return {
            "won": self.won,
            "won_us": self.won_us.tolist(),
            "won_due": self.won_due.tolist(),
            "won_sent": self.won_sent.tolist(),
            "lost_us": self.lost_us.tolist(),
            "late_us": self.late_us.tolist(),
            "other": dict(self.other),
            "undecided": dict(self.undecided),
            "unanswered": unanswered,
            "last": [self.last],
        }


if __name__ == "__main__":
    serve(int(sys.argv[1]), Buyers())
