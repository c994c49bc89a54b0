"""A page that dropped and came back equals one that never dropped: over real sockets and Valkey."""

import asyncio
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from realtime.broker import Chat, Control, State, Tally
from tests.realtime.kit import Viewer, new_id, node, until

GUESTS = 3


async def story(url: str, seed: int) -> None:
    rng = random.Random(seed)
    prefix = f"law{seed}-{new_id()}"
    async with node(url, prefix) as left, node(url, prefix) as right:
        nodes = [left, right]
        steady = await Viewer().open(left)
        await steady.join("s")
        guests: list[Viewer] = []
        for n in range(GUESTS):
            guests.append(await Viewer().open(nodes[n % 2]))
            await guests[-1].join("s")
        for versions in range(1, 31):
            hub = rng.choice(nodes).hub
            match rng.randrange(6):
                case 0:
                    value = rng.choice([None, rng.random() < 2, versions])
                    await hub.publish("s", [Control(rng.choice("abc"), value)])
                case 1:
                    chats = [Chat(f"c{versions}", new_id()) for _ in range(rng.randint(1, 9))]
                    await hub.publish("s", [*chats, Tally("likes", 3)])
                case 2:
                    await hub.publish("s", [State(f"stock:{rng.choice('ab')}", 1, versions)])
                case 3 if steady.view.chat:
                    gone = rng.randint(1, steady.view.chat)
                    entry = Control("retracted", {"comment": gone}, False, retracts=gone)
                    await hub.publish("s", [entry])
                case _:
                    n = rng.randrange(GUESTS)
                    view = await guests[n].cut()
                    guests[n] = await Viewer(view).open(rng.choice(nodes))
                    assert (await guests[n].join("s"))["recovered"]
        await left.hub.publish("s", [Control("end", 1), Chat("end", new_id()), Tally("end", 1)])
        views = [one.view for one in (steady, *guests)]
        await until(lambda: all(v.facts.get("end") and v.states.get("end") for v in views))
        await until(lambda: all(v.chat == steady.view.chat for v in views))
        for view in views:
            assert view.room == steady.view.room
            assert view.comments == steady.view.comments
            assert (view.gaps, view.skipped) == (0, 0)
        for one in (steady, *guests):
            await one.cut()


@given(seed=st.integers(0, 2**32))
@settings(max_examples=6, deadline=None)
def test_a_page_that_dropped_equals_one_that_never_dropped(realtime_valkey_url, seed):
    asyncio.run(story(realtime_valkey_url, seed))
