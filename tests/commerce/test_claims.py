"""Claims: everything that takes a number is kept in its order, and the order can be checked."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
from sqlalchemy import delete, update

from commerce.claims import (
    DRAIN_MS,
    ENTRIES_MAX,
    PUT_OFF_MAX_MS,
    Claim,
    ClaimKeeper,
    Kind,
    Logged,
)
from commerce.claims_sql import SqlClaims
from commerce.errors import LimitReached, SoldOut
from commerce.schema_sql import claim as claim_table
from commerce.stock import HoldState
from tests.commerce.claims_support import ALL, claims, judged, keeper_of, kept
from tests.commerce.stock_support import START, Killed, Node, OwnValkey, Shop
from tests.waiting import until


def told(found: list[Claim]) -> list[tuple[int, str, str]]:
    return [(claim.n, claim.verdict.value, claim.rid) for claim in found]


async def test_winners_losers_and_ends_stand_in_the_order_of_their_numbers(shop: Shop) -> None:
    await shop.add_skus({"A": 2})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None), per_viewer=1))
        won = await node.buy("r1", "v1")
        with pytest.raises(LimitReached) as limit:
            await node.buy("r2", "v1")
        await node.buy("r3", "v3")
        shop.clock.advance(5)
        with pytest.raises(SoldOut) as sold_out:
            await node.buy("r4", "v4", retry=True)  # past the flag, to the gate
        await node.checkout.cancel("v1", "r1")
        await node.checkout.adjust("A", 3, ref="more")
        await node.checkout.close_drop("d")
        found = await claims(shop, node)
        assert [claim.verdict for claim in found] == [
            *(Kind.LOADED, Kind.WON, Kind.LIMIT, Kind.WON, Kind.SOLD_OUT, Kind.FREED),
            *(Kind.ADJUSTED, Kind.CLOSED_DROP),
        ]
        assert [claim.n for claim in found] == list(range(8))
        assert won.receipt == (found[1].epoch, 1)
        assert limit.value.receipt == (found[2].epoch, 2)
        assert sold_out.value.receipt == (found[4].epoch, 4)
        loser = found[4]
        assert (loser.rid, loser.viewer, loser.drop, loser.sku) == ("r4", "v4", "d", "A")
        assert (loser.lines, loser.number) == ((("A", 1),), 0)
        assert (loser.pressed_at, loser.decided_at) == (shop.clock(), shop.clock())
        assert judged(found).ok
        assert judged(found).missing == 0


async def test_the_time_of_the_press_is_when_it_came_not_when_it_was_decided(shop: Shop) -> None:
    await shop.add_skus({"A": 1})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        pressed_at = shop.clock()
        press = asyncio.create_task(node.buy("r1", "v1"))
        await asyncio.sleep(0)
        shop.clock.advance(70)
        await press
        found = (await claims(shop, node))[1]
        assert (found.pressed_at, found.decided_at) == (pressed_at, pressed_at + 70)


async def test_a_press_that_waited_for_a_rebuild_is_dated_after_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.add_skus({"A": 1})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        keeper, move_on = node.checkout.keeper, node.record.next_epoch
        await move_on(keeper.epoch, keeper.epoch + 1)
        keeper.refused(keeper.epoch)

        async def slowly(current: int, floor: int) -> int | None:
            shop.clock.advance(3_000)
            return await move_on(current, floor)

        monkeypatch.setattr(node.record, "next_epoch", slowly)
        await node.buy("r1", "v1")
        found = [claim for claim in await claims(shop, node) if claim.epoch == keeper.epoch]
        assert [claim.verdict for claim in found] == [Kind.LOADED, Kind.WON]
        assert found[0].decided_at <= found[1].decided_at
        assert judged(found).ok


async def test_presses_that_the_flag_answers_are_counted_without_numbers(shop: Shop) -> None:
    await shop.add_skus({"A": 1})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        await node.buy("r0", "v0")
        # the batch that took the last unit has raised the flag; a repetition goes to the gate
        for n in range(1, 6):
            with pytest.raises(SoldOut) as sold_out:
                await node.buy(f"r{n}", f"v{n}", retry=n == 1)
            assert (sold_out.value.receipt is not None) == (n == 1)
        found = await claims(shop, node)
        assert [claim.rid for claim in found if claim.verdict is Kind.SOLD_OUT] == ["r1"]
        book = SqlClaims(shop.database)
        assert await book.flagged("d") == 4
        await keeper_of(shop, node).tell_flagged()  # a repetition counts nothing twice
        assert await book.flagged("d") == 4
        await keeper_of(shop, node, "another run").tell_flagged()
        assert await book.flagged("d") == 8


async def test_without_a_gate_each_decision_has_its_number_and_its_claim(
    shop: Shop, own_valkey: OwnValkey
) -> None:
    await own_valkey.start()
    shop.valkey_url = shop.gate_url = own_valkey.url
    await shop.add_skus({"A": 2})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None), per_viewer=1))
        own_valkey.kill()
        won = await node.buy("r1", "v1")
        with pytest.raises(LimitReached) as limit:
            await node.buy("r2", "v1")
        await node.buy("r3", "v3")
        with pytest.raises(SoldOut) as sold_out:
            await node.buy("r4", "v4", retry=True)
        found = [one.claim for one in await SqlClaims(shop.database).page(ALL, (-1, -1), 100)]
        assert [(one.verdict, one.rid) for one in found] == [
            (Kind.WON, "r1"),
            (Kind.LIMIT, "r2"),
            (Kind.WON, "r3"),
            (Kind.SOLD_OUT, "r4"),
        ]
        assert won.receipt == (found[0].epoch, found[0].n)
        assert limit.value.receipt == (found[1].epoch, found[1].n)
        assert sold_out.value.receipt == (found[3].epoch, found[3].n)
        assert {one.node for one in found} == {"record"}
        report = judged(found)
        assert report.ok
        assert report.missing == 0
        assert report.announced > 0


async def test_an_answer_that_is_lost_leaves_no_hole(shop: Shop) -> None:
    """A node that is killed behind the gate: its win and what becomes of it are in the log."""
    await shop.add_skus({"A": 1})
    died = asyncio.Event()

    def crash(point: str) -> None:
        if point == "reserve:after_gate":
            died.set()
            raise Killed

    async with shop.node() as other:
        await other.checkout.open_drop(shop.drop(("A", None)))
        async with shop.node(crash_point=crash) as node:
            press = asyncio.create_task(node.buy("r1", "v1"))
            await died.wait()
        await asyncio.gather(press, return_exceptions=True)
        shop.clock.advance(6_000)
        await until(lambda: _level_is(other, 1))
        found = await claims(shop, other)
        kinds = [one.verdict for one in found if one.rid == "r1"]
        assert kinds in ([Kind.WON, Kind.FREED], [Kind.WON, Kind.FORGOTTEN])
        assert judged(found).ok


async def _level_is(node: Node, units: int) -> bool:
    return await node.level("A") == units


async def test_what_outgrew_the_log_is_a_row_that_says_how_many(shop: Shop) -> None:
    await shop.add_skus({"A": 1})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        await node.buy("r0", "v0")
        await claims(shop, node)
        for n in range(1, 4):
            with pytest.raises(SoldOut):
                await node.buy(f"r{n}", f"v{n}", retry=True)
        oldest = await node.gate.log.read(2)
        await node.gate.log.forget([call.id for call in oldest])  # as MAXLEN would
        keeper = keeper_of(shop, node)
        await keeper.drain()
        assert (keeper.kept, keeper.lost) == (1, 2)
        found = await claims(shop, node)
        assert told(found)[-2:] == [(2, "lost", ""), (4, "sold_out", "r3")]
        assert found[-2].number == 2
        report = judged(found)
        assert (report.ok, report.missing) == (True, 2)


async def test_two_keepers_store_each_claim_once_and_take_turns(shop: Shop) -> None:
    await shop.add_skus({"A": 90})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        for start in range(0, 60, 20):
            await asyncio.gather(*(node.buy(f"r{n}", f"v{n}") for n in range(start, start + 20)))
        one, two = keeper_of(shop, node, "one"), keeper_of(shop, node, "two")
        await one.drain()
        assert await two.drain() is False  # the other reads
        assert two.kept == 0
        found = await claims(shop, node) if await _lease_ends(node) else []
        assert len({one.n for one in found}) == len(found) == 61


async def _lease_ends(node: Node) -> bool:
    async def free() -> bool:
        return await node.gate.log.lease("node", 60_000)

    await until(free)
    return True


async def test_a_winner_whose_log_died_with_the_gate_is_exported_all_the_same(
    shop: Shop, own_valkey: OwnValkey
) -> None:
    await own_valkey.start()
    shop.valkey_url = shop.gate_url = own_valkey.url
    await shop.add_skus({"A": 3})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        won = await node.buy("r1", "v1")
        await own_valkey.flush()
        await node.checkout.keeper.rebuild()
        await node.buy("r2", "v2")
        await claims(shop, node)
        span = await SqlClaims(shop.database).span("d")
        assert span is not None
        page = await SqlClaims(shop.database).page(span, (-1, -1), 100, drop="d")
        winners = [found for found in page if found.claim.verdict is Kind.WON]
        assert [found.claim.rid for found in winners] == ["r1", "r2"]
        assert (winners[0].claim.epoch, winners[0].claim.n) == won.receipt
        assert winners[0].claim.lines == (("A", 1),)
        assert {found.state for found in winners} == {HoldState.HELD}


async def test_a_page_goes_on_where_the_last_one_ended(shop: Shop) -> None:
    await shop.add_skus({"A": 9})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        await asyncio.gather(*(node.buy(f"r{n}", f"v{n}") for n in range(7)))
        everything = await kept(shop, node)
        book, pieces, after = SqlClaims(shop.database), [], (-1, -1)
        async with shop.database.begin() as conn:  # half of them are in the reservations alone
            await conn.execute(delete(claim_table).where(claim_table.c.n.in_([2, 4, 5])))
        while piece := await book.page(ALL, after, 3):
            assert len(piece) <= 3
            pieces += piece
            after = (piece[-1].claim.epoch, piece[-1].claim.n)
        places = [(found.claim.epoch, found.claim.n, found.claim.rid) for found in pieces]
        assert places == [(one.claim.epoch, one.claim.n, one.claim.rid) for one in everything]


async def test_a_viewer_sees_their_own_press_and_nobody_elses(shop: Shop) -> None:
    await shop.add_skus({"A": 1})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        await node.buy("r1", "v1")
        book = SqlClaims(shop.database)
        early = await book.own("v1", "r1")  # a winner's is there before the log is read
        assert [(found.claim.verdict, found.state) for found in early] == [
            (Kind.WON, HoldState.HELD)
        ]
        for _ in range(2):
            with pytest.raises(SoldOut):
                await node.buy("r2", "v2", retry=True)
        await claims(shop, node)
        twice = await book.own("v2", "r2")
        assert [found.claim.verdict for found in twice] == [Kind.SOLD_OUT] * 2
        assert await book.own("v1", "r2") == []


async def test_claims_go_after_half_a_year(shop: Shop) -> None:
    await shop.add_skus({"A": 5})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        await node.buy("r1", "v1")
        before = shop.clock() + 1
        shop.clock.advance(1_000)
        await node.buy("r2", "v2")
        await claims(shop, node)
        book = SqlClaims(shop.database)
        assert await book.prune(before) is False
        async with shop.database.begin() as conn:
            assert (await conn.execute(claim_table.select())).all() != []
        left = await book.page(ALL, (-1, -1), 100)
        assert [found.claim.rid for found in left if found.claim.node != ""] == []
        assert [found.claim.rid for found in left] == ["r1", "r2"]  # r1 by its reservation


async def test_an_outage_of_the_record_keeps_the_claims_in_the_log(shop: Shop) -> None:
    await shop.add_skus({"A": 1})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        await node.buy("r1", "v1")
        keeper = keeper_of(shop, node)
        calls = await node.gate.log.read(ENTRIES_MAX)
        assert len(calls) == await node.gate.log.length() >= 2
        await keeper.drain()
        assert await node.gate.log.length() == 0


class TestTheCheck:
    """What it must find, on a log that was right before it was changed."""

    @pytest.fixture
    async def log(self, shop: Shop) -> list[Claim]:
        await shop.add_skus({"A": 2})
        async with shop.node() as node:
            await node.checkout.open_drop(shop.drop(("A", 2)))
            await node.buy("r1", "v1")
            await node.buy("r2", "v2")
            with pytest.raises(SoldOut):
                await node.buy("r3", "v3", retry=True)
            await node.checkout.cancel("v1", "r1")
            await node.buy("r4", "v4", retry=True)
            found = await claims(shop, node)
        assert judged(found).ok
        assert [one.verdict for one in found] == [
            *(Kind.LOADED, Kind.WON, Kind.WON, Kind.SOLD_OUT, Kind.FREED, Kind.WON)
        ]
        return found

    @staticmethod
    def codes(found: list[Claim]) -> list[str]:
        return [finding.code for finding in judged(found).findings]

    async def test_a_number_given_twice(self, log: list[Claim]) -> None:
        assert "duplicate" in self.codes([*log[:3], replace(log[3], n=2), *log[4:]])

    async def test_a_unit_sold_twice(self, log: list[Claim]) -> None:
        assert self.codes([*log, replace(log[5], n=6, rid="r5")]) == ["oversold"]

    async def test_a_winner_after_sold_out_without_a_release(self, log: list[Claim]) -> None:
        assert self.codes([*log[:4], replace(log[4], verdict=Kind.OTHER), log[5]]) == ["oversold"]

    async def test_also_where_the_beginning_is_not_known(self, log: list[Claim]) -> None:
        lost = Claim(log[0].epoch, 1, Kind.LOST, log[0].decided_at, number=2)
        assert self.codes([lost, log[3], log[4], log[5]]) == []
        assert self.codes([lost, log[3], replace(log[5], n=4)]) == ["oversold"]

    async def test_a_refusal_though_units_were_left(self, log: list[Claim]) -> None:
        assert self.codes([*log[:2], replace(log[3], n=2), *log[4:]]) == ["refusal"]

    async def test_times_that_run_backwards(self, log: list[Claim]) -> None:
        late = [replace(one, decided_at=one.decided_at - 10_000 * (one.n == 3)) for one in log]
        assert self.codes(late) == ["time", "time"]  # before a lower number, and before its press

    async def test_a_hole_is_missing_and_no_finding(self, log: list[Claim]) -> None:
        report = judged([*log[:2], *log[4:]])
        assert (report.ok, report.missing) == (True, 2)

    async def test_a_win_in_a_closed_drop(self, log: list[Claim]) -> None:
        closed = replace(log[4], n=5, verdict=Kind.CLOSED_DROP, rid="", lines=())
        assert self.codes([*log[:5], closed, replace(log[5], n=6)]) == ["closed"]

    async def test_a_reservation_whose_number_was_changed_afterwards(
        self, log: list[Claim], shop: Shop
    ) -> None:
        """The record and the log name each other: who changes one is found by the other."""
        async with shop.database.begin() as conn:
            changed = update(claim_table).where(claim_table.c.rid == "r2").values(rid="stranger")
            await conn.execute(changed)
        found = [one.claim for one in await SqlClaims(shop.database).page(ALL, (-1, -1), 100)]
        assert "duplicate" in self.codes(found)


async def test_while_presses_wait_claims_do_but_not_for_ever(shop: Shop) -> None:
    await shop.add_skus({"A": 2})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        await node.buy("one", "v")
        pauses: list[float] = []

        async def pause(seconds: float) -> None:
            pauses.append(seconds)
            await asyncio.sleep(0)

        keeper = keeper_of(shop, node, pause=pause, busy=lambda: True)
        task = asyncio.create_task(keeper.run())
        try:
            await until(lambda: keeper.kept > 0)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert len(pauses) >= PUT_OFF_MAX_MS // DRAIN_MS
        assert set(pauses[: PUT_OFF_MAX_MS // DRAIN_MS]) == {DRAIN_MS / 1000}


class _LongLog:
    """A log that never ends, of calls with so many presses each; keeps how many were asked for."""

    def __init__(self, presses: int) -> None:
        self.presses = presses
        self.asked: list[int] = []
        self._n = 0

    async def lease(self, _holder: str, _ms: int) -> bool:
        return True

    async def read(self, limit: int) -> list[Logged]:
        self.asked.append(limit)
        return [self._call() for _ in range(limit)]

    def _call(self) -> Logged:
        first, self._n = self._n + 1, self._n + self.presses
        numbers = range(first, self._n + 1)
        claims = tuple(Claim(1, n, Kind.WON, START, "d", f"r{n}", "v", ()) for n in numbers)
        return Logged(str(first), 1, first, self._n, claims)

    async def forget(self, _ids: Sequence[str]) -> None:
        pass

    async def length(self) -> int:
        return 0


class _Kept:
    def __init__(self) -> None:
        self.n = 0

    async def store(self, claims: Sequence[Claim]) -> None:
        self.n = max(claim.n for claim in claims)

    async def last(self, _epoch: int) -> int | None:
        return self.n


async def test_large_calls_are_stored_few_at_a_time_and_small_ones_many() -> None:
    log = _LongLog(presses=7)
    keeper = ClaimKeeper(
        log,
        cast("Any", _Kept()),
        flagged=dict,
        source="s",
        clock=lambda: START,
        pause=asyncio.sleep,
    )
    for _ in range(6):
        assert await keeper.drain()
    assert log.asked == [2, 4, 8, 16, 32, 32]
    log.presses = 256
    for _ in range(6):
        assert await keeper.drain()
    assert log.asked[6:] == [32, 16, 8, 4, 2, 2]
    assert keeper.lost == 0
