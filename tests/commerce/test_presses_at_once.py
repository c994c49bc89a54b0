"""Presses without a task: the flag inside the queue, joining retries, lateness, coming back."""

import asyncio
from typing import Any

import pytest

from commerce import checkout as checkout_module
from commerce import reserving
from commerce.errors import RidConflict, SoldOut, Unavailable
from commerce.places import LEAST_MS, MOST_MS, PER_MS, Places
from commerce.reserving import Answer
from commerce.stock import Hold, Line, Press
from tests.commerce.stock_support import Node, Shop
from tests.waiting import until

UNITS = 600


def press(rid: str, *, retry: bool = False, sku: str = "A") -> Press:
    return Press(rid, f"viewer-{rid}", "d", (Line(sku, 1),), retry=retry)


async def run_presses(node: Node) -> "asyncio.Task[None]":
    task = asyncio.create_task(node.checkout.run())
    node.task = task
    return task


async def test_who_waits_in_the_queue_when_the_last_unit_goes_never_reaches_the_gate(
    shop: Shop,
) -> None:
    await shop.add_skus({"A": 3})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        answers: list[Answer] = []
        for number in range(600):
            node.checkout.begin(press(f"r{number}"), answers.append)
        await until(lambda: len(answers) == 600)
        holds = [answer for answer in answers if isinstance(answer, Hold)]
        assert len(holds) == 3
        assert all(isinstance(answer, SoldOut) for answer in answers if answer not in holds)
        # Two batches of 256 may be under way when the flag goes up; the third is not.
        assert node.checkout.board.refused >= 600 - 2 * 256
        await shop.check_gate(node)


async def test_a_retry_that_joins_a_waiting_first_attempt_takes_it_to_the_gate(
    shop: Shop,
) -> None:
    await shop.add_skus({"A": 5})
    async with shop.node(running=False) as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        answers: dict[str, Answer] = {}
        for rid in ("joined", "alone"):
            node.checkout.begin(press(rid), lambda answer, rid=rid: answers.update({rid: answer}))
        node.checkout.begin(
            press("joined", retry=True), lambda answer: answers.update(retry=answer)
        )
        board, now = node.checkout.board, shop.clock()
        board.none_left("A", "d", node.checkout.keeper.epoch, now)
        assert answers == {}
        await run_presses(node)
        await until(lambda: len(answers) == 3)
        assert isinstance(answers["alone"], SoldOut)
        assert isinstance(answers["joined"], Hold)
        assert answers["retry"] == answers["joined"]


async def test_a_press_that_takes_too_long_hears_not_now_and_goes_on(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkout_module, "ANSWER_MAX_S", 0.05)
    monkeypatch.setattr(checkout_module, "LATE_LOOK_S", 0.02)
    await shop.add_skus({"A": 5})
    async with shop.node(running=False) as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        with pytest.raises(Unavailable):
            await node.checkout.reserve(press("r"))
        answers: list[Answer] = []
        node.checkout.begin(press("r", retry=True), answers.append)  # joins it
        monkeypatch.setattr(checkout_module, "ANSWER_MAX_S", 60.0)
        await run_presses(node)
        await until(lambda: answers)
        assert isinstance(answers[0], Hold)
        assert (await shop.rows())["A"] == (5, 1, 0)


async def test_who_is_sent_away_comes_back_in_turn_and_not_together() -> None:
    now = 1_000_000
    places = Places(lambda: now, lambda: 0.5)
    waits = [places.take() for _ in range(8_000)]
    assert waits[0] == LEAST_MS * 1.5
    assert waits == sorted(waits)
    busiest = max(waits.count(wait) for wait in range(waits[0], waits[-1]))
    assert busiest <= PER_MS
    crowd = [places.take() for _ in range(200_000)]
    assert max(crowd) == MOST_MS
    now += 3_600_000  # the queue has gone; the next is not sent to its end
    assert places.take() == LEAST_MS * 1.5


async def test_a_slow_record_keeps_winners_before_the_gate_and_not_behind_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reserving, "GATE_BATCH", 32)
    monkeypatch.setattr(reserving, "RECORD_BATCH", 64)
    monkeypatch.setattr(reserving, "RECORD_WAITING_MAX", 1)
    await shop.add_skus({"A": UNITS})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        hold, goes = node.record.hold, asyncio.Event()

        async def slow(*arguments: Any) -> Any:
            await goes.wait()
            return await hold(*arguments)

        monkeypatch.setattr(node.record, "hold", slow)
        answers: list[Answer] = []
        for number in range(UNITS):
            node.checkout.begin(press(f"r{number}"), answers.append)
        # Two batches wait for the writer, and two calls may have been under way by then.
        most = 2 * reserving.RECORD_BATCH + 2 * reserving.GATE_BATCH
        await until(lambda: shop_given(node) >= reserving.GATE_BATCH)
        for _ in range(50):
            await asyncio.sleep(0.005)
            assert shop_given(node) <= most
        goes.set()
        await until(lambda: len(answers) == UNITS)
        assert {type(answer) for answer in answers} == {Hold}
        await shop.check_gate(node)


def shop_given(node: Node) -> int:
    """Units that the gate has given out, as far as the node has learnt."""
    level = node.levels.get("A")
    return 0 if level is None else UNITS - level.available


async def test_13_a_winner_who_asks_again_is_answered_although_another_body_is_on_its_way(
    shop: Shop,
) -> None:
    await shop.add_skus({"A": 5})
    async with shop.node() as node:
        await node.checkout.open_drop(shop.drop(("A", None)))
        won = await node.checkout.reserve(press("r"))
        answers: dict[str, Answer] = {}

        def begin(name: str, asked: Press) -> None:
            node.checkout.begin(asked, lambda answer: answers.update({name: answer}))

        stranger = Press("r", "stranger", "d", (Line("A", 2),))
        begin("stranger", stranger)
        begin("first attempt", press("r"))
        assert isinstance(answers.pop("first attempt"), RidConflict), "it says that it is no retry"
        begin("retry", press("r", retry=True))
        begin("once more", press("r", retry=True))
        begin("third body", Press("r", "third", "d", (Line("A", 3),), retry=True))
        await until(lambda: len(answers) == 4)
        assert answers.pop("retry") == answers.pop("once more") == won
        assert [type(answer) for answer in answers.values()] == [RidConflict, RidConflict]
        assert not node.checkout._cases
        await shop.check_gate(node)
