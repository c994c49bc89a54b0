"""What a node stands on: its data folder, its Valkey, the payment sandbox; or what it was given.

Responsible for starting the engines that the operator did not provide, in order, and for stopping
them last. It must not know what they are used for. With every address and secret given, a node
needs no folder of its own.
"""

import asyncio
import contextlib
import logging
import resource
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from live.child import ChildFailed, ChildProcess
from live.data_folder import DataFolder
from live.engines import EmbeddedValkey, find_valkey
from live.settings import Settings

log = logging.getLogger(__name__)

ROOT: Final = Path(__file__).resolve().parent.parent
SANDBOX_KEY: Final = "sk_test_vitrine_sandbox"
PROBE_S: Final = 1.0
OPEN_FILES_MAX: Final = 1 << 20
"""Where the kernel sets no limit."""


@dataclass(frozen=True, slots=True)
class Ground:
    """Addresses and secrets, found or given."""

    valkey_url: str
    database_url: str
    secret: str
    stripe_key: str
    stripe_api: str
    webhook_secrets: tuple[str, ...]
    sandbox: bool
    folder: DataFolder | None
    complete: Callable[[], Awaitable[None]]
    """Waits for what starts beside the node. Raises `child.ChildFailed`."""

    def environ(self) -> dict[str, str]:
        """The settings under which another node stands on the same ground."""
        return {
            "LIVE_VALKEY_URL": self.valkey_url,
            "LIVE_DATABASE_URL": self.database_url,
            "LIVE_SECRET": self.secret,
            "LIVE_STRIPE_KEY": self.stripe_key,
            "LIVE_STRIPE_API": self.stripe_api,
            "LIVE_STRIPE_WEBHOOK_SECRET": ",".join(self.webhook_secrets),
        }


@contextlib.asynccontextmanager
async def stand(settings: Settings, port: int) -> AsyncIterator[Ground]:
    """Everything a node needs to run; the sandbox sends its webhooks to `port` on this machine.

    Raises `data_folder.FolderInUse`, `engines.EngineMissing`, `child.ChildFailed`.
    """
    async with contextlib.AsyncExitStack() as stack:
        sandboxed = not settings.stripe_key
        # A sandbox of somebody else's (another node's) is used as it is.
        own_sandbox = sandboxed and not settings.stripe_api
        folder: DataFolder | None = None
        if own_sandbox or not (settings.valkey_url and settings.database_url and settings.secret):
            folder = stack.enter_context(DataFolder(settings.data))
        valkey_url = settings.valkey_url
        if not valkey_url:
            assert folder is not None
            engine = EmbeddedValkey(folder, find_valkey())
            valkey_url = await engine.start()
            stack.push_async_callback(engine.stop)
        secret = settings.secret or (folder.secret().hex() if folder else "")
        stripe_api, webhook_secrets = settings.stripe_api, settings.stripe_webhook_secrets
        complete = _at_once
        if own_sandbox:
            assert folder is not None
            webhook_secrets = (f"whsec_{secrets.token_hex(16)}",)
            stripe_api, sandbox = _sandbox(folder, settings, port, webhook_secrets[0])
            # It takes a second to import; nothing needs it before somebody pays.
            starting = asyncio.create_task(sandbox.start(), name="start sandbox")
            stack.push_async_callback(_stop_sandbox, sandbox, starting)

            async def complete() -> None:
                await asyncio.shield(starting)

        yield Ground(
            valkey_url=valkey_url,
            database_url=settings.database_url or (folder.database_url if folder else ""),
            secret=secret,
            stripe_key=settings.stripe_key or SANDBOX_KEY,
            stripe_api=stripe_api,
            webhook_secrets=webhook_secrets,
            sandbox=sandboxed,
            folder=folder,
            complete=complete,
        )


def open_files() -> int:
    """How many files this process may have open, after raising that limit as far as it goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS says "unlimited" and means less
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return OPEN_FILES_MAX if soft == resource.RLIM_INFINITY else min(soft, OPEN_FILES_MAX)


async def _at_once() -> None:
    """There is nothing to wait for."""


async def _stop_sandbox(sandbox: ChildProcess, starting: "asyncio.Task[None]") -> None:
    starting.cancel()
    with contextlib.suppress(asyncio.CancelledError, ChildFailed):
        await starting
    await sandbox.stop()


def _sandbox(
    folder: DataFolder, settings: Settings, node_port: int, secret: str
) -> tuple[str, ChildProcess]:
    """(address, process) of the sandbox provider, on the port it had the last time."""
    folder.sandbox.mkdir(mode=0o700, exist_ok=True)
    folder.logs.mkdir(mode=0o700, exist_ok=True)
    port = _lasting_port(folder.sandbox / "port", settings.host)
    # A phone reaches the sandbox's page where it reaches us, on the sandbox's own port.
    url = f"http://{urlsplit(settings.address).hostname}:{port}"

    async def ready() -> bool:
        try:
            async with asyncio.timeout(PROBE_S):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError):
            return False
        return True

    sandbox = ChildProcess(
        "payment sandbox",
        [
            sys.executable,
            "-m",
            "commerce.sandbox",
            "--host",
            settings.host,
            "--port",
            str(port),
            "--public-url",
            url,
            "--data",
            str(folder.sandbox),
            "--key",
            SANDBOX_KEY,
            "--webhook",
            f"http://127.0.0.1:{node_port}/api/v1/webhooks/stripe",
            "--secret",
            secret,
        ],
        log=folder.logs / "sandbox.log",
        ready=ready,
        keep_open=[folder.lock_descriptor],
        cwd=ROOT,
    )
    return url, sandbox


def _lasting_port(file: Path, host: str) -> int:
    """A free port, the same as before if it still is: open payment pages keep their address."""
    try:
        wanted = int(file.read_text())
    except (FileNotFoundError, ValueError):
        wanted = 0
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host if ":" not in host else "127.0.0.1", port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            file.write_text(str(found))
            return found
    raise ChildFailed("no port is free for the payment sandbox")
