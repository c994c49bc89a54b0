"""A Locust user on our wire. Locust ships none: its own WebSocket client speaks Socket.IO only.

Responsible for the connection under gevent (`websocket-client`, one greenlet that reads), for
commands with a deadline, for coming back by the rule of PROTOCOL.md chapter 8, and for telling
Locust what it measured: commands as `LIVE`, delays of pushes as `PUSH`, what a viewer should never
see as `CHECK`. It knows the wire through `client` only. What people do is in `locustfile`.
"""

import itertools
import random
import time
from typing import Any, Final

import gevent  # type: ignore[import-untyped]
import websocket
from gevent.event import AsyncResult, Event  # type: ignore[import-untyped]
from locust import HttpUser
from locust.exception import StopUser
from typing_extensions import override

from loadtests import client as wire
from loadtests.client import (
    SUBPROTOCOL,
    BadServerFrame,
    Envelope,
    Session,
    backoff_ceiling_ms,
    new_rid,
    reconnects,
)
from loadtests.crowd_truth import CrowdTruth
from loadtests.refused import ConnectionLost, Refused, TooLate

TIMEOUT_S: Final = 10.0
CHECK_S: Final = 5.0
PUSH_REPORTERS: Final = 20
"""So many users' worth of pushes are reported, chosen at random: 200 viewers hear 1,000 comments a
second, and Locust has one core for itself and all of its users."""
DRAIN: Final = 4000
LOST: Final = 1006
CLOSE_FRAME: Final = 8
TRUTH: Final = CrowdTruth()

_numbers = itertools.count(1)


class LiveUser(HttpUser):
    """A viewer who is connected for as long as the user lives."""

    abstract = True

    @override
    def on_start(self) -> None:
        """Become a guest, connect, join."""
        self.random = random.Random()
        self.session = Session(self.show(), self._guest())
        self.undecided: set[str] = set()
        self._pending: dict[int, AsyncResult] = {}
        self._offset_ms = 0.0
        self._missing_before = 0
        self._leaving = Event()
        self._socket: websocket.WebSocket | None = None
        self._joined = Event()
        self._keeper = gevent.spawn(self._keep)
        self._checker = gevent.spawn(self._check_for_ever)
        self._joined.wait(TIMEOUT_S)

    @override
    def on_stop(self) -> None:
        """Look once more, then leave."""
        self._leaving.set()
        self._checker.kill()
        if self.joined:
            self.check()
        if self._socket is not None:
            self._socket.close(timeout=1)
        self._keeper.join(timeout=2)
        self._keeper.kill()

    @property
    def joined(self) -> bool:
        """Whether commands can be sent at this moment."""
        return bool(self._joined.is_set())

    def show(self) -> str:
        """The show of --show, else the newest that is live."""
        options = self.environment.parsed_options
        chosen = str(getattr(options, "show", "") or "")
        if chosen:
            return chosen
        shows = self.client.get("/api/v1/shows").json()["shows"]
        live = [show["id"] for show in shows if show["state"] == "live"]
        if not live:
            self.fire("LIVE", "join", 0, Refused("show_not_live", "no live show; give --show"))
            raise StopUser
        return str(live[0])

    def command(self, name: str, answers: frozenset[str] = frozenset(), **params: Any) -> Any:
        """The result of a command, or the code of a refusal that is among `answers`.

        Reported to Locust under its name (and outcome, for commands that have several). None when
        it failed; the failure is reported then.
        """
        started = time.perf_counter()
        outcome = ""
        error: Exception | None = None
        result: Any = None
        try:
            result = self.ask(name, params)
            if answers:
                outcome = " " + str(result.get("state", "done"))
        except Refused as refused:
            if refused.code in answers:
                outcome, result = " " + refused.code, refused.code
            else:
                error = refused
        except (ConnectionLost, TooLate) as lost:
            error = lost
        self.fire("LIVE", name + outcome, (time.perf_counter() - started) * 1000, error)
        return result

    def ask(self, name: str, params: dict[str, Any]) -> Any:
        """The result of a command. Raises `Refused`, `ConnectionLost`, `TooLate`."""
        if self._socket is None:
            raise ConnectionLost(LOST)
        id_, frame = self.session.command(name, params)
        answer = AsyncResult()
        self._pending[id_] = answer
        try:
            self._socket.send_binary(frame)
            return answer.get(timeout=TIMEOUT_S)
        except gevent.Timeout:
            raise TooLate(f"no answer to {name} within {TIMEOUT_S:g} s") from None
        except (OSError, websocket.WebSocketException):
            raise ConnectionLost(LOST) from None
        finally:
            self._pending.pop(id_, None)

    def tell(self, name: str, **params: Any) -> None:
        """A command that wants no reply."""
        if self._socket is not None:
            try:
                self._socket.send_binary(self.session.command(name, params, reply=False)[1])
            except (OSError, websocket.WebSocketException):
                return  # the reader hears of it as well
            self.fire("LIVE", name, 0)

    def new_rid(self) -> str:
        """For a comment or a press of Buy."""
        return new_rid(int(_now_ms()), self.random)

    def fire(self, kind: str, name: str, ms: float, error: Exception | None = None) -> None:
        """One row for Locust."""
        self.environment.events.request.fire(
            request_type=kind,
            name=name,
            response_time=max(0.0, ms),
            response_length=0,
            exception=error,
            context={},
        )

    def _guest(self) -> str:
        answer = self.client.post("/api/v1/guests", json={"name": f"Crowd {next(_numbers)}"})
        if answer.status_code != 201:
            raise StopUser  # Locust has counted the failure
        return str(answer.json()["token"])

    def _keep(self) -> None:
        """Connect, read until it ends, come back if the close code says so."""
        attempt = 0
        while not self._leaving.is_set():
            joins = self.session.room.snapshots
            code = self._one_connection()
            self._joined.clear()
            self._socket = None
            for answer in list(self._pending.values()):
                answer.set_exception(ConnectionLost(code))
            if self._leaving.is_set():
                return
            if code != DRAIN:
                self.fire("LIVE", "connection", 0, ConnectionLost(code))
            if not reconnects(code):
                return
            attempt = 0 if self.session.room.snapshots > joins else attempt + 1
            self._leaving.wait(self.random.uniform(0, backoff_ceiling_ms(attempt)) / 1000)

    def _one_connection(self) -> int:
        """Its close code."""
        try:
            self._socket = websocket.create_connection(
                _address(self.host or ""),
                timeout=TIMEOUT_S,
                subprotocols=[SUBPROTOCOL],
                enable_multithread=True,
                skip_utf8_validation=True,
            )
            self._socket.settimeout(None)
            joiner = gevent.spawn(self._join)
            try:
                return self._read(self._socket)
            finally:
                joiner.kill()
        except BadServerFrame:
            return 1002
        except (OSError, websocket.WebSocketException):
            return LOST

    def _join(self) -> None:
        known = self.command("join", **self.session.join_params(sorted(self.undecided)))
        if known is None:
            return
        self.undecided -= {hold["rid"] for hold in known["decided"]}
        started = _now_ms()
        told = self.command("ping")
        if told is not None:
            self._offset_ms = told["now_ms"] - (started + _now_ms()) / 2
            self._joined.set()

    def _read(self, socket: websocket.WebSocket) -> int:
        while True:
            opcode, data = socket.recv_data()
            if opcode == CLOSE_FRAME:
                return int.from_bytes(data[:2], "big") if len(data) >= 2 else 1005
            if opcode == websocket.ABNF.OPCODE_BINARY:
                for envelope in self.session.receive(data):
                    self._heed(envelope)

    def _heed(self, envelope: Envelope) -> None:
        match envelope[0]:
            case wire.REPLY | wire.FAILURE:
                self._answer(*envelope[:3])
            case wire.STATE:
                self._see(envelope[1], envelope[2], envelope[3])
            case wire.CHAT:
                self._delay("comment", envelope[2]["at"])
            case wire.CONTROL if envelope[2] == "announcement" and envelope[3] is not None:
                self._delay("announcement", envelope[3]["at"])
            case wire.BEAT:
                self._delay("beat", envelope[1])
            case wire.SNAPSHOT:
                for key, (version, value) in envelope[1]["states"].items():
                    self._see(key, version, value)

    def _answer(self, kind: int, id_: int, body: dict[str, Any]) -> None:
        answer = self._pending.get(id_)
        if answer is None:
            return
        if kind == wire.REPLY:
            answer.set(body)
        else:
            answer.set_exception(Refused(body["code"], body["message"]))

    def _see(self, key: str, version: int, value: Any) -> None:
        epoch = self.session.room.epoch or ""
        wrong = TRUTH.see(epoch, key, version, value, time.monotonic())
        if wrong:
            self.fire("CHECK", "stock", 0, AssertionError(wrong))

    def _delay(self, name: str, at_ms: int) -> None:
        """Before the clocks are compared (just after a join) nothing can be said."""
        users = max(1, self.environment.runner.user_count if self.environment.runner else 1)
        if self.joined and self.random.random() < PUSH_REPORTERS / users:
            self.fire("PUSH", name, _now_ms() + self._offset_ms - at_ms)

    def _check_for_ever(self) -> None:
        while True:
            gevent.sleep(CHECK_S)
            if self.joined:
                self.check()

    def check(self) -> None:
        """What a viewer should never see, as Locust requests that fail."""
        room = self.session.room
        # A marker may still be on its way, so comments are missing when they were missing before.
        gaps = room.missing_control + min(room.missing_comments, self._missing_before)
        self._missing_before = room.missing_comments
        stale = TRUTH.stale(room.epoch or "", room.states, time.monotonic())
        for name, wrong in (
            ("gaps", f"{gaps} entries missing" if gaps else ""),
            ("duplicates", f"{room.duplicates} entries twice" if room.duplicates else ""),
            ("newest", stale),
            ("stock", ""),
        ):
            self.fire("CHECK", name, 0, AssertionError(wrong) if wrong else None)


def _address(host: str) -> str:
    scheme, _, rest = host.rstrip("/").partition("://")
    return f"{'wss' if scheme == 'https' else 'ws'}://{rest}/live"


def _now_ms() -> float:
    return time.time() * 1000
