"""The composition root, the shop's side: gate, record, wait lists, payments, what tells of them.

Here and in `app` and `office` every adapter is named, and nowhere else. It must not know rooms:
what they have to hear is given to it as two functions.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from commerce.catalog_sql import SqlCatalog
from commerce.checkout import Checkout
from commerce.claims import ClaimKeeper
from commerce.claims_sql import SqlClaims
from commerce.coupons_sql import SqlCoupons
from commerce.crash_points import CrashHook
from commerce.database_sql import Database
from commerce.disputes_sql import SqlDisputes
from commerce.dossier_sql import SqlDossiers
from commerce.fulfilment_sql import SqlFulfilment
from commerce.idempotency_sql import SqlIdempotency
from commerce.inbox_sql import Inbox
from commerce.ledger_sql import SqlLedger
from commerce.order_desk_sql import SqlOrderDesk
from commerce.orders_sql import SqlOrders
from commerce.outbox_sql import SqlOutbox
from commerce.packing_sql import SqlPacking
from commerce.pay import Pay
from commerce.payments import Provider
from commerce.payments_sql import SqlPayments
from commerce.people import ErasureList, MasterLost
from commerce.people_sql import SqlPeople
from commerce.pricing_sql import SqlTerms
from commerce.provider_books_sql import SqlProviderBooks
from commerce.provider_check import ProviderCheck
from commerce.reconcile import Reconciler
from commerce.reconcile_sql import SqlBooks
from commerce.record_sql import SqlRecord
from commerce.recovery import Recovery
from commerce.recovery_sql import SqlRecovery
from commerce.refunding import Refunding
from commerce.refunds_sql import SqlRefunds
from commerce.settlement import Settle, Settlement
from commerce.stock import Drop, Level
from commerce.stock_redis import RedisGate
from commerce.vault import Vault
from commerce.waiting import Waitlist
from commerce.waiting_sql import SqlWaitlist
from commerce.webhook_courier import Courier
from commerce.webhooks_sql import SqlWebhooks
from live.audit import Audit
from live.node import Ground
from live.settings import Settings
from realtime.caller_redis import Caller

if TYPE_CHECKING:
    from commerce.payments_stripe import StripeProvider

PROVIDER: Final = "stripe"


def clock() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def steady() -> int:
    """Milliseconds of a clock that never jumps."""
    return time.monotonic_ns() // 1_000_000


def new_id() -> str:
    """An id that nobody can guess (96 bits)."""
    return secrets.token_urlsafe(12).replace("-", "0").replace("_", "1")


Clock = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Engines:
    """What the shop's side stands on. `now` is the clock that all nodes go by."""

    valkey_url: str
    database: Database
    people: SqlPeople
    now: Clock


@dataclass(frozen=True, slots=True)
class Trade:
    """The shop's side of a node."""

    checkout: Checkout
    waits: Waitlist
    lists: SqlWaitlist
    reconciler: Reconciler
    catalog: SqlCatalog
    orders: SqlOrders
    pay: Pay
    outbox: SqlOutbox
    idempotency: SqlIdempotency
    webhooks: SqlWebhooks
    courier: Courier
    claims: ClaimKeeper
    audit: Audit
    money: "Money"


@dataclass(frozen=True, slots=True)
class Money:
    """What becomes of orders after they are paid."""

    desk: SqlOrderDesk
    fulfilment: SqlFulfilment
    dossiers: SqlDossiers
    packing: SqlPacking
    terms: SqlTerms
    coupons: SqlCoupons
    check: ProviderCheck
    recovery: Recovery


def open_audit(database: Database, settings: Settings, now: Clock) -> Audit:
    """The order of claims, for hosts and checks."""
    return Audit(SqlClaims(database), SqlRecord(database), settings.hold_rule, now)


async def open_people(settings: Settings, secret: str, database: Database) -> SqlPeople:
    """Raises MasterLost: better no shop than one that cannot read where to send things."""
    vault = Vault([*settings.data_keys, secret] if secret else settings.data_keys)
    people = SqlPeople(database, vault, ErasureList(settings.data / "erasures.jsonl"))
    if not await people.readable():
        raise MasterLost("names and addresses do not open: LIVE_DATA_KEYS or LIVE_SECRET changed")
    return people


async def open_trade(
    stack: contextlib.AsyncExitStack,
    ground: Ground,
    settings: Settings,
    engines: Engines,
    learn: Callable[[Mapping[str, Level]], None],
    drawn: Callable[[Drop], None],
    crash_point: CrashHook,
) -> Trade:
    """`learn` is told levels that changed, `drawn` a raffle that was drawn."""
    database, now, rule = engines.database, engines.now, settings.hold_rule
    gate = RedisGate.connect(engines.valkey_url, node=settings.node, rule=rule, line=Caller)
    stack.push_async_callback(gate.close)
    outbox = SqlOutbox(database)
    record = SqlRecord(database, crash_point=crash_point, rule=rule)
    checkout = Checkout(
        gate,
        record,
        outbox,
        clock=now,
        on_levels=learn,
        crash_point=crash_point,
    )
    lists = SqlWaitlist(database, crash_point=crash_point)
    waits = Waitlist(
        checkout.keeper,
        record,
        lists,
        checkout.board,
        clock=now,
        on_drawn=drawn,
        crash_point=crash_point,
    )
    provider = open_provider(ground.stripe_key, ground.webhook_secrets, ground.stripe_api)
    stack.push_async_callback(provider.close)
    pay = _open_pay(provider, engines, checkout, crash_point)
    webhooks = SqlWebhooks(database, new_id)
    return Trade(
        checkout,
        waits,
        lists,
        Reconciler(checkout.keeper, SqlBooks(database), clock=now),
        SqlCatalog(database, clock, new_id),
        SqlOrders(database, engines.people),
        pay,
        outbox,
        SqlIdempotency(database, clock),
        webhooks,
        Courier(webhooks, ground.secret, clock=now),
        _open_claims(gate, checkout, engines, settings.node),
        open_audit(database, settings, now),
        _open_money(provider, engines, checkout, pay),
    )


def _open_money(provider: Provider, engines: Engines, checkout: Checkout, pay: Pay) -> Money:
    database, people, now = engines.database, engines.people, engines.now
    return Money(
        SqlOrderDesk(database),
        SqlFulfilment(database),
        SqlDossiers(database),
        SqlPacking(database, people),
        SqlTerms(database),
        SqlCoupons(database),
        open_check(provider, database, now, pay.look_again),
        open_recovery(provider, database, people, now, checkout.settle),
    )


def _open_claims(gate: RedisGate, checkout: Checkout, engines: Engines, node: str) -> ClaimKeeper:
    return ClaimKeeper(
        gate.log,
        SqlClaims(engines.database),
        flagged=lambda: checkout.board.refused_in,
        source=f"{node[:96]} {engines.now()}",
        clock=engines.now,
        pause=asyncio.sleep,
        busy=lambda: checkout.crowded,
    )


def _open_pay(
    provider: Provider, engines: Engines, checkout: Checkout, crash_point: CrashHook
) -> Pay:
    return Pay(
        provider,
        SqlPayments(engines.database, PROVIDER, engines.people),
        Inbox(engines.database, PROVIDER),
        clock=engines.now,
        new_id=new_id,
        settle=checkout.settle,
        refunding=open_refunding(provider, engines.database, engines.now),
        crash_point=crash_point,
    )


def open_provider(key: str, webhook_secrets: Sequence[str], api: str) -> "StripeProvider":
    """The payment provider, or the sandbox that speaks its language."""
    # Half a second of imports that `user` and `import` have no use for.
    from commerce.payments_stripe import StripeProvider

    return StripeProvider(key, webhook_secrets, api_base=api or None)


def open_refunding(provider: Provider, database: Database, now: Clock) -> Refunding:
    """Giving money back."""
    refunds, disputes = SqlRefunds(database, PROVIDER), SqlDisputes(database)
    return Refunding(provider, refunds, disputes, clock=now, new_id=new_id)


def open_recovery(
    provider: Provider, database: Database, people: SqlPeople, now: Clock, settle: Settle
) -> Recovery:
    """Bringing in, after a restore, what the provider alone knows."""
    record = SqlPayments(database, PROVIDER, people)
    return Recovery(
        provider,
        SqlRecovery(database, PROVIDER),
        Settlement(provider, record, clock=now, new_id=new_id, settle=settle),
        open_refunding(provider, database, now),
        clock=now,
        new_id=new_id,
    )


def open_check(
    provider: Provider,
    database: Database,
    now: Clock,
    look_again: Callable[[str, str], Awaitable[None]],
) -> ProviderCheck:
    """Our books beside the provider's."""
    return ProviderCheck(
        provider,
        SqlProviderBooks(database, PROVIDER),
        SqlLedger(database),
        clock=now,
        look_again=look_again,
    )
