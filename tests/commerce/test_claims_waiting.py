"""Wait lists in the order of claims: entries, offers and turns are numbered, kept and checked."""

from dataclasses import replace

import pytest

from commerce.claims import Claim, Kind
from commerce.claims_sql import SqlClaims
from commerce.errors import SoldOut
from commerce.stock import HoldState
from tests.commerce.claims_support import claims, judged, kept
from tests.commerce.stock_support import Node, Shop
from tests.commerce.test_waiting import offered


async def a_list(shop: Shop, node: Node) -> None:
    """One A, sold; of four who wait one leaves, one may not have it, one gets it, one waits on."""
    await shop.add_skus({"A": 1, "B": 9})
    await node.checkout.open_drop(shop.drop(("A", None), ("B", None)))
    await node.buy("held", "first")
    for n in range(4):
        await node.wait(f"w{n}", f"v{n}")
    for n in range(3):
        await node.buy(f"b{n}", "v1", ("B", 1))
    await node.waits.leave("v0", "w0")
    await node.checkout.cancel("first", "held")
    await offered(shop, "w2")
    with pytest.raises(SoldOut):
        await node.buy("public", "somebody", retry=True)
    await shop.check_gate(node)


async def test_entries_offers_passes_and_leaves_have_their_numbers_and_the_check_is_content(
    shop: Shop,
) -> None:
    async with shop.node() as node:
        await a_list(shop, node)
        found = await claims(shop, node)
        about_a = [one for one in found if ("A", 1) in one.lines and one.verdict is not Kind.LOADED]
        assert [(one.verdict, one.rid) for one in about_a] == [
            (Kind.WON, "held"),
            *((Kind.WAITS, f"w{n}") for n in range(4)),
            (Kind.LEFT, "w0"),
            (Kind.FREED, "held"),
            (Kind.PASSED, "w1"),
            (Kind.OFFERED, "w2"),
            (Kind.SOLD_OUT, "public"),
        ]
        assert [one.n for one in found] == list(range(len(found)))
        report = judged(found)
        assert (report.findings, report.missing) == ([], 0)
        assert report.winners == 5
        hold = await node.checkout.find("v2", "w2")
        assert hold is not None
        assert hold.receipt == (about_a[8].epoch, about_a[8].n)


async def test_an_offer_that_lapses_goes_to_the_next_and_the_check_is_content(shop: Shop) -> None:
    async with shop.node() as node:
        await a_list(shop, node)
        shop.clock.advance(60_000)
        await offered(shop, "w3")
        await shop.check_gate(node)
        found = await claims(shop, node)
        turns = [one for one in found if one.rid in ("w2", "w3")]
        assert [(one.verdict, one.rid) for one in turns[-3:]] == [
            (Kind.OFFERED, "w2"),
            (Kind.LAPSED, "w2"),
            (Kind.OFFERED, "w3"),
        ]
        assert judged(found).findings == []


async def test_a_list_that_was_there_when_the_epoch_began_is_judged_by_its_units(
    shop: Shop,
) -> None:
    async with shop.node() as node:
        await a_list(shop, node)
        await node.checkout.keeper.rebuild()
        await node.checkout.cancel("v2", "w2")
        await offered(shop, "w3")
        await shop.check_gate(node)
        found = await claims(shop, node)
        assert found[-1].epoch > found[0].epoch
        assert judged(found).findings == []
        last = next(one for one in found if one.rid == "w3" and one.verdict is Kind.OFFERED)
        again = replace(last, n=found[-1].n + 1, rid="w4")
        assert [one.code for one in judged([*found, again]).findings] == ["oversold"]


async def test_one_who_waited_finds_every_step_and_a_host_what_became_of_it(shop: Shop) -> None:
    async with shop.node() as node:
        await a_list(shop, node)
        exported = {
            one.claim.rid: one.state
            for one in await kept(shop, node)
            if one.claim.verdict is Kind.OFFERED
        }
        assert exported == {"w2": HoldState.HELD}
        book = SqlClaims(shop.database)
        assert [(one.claim.verdict, one.state) for one in await book.own("v2", "w2")] == [
            (Kind.WAITS, None),
            (Kind.OFFERED, HoldState.HELD),
        ]
        assert [one.claim.verdict for one in await book.own("v0", "w0")] == [Kind.WAITS, Kind.LEFT]
        assert [one.claim.verdict for one in await book.own("v1", "w1")] == [
            Kind.WAITS,
            Kind.PASSED,
        ]
        assert await book.own("v0", "w2") == []


class TestTheCheck:
    """What it must find, on a log that was right before it was changed."""

    @pytest.fixture
    async def log(self, shop: Shop) -> list[Claim]:
        async with shop.node() as node:
            await a_list(shop, node)
            found = await claims(shop, node)
        assert judged(found).ok
        return found

    @staticmethod
    def codes(found: list[Claim]) -> list[str]:
        return [finding.code for finding in judged(found).findings]

    @staticmethod
    def the(kind: Kind, log: list[Claim]) -> Claim:
        return next(one for one in log if one.verdict is kind)

    def without(self, kind: Kind, log: list[Claim]) -> list[Claim]:
        """Its number was something that says nothing."""
        gone = self.the(kind, log)
        return [replace(one, verdict=Kind.OTHER) if one is gone else one for one in log]

    async def test_an_offered_unit_sold_twice(self, log: list[Claim]) -> None:
        offer, n = self.the(Kind.OFFERED, log), log[-1].n + 1
        waits = replace(self.the(Kind.WAITS, log), n=n, rid="w9", number=99)
        left = replace(self.the(Kind.LEFT, log), n=n + 1, rid="w3")
        assert self.codes([*log, waits, left]) == []
        assert self.codes([*log, waits, left, replace(offer, n=n + 2, rid="w9")]) == ["oversold"]
        won = replace(self.the(Kind.WON, log), n=n, rid="public2", drop="another")
        assert self.codes([*log, won]) == ["oversold"]

    async def test_an_offer_of_units_that_never_came_back(self, log: list[Claim]) -> None:
        assert self.codes(self.without(Kind.FREED, log)) == ["oversold"]

    async def test_a_press_that_wins_while_somebody_waits(self, log: list[Claim]) -> None:
        freed = replace(self.the(Kind.FREED, log), n=log[-1].n + 1, rid="w2")
        won = replace(self.the(Kind.WON, log), n=log[-1].n + 2, rid="public2")
        assert self.codes([*log, freed, won]) == ["overtaken"]

    async def test_an_offer_out_of_turn(self, log: list[Claim]) -> None:
        assert self.codes(self.without(Kind.PASSED, log)) == ["overtaken"]
        assert self.codes(self.without(Kind.LEFT, log)) == ["overtaken"]

    async def test_an_offer_to_one_who_does_not_wait(self, log: list[Claim]) -> None:
        offer = self.the(Kind.OFFERED, log)
        stranger = [replace(one, rid="x") if one is offer else one for one in log]
        assert self.codes(stranger) == ["overtaken"]

    async def test_a_refusal_for_the_sake_of_a_list_on_which_nobody_is(
        self, log: list[Claim]
    ) -> None:
        quiet = [
            replace(one, verdict=Kind.OTHER)
            if one.verdict in (Kind.WAITS, Kind.LEFT, Kind.PASSED, Kind.OFFERED)
            else one
            for one in log
        ]
        assert self.codes(quiet) == ["refusal"]
