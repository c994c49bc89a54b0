"""Batches grow while one is under way, and what follows a batch holds up nobody."""

import asyncio
from collections.abc import Awaitable, Callable

from commerce.batcher import Batcher
from tests.waiting import until


class Flush:
    """Remembers batches; each waits until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.doors: list[asyncio.Event] = []
        self.rests: list[asyncio.Event] = []
        self.with_rest = False

    async def __call__(self, batch: list[int]) -> Callable[[], Awaitable[None]] | None:
        self.batches.append(batch)
        self.doors.append(asyncio.Event())
        await self.doors[-1].wait()
        if not self.with_rest:
            return None
        rest = asyncio.Event()
        self.rests.append(rest)

        async def wait() -> None:
            await rest.wait()

        return wait


async def run(flush: Flush, enough: int) -> tuple[Batcher[int], list["asyncio.Task[None]"]]:
    batcher = Batcher(flush, size=4, wait_ms=0, pause=asyncio.sleep, enough=enough)
    return batcher, [asyncio.create_task(batcher.run()) for _ in range(2)]


async def stop(tasks: list["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_while_a_batch_is_under_way_the_next_one_gathers() -> None:
    flush = Flush()
    batcher, tasks = await run(flush, enough=4)
    batcher.put(1)
    await until(lambda: flush.batches)
    for item in (2, 3):
        batcher.put(item)
        for _ in range(5):
            await asyncio.sleep(0)
    assert flush.batches == [[1]]
    flush.doors[0].set()
    await until(lambda: len(flush.batches) == 2)
    assert flush.batches == [[1], [2, 3]]
    await stop(tasks)


async def test_enough_items_are_worth_a_second_batch_at_once() -> None:
    flush = Flush()
    batcher, tasks = await run(flush, enough=3)
    batcher.put(1)
    await until(lambda: flush.batches)
    for item in (2, 3, 4):
        batcher.put(item)
    await until(lambda: len(flush.batches) == 2)
    assert flush.batches == [[1], [2, 3, 4]]
    await stop(tasks)


async def test_what_a_flush_leaves_to_be_done_runs_beside_the_next_batch() -> None:
    flush = Flush()
    flush.with_rest = True
    batcher, tasks = await run(flush, enough=4)
    batcher.put(1)
    await until(lambda: flush.batches)
    batcher.put(2)
    flush.doors[0].set()
    await until(lambda: len(flush.batches) == 2)
    assert not flush.rests[0].is_set()
    await stop(tasks)


async def test_after_a_rush_of_items_the_next_batch_waits_a_little_longer() -> None:
    waits: list[float] = []
    batches: list[list[int]] = []

    async def pause(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0)

    async def flush(batch: list[int]) -> None:
        batches.append(batch)

    batcher = Batcher(flush, size=4, wait_ms=2, pause=pause, rush=2, rush_wait_ms=4)
    task = asyncio.create_task(batcher.run())
    await asyncio.sleep(0)
    for items in ([1], [2, 3], [4], [5]):
        for item in items:
            batcher.put(item)
        await until(lambda expected=items: batches and batches[-1] == expected)  # type: ignore[misc]
    assert waits == [0.002, 0.002, 0.004, 0.002]
    await stop([task])
