"""One seed from its plan to its verdict.

Responsible for the order of things: the shop is filled, the crowd and the faults are let loose, the
faults stop, time runs on until every hold has ended or is sold, and then everything is held against
the invariants. It must not know how anything of that is done.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from commerce.database_sql import Database
from commerce.errors import CommerceError
from commerce.stock import Hold, Line, Press
from loadtests.simulation import (
    actors,
    audit_sql,
    chaos,
    databases_sql,
    judge,
    judge_waits,
    waiters,
)
from loadtests.simulation.plan import Fault, draw
from loadtests.simulation.valkeys_redis import Valkeys
from loadtests.simulation.virtual_time import VirtualLoop
from loadtests.simulation.world import START_MS, World

AUDIT_EVERY_S: Final = 2.5
STEPS_MIN: Final = 200
"""Faults go on until then, however short the plan is."""
PEOPLE_S: Final = 90.0
"""After the faults have stopped: until everybody must have been answered."""
ORPHAN_S: Final = 5.0
SLACK_S: Final = 4.0
LOOK_EVERY_S: Final = 0.5
FLAG_S: Final = 1.3


@dataclass(frozen=True)
class Verdict:
    """What a seed showed."""

    seed: int
    steps: int
    presses: int
    faults: dict[str, int]
    violations: tuple[str, ...]
    trace: str
    virtual_s: float
    lines: tuple[str, ...] = ()


def run_seed(
    number: int, valkeys: Valkeys, database: Database, *, keep_lines: bool = False
) -> Verdict:
    """Plays one seed in a loop of its own."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        world = runner.run(_made(number, loop, valkeys, database, keep=keep_lines))
        try:
            runner.run(_play(world))
        except Exception as error:  # noqa: BLE001 - Endless, Stuck, or what a mutant makes of it
            world.violations.append(f"ends: {error!r}")
        finally:
            runner.run(_clear(world))
    return Verdict(
        seed=number,
        steps=world.steps,
        presses=world.presses,
        faults={fault.value: count for fault, count in sorted(world.faults.items())},
        violations=tuple(world.violations),
        trace=world.trace,
        virtual_s=round(loop.now_s, 3),
        lines=tuple(world.lines or ()),
    )


async def _made(
    number: int, loop: VirtualLoop, valkeys: Valkeys, database: Database, *, keep: bool
) -> World:
    return World(draw(number), loop, valkeys, database, keep=keep)


async def _play(world: World) -> None:
    world.valkeys.begin()
    await databases_sql.empty(world.control)
    await databases_sql.fill(world.control, world.plan.stock, START_MS)
    for _number in range(world.plan.nodes):
        world.start_node()
    keeper = asyncio.create_task(chaos.keep_nodes(world))
    auditor = asyncio.create_task(_audit(world))
    try:
        people = await _let_loose(world)
        await _calm_down(world, keeper)
        await _all_answered(world, people)
        await _until_quiet(world)
    finally:
        for task in (keeper, auditor):
            task.cancel()
    await _verdict(world)
    await _probe(world)


async def _let_loose(world: World) -> list["asyncio.Task[None]"]:
    """The crowd and the faults; returns when the last fault has happened."""
    chance = Random(f"opening {world.plan.seed}")
    draws_in_ms = chance.randint(1_200, 2_800) if world.plan.first_is_raffle else None
    drop = actors.drop_of(world, actors.FIRST_DROP, draws_in_ms=draws_in_ms)
    world.drops.append(drop.id)
    await actors.ask(world, chance, lambda node: node.checkout.open_drop(drop))
    cast: list[Coroutine[Any, Any, None]] = [actors.host(world)]
    tabs = range(world.plan.viewers)
    # The last two are more tabs of the first viewer.
    names = [f"v{number if number < world.plan.viewers - 2 else 0}" for number in tabs]
    cast += [actors.viewer(world, f"tab{number}", names[number]) for number in tabs]
    cast += [waiters.waiter(world, f"w{number}") for number in range(world.plan.waiters)]
    if drop.raffle is not None:
        cast.append(actors.draw(world, chance, drop.raffle))
    people = [asyncio.create_task(actor) for actor in cast]
    await chaos.unleash(world)
    await asyncio.sleep(max(world.plan.lasts_s - world.loop.now_s, 0))
    while world.steps < STEPS_MIN:  # noqa: ASYNC110 - time is virtual
        await asyncio.sleep(LOOK_EVERY_S)
    return people


async def _calm_down(world: World, keeper: "asyncio.Task[None]") -> None:
    """No more faults. Perhaps one node is left alone with what the others have left."""
    world.faulty = False
    keeper.cancel()
    world.gate_away_until = world.sql_away_until = 0.0
    for node in world.living:
        node.engine, node.offset_ms, node.frozen_until = None, 0, 0.0
        node.cut_off_until = 0.0
    if world.plan.alone_at_the_end:
        for node in world.living[1:]:
            node.kill()
    if not world.living:
        world.start_node()


async def _all_answered(world: World, people: list["asyncio.Task[None]"]) -> None:
    _done, waiting = await asyncio.wait(people, timeout=PEOPLE_S)
    if waiting:
        world.violated("everybody_is_answered", f"{len(waiting)} still wait")
    for task in waiting:
        task.cancel()
    for task in people:
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            raise error


async def _until_quiet(world: World) -> None:
    """Until every hold has ended, everything is told and gate and record are of one epoch (I13)."""
    stretch = world.stretch
    patience_s = world.plan.hold_s + ORPHAN_S + SLACK_S + 2 * stretch
    deadline_s = world.loop.now_s + patience_s
    many = -1
    while True:
        open_holds, untold, epoch, waiting = await audit_sql.read_pulse(world.control)
        engine = world.valkeys.now
        stored = engine.command("HGET", judge.PREFIX + b"cfg", "epoch")
        orphans = engine.command("ZCARD", judge.PREFIX + b"orphan")
        offered = engine.command("ZCARD", judge.PREFIX + b"offered")
        late = bool(world.background)
        busy = open_holds or untold or orphans or offered or late
        if not busy and int(stored or 0) == epoch and not await _vain(world):
            return
        if waiting != many:  # somebody was served: time for the next
            many = waiting
            deadline_s = max(deadline_s, world.loop.now_s + patience_s)
        if world.loop.now_s > deadline_s:
            what = f"holds {open_holds}, untold {untold}, orphans {orphans}, offered {offered}"
            world.violated("I13 free_in_time", f"{what}, epochs {stored!r} {epoch}")
            return
        await asyncio.sleep(LOOK_EVERY_S)


async def _vain(world: World) -> bool:
    """Whether somebody waits whose turn it is."""
    books = await audit_sql.read_books(world.control)
    return any(True for _what in judge_waits.ended_faults(books))


async def _audit(world: World) -> None:
    """The record's own invariants, again and again while everything happens."""
    while True:
        await asyncio.sleep(AUDIT_EVERY_S)
        paying = set(world.paying)
        books = await audit_sql.read_books(world.control)
        for invariant, what in audit_sql.faults_in(books, world.doubled):
            world.violated(invariant, what)
        for head in books.heads:
            if head.rid in paying and head.state in ("expired", "cancelled"):
                world.violated("I7 payable_is_kept", f"{head.rid} is {head.state}")


async def _verdict(world: World) -> None:
    books = await audit_sql.read_books(world.control)
    told, logs = await audit_sql.read_told(world.control), await world.valkeys.logs()
    for found in (
        audit_sql.faults_in(books, world.doubled),
        judge.faults_in(world, books),
        judge.gate_faults(world, books),
        judge_waits.faults_in(world, books, told, logs),
    ):
        for invariant, what in found:
            world.violated(invariant, what)


async def _probe(world: World) -> None:
    """I14: what is free can be bought, at every node, by somebody who comes now."""
    await asyncio.sleep(FLAG_S)
    if world.faults[Fault.CLOCK]:
        return  # a flag set by a clock that was ahead lasts longer
    before = await _left(world)
    for node in world.living:
        for sku in sorted(before):
            rid = f"probe-{node.name}-{sku}"
            wanted = Press(rid, rid, world.drops[-1], (Line(sku, 1),))
            answer: Hold | CommerceError
            try:
                answer = await node.call(node.checkout.reserve(wanted))
            except CommerceError as refused:
                answer = refused
            after = await _left(world)
            won = isinstance(answer, Hold)
            # A hold may have lapsed while this node was waiting for a rebuilt gate.
            could = {before.get(sku, 0) > 0, after.get(sku, 0) + won > 0}
            if won not in could:
                world.violated("I14 free_is_sold", f"{sku}: {before}, {after}, {answer!r}")
            before = after


KEPT: Final = -1
"""What is free is for those who wait: somebody who comes now may not have it, nor have had it."""


async def _left(world: World) -> dict[str, int]:
    """Units of the newest drop that the record would sell now; nothing of one that sells none."""
    books = await audit_sql.read_books(world.control)
    free = {row.sku: judge.free_of(row) for row in books.stock}
    newest = {drop.id: drop for drop in books.drops}.get(world.drops[-1])
    undrawn = newest is not None and newest.draws_at is not None and newest.drawn_at is None
    if newest is None or newest.closed_at is not None or undrawn:
        return {}
    left = {
        row.sku: free[row.sku] if row.units is None else min(free[row.sku], row.units - row.taken)
        for row in books.drop_lines
        if row.drop == newest.id
    }
    for row in books.waiting:
        if row.drop == newest.id and row.state == "waiting":
            left[row.sku] = KEPT
    return left


async def _clear(world: World) -> None:
    for node in world.nodes:
        await node.stop()
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
