import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any, ClassVar

import pytest

from realtime import fanout
from realtime.counters import Counters
from realtime.fanout import FanOut, Pack, Turns
from realtime.lanes import Mark
from realtime.socket import LOSSES
from tests.realtime.kit import until

MARK = Mark(0, 0, 0, 0)
NEXT = Mark(0, 1, 0, 1)


class Slow:
    """A socket that takes its time, to make slices short in members."""

    served: ClassVar[list["Slow"]] = []

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.direct = None
        self.open = True

    def write(self, frame: bytes) -> bool:
        if self.open:
            self.got.append(frame)
            Slow.served.append(self)
        return self.open


class Quick(Slow):
    """A socket whose `direct` takes whole frames until it is congested."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.direct: Any = self.send

    def send(self, frame: bytes) -> int:
        self.sent.append(frame)
        return len(frame)

    def lose(self) -> None:
        self.direct = None
        LOSSES.count += 1


def crowd(count: int) -> list[Any]:
    Slow.served = []
    return [Slow() for _ in range(count)]


async def test_a_large_fan_out_lets_the_loop_breathe(monkeypatch):
    monkeypatch.setattr(fanout, "SLICE_S", 0.0)
    sockets = crowd(1000)
    out = FanOut(lambda socket, mark: None, lambda: None, Counters())
    out.start(b"one", MARK, Pack(sockets))
    assert out.busy
    assert len(Slow.served) == fanout.CHUNK
    turns = 0
    while out.busy:
        turns += 1
        await asyncio.sleep(0)
    assert turns >= 10
    assert all(socket.got == [b"one"] for socket in sockets)


async def test_what_falls_due_during_a_slice_waits_for_that_slice_alone(monkeypatch):
    monkeypatch.setattr(fanout, "SLICE_S", 0.0)
    loop = asyncio.get_running_loop()
    woken: asyncio.Future[None] = loop.create_future()
    seen: list[int] = []

    async def wait() -> None:
        await woken
        seen.append(len(Slow.served))

    class Due(Slow):
        def write(self, frame: bytes) -> bool:
            loop.call_at(loop.time(), woken.set_result, None)
            return super().write(frame)

    waiting = asyncio.create_task(wait())
    sockets = crowd(1000)
    out = FanOut(lambda socket, mark: None, lambda: None, Counters())
    await asyncio.sleep(0)
    first = int(fanout.STRIDE * 1000)
    sockets[first + 2 * fanout.CHUNK + 3] = Due()
    out.start(b"x", MARK, Pack(sockets))
    await until(lambda: not out.busy)
    await waiting
    assert seen == [3 * fanout.CHUNK], "not the end of its own slice, the third"


async def test_who_begins_after_a_slice_was_used_up_waits_for_the_others(monkeypatch):
    monkeypatch.setattr(fanout, "SLICE_S", 0.05)
    turns = Turns()
    outs = [FanOut(lambda socket, mark: None, lambda: None, Counters(), turns) for _ in range(3)]
    outs[0].start(b"x", MARK, Pack(crowd(10)))
    assert not outs[0].busy, "served at once"
    monkeypatch.setattr(turns, "_left_s", -1.0)
    monkeypatch.setattr(turns, "_fresh_s", asyncio.get_running_loop().time() + 60)
    for out in outs[1:]:
        out.start(b"x", MARK, Pack(crowd(10)))
        assert out.busy
    await until(lambda: not any(out.busy for out in outs))


class Lazy(Slow):
    """A chunk of these is a slice."""

    def write(self, frame: bytes) -> bool:
        loop = asyncio.get_running_loop()
        end = loop.time() + 0.0001
        while loop.time() < end:
            pass
        return super().write(frame)


@pytest.mark.parametrize(
    ("rushed", "urgent", "rest"),
    [(False, False, fanout.REST), (True, True, fanout.REST), (True, False, fanout.RUSH_REST)],
)
async def test_while_the_crowd_waits_it_has_most_of_the_loop_and_numbers_leave_it_more(
    monkeypatch, rushed, urgent, rest
):
    monkeypatch.setattr(fanout, "SLICE_S", 0.002)
    loop = asyncio.get_running_loop()
    waits = [True]
    slices: list[float] = []
    rests: list[float] = []
    turns = Turns(lambda: waits[0], lambda: waits[0] and rushed)
    monkeypatch.setattr(turns, "_rest", _noting(turns, rests))
    out = FanOut(lambda socket, mark: None, lambda: slices.append(loop.time()), Counters(), turns)
    sockets: list[Any] = [Lazy() for _ in range(4 * fanout.CHUNK)]
    out.start(b"one", MARK, Pack(sockets), urgent=urgent)
    await until(lambda: len(slices) >= 2)
    assert slices[1] - slices[0] >= 0.002 * rest
    assert rests[0] == pytest.approx(rest)
    waits[0] = False
    await until(lambda: not out.busy)


def _noting(turns: Turns, rests: list[float]) -> Callable[[float, float], None]:
    """`turns._rest`, with the rest of each as so many slices."""
    real = turns._rest

    def noted(now_s: float, spent_s: float) -> None:
        real(now_s, spent_s)
        assert isinstance(turns._next, asyncio.TimerHandle)
        rests.append((turns._next.when() - now_s) / max(spent_s, fanout.SLICE_S))

    return noted


async def test_what_is_urgent_makes_the_frame_urgent_that_it_joins(monkeypatch):
    monkeypatch.setattr(fanout, "SLICE_S", 0.0)
    sockets = crowd(100)
    out = FanOut(lambda socket, mark: None, lambda: None, Counters())
    out.start(b"one", MARK, Pack(sockets))
    assert out.busy
    assert not out.urgent
    out.join(b"two", NEXT, sockets, urgent=True)
    assert out.urgent
    await until(lambda: not out.busy)
    assert not out.urgent


async def test_an_urgent_frame_joins_the_unserved_and_follows_for_the_rest(monkeypatch):
    monkeypatch.setattr(fanout, "SLICE_S", 0.0)
    sockets = crowd(1000)
    late = Slow()
    missed: list[tuple[Any, Mark]] = []
    out = FanOut(lambda socket, mark: missed.append((socket, mark)), lambda: None, Counters())
    out.start(b"one", MARK, Pack(sockets))
    served = set(Slow.served)
    early, unserved = sockets[5] in served, next(s for s in sockets if s not in served)
    deaf = next(iter(served))
    unserved.open = deaf.open = False
    out.join(b"two", NEXT, [*sockets, late])
    await until(lambda: not out.busy)
    assert missed == [(unserved, MARK), (deaf, NEXT)]
    for socket in sockets:
        if socket in (unserved, deaf):
            continue
        assert socket.got == ([b"one", b"two"] if socket in served else [b"onetwo"]), early
    assert late.got == [b"two"]


async def test_a_direct_that_is_lost_meanwhile_is_not_used_any_more(monkeypatch):
    monkeypatch.setattr(fanout, "SLICE_S", 0.0)
    sockets: list[Any] = [Quick() for _ in range(4 * fanout.CHUNK)]
    packed = Pack(sockets)
    out = FanOut(lambda socket, mark: None, lambda: None, Counters())
    out.start(b"one", MARK, packed)
    congested = next(socket for socket in sockets if not socket.sent)
    congested.lose()
    assert packed.stale
    await until(lambda: not out.busy)
    assert (congested.sent, congested.got) == ([], [b"one"])
    assert all(socket.sent == [b"one"] for socket in sockets if socket is not congested)
    assert not Pack(sockets).stale


async def test_nobody_is_always_last():
    sockets = crowd(50)
    out = FanOut(lambda socket, mark: None, lambda: None, Counters())
    firsts, lasts = [], []
    for _ in range(50):
        Slow.served = []
        out.start(b"x", MARK, Pack(sockets))
        await until(lambda: not out.busy)
        firsts.append(sockets.index(Slow.served[0]))
        lasts.append(sockets.index(Slow.served[-1]))
        assert len(Slow.served) == len(set(Slow.served)) == 50
    assert len(set(firsts)) > 40
    assert len(set(lasts)) > 40
    assert all(a != b for a, b in pairwise(firsts))


async def test_the_end_of_a_fan_out_is_told_once_also_without_members():
    told = []
    out = FanOut(lambda socket, mark: None, lambda: told.append(1), Counters())
    out.start(b"x", MARK, Pack(crowd(3)))
    await until(lambda: not out.busy)
    assert told == [1]
    out.start(b"x", MARK, Pack([]))
    assert not out.busy


async def test_the_rooms_of_a_node_share_one_slice_in_a_turn_of_the_loop(monkeypatch):
    monkeypatch.setattr(fanout, "SLICE_S", 0.0)
    turns = Turns()
    rooms = [crowd(200) for _ in range(5)]
    outs = [FanOut(lambda socket, mark: None, lambda: None, Counters(), turns) for _ in rooms]
    Slow.served = []
    for out, sockets in zip(outs, rooms, strict=True):
        out.start(b"x", MARK, Pack(sockets))
    assert len(Slow.served) == fanout.CHUNK, "the first had the whole slice"
    most = 0
    while any(out.busy for out in outs):
        before = len(Slow.served)
        await asyncio.sleep(0)
        most = max(most, len(Slow.served) - before)
    assert most <= fanout.CHUNK
    assert all(socket.got == [b"x"] for sockets in rooms for socket in sockets)
    early = {id(socket) for socket in Slow.served[: 6 * fanout.CHUNK]}
    assert all(early & {id(socket) for socket in sockets} for sockets in rooms), "in turns"


async def test_what_a_fan_out_cost_is_told_once():
    out = FanOut(lambda socket, mark: None, lambda: None, Counters())
    out.start(b"x", MARK, Pack(crowd(100)))
    spent_s, served = out.cost()
    assert served == 100
    assert spent_s > 0
    assert out.cost() == (0.0, 0)


async def test_a_stopped_fan_out_leaves_the_turns_to_the_others(monkeypatch):
    monkeypatch.setattr(fanout, "SLICE_S", 0.0)
    turns = Turns()
    outs = [FanOut(lambda socket, mark: None, lambda: None, Counters(), turns) for _ in range(2)]
    crowds = [crowd(200), crowd(200)]
    for out, sockets in zip(outs, crowds, strict=True):
        out.start(b"x", MARK, Pack(sockets))
    outs[0].stop()
    await until(lambda: not outs[1].busy)
    assert all(socket.got == [b"x"] for socket in crowds[1])
