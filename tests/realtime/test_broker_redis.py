import asyncio
import signal

import pytest

from realtime import broker_redis, feed_redis
from realtime.broker import BATCH_ITEMS_MAX, Chat, Control, Direct, Gauge, State, Tally
from realtime.broker_redis import RedisBroker, connect
from realtime.errors import BrokerUnavailable
from realtime.feed_redis import read_batch
from tests.realtime.engine import Valkey
from tests.realtime.kit import new_id, node, until, viewer


@pytest.fixture
async def broker(realtime_valkey_url, prefix):
    one = RedisBroker(connect(realtime_valkey_url), new_id=new_id, prefix=prefix)
    yield one
    await one.close()


async def test_a_publish_numbers_its_items_and_a_load_gives_them_back(broker):
    published = await broker.publish(
        "s",
        [
            Control("pin", {"a": 1}),
            State("stock:a", 3, 2**53 - 1),
            Tally("likes", 2**40),
            Gauge("viewers", {"now": 1}),
            Chat("é", "r"),
            Direct("viewer:v", "hold", None),
            Control("note", None),
            Tally("likes", 1),
        ],
    )
    assert published.numbers == [1, 2**53 - 1, 2**40, 1, 1, 0, 2, 2**40 + 1]
    image = await broker.load("s")
    assert image.position == (published.epoch, 2, 1)
    assert image.facts == {"pin": {"a": 1}}
    assert {state.key: state.version for state in image.states} == {
        "stock:a": 2**53 - 1,
        "likes": 2**40 + 1,
        "viewers": 1,
    }
    assert [entry.offset for entry in image.control] == [1, 2]
    assert await broker.position("s") == image.position
    assert await broker.position("nobody") is None


async def test_what_may_not_be_published_is_refused_and_nothing_is_half_done(broker):
    good = Control("pin", 1)
    for bad in (
        [],
        [good] * (BATCH_ITEMS_MAX + 1),
        [good, Control("", 1)],
        [good, Control("k" * 129, 1)],
        [good, Control("big", "x" * 40_000)],
        [good, Control("odd", object())],
        [good, State("s", 1, -1)],
        [good, Tally("t", 2**53)],
        [good, Chat("c", "")],
    ):
        with pytest.raises(ValueError, match=r"\w"):
            await broker.publish("s", bad)
    with pytest.raises(ValueError, match="name"):
        await broker.publish("s}{", [good])
    assert (await broker.load("s")).position[1:] == (0, 0)


async def test_the_logs_keep_the_newest_and_a_retraction_leaves_a_hole(broker):
    for turn in range(3):
        await broker.publish("s", [Chat(n, f"{turn}-{n}") for n in range(250)])
    await broker.publish("s", [Control("retracted", {"comment": 700}, False, retracts=700)])
    image = await broker.load("s")
    offsets = [entry.offset for entry in image.chat]
    assert offsets == [n for n in range(251, 751) if n != 700]
    assert image.facts == {}
    assert image.control[0].retracts == 700


async def test_a_repeated_rid_is_published_once_also_in_one_batch(broker):
    published = await broker.publish("s", [Chat("a", "r1"), Chat("a", "r1"), Chat("b", "r2")])
    assert published.numbers == [1, 1, 2]
    assert (await broker.publish("s", [Chat("x", "r1")])).numbers == [1]
    assert len((await broker.load("s")).chat) == 2


async def test_an_engine_that_is_away_is_said_so_in_bounded_time(tmp_path):
    broker = RedisBroker(connect(f"unix://{tmp_path}/nobody.sock"), new_id=new_id)
    for attempt in (
        broker.publish("s", [Control("a", 1)]),
        broker.load("s"),
        broker.position("s"),
        broker.subscribe("s", None),
    ):
        async with asyncio.timeout(5):
            with pytest.raises(BrokerUnavailable):
                await attempt
    running = asyncio.create_task(broker.run())
    await asyncio.sleep(0.1)
    assert not running.done()
    assert not broker.ok
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await broker.close()


async def test_a_stopped_engine_is_noticed_and_a_resumed_one_heals(tmp_path, prefix, monkeypatch):
    monkeypatch.setattr(broker_redis, "ANSWER_TIMEOUT_S", 0.3)
    monkeypatch.setattr(feed_redis, "POLL_S", 0.05)
    monkeypatch.setattr(feed_redis, "PING_AFTER_S", 0.1)
    monkeypatch.setattr(feed_redis, "LOST_AFTER_S", 0.4)
    engine = Valkey(tmp_path)
    engine.start()
    async with node(engine.url, prefix) as here, viewer(here) as one:
        await one.join("s")
        epoch = one.view.epoch
        engine.signal(signal.SIGSTOP)
        async with asyncio.timeout(5):
            with pytest.raises(BrokerUnavailable):
                await here.hub.publish("s", [Control("pin", 1)])
        await until(lambda: not here.hub.broker_ok, "the silence to be noticed")
        engine.signal(signal.SIGCONT)
        await until(lambda: here.hub.broker_ok)
        await here.hub.publish("s", [Control("pin", 2)])
        await until(lambda: one.view.facts.get("pin") == 2)
        assert one.view.epoch == epoch
        assert one.view.gaps == one.view.doubles == 0
    engine.kill()


async def test_foreign_bytes_on_a_rooms_channel_are_ignored(realtime_valkey_url, prefix, caplog):
    async with node(realtime_valkey_url, prefix) as here, viewer(here) as one:
        await one.join("s")
        for garbage in (b"", b"\xc1", b"\x92\xa1e\xdc\x00\x01\x91\x90", b"\x92\xa1e\x91\x91\xc0"):
            await here.client.publish(f"{prefix}:{{s}}:feed", garbage)
        await here.hub.publish("s", [Control("pin", 1)])
        await until(lambda: one.view.facts == {"pin": 1})
        assert "no batch" in caplog.text


async def test_a_room_numbered_by_another_run_gets_a_new_epoch_and_states_count_anew(broker):
    first = await broker.publish("s", [Control("pin", 1), State("a", "old", 100), Tally("t", 5)])
    await broker._client.hset(broker._keys("s")[0], "run", "another")
    second = await broker.publish("s", [State("a", "new", 1), Tally("t", 1)])
    assert second.epoch != first.epoch
    assert second.numbers == [1, 6]
    image = await broker.load("s")
    assert (image.facts, image.position.epoch) == ({"pin": 1}, second.epoch)
    await broker._client.delete(broker._keys("s")[0])
    third = await broker.load("s")
    assert third.position.epoch not in (first.epoch, second.epoch)
    assert (third.position.control, third.facts) == (0, {})


def test_a_batch_is_read_as_it_was_written():
    with pytest.raises(Exception, match=r"\w"):
        read_batch(b"\x92\xa1e")
