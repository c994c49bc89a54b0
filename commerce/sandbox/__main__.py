"""`python -m commerce.sandbox`: start, say where it is in one JSON line, run until SIGTERM.

Responsible for the process: options, socket, start and end. It must not outlive the program that
started it, so on Linux it asks the kernel for a SIGTERM when its parent dies (PR_SET_PDEATHSIG),
and it keeps its state in a folder so that killing and restarting it loses nothing.
"""

import argparse
import asyncio
import contextlib
import ctypes
import json
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Final

import uvicorn

from commerce.sandbox.api import Api
from commerce.sandbox.faults import Faults
from commerce.sandbox.provider import Provider, new_id
from commerce.sandbox.store import Store
from commerce.sandbox.webhooks import Deliveries

PR_SET_PDEATHSIG: Final = 1
GRACE_S: Final = 1
LATE_MS: Final = 5_000


def clock() -> int:
    """Milliseconds since 1970: this is the composition root of the process."""
    return time.time_ns() // 1_000_000


def options(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m commerce.sandbox", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--data", type=Path, required=True, help="folder for its one file")
    parser.add_argument("--public-url", help="how a browser reaches it (default: where it listens)")
    parser.add_argument("--key", default="sk_test_sandbox", help="API key that it accepts")
    parser.add_argument("--webhook", help="URL that gets all events")
    parser.add_argument("--secret", help="secret that signs them (default: made and printed)")
    parser.add_argument("--late-ms", type=int, default=LATE_MS, help="how late late money is")
    parser.add_argument("--print-url", action="store_true", help="print the URL alone, not JSON")
    return parser.parse_args(arguments)


def die_with_parent() -> None:
    """SIGTERM when the parent is gone, also if it went before this line."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


async def serve(chosen: argparse.Namespace, listener: socket.socket) -> None:
    """Until SIGTERM or SIGINT."""
    port = listener.getsockname()[1]
    url = f"http://{chosen.host}:{port}"
    public = (chosen.public_url or url).rstrip("/")
    chosen.data.mkdir(parents=True, exist_ok=True)
    store = Store(chosen.data / "sandbox.sqlite3")
    faults = Faults()
    provider = Provider(store, faults, clock, base_url=lambda: public, late_ms=chosen.late_ms)

    def tick() -> None:
        with store.transaction():
            provider.tick()

    deliveries = Deliveries(store, clock, tick)
    secret = None
    if chosen.webhook:
        secret = chosen.secret or store.setting("webhook_secret", new_id("whsec", 32))
        with store.transaction():
            store.set_setting("webhook_secret", secret)
            provider.create_endpoint(chosen.webhook, ["*"], secret)
    api = Api(store, provider, faults, api_key=chosen.key, wake=deliveries.wake)
    config = uvicorn.Config(
        api.app(),
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=GRACE_S,
    )
    server = uvicorn.Server(config)

    def end(*_signal: object) -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)  # uvicorn raises what ended it once more: end with status 0
    sender = asyncio.create_task(deliveries.run())
    said = url if chosen.print_url else json.dumps({"url": url, "webhook_secret": secret})
    sys.stdout.write(said + "\n")
    sys.stdout.flush()
    try:
        await server.serve(sockets=[listener])
    finally:
        sender.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sender
        store.close()


def main() -> None:
    """Run."""
    die_with_parent()
    logging.basicConfig(level=logging.WARNING)
    chosen = options(sys.argv[1:])
    listener = socket.create_server((chosen.host, chosen.port), backlog=1024)
    asyncio.run(serve(chosen, listener))


if __name__ == "__main__":
    main()
