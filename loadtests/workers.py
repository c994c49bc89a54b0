"""Processes of a bench: started, asked one thing at a time, ended with all they hold.

Responsible for the pipe to a helper process (one JSON object per line, a question and its answer)
and for its end. The pipe is a socket pair: when this process dies, however, the helper reads the
end of it and leaves, so no bench can leave a crowd or a server behind. It must not know what is
asked; `Swarm` puts several crowds behind one face.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from live.child import guarded
from loadtests.refused import TooLate
from loadtests.server import LOG_TAIL_CHARS, ROOT, ServerFailed

ANSWER_S: Final = 60.0
END_S: Final = 15.0
LINE_BYTES_MAX: Final = 256 * 1024 * 1024
PER_PROCESS: Final = 4000
"""Listeners in one process: the limit of open files is 20,000 and memory is ours too."""
PROCESSES_MIN: Final = 2
POLL_S: Final = 0.05


class Worker:
    """One helper process; `async with` starts and ends it. `module` is run with `arguments`."""

    def __init__(
        self,
        module: str,
        *arguments: str,
        log: Path,
        environ: dict[str, str] | None = None,
    ) -> None:
        self._module = module
        self._arguments = arguments
        self._log = log
        self._environ = environ or {}
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        ours, theirs = socket.socketpair()
        with theirs, self._log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: ASYNC220 - it is started before anything is measured
                guarded(
                    [sys.executable, "-m", self._module, str(theirs.fileno()), *self._arguments]
                ),
                cwd=ROOT,
                env={
                    **{name: v for name, v in os.environ.items() if not name.startswith("LIVE_")},
                    **self._environ,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._reader, self._writer = await asyncio.open_unix_connection(
            sock=ours, limit=LINE_BYTES_MAX
        )
        try:
            self.hello: dict[str, Any] = await self._answer(ANSWER_S)
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._end()

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text(errors="replace")

    async def ask(self, what: str, /, timeout_s: float = ANSWER_S, **more: Any) -> dict[str, Any]:
        """The answer. Raises `ServerFailed` when it has died, `TooLate`."""
        async with self._turn:
            self._writer.write(json.dumps({"ask": what, **more}).encode() + b"\n")
            await self._writer.drain()
            return await self._answer(timeout_s)

    async def _answer(self, timeout_s: float) -> dict[str, Any]:
        try:
            async with asyncio.timeout(timeout_s):
                line = await self._reader.readline()
        except TimeoutError:
            raise TooLate(f"{self._module} gave no answer within {timeout_s:g} s") from None
        answer: dict[str, Any] = json.loads(line) if line else {"error": "it ended"}
        if "error" in answer:
            tail = self.log[-LOG_TAIL_CHARS:]
            raise ServerFailed(f"{self._module}: {answer['error']}\n{tail}")
        return answer

    async def _end(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
        try:
            await asyncio.to_thread(self.process.wait, END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await asyncio.to_thread(self.process.wait)


class Swarm:
    """Listeners in several processes. See `swarm` for what may be asked of each."""

    def __init__(
        self,
        viewers: int,
        folder: Path,
        *,
        processes: int = 0,
        module: str = "loadtests.swarm",
    ) -> None:
        self.viewers = viewers
        count = processes or max(PROCESSES_MIN, -(-viewers // PER_PROCESS))
        self._count = min(count, viewers)
        self._folder = folder
        self._module = module
        self._stack = contextlib.AsyncExitStack()
        self.workers: list[Worker] = []

    async def __aenter__(self) -> Self:
        try:
            for number in range(self._count):
                log = self._folder / f"swarm-{number}.log"
                worker = Worker(self._module, log=log)
                self.workers.append(await self._stack.enter_async_context(worker))
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def ask(self, what: str, **more: Any) -> list[dict[str, Any]]:
        """The answers of all."""
        return list(await asyncio.gather(*(worker.ask(what, **more) for worker in self.workers)))

    def shares(self, whole: int) -> list[int]:
        """`whole` dealt over the processes."""
        size, more = divmod(whole, self._count)
        return [size + (number < more) for number in range(self._count)]

    async def join(self, port: int, joins: Sequence[dict[str, Any]], **more: Any) -> None:
        """Bring a listener for each of the join params; returns at once, see `wait_live`."""
        at = 0
        for number, (worker, share) in enumerate(
            zip(self.workers, self.shares(len(joins)), strict=True)
        ):
            await worker.ask(
                "join",
                port=port,
                source=f"127.0.0.{number + 2}",
                joins=list(joins[at : at + share]),
                **more,
            )
            at += share

    async def totals(self) -> dict[str, Any]:
        """Sums of numbers, sums of counts by name, of all processes."""
        return merge(await self.ask("totals"))

    async def wait_live(self, count: int, *, within_s: float) -> float:
        """Until so many are in their room; how long it took. Raises `TooLate`."""
        return await self.wait(lambda t: t["live"] >= count, f"{count} live", within_s=within_s)

    async def wait(
        self, true: Callable[[dict[str, Any]], bool], what: str, *, within_s: float
    ) -> float:
        """Until the totals satisfy; how long it took. Raises `TooLate`."""
        started = asyncio.get_running_loop().time()
        while not true(totals := await self.totals()):
            waited = asyncio.get_running_loop().time() - started
            if waited > within_s:
                raise TooLate(f"{what}: not within {within_s:g} s: {totals}")
            await asyncio.sleep(POLL_S)
        return asyncio.get_running_loop().time() - started


def merge(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Numbers added up; maps of numbers added up by key; lists put together."""
    whole: dict[str, Any] = {}
    for answer in answers:
        for name, value in answer.items():
            if isinstance(value, dict):
                into = whole.setdefault(name, {})
                for key, number in value.items():
                    into[key] = into.get(key, 0) + number
            elif isinstance(value, list):
                whole.setdefault(name, []).extend(value)
            else:
                whole[name] = whole.get(name, 0) + value
    return whole
