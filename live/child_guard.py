"""Runs one program so that it cannot outlive whoever started it: a script, never imported.

Responsible for one promise: when the starter dies, even by SIGKILL, the program dies too. Two
Valkeys writing one data folder would ruin it, so the signal is SIGKILL: SIGTERM can be slept
through by a stopped or busy process. It must not import anything of ours: it runs as `python -I -S
child_guard.py …`, which costs 20 ms, and replaces itself by the program.

On Linux the kernel keeps the promise (prctl PR_SET_PDEATHSIG). Elsewhere, or with `watch`, this
process stays: it holds the reading end of a pipe from the starter and kills the program when the
pipe closes. A preexec function would save the 20 ms, but runs Python between fork and exec, where
a lock held by another thread hangs the child for good.

    python -I -S child_guard.py exec|watch STARTER_PID /path/of/program ARGUMENT…
"""

import os
import signal
import subprocess
import sys
import threading
from types import FrameType
from typing import Final, NoReturn

PR_SET_PDEATHSIG: Final = 1
ORPHANED: Final = 70
"""Exit code: the starter was gone before the program began (EX_SOFTWARE)."""


def bind_to_starter(starter: int) -> bool:
    """Ask the kernel to kill this process with its starter; False where it cannot."""
    import ctypes

    try:
        bound = ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (AttributeError, OSError):
        return False
    if os.getppid() != starter:  # it died before the request took hold
        sys.exit(ORPHANED)
    return bool(bound == 0)


def watch(argv: list[str]) -> NoReturn:
    """Run the program as a child and kill it when standard input closes; ends as it ended."""
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, close_fds=False)

    def forward(number: int, _frame: FrameType | None) -> None:
        child.send_signal(number)

    def outlast_nobody() -> None:
        while os.read(0, 1024):
            pass
        child.kill()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, forward)
    threading.Thread(target=outlast_nobody, daemon=True).start()
    code = child.wait()
    sys.exit(code if code >= 0 else 128 - code)


def main(mode: str, starter: str, *argv: str) -> NoReturn:
    """Replace this process by the program, or stay beside it."""
    try:
        if mode == "exec" and bind_to_starter(int(starter)):
            os.execv(argv[0], argv)
        watch(list(argv))
    except OSError as error:
        sys.exit(f"{argv[0]} cannot be run: {error.strerror}")


if __name__ == "__main__":
    main(*sys.argv[1:])
