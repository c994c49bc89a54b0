"""Linearisability by witness: what was answered is a replay of the gate's log, in real-time order.

Several clients on two nodes press, press again, cancel, let holds lapse, sell, and change stock at
once, on a real Valkey. Each call is recorded with the instants of its call and its answer. Then
the gate's own log is the witness:

* replayed in the order of its numbers through a reference model in plain Python, it gives exactly
  the answers that the clients recorded (no lost unit, no wrong number, no answer out of thin air);
* if one answer came before another call, its number is the smaller one (real-time order);
* a press answered twice was decided once.

Searching for an order is exponential; with a witness it is one pass. Invariant I26.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count

import pytest

from commerce.claims import Claim, Kind
from commerce.errors import (
    DropClosed,
    HoldEnded,
    HoldsLimited,
    LimitReached,
    Refused,
    SoldOut,
    StockHeld,
    Temporary,
    UnknownHold,
    UnknownSku,
)
from commerce.hold_rule import DEFAULT_RULE
from commerce.stock import Drop
from tests.commerce.claims_support import claims
from tests.commerce.gate_model import GateModel
from tests.commerce.stock_support import Node, Shop
from tests.waiting import until

ROUNDS = 3
CLIENTS = 7
STEPS = 14
UNITS = {"A": 5, "B": 9}
PER_VIEWER = 3


@dataclass(frozen=True)
class Answered:
    """One press as its client saw it: when it was called and answered (ticks), and what came."""

    rid: str
    called: int
    answered: int
    receipt: tuple[int, int]
    verdict: Kind
    sku: str
    number: int


class Recorder:
    """Clients that press at random and write down what they hear."""

    def __init__(self, shop: Shop, nodes: list[Node], seed: int) -> None:
        self.shop = shop
        self.nodes = nodes
        self.seed = seed
        self.chance = random.Random(seed)
        self.tick = count()
        self.heard: list[Answered] = []
        self.mine: dict[str, list[str]] = {}
        self.lines: dict[str, tuple[tuple[str, int], ...]] = {}
        self.names = count()

    async def client(self, viewer: str) -> None:
        """One viewer's hand."""
        for _ in range(STEPS):
            node = self.chance.choice(self.nodes)
            action = self.chance.choices(
                (self.press, self.repeat, self.cancel, self.wait, self.adjust),
                (6, 2, 2, 1, 1),
            )[0]
            await action(node, viewer)

    async def press(self, node: Node, viewer: str, rid: str = "", retry: bool = False) -> None:
        """A new press, or one again."""
        again = rid != ""
        rid = rid or f"r{self.seed}-{next(self.names)}"
        sku = "Z" if self.chance.random() < 0.03 else self.chance.choice("AB")
        lines = ((sku, self.chance.randint(1, 2)),)
        if again:
            lines = self.lines[rid]
        self.lines[rid] = lines
        called = next(self.tick)
        try:
            hold = await node.buy(rid, viewer, *lines, retry=retry)
        except Refused as refusal:
            if refusal.receipt is not None:
                heard = (refusal.receipt, *_told(refusal))
                self.heard.append(Answered(rid, called, next(self.tick), *heard))
            return
        except Temporary:  # undecided, on a machine that is busy: asked again like a lost answer
            self.mine.setdefault(viewer, []).append(rid)
            return
        heard = (hold.receipt, Kind.WON, "", hold.lapses)
        self.heard.append(Answered(rid, called, next(self.tick), *heard))
        self.mine.setdefault(viewer, []).append(rid)

    async def repeat(self, node: Node, viewer: str) -> None:
        """The same press at any node: its answer was lost."""
        if self.mine.get(viewer):
            await self.press(node, viewer, self.chance.choice(self.mine[viewer]), retry=True)

    async def cancel(self, node: Node, viewer: str) -> None:
        """Give one back."""
        if self.mine.get(viewer):
            rid = self.mine[viewer].pop()
            await _quiet(node.checkout.cancel(viewer, rid))

    async def wait(self, node: Node, _viewer: str) -> None:
        """Time passes; some holds lapse."""
        self.shop.clock.advance(self.chance.choice((50, 1_000, 15_000, 31_000)))
        await node.checkout.upkeep.sweep()

    async def adjust(self, node: Node, _viewer: str) -> None:
        """The host changes stock."""
        delta = self.chance.choice((-1, 1, 2))
        sku = self.chance.choice("AB")
        await _quiet(node.checkout.adjust(sku, delta, ref=f"x{self.seed}-{next(self.names)}"))


async def _quiet(work: object) -> None:
    with suppress(HoldEnded, StockHeld, UnknownHold, Temporary):
        await work  # type: ignore[misc]


def _told(refusal: Refused) -> tuple[Kind, str, int]:
    match refusal:
        case SoldOut():
            return Kind.SOLD_OUT, refusal.sku, refusal.left
        case LimitReached():
            return Kind.LIMIT, refusal.sku or "", refusal.limit
        case HoldsLimited():
            return Kind.LAPSED_LIMIT, "", refusal.limit
        case UnknownSku():
            return Kind.UNKNOWN_SKU, refusal.sku, 0
        case DropClosed():
            return Kind.CLOSED, "", 0
    raise AssertionError(refusal)


def witness(drop: Drop, log: list[Claim], heard: list[Answered]) -> list[str]:
    """What contradicts the log; empty: the answers are linearisable, and this is the order."""
    wrong: list[str] = []
    by_number: dict[tuple[int, int], Claim] = {}
    model: GateModel | None = None
    for claim in log:
        place = (claim.epoch, claim.n)
        if place in by_number:
            wrong.append(f"{place} twice")
        by_number[place] = claim
        if claim.verdict is Kind.LOADED:
            caps = {sku: units for (_drop, sku), units in claim.caps.items()}
            model = GateModel(drop, Counter(dict(claim.lines)), DEFAULT_RULE, caps)
            continue
        assert model is not None
        expected = model.answer(claim)
        if expected != (claim.verdict, claim.sku, claim.number):
            wrong.append(f"{place}: the model says {expected}, the log {claim}")
            return wrong  # from here on they are two different histories
    first: dict[str, Answered] = {}
    for one in heard:
        decided = by_number.get(one.receipt)
        said = (one.rid, one.verdict, one.sku, one.number)
        if decided is None or said != (decided.rid, decided.verdict, decided.sku, decided.number):
            wrong.append(f"heard {one}, decided {decided}")
        if one.verdict is Kind.WON:
            if one.rid in first and first[one.rid].receipt != one.receipt:
                wrong.append(f"{one.rid} won twice")
            first.setdefault(one.rid, one)
    return wrong + _real_time([one for one in heard if first.get(one.rid, one) is one])


def _real_time(heard: list[Answered]) -> list[str]:
    """Sweep over the instants: no call may get a number below one that was answered before it."""
    wrong, newest = [], (0, 0)
    answers = sorted(heard, key=lambda one: one.answered)
    calls = sorted(heard, key=lambda one: one.called)
    place = 0
    for one in calls:
        while place < len(answers) and answers[place].answered < one.called:
            newest = max(newest, answers[place].receipt)
            place += 1
        if one.receipt < newest:
            wrong.append(f"{one} was called after {newest} had been answered")
    return wrong


async def _round(shop: Shop, seed: int) -> tuple[Drop, list[Claim], list[Answered]]:
    async with shop.node(upkeep=False) as one, shop.node(upkeep=False) as two:
        drop = shop.drop(("A", 4), ("B", None), id=f"d{seed}", per_viewer=PER_VIEWER)
        await one.checkout.open_drop(drop)
        recorder = Recorder(shop, [one, two], seed)
        for node in recorder.nodes:
            node.buy = _in_drop(node, drop.id)  # type: ignore[method-assign]
            await node.level("A")
        viewers = [f"v{seed}-{n}" for n in range(CLIENTS)]
        await asyncio.gather(*(recorder.client(viewer) for viewer in viewers))
        shop.clock.advance(100_000)
        for node in recorder.nodes:
            await node.checkout.upkeep.sweep()
            await node.checkout.upkeep.reap()
            await until(lambda node=node: _told_all(node))  # type: ignore[misc]
        await one.checkout.close_drop(drop.id)
        await shop.check_gate(one)
        log = [
            claim for claim in await claims(shop, one) if claim.epoch >= one.checkout.keeper.epoch
        ]
        return drop, log, recorder.heard


def _in_drop(node: Node, drop: str) -> Callable[..., object]:
    buy = node.buy

    def pressed(rid: str, viewer: str, *lines: tuple[str, int], **more: object) -> object:
        return buy(rid, viewer, *lines, drop=drop, **more)

    return pressed


async def _told_all(node: Node) -> bool:
    return not await node.checkout.upkeep.relay()


@pytest.fixture
async def rounds(shop: Shop) -> list[tuple[Drop, list[Claim], list[Answered]]]:
    await shop.add_skus(UNITS)
    return [await _round(shop, seed) for seed in range(ROUNDS)]


async def test_answers_are_a_replay_of_the_gates_log_in_real_time_order(
    rounds: list[tuple[Drop, list[Claim], list[Answered]]],
) -> None:
    seen: Counter[Kind] = Counter()
    for drop, log, heard in rounds:
        assert witness(drop, log, heard) == []
        assert [claim.n for claim in log] == list(range(len(log)))  # nothing is missing
        seen.update(claim.verdict for claim in log)
        seen.update({Kind.OTHER: sum(one.verdict is Kind.WON for one in heard)})
    # a run in which nothing happened proves nothing
    for kind in (Kind.WON, Kind.SOLD_OUT, Kind.LIMIT, Kind.FREED, Kind.LAPSED, Kind.ADJUSTED):
        assert seen[kind] >= 3, seen
    assert seen[Kind.OTHER] > seen[Kind.WON]  # some were answered more than once
    alive = [_survivors(*one) for one in rounds]
    assert set.intersection(*alive) == set()


ENDS = (Kind.FREED, Kind.LAPSED, Kind.FORGOTTEN)


def _survivors(drop: Drop, log: list[Claim], heard: list[Answered]) -> set[str]:
    """The ways of being wrong, by name, that the witness does not see in this round.

    Each must be seen in some round: not in every one does anybody press again for what came back.
    """

    def heard_as(wrong: Callable[[Answered], Answered], kind: Kind) -> list[Answered]:
        at = next((i for i, one in enumerate(heard) if one.verdict is kind), None)
        return heard if at is None else [*heard[:at], wrong(heard[at]), *heard[at + 1 :]]

    def logged_as(wrong: Callable[[Claim], Claim | None], *kinds: Kind) -> list[Claim]:
        changed = (wrong(one) if one.verdict in kinds else one for one in log)
        return [one for one in changed if one is not None]

    mutants: dict[str, tuple[list[Claim], list[Answered]]] = {
        "an answer with a wrong number": (
            log,
            heard_as(lambda a: replace(a, receipt=(a.receipt[0], a.receipt[1] + 1)), Kind.WON),
        ),
        "an answer with another verdict": (
            log,
            heard_as(lambda a: replace(a, verdict=Kind.WON, sku=""), Kind.SOLD_OUT),
        ),
        "an answer with a wrong count of units": (
            log,
            heard_as(lambda a: replace(a, number=a.number + 1), Kind.SOLD_OUT),
        ),
        "lost units: releases that gave nothing back": (
            logged_as(lambda _c: None, *ENDS),
            heard,
        ),
        "units out of nothing: wins that took none": (
            logged_as(lambda c: replace(c, lines=()), Kind.WON),
            heard,
        ),
        "changes of stock by another number": (
            logged_as(lambda c: replace(c, number=-50), Kind.ADJUSTED),
            heard,
        ),
        "refusals that should have been wins": (
            logged_as(lambda c: replace(c, verdict=Kind.SOLD_OUT, sku="A"), Kind.WON),
            heard,
        ),
    }
    return {
        name
        for name, (changed_log, changed_heard) in mutants.items()
        if not witness(drop, changed_log, changed_heard)
    }


def test_a_number_older_than_an_answer_given_before_the_call_is_caught() -> None:
    early = Answered("a", 0, 1, (1, 5), Kind.WON, "", 0)
    late = Answered("b", 2, 3, (1, 4), Kind.WON, "", 0)
    assert _real_time([early, late])
    assert _real_time([early, replace(late, called=0)]) == []  # they overlapped
    assert _real_time([early, replace(late, receipt=(2, 1))]) == []
