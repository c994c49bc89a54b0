"""Hands shared frames to many sockets in slices, in order, and lets nothing overtake.

Responsible for the loop that the whole program exists for. It must not know lanes or what is in a
frame. Its promises:

* A slice ends after `SLICE_S`, so that the loop answers Buy in between (15,000 sockets at 9.4 µs
  are 140 ms). All fan-outs of a node take turns in that one slice per turn of the loop (`Turns`):
  ten busy rooms with a slice each would be a loop that answers nobody for 40 ms.
* While presses of Buy wait to be read or answered, it has a third of the loop at most, and in a
  rush of them what is not urgent (numbers, comments) has a tenth. What is said begins at once all
  the same; to reach 15,000 takes 0.5 s or 1.4 s then instead of 0.2. The way of a winner is some
  eight turns of the loop, and each of them stood behind a slice: with a third for all, 2,750
  winners a second waited up to 100 ms (p99), with a seventh 60, with a tenth 50.
* The first member served moves on each time, so that nobody is always last.
* A frame that comes while another is under way (a pin during a big tick) joins the frame of those
  not yet served, as one write, and follows as a frame of its own for the rest. So it waits for one
  slice (in a rush for one rest, 40 ms), not for the fan-out, and still never overtakes.

The hot loop is one call per socket on a list that is rebuilt only when members change or one of
them is congested; a task, a queue or even an attribute read per member would show, since each
system call drives the processor's memory out.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import thread_time
from typing import Final

from realtime.counters import Counters
from realtime.crowd import loop_idle
from realtime.lanes import Mark
from realtime.socket import LOSSES, Socket

SLICE_S: Final = 0.0045
"""The first turn of the loop after it costs 50 us, for all of Python is cold by then: 1.1 %."""
REST: Final = 2.0
"""Slices of time that belong to presses after each slice, while there are any…"""
RUSH_REST: Final = 9.0
"""…and after a slice of what is not urgent, in a rush."""
CHUNK: Final = 32
"""Sockets between two looks at the clock: about 0.3 ms."""
Send = Callable[[bytes], int]

JOBS_MAX: Final = 8
"""Frames under way at once; more wait for the end and then share one."""
STRIDE: Final = 0.618034
"""Share of the members by which the start moves: the golden ratio visits all places evenly."""


class Pack:
    """Sockets packed for the hot loop. Neither they nor the list may be changed afterwards."""

    __slots__ = ("_losses", "sends", "sockets")

    def __init__(self, sockets: list[Socket]) -> None:
        self.sockets = sockets
        self.sends: list[Send | None] = [socket.direct for socket in sockets]
        """The `direct` of each, while not `stale`."""
        self._losses = LOSSES.count

    @property
    def stale(self) -> bool:
        """Whether a socket has lost its `direct` since, any of this process's."""
        return self._losses != LOSSES.count


@dataclass(slots=True)
class _Job:
    frame: bytes
    before: Mark
    """Where a member is that does not get this frame."""
    pack: Pack
    at: int
    end: int
    urgent: bool


class Turns:
    """Which fan-out of the node may write now: one slice of SLICE_S, and then the others' turn.

    After a slice comes a timer, so everything that arrived or fell due meanwhile is served first;
    then one more turn of the loop, for the tasks that this woke up, if it woke any. So nothing
    waits for more than one slice. With `call_soon` alone it was three: the timer, its task, and the
    slice in between.
    """

    def __init__(
        self,
        hurried: Callable[[], bool] = lambda: False,
        rushed: Callable[[], bool] = lambda: False,
    ) -> None:
        """`hurried`: whether somebody waits for an answer that comes first; `rushed`: many do."""
        self._hurried = hurried
        self._rushed = rushed
        self._queue: deque[FanOut] = deque()
        self._next: asyncio.Handle | None = None
        self._left_s = SLICE_S
        """Of the present slice, for who begins before `_fresh_s`."""
        self._fresh_s = 0.0
        """When the loop has had as much time as the last slice took."""
        self._running = False

    def begin(self, fanout: "FanOut") -> None:
        """Serve it: at once if this slice has time left, else as soon as it is its turn."""
        fanout.queued = True
        self._queue.append(fanout)
        if self._running or self._next is not None:
            return
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        if now_s >= self._fresh_s:
            self._left_s = SLICE_S
        if self._left_s >= 0:
            self._run()
        else:
            self._rest(now_s, 0.0)

    def _rest(self, now_s: float, spent_s: float) -> None:
        if self._rushed() and not any(fanout.urgent for fanout in self._queue):
            share = RUSH_REST
        else:
            share = REST if self._hurried() else 0.0
        rest_s = max(spent_s, SLICE_S) * share
        self._next = asyncio.get_running_loop().call_at(now_s + rest_s, self._breathe)

    def _breathe(self) -> None:
        if loop_idle():
            self._turn()
        else:
            self._next = asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._next = None
        self._left_s = SLICE_S
        self._run()

    def _run(self) -> None:
        loop = asyncio.get_running_loop()
        began_s = now_s = loop.time()
        deadline_s = began_s + self._left_s
        self._running = True
        try:
            while self._queue:
                fanout = self._queue.popleft()
                fanout.queued = False
                fanout.slice(deadline_s)
                if fanout.busy and not fanout.queued:
                    fanout.queued = True
                    self._queue.append(fanout)
                now_s = loop.time()
                if now_s >= deadline_s:
                    break
        finally:
            self._running = False
            self._left_s = deadline_s - now_s
            self._fresh_s = now_s + now_s - began_s
            if self._queue:
                self._rest(now_s, now_s - began_s)


class FanOut:
    """Frames under way to the members of one room."""

    def __init__(
        self,
        missed: Callable[[Socket, Mark], None],
        between: Callable[[], None],
        counters: Counters,
        turns: Turns | None = None,
    ) -> None:
        """`missed`: a socket took nothing; `between`: called between slices and at the end.

        `turns` is shared by all fan-outs of a node.
        """
        self._missed = missed
        self._between = between
        self._counters = counters
        self._turns = turns or Turns()
        self._jobs: deque[_Job] = deque()
        self._start = 0.0
        self._begun = False
        self.queued = False
        """It waits for its turn; for `Turns`."""
        self._spent_s = 0.0
        self._served = 0

    @property
    def busy(self) -> bool:
        """Whether a fan-out is under way."""
        return bool(self._jobs)

    @property
    def urgent(self) -> bool:
        """Whether somebody is still to get what goes at once."""
        return any(job.urgent for job in self._jobs)

    @property
    def full(self) -> bool:
        """Whether another frame has to wait for the end."""
        return len(self._jobs) >= JOBS_MAX

    def start(self, frame: bytes, before: Mark, pack: Pack, *, urgent: bool = False) -> None:
        """Send to all. Only when not busy. `urgent`: there is something of the host's in it."""
        size = len(pack.sockets)
        if not size:
            return
        self._start = (self._start + STRIDE) % 1.0
        first = int(self._start * size)
        self._jobs.append(_Job(frame, before, pack, first, size, urgent))
        if first:
            self._jobs.append(_Job(frame, before, pack, 0, first, urgent))
        self._begun = False
        if not self.queued:
            self._turns.begin(self)

    def join(
        self, frame: bytes, before: Mark, current: Iterable[Socket], *, urgent: bool = False
    ) -> None:
        """A further frame while busy: to those who wait together with theirs, then to the rest."""
        waiting: set[Socket] = set()
        for job in self._jobs:
            job.frame += frame
            job.urgent |= urgent
            waiting.update(job.pack.sockets[job.at : job.end])
        rest = [socket for socket in current if socket not in waiting]
        if rest:
            self._jobs.append(_Job(frame, before, Pack(rest), 0, len(rest), urgent))

    def stop(self) -> None:
        """Drop what is under way (the room ends)."""
        self._jobs.clear()

    def cost(self) -> tuple[float, int]:
        """(seconds of this thread's CPU, sockets served) since this was last asked.

        CPU, not time passed: on a busy machine the latter was seen at four times the former, and
        a tick that stretches because a neighbour is busy helps nobody.
        """
        spent = self._spent_s, self._served
        self._spent_s, self._served = 0.0, 0
        return spent

    def slice(self, deadline: float) -> None:
        """Serve until `deadline` by the loop's clock, or the end; at least one chunk."""
        if not self._jobs:
            return  # stopped
        if self._begun:
            self._between()  # let what is urgent join
        self._begun = True
        loop = asyncio.get_running_loop()
        began_s = thread_time()
        jobs = self._jobs
        written = 0
        while jobs:
            job = jobs[0]
            pack = job.pack
            taken = 0
            late = False
            while job.at < job.end:
                end = min(job.at + CHUNK, job.end)
                sends = pack.sends[job.at : end]
                if pack.stale:
                    sends = [socket.direct for socket in pack.sockets[job.at : end]]
                taken += len(sends) - self._serve(sends, job)
                job.at = end
                if loop.time() >= deadline:
                    late = True
                    break
            written += taken
            self._counters.bytes_written += taken * len(job.frame)
            if job.at >= job.end:
                jobs.popleft()
            if late:
                break
        self._counters.frames_written += written
        self._served += written
        self._spent_s += thread_time() - began_s
        if not jobs:
            self._between()

    def _serve(self, sends: Sequence[Send | None], job: _Job) -> int:
        """The hot loop; how many took nothing. `sends` belong to the sockets from `job.at` on.

        Nothing in between can change another socket: no callback runs.
        """
        frame, sockets = job.frame, job.pack.sockets
        size = len(frame)
        missed = 0
        for at, send in enumerate(sends, job.at):
            if send is None:
                taken = sockets[at].write(frame)
            else:
                try:
                    sent = send(frame)
                except OSError:
                    sent = -1
                if sent == size:
                    continue
                taken = sockets[at].unsent(frame, sent)
            if not taken:
                missed += 1
                self._missed(sockets[at], job.before)
        return missed
