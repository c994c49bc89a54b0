"""Commands to one engine over one connection of their own, pipelined and answered in order.

Responsible for which answer is whose, for time limits, and for connecting when there is something
to say. It must not know rooms, scripts' arguments or slots.

One connection, because what is sent first is then done first, also if who sent it has given up; a
pool could let a later publish overtake one that was cancelled. A caller costs one future: no task,
no lock, no timer. All time limits are equal, so one timer for the oldest is enough.

Nothing is sent twice. When the connection is lost, all that is under way fails, and may have been
done or not; the next command connects anew, and those who waited for an attempt that failed share
its failure instead of trying one after another.
"""

import asyncio
import hashlib
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, Protocol

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from realtime.link_redis import Argument, Link, packed

WAITING_MAX: Final = 4_096
"""Commands under way: one publish for each of a node's rooms, and as many again."""
UNSENT_BYTES_MAX: Final = 32 * 1024 * 1024
"""Bytes that the engine has not taken. Four publishes of the largest kind."""


class Overloaded(RedisError):
    """Too much is under way; nothing was sent."""


class Caller:
    """Commands to the engine of a client. Connects on first use."""

    def __init__(self, client: Redis) -> None:
        """`client` says where, how to connect and how long to wait; its pool is not used."""
        self._client = client
        pool: Any = client.connection_pool
        self._answer_s: float = pool.connection_kwargs["socket_timeout"]
        self._link: Link | None = None
        self._waiting: deque[tuple[float, asyncio.Future[Any] | None]] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self._connecting = asyncio.Lock()
        self._failures = 0
        self._closes = 0

    async def call(self, *command: Argument, key: str = "") -> Any:
        """The answer. `key` is for a cluster's.

        Raises RedisError, OSError, TimeoutError; then it may have been done or not, never twice.
        """
        return await self._ask(await self._connected(), packed(command))

    async def call_asking(self, *command: Argument) -> Any:
        """The same behind an ASKING, which is for the next command of the same connection."""
        link = await self._connected()
        return await self._ask(link, packed(command), packed(("ASKING",)))

    def close(self) -> None:
        """Let go of the connection; who waits fails. May be used again."""
        self._closes += 1
        self._drop()

    def _drop(self) -> None:
        if self._link is not None:
            self._link.fail(RedisConnectionError("closed"))

    async def _connected(self) -> Link:
        link = self._link
        if link is not None and not link.closing:
            return link
        seen = self._failures
        async with self._connecting:
            if self._failures != seen:
                raise RedisConnectionError("the engine cannot be reached")
            if self._link is None or self._link.closing:
                self._drop()
                self._link = await self._open()
            return self._link

    async def _open(self) -> Link:
        closes = self._closes
        try:
            link = await Link.open(self._client, self._on_answer, self._on_lost)
        except Exception:
            self._failures += 1
            raise
        if self._closes != closes:
            link.end()
            raise RedisConnectionError("closed meanwhile")
        return link

    def _ask(self, link: Link, command: bytes, before: bytes = b"") -> asyncio.Future[Any]:
        if len(self._waiting) >= WAITING_MAX or link.buffered > UNSENT_BYTES_MAX:
            raise Overloaded("too much is under way")
        loop = asyncio.get_running_loop()
        due_s = loop.time() + self._answer_s
        answer: asyncio.Future[Any] = loop.create_future()
        if before:
            self._waiting.append((due_s, None))
        self._waiting.append((due_s, answer))
        if self._watch is None:
            self._watch = loop.call_at(due_s, self._look)
        link.send(before + command)
        return answer

    def _on_answer(self, said: Any) -> None:
        if not self._waiting:
            if self._link is not None:
                self._link.fail(RedisConnectionError("an answer to no question"))
            return
        answer = self._waiting.popleft()[1]
        if answer is not None and not answer.done():
            if isinstance(said, RedisError):
                answer.set_exception(said)
            else:
                answer.set_result(said)
        if isinstance(said, ReadOnlyError) and self._link is not None:
            self._link.fail(RedisConnectionError("a replica by now; its name may lead elsewhere"))

    def _look(self) -> None:
        """Is the oldest overdue?"""
        self._watch = None
        if not self._waiting:
            return
        loop = asyncio.get_running_loop()
        due_s = self._waiting[0][0]
        if due_s > loop.time():
            self._watch = loop.call_at(due_s, self._look)
        elif self._link is not None:
            self._link.fail(RedisTimeoutError("no answer in time"))

    def _on_lost(self, wrong: Exception) -> None:
        self._link = None
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        while self._waiting:
            answer = self._waiting.popleft()[1]
            if answer is not None and not answer.done():
                answer.set_exception(wrong)


class Engine(Protocol):
    """Who runs a script: a `Caller`, or the callers of a cluster."""

    async def call(self, *command: Argument, key: str) -> Any:
        """One command whose keys lie in the slot of `key`."""


class Script:
    """A Lua script by its digest, and by its text where the engine does not know it yet."""

    def __init__(self, engine: Engine, text: str) -> None:
        self._engine = engine
        self._text = text
        self._sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        """All keys in one slot. Raises what the engine's `call` raises."""
        rest = (len(keys), *keys, *args)
        try:
            return await self._engine.call("EVALSHA", self._sha, *rest, key=keys[0])
        except NoScriptError:
            return await self._engine.call("EVAL", self._text, *rest, key=keys[0])
