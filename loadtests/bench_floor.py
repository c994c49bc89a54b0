"""The hub against the kernel: what a tick costs beyond writing its bytes to each socket.

Responsible for the two halves of a pair and for what of their time is counted. It runs inside the
server, on the server's own sockets.

* `floor`: `os.write(descriptor, frame)` in a plain loop, nothing else.
* `hub`: from `Hub.publish` of one comment to the last socket: the publisher's task, encoding, the
  Lua step's round trip as seen from here, reading it back from the subscription, the room's lanes,
  the cut, the ready frame, all slices of the fan-out, and every turn and timer of the event loop
  (also those of others) until the bench is woken up by the last socket. Valkey's own CPU is in
  another process and is not in it; nothing of ours is left out.

Both frames have the same length. CPU is this process's, all threads, user and system. Pairs are
taken in the order floor, hub, hub, floor, so that drift and warm caches favour nobody. The loop's
lag is measured in ticks of its own afterwards: a probe would be charged to the hub.

Two things that are the bench's own were charged to the hub once: looking every 5 ms whether all had
it (85 us a look, for all of Python is cold then), and the wait for the room's next tick, which at
15,000 viewers is 640 ms. So the end wakes us, and comments come when the room may send at once.
"""

import asyncio
import os
import time
from statistics import median
from typing import Any, Final

from live.server_uvicorn import Server
from realtime.broker import Chat
from realtime.counters import Counters
from realtime.hub import Hub
from realtime.socket_uvicorn import LiveWebSocketProtocol
from realtime.wire import pack, pack_chat, ready_frame

NOTHING: Final = 99
"""A kind that no client knows: ignored by the rules of the wire."""
WAIT_S: Final = 5.0
AFTER_TICK_S: Final = 0.02
"""Beyond the room's own tick: the next comment finds it ready to send."""


class NotDelivered(Exception):
    """A tick did not reach all sockets in time."""


class WatchedCounters(Counters):
    """The hub's counters, with an ear for how many frames were written."""

    __slots__ = ("_frames", "_reached", "_wanted")

    def __init__(self) -> None:
        self._frames = 0
        self._wanted = 0
        self._reached: asyncio.Future[None] | None = None
        super().__init__()

    def _read(self) -> int:
        return self._frames

    def _write(self, frames: int) -> None:
        self._frames = frames
        if self._reached is not None and frames >= self._wanted and not self._reached.done():
            self._reached.set_result(None)

    frames_written = property(_read, _write)

    def reach(self, wanted: int) -> asyncio.Future[None]:
        """Done when so many are written; NotDelivered after `WAIT_S`."""
        loop = asyncio.get_running_loop()
        self._wanted = wanted
        self._reached = reached = loop.create_future()

        def give_up() -> None:
            if not reached.done():
                reached.set_exception(NotDelivered(f"{wanted - self._frames} were not written"))

        waiting = loop.call_later(WAIT_S, give_up)
        reached.add_done_callback(lambda _: waiting.cancel())
        return reached


def floor_frame(size: int) -> bytes:
    """A frame of exactly `size` bytes that changes nothing."""
    return _padded(size, lambda text: pack([NOTHING, text]))


def comment_of(size: int, offset: int) -> str:
    """The comment whose frame has exactly `size` bytes at this chat offset."""
    for length in range(size):
        if len(ready_frame(pack_chat(offset, "x" * length))) == size:
            return "x" * length
    raise ValueError(f"no comment makes a frame of {size} bytes")


def _padded(size: int, envelope: Any) -> bytes:
    for length in range(size):
        frame = ready_frame(envelope("x" * length))
        if len(frame) == size:
            return frame
    raise ValueError(f"no frame of {size} bytes")


def descriptors(server: Server) -> list[int]:
    """Of the viewers' sockets, in the order in which they came.

    uvicorn holds them in a set; in its order the kernel's memory is visited at random, which made
    the floor 10 % dearer at 15,000 sockets and the hub look good.
    """
    return sorted(
        protocol.transport.get_extra_info("socket").fileno()
        for protocol in server.server_state.connections
        if isinstance(protocol, LiveWebSocketProtocol)
    )


async def alternate(
    hub: Hub, server: Server, room: str, probe: Any, ask: dict[str, Any]
) -> dict[str, Any]:
    """`pairs` of ticks, `lag_ticks` more with the probe; `size` bytes, one per `interval_s`.

    Microseconds of CPU per viewer and tick. Raises `NotDelivered`.
    """
    counters = hub.counters
    assert isinstance(counters, WatchedCounters)
    fds = descriptors(server)
    size, interval = ask["size"], ask["interval_s"]
    frame = floor_frame(size)
    floors: list[float] = []
    hubs: list[float] = []
    sent = 0
    took = 0.0

    def floor() -> float:
        nonlocal took
        began, started = time.monotonic(), time.process_time_ns()
        for fd in fds:
            os.write(fd, frame)
        spent = (time.process_time_ns() - started) / 1000 / len(fds)
        took = time.monotonic() - began
        return spent

    async def tick() -> float:
        nonlocal sent
        sent += 1
        its = await hub.room(room)
        comment = Chat(
            comment_of(size, its.position.chat + 1), f"tick:{sent}:{time.monotonic_ns()}"
        )
        delivered = counters.reach(counters.frames_written + len(fds))
        started = time.process_time_ns()
        began = time.monotonic()
        await hub.publish(room, [comment])
        await delivered
        spent = (time.process_time_ns() - started) / 1000 / len(fds)
        rest = max(interval, its.pace.tick_ms / 1000 + AFTER_TICK_S)
        await asyncio.sleep(max(0.0, began + rest - time.monotonic()))
        return spent

    for number in range(ask["pairs"]):
        for half in ("floor", "hub") if number % 2 == 0 else ("hub", "floor"):
            if half == "floor":
                floors.append(floor())
                await asyncio.sleep(interval)
            else:
                hubs.append(await tick())
    idle = await _idle(took, len(fds))
    probe.start()
    for _ in range(ask["lag_ticks"]):
        await tick()
    probe.stop()
    ratios = [ours / plain for ours, plain in zip(hubs, floors, strict=True)]
    return {
        "sockets": len(fds),
        "sent": sent,
        "floor_us": round(median(floors), 2),
        "hub_us": round(median(hubs), 2),
        "ratio": round(median(ratios), 3),
        "idle_us": round(idle, 3),
        "lag": probe.result(),
    }


async def _idle(interval: float, viewers: int) -> float:
    """What a hub without anything to do costs in as long as a tick takes, waking up included."""
    found = []
    for _ in range(10):
        started = time.process_time_ns()
        await asyncio.sleep(interval)
        found.append((time.process_time_ns() - started) / 1000 / viewers)
    return median(found)
