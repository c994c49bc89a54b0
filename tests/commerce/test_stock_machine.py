"""A model of stock against the real gate and record: any order of any actions, on two nodes.

The model is some dictionaries. After every action the record must say what the model says (I1, I2,
I8, I9 and the answer itself, I10), and at the end, when all is told, the gate's numbers must be the
record's (I12).
"""

import asyncio
from collections.abc import Awaitable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis.asyncio import Redis
from sqlalchemy import delete, select

from commerce import reservations_sql
from commerce.database_sql import Database
from commerce.errors import (
    AlreadyWaiting,
    HoldEnded,
    LimitReached,
    RidConflict,
    SoldOut,
    StockHeld,
)
from commerce.gate import ORPHAN_AFTER_MS, Ask, Verdict
from commerce.presses import fingerprint
from commerce.schema_sql import metadata, waiting
from commerce.stock import OPEN_HOLDS_MAX, Hold, HoldState, Line, Press
from tests.commerce.stock_support import Node, Shop

ON_HAND = {"A": 6, "B": 4, "C": 3}
UNITS = {"A": 5, "B": None, "C": 2}
PER_VIEWER = 3
HOLD_MS = 60_000

VIEWERS = st.sampled_from(["v0", "v1", "v2", "v3"])
NODES = st.integers(0, 1)
LINES = st.dictionaries(st.sampled_from(sorted(ON_HAND)), st.integers(1, 3), min_size=1).map(
    lambda lines: tuple(sorted(lines.items()))
)


@dataclass
class Held:
    viewer: str
    lines: tuple[tuple[str, int], ...]
    state: str
    until: int


@dataclass
class Queued:
    rid: str
    viewer: str
    quantity: int


class StockMachine(RuleBasedStateMachine):
    """Built once per example; the engines are shared and emptied at the start."""

    def __init__(self, database_url: str, valkey_url: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.urls = (database_url, valkey_url)
        self.rids = 0
        self.on_hand = dict(ON_HAND)
        self.holds: dict[str, Held] = {}
        self.orphans: dict[str, Held] = {}
        self.lists: dict[str, list[Queued]] = {name: [] for name in ON_HAND}

    def run(self, work: Awaitable[Any]) -> Any:
        return self.runner.run(work)  # type: ignore[arg-type]

    @initialize()
    def open(self) -> None:
        self.run(self._open())

    async def _open(self) -> None:
        self.stack = AsyncExitStack()
        database = await Database.open(self.urls[0], poolsize=4)
        self.stack.push_async_callback(database.close)
        async with database.begin() as conn:
            await conn.run_sync(metadata.create_all)
            for table in reversed(metadata.sorted_tables):
                await conn.execute(delete(table))
        client = Redis.from_url(self.urls[1])
        await client.flushall()
        await client.aclose()
        self.shop = Shop(database, self.urls[1])
        await self.shop.add_skus(ON_HAND)
        self.nodes: list[Node] = [
            await self.stack.enter_async_context(self.shop.node(upkeep=False)) for _ in range(2)
        ]
        drop = self.shop.drop(*UNITS.items(), per_viewer=PER_VIEWER)
        await self.nodes[0].checkout.open_drop(drop)

    # The model.

    def units(self, name: str, *states: str) -> int:
        return sum(
            quantity
            for held in self.holds.values()
            for part, quantity in held.lines
            if part == name and held.state in states
        )

    def left(self, name: str) -> int:
        """What anybody may buy: nothing while somebody waits."""
        free = self.free(name)
        return 0 if free > 0 and self.lists[name] else free

    def free(self, name: str) -> int:
        """What the gate can still give."""
        out = self.units(name, "held", "paying", "sold")
        out += sum(q for o in self.orphans.values() for part, q in o.lines if part == name)
        left = self.on_hand[name] - out
        cap = UNITS[name]
        return left if cap is None else min(left, cap - out)

    def expected(self, viewer: str, lines: tuple[tuple[str, int], ...]) -> type[Exception] | None:
        """How a new press is answered."""
        if any(self.left(name) < quantity for name, quantity in lines):
            return SoldOut
        return LimitReached if self.over_limits(viewer, lines) else None

    def over_limits(self, viewer: str, lines: tuple[tuple[str, int], ...]) -> bool:
        mine = [held for held in self.holds.values() if held.viewer == viewer]
        mine += [held for held in self.orphans.values() if held.viewer == viewer]
        if sum(held.state in ("held", "paying") for held in mine) >= OPEN_HOLDS_MAX:
            return True
        return any(self.used(mine, name) + quantity > PER_VIEWER for name, quantity in lines)

    def used(self, mine: Iterable[Held], name: str) -> int:
        taking = (held for held in mine if held.state in ("held", "paying", "sold"))
        return sum(q for held in taking for part, q in held.lines if part == name)

    def serve(self) -> None:
        """Works off the lists and takes over who was served, which must be in order."""
        while self.run(self.nodes[0].waits.work_off()) or self.run(self._offers_left()):
            pass
        states = self.run(self._waiting_states())
        for name, queue in self.lists.items():
            over = [one for one in queue if states[one.rid] != "waiting"]
            self.lists[name] = [one for one in queue if states[one.rid] == "waiting"]
            assert queue == over + self.lists[name], "somebody was overtaken"
            for one in over:
                lines = ((name, one.quantity),)
                if states[one.rid] == "offered":
                    hold = self.run(self.nodes[0].checkout.find(one.viewer, one.rid))
                    self.holds[one.rid] = Held(one.viewer, lines, "held", hold.until_ms)
        for name, queue in self.lists.items():
            if queue:
                assert self.free(name) < queue[0].quantity, "a unit lies idle"

    async def _offers_left(self) -> int:
        client = Redis.from_url(self.urls[1])
        left = await client.zcard("vitrine:{stock:shop}:offered")
        await client.aclose()
        return int(left)

    async def _waiting_states(self) -> dict[str, str]:
        async with self.shop.database.read() as conn:
            return dict((await conn.execute(select(waiting.c.rid, waiting.c.state))).all())  # type: ignore[arg-type]

    # The actions.

    @rule(viewer=VIEWERS, lines=LINES, node=NODES, retry=st.booleans())
    def press(
        self, viewer: str, lines: tuple[tuple[str, int], ...], node: int, retry: bool
    ) -> None:
        self.rids += 1
        rid = f"r{self.rids}"
        expected = self.expected(viewer, lines)
        board = self.nodes[node].checkout.board
        flagged = board.refused
        pressed = self.nodes[node].buy(rid, viewer, *lines, retry=retry)
        answer = self.run(_answer(pressed))
        if isinstance(answer, Hold):
            assert expected is None
            assert tuple((line.sku, line.quantity) for line in answer.lines) == lines
            self.holds[rid] = Held(viewer, lines, "held", answer.until_ms)
        else:
            # The flag may be behind the other node for a second, and only towards "sold out".
            stale = isinstance(answer, SoldOut) and board.refused > flagged and not retry
            assert stale or type(answer) is expected

    @precondition(lambda self: self.holds)
    @rule(data=st.data(), node=NODES)
    def press_again(self, data: st.DataObject, node: int) -> None:
        rid = data.draw(st.sampled_from(sorted(self.holds)))
        held = self.holds[rid]
        again = self.nodes[node].buy(rid, held.viewer, *held.lines, retry=True)
        if held.state in ("expired", "cancelled"):
            with pytest.raises(HoldEnded):
                self.run(again)
        else:
            assert self.run(again).state == held.state
        with pytest.raises(RidConflict):
            self.run(self.nodes[node].buy(rid, "stranger", *held.lines, retry=True))

    @precondition(lambda self: self.holds)
    @rule(data=st.data(), node=NODES)
    def cancel(self, data: st.DataObject, node: int) -> None:
        rid = data.draw(st.sampled_from(sorted(self.holds)))
        held = self.holds[rid]
        ended = self.nodes[node].checkout.cancel(held.viewer, rid)
        if held.state == "sold":
            with pytest.raises(HoldEnded):
                self.run(ended)
        elif held.state != "paying":
            state = "cancelled" if held.state == "held" else held.state
            assert self.run(ended).state == state
            held.state = state
        else:
            ended.close()

    @precondition(lambda self: any(h.state in ("held", "paying") for h in self.holds.values()))
    @rule(data=st.data(), to=st.sampled_from(["paying", "sold", "held"]))
    def pay(self, data: st.DataObject, to: str) -> None:
        rids = sorted(r for r, held in self.holds.items() if held.state in ("held", "paying"))
        rid = data.draw(st.sampled_from(rids))
        held = self.holds[rid]
        may = (held.state, to) not in {("held", "held"), ("paying", "paying")}
        assert (self.run(self._move(rid, HoldState(to))) is not None) is may
        if may:
            held.state = to

    async def _move(self, rid: str, to: HoldState) -> object:
        async with self.shop.database.begin() as conn:
            moved = await reservations_sql.move(conn, rid, to, self.shop.clock())
        await self.nodes[0].checkout.settle([rid])
        return moved

    @rule(ms=st.sampled_from([1_000, 20_000, 61_000]), node=NODES)
    def time_passes(self, ms: int, node: int) -> None:
        self.shop.clock.advance(ms)
        upkeep = self.nodes[node].checkout.upkeep
        self.run(upkeep.sweep())
        for held in self.holds.values():
            if held.state == "held" and held.until <= self.shop.clock():
                held.state = "expired"
        self.run(upkeep.reap())
        self.orphans = {
            rid: held for rid, held in self.orphans.items() if held.until > self.shop.clock()
        }

    @rule(sku=st.sampled_from(sorted(ON_HAND)), delta=st.integers(-4, 3), node=NODES)
    def adjust(self, sku: str, delta: int, node: int) -> None:
        self.rids += 1
        ref = f"x{self.rids}"
        taken = self.units(sku, "held", "paying", "sold")
        change = self.nodes[node].checkout.adjust
        if self.on_hand[sku] + delta < taken:
            with pytest.raises(StockHeld):
                self.run(change(sku, delta, ref=ref))
            return
        self.on_hand[sku] += delta
        for _ in range(2):  # the second time it is the same change
            row, level = self.run(change(sku, delta, ref=ref))
            self.serve()
            assert row.on_hand == self.on_hand[sku]
            assert level.available == max(self.left(sku), 0)

    @rule(
        viewer=VIEWERS, sku=st.sampled_from(sorted(ON_HAND)), quantity=st.integers(1, 2), node=NODES
    )
    def wait(self, viewer: str, sku: str, quantity: int, node: int) -> None:
        self.rids += 1
        rid = f"q{self.rids}"
        mine = [held for held in self.holds.values() if held.viewer == viewer]
        cap = UNITS[sku]
        total = self.on_hand[sku] if cap is None else min(self.on_hand[sku], cap)
        expected: type[Exception] | None = None
        if self.used(mine, sku) + quantity > PER_VIEWER:
            expected = LimitReached
        elif quantity > total - self.units(sku, "sold"):
            expected = SoldOut
        elif any(one.viewer == viewer for one in self.lists[sku]):
            expected = AlreadyWaiting
        joined = self.nodes[node].wait(rid, viewer, sku, quantity)
        if expected is not None:
            with pytest.raises(expected):
                self.run(joined)
            return
        assert self.run(joined).position == len(self.lists[sku]) + 1
        self.lists[sku].append(Queued(rid, viewer, quantity))

    @precondition(lambda self: any(self.lists.values()))
    @rule(data=st.data(), node=NODES)
    def leave(self, data: st.DataObject, node: int) -> None:
        everybody = [(name, one) for name in sorted(self.lists) for one in self.lists[name]]
        name, one = data.draw(st.sampled_from(everybody))
        assert self.run(self.nodes[node].waits.leave(one.viewer, one.rid)).state == "left"
        self.lists[name].remove(one)

    @rule(viewer=VIEWERS, lines=LINES)
    def win_and_die(self, viewer: str, lines: tuple[tuple[str, int], ...]) -> None:
        """The gate says yes and its node is gone before the record hears of it."""
        self.rids += 1
        rid, node = f"o{self.rids}", self.nodes[0]
        press = Press(rid, viewer, "d", tuple(Line(*line) for line in lines))
        asked = Ask(rid, fingerprint(press), viewer, "d", lines)
        expected = self.expected(viewer, lines)
        decisions, _levels = self.run(
            node.checkout.keeper.call(
                lambda epoch: node.gate.reserve(epoch, [asked], self.shop.clock())
            )
        )
        assert (decisions[0].verdict is Verdict.WON) is (expected is None)
        if expected is None:
            until = self.shop.clock() + ORPHAN_AFTER_MS
            self.orphans[rid] = Held(viewer, lines, "held", until)

    @rule(node=NODES)
    def relay(self, node: int) -> None:
        self.run(self.nodes[node].checkout.upkeep.relay())

    @rule(node=NODES, flush=st.booleans())
    def lose_the_gate(self, node: int, flush: bool) -> None:
        self.orphans.clear()
        self.run(self._flush() if flush else self.nodes[node].checkout.keeper.rebuild())

    async def _flush(self) -> None:
        client = Redis.from_url(self.urls[1])
        await client.flushall()
        await client.aclose()

    @invariant()
    def the_record_says_what_the_model_says(self) -> None:
        self.serve()
        rows = self.run(self.shop.rows())
        assert rows == {
            name: (
                self.on_hand[name],
                self.units(name, "held", "paying"),
                self.units(name, "sold"),
            )
            for name in ON_HAND
        }
        assert self.run(self.shop.states()) == {rid: h.state for rid, h in self.holds.items()} | {
            rid: state for rid, state in self.run(self.shop.states()).items() if rid[0] == "o"
        }

    def teardown(self) -> None:
        if hasattr(self, "nodes"):
            self.run(self._end())
        self.runner.close()

    async def _end(self) -> None:
        async with self.stack:
            self.shop.clock.advance(ORPHAN_AFTER_MS)
            upkeep = self.nodes[0].checkout.upkeep
            await upkeep.reap()
            await upkeep.relay()
            while await self.nodes[0].waits.work_off() or await self._offers_left():
                pass
            await upkeep.relay()
            await self.shop.check_gate(self.nodes[0])
            self.orphans.clear()
            waiting_for = await self.nodes[0].waits.counts(sorted(ON_HAND))
            for name in [name for name, n in waiting_for.items() if n]:
                assert await self.nodes[1].level(name) == 0
            for name in ON_HAND if not any(self.lists.values()) else ():
                assert await self.nodes[1].level(name) == max(self.left(name), 0)


async def _answer(pressed: Awaitable[Hold]) -> Hold | BaseException:
    return (await asyncio.gather(pressed, return_exceptions=True))[0]


@pytest.mark.slow
def test_whatever_happens_in_whatever_order(database_url: str, valkey_url: str) -> None:
    run_state_machine_as_test(
        lambda: StockMachine(database_url, valkey_url),
        settings=settings(
            max_examples=12,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
