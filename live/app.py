"""The composition root: every adapter is named here and nowhere else.

Read it top to bottom: engines, then what stands on them, then the application. One TaskGroup owns
the long tasks; if one of them dies the node dies loudly and its supervisor restarts it, instead of
limping on with frozen counters. An outage of an engine is not a reason to die: each task waits it
out.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp

from commerce.checkpoints_sql import Checkpoints
from commerce.clock_sql import DatabaseClock
from commerce.database_sql import Database
from commerce.errors import CommerceError
from commerce.people_sql import SqlPeople
from commerce.reconcile import Light
from commerce.stock import Drop, Level
from live import chores, endpoints, openapi, pages
from live.accounts_sql import SqlAccounts
from live.api_accounts import AccountsApi
from live.api_back_office import BackOfficeApi
from live.api_catalog import CatalogApi
from live.api_claims import ClaimsApi
from live.api_order_desk import OrderDeskApi
from live.api_orders import OrdersApi
from live.api_people import PeopleApi
from live.api_shows import ShowsApi
from live.api_webhooks import WebhooksApi
from live.belongings import Belongings, ShowReader
from live.commands import Commands
from live.console import Console
from live.counters import Counters
from live.crash import crash_hook
from live.data_folder import DataFolder
from live.engines import find_valkey, valkey_of
from live.facts import FactTeller
from live.http import Api, Route
from live.identity import Tokens
from live.metrics import exporter
from live.migrate_sql import migrate, revisions
from live.node import ROOT, Ground, open_files
from live.patience import meet_database, meet_valkey
from live.privacy import Retention
from live.settings import Settings
from live.shop_sql import SqlShop
from live.shows_sql import SqlShows
from live.stage import Stage
from live.trade import Clock, Engines, Trade, clock, new_id, open_people, open_trade, steady
from live.webhooks import WebhookTeller
from realtime import broker_redis
from realtime.admission import Admission, JoinLimits
from realtime.audience_redis import RedisAudience
from realtime.broker import Item, Seed
from realtime.cluster_redis import scheme_found
from realtime.hub import Hub
from realtime.pace import NodePace

if TYPE_CHECKING:
    from live import doctor

log = logging.getLogger(__name__)

WEB: Final = ROOT / "web_client"
READY_S: Final = 2.0
CONNECTIONS_PER_100_FILES: Final = 90
"""A viewer is one open file; the rest is for HTTP, engines and the program itself."""
BYTES_PER_MBIT: Final = 125_000


@dataclass(frozen=True, slots=True)
class App:
    """A running node, without its server."""

    hub: Hub
    trade: Trade
    shows: SqlShows
    shop: SqlShop
    accounts: SqlAccounts
    stage: Stage
    counters: Counters
    tokens: Tokens
    now: DatabaseClock
    people: SqlPeople
    checkpoints: Checkpoints
    secret: str
    admission: Admission
    belongings: Belongings
    reader: ShowReader
    node: str
    elsewhere: str | None

    async def ready(self) -> dict[str, str]:
        """What this node needs and whether it is there."""
        broker = "away" if self.hub.broker_stood else "not yet"
        states = {"broker": "ok" if self.hub.broker_ok else broker, "database": "ok"}
        try:
            async with asyncio.timeout(READY_S):
                await self.shop.read()
        except (CommerceError, TimeoutError):
            states["database"] = "away"
        if self.hub.draining:
            states["node"] = "draining"
        return states

    def numbers(self) -> dict[str, float]:
        """Gauges beside the hub's own."""
        verdict = self.trade.reconciler.verdict()
        return {
            "stock_light": list(Light).index(verdict.light),
            "stock_differences": verdict.count,
            "stock_checked_skus": verdict.checked,
            "stock_rebuilds": verdict.rebuilds,
            "rooms": len(self.hub.rooms),
            "rooms_away": self.hub.rooms_away,
            "lagging_viewers": self.hub.lagging,
            "connections_max": self.admission.connections_max,
            "connections_turned_away": self.admission.turned_away,
            "joins_waited": self.admission.waited,
            "joins_refused": self.admission.refused,
            "belongings_questions": self.belongings.questions,
            "webhooks_delivered": self.trade.courier.delivered,
            "webhook_tries_failed": self.trade.courier.failed,
            "gate_epoch": self.trade.checkout.keeper.epoch,
            "gate_rebuilds": self.trade.checkout.keeper.rebuilds,
            "gate_away": float(self.trade.checkout.keeper.away),
            "claims_kept": self.trade.claims.kept,
            "claims_lost": self.trade.claims.lost,
            "claims_waiting": self.trade.claims.waiting,
            "claims_flagged": self.trade.checkout.board.refused,
            "books_wrong": self._books_wrong(),
        }

    def _books_wrong(self) -> float:
        """Differences of the last reconciliation on this node; -1: none was made yet."""
        last = self.trade.money.check.last
        return -1.0 if last is None else float(last.wrong)


def _admission(settings: Settings) -> Admission:
    """Bounded by what the operator says and by what the kernel gives, whichever is less."""
    files = open_files() * CONNECTIONS_PER_100_FILES // 100
    limits = settings.join_limits
    return Admission(
        connections_max=min(settings.connections_max or files, files),
        limits=None if limits is None else JoinLimits(*limits),
    )


async def _open_rooms(
    stack: contextlib.AsyncExitStack,
    url: str,
    node: str,
    seed: Seed,
    now: Clock,
    egress_mbit: tuple[int, int],
) -> Hub:
    client = broker_redis.connect(url)
    broker = broker_redis.RedisBroker(client, new_id=new_id)
    stack.push_async_callback(broker.close)
    of_node, of_room = (mbit * BYTES_PER_MBIT for mbit in egress_mbit)
    pace = NodePace(bytes_per_s=of_node, room_bytes_per_s=of_room)
    return Hub(broker, RedisAudience(client), node=node, clock=now, seed=seed, pace=pace)


@contextlib.asynccontextmanager
async def open_app(settings: Settings, ground: Ground, address: str) -> AsyncIterator[App]:
    """A node whose tasks run until the block ends. `address` is where viewers find it."""
    async with contextlib.AsyncExitStack() as stack:
        database = await Database.open(ground.database_url)
        stack.push_async_callback(database.close)
        # What decides (deadlines, openings) goes by the database's time on every node.
        now = DatabaseClock(database, wall=clock, steady=steady)

        async def meet() -> SqlPeople:
            await migrate(database)
            await now.measure()
            return await open_people(settings, ground.secret, database)

        people = await meet_database(database, meet)

        # Rooms and trade each tell the product something; the product is built after both.
        async def seed(room: str, known: Mapping[str, object]) -> Sequence[Item]:
            return await stage.seed(room, known)

        def learn(levels: Mapping[str, Level]) -> None:
            counters.mark(levels)

        def drawn(drop: Drop) -> None:
            stage.refresh_soon(drop.show)

        # What an operator calls redis:// may be a node of a cluster; the server says so itself.
        url = await meet_valkey(partial(scheme_found, ground.valkey_url)) or ground.valkey_url
        hub = await _open_rooms(stack, url, settings.node, seed, now, settings.egress_mbit)
        crash_point = crash_hook(settings.crash_at)
        if settings.crash_at is not None:
            log.warning("this process kills itself at %s, time %d", *settings.crash_at)
        engines = Engines(url, database, people, now)
        trade = await open_trade(stack, ground, settings, engines, learn, drawn, crash_point)
        shows = SqlShows(database, now, new_id)
        shop = SqlShop(database, now)
        stage = Stage(hub, shows, trade.catalog, trade.checkout, shop, now)
        counters = Counters(hub, stage)
        app = App(
            hub=hub,
            trade=trade,
            shows=shows,
            shop=shop,
            accounts=SqlAccounts(database, clock, new_id),
            stage=stage,
            counters=counters,
            tokens=Tokens(ground.secret, clock),
            people=people,
            checkpoints=Checkpoints(database),
            secret=ground.secret,
            admission=_admission(settings),
            belongings=Belongings(trade.checkout, trade.orders, trade.waits),
            reader=ShowReader(shows),
            now=now,
            node=settings.node,
            elsewhere=settings.elsewhere_url or None,
        )
        stack.push_async_callback(app.belongings.close)
        stack.push_async_callback(app.reader.close)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work, name=name) for name, work in _work(app, settings)]
            try:
                yield app
            finally:
                await chores.end(tasks)


def _work(app: App, settings: Settings) -> list[tuple[str, Coroutine[Any, Any, None]]]:
    """What runs as long as the node does, by name."""
    trade, now = app.trade, app.now
    teller = FactTeller(trade.outbox, trade.checkout, trade.orders, app.hub, now)
    webhooks = WebhookTeller(trade.webhooks, trade.checkout, trade.orders, now)
    return [
        ("clock", now.run()),
        ("hub", app.hub.run()),
        ("checkout", trade.checkout.run()),
        ("claims", trade.claims.run()),
        ("waits", trade.waits.run()),
        ("reconciler", trade.reconciler.run()),
        ("pay", trade.pay.run()),
        ("stage", app.stage.watch()),
        ("counters", app.counters.run(trade.checkout, trade.waits, now)),
        ("facts", teller.run()),
        ("webhooks", webhooks.run()),
        ("courier", trade.courier.run()),
        ("retention", Retention(app.people, settings.retention_days, now).run()),
        ("keys", chores.forget_old_keys(trade.idempotency)),
        ("recovery", chores.recover(trade.money.recovery)),
        ("books", chores.compare_books(trade.money.check)),
        ("checkpoints", app.checkpoints.run()),
    ]


def make_asgi(app: App, origins: Sequence[str], address: str) -> ASGIApp:
    """The application that a server serves."""
    trade = app.trade
    console = Console(
        hub=app.hub,
        stage=app.stage,
        shows=app.shows,
        catalog=trade.catalog,
        checkout=trade.checkout,
        clock=app.now,
        new_id=new_id,
        new_seed=lambda: secrets.token_hex(32),
    )
    commands = Commands(
        hub=app.hub,
        checkout=trade.checkout,
        waits=trade.waits,
        admission=app.admission,
        belongings=app.belongings,
        shows=app.reader,
        counters=app.counters,
        console=console,
        tokens=app.tokens,
        clock=app.now,
    )
    door = endpoints.Door(
        app.hub,
        commands.handle,
        origins,
        app.now,
        admission=app.admission,
        elsewhere=app.elsewhere,
        waiting=lambda: app.belongings.waiting,
        quick=commands.at_once,
    )
    table = route_table(app, address)
    api = Api(app.tokens, trade.idempotency, clock)
    described = openapi.document(table, version())
    asgi = Starlette(
        routes=[
            *(api.starlette(route) for route in table),
            StarletteRoute("/openapi.json", lambda _: JSONResponse(described)),
            *endpoints.routes(door, app.ready, exporter(app.hub, app.numbers, app.node)),
            *pages.routes(WEB, clock),
        ],
        middleware=[Middleware(pages.SecureHeaders)],
        exception_handlers={HTTPException: endpoints.refused, Exception: endpoints.failed},
    )
    asgi.state.short_way = door
    return asgi


def route_table(app: App, address: str) -> list[Route]:
    """The whole HTTP API: what is served, described and tested."""
    trade = app.trade
    return [
        *AccountsApi(app.accounts, app.shop, trade.catalog, app.tokens, clock, new_id).routes(),
        *ShowsApi(app.shows, app.stage, trade.checkout, trade.lists.draw).routes(),
        *CatalogApi(trade.catalog, trade.checkout, app.shop, trade.reconciler).routes(),
        *OrdersApi(trade.checkout, trade.pay, address).routes(),
        *PeopleApi(app.people, app.now).routes(),
        *WebhooksApi(trade.webhooks, app.secret, app.now).routes(),
        *ClaimsApi(trade.audit).routes(),
        *_money_routes(app),
    ]


def _money_routes(app: App) -> list[Route]:
    trade, money = app.trade, app.trade.money
    desk = OrderDeskApi(
        trade.orders, money.dossiers, money.desk, money.fulfilment, clock=app.now, new_id=new_id
    )
    office = BackOfficeApi(
        trade.orders,
        money.packing,
        money.terms,
        money.coupons,
        money.check,
        app.shop,
        app.shows,
        clock=app.now,
    )
    return [*desk.routes(), *office.routes()]


async def examine_node(settings: Settings) -> "list[doctor.Finding]":
    """What `python -m live doctor` reports, beside a running node or without one."""
    from live import doctor, doctor_redis, doctor_sql
    from live.doctor_machine import judge_machine, judge_settings

    folder = DataFolder(settings.data)
    machine = [
        *judge_machine(settings.data),
        *judge_settings(
            host=settings.host,
            public_url=settings.public_url,
            origins=settings.origins,
            secret=settings.secret,
            provider_key=settings.stripe_key,
            webhook_secrets=settings.stripe_webhook_secrets,
            crash_at=settings.crash_at,
        ),
    ]
    async with contextlib.AsyncExitStack() as stack:
        valkey_url = settings.valkey_url
        if not valkey_url:
            valkey_url = await stack.enter_async_context(valkey_of(folder, find_valkey()))
        return await doctor.examine(
            valkey=partial(doctor_redis.probe_all, valkey_url, clock=clock),
            sql=partial(
                doctor_sql.probe, settings.database_url or folder.database_url, clock=clock
            ),
            revisions=revisions(),
            machine=machine,
        )


def version() -> str:
    """Of the program."""
    try:
        return installed("vitrine")
    except PackageNotFoundError:
        return "0.1.0"
