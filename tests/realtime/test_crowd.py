"""The order of what is ready: engines first, viewers in portions, broken ones a few at a time."""

import asyncio
import selectors
import socket

import pytest

from realtime import crowd
from realtime.crowd import (
    BROKEN_AT_ONCE,
    CROWD,
    CROWD_AT_ONCE,
    CROWD_MAX,
    CrowdSelector,
    crowd_waits,
    loop_idle,
    new_loop,
)

pytestmark = pytest.mark.skipif(not hasattr(crowd, "CrowdSelector"), reason="no epoll here")
MANY = 5 * CROWD_AT_ONCE


class Viewer(asyncio.Protocol):
    def __init__(self, log: list[object]) -> None:
        self.log = log
        self.lost = 0

    def data_received(self, data: bytes) -> None:
        self.log.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost += 1
        self.log.append(exc)


class Stand:
    def __init__(self) -> None:
        self.log: list[object] = []
        self.viewers: list[Viewer] = []
        self.far: list[socket.socket] = []
        self.selector: CrowdSelector

    def add(self, *, is_crowd: bool = True) -> socket.socket:
        loop = asyncio.get_running_loop()
        listener = socket.create_server(("127.0.0.1", 0))
        far = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
        listener.close()
        near.setblocking(False)
        viewer = Viewer(self.log)
        loop._make_socket_transport(near, viewer, extra={CROWD: is_crowd})
        self.viewers.append(viewer)
        self.far.append(far)
        return far


def run(work) -> None:
    """On the loop under test, like a node."""
    with asyncio.Runner(loop_factory=new_loop, debug=True) as runner:
        runner.run(work)


async def turns_until(true, log: list[object]) -> list[int]:
    """How many things happened in each turn of the loop."""
    counts = []
    async with asyncio.timeout(10):
        while not true():
            before = len(log)
            await asyncio.sleep(0)
            counts.append(len(log) - before)
    return counts


@pytest.mark.parametrize(
    ("turn_s", "portion"),
    [(0.0, CROWD_AT_ONCE), (60.0, CROWD_MAX)],
    ids=["turns are long", "turns are short"],
)
def test_a_crowd_that_speaks_at_once_is_heard_in_portions_and_wholly(monkeypatch, turn_s, portion):
    monkeypatch.setattr(crowd, "TURN_S", turn_s)

    async def work() -> None:
        stand = Stand()
        for _ in range(MANY):
            stand.add()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for far in stand.far:
            far.send(b"x")
        counts = await turns_until(lambda: len(stand.log) == MANY, stand.log)
        assert max(counts) <= portion
        assert len(set(stand.log)) == MANY, "nobody twice before everybody once"
        for far in stand.far:
            far.close()
        await turns_until(lambda: all(one.lost for one in stand.viewers), stand.log)

    run(work())


def test_short_turns_take_more_of_a_crowd_that_waits_and_it_is_known_that_it_waits(monkeypatch):
    monkeypatch.setattr(crowd, "TURN_S", 60.0)

    async def work() -> None:
        stand = Stand()
        for _ in range(MANY):
            stand.add()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not crowd_waits()
        for far in stand.far:
            far.send(b"x")
        counts = await turns_until(lambda: len(stand.log) >= CROWD_AT_ONCE, stand.log)
        assert crowd_waits()
        counts += await turns_until(lambda: len(stand.log) == MANY, stand.log)
        assert max(counts) > CROWD_AT_ONCE
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not crowd_waits()
        stand.far[0].send(b"y")
        await turns_until(lambda: len(stand.log) == MANY + 1, stand.log)
        for far in stand.far:
            far.send(b"z")
        counts = await turns_until(lambda: len(stand.log) > MANY + 1, stand.log)
        assert max(counts) <= CROWD_AT_ONCE, "the next crowd begins with a small portion"
        await turns_until(lambda: len(stand.log) == 2 * MANY + 1, stand.log)
        for far in stand.far:
            far.close()
        await turns_until(lambda: all(one.lost for one in stand.viewers), stand.log)

    run(work())


def test_an_engine_is_served_in_the_next_turn_whatever_the_crowd_does():
    async def work() -> None:
        stand = Stand()
        for _ in range(MANY):
            stand.add()
        engine = stand.add(is_crowd=False)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for far in stand.far:
            far.send(b"x")
        await turns_until(lambda: stand.viewers[-1] in stand.log, stand.log)
        assert len(stand.log) <= CROWD_AT_ONCE + 1
        for far in (*stand.far, engine):
            far.close()
        await turns_until(lambda: all(one.lost for one in stand.viewers), stand.log)

    run(work())


def test_those_who_broke_off_together_are_ended_a_few_at_a_time_and_nobody_waits_for_them():
    async def work() -> None:
        stand = Stand()
        for _ in range(MANY):
            stand.add()
        speaker = stand.add()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for far in stand.far[:-1]:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            far.close()
        speaker.send(b"x")
        counts = await turns_until(lambda: stand.viewers[-1] in stand.log, stand.log)
        assert len(counts) <= 4, "it stood behind nobody"
        counts = await turns_until(lambda: all(one.lost for one in stand.viewers[:-1]), stand.log)
        assert max(counts) <= BROKEN_AT_ONCE
        assert all(one.lost == 1 for one in stand.viewers[:-1])
        speaker.close()
        await turns_until(lambda: stand.viewers[-1].lost == 1, stand.log)

    run(work())


def test_what_a_broken_one_sent_before_is_still_read():
    async def work() -> None:
        stand = Stand()
        far = stand.add()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        far.send(b"last words")
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        far.close()
        await turns_until(lambda: stand.viewers[0].lost == 1, stand.log)

    run(work())


def test_one_that_is_paused_or_has_unsent_bytes_ends_all_the_same():
    async def work() -> None:
        loop = asyncio.get_running_loop()
        stand = Stand()
        far = stand.add()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        transport = next(iter(loop._transports.values()))
        transport.write(b"x" * 8_000_000)
        assert transport.get_write_buffer_size()
        transport.pause_reading()
        transport.resume_reading()
        transport.pause_reading()  # now only the writer is registered
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        far.close()
        await turns_until(lambda: stand.viewers[0].lost == 1, stand.log)

    run(work())


def test_a_descriptor_that_changes_while_it_is_put_aside_keeps_its_key():
    selector = CrowdSelector()
    left, right = socket.socketpair()
    with left, right:
        selector.register(left.fileno(), selectors.EVENT_READ)
        assert selector.get_key(left.fileno()).events == selectors.EVENT_READ
        selector.modify(left.fileno(), selectors.EVENT_READ | selectors.EVENT_WRITE)
        assert [key.fd for key, _ in selector.select(0)] == [left.fileno()]
        selector.unregister(left.fileno())
        assert not selector.select(0)
    selector.close()


def test_a_turn_of_the_loop_says_whether_it_has_more_to_do():
    async def look() -> tuple[bool, bool]:
        loop = asyncio.get_running_loop()
        seen: list[bool] = []
        done = loop.create_future()

        def timer() -> None:
            seen.append(loop_idle())
            loop.call_soon(done.set_result, None)
            seen.append(loop_idle())

        loop.call_later(0.01, timer)
        await done
        return seen[0], seen[1]

    with asyncio.Runner(loop_factory=new_loop, debug=True) as runner:
        assert runner.run(look()) == (True, False)
    assert asyncio.run(look()) == (False, False), "a loop that cannot say has always more to do"
