"""Several nodes behind one port: one parent that owns the ground, N children that serve.

Responsible for the life of the children: started, watched, restarted with a growing delay, sent
away together. It must not serve anybody itself, and must not know what a node does: a child is the
same program with the engines' addresses given, as a second machine would be.

All children accept from **one listening socket that they inherit**, not from a socket each with
SO_REUSEPORT: the kernel deals connections to such sockets by a hash, so what waits in the queue of
a child that dies or drains is reset, and a child in its restart delay gets its share all the same.
With one queue whoever lives takes the next viewer, no viewer is reset by a restart, and it works
alike on macOS. Its weakness, the first to wake takes all, is bounded: a child takes 8 connections
in one turn of its loop (`doorman_uvicorn.ACCEPTS_AT_ONCE`).

A child says on its standard output, once, that it serves; its log lines carry its name. Children
have a session of their own, so that Ctrl-C reaches the parent alone, and die with it
(`child_guard`). `/metrics` and `/readyz` are those of the child that happens to answer:
`vitrine_node_info` says which.
"""

import asyncio
import contextlib
import logging
import signal
from asyncio import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from live.child import BOND, STEADY_S, ChildFailed, guarded

log = logging.getLogger(__name__)

READY_LINE: Final = "serving"
START_TIMEOUT_S: Final = 60.0
RESTART_DELAY_S: Final = 0.1
RESTART_DELAY_MAX_S: Final = 5.0
END_MARGIN_S: Final = 15.0
"""Beyond the drain: a child's own clean-up. Then it is killed."""


class Node:
    """One child. `command` is the program with its arguments, `environ` its whole environment."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environ: Mapping[str, str],
        *,
        keep_open: Sequence[int],
        cwd: Path,
    ) -> None:
        self.name = name
        self.restarts = 0
        self._command = command
        self._environ = environ
        self._keep_open = keep_open
        self._cwd = cwd
        self._process: subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The running process, or None (between its end and its restart)."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Start it and wait until it serves. Raises ChildFailed."""
        await self._launch()
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.name}")

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, and SIGKILL after `grace_s`. Returns when it is gone."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait([keeper])
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            _signal(process, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await process.wait()
        await self._kill()

    def kill(self) -> None:
        """End it now; `stop` still has to be awaited."""
        if self._process is not None and self._process.returncode is None:
            _signal(self._process, signal.SIGKILL)

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            _signal(process, signal.SIGKILL)
        await process.wait()
        if process.stdin is not None:
            process.stdin.close()

    async def _keep(self) -> None:
        """Restart it as often as it ends. It never gives up: the delay bounds the rate."""
        loop = asyncio.get_running_loop()
        delay_s = RESTART_DELAY_S
        while True:
            since_s = loop.time()
            code = await self._process.wait() if self._process is not None else None
            if loop.time() - since_s >= STEADY_S:
                delay_s = RESTART_DELAY_S
            log.warning("node %s ended (%s); restart in %.1f s", self.name, code, delay_s)
            await self._kill()
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, RESTART_DELAY_MAX_S)
            self.restarts += 1
            try:
                await self._launch()
            except (ChildFailed, OSError) as error:
                log.error("node %s did not come back: %s", self.name, error)

    async def _launch(self) -> None:
        self._process = process = await asyncio.create_subprocess_exec(
            *guarded(self._command),
            stdin=subprocess.PIPE if BOND == "watch" else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=None,  # its log is ours
            env=self._environ,
            cwd=self._cwd,
            pass_fds=tuple(self._keep_open),
            start_new_session=True,
        )
        assert process.stdout is not None
        said = b""
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(START_TIMEOUT_S):
                    said = await process.stdout.readline()
        except BaseException:
            await self._kill()
            raise
        if said.decode(errors="replace").strip() != READY_LINE:
            await self._kill()
            raise ChildFailed(
                f"node {self.name} did not start (exit code {process.returncode}); "
                "its log lines above say why"
            )


class Nodes:
    """All children of this process. `command` and `environ` are asked with a child's name."""

    def __init__(
        self,
        names: Sequence[str],
        command: Sequence[str],
        environ: Callable[[str], Mapping[str, str]],
        *,
        keep_open: Sequence[int],
        cwd: Path,
    ) -> None:
        self.nodes = [
            Node(name, command, environ(name), keep_open=keep_open, cwd=cwd) for name in names
        ]

    async def start(self) -> None:
        """All of them, at once. Raises ChildFailed; then none is left."""
        done = await asyncio.gather(*(node.start() for node in self.nodes), return_exceptions=True)
        failed = [wrong for wrong in done if isinstance(wrong, BaseException)]
        if failed:
            self.kill()
            await self.stop(0)
            raise failed[0]

    async def stop(self, drain_s: float) -> None:
        """All at the same time: a viewer who left one would otherwise be sent away by the next."""
        grace_s = drain_s + END_MARGIN_S
        await asyncio.gather(*(node.stop(grace_s) for node in self.nodes))

    def kill(self) -> None:
        """End all now; a `stop` under way returns then."""
        for node in self.nodes:
            node.kill()


def _signal(process: subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended a moment ago
        process.send_signal(number)
