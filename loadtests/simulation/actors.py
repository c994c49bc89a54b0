"""The people: viewers who press, pay, cancel and leave; a host who changes stock and drops.

Responsible for what they do and for writing down what they hear. Each has a chance of its own,
drawn from the seed and its name, so a change to one does not change the others. A viewer repeats an
undecided press under its rid until it is decided, as the page does. It must not know what is right.

A new kind of person is a coroutine function with a `World` and a row in `CAST`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from hashlib import sha256
from random import Random
from typing import Any, Final

from commerce.errors import CommerceError, Refused, Temporary, Unavailable, UnknownHold
from commerce.stock import Drop, DropLine, Hold, HoldState, Line, Press, Raffle
from commerce.waiting import OUTAGES
from loadtests.simulation import databases_sql
from loadtests.simulation.node import Gone, Node
from loadtests.simulation.plan import Fault, Focus
from loadtests.simulation.world import Heard, World

TRIES_MAX: Final = 60
"""Repeats of one press. Far more than needed: whoever gets there was never answered."""
PATIENCE: Final = (1, 1, 2, TRIES_MAX, TRIES_MAX, TRIES_MAX)
"""Some viewers leave before they were answered: nobody asks for what they may have won."""
SHOW: Final = "show"
FIRST_DROP: Final = "drop1"
COLLECTORS: Final = 0.25
"""Share of viewers who take what they can and leave it."""
HOARDERS: Final = 0.5
"""How often one of them comes back when the hold has lapsed."""
RAFFLES: Final = 0.4
"""Share of later drops that are drawn."""


def drop_of(
    world: World, name: str, *, opens_in_ms: int = 0, draws_in_ms: int | None = None
) -> Drop:
    """A drop of all SKUs under the plan's limits, drawn if it says when."""
    plan = world.plan
    raffle = None
    if draws_in_ms is not None:
        seed = sha256(f"{plan.seed} {name}".encode())
        raffle = Raffle(
            world.now_ms + opens_in_ms + draws_in_ms,
            sha256(seed.digest()).hexdigest(),
            seed.hexdigest(),
        )
    return Drop(
        id=name,
        show=SHOW,
        title=name,
        opens_at=world.now_ms + opens_in_ms,
        closes_at=None,
        hold_s=plan.hold_s,
        per_viewer=plan.per_viewer,
        lines=tuple(DropLine(sku, units) for sku, units in plan.units.items()),
        raffle=raffle,
    )


async def press(
    world: World, chance: Random, wanted: Press, *, tries: int = TRIES_MAX
) -> Hold | CommerceError | None:
    """Presses until it is decided; None if it never was, or the viewer gave up."""
    node = world.some_node(chance)
    for attempt in range(tries):
        if node.dead or chance.random() < 0.3:
            node = world.some_node(chance)
        answer = await once(world, node, wanted)
        if answer is not None and not isinstance(answer, Temporary):
            return answer
        wanted = _again(wanted, marked=True)
        await asyncio.sleep(chance.uniform(0.02, 0.3) * (1 + attempt / 4))
    return None


def _again(wanted: Press, *, marked: bool) -> Press:
    return Press(wanted.rid, wanted.viewer, wanted.drop, wanted.lines, marked, wanted.total)


async def once(world: World, node: Node, wanted: Press) -> Hold | CommerceError | None:
    """One press on one node; None if nothing was heard."""
    world.presses += 1
    sent_s = world.loop.now_s
    world.step(node.name, "press", wanted.rid, wanted.retry, *wanted.lines)
    patience_s = world.chance.uniform(0.001, 0.5) if world.meets(Fault.VIEWER) else None
    answer: Hold | CommerceError
    try:
        answer = await node.call(node.checkout.reserve(wanted), patience_s=patience_s)
    except Gone:
        return None
    except CommerceError as refused:
        answer = refused
    words = answer.state if isinstance(answer, Hold) else type(answer).__name__
    world.step(node.name, "answers", wanted.rid, words)
    world.heard.append(Heard(wanted, node.name, sent_s, world.loop.now_s, answer))
    return answer


async def viewer(world: World, tab: str, name: str) -> None:
    """Presses some times, and does something with what they win; some only collect holds.

    Each tab of a viewer is one of these.
    """
    chance = Random(f"{tab} {world.plan.seed}")
    rids = (f"{tab}-{number}" for number in range(world.plan.presses_each))
    collects = chance.random() < COLLECTORS
    await asyncio.sleep(chance.uniform(0, world.plan.lasts_s / 2))
    for rid in rids:
        wanted = Press(rid, name, _some_drop(world, chance), _basket(world, chance))
        answer = await press(world, chance, wanted, tries=chance.choice(PATIENCE))
        if isinstance(answer, Hold) and collects:
            if chance.random() < HOARDERS:  # until it has lapsed; the limits get shorter
                await asyncio.sleep(world.plan.hold_s + chance.uniform(-0.2, 1.5))
                await press(world, chance, _again(wanted, marked=True))
            continue
        if isinstance(answer, Hold):
            await _use(world, chance, wanted, answer)
        elif chance.random() < 0.3:
            await press(world, chance, _again(wanted, marked=chance.random() < 0.5))
        await asyncio.sleep(chance.uniform(0, 0.4))


def _some_drop(world: World, chance: Random) -> str:
    if chance.random() < 0.04:
        return "nosuch"
    if chance.random() < 0.1:
        return chance.choice(world.drops)
    return world.drops[-1]


def _basket(world: World, chance: Random) -> tuple[Line, ...]:
    skus = list(world.plan.stock)
    count = min(chance.choice((1, 1, 1, 2, 2, 3)), len(skus))
    lines = [Line(sku, chance.choice((1, 1, 1, 2, 3))) for sku in chance.sample(skus, count)]
    if chance.random() < 0.15:
        lines.append(Line(lines[0].sku, 1))  # the same SKU twice: one line of the sum
    return tuple(lines)


async def _use(world: World, chance: Random, wanted: Press, hold: Hold) -> None:
    await asyncio.sleep(chance.uniform(0, 0.6))
    fate = chance.random()
    if world.plan.focus is Focus.APART:  # every node must know, with the gate or without
        for node in world.living:
            await once(world, node, _again(wanted, marked=True))
    elif fate < 0.20:
        await press(world, chance, _again(wanted, marked=True))
    elif fate < 0.32:
        other = (*wanted.lines, Line(chance.choice(list(world.plan.stock)), 1))
        stranger = chance.choice((wanted.viewer, "stranger"))
        await press(world, chance, Press(wanted.rid, stranger, wanted.drop, other, True))
    fate = chance.random()
    if fate < 0.30:
        await cancel(world, chance, hold)
    elif fate < 0.65:
        await pay(world, chance, wanted, hold)
    elif fate < 0.75:
        await asyncio.sleep(chance.uniform(0, world.plan.hold_s + 1))
        await press(world, chance, _again(wanted, marked=True))


async def cancel(world: World, chance: Random, hold: Hold) -> None:
    """Gives it back, until that is decided; some ask once and leave."""
    world.given_back.add(hold.rid)
    async for node in nodes(world, chance, tries=chance.choice((1, 2, TRIES_MAX))):
        try:
            await node.call(node.checkout.cancel(hold.viewer, hold.rid))
        except (Gone, Temporary):
            continue
        except UnknownHold:
            world.violated("acknowledged_is_durable", f"{hold.rid} cannot be cancelled")
        except Refused as refused:
            world.step("refused", hold.rid, type(refused).__name__)
        return


async def pay(world: World, chance: Random, wanted: Press, hold: Hold) -> None:
    """The moves a payment makes: begins, then is sold, declined, or ended by the provider."""
    world.given_back.add(hold.rid)
    if not await _move(world, chance, hold.rid, HoldState.PAYING):
        return
    world.paying.add(hold.rid)
    await asyncio.sleep(chance.uniform(0, world.plan.hold_s * 1.5))
    if chance.random() < 0.3:
        await press(world, chance, _again(wanted, marked=True))
    world.paying.discard(hold.rid)
    if chance.random() < 0.25:
        await cancel(world, chance, hold)  # in another tab: the provider has the last word
    fate = chance.random()
    if fate < 0.2 and await _move(world, chance, hold.rid, HoldState.HELD):
        return
    if fate < 0.4:
        await _move(world, chance, hold.rid, HoldState.CLOSING)
        await asyncio.sleep(chance.uniform(0, 0.5))
        end = chance.choice((HoldState.EXPIRED, HoldState.SOLD))
    else:
        end = HoldState.SOLD
    if await _move(world, chance, hold.rid, end) and end is HoldState.SOLD:
        world.sold.add(hold.rid)


async def _move(world: World, chance: Random, rid: str, to: HoldState) -> bool:
    """Whether it is in that state; asked until somebody knows."""
    async for node in nodes(world, chance):
        try:
            state = await node.call(databases_sql.move(node.database, rid, to, node.clock()))
        except (Gone, Unavailable):
            continue
        world.step(node.name, "moved", rid, to, state)
        if chance.random() < 0.7:  # else the relay tells the gate, later
            with suppress(Gone):
                await node.call(node.checkout.settle([rid]))
        return state is to
    return False


async def nodes(world: World, chance: Random, *, tries: int = TRIES_MAX) -> AsyncIterator[Node]:
    """Nodes to ask one after the other, with pauses in between."""
    for attempt in range(tries):
        yield world.some_node(chance)
        await asyncio.sleep(chance.uniform(0.02, 0.3) * (1 + attempt / 4))


async def host(world: World) -> None:
    """Changes stock now and then; closes the drop and opens another one."""
    chance = Random(f"host {world.plan.seed}")
    number = 0
    while world.faulty:
        await asyncio.sleep(chance.uniform(0.2, world.plan.lasts_s / 2))
        number += 1
        fate = chance.random()
        if fate < 0.45:
            await _adjust(world, chance, f"change{number}")
        elif fate < 0.75:
            await _set(world, chance, f"set{number}")
        elif fate < 0.9 and not world.plan.steady:
            await _close_and_open(world, chance)
        else:
            await ask(world, chance, lambda node: node.checkout.levels(world.plan.stock))


async def _adjust(world: World, chance: Random, ref: str) -> None:
    sku = chance.choice(list(world.plan.stock))
    delta = chance.choice((-3, -2, -1, 1, 1, 2, 3))
    async for node in nodes(world, chance):
        try:
            await node.call(node.checkout.adjust(sku, delta, ref=ref))
        except (Gone, Temporary):
            continue
        except Refused as refused:
            world.step("refused", ref, type(refused).__name__)
            return
        world.adjusted[sku] += delta
        world.step("adjusted", ref, sku, delta)
        return


async def _set(world: World, chance: Random, ref: str) -> None:
    """Sets stock to a number, perhaps below what is held; sometimes stops what runs down."""
    sku = chance.choice(list(world.plan.stock))
    if chance.random() < 0.25:
        await ask(world, chance, lambda node: node.checkout.cancel_drain(sku, ref=ref))
        return
    seen: list[int] = []

    async def look(node: Node) -> None:
        seen.append((await node.checkout.stock_row(sku)).on_hand)

    await ask(world, chance, look)
    if not seen:
        return
    expected = seen[-1]
    to = max(expected + chance.choice((-4, -3, -2, -1, 1, 2)), 0)
    drain = chance.random() < 0.7
    if await ask(
        world,
        chance,
        lambda node: node.checkout.set_on_hand(sku, to, expected, ref=ref, drain=drain),
    ):
        world.sets[ref] = (to, expected, drain)
        world.step("set", ref, sku, expected, to)


async def _close_and_open(world: World, chance: Random) -> None:
    name = f"drop{len(world.drops) + 1}"
    await ask(world, chance, lambda node: node.checkout.close_drop(world.drops[-1]))
    draws_in_ms = chance.randint(300, 1_500) if chance.random() < RAFFLES else None
    drop = drop_of(world, name, opens_in_ms=chance.choice((0, 0, 300)), draws_in_ms=draws_in_ms)
    if not await ask(world, chance, lambda node: node.checkout.open_drop(drop)):
        return
    world.drops.append(name)
    if drop.raffle is not None:
        await draw(world, chance, drop.raffle)


async def draw(world: World, chance: Random, raffle: Raffle) -> None:
    """Waits for the end of the entries; a node's loop turns at once, as it does in production."""
    await asyncio.sleep(max(raffle.draws_at - world.now_ms, 0) / 1000 + chance.uniform(0, 0.4))
    await ask(world, chance, _draw_due)


async def _draw_due(node: Node) -> None:
    try:
        await node.waits.draw_due()
    except OUTAGES as error:
        raise Unavailable(0) from error


async def ask(
    world: World, chance: Random, question: Callable[[Node], Coroutine[Any, Any, object]]
) -> bool:
    """Asks nodes until one decides; whether it agreed."""
    async for node in nodes(world, chance):
        try:
            await node.call(question(node))
        except (Gone, Temporary):
            continue
        except Refused as refused:
            world.step("refused", type(refused).__name__)
            return False
        return True
    return False
