"""`python -m live`: the program.

Responsible for the command line: what an operator types, and what is printed for a person. It must
not hold any logic of the product; each command reads settings, opens what it needs and closes it.
"""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated

import typer

from commerce.errors import Unavailable
from live import collector
from live.accounts import Accounts
from live.app import App, make_asgi, open_app
from live.demo import DEMO_SHOW, open_demo
from live.desk import desk_cli
from live.identity import Role
from live.node import ROOT, Ground, stand
from live.nodes import READY_LINE, Nodes
from live.office import open_office
from live.server_uvicorn import Server, inherited, listen, make_server, serve
from live.settings import VARIABLES, Settings, environ_with
from live.terminal import Data, fail, run, settings_of

_table = "\n\n".join(
    f"{v.name} {f'(default {v.default})' if v.default else '(default: none)'}: {v.meaning}"
    for v in VARIABLES
)
cli = typer.Typer(
    name="python -m live",
    help="Vitrine: a server for live-stream shopping.\n\n"
    "`serve` runs a node; `demo` runs one with a show to look at. Settings come from the "
    "environment; unknown LIVE_ names are refused.",
    epilog=_table,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

cli.add_typer(desk_cli)

Host = Annotated[str | None, typer.Option(help="Address to listen on (LIVE_HOST).")]
Port = Annotated[int | None, typer.Option(help="Port to listen on (LIVE_PORT).", min=0, max=65535)]
Count = Annotated[int | None, typer.Option(help="Processes on the port (LIVE_NODES).", min=1)]


class Stop:
    """SIGINT or SIGTERM: the first asks for an orderly end, the second does not wait for it."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.at_once = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._press)

    def _press(self) -> None:
        (self.at_once if self.asked.is_set() else self.asked).set()


@cli.command("serve")
def serve_command(
    host: Host = None, port: Port = None, data: Data = None, nodes: Count = None
) -> None:
    """Run a node: the room, the shop, the pages. With --nodes several on the one port."""
    settings = settings_of(host=host, port=port, data=data, nodes=nodes)
    run(run_node(settings, demo=False) if settings.nodes == 1 else run_nodes(settings))


@cli.command("demo")
def demo_command(host: Host = None, port: Port = None, data: Data = None) -> None:
    """Run a node with a demo show, a sample catalogue and a looped video."""
    run(run_node(settings_of(host=host, port=port, data=data), demo=True))


@cli.command("node", hidden=True)
def node_command(listener: int) -> None:
    """Run one of several nodes; `serve --nodes` starts these, with an open listening socket."""
    run(_run_child(settings_of(), inherited(listener)))


def _bind(settings: Settings) -> tuple[socket.socket, Settings]:
    """The listening socket, and the settings with the port that it has."""
    try:
        listener = listen(settings.host, settings.port)
    except OSError as taken:
        fail(f"cannot listen on {settings.host}:{settings.port} ({taken.strerror})")
    return listener, replace(settings, port=listener.getsockname()[1])


async def run_node(settings: Settings, *, demo: bool) -> None:
    """Until SIGINT or SIGTERM; then viewers are told, and everything is closed in order."""
    listener, bound = _bind(settings)
    stop = Stop()
    with contextlib.closing(listener):
        async with (
            stand(bound, bound.port) as ground,
            open_app(bound, ground, bound.address) as app,
        ):
            if demo:
                await open_demo(app)

            async def greet() -> None:
                await ground.complete()
                await _greet(bound, ground, app.accounts, demo=demo)

            await _serve(bound, app, listener, stop, greet)


async def _run_child(settings: Settings, listener: socket.socket) -> None:
    """One of several: the parent has the engines, and is told when this one serves."""
    stop = Stop()

    async def tell() -> None:
        typer.echo(READY_LINE)
        sys.stdout.flush()

    with contextlib.closing(listener):
        async with (
            stand(settings, settings.port) as ground,
            open_app(settings, ground, settings.address) as app,
        ):
            await _serve(settings, app, listener, stop, tell)


async def run_nodes(settings: Settings) -> None:
    """The parent of several: owns folder, Valkey, sandbox and listener, and serves nobody."""
    listener, bound = _bind(settings)
    stop = Stop()
    with contextlib.closing(listener):
        async with stand(bound, bound.port) as ground:

            def environ(name: str) -> dict[str, str]:
                own = {"LIVE_NODE_NAME": name, "LIVE_NODES": "1", "LIVE_PORT": str(bound.port)}
                where = {"LIVE_HOST": bound.host, "LIVE_DATA": str(bound.data)}
                return environ_with({**ground.environ(), **where, **own})

            nodes = Nodes(
                [f"{bound.node}-{number}" for number in range(1, bound.nodes + 1)],
                [sys.executable, "-m", "live", "node", str(listener.fileno())],
                environ,
                keep_open=[listener.fileno()],
                cwd=ROOT,
            )
            # Before they start, so that they find nothing left to migrate.
            async with open_office(replace(bound, database_url=ground.database_url)) as office:
                await nodes.start()
                try:
                    await ground.complete()
                    await _greet(bound, ground, office.accounts, demo=False)
                    await stop.asked.wait()
                finally:
                    listener.close()  # the children close theirs; now the port refuses
                    hurry = asyncio.create_task(_when(stop.at_once, nodes.kill))
                    await nodes.stop(bound.drain_s)
                    hurry.cancel()


async def _when(event: asyncio.Event, act: Callable[[], object]) -> None:
    await event.wait()
    act()


async def _serve(
    settings: Settings,
    app: App,
    listener: socket.socket,
    stop: Stop,
    ready: Callable[[], Awaitable[None]],
) -> None:
    """Serve until asked to end; then accept nobody, send everybody away, and end."""
    server = make_server(
        make_asgi(app, settings.origins, settings.address),
        log_level=settings.log_level,
        proxies=settings.trusted_proxies,
    )
    started = asyncio.Event()
    serving = asyncio.create_task(serve(server, listener, started), name="server")
    asked = asyncio.create_task(stop.asked.wait(), name="signal")
    await started.wait()
    collector.tune()
    await ready()
    await asyncio.wait({serving, asked}, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    server.stop_accepting()
    leaving = asyncio.create_task(_leave(settings, app, server), name="drain")

    def end_now() -> None:
        leaving.cancel()
        server.stop()
        server.stop()

    hurry = asyncio.create_task(_when(stop.at_once, end_now))
    await asyncio.wait({leaving})
    await serving
    hurry.cancel()


async def _leave(settings: Settings, app: App, server: Server) -> None:
    where = settings.elsewhere_url or None
    try:
        await app.hub.drain(settings.drain_s, spread_ms=settings.drain_s * 1000, url=where)
    finally:
        server.stop()


async def _greet(settings: Settings, ground: Ground, accounts: Accounts, *, demo: bool) -> None:
    """What a newcomer has to know, and nothing else."""
    lines = [f"Vitrine is running at {settings.address}"]
    try:
        lines += await _console(settings, accounts, demo=demo)
    except Unavailable:  # a database that blinks now is no reason not to serve
        lines.append(f"  host console   {settings.address}/host")
    if demo:
        lines.append(f"  demo show      {settings.address}/show/{DEMO_SHOW}")
    if ground.sandbox:
        lines.append("  payments       a sandbox: no real money (set LIVE_STRIPE_KEY for Stripe)")
    lines.append("  stop           Ctrl-C")
    typer.echo("\n".join(lines))
    sys.stdout.flush()


async def _console(settings: Settings, accounts: Accounts, *, demo: bool) -> list[str]:
    """Where the host signs in."""
    if not await accounts.any():
        return [
            f"  host console   {await _first_link(accounts, settings.address)}",
            "                 (signs in once, within a day; more: python -m live user link)",
        ]
    if demo:
        return [f"  host console   {await _link(accounts, 'host', settings.address)}"]
    return [f"  host console   {settings.address}/host"]


async def _first_link(accounts: Accounts, address: str) -> str:
    await accounts.add("host", "Host", Role.HOST)
    return await _link(accounts, "host", address)


async def _link(accounts: Accounts, login: str, address: str) -> str:
    found = await accounts.by_login(login)
    if found is None:
        return f"{address}/host"
    return f"{address}/host#link={await accounts.make_link(found.id)}"


if __name__ == "__main__":
    cli()
