"""A viewer or a host as a coroutine: joins, speaks, buys, waits, gets cut off, comes back.

Responsible for the socket (the `websockets` package) and for deadlines around `client.Session`,
which knows the wire. Drills, benches and tests are written with it. It does not reconnect by
itself: when a connection is cut and when it comes back is what drills decide.
"""

import asyncio
import random
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from loadtests.client import FAILURE, REPLY, SUBPROTOCOL, BadServerFrame, Room, Session, new_rid
from loadtests.refused import ConnectionLost, Refused, TooLate

TIMEOUT_S: Final = 30.0
CLOSE_S: Final = 2.0
LOST: Final = 1006
FRAME_BYTES_MAX: Final = 16 * 1024 * 1024
"""A snapshot of a busy room; the default of the package (1 MiB) is meant for chat."""
QUEUE_FRAMES: Final = 64


def wall_ms() -> int:
    """Milliseconds since 1970 by this machine's clock."""
    return time.time_ns() // 1_000_000


class Shopper:
    """One viewer of one show. `url` is the server's http address.

    `on_change(key, version, value)` hears every state this viewer shows, in the order shown.
    """

    def __init__(
        self,
        url: str,
        show: str,
        token: str,
        *,
        on_change: Callable[[str, int, Any], None] | None = None,
        clock: Callable[[], int] = wall_ms,
        random_: random.Random | None = None,
    ) -> None:
        scheme, _, rest = url.rstrip("/").partition("://")
        self.address = f"{'wss' if scheme == 'https' else 'ws'}://{rest}/live"
        self.session = Session(show, token)
        self.close_code: int | None = None
        self.undecided: set[str] = set()
        """Presses of Buy that have no answer yet; asked about at the next join."""
        self._on_change = on_change
        self._clock = clock
        self._random = random_ or random.Random()
        self._socket: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._news = asyncio.Event()

    @property
    def room(self) -> Room:
        """What this viewer knows of the show."""
        return self.session.room

    async def __aenter__(self) -> Self:
        await self.join()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def connect(self) -> None:
        """Open the socket without joining. Raises `ConnectionLost`, OSError, TimeoutError."""
        try:
            self._socket = await connect(
                self.address,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                compression=None,
                proxy=None,
                max_size=FRAME_BYTES_MAX,
                max_queue=QUEUE_FRAMES,
                ping_interval=None,
                open_timeout=TIMEOUT_S,
                close_timeout=CLOSE_S,
            )
        except InvalidHandshake:  # the server died in the middle of it, or would not have us
            raise ConnectionLost(LOST) from None
        self.close_code = None
        self._reader = asyncio.create_task(self._read(self._socket), name="shopper reads")

    async def join(self) -> dict[str, Any]:
        """Connect and join, from the position reached if there is one. The reply to `join`.

        Returns when the room is there. Raises `Refused`, `ConnectionLost`, `TooLate`.
        """
        await self.connect()
        known = self.room.snapshots
        reply: dict[str, Any] = await self.command(
            "join", **self.session.join_params(sorted(self.undecided))
        )
        self.undecided -= {hold["rid"] for hold in reply["decided"]}
        if not reply["recovered"]:
            await self.wait_for(lambda: self.room.snapshots > known, what="a snapshot")
        return reply

    async def command(self, name: str, /, timeout_s: float = TIMEOUT_S, **params: Any) -> Any:
        """The result of a command. Raises `Refused`, `ConnectionLost`, `TooLate`."""
        id_, frame = self.session.command(name, params)
        return await self.ask(frame, id_, what=name, timeout_s=timeout_s)

    async def ask(
        self, frame: bytes, id_: int = 0, *, what: str = "a frame", timeout_s: float = TIMEOUT_S
    ) -> Any:
        """Send any bytes and wait for the answer with this id (0: to what was no command)."""
        if self._socket is None or self.close_code is not None:
            raise ConnectionLost(self.close_code or LOST)
        answer = asyncio.get_running_loop().create_future()
        self._pending[id_] = answer
        try:
            async with asyncio.timeout(timeout_s):
                await self._socket.send(frame)
                return await answer
        except TimeoutError:
            raise TooLate(f"no answer to {what} within {timeout_s:g} s") from None
        except ConnectionClosed as closed:
            raise ConnectionLost(_code(closed)) from None
        finally:
            self._pending.pop(id_, None)
            if answer.done() and not answer.cancelled():
                answer.exception()  # the connection was lost while sending: told once is enough

    async def comment(self, text: str) -> int:
        """Say something; its chat offset. Raises as `command`."""
        rid = new_rid(self._clock(), self._random)
        return int((await self.command("comment", text=text, rid=rid))["offset"])

    async def buy(
        self, drop: str, lines: list[tuple[str, int]], *, rid: str = "", **more: Any
    ) -> dict[str, Any]:
        """Press Buy; the hold. Raises as `command`; without an answer the press is undecided."""
        rid = rid or new_rid(self._clock(), self._random)
        self.undecided.add(rid)
        listed = [list(line) for line in lines]
        try:
            hold: dict[str, Any] = await self.command(
                "buy", rid=rid, drop=drop, lines=listed, **more
            )
        except Refused:
            self.undecided.discard(rid)
            raise
        self.undecided.discard(rid)
        return hold

    async def wait_for(
        self, true: Callable[[], bool], *, what: str, timeout_s: float = TIMEOUT_S
    ) -> None:
        """Until the condition holds; it is asked again after each frame. Raises `TooLate`."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    news = self._news
                    if true():
                        return
                    await news.wait()
        except TimeoutError:
            raise TooLate(f"{what}: not within {timeout_s:g} s") from None

    async def cut(self) -> None:
        """Lose the connection as a tunnel does: no close frame in either direction."""
        if self._socket is not None:
            self._socket.transport.abort()
        await self._ended()

    async def aclose(self) -> None:
        """As `close`, for `contextlib.aclosing`: leave even when joining failed."""
        await self.close()

    async def close(self) -> None:
        """Leave properly. Harmless when the connection is gone."""
        if self._socket is not None:
            await self._socket.close()
        await self._ended()

    async def _ended(self) -> None:
        reader, self._reader, self._socket = self._reader, None, None
        if reader is not None:
            await reader

    async def _read(self, socket: ClientConnection) -> None:
        try:
            while True:
                frame = await socket.recv()
                if isinstance(frame, str):
                    raise BadServerFrame("text")
                self._take(frame)
        except ConnectionClosed as closed:
            self._lost(_code(closed))
        except BadServerFrame:
            socket.transport.abort()
            self._lost(1002)
            raise

    def _lost(self, code: int) -> None:
        self.close_code = code
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(ConnectionLost(code))
        self._tell()

    def _take(self, frame: bytes) -> None:
        before = dict(self.room.states) if self._on_change else {}
        for envelope in self.session.receive(frame):
            if envelope[0] in (REPLY, FAILURE):
                self._answer(*envelope[:3])
        if self._on_change:
            for key, (version, value) in self.room.states.items():
                if before.get(key) != (version, value):
                    self._on_change(key, version, value)
        self._tell()

    def _answer(self, kind: int, id_: int, body: dict[str, Any]) -> None:
        answer = self._pending.get(id_)
        if answer is None or answer.done():
            return
        if kind == REPLY:
            answer.set_result(body)
        else:
            answer.set_exception(
                Refused(
                    body["code"],
                    body["message"],
                    retry_after_ms=body.get("retry_after_ms"),
                    details=body.get("details"),
                )
            )

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


class Host(Shopper):
    """A console: takes it over and numbers its actions."""

    fence = 0
    _n = 0

    async def take_console(self) -> None:
        """Become the show's console. Raises as `command`."""
        answer = await self.command("take_console")
        self.fence, self._n = answer["fence"], answer["n"]

    async def act(self, name: str, **params: Any) -> dict[str, Any]:
        """One host command with its place in the order. Raises as `command`."""
        self._n += 1
        result: dict[str, Any] = await self.command(name, fence=self.fence, n=self._n, **params)
        return result


def _code(closed: ConnectionClosed) -> int:
    return closed.rcvd.code if closed.rcvd is not None else LOST
