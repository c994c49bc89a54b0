"""The faults that happen at an instant of their own, as the plan lists them.

Responsible for killing and freezing nodes, jumping their clocks, and for taking the gate's engine
away in each of the ways an engine goes: silence, an emptied one, a restarted one with all, some or
none of its memory, and one that some nodes still talk to while others have left it. Faults of
single calls are `node`'s.
"""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final

from loadtests.simulation.plan import Fault
from loadtests.simulation.world import World

COPY_EVERY_S: Final = 0.7
"""How often a copy of the engine is kept that may come back later."""
COPIES_MAX: Final = 4
RESTART_S: Final = (0.05, 1.5)
AWAY_S: Final = (0.2, 3.0)
FREEZE_S: Final = (0.2, 9.0)
CLOCK_JUMP_MS: Final = 6_000


async def unleash(world: World) -> None:
    """Everything the plan lists, at its time. Returns when the last has happened."""
    chance = Random(f"chaos {world.plan.seed}")
    copier = asyncio.create_task(_keep_copies(world))
    try:
        for at_s, fault in world.plan.events:
            await asyncio.sleep(max(at_s - world.loop.now_s, 0))
            await _HAPPENS[fault](world, chance)
    finally:
        copier.cancel()
        await asyncio.wait([copier])


async def keep_nodes(world: World) -> None:
    """Starts a new node some time after one has died, for ever."""
    chance = Random(f"nodes {world.plan.seed}")
    while True:
        await asyncio.sleep(chance.uniform(*RESTART_S))
        if len(world.living) < world.plan.nodes:
            world.start_node()


async def _keep_copies(world: World) -> None:
    while True:
        if len(world.copies) < COPIES_MAX:
            world.copies.append(world.valkeys.now.copy())
        await asyncio.sleep(COPY_EVERY_S)


async def _kill(world: World, chance: Random) -> None:
    if world.living:
        world.count(Fault.KILL)
        chance.choice(world.living).kill()


async def _freeze(world: World, chance: Random) -> None:
    if world.living:
        world.count(Fault.FREEZE)
        node = chance.choice(world.living)
        node.frozen_until = world.loop.now_s + chance.uniform(*FREEZE_S)


async def _jump(world: World, chance: Random) -> None:
    if world.living:
        world.count(Fault.CLOCK)
        node = chance.choice(world.living)
        node.offset_ms = chance.randint(-CLOCK_JUMP_MS, CLOCK_JUMP_MS)


async def _gate_away(world: World, chance: Random) -> None:
    world.count(Fault.GATE_AWAY)
    world.gate_away_until = world.loop.now_s + chance.uniform(*AWAY_S)


async def _cut_off(world: World, chance: Random) -> None:
    """One node does not reach the gate, the others do."""
    if world.living:
        world.count(Fault.GATE_APART)
        node = chance.choice(world.living)
        node.cut_off_until = world.loop.now_s + chance.uniform(*AWAY_S)


async def _doubt(world: World, chance: Random) -> None:
    """A false alarm: a node loads a gate anew that was in order, under everybody's hands."""
    if world.living:
        world.count(Fault.GATE_DOUBT)
        chance.choice(world.living).checkout.keeper.distrust()


async def _sql_away(world: World, chance: Random) -> None:
    world.count(Fault.SQL_AWAY)
    world.sql_away_until = world.loop.now_s + chance.uniform(*AWAY_S)


async def _flush(world: World, _chance: Random) -> None:
    world.count(Fault.GATE_FLUSH)
    world.valkeys.now.command("FLUSHALL")


async def _restart(world: World, chance: Random) -> None:
    """Another process, with everything its predecessor knew or nothing; perhaps after a while."""
    if not world.valkeys.spare:
        return
    world.count(Fault.GATE_RESTART)
    kept = chance.random() < 0.6
    world.valkeys.replace(world.valkeys.now.copy() if kept else [])
    if chance.random() < 0.5:
        world.gate_away_until = world.loop.now_s + chance.uniform(0.01, 1.0)


async def _stale(world: World, chance: Random) -> None:
    """A failover to a replica that is some time behind."""
    if not (world.valkeys.spare and world.copies):
        return
    world.count(Fault.GATE_STALE)
    world.valkeys.replace(chance.choice(world.copies))


async def _split(world: World, chance: Random) -> None:
    """Some nodes still reach the old engine after a failover, for a while."""
    if not (world.valkeys.spare and world.copies):
        return
    world.count(Fault.GATE_SPLIT)
    old = world.valkeys.number
    stuck = [node for node in world.living if chance.random() < 0.5]
    world.valkeys.replace(chance.choice(world.copies))
    for node in stuck:
        if node.engine is None:
            node.engine = old
    world.later(asyncio.create_task(_heal_split(world, chance.uniform(0.3, 4.0))))


async def _heal_split(world: World, after_s: float) -> None:
    await asyncio.sleep(after_s)
    for node in world.nodes:
        node.engine = None


_HAPPENS: Final[dict[Fault, Callable[[World, Random], Awaitable[None]]]] = {
    Fault.KILL: _kill,
    Fault.FREEZE: _freeze,
    Fault.CLOCK: _jump,
    Fault.GATE_AWAY: _gate_away,
    Fault.GATE_APART: _cut_off,
    Fault.GATE_DOUBT: _doubt,
    Fault.GATE_FLUSH: _flush,
    Fault.GATE_RESTART: _restart,
    Fault.GATE_STALE: _stale,
    Fault.GATE_SPLIT: _split,
    Fault.SQL_AWAY: _sql_away,
}
