"""A room under a budget: what is left out, what never is, and that everybody can tell."""

import asyncio

from realtime.broker import Chat, Control, State, Tally
from realtime.pace import SAMPLING, NodePace
from tests.realtime.kit import Viewer, new_id, node, until, viewer

TIGHT = {"bytes_per_s": 3_000, "room_bytes_per_s": 3_000}
"""Two hundred bytes of comments leave nothing for a while."""


async def flood(here, comments: int = 120) -> None:
    chats = [Chat(f"c{n}", new_id(), keep=n % 40 == 5) for n in range(comments)]
    await here.hub.publish("s", chats)


async def test_a_flood_is_sampled_counted_and_never_of_the_hosts(realtime_valkey_url, prefix):
    options = {"pace": NodePace(**TIGHT)}
    async with node(realtime_valkey_url, prefix, **options) as here, viewer(here) as one:
        await one.join("s")
        await here.hub.publish("s", [State("filler", "x" * 3_000, 1)])
        await until(lambda: "filler" in one.view.states)
        await flood(here)
        await until(lambda: one.view.chat == 120)
        assert {6, 46, 86} <= one.view.comments.keys(), "those of who runs the show"
        assert 120 in one.view.comments, "the newest"
        assert one.view.skipped > 0
        assert len(one.view.comments) + one.view.skipped == 120
        assert here.hub.counters.sampled == one.view.skipped
        assert here.hub.rooms[0].pace.step == SAMPLING
        await here.hub.publish("s", [Control("pin", 1), State("stock:a", 1, 1)])
        await until(lambda: one.view.facts == {"pin": 1} and "stock:a" in one.view.states)


async def test_an_author_has_the_reply_even_if_the_comment_is_sampled(realtime_valkey_url, prefix):
    options = {"pace": NodePace(**TIGHT)}
    async with node(realtime_valkey_url, prefix, **options) as here, viewer(here) as one:
        await one.join("s", exempt=True)
        await here.hub.publish("s", [State("filler", "x" * 3_000, 1)])
        ids = [await one.send("say", show="s", text=f"t{n}") for n in range(30)]
        offsets = [(await one.answer(id_))[2]["offset"] for id_ in ids]
        assert offsets == list(range(1, 31))
        await until(lambda: one.view.chat == 30)
        assert len(one.view.comments) + one.view.skipped == 30


async def test_a_sampled_position_recovers_exactly(realtime_valkey_url, prefix):
    options = {"pace": NodePace(**TIGHT)}
    async with (
        node(realtime_valkey_url, prefix, **options) as here,
        node(realtime_valkey_url, prefix) as there,
        viewer(here) as steady,
        viewer(there) as free,
    ):
        await steady.join("s")
        await free.join("s")
        one = await Viewer().open(here)
        await one.join("s")
        await here.hub.publish("s", [State("filler", "x" * 3_000, 1)])
        await flood(here)
        await until(lambda: one.view.chat == steady.view.chat == free.view.chat == 120)
        assert one.view.skipped == steady.view.skipped > 0 == free.view.skipped
        view = await one.cut()
        await here.hub.publish("s", [Control("pin", 2), Chat("kept", new_id(), keep=True)])
        await until(lambda: steady.view.chat == free.view.chat == 121)
        async with viewer(there, view) as back:
            assert (await back.join("s"))["recovered"]
            assert back.view.room == steady.view.room
            assert back.view.comments == steady.view.comments
            assert back.view.skipped == steady.view.skipped
            assert (view.doubles, view.gaps) == (0, 0)


async def test_a_node_that_loads_the_log_knows_what_is_to_be_kept(realtime_valkey_url, prefix):
    async with node(realtime_valkey_url, prefix) as here, viewer(here) as one:
        await one.join("s")
        start = one.view.position
        await flood(here)
        await until(lambda: one.view.chat == 120)
    async with node(realtime_valkey_url, prefix, pace=NodePace(**TIGHT)) as here:
        room = await here.hub.room("s")
        room.pace.comments_bytes(10**9, 0, 1, asyncio.get_running_loop().time())
        assert room.pace.step == SAMPLING
        async with viewer(here) as one:
            assert (await one.join("s", position=start))["recovered"]
            assert {6, 46, 86} <= one.view.comments.keys()
            assert len(one.view.comments) == 50
            assert one.view.skipped == 70


async def test_likes_are_rare_on_the_ladder_and_delay_nothing_else(realtime_valkey_url, prefix):
    async with node(realtime_valkey_url, prefix) as here, viewer(here) as one:
        await one.join("s")
        room = here.hub.rooms[0]
        await here.hub.publish("s", [Tally("likes", 1)])
        await until(lambda: one.view.states.get("likes") == [1, 1])
        room.pace.comments_bytes(10**12, 0, 1, asyncio.get_running_loop().time())
        await here.hub.publish("s", [Tally("likes", 1)])
        await here.hub.publish("s", [State("stock:a", 5, 1)])
        await until(lambda: one.view.states.get("stock:a") == [1, 5])
        assert one.view.states["likes"] == [1, 1], "held"
        assert room.state("likes") == (2, 2)
        await until(lambda: one.view.states["likes"] == [2, 2], "its turn")


async def test_unique_viewers_are_counted_once_over_nodes_windows_and_reconnects(
    realtime_valkey_url, prefix
):
    options = {"report_s": 0.05}
    async with (
        node(realtime_valkey_url, prefix, **options) as left,
        node(realtime_valkey_url, prefix, **options) as right,
        viewer(left) as one,
        viewer(right) as same,
        viewer(right) as other,
    ):
        await one.join("s", viewer="ada")
        await same.join("s", viewer="ada")
        await other.join("s", viewer="bo")
        everybody = {"now": 3, "peak": 3, "unique": 2}
        await until(lambda: one.view.states.get("viewers", [0, 0])[1] == everybody)
        await other.cut()
        await until(lambda: one.view.states["viewers"][1] == {**everybody, "now": 2})
        async with viewer(left) as again:
            await again.join("s", viewer="bo")
            await until(lambda: one.view.states["viewers"][1] == everybody)
        await until(lambda: one.view.states["viewers"][1] == {**everybody, "now": 2})


async def test_more_newcomers_than_a_report_holds_are_all_reported(
    realtime_valkey_url, prefix, monkeypatch
):
    monkeypatch.setattr("realtime.room.NEWCOMERS_MAX", 3)
    async with node(realtime_valkey_url, prefix, report_s=0.05) as here:
        crowd = [await Viewer().open(here) for _ in range(8)]
        await asyncio.gather(*(one.join("s", viewer=f"v{n}") for n, one in enumerate(crowd)))
        view = crowd[0].view
        everybody = {"now": 8, "peak": 8, "unique": 8}
        await until(lambda: view.states.get("viewers", [0, 0])[1] == everybody)
        for one in crowd:
            await one.cut()


async def test_the_pace_that_is_shown_is_the_slowest_nodes(realtime_valkey_url, prefix):
    options = {"report_s": 0.05, "tick_ms": 20}
    async with (
        node(realtime_valkey_url, prefix, **options) as left,
        node(realtime_valkey_url, prefix, **options) as right,
        viewer(left) as one,
        viewer(right) as two,
    ):
        await one.join("s")
        await two.join("s")
        room = right.hub.rooms[0]
        pace = {"step": 0, "tick_ms": 20}
        await until(lambda: one.view.states.get("pace", [0, 0])[1] == pace)
        room.pace.comments_bytes(10**12, 0, 1, asyncio.get_running_loop().time())
        await until(lambda: one.view.states["pace"][1]["step"] == SAMPLING)
        assert left.hub.rooms[0].pace.step == 0
