"""The embedded Valkey: it keeps its data, comes back by itself and never outlives its program."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from live.child import ChildFailed
from live.data_folder import SOCKET_PATH_BYTES_MAX, TEMP_PREFIX, DataFolder, FolderInUse
from live.engines import EmbeddedValkey, EngineMissing, answers, find_valkey, valkey_of
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 20.0

PROGRAM = """
import asyncio, sys
from pathlib import Path
from live.data_folder import DataFolder
from live.engines import EmbeddedValkey, find_valkey

async def main():
    with DataFolder(Path(sys.argv[1])) as folder:
        engine = EmbeddedValkey(folder, find_valkey(), bond=sys.argv[2])
        print(await engine.start(), flush=True)
        try:
            await asyncio.Event().wait()
        finally:
            await engine.stop()

asyncio.run(main())
"""


def private_folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob(f"{TEMP_PREFIX}*"))


def servers_in(folder: Path) -> list[int]:
    """Processes whose working directory is this folder's Valkey data."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if (entry / "cwd").readlink() == folder / "valkey":
                    found.append(int(entry.name))
    return found


def start_program(folder: Path, bond: str) -> "subprocess.Popen[str]":
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), bond],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline().startswith("unix://")
    return program


@pytest.fixture
async def folder(tmp_path: Path):
    with DataFolder(tmp_path / "data") as folder:
        yield folder


@pytest.mark.parametrize("bond", ["exec", "watch"])
async def test_stop_leaves_no_process_no_socket_and_no_temporary_file(tmp_path, bond):
    before = private_folders()
    with DataFolder(tmp_path / "data") as folder:
        engine = EmbeddedValkey(folder, find_valkey(), bond=bond)
        url = await engine.start()
        client = Redis.from_url(url)
        assert await client.config_get("append*", "maxmemory-policy", "port") == {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "appendfilename": "appendonly.aof",
            "appenddirname": "appendonlydir",
            "maxmemory-policy": "noeviction",
            "port": "0",
        }
        await client.aclose()
        assert engine.pid is not None
        await engine.stop()
        await engine.stop()  # harmless
        assert engine.pid is None
    assert servers_in(folder.root) == []
    assert sorted(path.name for path in folder.root.iterdir()) == ["lock", "log", "valkey"]
    assert private_folders() == before


async def test_a_killed_valkey_comes_back_with_its_data_on_the_same_socket(private_valkey):
    client = Redis.from_url(await private_valkey.start())
    await client.set("units", 7)
    first = private_valkey.pid
    os.kill(first, signal.SIGKILL)
    await until(lambda: private_valkey.restarts == 1 and private_valkey.pid not in (None, first))
    async with asyncio.timeout(DEADLINE_S):
        while True:
            with contextlib.suppress(RedisConnectionError):
                assert await client.get("units") == b"7"
                break
    await client.aclose()


async def test_a_valkey_that_dies_again_and_again_is_restarted_each_time(private_valkey):
    await private_valkey.start()
    for count in range(1, 4):
        pid = private_valkey.pid
        os.kill(pid, signal.SIGKILL)
        await until(lambda c=count: private_valkey.restarts == c and private_valkey.pid is not None)
    assert private_valkey.restarts == 3


async def test_data_survives_an_orderly_stop(folder):
    for expected in (1, 2):
        engine = EmbeddedValkey(folder, find_valkey())
        client = Redis.from_url(await engine.start())
        assert await client.incr("starts") == expected
        await client.aclose()
        await engine.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("bond", ["exec", "watch"])
async def test_a_killed_program_takes_its_valkey_with_it(tmp_path, bond):
    program = start_program(tmp_path, bond)
    assert len(servers_in(tmp_path)) == 1
    program.kill()
    program.communicate()
    await until(lambda: servers_in(tmp_path) == [])
    with DataFolder(tmp_path) as folder:  # and its folder is free at once
        assert folder.owner() != 0


async def test_even_a_frozen_valkey_dies_with_its_program(tmp_path):
    program = start_program(tmp_path, "exec")
    [server] = servers_in(tmp_path)
    os.kill(server, signal.SIGSTOP)
    program.kill()
    program.communicate()
    await until(lambda: servers_in(tmp_path) == [])


async def test_a_second_program_on_a_locked_folder_is_refused_by_name(tmp_path):
    program = start_program(tmp_path, "exec")
    try:
        before = time.monotonic()
        with pytest.raises(FolderInUse, match=rf"in use by process {program.pid} .*LIVE_DATA"):
            DataFolder(tmp_path).lock()
        assert time.monotonic() - before < 2  # a living owner is not waited for
    finally:
        program.send_signal(signal.SIGINT)
        program.communicate(timeout=DEADLINE_S)
    assert servers_in(tmp_path) == []


async def test_the_folder_stays_locked_while_an_orphaned_valkey_still_lives(folder):
    """The engine inherits the lock, so the owner's own end is not enough to free the folder."""
    engine = EmbeddedValkey(folder, find_valkey())
    await engine.start()
    folder.unlock()
    assert DataFolder(folder.root).owner() is not None
    await engine.stop()
    assert DataFolder(folder.root).owner() is None


async def test_a_long_path_gets_a_short_private_folder_which_is_removed(tmp_path):
    deep = tmp_path / ("d" * SOCKET_PATH_BYTES_MAX)
    before = private_folders()
    with DataFolder(deep) as folder:
        engine = EmbeddedValkey(folder, find_valkey())
        url = await engine.start()
        [private] = private_folders() - before
        assert str(private) in url
        assert private.stat().st_mode & 0o777 == 0o700
        async with valkey_of(DataFolder(deep), find_valkey()) as seen:
            assert seen == url
        await engine.stop()
    assert private_folders() == before


async def test_a_private_folder_left_by_a_killed_program_is_cleared(tmp_path):
    deep = tmp_path / ("d" * SOCKET_PATH_BYTES_MAX)
    before = private_folders()
    program = start_program(deep, "exec")
    program.kill()
    program.communicate()
    assert private_folders() != before
    with DataFolder(deep) as folder:
        engine = EmbeddedValkey(folder, find_valkey())
        await engine.start()
        assert len(private_folders() - before) == 1
        await engine.stop()
    assert private_folders() == before


async def test_a_valkey_that_cannot_start_says_why_and_leaves_nothing(folder):
    engine = EmbeddedValkey(folder, find_valkey(), extra=["--no-such-setting", "1"])
    with pytest.raises(ChildFailed, match="no-such-setting"):
        await engine.start()
    assert engine.pid is None
    assert not await answers(folder.live_socket())


async def test_an_unlocked_folder_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match="not locked"):
        await EmbeddedValkey(DataFolder(tmp_path), find_valkey()).start()


async def test_a_look_beside_nobody_starts_a_valkey_for_the_moment(tmp_path):
    async with valkey_of(DataFolder(tmp_path), find_valkey()) as url:
        client = Redis.from_url(url)
        assert await client.ping()
        await client.aclose()
    assert servers_in(tmp_path) == []


async def test_a_socket_that_nobody_serves_does_not_answer(tmp_path):
    assert not await answers(tmp_path / "nothing.sock")


def test_a_given_binary_is_taken_and_a_wrong_one_is_refused_by_name():
    assert find_valkey(sys.executable) == Path(sys.executable)
    with pytest.raises(EngineMissing, match="no-such-valkey"):
        find_valkey("no-such-valkey")


def test_without_the_wheel_the_path_is_searched_and_then_help_is_given(tmp_path, monkeypatch):
    monkeypatch.setattr("live.engines.WHEEL", "no_such_wheel")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineMissing, match="LIVE_VALKEY_URL"):
        find_valkey()
    for name in ("redis-server", "valkey-server"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
        assert find_valkey() == tmp_path / name  # valkey-server wins
