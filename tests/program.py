"""The whole program as an operator starts it: `python -m live …` in a process of its own.

It gets a data folder and a free port, none of the caller's LIVE_ variables, and dies with the
tests. `stop` asks as Ctrl-C does and expects an orderly end.
"""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from live.child import guarded
from tests.waiting import until_sync

ROOT = Path(__file__).resolve().parent.parent
START_DEADLINE_S = 120.0
"""A start takes three seconds of CPU; a busy machine with two cores has taken forty for it."""
STOP_DEADLINE_S = 60.0
ADDRESS = re.compile(r"running at (https?://\S+)")
HOST_LINK = re.compile(r"https?://\S+/host#link=\S+")


class Program:
    """A running program; `with Program(folder) as program: program.url`.

    `arguments` follow `python -m live`; `environment` adds LIVE_ variables. `command` replaces
    `python -m live` altogether.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        command: tuple[str, ...] = (sys.executable, "-m", "live"),
    ) -> None:
        self.folder = folder
        self._command = [*command, *(arguments or ("serve", "--port", "0"))]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("LIVE_")}
        self._environment = {
            **inherited,
            "PYTHONUNBUFFERED": "1",
            "LIVE_DATA": str(folder),
            **(environment or {}),
        }
        self._lines: list[str] = []
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: object, *_rest: object) -> None:
        code = self.stop()
        if kind is None:
            assert code == 0, f"the program ended with {code}:\n{self.output}"

    @property
    def output(self) -> str:
        """Everything it printed so far, both streams."""
        return "\n".join(self._lines)

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return self._found(ADDRESS, 1)

    @property
    def host_link(self) -> str:
        """The one-time link that signs the first host in."""
        return self._found(HOST_LINK, 0)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        """Start it and wait until it says where it runs."""
        self._process = subprocess.Popen(
            guarded(self._command),
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=[self._process], daemon=True)
        self._reader.start()
        try:
            until_sync(lambda: self._stopped() or ADDRESS.search(self.output), START_DEADLINE_S)
            assert not self._stopped(), f"the program did not start:\n{self.output}"
        except BaseException:
            self.kill()
            raise
        return self

    def run(self) -> tuple[int, str]:
        """A command that ends by itself: its exit code and what it said."""
        done = subprocess.run(
            self._command,
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=START_DEADLINE_S,
        )
        return done.returncode, done.stdout + done.stderr

    def stop(self) -> int:
        """Ctrl-C; returns its exit code. Fails when it does not end."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the program did not end:\n{self.output}") from None
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL, and everything is closed."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            self._reader.join()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _stopped(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _read(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._lines.append(line.rstrip())

    def _found(self, pattern: re.Pattern[str], group: int) -> str:
        found = pattern.search(self.output)
        assert found is not None, f"not printed: {pattern.pattern}\n{self.output}"
        return found[group].rstrip("/")
