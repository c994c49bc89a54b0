"""Holds that resist hoarders: the rule as a function, in the gate, without one, after a rebuild."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commerce.claims_sql import SqlClaims
from commerce.errors import HoldsLimited, LimitReached
from commerce.gate import Ask, Image, Verdict
from commerce.hold_rule import DEFAULT_RULE, HOLD_MS_MIN, WINDOW_MS, Allowance, HoldRule, Step
from commerce.stock import OPEN_HOLDS_MAX, Drop, DropLine
from commerce.stock_redis import RedisGate
from tests.commerce.stock_support import START, Node, OwnValkey, Shop

FULL = Allowance(OPEN_HOLDS_MAX, 100, 0, None)


def test_one_lapse_changes_nothing_two_halve_and_four_quarter() -> None:
    def at(*ages: int) -> Allowance:
        return DEFAULT_RULE.allowance([START - age for age in ages], START)

    assert at() == FULL
    assert at(10) == Allowance(3, 100, 1, None)
    assert at(10, 20) == Allowance(2, 50, 2, START - 20 + WINDOW_MS)
    assert at(10, 20, 30) == Allowance(2, 50, 3, START - 20 + WINDOW_MS)
    assert at(40, 30, 10, 20) == Allowance(1, 25, 4, START - 40 + WINDOW_MS)
    assert at(10, WINDOW_MS) == Allowance(3, 100, 1, None)  # the older one is forgotten


def test_it_gets_better_at_the_very_moment_that_was_told() -> None:
    times = [START, START + 1_000]
    told = DEFAULT_RULE.allowance(times, START + 2_000).until_ms
    assert told == START + WINDOW_MS
    assert DEFAULT_RULE.allowance(times, told - 1).holds == 2
    assert DEFAULT_RULE.allowance(times, told).holds == OPEN_HOLDS_MAX


def test_a_shortened_hold_is_long_enough_to_pay_and_never_longer_than_the_drops() -> None:
    quarter = Allowance(1, 25, 4, START)
    assert quarter.hold_ms(180_000) == 45_000
    assert quarter.hold_ms(60_000) == HOLD_MS_MIN
    assert quarter.hold_ms(5_000) == 5_000
    assert FULL.hold_ms(5_000) == 5_000


def test_a_rule_is_read_from_one_line_or_refused_with_a_reason() -> None:
    assert HoldRule.parse("2:50:2,4:25:1") == DEFAULT_RULE
    assert HoldRule.parse(" OFF ") == HoldRule(())
    assert HoldRule(()).allowance([START] * 16, START) == Allowance(3, 100, 16, None)
    for text in (
        "",
        "2:50",
        "x:1:1",
        "2:50:2,2:25:1",
        "2:50:2,3:60:1",
        "2:0:2",
        "2:50:4",
        "17:1:1",
    ):
        with pytest.raises(ValueError, match=r"lapses"):
            HoldRule.parse(text)


STEPS = st.lists(st.tuples(st.integers(1, 16), st.integers(1, 100), st.integers(0, 3)), max_size=4)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    steps=STEPS,
    ages=st.lists(st.integers(0, 2_000), max_size=20),
    open_holds=st.integers(0, 3),
    hold_s=st.integers(5, 400),
)
async def test_the_gate_applies_the_same_rule(
    valkey_url: str,
    steps: list[tuple[int, int, int]],
    ages: list[int],
    open_holds: int,
    hold_s: int,
) -> None:
    rule = HoldRule(_rising(steps), window_ms=1_000)
    rule.check()
    times = sorted(START - age for age in ages)[-16:]
    allowed = rule.allowance(times, START)
    gate = RedisGate.connect(valkey_url, rule=rule)
    drop = Drop("d", "show", "Drop", START, None, hold_s, None, (DropLine("A"),))
    image = Image([drop], {("d", "A"): None}, {"A": 99}, {}, [], lapses={"v": times})
    try:
        epoch = (await gate.epoch() or 0) + 1
        await gate.load(epoch, image, START)
        asks = [Ask(f"r{n}", "f", "v", "d", (("A", 1),)) for n in range(open_holds + 1)]
        decisions, _levels = await gate.reserve(epoch, asks, START)
        won = min(allowed.holds, open_holds + 1)
        assert [one.verdict for one in decisions[:won]] == [Verdict.WON] * won
        for one in decisions[:won]:
            assert one.until_ms == START + allowed.hold_ms(hold_s * 1000)
            assert one.number == (0 if allowed.until_ms is None else allowed.lapses)
        for one in decisions[won:]:
            limited = allowed.holds < OPEN_HOLDS_MAX
            assert one.verdict is (Verdict.LAPSED if limited else Verdict.LIMIT)
            assert one.number == allowed.holds
            assert one.until_ms == (allowed.until_ms if limited else 0)
    finally:
        await gate.close()


def _rising(steps: list[tuple[int, int, int]]) -> tuple[Step, ...]:
    """Any numbers, made into steps that are each stricter than the one before."""
    lapses = sorted({one for one, _percent, _holds in steps})
    percents = sorted((percent for _lapses, percent, _holds in steps), reverse=True)
    holds = sorted((holds for _lapses, _percent, holds in steps), reverse=True)
    return tuple(Step(*step) for step in zip(lapses, percents, holds, strict=False))


async def lapse(shop: Shop, node: Node, viewer: str, times: int) -> None:
    """So many holds of a viewer run out."""
    for n in range(times):
        await node.buy(f"l-{viewer}-{n}-{shop.clock()}", viewer)
        shop.clock.advance(60_000)
        await node.checkout.upkeep.sweep()


async def test_11_a_hoarder_gets_shorter_and_fewer_holds_and_is_told(shop: Shop) -> None:
    await shop.add_skus({"A": 9})
    async with shop.node(upkeep=False) as node:
        await node.checkout.open_drop(shop.drop(("A", None), hold_s=60))
        await lapse(shop, node, "v", 2)
        first = await node.buy("r1", "v")
        assert (first.until_ms - shop.clock(), first.lapses) == (30_000, 2)
        assert (await node.checkout.find("v", "r1")) == first  # as it is in the record
        await node.buy("r2", "v")
        with pytest.raises(HoldsLimited) as limited:
            await node.buy("r3", "v")
        assert limited.value.limit == 2
        assert limited.value.until_ms == START + 60_000 + WINDOW_MS
        assert limited.value.receipt is not None
        other = await node.buy("r4", "w")  # nobody else is meant
        assert (other.until_ms - shop.clock(), other.lapses) == (60_000, 0)
        await node.checkout.cancel("v", "r1")  # giving back is free, and makes room
        await node.buy("r5", "v")
        await node.checkout.upkeep.relay()
        await shop.check_gate(node)


async def test_11_what_was_given_back_or_bought_is_no_lapse(shop: Shop) -> None:
    await shop.add_skus({"A": 9})
    async with shop.node(upkeep=False) as node:
        await node.checkout.open_drop(shop.drop(("A", None), hold_s=60))
        for n in range(6):
            await node.buy(f"r{n}", "v")
            shop.clock.advance(59_999)
            await node.checkout.cancel("v", f"r{n}")
        for n in range(6, 9):
            hold = await node.buy(f"r{n}", "v")
            assert (hold.until_ms - shop.clock(), hold.lapses) == (60_000, 0)
        with pytest.raises(LimitReached):
            await node.buy("r9", "v")


async def test_35_lapses_survive_a_rebuild_and_are_counted_once(shop: Shop) -> None:
    await shop.add_skus({"A": 9})
    async with shop.node(upkeep=False) as node:
        await node.checkout.open_drop(shop.drop(("A", None), hold_s=60))
        await lapse(shop, node, "v", 2)
        await node.checkout.keeper.rebuild()
        await node.checkout.upkeep.relay()  # tells the new gate of the same ends again
        hold = await node.buy("r1", "v")
        assert (hold.until_ms - shop.clock(), hold.lapses) == (30_000, 2)
        shop.clock.advance(WINDOW_MS)
        await node.checkout.upkeep.sweep()
        assert (await node.buy("r2", "v")).lapses == 0


async def lapsed_offers(shop: Shop, node: Node, viewer: str, times: int) -> None:
    """A viewer waits for the only A, is offered it and lets it lie, so many times."""
    for n in range(times):
        await node.buy(f"held-{n}", f"buyer-{n}")
        await node.wait(f"w-{n}", viewer)
        await node.checkout.cancel(f"buyer-{n}", f"held-{n}")
        await node.waits.work_off()
        assert await node.checkout.find(viewer, f"w-{n}") is not None
        shop.clock.advance(60_000)
        await node.checkout.upkeep.sweep()


async def test_offers_that_lapse_count_as_any_hold_in_gate_and_record(
    shop: Shop, own_valkey: OwnValkey
) -> None:
    await own_valkey.start()
    shop.valkey_url = shop.gate_url = own_valkey.url
    await shop.add_skus({"A": 1, "B": 9})
    async with shop.node(upkeep=False) as node:
        await node.checkout.open_drop(shop.drop(("A", None), ("B", None), hold_s=60))
        await lapsed_offers(shop, node, "v", 2)
        at = [START + 60_000, START + 120_000]
        assert await SqlClaims(shop.database).lapses(0) == {"v": at}
        told = []
        for way in ("gate", "rebuilt", "record"):
            if way == "rebuilt":
                await node.checkout.keeper.rebuild()
            if way == "record":
                own_valkey.kill()
            hold = await node.buy(way, "v", ("B", 1))
            told.append((hold.until_ms - shop.clock(), hold.lapses))
            await node.checkout.cancel("v", way)
        assert told == [(30_000, 2)] * 3


async def test_an_offer_is_as_short_as_any_hold_of_who_lets_them_lapse(shop: Shop) -> None:
    await shop.add_skus({"A": 1})
    async with shop.node(upkeep=False) as node:
        await node.checkout.open_drop(shop.drop(("A", None), hold_s=60))
        await lapsed_offers(shop, node, "v", 2)
        await node.buy("held", "first")
        await node.wait("w", "v")
        await node.checkout.cancel("first", "held")
        await node.waits.work_off()
        hold = await node.checkout.find("v", "w")
        assert hold is not None
        assert (hold.until_ms - shop.clock(), hold.lapses) == (30_000, 2)
        await node.checkout.upkeep.relay()
        await shop.check_gate(node)


async def test_who_may_have_no_more_holds_after_lapses_is_passed_over(shop: Shop) -> None:
    await shop.add_skus({"A": 1, "B": 9})
    async with shop.node(upkeep=False) as node:
        await node.checkout.open_drop(shop.drop(("A", None), ("B", None), hold_s=60))
        await lapsed_offers(shop, node, "v", 4)
        await node.buy("held", "first")
        await node.wait("w0", "v")
        await node.wait("w1", "w")
        await node.buy("b", "v", ("B", 1))  # the one hold that is left to them
        await node.checkout.cancel("first", "held")
        await node.waits.work_off()
        assert await node.checkout.find("v", "w0") is None
        assert await node.checkout.find("w", "w1") is not None
        await node.checkout.upkeep.relay()
        await shop.check_gate(node)


async def test_the_record_alone_applies_the_same_rule(shop: Shop, own_valkey: OwnValkey) -> None:
    await own_valkey.start()
    shop.valkey_url = shop.gate_url = own_valkey.url
    await shop.add_skus({"A": 9})
    async with shop.node(upkeep=False) as node:
        await node.checkout.open_drop(shop.drop(("A", None), hold_s=60))
        await lapse(shop, node, "v", 2)
        own_valkey.kill()
        hold = await node.buy("r1", "v")
        assert (hold.until_ms - shop.clock(), hold.lapses) == (30_000, 2)
        await node.buy("r2", "v")
        with pytest.raises(HoldsLimited) as limited:
            await node.buy("r3", "v")
        assert (limited.value.limit, limited.value.until_ms) == (2, START + 60_000 + WINDOW_MS)
        assert (await node.buy("r1", "v", retry=True)).rid == "r1"  # a repetition is no new hold
        assert (await node.buy("r4", "w")).lapses == 0
