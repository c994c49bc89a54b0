"""A bare connection to the engine: commands out, and each answer in the callback that read it.

Responsible for the bytes of one connection. It must not know what is asked, nor for whom:
`caller_redis` (a question and its answer) and `feed_redis` (a subscription) stand on it.

Why beside redis-py: after 16 ms of writing to 2,000 sockets every line of Python is cold. A publish
through redis-py (a pool, a lock, a task to write, a time limit per step, a stream to read) cost
0.75 ms of CPU until its answer was there, and here it costs 0.35; reading it back from the
subscription cost 0.13 ms and a turn of the event loop, and here 0.1 and none.

What redis-py does well it still does: it opens the connection (address, TLS, AUTH, SELECT, names),
and then its transport is taken over. For that two of its private names are used, `_reader` and
`_writer` of a connection; `test_link_redis` holds them, and the version is pinned.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, Self, TypeAlias, cast

import hiredis
from redis.asyncio import Redis
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    InvalidResponse,
    MasterDownError,
    MovedError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from typing_extensions import override

OPEN_TIMEOUT_S: Final = 3.0
"""For connecting and redis-py's handshake together."""

Argument: TypeAlias = str | bytes | int | float

_MORE: Final = object()
"""The reader has no whole answer."""

_ERRORS: Final[dict[str, type[RedisError]]] = {
    "ASK": AskError,
    "CLUSTERDOWN": ClusterDownError,
    "LOADING": BusyLoadingError,
    "MASTERDOWN": MasterDownError,
    "MOVED": MovedError,
    "NOAUTH": AuthenticationError,
    "NOSCRIPT": NoScriptError,
    "OOM": OutOfMemoryError,
    "READONLY": ReadOnlyError,
    "TRYAGAIN": TryAgainError,
}


def let_cancel_through() -> None:
    """Call after awaiting redis-py: it can swallow a cancellation that meets its own time limit.

    Seen in 2 of 24 shutdowns under load: the reader went on and the node never ended.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def packed(command: tuple[Argument, ...]) -> bytes:
    """A command as the engine reads it. Raises TypeError."""
    any_size: Any = command  # its stub says that a command has one word
    return cast("bytes", hiredis.pack_command(any_size))


def _error(text: str) -> RedisError:
    """The engine's refusal as redis-py would raise it."""
    word, _, rest = text.partition(" ")
    known = _ERRORS.get(word)
    return ResponseError(text) if known is None else known(rest)


class Link(asyncio.Protocol):
    """A connection that stands. Used on the event loop's thread only."""

    def __init__(
        self, on_answer: Callable[[Any], None], on_lost: Callable[[Exception], None]
    ) -> None:
        """`on_answer`: what the engine said, a RedisError if it refused; `on_lost`: once, the end.

        Neither may raise or wait. Bytes are not decoded.
        """
        self._on_answer = on_answer
        self._on_lost = on_lost
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=_error, notEnoughData=_MORE
        )
        self._transport: asyncio.Transport
        self._ended = False

    @classmethod
    async def open(
        cls,
        client: Redis,
        on_answer: Callable[[Any], None],
        on_lost: Callable[[Exception], None],
    ) -> Self:
        """Connect as `client` would. Raises RedisError, OSError, TimeoutError."""
        link = cls(on_answer, on_lost)
        pool: Any = client.connection_pool
        connection = pool.make_connection()
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await connection.connect()
            let_cancel_through()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        link._take(connection)
        return link

    def _take(self, connection: Any) -> None:
        # The writer is kept: some versions of asyncio close the transport when it is collected.
        self._writer: asyncio.StreamWriter = connection._writer
        connection._reader = connection._writer = None
        self._transport = self._writer.transport
        self._transport.set_protocol(self)
        self._transport.resume_reading()

    @property
    def closing(self) -> bool:
        """Nothing can be sent any more."""
        return self._ended or self._transport.is_closing()

    @property
    def buffered(self) -> int:
        """Bytes that the engine has not taken yet."""
        return self._transport.get_write_buffer_size()

    def send(self, command: bytes) -> None:
        """Send what `packed` made; never waits."""
        self._transport.write(command)

    def end(self) -> None:
        """Close at once; `on_lost` is not called any more."""
        if not self._ended:
            self._ended = True
            self._transport.abort()

    def fail(self, wrong: Exception) -> None:
        """Close at once and say why."""
        if not self._ended:
            self.end()
            self._on_lost(wrong)

    # The transport's callbacks.

    @override
    def data_received(self, data: bytes) -> None:
        reader = self._reader
        try:
            reader.feed(data)
            while not self._ended and (answer := reader.gets()) is not _MORE:
                self._on_answer(answer)
        except InvalidResponse as wrong:
            self.fail(wrong)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ended:
            self._ended = True
            self._on_lost(exc or RedisConnectionError("the engine closed the connection"))
