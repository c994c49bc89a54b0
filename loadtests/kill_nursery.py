"""Starts nodes quickly: a process that has imported the program once and forks a node on request.

Responsible for forking, for saying how each child ended, and for nothing a node does: the child
calls the same command line (`serve`) with its own environment, session and log, as a supervisor
would have started it. It must not open, connect or start anything before the fork; the program's
modules do not either, which `tests/test_architecture.py` holds. Why: of the 1.7 s of CPU that a
start costs, 1.3 s are imports, and the kill drill starts a node for nearly every kill.

One line of JSON a request on standard input ({"environ", "log"}), one a reply on standard output
({"pid"}, then at some time {"pid", "code"}; -9: killed).
"""

import ctypes
import importlib
import json
import os
import select
import signal
import sys
import traceback
from typing import Any, Final

from live.__main__ import cli

PR_SET_PDEATHSIG: Final = 1


def main() -> None:
    """Until standard input closes; the children die with it."""
    _import_what_comes_late()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    _say({"ready": True})
    rest = b""
    while True:
        found, _, _ = select.select([0, woken], [], [])
        if woken in found:
            os.read(woken, 4096)
            _bury()
        if 0 in found:
            read = os.read(0, 1 << 16)
            if not read:
                return
            *lines, rest = (rest + read).split(b"\n")
            for line in lines:
                _say({"pid": _fork(json.loads(line))})


def _import_what_comes_late() -> None:
    """What a node imports when it first needs it, here before the fork: 170 modules."""
    for name in (
        "alembic.command",
        "alembic.runtime.migration",
        "commerce.payments_stripe",
        "httpcore",
        "pygments.unistring",
        "rich.traceback",
        "sqlalchemy.dialects.postgresql.psycopg",
        "sqlalchemy.dialects.sqlite.aiosqlite",
        "psycopg",
        "typer.rich_utils",
    ):
        importlib.import_module(name)


def _fork(order: dict[str, Any]) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        _become(order, parent)
        cli(["serve"], standalone_mode=False)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - the last line of a process: its log says why
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _become(order: dict[str, Any], parent: int) -> None:
    """A process of its own: session, signals, files, environment; and it dies with us."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.closerange(3, 256)
    os.environ.clear()
    os.environ.update(order["environ"])


def _bury() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        _say({"pid": pid, "code": os.waitstatus_to_exitcode(status)})


def _say(what: dict[str, Any]) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    main()
