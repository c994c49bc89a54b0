"""The folder in which one node keeps everything: lock, secret, database, Valkey's data, logs.

Responsible for who may use it (one process at a time, by an advisory file lock) and for where
things lie. It must not open a database or start an engine. The lock is a `flock`: the kernel drops
it when the last holder is gone, so there is no stale lock to clean. Engines inherit the lock's
descriptor: should one survive its parent for a moment, the folder stays locked until it is gone,
because two Valkeys on one append-only file destroy it.

    lock  secret  vitrine.db  valkey/  valkey.sock  sandbox/  log/

Not for network file systems: neither SQLite nor Valkey can be trusted there.
"""

import fcntl
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

SECRET_BYTES: Final = 32
"""256 bits, the size of the HMAC-SHA256 key that signs identities."""
SOCKET_PATH_BYTES_MAX: Final = 100
"""Of a Unix socket. The kernel allows 107 on Linux and 103 on macOS."""
RELEASE_WAIT_S: Final = 5.0
"""How long a killed owner's engine may take to die with it."""
RELEASE_POLL_S: Final = 0.05
TEMP_PREFIX: Final = "vitrine-"


class FolderInUse(Exception):
    """Another process works in this data folder; the text says which and what to do."""


class DataFolder:
    """Paths of one data folder, and the lock on it. Use `lock` before writing anything in it."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.database = self.root / "vitrine.db"
        self.valkey = self.root / "valkey"
        self.sandbox = self.root / "sandbox"
        self.logs = self.root / "log"
        self._lock_file = self.root / "lock"
        self._secret_file = self.root / "secret"
        self._elsewhere = self.root / "socket-folder"
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        self.lock()
        return self

    def __exit__(self, *_error: object) -> None:
        self.unlock()

    @property
    def lock_descriptor(self) -> int:
        """For engines to inherit. Raises RuntimeError when the folder is not locked."""
        if self._descriptor is None:
            raise RuntimeError(f"the data folder {self.root} is not locked")
        return self._descriptor

    @property
    def database_url(self) -> str:
        """Where the embedded SQLite lies, as a URL."""
        return f"sqlite:///{self.database}"

    def lock(self) -> None:
        """Make the folder (mode 0700) if need be and take it. Raises FolderInUse, OSError."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._wait_for(descriptor)
            os.truncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode())
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def unlock(self) -> None:
        """Give the folder back. The lock file stays: removing it would let two processes in."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def owner(self) -> int | None:
        """The process that holds the lock now, or None. 0 when it cannot be told which."""
        try:
            descriptor = os.open(self._lock_file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            return None if _try_lock(descriptor) else _written_owner(descriptor)[0]
        finally:
            os.close(descriptor)

    def secret(self, token_bytes: Callable[[int], bytes] = secrets.token_bytes) -> bytes:
        """The node's signing secret, SECRET_BYTES long, made on first use with mode 0600.

        Raises ValueError when the file has another length: a cut secret must not be used, and
        replacing it would silently sign everybody out.
        """
        try:
            found = self._secret_file.read_bytes()
        except FileNotFoundError:
            found = self._make_secret(token_bytes(SECRET_BYTES))
        if len(found) != SECRET_BYTES:
            raise ValueError(
                f"{self._secret_file} should hold {SECRET_BYTES} bytes, not {len(found)}: bring it "
                "back from a backup, or delete it, which signs everybody out"
            )
        return found

    def socket_path(self) -> Path:
        """Where Valkey's socket goes: in the folder, or in a private one where paths are short.

        Call it with the lock held. A folder left by a killed process is cleared away first.
        """
        self.clear_socket()
        path = self.root / "valkey.sock"
        if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
            return path
        base = tempfile.gettempdir()
        if len(base) > SOCKET_PATH_BYTES_MAX // 2:
            base = "/tmp"
        folder = Path(tempfile.mkdtemp(prefix=TEMP_PREFIX, dir=base))  # mode 0700
        self._elsewhere.write_text(str(folder))
        return folder / "valkey.sock"

    def live_socket(self) -> Path:
        """Where the process that holds the lock has its Valkey's socket."""
        try:
            return Path(self._elsewhere.read_text()) / "valkey.sock"
        except FileNotFoundError:
            return self.root / "valkey.sock"

    def clear_socket(self) -> None:
        """Remove the socket and the private folder it may be in. Call it with the lock held."""
        path = self.live_socket()
        path.unlink(missing_ok=True)
        if path.parent != self.root and path.parent.name.startswith(TEMP_PREFIX):
            if path.parent.is_dir():
                path.parent.rmdir()
            self._elsewhere.unlink()

    def _make_secret(self, secret: bytes) -> bytes:
        """Write it beside and link it into place: a half-written secret is never seen."""
        draft = self._secret_file.with_name(f"secret.{os.getpid()}")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, secret)
            os.fsync(descriptor)
            os.link(draft, self._secret_file)
        except FileExistsError:
            return self._secret_file.read_bytes()
        finally:
            os.close(descriptor)
            draft.unlink()
        return secret

    def _wait_for(self, descriptor: int) -> None:
        """Take the lock; wait only when the owner itself is dead and an engine still dies."""
        deadline = time.monotonic() + RELEASE_WAIT_S
        while not _try_lock(descriptor):
            pid, host = _written_owner(descriptor)
            if (pid and _alive(pid)) or time.monotonic() > deadline:
                raise FolderInUse(
                    f"The data folder {self.root} is in use by process {pid or '?'} on {host}. "
                    "Stop that process, or give this one a folder of its own (LIVE_DATA). "
                    "Two nodes of one shop share LIVE_VALKEY_URL and LIVE_DATABASE_URL, not a "
                    "data folder."
                )
            time.sleep(RELEASE_POLL_S)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _written_owner(descriptor: int) -> tuple[int, str]:
    pid, _, host = os.pread(descriptor, 300, 0).decode(errors="replace").strip().partition(" ")
    return (int(pid) if pid.isdecimal() else 0), host or "this machine"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
