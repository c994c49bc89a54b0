"""One viewer: its commands in, its replies out, and its limits.

Responsible for chapters 2, 3 (order of a join), 7 (ingress limits) and 8 (closing) of PROTOCOL.md.
It must not know what a command means: the `Handler` answers, and raises `Rejected` to refuse.

Commands of one connection are handled one after another, so that replies keep their order and a
product never races with itself for one viewer. A task exists only while there are commands; an
idle viewer has none, and its whole state is this object (slots, no dict: 15,000 of them wait).
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from realtime.errors import (
    ALREADY_JOINED,
    BUSY,
    INTERNAL,
    NOT_JOINED,
    RATE_LIMITED,
    UNAVAILABLE,
    BrokerUnavailable,
    CloseCode,
    Rejected,
)
from realtime.rate_limit import TokenBucket
from realtime.room import Room
from realtime.socket import Socket
from realtime.wire import (
    Command,
    Position,
    decode_command,
    pack_direct,
    pack_failure,
    pack_reply,
)

if TYPE_CHECKING:
    from realtime.hub import Hub

log = logging.getLogger(__name__)

JOIN: Final = "join"
"""The command that has to come first, and only once."""
NO_TAGS: Final[frozenset[str]] = frozenset()
"""One for all: an empty frozenset of one's own is 216 bytes."""
EARLY_PUSHES_MAX: Final = 64
"""Direct pushes kept for a viewer whose join is being answered."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may do. The defaults are those of PROTOCOL.md."""

    join_timeout_ms: int = 10_000
    commands_per_s: int = 10
    commands_burst: int = 20
    backlog_max: int = 32
    """Commands waiting to be handled; of more, `busy`."""
    bad_frames_max: int = 8
    refusals_in_a_row_max: int = 100
    silent_beats_max: int = 3
    """Beats without a byte from the viewer: 60 s."""
    slow_beats_max: int = 3
    """Beats without reading everything: 60 s. The time budget of a slow viewer."""


Handler = Callable[["Connection", Command], Awaitable[object]]
"""Answers a command with a map or msgspec Struct. Raises Rejected to refuse it."""
Quick = Callable[["Connection", Command, Callable[[object], None]], bool]
"""May take a command without a task: False if it does not. Else it calls what it was given, once,
now or later, with the result or a Rejected. Raises Rejected to refuse it at once."""


class Connection:
    """One viewer on one socket. Make it before the WebSocket is accepted: nothing is missed."""

    __slots__ = (
        "_arrival",
        "_backlog",
        "_bad_frames",
        "_bucket",
        "_clock",
        "_commands",
        "_done",
        "_ended",
        "_handler",
        "_hub",
        "_leaving",
        "_limits",
        "_pressing",
        "_quick",
        "_refused",
        "_slow_beats",
        "_worker",
        "address",
        "context",
        "counted",
        "exempt",
        "id",
        "room",
        "socket",
        "tags",
        "viewer",
    )

    def __init__(
        self,
        socket: Socket,
        handler: Handler,
        hub: "Hub",
        *,
        clock: Callable[[], int],
        limits: Limits = Limits(),
        address: str = "",
        quick: Quick | None = None,
    ) -> None:
        self.id = hub.next_connection_id()
        self.address = address
        """Whose it is, behind proxies too; for the handler of `join`, which may forget it."""
        # Who it is. The handler sets these before `enter` and not after it.
        self.viewer: str | None = None
        self.tags: frozenset[str] = NO_TAGS
        self.counted = True
        """False for consoles and checks: not a viewer of the show."""
        self.exempt = False
        """True for hosts: no ingress limits."""
        self.context: object | None = None
        """The handler's own."""
        self.room: Room | None = None
        self.socket = socket
        self._handler = handler
        self._quick = quick
        self._pressing = False
        """A command that was taken without a task has no answer yet; others wait for it."""
        self._hub = hub
        self._clock = clock
        self._limits = limits
        self._bucket: TokenBucket | None = None
        """From the second command on: most viewers send `join` and nothing more."""
        self._commands = 0
        self._backlog: deque[Command] | None = None
        self._worker: asyncio.Task[None] | None = None
        self._arrival: list[bytes] | None = None
        """Between `enter` and the reply: what goes out right behind it."""
        self._bad_frames = 0
        self._refused = 0
        self._slow_beats = 0
        self._leaving = 0
        """The code with which it will be closed once the command under way is answered."""
        self._ended = False
        self._done: asyncio.Future[None] | None = None
        socket.listener = self

    # For the handler and the product.

    @property
    def joined(self) -> bool:
        """Whether it has joined a room."""
        return self.room is not None

    def enter(self, room: Room, position: Position | None) -> bool:
        """Become a member of `room`; whether it is exactly recovered from `position`.

        For the handler of `join`, after it has set who this is. The snapshot or what was missed
        goes out right behind the reply, then what happened meanwhile, then live pushes. If the
        command is refused after all, the membership is undone. Raises Rejected (already_joined).
        """
        if self.room is not None or self._ended:
            raise Rejected(ALREADY_JOINED, "This connection has joined a show already.")
        recovered, payload = room.enter(self, position)
        self.room = room
        self._arrival = [payload]
        return recovered

    def direct(self, name: str, value: object) -> None:
        """A push for this viewer alone."""
        self.push(pack_direct(name, value))

    def push(self, payload: bytes) -> None:
        """A direct push that is encoded already (several viewers may get the same)."""
        if self._arrival is None:
            self.socket.send(payload)
        elif len(self._arrival) <= EARLY_PUSHES_MAX:
            self._arrival.append(payload)
        else:
            self.close(CloseCode.FAILED)

    def close(self, code: int) -> None:
        """End it, with a close code that tells the client whether to come back."""
        if not self._ended:
            self._hub.counters.closed[int(code)] += 1
            self.socket.close(int(code))

    def leave(self, code: int) -> None:
        """Close it, but not before the command under way is answered; no other is begun."""
        self._leaving = code
        if self._worker is None and not self._pressing:
            self.close(code)

    @property
    def leaving(self) -> bool:
        """Whether it was told to leave."""
        return bool(self._leaving)

    def start(self) -> None:
        """Begin to live, without waiting for the end: the socket's callbacks do the rest."""
        if not self._ended:
            self._hub.add(self, join_timeout_ms=self._limits.join_timeout_ms)

    async def run(self) -> None:
        """Live until the socket has closed."""
        self.start()
        if not self._ended:
            self._done = asyncio.get_running_loop().create_future()
            await self._done

    # From the socket.

    def on_frame(self, data: bytes) -> None:
        """One message from the client."""
        try:
            command = decode_command(data)
        except Rejected as rejected:
            self._fail(0, rejected)
            self._bad_frames += 1
            if self._bad_frames >= self._limits.bad_frames_max:
                self.close(CloseCode.PROTOCOL)
            return
        wait = 0 if self.exempt else self._wait_ms()
        if not wait:
            self._refused = 0
            self._accept(command)
            return
        self._fail(command.id, Rejected(RATE_LIMITED, "Too fast.", retry_after_ms=wait))
        self._refused += 1
        if self._refused >= self._limits.refusals_in_a_row_max:
            self.close(CloseCode.FLOOD)

    def _wait_ms(self) -> int:
        """0: one more command may be sent now; else the time until one may."""
        if not self._commands:
            self._commands = 1
            return 0
        now, limits = self._clock(), self._limits
        if self._bucket is None:
            self._bucket = TokenBucket(limits.commands_per_s, limits.commands_burst, now)
            self._bucket.take(now)  # for the first command
        return 0 if self._bucket.take(now) else max(1, self._bucket.wait_ms())

    def on_text(self) -> None:
        """Our protocol has no text."""
        self.close(CloseCode.PROTOCOL)

    def on_drain(self) -> None:
        """It reads again."""
        self._slow_beats = 0
        if self.room is not None:
            self.room.drained(self)

    def on_closed(self) -> None:
        """The socket is gone."""
        self._ended = True
        self._hub.remove(self)
        if self.room is not None:
            self.room.leave(self)
            self.room = None
        if self._worker is not None:
            self._worker.cancel()
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    # From the wheel.

    def beat(self, frame: bytes) -> None:
        """Ping and beat, or the end of a viewer that is silent or does not read."""
        socket = self.socket
        if socket.congested:
            self._slow_beats += 1
            if self._slow_beats > self._limits.slow_beats_max:
                self._hub.counters.slow_ended += 1
                self._hub.counters.closed[int(CloseCode.SLOW)] += 1
                socket.abort()  # a close frame would wait behind what it does not read
            return
        if socket.quiet >= self._limits.silent_beats_max:
            self.close(CloseCode.SILENT)
            return
        socket.quiet += 1
        socket.write(frame)

    def join_expired(self) -> None:
        """No join within the deadline."""
        self.close(CloseCode.JOIN_TIMEOUT)

    # Commands, one after another.

    def _accept(self, command: Command) -> None:
        if self._backlog is None:
            if self._take_quickly(command):
                return
            self._backlog = deque()
        if self._leaving or len(self._backlog) >= self._limits.backlog_max:
            self._fail(command.id, Rejected(BUSY, "Too many at once.", retry_after_ms=1000))
            return
        self._backlog.append(command)
        if self._worker is None and not self._pressing:
            self._worker = asyncio.get_running_loop().create_task(self._work())

    def _take_quickly(self, command: Command) -> bool:
        """Whether it was taken. A task per press is a third of what the crowd of a drop costs."""
        quick = self._quick
        if quick is None or self.room is None or self._leaving:
            return False
        answered = False

        def done(answer: object) -> None:
            nonlocal answered
            answered = True
            self._tell(command, answer)
            if self._pressing:
                self._pressed()

        try:
            if not quick(self, command, done):
                return False
        except Rejected as rejected:
            done(rejected)
        except Exception:
            log.exception("command %s failed", command.name)
            done(Rejected(INTERNAL, "Something went wrong on our side."))
        if not answered:
            self._pressing = True
            self._hub.pressing += 1
            self._backlog = deque()
        return True

    def _tell(self, command: Command, answer: object) -> None:
        """Never raises: whoever answers a whole batch goes on with the next."""
        if isinstance(answer, Rejected):
            self._fail(command.id, answer)
            return
        try:
            reply = pack_reply(command.id, answer)
        except Exception:
            log.exception("the answer to command %s cannot be sent", command.name)
            self._fail(command.id, Rejected(INTERNAL, "Something went wrong on our side."))
            return
        if command.id:
            self.socket.send(reply)

    def _pressed(self) -> None:
        """The answer has come: on with what was sent meanwhile, or with leaving."""
        self._pressing = False
        self._hub.pressing -= 1
        if self._ended:
            return
        if self._backlog:
            self._worker = asyncio.get_running_loop().create_task(self._work())
            return
        self._backlog = None
        if self._leaving:
            self.close(self._leaving)

    async def _work(self) -> None:
        try:
            while self._backlog:
                command = self._backlog.popleft()
                if self._leaving:
                    self._fail(command.id, Rejected(BUSY, "Leaving.", retry_after_ms=1000))
                else:
                    await self._answer(command)
        finally:
            self._worker = None
            self._backlog = None
        if self._leaving:
            self.close(self._leaving)

    async def _answer(self, command: Command) -> None:
        try:
            self._check_turn(command)
            result = await self._handler(self, command)
            reply = pack_reply(command.id, result) if command.id else b""
        except Rejected as rejected:
            self._refuse(command, rejected)
        except BrokerUnavailable:
            late = Rejected(UNAVAILABLE, "Not available right now.", retry_after_ms=1000)
            self._refuse(command, late)
        except Exception:
            log.exception("command %s failed", command.name)
            self._refuse(command, Rejected(INTERNAL, "Something went wrong on our side."))
        else:
            self._reply(reply)

    def _check_turn(self, command: Command) -> None:
        if self.room is None and command.name != JOIN:
            raise Rejected(NOT_JOINED, "Join a show first.")
        if self.room is not None and command.name == JOIN:
            raise Rejected(ALREADY_JOINED, "This connection has joined a show already.")

    def _reply(self, reply: bytes) -> None:
        """The reply, and behind the reply of a join the room, in one frame."""
        if self._arrival is not None and self.room is not None:
            arrival, self._arrival = self._arrival, None
            room, *early = arrival
            reply = b"".join([reply, room, self.room.arrive(self), *early])
        if reply:
            self.socket.send(reply)

    def _refuse(self, command: Command, rejected: Rejected) -> None:
        if self._arrival is not None and self.room is not None:
            self.room.leave(self)
            self.room = None
            self._arrival = None
        self._fail(command.id, rejected)

    def _fail(self, id_: int, rejected: Rejected) -> None:
        self._hub.counters.failures[rejected.code] += 1
        try:
            payload = pack_failure(id_, rejected)
        except (TypeError, ValueError, OverflowError):  # details that cannot be encoded
            payload = pack_failure(id_, Rejected(rejected.code, rejected.message))
        self.socket.send(payload)
