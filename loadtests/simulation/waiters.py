"""People who wait: they join a list or enter a raffle, and buy, leave, or let their offer lapse.

Responsible for what they do and for writing down what they hear. Their names are those of people
who also press Buy, so limits meet them too. It must not know what is right (see `judge_waits`).
"""

import asyncio
from random import Random
from typing import Final

from commerce.errors import CommerceError, Refused, Temporary, UnknownWait
from commerce.stock import Hold, HoldState, Line, Press
from commerce.waiting import Wait, WaitState
from loadtests.simulation import actors
from loadtests.simulation.node import Gone
from loadtests.simulation.world import Joined, World

PATIENCE: Final = (1, 2, actors.TRIES_MAX, actors.TRIES_MAX)
"""Some leave before they were answered: nobody asks for what they may be offered."""
RAFFLE_S: Final = 0.7
"""Who wants to be drawn comes before the entries close."""
LOOKS_MAX: Final = 4
"""How often somebody looks whether their offer has come."""
STRANGERS: Final = 0.6
"""Share of those who wait and do nothing else; the others are in the crowd too."""


async def waiter(world: World, tab: str) -> None:
    """Waits some times for something."""
    chance = Random(f"{tab} {world.plan.seed}")
    name = tab if chance.random() < STRANGERS else f"v{chance.randrange(world.plan.viewers - 2)}"
    latest_s = RAFFLE_S if world.plan.first_is_raffle else world.plan.lasts_s / 2
    await asyncio.sleep(chance.uniform(0.1, latest_s))
    for number in range(world.plan.waits_each):
        sku = chance.choice(list(world.plan.stock))
        quantity = chance.choice((1, 1, 1, 2))
        wait = Wait(f"{tab}-{number}", name, world.drops[-1], sku, quantity)
        state = await join(world, chance, wait, tries=chance.choice(PATIENCE))
        if state is not None:
            await _use(world, chance, wait)
        await asyncio.sleep(chance.uniform(0, 0.5))


async def join(world: World, chance: Random, wait: Wait, *, tries: int) -> WaitState | None:
    """Joins until it is decided; None if it was refused or never heard."""
    async for node in actors.nodes(world, chance, tries=tries):
        world.step(node.name, "waits", wait.rid, wait.sku, wait.quantity)
        try:
            waiter = await node.call(node.waits.join(wait))
        except (Gone, Temporary):
            continue
        except Refused as refused:
            world.step("refused", wait.rid, type(refused).__name__)
            if wait.rid in world.joined:
                world.violated("acknowledged_is_durable", f"{wait.rid} cannot join again")
            return None
        world.step(node.name, "has in its list", wait.rid, waiter.state)
        world.joined.setdefault(wait.rid, Joined(wait, waiter.state, world.loop.now_s))
        return waiter.state
    return None


async def _use(world: World, chance: Random, wait: Wait) -> None:
    await asyncio.sleep(chance.uniform(0, 0.8))
    fate = chance.random()
    if fate < 0.15:
        await join(world, chance, wait, tries=actors.TRIES_MAX)
    elif fate < 0.30:  # the same id for a press of Buy, perhaps for something else
        world.doubled.add(wait.rid)
        sku = chance.choice((wait.sku, chance.choice(list(world.plan.stock))))
        line = (Line(sku, wait.quantity),)
        await actors.press(world, chance, Press(wait.rid, wait.viewer, wait.drop, line, True))
    fate = chance.random()
    if fate < 0.40:
        await leave(world, chance, wait)
    elif fate < 0.85:
        await _take(world, chance, wait)


async def leave(world: World, chance: Random, wait: Wait) -> None:
    """Waits no more, until that is heard; some say it once and go."""
    async for node in actors.nodes(world, chance, tries=chance.choice((1, actors.TRIES_MAX))):
        world.step(node.name, "leaves", wait.rid)
        world.leaving.add(wait.rid)
        try:
            waiter = await node.call(node.waits.leave(wait.viewer, wait.rid))
        except (Gone, Temporary):
            continue
        except UnknownWait:
            world.violated("acknowledged_is_durable", f"{wait.rid} cannot leave")
            return
        if waiter.state is WaitState.LEFT:
            world.left.add(wait.rid)
        return


async def _take(world: World, chance: Random, wait: Wait) -> None:
    """Looks for the offer now and then; pays it, gives it back, or lets it lapse."""
    for _look in range(LOOKS_MAX):
        await asyncio.sleep(chance.uniform(0.2, 1.0))
        node = world.some_node(chance)
        hold: Hold | None = None
        try:
            hold = await node.call(node.checkout.find(wait.viewer, wait.rid))
        except (Gone, CommerceError):
            continue
        if hold is None:
            continue
        world.step(node.name, "offers", wait.rid, hold.state)
        fate = chance.random()
        if hold.state is HoldState.HELD and fate < 0.3:
            await actors.cancel(world, chance, hold)
        elif hold.state is HoldState.HELD and fate < 0.7:
            line = (Line(wait.sku, wait.quantity),)
            await actors.pay(world, chance, Press(wait.rid, wait.viewer, wait.drop, line), hold)
        return
