"""Leaving in order: each at its time, what is under way is answered, nobody is waited for long."""

import asyncio

from realtime.broker import Chat
from realtime.errors import CloseCode
from tests.realtime.kit import Viewer, node, until, viewer


async def test_a_command_under_way_is_answered_and_what_waits_behind_it_is_refused(
    realtime_valkey_url, prefix
):
    async with node(realtime_valkey_url, prefix) as here, viewer(here) as one:
        await one.join("s")
        waiting = await one.send("wait")
        behind = await one.send("echo", a=1)
        await until(lambda: "wait" in here.handled)
        leaving = asyncio.create_task(here.hub.drain(5.0))
        await until(lambda: one.directs)
        late = await one.send("echo", a=2)
        assert (await one.answer(late))[2]["code"] == "busy"
        assert here.hub.connections == 1, "it waits for the answer"
        here.gate.set()
        assert (await one.answer(waiting))[0] == 0
        refused = (await one.answer(behind))[2]
        assert refused["code"] == "busy"
        assert refused["retry_after_ms"] > 0
        assert await one.closed() == CloseCode.DRAIN
        await leaving
        assert here.handled.count("echo") == 0


async def test_until_its_time_comes_a_viewer_sees_and_does_everything(
    realtime_valkey_url, prefix, monkeypatch
):
    monkeypatch.setattr("realtime.hub.DRAIN_PER_S", 5)
    async with node(realtime_valkey_url, prefix) as here:
        crowd = [await Viewer().open(here) for _ in range(10)]
        for one in crowd:
            await one.join("s")
        leaving = asyncio.create_task(here.hub.drain(20.0))
        last = crowd[-1]
        await until(lambda: last.directs)
        assert last.directs[0][1]["after_ms"] == 1800
        assert await crowd[0].closed() == CloseCode.DRAIN
        assert (await last.command("echo", a=1)) == {"a": 1}
        await here.hub.publish("s", [Chat("still here", "r")])
        await until(lambda: last.view.comments == {1: "still here"})
        await leaving
        assert [await one.closed() for one in crowd] == [CloseCode.DRAIN] * 10
        assert here.hub.counters.closed[CloseCode.DRAIN] == 10


async def test_who_came_in_meanwhile_leaves_too_and_who_does_not_read_is_not_waited_for(
    realtime_valkey_url, prefix
):
    async with node(realtime_valkey_url, prefix) as here, viewer(here) as deaf:
        await deaf.join("s")
        deaf.socket.transport.pause_reading()
        loop = asyncio.get_running_loop()
        began = loop.time()
        leaving = asyncio.create_task(here.hub.drain(1.0))
        await asyncio.sleep(0)
        late = await Viewer().open(here)
        assert await late.closed() in (CloseCode.DRAIN, 1006)
        await leaving
        assert loop.time() - began < 3
        assert here.hub.connections == 0
        deaf.socket.transport.resume_reading()
