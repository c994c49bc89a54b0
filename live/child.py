"""A process that belongs to this one: started, watched, restarted, stopped, never left behind.

Responsible for the life of one child: its bounded log, its restarts with a growing delay, its
orderly end. It must not know what the child is: readiness is a question it is given. Used for the
embedded Valkey and for the payment sandbox.

Children get a session of their own, so that Ctrl-C reaches only us: the program drains first and
stops its engines last. `child_guard` makes them die with us when we get no chance to do so. The
kernel ties them to the *thread* that started them, so `start` is called on the main thread's loop.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from asyncio import subprocess
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, Literal

logger = logging.getLogger(__name__)

START_TIMEOUT_S: Final = 60.0
"""An append-only file of 1 GB loads in about 10 s; a child that takes longer than this is ill."""
READY_POLL_S: Final = 0.01
STOP_GRACE_S: Final = 5.0
"""From SIGTERM to SIGKILL. An idle Valkey needs 0.03 s."""
RESTART_DELAY_S: Final = 0.05
RESTART_DELAY_MAX_S: Final = 5.0
STEADY_S: Final = 10.0
"""A child that ran this long starts again at the shortest delay."""
LOG_BYTES_MAX: Final = 1 << 20
"""Per file; one older file is kept. Checked each LOG_CHECK_S."""
LOG_CHECK_S: Final = 30.0
LOG_TAIL_BYTES: Final = 2000

GUARD: Final = Path(__file__).with_name("child_guard.py")
Bond = Literal["exec", "watch"]
BOND: Final[Bond] = "exec" if sys.platform == "linux" else "watch"


class ChildFailed(Exception):
    """The child did not become ready; the text says how it ended and what it logged last."""


def guarded(argv: Sequence[str], bond: Bond = BOND) -> list[str]:
    """The command line that runs `argv` (an absolute path first) bound to the calling process."""
    return [sys.executable, "-I", "-S", str(GUARD), bond, str(os.getpid()), *argv]


class ChildProcess:
    """One child. `start`, then `stop`; between them it is restarted whenever it ends.

    `ready` answers whether the child does its work; it must be quick and must not raise.
    `keep_open` are file descriptors that the child inherits (the lock of the data folder).
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        ready: Callable[[], Awaitable[bool]],
        keep_open: Sequence[int] = (),
        cwd: Path | None = None,
        bond: Bond = BOND,
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        self.name = name
        self.restarts = 0
        self._argv = argv
        self._log = log
        self._ready = ready
        self._keep_open = keep_open
        self._cwd = cwd
        self._bond: Bond = bond
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The running process, or None (stopped, or between death and restart)."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Start it and wait until it is ready. Raises ChildFailed; then nothing is left behind."""
        if self._keeper is not None:
            raise RuntimeError(f"{self.name} was started already")
        await self._launch()
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.name}")

    async def stop(self) -> None:
        """SIGTERM, a grace, SIGKILL. Returns when the process is gone; repeating it is harmless."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait([keeper])
        await self._end(STOP_GRACE_S)
        if keeper is not None and not keeper.cancelled():
            keeper.result()  # it only ever ends by a defect of ours: say so

    async def _keep(self) -> None:
        """Restart it as often as it ends. It never gives up: the delay bounds the rate."""
        loop = asyncio.get_running_loop()
        delay_s = RESTART_DELAY_S
        while True:
            since = loop.time()
            code = await self._ended()
            if loop.time() - since >= STEADY_S:
                delay_s = RESTART_DELAY_S
            logger.warning("%s ended (%s); restart in %.2f s", self.name, code, delay_s)
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, RESTART_DELAY_MAX_S)
            self.restarts += 1
            try:
                await self._launch()
            except (ChildFailed, OSError) as error:
                logger.error("%s did not come back: %s", self.name, error)

    async def _ended(self) -> int | None:
        """Wait for the end, keeping the log within its bound meanwhile."""
        process = self._process
        while process is not None and process.returncode is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOG_CHECK_S):
                    await process.wait()
            self._bound_log()
        return process.returncode if process is not None else None

    async def _launch(self) -> None:
        with self._open_log() as output:
            self._process = await asyncio.create_subprocess_exec(
                *guarded(self._argv, self._bond),
                stdin=subprocess.PIPE if self._bond == "watch" else subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._cwd,
                pass_fds=tuple(self._keep_open),
                start_new_session=True,
            )
        try:
            async with asyncio.timeout(self._start_timeout_s):
                while not await self._ready():
                    if self._process.returncode is not None:
                        raise ChildFailed(
                            f"{self.name} ended with {self._process.returncode} while starting. "
                            f"Its log ({self._log}) ends:\n{self._log_tail()}"
                        )
                    await asyncio.sleep(READY_POLL_S)
        except TimeoutError:
            await self._end(0)
            raise ChildFailed(
                f"{self.name} was not ready after {self._start_timeout_s:g} s. "
                f"Its log ({self._log}) ends:\n{self._log_tail()}"
            ) from None
        except BaseException:
            await self._end(0)
            raise

    async def _end(self, grace_s: float) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            if grace_s and process.returncode is None:
                _signal(process, signal.SIGTERM)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(grace_s):
                        await process.wait()
        finally:
            if process.returncode is None:
                self._kill(process)
                await process.wait()
            if process.stdin is not None:
                process.stdin.close()

    def _kill(self, process: subprocess.Process) -> None:
        if self._bond == "watch" and process.stdin is not None:
            process.stdin.close()  # killing the guard itself would leave the program
        else:
            _signal(process, signal.SIGKILL)

    def _open_log(self) -> AbstractContextManager[int]:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._bound_log()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT  # appending: the file may shrink under it
        return _closing(os.open(self._log, flags, 0o600))

    def _bound_log(self) -> None:
        """Move a log that is too long aside and empty it; the child goes on writing to it."""
        try:
            if self._log.stat().st_size > LOG_BYTES_MAX:
                with self._log.open("rb") as file:
                    file.seek(-LOG_BYTES_MAX, os.SEEK_END)
                    self._log.with_suffix(".old.log").write_bytes(file.read(LOG_BYTES_MAX))
                os.truncate(self._log, 0)
        except FileNotFoundError:
            pass
        except OSError as error:  # a full disk must not end the keeper
            logger.warning("the log of %s cannot be bounded: %s", self.name, error)

    def _log_tail(self) -> str:
        with contextlib.suppress(OSError):
            return self._log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
        return "(no log)"


def _signal(process: subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended a moment ago
        process.send_signal(number)


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)
