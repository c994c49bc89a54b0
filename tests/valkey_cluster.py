"""A Valkey Cluster of the tests' own: three masters on loopback, to be killed and started again.

There is no cli in the wheel, so the cluster is made by hand: each master is given its slots and its
epoch, then they meet. Ready in about two seconds (a master that has just begun waits that long).
`cluster-require-full-coverage no`, as in production: one dead master must not stop the others.
"""

import contextlib
import ctypes
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from redis import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from live.engines import find_valkey
from tests.waiting import until_sync

MASTERS = 3
SLOTS = 16_384
NODE_TIMEOUT_MS = 2_000
PORTS = (12_000, 32_000)
"""Below those that the kernel gives to clients."""
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, and that no client is given while a master is dead."""
    found: set[int] = set()
    while len(found) < count:
        port = random.randrange(*PORTS)
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            found.add(port)
    return list(found)


class Master:
    """One master; `first` to `last` are its slots."""

    def __init__(self, folder: Path, port: int, bus: int, number: int) -> None:
        self.port = port
        self.bus = bus
        self.first = SLOTS * number // MASTERS
        self.last = SLOTS * (number + 1) // MASTERS - 1
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir()

    def start(self) -> None:
        options = {
            "port": self.port,
            "cluster-port": self.bus,
            "bind": "127.0.0.1",
            "dir": self._folder,
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "cluster-enabled": "yes",
            "cluster-config-file": "nodes.conf",
            "cluster-node-timeout": NODE_TIMEOUT_MS,
            "cluster-require-full-coverage": "no",
            "repl-diskless-sync-delay": 0,
        }
        arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
        self._process = subprocess.Popen(
            [str(find_valkey()), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            preexec_fn=_die_with_parent,
        )
        until_sync(self._answers)

    def follow(self, master: "Master") -> None:
        """Become the replica of a master; returns when it has what the master has."""
        self.ask("CLUSTER", "MEET", "127.0.0.1", master.port, master.bus)
        ident = master.ask("CLUSTER", "MYID")
        until_sync(lambda: ident in self.ask("CLUSTER", "NODES"))
        self.ask("CLUSTER", "REPLICATE", ident)
        until_sync(lambda: self.ask("INFO", "replication").get("master_link_status") == "up")

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def ask(self, *command: object) -> Any:
        """One command to this very node, answers as text."""
        with Redis(port=self.port, decode_responses=True, protocol=2) as client:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]

    def _answers(self) -> bool:
        try:
            return bool(self.ask("PING"))
        except (RedisError, OSError):
            return False


class ValkeyCluster:
    """Three masters that know each other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        ports = free_ports(2 * (MASTERS + 1))
        self.masters = [Master(folder / str(n), ports[n], ports[-1 - n], n) for n in range(MASTERS)]
        self.spare = Master(folder / "spare", ports[MASTERS], ports[-1 - MASTERS], MASTERS)
        """Not started: to become a replica."""

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{master.port}" for master in self.masters)
        return f"redis+cluster://{hosts}/"

    def __enter__(self) -> Self:
        try:
            for number, master in enumerate(self.masters):
                master.start()
                master.ask("CLUSTER", "ADDSLOTSRANGE", master.first, master.last)
                master.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            for master in self.masters[1:]:
                master.ask(
                    "CLUSTER", "MEET", "127.0.0.1", self.masters[0].port, self.masters[0].bus
                )
            self.wait_ok()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        for master in (*self.masters, self.spare):
            master.kill()
        shutil.rmtree(self._folder)

    def wait_ok(self) -> None:
        """Until every master says that all is well."""
        until_sync(lambda: all(self._is_ok(master) for master in self.masters))

    def _is_ok(self, master: Master) -> bool:
        lines = dict(line.split(":") for line in master.ask("CLUSTER", "INFO").split())
        return (
            lines["cluster_state"] == "ok"
            and lines["cluster_slots_ok"] == f"{SLOTS}"
            and lines["cluster_known_nodes"] == f"{MASTERS}"
        )

    def home(self, key: str) -> Master:
        """Who was given the slot of a key at the start."""
        slot = key_slot(key.encode())
        return next(one for one in self.masters if one.first <= slot <= one.last)

    def name_on(self, master: Master, key: Callable[[str], str], start: int = 0) -> str:
        """A name whose key lies on a master."""
        names = (f"show{n}" for n in range(start, start + 1_000))
        return next(name for name in names if self.home(key(name)) is master)

    def migrate(self, key: str, to: Master) -> None:
        """Moves the slot of a key, at once (Valkey 9)."""
        slot = key_slot(key.encode())
        source = next(one for one in self.masters if self._has(one, slot))
        ident = to.ask("CLUSTER", "MYID")
        source.ask("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", ident)
        until_sync(lambda: all(self._owner(one, slot) == to.port for one in self.masters))

    def _has(self, master: Master, slot: int) -> bool:
        return self._owner(master, slot) == master.port

    def _owner(self, master: Master, slot: int) -> int | None:
        for first, last, primary, *_ in master.ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return int(primary[1])
        return None
