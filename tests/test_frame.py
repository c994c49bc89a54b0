"""The frame itself: leaks and skips that must fail do fail, and the runner tells the truth."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import browser, run_all
from tests.run_all import Step
from tests.waiting import until_sync

ROOT = Path(__file__).resolve().parent.parent

LEAKS = """
import asyncio, subprocess, sys
import pytest

kept = []

async def test_clean():
    await asyncio.create_task(asyncio.sleep(0))

async def test_task():
    kept.append(asyncio.create_task(asyncio.sleep(60)))

def test_process():
    kept.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(8)"]))

def test_end():
    kept[-1].wait()
"""

SKIPS = """
import pytest

@pytest.mark.browser
def test_browser():
    pytest.skip("no browser")

def test_valkey(valkey_url):
    pytest.skip("no engine")

@pytest.mark.postgres
@pytest.mark.skip(reason="no engine")
def test_postgres():
    pass

def test_other():
    pytest.skip("no shop files here")

@pytest.mark.browser
@pytest.mark.xfail(reason="known", strict=True)
def test_known():
    raise AssertionError
"""

ENGINES = """
import psycopg, pytest, redis

@pytest.mark.parametrize("turn", [1, 2])
def test_valkey_is_empty_for_each_test(valkey_url, turn):
    with redis.Redis.from_url(valkey_url) as client:
        assert client.incr("turns") == 1

@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.postgres
def test_postgres_is_fresh_for_each_test(postgres_url, turn):
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE t (x int)")
    connection.close()

def test_where(valkey_server, postgres_server):
    with open("servers", "w") as file:
        file.write(f"{valkey_server.folder} {postgres_server.folder}")

def test_both(database_url):
    assert database_url.startswith(("sqlite:///", "postgresql://"))
"""


PLUGINS = ("-p", "pytest_asyncio.plugin", "-p", "no:cacheprovider")
"""Loading the others would cost each of these runs two seconds."""


def run_pytest(folder: Path, text: str, **environment: str) -> str:
    """A pytest of its own with our conftest; returns what it printed."""
    (folder / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (folder / "test_it.py").write_text(text)
    (folder / "pytest.ini").write_text(
        f"[pytest]\npythonpath = {ROOT}\nasyncio_mode = auto\n"
        "asyncio_default_fixture_loop_scope = function\n"
        "markers =\n  browser: x\n  postgres: x\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *PLUGINS, "-rA", "."],
        cwd=folder,
        env={**os.environ, "CI": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return run.stdout + run.stderr


def test_a_left_task_and_a_left_process_fail_their_tests(tmp_path):
    output = run_pytest(tmp_path, LEAKS)
    assert "ERROR test_it.py::test_task" in output
    assert "ERROR test_it.py::test_process" in output
    assert "4 passed, 2 errors" in output


def test_a_skipped_engine_or_browser_test_fails_in_ci_and_only_there(tmp_path):
    assert "4 skipped, 1 xfailed" in run_pytest(tmp_path, SKIPS)
    output = run_pytest(tmp_path, SKIPS, CI="true")
    assert "2 failed, 1 skipped, 1 xfailed, 1 error" in output
    for fault in ("FAILED test_it.py::test_browser", "FAILED test_it.py::test_valkey"):
        assert fault in output
    assert "ERROR test_it.py::test_postgres" in output


def test_engines_are_real_fresh_and_gone_afterwards(tmp_path):
    assert "7 passed" in run_pytest(tmp_path, ENGINES)
    folders = [Path(word) for word in (tmp_path / "servers").read_text().split()]
    assert len(folders) == 2
    assert not any(folder.exists() for folder in folders)


def test_a_killed_test_run_takes_its_servers_with_it(tmp_path):
    """PDEATHSIG: a run that is killed cannot clean up."""
    code = (
        "import os, signal\n"
        "def test(valkey_server, postgres_server):\n"
        "    with open('servers', 'w') as file:\n"
        "        for server in (valkey_server, postgres_server):\n"
        "            file.write(f'{server.pid} {server.folder}\\n')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    run_pytest(tmp_path, code)
    servers = [line.split() for line in (tmp_path / "servers").read_text().splitlines()]
    assert len(servers) == 2
    for pid, folder in servers:
        until_sync(lambda pid=pid: gone(int(pid)))
        shutil.rmtree(folder)


def gone(pid: int) -> bool:
    """Ended; perhaps still listed, when whoever inherited it has not looked yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def step(name: str, code: str) -> Step:
    return Step(name, [sys.executable, "-c", code])


def test_the_runner_fails_when_one_step_fails_and_adds_up_what_the_others_said(capfd):
    good = step("pytest-1", "print('=== 3 passed, 1 skipped in 0.10s ===')")
    other = step("node", "print('ℹ pass 4'); print('ℹ fail 0')")
    bad = step("pytest-2", "print('= 1 failed, 2 passed, 1 error in 61.00s (0:01:01) =');exit(1)")
    run_all.in_lanes([good, other], [bad])
    assert (good.ok, other.ok, bad.ok) == (True, True, False)
    assert not run_all.summary([good, other, bad], 1.0)
    lines = capfd.readouterr().out.splitlines()
    assert lines[-1] == "9 passed, 2 failed, 1 skipped"
    assert "=== 3 passed, 1 skipped in 0.10s ===" in lines[-6:]
    assert run_all.summary([good, other], 1.0)


def failing(name: str, tmp_path: Path, *, heals: bool) -> Step:
    """Fails with a test by name; tried again it passes if it `heals`."""
    seen = tmp_path / name.replace(" ", "-")
    return step(
        name,
        "import pathlib, sys\n"
        f"seen = pathlib.Path({str(seen)!r})\n"
        f"if {heals} and seen.exists() and '--last-failed' in sys.argv: sys.exit(0)\n"
        "seen.touch()\n"
        f"print('FAILED tests/{seen.name}.py::test_it - assert 1 == 2')\n"
        "print('=== 1 failed, 2 passed in 0.10s ===')\n"
        "sys.exit(1)",
    )


def test_a_test_that_passes_alone_is_named_unsteady_and_one_that_does_not_has_failed(
    capfd, tmp_path
):
    shy, broken = (
        failing(f"pytest {name}", tmp_path, heals=name == "shy") for name in ("shy", "x")
    )
    run_all.in_lanes([shy], [broken])
    run_all.try_again([shy, broken])
    assert (shy.ok, broken.ok) == (True, False)
    assert run_all.summary([shy], 1.0)
    lines = capfd.readouterr().out.splitlines()
    assert "unsteady         tests/pytest-shy.py::test_it - assert 1 == 2" in lines
    assert lines[-1] == "2 passed, 0 failed, 1 unsteady, 0 skipped"
    assert not run_all.summary([shy, broken], 1.0)
    lines = capfd.readouterr().out.splitlines()
    assert "FAILED           tests/pytest-x.py::test_it - assert 1 == 2" in lines


def test_many_failures_are_no_coincidence_and_a_crash_is_none_either(tmp_path):
    many = failing("pytest many", tmp_path, heals=True)
    run_all.run(many)
    many.broken *= run_all.UNSTEADY_MAX + 1
    run_all.try_again([many])
    assert not many.ok
    shy = failing("pytest shy", tmp_path, heals=True)
    crashed = step("pytest crashed", "import os; os.abort()")
    run_all.in_lanes([shy], [crashed])
    run_all.try_again([shy, crashed])
    assert (shy.ok, crashed.ok) == (False, False)


def test_a_step_that_hangs_is_ended_with_all_it_started(monkeypatch, tmp_path):
    monkeypatch.setattr(run_all, "STEP_TIMEOUT_S", 0.5)
    file = tmp_path / "pid"
    hanging = step(
        "mypy",
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(file)!r}, 'w').write(str(child.pid))\n"
        "child.wait()",
    )
    run_all.run(hanging)
    assert not hanging.ok
    assert "stopped after" in hanging.note
    until_sync(lambda: gone(int(file.read_text())))


def test_ctrl_c_ends_the_runner_and_its_steps(tmp_path):
    file = tmp_path / "pid"
    script = tmp_path / "runner.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from tests import run_all\n"
        "from tests.run_all import Step\n"
        "code = 'import os, time; '\n"
        f"code += \"open({str(file)!r}, 'w').write(str(os.getpid())); time.sleep(60)\"\n"
        "slow = lambda name: Step(name, [sys.executable, '-c', code])\n"
        "run_all.prepare_browser = lambda: Step('browser', [], ok=True)\n"
        "run_all.checks = lambda: [slow('ruff'), slow('mypy')]\n"
        "run_all.node_step = lambda: Step('node', [], ok=True)\n"
        "sys.exit(run_all.main([]))\n"
    )
    runner = subprocess.Popen([sys.executable, script])
    until_sync(lambda: file.exists() and file.read_text())
    runner.send_signal(signal.SIGINT)
    assert runner.wait(10) == 130
    until_sync(lambda: gone(int(file.read_text())))


def test_a_given_browser_wins_and_a_missing_one_is_explained(tmp_path, monkeypatch):
    given = tmp_path / "my-chromium"
    given.write_text("#!/bin/sh\n")
    given.chmod(0o755)
    monkeypatch.setenv(browser.OVERRIDE, str(given))
    assert browser.find() == given
    monkeypatch.delenv(browser.OVERRIDE)
    monkeypatch.setattr(browser, "NAMES", ("no-such-browser",))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PLAYWRIGHT_BROWSERS_PATH", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    there, done = browser.prepare()
    assert not there
    assert browser.OVERRIDE in done


@pytest.mark.parametrize("works", [True, False])
def test_as_root_on_debian_a_browser_is_installed_and_said_so(tmp_path, monkeypatch, capsys, works):
    """apt-get is a stand-in here that makes the program, or fails."""
    programs = tmp_path / "bin"
    programs.mkdir()
    apt = programs / "apt-get"
    browser_file = programs / "no-such-browser"
    make = f"printf '#!/bin/sh\\n' > {browser_file}; chmod +x {browser_file}"
    apt.write_text(
        f"#!/bin/sh\necho apt $@\n[ $1 = update ] && exit 0\n{make if works else 'exit 100'}\n"
    )
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(browser.OVERRIDE, raising=False)
    monkeypatch.delenv("PLAYWRIGHT_BROWSERS_PATH", raising=False)
    monkeypatch.setattr(browser, "NAMES", ("no-such-browser",))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(sys, "platform", "linux")
    there, done = browser.prepare()
    assert there == works
    assert (str(browser_file) in done) if works else ("failed" in done)
    assert "installing" in capsys.readouterr().out
