"""Idempotency keys on both databases."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from commerce.catalog_import import parse_shopify_csv
from commerce.catalog_plan import ImportReport
from commerce.catalog_sql import SqlCatalog
from commerce.crash_points import CrashHook, CrashPoint
from commerce.errors import KeyConflict, KeyInProgress
from commerce.idempotency import LEASE_MS, Replay, request_sha
from commerce.idempotency_sql import KEEP_MS, SqlIdempotency
from commerce.keep import Keep
from commerce.payments import PaymentPage
from commerce.record_sql import SqlRecord
from commerce.stock import StockRow
from tests.commerce.pay_support import DELIVERY, ON_HAND, RETURN_URL, SUCCEEDS, Till
from tests.commerce.product_files import csv_file, mug

pytest_plugins = ("tests.commerce.pay_fixtures",)

SCOPE, SHA = "viewer:1 POST /holds", request_sha(b"POST", b"/holds", b"{}")


@pytest.fixture
def keys(till: Till) -> SqlIdempotency:
    return SqlIdempotency(till.database, till.clock)


async def test_a_finished_request_is_replayed(keys: SqlIdempotency) -> None:
    assert await keys.begin(SCOPE, "k", SHA) is None
    await keys.finish(SCOPE, "k", 201, '{"a":1}')
    assert await keys.begin(SCOPE, "k", SHA) == Replay(201, '{"a":1}')
    assert await keys.begin("another", "k", SHA) is None


async def test_row_13_the_key_with_another_request_is_a_conflict(keys: SqlIdempotency) -> None:
    await keys.begin(SCOPE, "k", SHA)
    with pytest.raises(KeyConflict):
        await keys.begin(SCOPE, "k", request_sha(b"POST", b"/holds", b"{ }"))
    await keys.finish(SCOPE, "k", 200, "")
    with pytest.raises(KeyConflict):
        await keys.begin(SCOPE, "k", "other")


async def test_row_12_of_many_at_once_one_proceeds_the_others_wait(keys: SqlIdempotency) -> None:
    answers = await asyncio.gather(
        *(keys.begin(SCOPE, "k", SHA) for _ in range(8)), return_exceptions=True
    )
    assert answers.count(None) == 1
    assert sum(isinstance(answer, KeyInProgress) for answer in answers) == 7


async def test_a_request_that_died_may_be_repeated_after_its_lease(
    till: Till, keys: SqlIdempotency
) -> None:
    await keys.begin(SCOPE, "k", SHA)
    till.clock.ahead_ms = LEASE_MS + 1
    assert await keys.begin(SCOPE, "k", SHA) is None
    with pytest.raises(KeyInProgress):
        await keys.begin(SCOPE, "k", SHA)


async def test_who_may_run_twice_at_once_need_not_wait_for_a_node_that_died(
    till: Till, keys: SqlIdempotency
) -> None:
    await keys.begin(SCOPE, "k", SHA)
    till.clock.ahead_ms = 5_000
    with pytest.raises(KeyInProgress):
        await keys.begin(SCOPE, "k", SHA)
    assert await keys.begin(SCOPE, "k", SHA, lease_ms=4_000) is None


async def test_the_answer_is_stored_with_the_effect_or_not_at_all(
    till: Till, keys: SqlIdempotency
) -> None:
    await keys.begin(SCOPE, "k", SHA)

    async def fail_after_the_effect() -> None:
        async with till.database.begin() as conn:
            await keys.finish(SCOPE, "k", 200, "done", conn=conn)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail_after_the_effect()
    with pytest.raises(KeyInProgress):
        await keys.begin(SCOPE, "k", SHA)
    async with till.database.begin() as conn:
        await keys.finish(SCOPE, "k", 200, "done", conn=conn)
    assert await keys.begin(SCOPE, "k", SHA) == Replay(200, "done")


class Killed(BaseException):
    """What a kill -9 looks like from inside: nothing below it runs."""


def dies_at(point: CrashPoint) -> CrashHook:
    def hook(here: CrashPoint) -> None:
        if here == point:
            raise Killed

    return hook


def keeping(keys: SqlIdempotency, render: Callable[[Any], str]) -> Keep[Any]:
    async def keep(conn: Any, result: Any) -> None:
        await keys.keep(conn, SCOPE, "k", 201, render(result))

    return keep


@pytest.mark.parametrize("point", ["pay:before_provider", "pay:after_provider"])
async def test_a_node_that_dies_between_the_payment_and_its_page_leaves_one_payment(
    till: Till, keys: SqlIdempotency, point: CrashPoint
) -> None:
    rid = await till.held()
    assert await keys.begin(SCOPE, "k", SHA) is None
    dying = till.node(till.provider, crash_point=dies_at(point))
    with pytest.raises(Killed):
        await dying.begin("v1", rid, DELIVERY, return_url=RETURN_URL)
    left = await till.paid_by(rid)
    assert left.state == "created"
    till.clock.ahead_ms = 5_000
    assert await keys.begin(SCOPE, "k", SHA, lease_ms=4_000) is None
    page = await till.pay.begin(
        "v1", rid, DELIVERY, return_url=RETURN_URL, keep=keeping(keys, lambda page: page.url)
    )
    assert await keys.begin(SCOPE, "k", SHA) == Replay(201, page.url)
    assert [known.id for known in await till.record.of_rid(rid)] == [left.id]
    sessions = (await till.api.get("/v1/checkout/sessions"))["data"]
    assert [one["client_reference_id"] for one in sessions] == [left.id]
    await till.api.press(page.url, card=SUCCEEDS)
    await till.pay.refresh(rid)
    assert (await till.order_of(rid)).order.state == "paid"


async def test_the_page_of_a_payment_is_kept_where_it_is_written_and_where_it_is_found(
    till: Till, keys: SqlIdempotency
) -> None:
    rid = await till.held()
    urls = []
    for key in ("first", "second"):
        assert await keys.begin(SCOPE, key, SHA) is None

        async def keep(conn: Any, page: PaymentPage, key: str = key) -> None:
            await keys.keep(conn, SCOPE, key, 201, page.url)

        page = await till.pay.begin("v1", rid, DELIVERY, return_url=RETURN_URL, keep=keep)
        assert await keys.begin(SCOPE, key, SHA) == Replay(201, page.url)
        urls.append(page.url)
    assert urls[0] == urls[1]


Change = Callable[[SqlRecord, Keep[StockRow]], Awaitable[StockRow]]
CHANGES: dict[str, tuple[Change, int]] = {
    "adjust": (
        lambda record, keep: record.adjust("MUG", 3, ref="api:k", kind="adjust", now=1, keep=keep),
        ON_HAND + 3,
    ),
    "set": (
        lambda record, keep: record.set_on_hand(
            "MUG", 9, ON_HAND, drain=False, ref="api:k", now=1, keep=keep
        ),
        9,
    ),
    "cancel_drain": (
        lambda record, keep: record.cancel_drain("MUG", ref="api:k", now=1, keep=keep),
        ON_HAND,
    ),
}


@pytest.mark.parametrize("kind", CHANGES)
async def test_a_change_of_stock_and_its_answer_are_committed_together_or_not_at_all(
    till: Till, keys: SqlIdempotency, kind: str
) -> None:
    change, after = CHANGES[kind]
    record = SqlRecord(till.database)
    keep = keeping(keys, lambda row: f"{row.on_hand}")

    async def keep_and_die(conn: Any, row: StockRow) -> None:
        await keep(conn, row)
        raise Killed

    await keys.begin(SCOPE, "k", SHA)
    with pytest.raises(Killed):
        await change(record, keep_and_die)
    assert await till.on_hand() == ON_HAND
    with pytest.raises(KeyInProgress):
        await keys.begin(SCOPE, "k", SHA)
    await change(record, keep)
    assert await till.on_hand() == after
    assert await keys.begin(SCOPE, "k", SHA) == Replay(201, f"{after}")


async def test_an_import_and_its_report_are_committed_together_or_not_at_all(
    till: Till, keys: SqlIdempotency
) -> None:
    catalog = SqlCatalog(till.database, till.clock, till.new_id)
    file = parse_shopify_csv(csv_file(mug(Handle="cup", Title="Cup")), "USD")
    keep = keeping(keys, lambda report: f"{dict(report.counts)}")

    async def keep_and_die(conn: Any, report: ImportReport) -> None:
        await keep(conn, report)
        raise Killed

    await keys.begin(SCOPE, "k", SHA)
    with pytest.raises(Killed):
        await catalog.import_plan(file, "import:1", keep_and_die)
    assert [one.handle for one in (await catalog.list()).products] == ["p1"]
    report = await catalog.import_plan(file, "import:1", keep)
    assert sorted(one.handle for one in (await catalog.list()).products) == ["cup", "p1"]
    assert await keys.begin(SCOPE, "k", SHA) == Replay(201, f"{dict(report.counts)}")


async def test_an_attempt_that_changed_nothing_frees_its_key(keys: SqlIdempotency) -> None:
    async def fail() -> None:
        async with keys.attempt(SCOPE, "k", SHA) as attempt:
            assert attempt.replay is None
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with keys.attempt(SCOPE, "k", SHA) as attempt:
        await keys.finish(SCOPE, "k", 200, "x")
        attempt.finished = True
    async with keys.attempt(SCOPE, "k", SHA) as attempt:
        assert attempt.replay == Replay(200, "x")
    assert await keys.begin(SCOPE, "k", SHA) == Replay(200, "x")


async def test_old_answers_are_forgotten(till: Till, keys: SqlIdempotency) -> None:
    await keys.begin(SCOPE, "k", SHA)
    await keys.finish(SCOPE, "k", 200, "x")
    assert await keys.prune() == 0
    till.clock.ahead_ms = KEEP_MS + 1_000
    assert await keys.begin(SCOPE, "k", "other") is None
    till.clock.ahead_ms = 2 * KEEP_MS + 3_000
    assert await keys.prune() == 1


@pytest.mark.parametrize(("scope", "key"), [("", "k"), ("s", ""), ("s", "k" * 256)])
async def test_lengths_are_bounded(keys: SqlIdempotency, scope: str, key: str) -> None:
    with pytest.raises(ValueError, match="length"):
        await keys.begin(scope, key, SHA)


def test_the_parts_of_a_request_do_not_run_into_each_other() -> None:
    assert request_sha(b"ab", b"c") != request_sha(b"a", b"bc")
