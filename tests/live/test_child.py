"""The supervised child: bounded log, growing restart delay, an end that is certain."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from live import child
from live.child import ChildFailed, ChildProcess
from tests.waiting import until

DEAF = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True)"


async def at_once() -> bool:
    return True


async def never() -> bool:
    return False


def python(code: str, log: Path, **more: object) -> ChildProcess:
    settings = {"ready": at_once, **more}
    return ChildProcess("it", [sys.executable, "-c", code], log=log / "it.log", **settings)


@pytest.mark.parametrize("bond", ["exec", "watch"])
async def test_a_child_that_ignores_sigterm_is_killed(tmp_path, monkeypatch, bond):
    monkeypatch.setattr(child, "STOP_GRACE_S", 0.2)
    log = tmp_path / "it.log"

    async def deaf() -> bool:
        return "deaf" in log.read_text()

    it = python(DEAF + "\nwhile True: time.sleep(1)", tmp_path, ready=deaf, bond=bond)
    await it.start()
    await it.stop()
    assert it.pid is None


async def test_the_log_is_bounded_and_the_child_goes_on_writing(tmp_path, monkeypatch):
    monkeypatch.setattr(child, "LOG_BYTES_MAX", 10_000)
    monkeypatch.setattr(child, "LOG_CHECK_S", 0.05)
    it = python(
        "import time\nfor n in range(10**9): print('line', n, flush=True); time.sleep(0.0001)",
        tmp_path,
    )
    await it.start()
    old, log = tmp_path / "it.old.log", tmp_path / "it.log"
    await until(lambda: old.exists() and log.stat().st_size > 0)
    assert old.stat().st_size <= 10_000
    await it.stop()


async def test_a_child_that_fails_at_once_is_restarted_ever_more_slowly(tmp_path, caplog):
    it = python("raise SystemExit(3)", tmp_path)
    await it.start()
    await until(lambda: it.restarts >= 3)
    await it.stop()
    delays = [record.args[2] for record in caplog.records if "restart in" in record.message]
    assert delays[:3] == [0.05, 0.1, 0.2]


async def test_a_child_that_never_gets_ready_fails_by_its_deadline_and_is_gone(tmp_path):
    code = "import os, time; print('pid', os.getpid(), flush=True); time.sleep(60)"
    it = python(code, tmp_path, ready=never, start_timeout_s=0.5)
    with pytest.raises(ChildFailed, match=r"not ready after 0.5 s(.|\n)*pid"):
        await it.start()
    pid = int((tmp_path / "it.log").read_text().split()[1])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_program_that_does_not_exist_fails_with_its_name(tmp_path):
    it = ChildProcess("it", ["/no/such/program"], log=tmp_path / "it.log", ready=never)
    with pytest.raises(ChildFailed, match="/no/such/program"):
        await it.start()


async def test_a_start_that_is_cancelled_leaves_no_process(tmp_path):
    it = python("import time; time.sleep(60)", tmp_path, ready=never)
    starting = asyncio.create_task(it.start())
    await until(lambda: it.pid is not None)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert it.pid is None


async def test_starting_twice_is_refused(tmp_path):
    it = python("import time; time.sleep(60)", tmp_path)
    await it.start()
    with pytest.raises(RuntimeError, match="already"):
        await it.start()
    await it.stop()


async def test_ctrl_c_in_the_terminal_does_not_reach_the_child(tmp_path):
    """It has a process group of its own: the program drains first and stops its engines last."""
    it = python("import time; time.sleep(60)", tmp_path)
    await it.start()
    assert os.getpgid(it.pid) != os.getpgid(0)
    await it.stop()


async def test_a_watched_child_ends_with_the_code_of_its_program(tmp_path):
    it = python("raise SystemExit(5)", tmp_path, ready=never, bond="watch")
    with pytest.raises(ChildFailed, match="ended with 5"):
        await it.start()
    killed = f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})"
    it = python(killed, tmp_path, ready=never, bond="watch")
    with pytest.raises(ChildFailed, match=f"ended with {128 + signal.SIGKILL}"):
        await it.start()
