"""A server of our own for one drill: free ports, an empty folder, and nothing left afterwards.

Responsible for starting `python -m live serve`, waiting until it is ready, giving the drill an
address and a way to sign in as host, and ending every process and file. It knows the program from
outside only: its command line, `LIVE_*` variables, /readyz. The folder is short and under /tmp,
because a Unix socket's path may have 108 bytes.

The server gets a process group of its own: Ctrl-C ends the drill, and the drill ends the server.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from live.child import guarded

START_S: Final = 60.0
STOP_S: Final = 20.0
"""From SIGTERM to SIGKILL: longer than the program's own drain."""
POLL_S: Final = 0.05
COMMAND_S: Final = 60.0
LOG_TAIL_CHARS: Final = 4000
ROOT: Final = Path(__file__).resolve().parent.parent
_LINK = re.compile(r"\S*#link=\S+")


class ServerFailed(Exception):
    """Our server did not start, or did not do what its command line promises; with its log."""


class OwnServer:
    """A context manager: inside it the server at `url` is ready. More settings by `environ`."""

    def __init__(self, environ: dict[str, str] | None = None) -> None:
        self._more = environ or {}
        self.url = ""

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="vitrine-load-"))
        self._log = self.folder / "server.log"
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("LIVE_")},
            "LIVE_HOST": "127.0.0.1",
            "LIVE_PORT": str(port),
            "LIVE_DATA": str(self.folder / "data"),
            "LIVE_PUBLIC_URL": self.url,
            **self._more,
        }
        self.start()
        return self

    def start(self) -> None:
        """Run it and wait until it is ready. Raises `ServerFailed`, and nothing is left."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                guarded([sys.executable, "-m", "live", "serve"]),
                cwd=ROOT,
                env=self._environ,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self._end()
            raise

    def stop(self) -> float:
        """SIGTERM, as an operator does it; seconds until it was gone. Raises `ServerFailed`."""
        started = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            raise ServerFailed(f"not gone {STOP_S:g} s after SIGTERM:\n{self._tail()}") from None
        if code:
            raise ServerFailed(f"it ended with {code}:\n{self._tail()}")
        if self._process.stdin is not None:
            self._process.stdin.close()
        return time.monotonic() - started

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    @property
    def pid(self) -> int:
        """The server's process: its CPU time and memory are what benches measure."""
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text(errors="replace")

    def host_link(self, login: str = "drill") -> str:
        """A one-time link that signs in a new host. Raises `ServerFailed`."""
        data = self._environ["LIVE_DATA"]
        command = ["-m", "live", "user", "add", login, "--role", "host", "--data", data]
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
        )
        found = _LINK.search(done.stdout)
        if done.returncode or found is None:
            raise ServerFailed(f"no one-time link: {done.stdout}{done.stderr}"[-LOG_TAIL_CHARS:])
        return found[0]

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None:
                raise ServerFailed(f"the server ended while starting:\n{self._tail()}")
            if time.monotonic() > deadline:
                raise ServerFailed(f"the server was not ready in {START_S:g} s:\n{self._tail()}")
            time.sleep(POLL_S)

    def _answers(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self.url}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _end(self) -> None:
        """SIGTERM, a grace, then SIGKILL for whatever of its group is still there."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _tail(self) -> str:
        return self.log[-LOG_TAIL_CHARS:]


def free_port() -> int:
    """A port of the loopback address that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
