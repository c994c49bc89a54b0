import asyncio
import socket

from realtime.broker import Chat, Control, State
from realtime.connection import Limits
from tests.realtime.kit import Node, Viewer, node, until, viewer

SEND_BUFFER = 8 * 1024
STILL_S = 0.9
"""Longer than the first probes of a closed window are apart."""


def small_socket(here: Node) -> socket.socket:
    """A client end that the kernel buffers little for."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024)
    sock.connect(("127.0.0.1", here.port))
    sock.setblocking(False)
    return sock


async def stalled(here: Node) -> Viewer:
    one = await Viewer().open(here, sock=small_socket(here))
    await one.join("s")
    one.socket.transport.pause_reading()
    return one


async def fill(here: Node, name: str, rounds: int = 12) -> None:
    for n in range(rounds):
        await here.hub.publish("s", [State("filler", "x" * 20_000, int(f"{len(name)}{n:03d}"))])
        await until(lambda: not here.hub.rooms[0]._fanout.busy)
        here.hub.rooms[0].flush()


async def stuff(here: Node) -> None:
    """Fill up the second one, who does not read, until the kernel takes no more.

    It does once or twice after it said no: what it holds is packed closer, and a probe of the
    closed window finds it open. Then the viewer is caught up, as it should be, and stops again.
    """
    loop = asyncio.get_running_loop()
    slow = here.connections[1].socket
    await fill(here, "a")
    seen, since = -1, loop.time()

    def still() -> bool:
        nonlocal seen, since
        if not here.hub.lagging or slow.buffered() != seen:
            seen, since = slow.buffered(), loop.time()
        return bool(here.hub.lagging) and loop.time() - since > STILL_S

    await until(still, "the kernel to take no more")


async def test_a_slow_viewer_is_skipped_and_then_caught_up(realtime_valkey_url, prefix):
    options = {"send_buffer": SEND_BUFFER}
    async with node(realtime_valkey_url, prefix, **options) as here, viewer(here) as steady:
        await steady.join("s")
        slow = await stalled(here)
        await stuff(here)
        waiting = here.connections[1].socket.buffered()
        await here.hub.publish("s", [Control("pin", 1), State("stock:a", 5, 1)])
        await here.hub.publish("s", [Control("pin", 2), State("stock:a", 4, 2)])
        for turn in range(3):
            await here.hub.publish("s", [Chat(n, f"{turn}-{n}") for n in range(20)])
        await until(lambda: steady.view.chat == 60)  # a retraction at once would leave it at 59
        await here.hub.publish("s", [Control("retracted", {"comment": 60}, False, retracts=60)])
        await until(lambda: steady.view.control == 3)
        assert slow.view.control == 0
        assert here.connections[1].socket.buffered() == waiting, "nothing piles up for it"
        assert await steady.command("echo", a=1) == {"a": 1}
        slow.socket.transport.resume_reading()
        await until(lambda: slow.view.control == 3 and slow.view.chat >= 59)
        assert slow.view.room == steady.view.room
        assert slow.view.gaps == slow.view.doubles == 0
        assert slow.view.skipped == 39
        assert set(slow.view.comments) == set(range(40, 60))
        assert here.hub.lagging == 0
        await here.hub.publish("s", [Chat("live again", "z")])
        await until(lambda: slow.view.chat == steady.view.chat == 61)
        assert here.hub.counters.skipped == here.hub.counters.drained >= 1
        await slow.cut()


async def test_a_viewer_that_slept_past_the_log_gets_a_snapshot(realtime_valkey_url, prefix):
    options = {"send_buffer": SEND_BUFFER}
    async with node(realtime_valkey_url, prefix, **options) as here, viewer(here) as steady:
        await steady.join("s")
        slow = await stalled(here)
        await stuff(here)
        for turn in range(6):
            await here.hub.publish("s", [Control(f"k{n}", turn) for n in range(100)])
        await until(lambda: steady.view.control == 600)
        slow.socket.transport.resume_reading()
        await until(lambda: slow.view.control == 600)
        assert slow.view.room == steady.view.room
        assert [push[0] for push in slow.view.pushes].count(8) == 2
        await slow.cut()


async def test_one_that_never_reads_is_ended_by_the_time_budget(realtime_valkey_url, prefix):
    options = {"send_buffer": SEND_BUFFER, "beat_ms": 80, "limits": Limits(slow_beats_max=2)}
    async with node(realtime_valkey_url, prefix, **options) as here, viewer(here) as steady:
        await steady.join("s")
        slow = await stalled(here)
        await fill(here, "a")
        await until(lambda: here.hub.counters.slow_ended == 1)
        await until(lambda: here.hub.connections == 1)
        assert here.hub.rooms[0].size == 1
        assert await steady.command("echo") == {}
        await slow.cut()


async def test_one_that_never_reads_is_ended_by_the_byte_budget(realtime_valkey_url, prefix):
    options = {"send_buffer": SEND_BUFFER}
    async with node(realtime_valkey_url, prefix, **options) as here:
        slow = await stalled(here)
        connection = here.connections[0]
        most = 0
        while here.hub.connections and len(slow.directs) < 1000:
            connection.direct("hold", "x" * 10_000)
            most = max(most, connection.socket.buffered())
            if not connection.socket.congested:
                continue
            if not connection.socket.send(b"\xc0"):
                break
        await until(lambda: here.hub.connections == 0)
        assert 200_000 < most <= 256 * 1024
        await slow.cut()


async def test_a_slow_viewer_recovers_after_it_was_ended(realtime_valkey_url, prefix):
    options = {"send_buffer": SEND_BUFFER}
    async with node(realtime_valkey_url, prefix, **options) as here, viewer(here) as steady:
        await steady.join("s")
        slow = await stalled(here)
        await fill(here, "a")
        await here.hub.publish("s", [Control("pin", 1), Chat("a", "a")])
        await until(lambda: steady.view.chat == 1)
        view = await slow.cut()
        async with viewer(here, view) as back:
            assert (await back.join("s"))["recovered"]
            assert back.view.room == steady.view.room
            assert back.view.comments == steady.view.comments
