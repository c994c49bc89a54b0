"""Rooms on a cluster of three masters, two nodes: spread, moved, a master killed and back."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
from redis.crc import key_slot

from realtime.broker import Chat, Control, Direct, Gauge, State, Tally
from realtime.broker_redis import RedisBroker, connect
from realtime.cluster_redis import Cluster, ClusterUrl, scheme_found
from realtime.errors import BrokerUnavailable
from realtime.lanes import SNAPSHOT_COMMENTS_MAX
from tests.realtime.kit import Node, Viewer, new_id, node, until, viewer
from tests.realtime.test_recovery_law import story
from tests.valkey_cluster import Master, ValkeyCluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyCluster]:
    """For tests that kill nothing; those that move a slot have rooms of their own."""
    with ValkeyCluster(tmp_path_factory.mktemp("cluster")) as found:
        yield found


@pytest.fixture
def own_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyCluster]:
    """For tests that kill its masters."""
    with ValkeyCluster(tmp_path_factory.mktemp("own")) as found:
        yield found


def one_room_per_master(cluster: ValkeyCluster, prefix: str, start: int = 0) -> dict[str, Master]:
    return {
        cluster.name_on(master, lambda name: f"{prefix}:{{{name}}}", start): master
        for master in cluster.masters
    }


async def publish_until_it_works(here: Node, room: str, *items: object) -> None:
    deadline = time.monotonic() + 15
    while True:
        try:
            await here.hub.publish(room, items)  # type: ignore[arg-type]
        except BrokerUnavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        else:
            return


@contextlib.asynccontextmanager
async def watched(cluster: ValkeyCluster, prefix: str, rooms: dict[str, Master], **options: Any):
    """Two nodes, and a viewer of each room on each of them."""
    async with contextlib.AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(node(cluster.url, prefix, **options)) for _ in range(2)
        ]
        viewers: dict[str, list[Viewer]] = {}
        for room in rooms:
            viewers[room] = [await stack.enter_async_context(viewer(here)) for here in nodes]
            for one in viewers[room]:
                await one.join(room, viewer=f"v-{room}", exempt=True)
        yield nodes, viewers


async def test_rooms_spread_over_the_masters_and_both_nodes_hear_all_of_them(cluster, prefix):
    rooms = one_room_per_master(cluster, prefix)
    async with watched(cluster, prefix, rooms) as (nodes, viewers):
        for turn in range(10):
            for room in rooms:
                await nodes[turn % 2].hub.publish(
                    room,
                    [
                        Control("pin", turn),
                        Chat({"text": turn}, new_id()),
                        State("stock:a", turn, turn + 1),
                        Tally("likes", 2),
                        Direct(f"viewer:v-{room}", "hold", turn),
                    ],
                )
        for room, pair in viewers.items():
            for one in pair:
                await until(lambda one=one: one.view.facts.get("pin") == 9)
                await until(lambda one=one: one.view.states.get("likes") == [20, 20])
                await until(lambda one=one: len(one.directs) == 10 and len(one.view.comments) == 10)
                assert (one.view.gaps, one.view.doubles) == (0, 0)
            assert pair[0].view.comments == pair[1].view.comments
            there = rooms[room].ask("PUBSUB", "SHARDCHANNELS", f"{prefix}:*")
            assert there == [f"{prefix}:{{{room}}}:feed"], "a master hears of its own rooms alone"
        for master in cluster.masters:
            subscribed = master.ask("CLIENT", "LIST", "TYPE", "pubsub").splitlines()
            assert len(subscribed) == len(nodes)
        assert all(here.hub.broker_ok and not here.broker.away for here in nodes)


async def test_a_connection_to_a_master_ends_with_its_last_room(cluster, prefix):
    rooms = list(one_room_per_master(cluster, prefix))
    async with node(cluster.url, prefix, room_idle_ms=50) as here:
        async with viewer(here) as one:
            await one.join(rooms[0])
            await until(lambda: len(here.hub.rooms) == 1)
            pubsubs = [x.ask("CLIENT", "LIST", "TYPE", "pubsub") for x in cluster.masters]
            assert [bool(text) for text in pubsubs] == [True, False, False]
        await until(lambda: not here.hub.rooms)
        await until(lambda: not cluster.masters[0].ask("CLIENT", "LIST", "TYPE", "pubsub"))
        assert here.hub.broker_ok


@pytest.mark.parametrize("seed", [1, 2])
def test_a_page_that_dropped_equals_one_that_never_dropped(cluster, seed):
    asyncio.run(story(cluster.url, seed))


async def test_a_script_touches_its_keys_and_no_others_all_in_one_slot(cluster, prefix):
    broker = RedisBroker(connect(cluster.url), new_id=new_id, prefix=prefix)
    room = "keys"
    client = broker._client.node(await broker._client.owner(f"{prefix}:{{{room}}}"))
    seen = []
    async with client.monitor() as monitor:
        for _ in range(2):
            await broker.publish(
                room,
                [
                    Control("a", 1),
                    Control("b", 1, retracts=1),
                    Control("a", None),
                    State("s", 1, 1),
                    Tally("t", 1),
                    Gauge("g", 1),
                    Chat("c", "r1"),
                    Chat("c", "r2"),
                    Direct("tag:x", "n", 1),
                ],
            )
        await broker.load(room)
        await client.ping()
        async for command in monitor.listen():
            if command["command"] == "PING":
                break
            seen.append(command)
    declared: set[str] = set()
    touched: set[str] = set()
    for command in seen:
        words = command["command"].split(" ")
        if command["client_type"] == "lua":
            if words[0] not in ("INFO", "HELLO"):
                touched.add(words[1])
        elif words[0] in ("EVALSHA", "EVAL") and words[2].isdecimal():
            declared.update(words[3 : 3 + int(words[2])])
    channel = f"{prefix}:{{{room}}}:feed"
    assert touched - {channel} <= declared
    assert {name.removeprefix(f"{prefix}:{{{room}}}") for name in touched} == {
        *("", ":facts", ":states", ":control", ":chat", ":rid:r1", ":rid:r2", ":feed")
    }
    assert len({key_slot(name.encode()) for name in touched}) == 1
    await broker.close()


async def test_a_lost_answer_is_not_repeated_so_a_tally_counts_once(cluster, prefix):
    room, master = next(iter(one_room_per_master(cluster, prefix).items()))
    lose = asyncio.Event()

    async def between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Passes everything on; loses one answer, after the engine has given it."""
        there, back = await asyncio.open_connection("127.0.0.1", master.port)
        while data := await reader.read(65536):
            back.write(data)
            answer = await there.read(65536)
            if lose.is_set():
                lose.clear()
                break
            writer.write(answer)
        back.close()
        writer.close()

    async with await asyncio.start_server(between, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        client = Cluster(
            [("127.0.0.1", master.port)], lambda _: connect(f"redis://127.0.0.1:{port}")
        )
        broker = RedisBroker(client, new_id=new_id, prefix=prefix)
        assert (await broker.publish(room, [Tally("likes", 1)])).numbers == [1]
        lose.set()
        with pytest.raises(BrokerUnavailable):
            await broker.publish(room, [Tally("likes", 1)])
        assert (await broker.publish(room, [Tally("likes", 1)])).numbers == [3]
        await broker.close()


async def test_a_killed_master_takes_its_rooms_away_and_no_others_and_brings_them_back(
    own_cluster, prefix
):
    rooms = one_room_per_master(own_cluster, prefix)
    gone, *alive = rooms
    async with watched(own_cluster, prefix, rooms) as (nodes, viewers):
        for room in rooms:
            await nodes[0].hub.publish(room, [Control("pin", 1), Chat("before", new_id())])
        for pair in viewers.values():
            for one in pair:
                await until(lambda one=one: one.view.chat == 1 and one.view.control == 1)
        epochs = {room: pair[0].view.epoch for room, pair in viewers.items()}
        rooms[gone].kill()
        for here in nodes:
            await until(lambda here=here: here.broker.away == [gone], "the loss to be noticed")
            assert not here.hub.broker_ok
        slowest = 0.0
        until_s = time.monotonic() + 3.5  # past the timeout after which the masters say "fail"
        sent = 1
        while time.monotonic() < until_s:
            for n, here in enumerate(nodes):
                with pytest.raises(BrokerUnavailable):
                    await here.hub.publish(gone, [Control("pin", 2)])
                began = time.monotonic()
                await here.hub.publish(alive[n], [Chat(sent, new_id())])
                slowest = max(slowest, time.monotonic() - began)
            sent += 1
            assert (await viewers[gone][0].command("echo", x=sent))["x"] == sent
        assert slowest < 1.0, "the others do not wait for the dead one"
        late = await Viewer().open(nodes[0])
        await late.join(alive[0])
        assert late.view.chat == sent
        await late.cut()
        rooms[gone].start()
        for here in nodes:
            await until(lambda here=here: here.hub.broker_ok and not here.broker.away)
        await publish_until_it_works(nodes[1], gone, Control("back", 1))
        for n in range(20):
            await publish_until_it_works(nodes[n % 2], gone, Chat(n, new_id()), Tally("likes", 1))
        await nodes[0].hub.publish(gone, [Control("end", 1)])
        for pair in viewers.values():
            for one in pair:
                assert (one.view.gaps, one.view.doubles) == (0, 0)
        for one in viewers[gone]:
            await until(lambda one=one: one.view.facts.get("end") == 1)
            await until(lambda one=one: one.view.states.get("likes") == [20, 20])
            await until(lambda one=one: len(one.view.comments) >= 20)
            assert one.view.epoch != epochs[gone], "an engine that was away numbers anew"
            assert list(one.view.comments.values())[-20:] == list(range(20))
            assert (one.view.gaps, one.view.doubles) == (0, 0)
        assert viewers[gone][0].view.room == viewers[gone][1].view.room
        for room in alive:
            for one in viewers[room]:
                await until(lambda one=one: one.view.chat == sent)
                assert one.view.epoch == epochs[room]
                assert list(one.view.comments.values()) == ["before", *range(1, sent)]
                assert (one.view.gaps, one.view.doubles) == (0, 0)


async def test_a_promoted_replica_has_its_masters_rooms_under_a_new_epoch(own_cluster, prefix):
    rooms = one_room_per_master(own_cluster, prefix)
    gone, *alive = rooms
    spare = own_cluster.spare
    spare.start()
    await asyncio.to_thread(spare.follow, rooms[gone])
    async with watched(own_cluster, prefix, rooms) as (nodes, viewers):
        await nodes[0].hub.publish(gone, [Control("pin", 1), Chat("before", new_id())])
        await until(lambda: all(one.view.chat == 1 for one in viewers[gone]))
        epoch = viewers[gone][0].view.epoch
        rooms[gone].kill()
        await until(lambda: nodes[0].broker.away == [gone] == nodes[1].broker.away)
        for n, here in enumerate(nodes):
            await publish_until_it_works(here, gone, Chat(n, new_id()))
        await until(lambda: all(here.hub.broker_ok and not here.broker.away for here in nodes))
        await nodes[1].hub.publish(gone, [Control("end", 1)])
        for one in viewers[gone]:
            await until(lambda one=one: one.view.facts == {"pin": 1, "end": 1})
            await until(lambda one=one: list(one.view.comments.values()) == ["before", 0, 1])
            assert one.view.epoch != epoch
            assert (one.view.gaps, one.view.doubles) == (0, 0)
        rooms[gone].start()  # it learns that it is the replica now
        await until(lambda: rooms[gone].ask("INFO", "replication")["role"] == "slave")
        for n, here in enumerate(nodes):
            await here.hub.publish(gone, [Chat(2 + n, new_id())])
        await until(lambda: all(one.view.chat == 5 for one in viewers[gone]))
        assert all(viewers[room][0].view.gaps == 0 for room in alive)


async def test_a_room_whose_slot_moves_is_followed_with_a_new_epoch(cluster, prefix):
    rooms = one_room_per_master(cluster, prefix, start=1_000)
    room, *others = rooms
    target = rooms[others[0]]
    async with watched(cluster, prefix, rooms) as (nodes, viewers):
        await nodes[0].hub.publish(room, [Control("pin", 1), Chat("before", new_id())])
        await until(lambda: all(one.view.chat == 1 for one in viewers[room]))
        epoch = viewers[room][0].view.epoch
        moving = asyncio.create_task(
            asyncio.to_thread(cluster.migrate, f"{prefix}:{{{room}}}", target)
        )
        sent = 0
        while not moving.done() and sent < SNAPSHOT_COMMENTS_MAX - 11:  # all fit a new snapshot
            await publish_until_it_works(nodes[sent % 2], room, Chat(sent, new_id()))
            sent += 1
            await asyncio.wait({moving}, timeout=0.01)
        await moving
        for n in range(sent, sent + 10):
            await publish_until_it_works(nodes[n % 2], room, Chat(n, new_id()))
        for one in viewers[room]:
            await until(lambda one=one: len(one.view.comments) == sent + 11)
            assert one.view.epoch != epoch
            assert list(one.view.comments.values()) == ["before", *range(sent + 10)]
            assert one.view.facts == {"pin": 1}
            assert (one.view.gaps, one.view.doubles) == (0, 0)
        channel = f"{prefix}:{{{room}}}:feed"
        assert channel in target.ask("PUBSUB", "SHARDCHANNELS", channel)
        await until(lambda: all(here.hub.broker_ok and not here.broker.away for here in nodes))


async def test_while_a_slot_moves_key_by_key_a_room_says_so_and_goes_on_after_it(cluster, prefix):
    rooms = one_room_per_master(cluster, prefix, start=2_000)
    (room, source), (_, target), *_ = rooms.items()
    key = f"{prefix}:{{{room}}}"
    slot = key_slot(key.encode())
    async with watched(cluster, prefix, rooms, report_s=60) as (nodes, viewers):
        await nodes[0].hub.publish(room, [Control("pin", 1), State("s", 1, 1), Chat("a", "r")])
        here = await nodes[0].broker.position(room)
        bystander = RedisBroker(connect(cluster.url), new_id=new_id, prefix=prefix)
        assert await bystander.position(room) == here
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.ask("CLUSTER", "MYID"))
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.ask("CLUSTER", "MYID"))
        source.ask("MIGRATE", "127.0.0.1", target.port, key, 0, 1000)
        assert await nodes[0].broker.position(room) == here, "ASK is followed"
        with pytest.raises(BrokerUnavailable):
            await nodes[0].hub.publish(room, [Control("pin", 2)])
        keys = source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100)
        source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 1000, "KEYS", *keys)
        for master in (target, source):
            master.ask("CLUSTER", "SETSLOT", slot, "NODE", target.ask("CLUSTER", "MYID"))
        # Nobody publishes, nobody asks: the engine's word alone moves the subscription and heals.
        for one in viewers[room]:
            await until(lambda one=one: one.view.epoch != here.epoch, timeout_s=5)
        await bystander.publish(room, [Control("pin", 3)])  # MOVED is followed at once
        await bystander.close()
        await publish_until_it_works(nodes[1], room, Control("end", 1))
        for one in viewers[room]:
            await until(lambda one=one: one.view.facts == {"pin": 3, "end": 1})
            assert (one.view.gaps, one.view.doubles) == (0, 0)


async def test_a_cluster_that_nobody_answers_for_is_away_in_bounded_time():
    broker = RedisBroker(connect("redis+cluster://127.0.0.1:1,127.0.0.1:2"), new_id=new_id)
    running = asyncio.create_task(broker.run())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        for attempt in (
            broker.publish("s", [Control("a", 1)]),
            broker.load("s"),
            broker.position("s"),
            broker.subscribe("s", None),  # type: ignore[arg-type]
        ):
            with pytest.raises(BrokerUnavailable):
                await attempt
    assert not broker.ok
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await broker.close()


async def test_a_dead_seed_is_passed_over_and_a_cluster_is_known_without_its_scheme(
    cluster, prefix, realtime_valkey_url
):
    living = f"127.0.0.1:{cluster.masters[0].port}"
    assert await scheme_found(f"redis://{living}/") == f"redis+cluster://{living}/"
    assert await scheme_found(realtime_valkey_url) == realtime_valkey_url
    assert await scheme_found("redis://127.0.0.1:1/") is None  # who starts waits, or leaves it so
    broker = RedisBroker(
        connect(f"redis+cluster://127.0.0.1:1,{living}"), new_id=new_id, prefix=prefix
    )
    for room in one_room_per_master(cluster, prefix):
        assert (await broker.publish(room, [Tally("t", 1)])).numbers == [1]
    await broker.close()


def test_the_url_of_a_cluster_names_any_of_its_nodes():
    url = ClusterUrl.parse(
        "rediss+cluster://me:p%40ss@a.example,[::1]:7001,b:7/?ssl_cert_reqs=none"
    )
    assert url.seeds == (("a.example", 6379), ("::1", 7001), ("b", 7))
    assert url.of(("::1", 7001)) == "rediss://me:p%40ss@[::1]:7001/?ssl_cert_reqs=none"
    for bad in ("http://a", "redis+cluster:///", "redis+cluster://a:b"):
        with pytest.raises(ValueError, match=r"\w"):
            ClusterUrl.parse(bad)
    with pytest.raises(ValueError, match="braces"):
        RedisBroker(connect("redis://a"), new_id=new_id, prefix="a{b}")
