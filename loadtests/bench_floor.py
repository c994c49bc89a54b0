"""The hub against the kernel: what a tick costs beyond writing its bytes to each socket.

Responsible for the two halves of a pair and for what of their time is counted. It runs inside the
server, on the server's own sockets.

* `floor`: `os.write(descriptor, frame)` in a plain loop, nothing else.
* `hub`: from `Hub.publish` of one comment to the last socket: the publisher's task, encoding, the
  Lua step's round trip as seen from here, reading it back from the subscription, the room's lanes,
  the cut, the ready frame, all slices of the fan-out, and every turn and timer of the event loop
  until all sockets have it (looked for after `WINDOW` times what the last floor took). Valkey's own
  CPU is in another process and is not in it; nothing of ours is left out.

Both frames have the same length. CPU is this process's, all threads, user and system. Pairs are
taken in the order floor, hub, hub, floor, so that drift and warm caches favour nobody. The loop's
lag is measured in ticks of its own afterwards: a probe would be charged to the hub.
"""

import asyncio
import os
import time
from statistics import median
from typing import Any, Final

from live.server_uvicorn import Server
from realtime.broker import Chat
from realtime.hub import Hub
from realtime.socket_uvicorn import LiveWebSocketProtocol
from realtime.wire import pack, pack_chat, ready_frame

NOTHING: Final = 99
"""A kind that no client knows: ignored by the rules of the wire."""
WAIT_S: Final = 5.0
POLL_S: Final = 0.005
WINDOW: Final = 1.5
WINDOW_S_MIN: Final = 0.005


class NotDelivered(Exception):
    """A tick did not reach all sockets in time."""


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
    fds = descriptors(server)
    size, interval = ask["size"], ask["interval_s"]
    frame = floor_frame(size)
    floors: list[float] = []
    hubs: list[float] = []
    sent = 0
    took = WINDOW_S_MIN

    def floor() -> float:
        nonlocal took
        began, started = time.monotonic(), time.process_time_ns()
        for fd in fds:
            os.write(fd, frame)
        spent = (time.process_time_ns() - started) / 1000 / len(fds)
        took = max(WINDOW_S_MIN, time.monotonic() - began)
        return spent

    async def tick() -> float:
        nonlocal sent
        sent += 1
        chat = (await hub.room(room)).position.chat
        comment = Chat(comment_of(size, chat + 1), f"tick:{sent}:{time.monotonic_ns()}")
        wanted = hub.counters.frames_written + len(fds)
        started = time.process_time_ns()
        began = time.monotonic()
        await hub.publish(room, [comment])
        await asyncio.sleep(took * WINDOW)
        await _delivered(hub, wanted)
        spent = (time.process_time_ns() - started) / 1000 / len(fds)
        await asyncio.sleep(max(0.0, began + interval - time.monotonic()))
        return spent

    for number in range(ask["pairs"]):
        for half in ("floor", "hub") if number % 2 == 0 else ("hub", "floor"):
            if half == "floor":
                floors.append(floor())
                await asyncio.sleep(interval)
            else:
                hubs.append(await tick())
    idle = await _idle(took * WINDOW, len(fds))
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


async def _delivered(hub: Hub, wanted: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while hub.counters.frames_written < wanted:
        if time.monotonic() > deadline:
            raise NotDelivered(f"{wanted - hub.counters.frames_written} sockets were not written")
        await asyncio.sleep(POLL_S)


async def _idle(interval: float, viewers: int) -> float:
    """What a hub without anything to do costs in as long as a tick takes: part of `hub_us`."""
    found = []
    for _ in range(10):
        started = time.process_time_ns()
        await asyncio.sleep(interval)
        found.append((time.process_time_ns() - started) / 1000 / viewers)
    return median(found)
