"""A PostgreSQL of the bench's own, as durable as it comes.

Responsible for starting the server in a folder and for its end (`embedded_postgres` makes it
ready). It must not know tables. Nothing is switched off: `fsync`, `full_page_writes` and
`synchronous_commit` stand as PostgreSQL sets them, because what is measured is durable winners. Its
memory settings are those of a small rented machine.
"""

import signal
import subprocess
import time
from pathlib import Path
from typing import Final, Self

import psycopg

from loadtests.embedded_postgres import NoPostgres, install

START_S: Final = 60.0
STOP_S: Final = 20.0
POLL_S: Final = 0.05
DATABASE: Final = "vitrine"
SETTINGS: Final = {
    "max_connections": "100",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
}


class Postgres:
    """`with Postgres(folder) as server: server.url`. The folder's path must be short."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def url(self) -> str:
        """Of an empty database."""
        return f"postgresql://postgres@/{DATABASE}?host={self._folder}"

    def __enter__(self) -> Self:
        self._installed = install(self._folder)
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                self._installed.command(SETTINGS),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self._installed.options,
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
                with psycopg.connect(self._installed.url("postgres"), autocommit=True) as admin:
                    admin.execute(f"CREATE DATABASE {DATABASE}")
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise NoPostgres(self._installed.log_tail()) from None
                time.sleep(POLL_S)

    def _stop(self) -> None:
        self._process.send_signal(signal.SIGINT)  # "fast": does not wait for clients
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
