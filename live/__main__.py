"""`python -m live`: the program.

Responsible for the command line: what an operator types, and what is printed for a person. It must
not hold any logic of the product; each command reads settings, opens what it needs and closes it.
"""

import asyncio
import contextlib
import json
import logging
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import msgspec
import typer

from commerce.errors import BadCurrency, UnknownDrop
from commerce.people import MasterLost, OrdersUnderWay
from live import collector
from live.accounts import PASSWORD_CHARS_MIN, Accounts
from live.app import (
    App,
    clock,
    examine_node,
    make_asgi,
    open_app,
    open_office,
    restore_database,
)
from live.backup_sql import BadBackup
from live.child import ChildFailed
from live.data_folder import FolderInUse
from live.demo import DEMO_SHOW, open_demo
from live.engines import EngineMissing
from live.identity import Role
from live.imports import import_file
from live.node import ROOT, Ground, stand
from live.nodes import READY_LINE, Nodes
from live.server_uvicorn import Server, inherited, listen, make_server, serve
from live.settings import VARIABLES, BadSettings, Settings, environ_with
from realtime.crowd import new_loop
from realtime.errors import Rejected

NOISY: Final = ("alembic", "httpx", "httpcore", "stripe")
"""Libraries that log each request, some of them with its address."""

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
person_cli = typer.Typer(help="What is held about buyers.", no_args_is_help=True)
cli.add_typer(person_cli, name="person")
user_cli = typer.Typer(help="Accounts of people who run shows.", no_args_is_help=True)
cli.add_typer(user_cli, name="user")

Host = Annotated[str | None, typer.Option(help="Address to listen on (LIVE_HOST).")]
Port = Annotated[int | None, typer.Option(help="Port to listen on (LIVE_PORT).", min=0, max=65535)]
Data = Annotated[Path | None, typer.Option(help="Data folder (LIVE_DATA).")]
Count = Annotated[int | None, typer.Option(help="Processes on the port (LIVE_NODES).", min=1)]


def _settings(**flags: object) -> Settings:
    """Settings of the environment, overruled by flags. Ends the program if they make no sense."""
    given = {
        f"LIVE_{name.upper()}": str(value) for name, value in flags.items() if value is not None
    }
    try:
        settings = Settings.from_environ(flags=given)
    except BadSettings as wrong:
        _fail(str(wrong))
    which = f"[{settings.node_name}] " if settings.node_name else ""
    logging.basicConfig(
        level=settings.log_level.upper(),
        format=f"%(asctime)s %(levelname)-7s {which.replace('%', '%%')}%(name)s: %(message)s",
        stream=sys.stderr,
    )
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return settings


def _fail(text: str) -> NoReturn:
    typer.echo(f"vitrine: {text}", err=True)
    raise SystemExit(2)


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run a command; what an operator can mend is one sentence, not a stack."""
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(work)
    except (FolderInUse, EngineMissing, ChildFailed, MasterLost) as wrong:
        _fail(str(wrong))
    except KeyboardInterrupt:
        raise SystemExit(130) from None


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
    settings = _settings(host=host, port=port, data=data, nodes=nodes)
    _run(run_node(settings, demo=False) if settings.nodes == 1 else run_nodes(settings))


@cli.command("demo")
def demo_command(host: Host = None, port: Port = None, data: Data = None) -> None:
    """Run a node with a demo show, a sample catalogue and a looped video."""
    _run(run_node(_settings(host=host, port=port, data=data), demo=True))


@cli.command("node", hidden=True)
def node_command(listener: int) -> None:
    """Run one of several nodes; `serve --nodes` starts these, with an open listening socket."""
    _run(_run_child(_settings(), inherited(listener)))


def _bind(settings: Settings) -> tuple[socket.socket, Settings]:
    """The listening socket, and the settings with the port that it has."""
    try:
        listener = listen(settings.host, settings.port)
    except OSError as taken:
        _fail(f"cannot listen on {settings.host}:{settings.port} ({taken.strerror})")
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
    if not await accounts.any():
        lines.append(f"  host console   {await _first_link(accounts, settings.address)}")
        lines.append(
            "                 (signs in once, within a day; more: python -m live user link)"
        )
    elif demo:
        lines.append(f"  host console   {await _link(accounts, 'host', settings.address)}")
    else:
        lines.append(f"  host console   {settings.address}/host")
    if demo:
        lines.append(f"  demo show      {settings.address}/show/{DEMO_SHOW}")
    if ground.sandbox:
        lines.append("  payments       a sandbox: no real money (set LIVE_STRIPE_KEY for Stripe)")
    lines.append("  stop           Ctrl-C")
    typer.echo("\n".join(lines))
    sys.stdout.flush()


async def _first_link(accounts: Accounts, address: str) -> str:
    await accounts.add("host", "Host", Role.HOST)
    return await _link(accounts, "host", address)


async def _link(accounts: Accounts, login: str, address: str) -> str:
    found = await accounts.by_login(login)
    if found is None:
        return f"{address}/host"
    return f"{address}/host#link={await accounts.make_link(found.id)}"


@cli.command("import")
def import_command(
    file: Annotated[typer.FileBinaryRead, typer.Argument(help="A Shopify product CSV.")],
    currency: Annotated[str, typer.Option(help="Currency of its prices, as in USD.", prompt=True)],
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Import products. Nothing is imported if a row is wrong; the report says which and why."""
    settings = _settings(data=data)
    _run(_import(settings, file.read(), currency.upper(), as_json=as_json))


async def _import(settings: Settings, data: bytes, currency: str, *, as_json: bool) -> None:
    try:
        async with open_office(settings) as office:
            report = await import_file(office.catalog, office.shop, data, currency)
    except BadCurrency:
        _fail(f"{currency} is not a currency we know")
    except Rejected as refused:
        problems = refused.details.get("problems")
        if as_json:
            typer.echo(json.dumps({"code": refused.code, **refused.details}))
        for problem in problems if isinstance(problems, list) and not as_json else []:
            typer.echo(f"line {problem['line']}, {problem['column']}: {problem['sentence']}")
        _fail(refused.message)
    if as_json:
        typer.echo(msgspec.json.encode(report).decode())
        return
    for product in report.products:
        typer.echo(f"{product.outcome:9}  {product.handle}  ({len(product.skus)} variants)")
    typer.echo(", ".join(f"{name.replace('_', ' ')} {n}" for name, n in report.counts.items()))


@user_cli.command("add")
def user_add(
    login: Annotated[str, typer.Argument(help="Login, as in an e-mail address.")],
    name: Annotated[str | None, typer.Option(help="Shown in the chat.")] = None,
    role: Annotated[Role, typer.Option(help="What they may do.")] = Role.HOST,
    data: Data = None,
) -> None:
    """Create an account (or find it) and print a one-time sign-in link."""
    settings = _settings(data=data)
    _run(_user_add(settings, login, name or login, role))


async def _user_add(settings: Settings, login: str, name: str, role: Role) -> None:
    async with open_office(settings) as office:
        accounts = office.accounts
        account = await accounts.add(login, name, role)
        typer.echo(f"account: {account.id} {account.login} ({account.role})")
        typer.echo(f"link: {settings.address}/host#link={await accounts.make_link(account.id)}")


@user_cli.command("link")
def user_link(
    login: Annotated[str, typer.Argument(help="Login of an account.")], data: Data = None
) -> None:
    """Print a one-time sign-in link, good for a day."""
    _run(_user_link(_settings(data=data), login))


async def _user_link(settings: Settings, login: str) -> None:
    async with open_office(settings) as office:
        accounts = office.accounts
        account = await accounts.by_login(login)
        if account is None:
            _fail(f"there is no account {login}")
        typer.echo(f"link: {settings.address}/host#link={await accounts.make_link(account.id)}")


@user_cli.command("password")
def user_password(
    login: Annotated[str, typer.Argument(help="Login of an account.")],
    password: Annotated[str, typer.Option(prompt=True, confirmation_prompt=True, hide_input=True)],
    data: Data = None,
) -> None:
    """Set a password."""
    if len(password) < PASSWORD_CHARS_MIN:
        _fail(f"a password needs at least {PASSWORD_CHARS_MIN} characters")
    _run(_user_password(_settings(data=data), login, password))


async def _user_password(settings: Settings, login: str, password: str) -> None:
    async with open_office(settings) as office:
        if not await office.accounts.set_password(login, password):
            _fail(f"there is no account {login}")
    typer.echo("done")


Person = Annotated[str, typer.Argument(help="A viewer's id, as an order shows it.")]


@person_cli.command("export")
def person_export(person: Person, data: Data = None) -> None:
    """Print everything that is held about a person, as JSON."""
    _run(_person_export(_settings(data=data), person))


async def _person_export(settings: Settings, person: str) -> None:
    async with open_office(settings) as office:
        typer.echo(json.dumps(await office.people.export(person), indent=2, ensure_ascii=False))


@person_cli.command("erase")
def person_erase(
    person: Person,
    force: Annotated[bool, typer.Option(help="Also while an order is under way.")] = False,
    data: Data = None,
) -> None:
    """Forget a person: their key is destroyed, in every copy of the database as well."""
    _run(_person_erase(_settings(data=data), person, force=force))


async def _person_erase(settings: Settings, person: str, *, force: bool) -> None:
    async with open_office(settings) as office:
        try:
            await office.people.erase(person, clock(), force=force)
        except OrdersUnderWay as busy:
            _fail(f"{busy.holds} reserved and {busy.orders} ordered things; --force forgets anyway")
    typer.echo("forgotten")


@cli.command("backup")
def backup_command(
    file: Annotated[Path, typer.Argument(help="A new file, as in shop.backup.")], data: Data = None
) -> None:
    """Copy the whole database into one file, also while the shop is open."""
    _run(_backup(_settings(data=data), file))


async def _backup(settings: Settings, file: Path) -> None:
    async with open_office(settings) as office:
        try:
            made = await office.backup(file)
        except FileExistsError:
            _fail(f"{file} is there already")
    typer.echo(f"{sum(made.rows.values())} rows of schema {made.revision} in {file}")


@cli.command("restore")
def restore_command(
    file: Annotated[Path, typer.Argument(help="A file that `backup` made.")], data: Data = None
) -> None:
    """Fill an empty database with a copy; who was erased since is forgotten again."""
    _run(_restore(_settings(data=data), file))


async def _restore(settings: Settings, file: Path) -> None:
    try:
        found, forgotten = await restore_database(settings, file)
    except BadBackup as wrong:
        _fail(str(wrong))
    typer.echo(f"{sum(found.rows.values())} rows restored; {forgotten} persons forgotten again")


@cli.command("claims")
def claims_command(
    drop: Annotated[str, typer.Argument(help="Id of a sale.")],
    data: Data = None,
    check: Annotated[bool, typer.Option("--check", help="Judge the order instead.")] = False,
) -> None:
    """Print all claims of a sale as CSV, or check their order (JSON; status 1: wrong)."""
    settings = _settings(data=data)
    _run(_check_claims(settings, drop) if check else _print_claims(settings, drop))


async def _print_claims(settings: Settings, drop: str) -> None:
    async with open_office(settings) as office:
        try:
            chunks = await office.audit.csv(drop)
        except UnknownDrop:
            _fail(f"there is no sale {drop}")
        async for chunk in chunks:
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()


async def _check_claims(settings: Settings, drop: str) -> None:
    async with open_office(settings) as office:
        try:
            report = await office.audit.check(drop)
        except UnknownDrop:
            _fail(f"there is no sale {drop}")
        flagged = await office.audit.flagged(drop)
    typer.echo(json.dumps({"ok": report.ok, **asdict(report), "flagged": flagged}))
    if not report.ok:
        raise SystemExit(1)


@cli.command("doctor")
def doctor_command(
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check engines, settings and this machine, and say what to do about what is wrong."""
    _run(_doctor(_settings(data=data), as_json=as_json))


async def _doctor(settings: Settings, *, as_json: bool) -> None:
    from live import doctor

    findings = await examine_node(settings)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        typer.echo(doctor.as_text(findings))
    if doctor.worst(findings) == "fail":
        raise SystemExit(1)


if __name__ == "__main__":
    cli()
