import asyncio

import pytest

from realtime.broker import Chat, Control, Direct, Gauge, State, Tally
from realtime.errors import BrokerUnavailable, CloseCode, Rejected
from tests.realtime.kit import Viewer, node, until, viewer


async def test_a_join_is_answered_then_the_snapshot_then_live_pushes(realtime_valkey_url, prefix):
    async with node(realtime_valkey_url, prefix) as here:
        await here.hub.publish("s", [Control("pin", {"product": "p"}), State("stock:a", 3, 7)])
        await here.hub.publish("s", [Chat({"text": "hello"}, "r1")])
        async with viewer(here) as one:
            assert await one.join("s") == {"recovered": False}
            first = one.frames[0]
            assert [push[0] for push in first] == [0, 8]
            assert one.view.facts == {"pin": {"product": "p"}}
            assert one.view.states == {"stock:a": [7, 3]}
            assert one.view.comments == {1: {"text": "hello"}}
            await here.hub.publish("s", [Control("pin", None), Tally("likes", 2)])
            await until(lambda: one.view.states.get("likes") == [2, 2])
            assert one.view.facts == {}
            assert (one.view.doubles, one.view.gaps) == (0, 0)


async def test_two_hubs_on_one_broker_share_a_room(realtime_valkey_url, prefix):
    async with (
        node(realtime_valkey_url, prefix) as left,
        node(realtime_valkey_url, prefix) as right,
        viewer(left) as one,
        viewer(right) as two,
    ):
        await one.join("s")
        await two.join("s", viewer="v2")
        answers = await asyncio.gather(
            *(one.command("say", show="s", text=f"l{n}") for n in range(5)),
            *(two.command("say", show="s", text=f"r{n}") for n in range(5)),
        )
        assert sorted(answer["offset"] for answer in answers) == list(range(1, 11))
        await left.hub.publish("s", [Direct("viewer:v2", "hold", {"rid": "x"})])
        await until(lambda: len(one.view.comments) == len(two.view.comments) == 10)
        await until(lambda: two.directs == [["hold", {"rid": "x"}]])
        assert one.view.comments == two.view.comments
        assert one.directs == []


async def test_a_viewer_cut_off_gets_exactly_what_it_missed(realtime_valkey_url, prefix):
    async with node(realtime_valkey_url, prefix) as here, viewer(here) as steady:
        await steady.join("s")
        one = await Viewer().open(here)
        await one.join("s")
        await here.hub.publish("s", [Control("pin", 1), Chat("a", "1"), State("x", 1, 1)])
        await until(lambda: one.view.chat == 1 and steady.view.chat == 1)
        view = await one.cut()
        await here.hub.publish("s", [Control("pin", 2), Chat("b", "2"), State("x", 2, 2)])
        await here.hub.publish("s", [Control("retracted", {"comment": 1}, False, 1)])
        await until(lambda: steady.view.control == 3)
        before = len(view.pushes)
        async with viewer(here, view) as again:
            assert await again.join("s") == {"recovered": True}
            await until(lambda: view.control == 3 and view.chat == 2)
            kinds = [push[0] for push in view.pushes[before:]]
            assert kinds == [2, 2, 3, 4]
            assert view.room == steady.view.room
            assert view.comments == steady.view.comments == {2: "b"}
            assert (view.doubles, view.gaps) == (0, 0)
        assert here.hub.counters.recovered == 1


async def test_a_quiet_room_is_always_recovered_and_an_old_position_is_not(
    realtime_valkey_url, prefix
):
    async with node(realtime_valkey_url, prefix) as here:
        async with viewer(here) as one:
            await one.join("s")
            view = one.view
        async with viewer(here, view) as one:
            assert (await one.join("s"))["recovered"]
        for _ in range(4):
            await here.hub.publish("s", [Chat("x", f"{_}-{n}") for n in range(200)])
        room = here.hub.rooms[0]
        await until(lambda: room.position.chat == 800 and not room._lanes.waiting)
        async with viewer(here, view) as one:
            assert not (await one.join("s"))["recovered"]
            assert one.view.chat == 800
            assert len(one.view.comments) == 50
        async with viewer(here) as one:
            stranger = ["nonsense", 2**50, 2**50]
            assert not (await one.join("s", position=stranger))["recovered"]
            future = [view.epoch, 2**50, 0]
        async with viewer(here) as one:
            assert not (await one.join("s", position=future))["recovered"]


async def test_a_retracted_comment_is_in_no_log_no_snapshot_and_no_recovery(
    realtime_valkey_url, prefix
):
    async with node(realtime_valkey_url, prefix) as here, viewer(here) as steady:
        await steady.join("s")
        start = [steady.view.epoch, 0, 0]
        await here.hub.publish("s", [Chat("good", "1"), Chat("bad", "2"), Chat("good", "3")])
        await until(lambda: len(steady.view.comments) == 3)
        await here.hub.publish("s", [Control("retracted", {"comment": 2}, False, retracts=2)])
        await until(lambda: len(steady.view.comments) == 2)
        async with viewer(here) as late, viewer(here) as back:
            await late.join("s")
            assert late.view.comments == {1: "good", 3: "good"}
            assert "retracted" not in late.view.facts
            assert (await back.join("s", position=start))["recovered"]
            assert back.view.comments == {1: "good", 3: "good"}
        async with node(realtime_valkey_url, prefix) as other, viewer(other) as elsewhere:
            await elsewhere.join("s")
            assert elsewhere.view.comments == {1: "good", 3: "good"}


async def test_the_snapshot_is_encoded_once_for_a_storm(realtime_valkey_url, prefix):
    async with node(realtime_valkey_url, prefix) as here:
        await here.hub.publish("s", [Control("pin", 1), Chat("a", "1")])
        crowd = [await Viewer().open(here) for _ in range(20)]
        await asyncio.gather(*(one.join("s") for one in crowd))
        assert here.hub.counters.snapshots_encoded == 1
        views = [await one.cut() for one in crowd]
        await here.hub.publish("s", [Control("pin", 2), Chat("b", "2")])
        await until(lambda: here.hub.rooms[0].position.control == 2)
        crowd = [await Viewer(view).open(here) for view in views]
        results = await asyncio.gather(*(one.join("s") for one in crowd))
        assert all(result["recovered"] for result in results)
        assert here.hub.counters.shared_recoveries >= 18
        assert {repr(one.view.room) for one in crowd} == {repr(({"pin": 2}, {}))}
        for one in crowd:
            await one.cut()


async def test_a_burst_of_control_and_a_tick_of_chat_share_frames(realtime_valkey_url, prefix):
    async with node(realtime_valkey_url, prefix, tick_ms=100) as here, viewer(here) as one:
        await one.join("s")
        await asyncio.gather(*(here.hub.publish("s", [Chat(n, str(n))]) for n in range(50)))
        await until(lambda: len(one.view.comments) == 50)
        carriers = [frame for frame in one.frames if any(push[0] == 4 for push in frame)]
        assert len(carriers) <= 3
        await here.hub.publish("s", [Control("a", 1), Chat("x", "x"), Control("b", 1)])
        await until(lambda: one.view.facts == {"a": 1, "b": 1})
        assert [push[0] for push in one.frames[-1]] == [2, 2, 4]


async def test_an_older_version_never_replaces_a_newer_one(realtime_valkey_url, prefix):
    async with node(realtime_valkey_url, prefix) as here, viewer(here) as one:
        await one.join("s")
        first = await here.hub.publish("s", [State("stock:a", 5, 10), Gauge("g", "a")])
        second = await here.hub.publish("s", [State("stock:a", 9, 9), Gauge("g", "b")])
        assert (first.numbers, second.numbers) == ([10, 1], [-1, 2])
        await until(lambda: one.view.states.get("g") == [2, "b"])
        assert one.view.states["stock:a"] == [10, 5]


async def test_the_same_rid_is_one_comment(realtime_valkey_url, prefix):
    async with node(realtime_valkey_url, prefix) as here, viewer(here) as one:
        await one.join("s")
        first = await one.command("say", show="s", text="hi", rid="same")
        again = await one.command("say", show="s", text="hi", rid="same")
        other = await one.command("say", show="s", text="ho", rid="other")
        assert (first, again, other) == ({"offset": 1}, {"offset": 1}, {"offset": 2})
        await until(lambda: one.view.chat == 2)
        assert len([push for push in one.view.pushes if push[0] == 4]) == 2


async def test_viewers_are_counted_over_nodes_and_a_dead_node_takes_its_own_along(
    realtime_valkey_url, prefix
):
    options = {"report_s": 0.05, "stale_s": 0.4}
    async with node(realtime_valkey_url, prefix, **options) as left, viewer(left) as one:
        await one.join("s")
        async with node(realtime_valkey_url, prefix, **options) as right, viewer(right) as two:
            await two.join("s")
            both = {"now": 2, "peak": 2, "unique": 0}
            await until(lambda: one.view.states.get("viewers", [0, 0])[1] == both)
        await until(lambda: one.view.states["viewers"][1] == {**both, "now": 1})


async def test_a_room_nobody_watches_is_unloaded_and_a_full_node_says_so(
    realtime_valkey_url, prefix
):
    async with node(realtime_valkey_url, prefix, rooms_max=2) as here, viewer(here) as one:
        await one.join("a")
        await here.hub.room("b")
        await here.hub.room("c")
        assert {room.name for room in here.hub.rooms} == {"a", "c"}
        async with viewer(here) as two:
            await two.join("c")
            with pytest.raises(Rejected) as refused:
                await here.hub.room("d")
            assert refused.value.code == "busy"
    async with node(realtime_valkey_url, prefix, room_idle_ms=50) as here:
        async with viewer(here) as one:
            await one.join("a")
            assert here.hub.rooms
        await until(lambda: not here.hub.rooms, "the room to be unloaded")
        await here.hub.publish("a", [Control("pin", 1)])
        async with viewer(here) as one:
            await one.join("a")
            assert one.view.facts == {"pin": 1}


async def test_a_room_is_opened_once_however_many_ask(realtime_valkey_url, prefix):
    async with node(realtime_valkey_url, prefix) as here:
        asked = [asyncio.create_task(here.hub.room("s")) for _ in range(10)]
        await asyncio.sleep(0)
        asked[0].cancel()
        rooms = await asyncio.gather(*asked[1:])
        assert len({id(room) for room in rooms}) == 1
        with pytest.raises(ValueError, match="room's name"):
            await here.hub.room("no {braces}")


async def test_publishes_keep_their_order_and_one_bad_caller_harms_nobody(
    realtime_valkey_url, prefix
):
    async with node(realtime_valkey_url, prefix) as here, viewer(here) as one:
        await one.join("s")
        results = await asyncio.gather(
            *(
                here.hub.publish("s", [Chat("x" * 40_000 if n == 7 else n, f"{n}")])
                for n in range(20)
            ),
            return_exceptions=True,
        )
        assert isinstance(results.pop(7), ValueError)
        assert [result.numbers for result in results] == [[n] for n in range(1, 20)]
        await until(lambda: one.view.chat == 19)
        assert list(one.view.comments.values()) == [n for n in range(20) if n != 7]


async def test_drain_says_goodbye_spread_out_and_closes_all(realtime_valkey_url, prefix):
    async with node(realtime_valkey_url, prefix) as here:
        crowd = [await Viewer().open(here) for _ in range(10)]
        for one in crowd:
            await one.join("s")
        await here.hub.drain(2.0, spread_ms=1000, url="wss://other.example/live")
        assert here.hub.connections == 0
        assert [await one.closed() for one in crowd] == [CloseCode.DRAIN] * 10
        goodbyes = [one.directs[0][1] for one in crowd]
        assert len({goodbye["after_ms"] for goodbye in goodbyes}) == 10
        assert goodbyes[0]["url"] == "wss://other.example/live"


async def test_a_viewer_is_closed_on_all_its_windows_and_nobody_else(realtime_valkey_url, prefix):
    async with (
        node(realtime_valkey_url, prefix) as here,
        viewer(here) as one,
        viewer(here) as two,
        viewer(here) as other,
    ):
        await one.join("s", viewer="v")
        await two.join("t", viewer="v")
        await other.join("s", viewer="w")
        assert here.hub.close_viewer("v", CloseCode.UNAUTHORIZED) == 2
        assert await one.closed() == await two.closed() == 4501
        assert await other.command("echo", a=1) == {"a": 1}


async def test_a_restarted_engine_gives_everybody_a_new_epoch_and_snapshot(own_valkey, prefix):
    seeded = []

    async def seed(room, facts):
        seeded.append(dict(facts))
        return [] if facts.get("show") else [Control("show", {"title": "from the database"})]

    options = {"seed": seed}
    async with (
        node(own_valkey.url, prefix, **options) as left,
        node(own_valkey.url, prefix, **options) as right,
        viewer(left) as one,
        viewer(right) as two,
    ):
        await one.join("s")
        await two.join("s")
        assert one.view.facts == {"show": {"title": "from the database"}}
        await left.hub.publish("s", [State("stock:a", 3, 9), Chat("hello", "1"), Tally("likes", 4)])
        await until(lambda: one.view.chat == 1 and two.view.chat == 1)
        epoch = one.view.epoch
        own_valkey.kill()
        await until(lambda: not left.hub.broker_ok and not right.hub.broker_ok)
        with pytest.raises(BrokerUnavailable):
            await left.hub.publish("s", [Chat("lost", "2")])
        refused = await one.refusal("say", show="s", text="lost")
        assert refused["code"] == "unavailable"
        assert await one.command("echo", a=1) == {"a": 1}
        own_valkey.start()
        await until(lambda: one.view.epoch != epoch and two.view.epoch != epoch, "a new epoch")
        await until(lambda: bool(one.view.facts) and one.view.facts == two.view.facts)
        await left.hub.publish("s", [State("stock:a", 2, 1), Chat("after", "3")])
        await until(lambda: one.view.states.get("stock:a") == [1, 2], "a version counted anew")
        await until(lambda: "after" in two.view.comments.values())
        assert one.view.room == two.view.room
        assert one.view.comments == two.view.comments
        async with viewer(left) as back:
            assert not (await back.join("s", position=[epoch, 1, 1]))["recovered"]
            assert back.view.room == one.view.room


async def test_a_lost_subscription_heals_without_a_new_epoch(realtime_valkey_url, prefix):
    async with node(realtime_valkey_url, prefix) as here, viewer(here) as one:
        await one.join("s")
        epoch = one.view.epoch
        await here.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await here.hub.publish("s", [Control("pin", 1), Chat("x", "1")])
        await until(lambda: one.view.facts == {"pin": 1} and one.view.chat == 1)
        assert one.view.epoch == epoch
        assert (one.view.doubles, one.view.gaps) == (0, 0)
        assert here.hub.counters.heals >= 1


async def test_a_gap_in_the_offsets_is_loaded_and_healed(realtime_valkey_url, prefix):
    async with node(realtime_valkey_url, prefix) as here, viewer(here) as one:
        await one.join("s")
        room = here.hub.rooms[0]
        heard, room.on_batch = room.on_batch, lambda batch: None  # deaf for a moment
        await here.hub.publish("s", [Control("pin", 1), Chat("x", "1"), State("a", 1, 1)])
        other = await here.broker.load("s")
        assert other.position.control == 1
        await here.broker.publish("s", [Direct("tag:none", "fence", 0)])
        room.on_batch = heard
        await here.hub.publish("s", [Control("announcement", "hi"), Chat("y", "2")])
        await until(lambda: one.view.control == 2 and one.view.chat == 2)
        assert one.view.facts == {"pin": 1, "announcement": "hi"}
        assert one.view.states["a"] == [1, 1]
        assert (one.view.doubles, one.view.gaps) == (0, 0)
        assert here.hub.counters.gaps == 1
