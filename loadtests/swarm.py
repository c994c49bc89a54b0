"""One process of the swarm: thousands of listeners that join, read, count and answer pings.

Responsible for their sockets: the handshake, the join through the real wire, stalling, being cut,
coming back by position. What they know is `picture`, what a bench asks comes over a pipe. It must
know only the wire, like any stranger.

Raw sockets, one epoll and no coroutine per listener, because a listener must cost less than what it
measures: about 10 µs per frame, 3 µs of them the kernel's, against 30 of the leanest library.

    python -m loadtests.swarm FD       {"ask": name, …} in, one answer per line out

asks: join, totals, books, pictures, mark, latency, stall, resume, cut, leave.
"""

import contextlib
import heapq
import itertools
import os
import random
import select
import socket
import struct
import sys
import time
from collections import Counter, deque
from enum import IntEnum
from typing import Any, Final

from loadtests.client import (
    FAILURE,
    REPLY,
    BadServerFrame,
    backoff_ceiling_ms,
    encode,
    reconnects,
)
from loadtests.frames import PONG, REQUEST, masked, own_envelope, unmasked
from loadtests.picture import BINARY, CLOSE, PING, Gallery, Picture, Step, split
from loadtests.pipe import Pipe
from loadtests.vitals import raise_file_limit

READ_BYTES: Final = 65_536
READS_PER_TURN: Final = 512
HANDSHAKE_S: Final = 30.0
"""From connecting to being in the room; after that the listener tries again."""
IN_FLIGHT: Final = 64
"""Listeners of this process that are joining at once."""
HELD_UP: Final = 0.2
NICE: Final = 5
"""Where there are fewer cores than processes, neither the server nor a shopper whose answers are
measured is to wait for the listeners."""
AUTOGROUP: Final = "/proc/self/autogroup"
"""Linux shares the cores among sessions first, and each helper is a session of its own: a nice
process alone in its session gives way to nobody. This is the niceness of the session."""
HOLD_S: Final = 8.0
"""A join that is told to wait no longer than this waits on its connection: 10 s are its limit."""
BIN_US: Final = 100
RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: closing sends RST, as a connection that breaks does, and leaves no TIME_WAIT."""
IP_BIND_ADDRESS_NO_PORT: Final = 24
CUT: Final = 1006
BAD: Final = 1002
READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT


class At(IntEnum):
    """Where a listener is in its life."""

    WAITING = 0
    CONNECTING = 1
    SHAKING = 2
    JOINING = 3
    LIVE = 4
    GONE = 5


class Listener:
    """One viewer over all of its connections."""

    __slots__ = (
        "at",
        "attempt",
        "deadline",
        "params",
        "picture",
        "recorded",
        "rest",
        "sock",
        "stalled",
    )

    def __init__(self, params: dict[str, Any], picture: Picture) -> None:
        self.params = params
        self.picture = picture
        self.at = At.WAITING
        self.sock: socket.socket | None = None
        self.rest = b""
        self.attempt = 0
        self.deadline = 0.0
        self.stalled = False
        self.recorded = True


class Crowd:
    """All listeners of this process."""

    def __init__(self) -> None:
        self.gallery = Gallery()
        self.listeners: list[Listener] = []
        self.poll = select.epoll()
        self._by_fd: dict[int, Listener] = {}
        self._due: list[tuple[float, int, Listener]] = []
        self._order = itertools.count()
        self._joining: set[Listener] = set()
        self._recording = False
        self._random = random.Random(0)
        self._address = ("", 0)
        self._source = "127.0.0.2"
        self._request = b""
        self._rcvbuf = 0
        self._returns = False
        self._in_flight = IN_FLIGHT
        self.joins = self.recovered = self.lost = self.bad = 0
        self.closes: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    # Joining.

    def start(self, ask: dict[str, Any]) -> None:
        """Listeners to come: joins (params of each), port, source, path, rcvbuf, returns."""
        self._address = ("127.0.0.1", ask["port"])
        self._source = ask["source"]
        host = f"127.0.0.1:{ask['port']}"
        self._request = REQUEST.format(path=ask.get("path", "/live"), host=host).encode()
        self._rcvbuf = ask.get("rcvbuf", 0)
        self._returns = ask.get("returns", False)
        self._in_flight = ask.get("in_flight", IN_FLIGHT)
        for params in ask["joins"]:
            listener = Listener(params, self.gallery.empty)
            self.listeners.append(listener)
            self._later(listener, 0.0)

    def _later(self, listener: Listener, after_s: float) -> None:
        listener.at = At.WAITING
        self._joining.discard(listener)
        heapq.heappush(self._due, (time.monotonic() + after_s, next(self._order), listener))

    def turn(self) -> float:
        """Start who is due, give up on who takes too long; seconds until somebody is due."""
        now = time.monotonic()
        while self._due and self._due[0][0] <= now and len(self._joining) < self._in_flight:
            listener = heapq.heappop(self._due)[2]
            if listener.at is At.WAITING and listener.sock is None:
                self._connect(listener, now)
            elif listener.at is At.WAITING and listener.sock is not None:
                listener.at = At.JOINING
                listener.deadline = now + HANDSHAKE_S
                self._joining.add(listener)
                self._ask_to_join(listener, listener.sock)
        for late in [one for one in self._joining if one.deadline < now]:
            self._end(late, CUT)
        if self._due and len(self._joining) < self._in_flight:
            return max(0.0, min(HELD_UP, self._due[0][0] - now))
        return HELD_UP

    def _connect(self, listener: Listener, now: float) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        if self._rcvbuf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._rcvbuf)
        sock.bind((self._source, 0))
        listener.sock, listener.rest = sock, b""
        listener.at = At.CONNECTING
        listener.deadline = now + HANDSHAKE_S
        self._joining.add(listener)
        self._by_fd[sock.fileno()] = listener
        with contextlib.suppress(BlockingIOError):
            sock.connect(self._address)
        self.poll.register(sock.fileno(), WRITE)

    def _connected(self, listener: Listener, sock: socket.socket) -> None:
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._end(listener, CUT)
            return
        listener.at = At.SHAKING
        self.poll.modify(sock.fileno(), READ)
        sock.send(self._request)

    def _shaken(self, listener: Listener, sock: socket.socket) -> None:
        head, found, rest = listener.rest.partition(b"\r\n\r\n")
        if not found:
            return
        if not head.startswith(b"HTTP/1.1 101"):
            self.refused[head[9:12].decode(errors="replace")] += 1
            self._end(listener, CUT)
            return
        listener.rest = rest
        listener.at = At.JOINING
        self._ask_to_join(listener, sock)
        if rest:
            self._join_answer(listener)

    def _ask_to_join(self, listener: Listener, sock: socket.socket) -> None:
        params = listener.params
        if listener.picture.position is not None:
            params = {**params, "position": listener.picture.position}
        sock.send(masked(encode(1, "join", params)))

    def _join_answer(self, listener: Listener) -> None:
        """The reply is this listener's own, what stands behind it in the frame is everybody's."""
        frames, taken = split(listener.rest)
        listener.rest = listener.rest[taken:]
        for number, (opcode, payload) in enumerate(frames):
            if listener.at is At.LIVE:
                behind = b"".join(unmasked(opcode, data) for opcode, data in frames[number:])
                self._apply(listener, self.gallery.step(listener.picture, behind))
                return
            if opcode == BINARY:
                self._first(listener, payload)
            elif opcode == PING and listener.sock is not None:
                listener.sock.send(PONG)
            elif opcode == CLOSE:
                self._end(listener, int.from_bytes(payload[:2], "big") or CUT)
                return

    def _first(self, listener: Listener, payload: bytes) -> None:
        kind, body, size = own_envelope(payload)
        if kind == FAILURE:
            self.refused[body["code"]] += 1
            wait_s = body.get("retry_after_ms", 0) / 1000
            if self._returns and 0 < wait_s <= HOLD_S:
                self._later(listener, wait_s)  # the same connection asks again
            else:
                self._end(listener, CUT, after_s=wait_s)
            return
        if kind != REPLY:
            return  # a beat, or a goodbye
        listener.at = At.LIVE
        listener.attempt = 0
        self._joining.discard(listener)
        self.joins += 1
        self.recovered += bool(body["recovered"])
        if size < len(payload):
            step = self.gallery.step(listener.picture, payload[size:], payload=True)
            self._apply(listener, step)

    # Reading.

    def ready(self, fd: int) -> None:
        """A socket has something."""
        listener = self._by_fd.get(fd)
        if listener is None or listener.sock is None:
            return
        try:
            self._read(listener, listener.sock)
        except BadServerFrame:
            self.bad += 1
            self._end(listener, BAD)

    def _read(self, listener: Listener, sock: socket.socket) -> None:
        try:
            if listener.at is At.CONNECTING:
                self._connected(listener, sock)
                return
            chunk = sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self._end(listener, CUT)
        elif listener.at is At.LIVE:
            self._take(listener, chunk)
        else:
            listener.rest += chunk
            if listener.at is At.SHAKING:
                self._shaken(listener, sock)
            else:
                self._join_answer(listener)

    def _take(self, listener: Listener, chunk: bytes) -> None:
        if not listener.rest:
            step = listener.picture.next.get(chunk)
            if step is not None:  # the way of nearly all bytes
                self._apply(listener, step)
                return
        data = listener.rest + chunk
        frames, taken = split(data)
        listener.rest = data[taken:]
        if not frames:
            return
        self._apply(listener, self.gallery.step(listener.picture, data[:taken]))

    def _apply(self, listener: Listener, step: Step) -> None:
        listener.picture = step.to
        tally = step.tally
        tally.hits += 1
        if self._recording and listener.recorded:
            tally.arrivals.append(time.monotonic_ns() // 1000)
        if step.special:
            self._special(listener, step)

    def _special(self, listener: Listener, step: Step) -> None:
        if step.close is not None:
            self._end(listener, step.close)
        elif step.tally.pings and listener.sock is not None:
            with contextlib.suppress(OSError):
                listener.sock.send(PONG * step.tally.pings)

    # Leaving.

    def _end(self, listener: Listener, code: int, *, after_s: float | None = None) -> None:
        """The connection is over; come back if that is asked for and the code allows it."""
        was_live = listener.at is At.LIVE
        self._drop(listener)
        self.closes[str(code)] += 1
        self.lost += was_live
        if self._returns and reconnects(code):
            ceiling = backoff_ceiling_ms(listener.attempt) / 1000
            wait = self._random.uniform(0, ceiling) if after_s is None else after_s
            listener.attempt += 1
            self._later(listener, wait)

    def _drop(self, listener: Listener) -> None:
        sock, listener.sock = listener.sock, None
        if sock is not None:
            if not listener.stalled:
                self.poll.unregister(sock.fileno())
            del self._by_fd[sock.fileno()]
            sock.close()
        self._joining.discard(listener)
        listener.stalled = False
        listener.at = At.GONE

    # What a bench asks.

    def answer(self, ask: dict[str, Any]) -> dict[str, Any]:
        """One answer."""
        match ask["ask"]:
            case "join":
                self.start(ask)
            case "totals":
                return self.totals()
            case "books":
                return self.books(whole=ask.get("whole", False))
            case "pictures":
                return {"pictures": self.pictures(ask.get("skip", 0))}
            case "mark":
                self.mark(record=ask.get("record", False), skip=ask.get("skip", 0))
            case "latency":
                return self.latency()
            case "stall":
                return {"stalled": self.stall(ask["count"])}
            case "resume":
                self.resume()
            case "cut":
                return {"newcomers": self.cut(ask.get("spread_s"), ask.get("newcomers", 0.0))}
            case "leave":
                self.leave()
            case other:
                raise ValueError(f"unknown: {other}")
        return {}

    def totals(self) -> dict[str, Any]:
        """Where the listeners are."""
        where = Counter(listener.at for listener in self.listeners)
        return {
            "live": where[At.LIVE],
            "gone": where[At.GONE],
            "joins": self.joins,
            "recovered": self.recovered,
            "lost": self.lost,
            "bad": self.bad,
            "closes": dict(self.closes),
            "refused": dict(self.refused),
        }

    def books(self, *, whole: bool) -> dict[str, Any]:
        """What was received since the mark, or ever, counted for each listener that got it."""
        names = (
            "size", "frames", "control", "states", "chat", "skipped", "duplicates",
            "missing_control", "missing_chat", "snapshots", "pings", "other",
        )  # fmt: skip
        found = dict.fromkeys(names, 0)
        for tally in self.gallery.tallies:
            hits = tally.hits - (0 if whole else tally.marked)
            if hits:
                for name in names:
                    found[name] += hits * getattr(tally, name)
        return found

    def pictures(self, skip: int) -> dict[str, int]:
        """How many live listeners hold which room."""
        pictures = [one.picture for one in self.listeners[skip:] if one.at is At.LIVE]
        return dict(Counter(f"{p.epoch}/{p.control}/{p.chat}/{p.digest}" for p in pictures))

    def mark(self, *, record: bool, skip: int) -> None:
        """A phase begins. With `record` arrivals are kept, except of the first `skip` listeners."""
        self._recording = record
        for tally in self.gallery.tallies:
            tally.marked = tally.hits
            del tally.arrivals[:]
        for number, listener in enumerate(self.listeners):
            listener.recorded = number >= skip

    def latency(self) -> dict[str, Any]:
        """By lane: how often which latency (bins of 100 µs); of pins: first and last arrival."""
        lanes: dict[str, Counter[str]] = {}
        pins: list[list[int]] = []
        for tally in self.gallery.tallies:
            if not tally.arrivals or not tally.events:
                continue
            bins = Counter(at // BIN_US for at in tally.arrivals)
            for lane, offset, sent_us in tally.events:
                into = lanes.setdefault(lane, Counter())
                for at, times in bins.items():
                    into[str(max(0, at - sent_us // BIN_US))] += times
                if lane == "control":
                    pins.append([offset, min(tally.arrivals), max(tally.arrivals)])
        return {**{lane: dict(found) for lane, found in lanes.items()}, "pins": pins}

    def stall(self, count: int) -> int:
        """The first `count` listeners stop reading."""
        for listener in self.listeners[:count]:
            if listener.sock is not None and not listener.stalled:
                self.poll.unregister(listener.sock.fileno())
                listener.stalled = True
        return sum(listener.stalled for listener in self.listeners)

    def resume(self) -> None:
        """All read again."""
        for listener in self.listeners:
            if listener.stalled and listener.sock is not None:
                listener.stalled = False
                self.poll.register(listener.sock.fileno(), READ)

    def cut(self, spread_s: float | None, newcomers: float) -> int:
        """Break all connections at once; with `spread_s` each comes back within that time.

        A share of `newcomers` has forgotten everything; how many.
        """
        forget = round(len(self.listeners) * newcomers)
        for number, listener in enumerate(self.listeners):
            self._drop(listener)
            if number < forget:
                listener.picture = self.gallery.empty
            if spread_s is not None:
                self._later(listener, self._random.uniform(0, spread_s))
        return forget

    def leave(self) -> None:
        """Be gone for good, and forget everything."""
        self._returns = False
        for listener in self.listeners:
            self._drop(listener)
        self.listeners.clear()
        self._due.clear()
        self.gallery = Gallery()


def step_back() -> None:
    """Let the others go first."""
    os.nice(NICE)
    with contextlib.suppress(OSError), open(AUTOGROUP, "w", encoding="ascii") as file:
        file.write(str(NICE))


def serve(fd: int, crowd: Crowd) -> None:
    """Until the pipe ends."""
    raise_file_limit()
    step_back()
    pipe = Pipe(fd)
    crowd.poll.register(fd, READ)
    pipe.say({})
    waiting: deque[dict[str, Any]] = deque()
    while True:
        wait = crowd.turn()
        for ready, _events in crowd.poll.poll(wait, READS_PER_TURN):
            if ready == fd:
                asks = pipe.asks()
                if asks is None:
                    return
                waiting.extend(asks)
            else:
                crowd.ready(ready)
        while waiting:
            ask = waiting.popleft()
            try:
                answer = crowd.answer(ask)
            except Exception as wrong:  # noqa: BLE001 - the bench is told, and ends us
                answer = {"error": f"{type(wrong).__name__}: {wrong}"}
            pipe.say(answer)


if __name__ == "__main__":
    serve(int(sys.argv[1]), Crowd())
