"""The commands beside a running node: people, products, copies, and the order of claims.

Responsible for what an operator types there and what is printed for a person. It must not hold any
logic of the product; each command opens the database, asks, and closes it.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from commerce.errors import BadCurrency, CommerceError, UnknownDrop
from commerce.people import OrdersUnderWay
from commerce.raffle import lot
from live.accounts import PASSWORD_CHARS_MIN
from live.api_back_office import DAY_MS, view_report
from live.app import examine_node
from live.backup import BadBackup
from live.identity import Role
from live.imports import import_file
from live.office import open_books, open_office, restore_database
from live.settings import Settings
from live.terminal import Data, fail, run, settings_of
from live.trade import clock
from realtime.errors import Rejected

desk_cli = typer.Typer()
person_cli = typer.Typer(help="What is held about buyers.", no_args_is_help=True)
desk_cli.add_typer(person_cli, name="person")
user_cli = typer.Typer(help="Accounts of people who run shows.", no_args_is_help=True)
desk_cli.add_typer(user_cli, name="user")


@desk_cli.command("import")
def import_command(
    file: Annotated[typer.FileBinaryRead, typer.Argument(help="A Shopify product CSV.")],
    currency: Annotated[str, typer.Option(help="Currency of its prices, as in USD.", prompt=True)],
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Import products. Nothing is imported if a row is wrong; the report says which and why."""
    settings = settings_of(data=data)
    run(_import(settings, file.read(), currency.upper(), as_json=as_json))


async def _import(settings: Settings, data: bytes, currency: str, *, as_json: bool) -> None:
    try:
        async with open_office(settings) as office:
            report = await import_file(office.catalog, office.shop, data, currency)
    except BadCurrency:
        fail(f"{currency} is not a currency we know")
    except Rejected as refused:
        problems = refused.details.get("problems")
        if as_json:
            typer.echo(json.dumps({"code": refused.code, **refused.details}))
        for problem in problems if isinstance(problems, list) and not as_json else []:
            typer.echo(f"line {problem['line']}, {problem['column']}: {problem['sentence']}")
        fail(refused.message)
    if as_json:
        typer.echo(msgspec.json.encode(report).decode())
        return
    for product in report.products:
        typer.echo(f"{product.outcome:9}  {product.handle}  ({len(product.skus)} variants)")
    typer.echo(", ".join(f"{name.replace('_', ' ')} {n}" for name, n in report.counts.items()))


@desk_cli.command("raffle")
def raffle_command(
    drop: Annotated[str, typer.Argument(help="Id of a drop, as in d_….")],
    check: Annotated[bool, typer.Option(help="Fail unless it was drawn as promised.")] = True,
    data: Data = None,
) -> None:
    """Recompute a draw from the seed that was promised before it and the ids of the entries."""
    run(_raffle(settings_of(data=data), drop, check=check))


async def _raffle(settings: Settings, drop: str, *, check: bool) -> None:
    try:
        async with open_office(settings) as office:
            draw = await office.lists.draw(drop)
    except UnknownDrop:
        fail(f"there is no raffle {drop}")
    raffle = draw.drop.raffle
    assert raffle is not None
    typer.echo(f"promised  {raffle.seed_sha}")
    if raffle.seed is None:
        typer.echo(f"not drawn yet, {draw.entered} entries")
        return
    typer.echo(f"seed      {raffle.seed}")
    for rank, entry in enumerate(draw.entries, start=1):
        typer.echo(f"{rank:8}  {lot(raffle.seed, entry)}  {entry}")
    typer.echo("drawn as promised" if draw.right else "NOT drawn as promised")
    if check and not draw.right:
        raise SystemExit(1)


@user_cli.command("add")
def user_add(
    login: Annotated[str, typer.Argument(help="Login, as in an e-mail address.")],
    name: Annotated[str | None, typer.Option(help="Shown in the chat.")] = None,
    role: Annotated[Role, typer.Option(help="What they may do.")] = Role.HOST,
    data: Data = None,
) -> None:
    """Create an account (or find it) and print a one-time sign-in link."""
    settings = settings_of(data=data)
    run(_user_add(settings, login, name or login, role))


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
    run(_user_link(settings_of(data=data), login))


async def _user_link(settings: Settings, login: str) -> None:
    async with open_office(settings) as office:
        accounts = office.accounts
        account = await accounts.by_login(login)
        if account is None:
            fail(f"there is no account {login}")
        typer.echo(f"link: {settings.address}/host#link={await accounts.make_link(account.id)}")


@user_cli.command("password")
def user_password(
    login: Annotated[str, typer.Argument(help="Login of an account.")],
    password: Annotated[str, typer.Option(prompt=True, confirmation_prompt=True, hide_input=True)],
    data: Data = None,
) -> None:
    """Set a password."""
    if len(password) < PASSWORD_CHARS_MIN:
        fail(f"a password needs at least {PASSWORD_CHARS_MIN} characters")
    run(_user_password(settings_of(data=data), login, password))


async def _user_password(settings: Settings, login: str, password: str) -> None:
    async with open_office(settings) as office:
        if not await office.accounts.set_password(login, password):
            fail(f"there is no account {login}")
    typer.echo("done")


Person = Annotated[str, typer.Argument(help="A viewer's id, as an order shows it.")]


@person_cli.command("export")
def person_export(person: Person, data: Data = None) -> None:
    """Print everything that is held about a person, as JSON."""
    run(_person_export(settings_of(data=data), person))


async def _person_export(settings: Settings, person: str) -> None:
    async with open_office(settings) as office:
        found = await (await office.people()).export(person)
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))


@person_cli.command("erase")
def person_erase(
    person: Person,
    force: Annotated[bool, typer.Option(help="Also while an order is under way.")] = False,
    data: Data = None,
) -> None:
    """Forget a person: their key is destroyed here, and again in a copy that is restored."""
    run(_person_erase(settings_of(data=data), person, force=force))


async def _person_erase(settings: Settings, person: str, *, force: bool) -> None:
    async with open_office(settings) as office:
        try:
            await (await office.people()).erase(person, clock(), force=force)
        except OrdersUnderWay as busy:
            fail(
                f"{busy.holds} things being paid and {busy.orders} ordered; --force forgets anyway"
            )
    typer.echo("forgotten")


@desk_cli.command("backup")
def backup_command(
    file: Annotated[Path, typer.Argument(help="A new file, as in shop.backup.")], data: Data = None
) -> None:
    """Copy the whole database into one file, also while the shop is open."""
    run(_backup(settings_of(data=data), file))


async def _backup(settings: Settings, file: Path) -> None:
    async with open_office(settings) as office:
        try:
            made = await office.backup(file)
        except FileExistsError:
            fail(f"{file} is there already")
    typer.echo(f"{sum(made.rows.values())} rows of schema {made.revision} in {file}")


@desk_cli.command("restore")
def restore_command(
    file: Annotated[Path, typer.Argument(help="A file that `backup` made.")], data: Data = None
) -> None:
    """Fill an empty database with a copy; who was erased since is forgotten again."""
    run(_restore(settings_of(data=data), file))


async def _restore(settings: Settings, file: Path) -> None:
    try:
        found, forgotten = await restore_database(settings, file)
    except BadBackup as wrong:
        fail(str(wrong))
    typer.echo(f"{sum(found.rows.values())} rows restored; {forgotten} persons forgotten again")


@desk_cli.command("claims")
def claims_command(
    drop: Annotated[str, typer.Argument(help="Id of a sale.")],
    data: Data = None,
    check: Annotated[bool, typer.Option("--check", help="Judge the order instead.")] = False,
) -> None:
    """Print all claims of a sale as CSV, or check their order (JSON; status 1: wrong)."""
    settings = settings_of(data=data)
    run(_check_claims(settings, drop) if check else _print_claims(settings, drop))


async def _print_claims(settings: Settings, drop: str) -> None:
    async with open_office(settings) as office:
        try:
            chunks = await office.audit.csv(drop)
        except UnknownDrop:
            fail(f"there is no sale {drop}")
        async for chunk in chunks:
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()


async def _check_claims(settings: Settings, drop: str) -> None:
    async with open_office(settings) as office:
        try:
            report = await office.audit.check(drop)
        except UnknownDrop:
            fail(f"there is no sale {drop}")
        flagged = await office.audit.flagged(drop)
    typer.echo(json.dumps({"ok": report.ok, **asdict(report), "flagged": flagged}))
    if not report.ok:
        raise SystemExit(1)


@desk_cli.command("reconcile")
def reconcile_command(
    days: Annotated[int, typer.Option(help="How far back.", min=1, max=366)] = 3,
    recover: Annotated[
        bool, typer.Option("--recover", help="Make orders anew that only the provider knows.")
    ] = False,
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Compare our books with the payment provider's. Ends with 1 if they differ."""
    settings = settings_of(data=data)
    if not settings.stripe_key:
        fail("set LIVE_STRIPE_KEY: a sandbox is compared by the node that runs it")
    run(_reconcile(settings, days, recover=recover, as_json=as_json))


async def _reconcile(settings: Settings, days: int, *, recover: bool, as_json: bool) -> None:
    try:
        async with open_books(settings) as (check, recovery):
            if recover:
                done = await recovery.run(clock() - days * DAY_MS)
                typer.echo(json.dumps({"recovered": asdict(done)}), err=as_json)
            report = await check.run(days * DAY_MS)
    except CommerceError as outage:
        fail(f"not compared ({type(outage).__name__}); please try again")
    if as_json:
        typer.echo(msgspec.json.encode(view_report(report)).decode())
    else:
        for one in report.differences:
            typer.echo(
                f"{one.kind}  {one.intent}  ours {one.ours}  theirs {one.theirs}  {one.currency}"
            )
        for fault in report.faults:
            typer.echo(f"{fault.kind}  {fault.what}  {fault.amount}")
        typer.echo(f"{report.charges} charges compared, {report.wrong} to look at")
    if report.wrong:
        raise SystemExit(1)


@desk_cli.command("doctor")
def doctor_command(
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check engines, settings and this machine, and say what to do about what is wrong."""
    run(_doctor(settings_of(data=data), as_json=as_json))


async def _doctor(settings: Settings, *, as_json: bool) -> None:
    from live import doctor

    findings = await examine_node(settings)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        typer.echo(doctor.as_text(findings))
    if doctor.worst(findings) == "fail":
        raise SystemExit(1)
