"""Idempotency keys on both databases."""

import asyncio

import pytest

from commerce.errors import KeyConflict, KeyInProgress
from commerce.idempotency import LEASE_MS, Replay, request_sha
from commerce.idempotency_sql import KEEP_MS, SqlIdempotency
from tests.commerce.pay_support import Till

pytest_plugins = ("tests.commerce.pay_fixtures",)

SCOPE, SHA = "viewer:1 POST /holds", request_sha(b"POST", b"/holds", b"{}")


@pytest.fixture
def keys(till: Till) -> SqlIdempotency:
    return SqlIdempotency(till.database, till.clock)


async def test_a_finished_request_is_replayed(keys: SqlIdempotency) -> None:
    assert await keys.begin(SCOPE, "k", SHA) is None
    await keys.finish(SCOPE, "k", 201, '{"a":1}')
    assert await keys.begin(SCOPE, "k", SHA) == Replay(201, '{"a":1}')
    assert await keys.begin("another", "k", SHA) is None


async def test_row_13_the_key_with_another_request_is_a_conflict(keys: SqlIdempotency) -> None:
    await keys.begin(SCOPE, "k", SHA)
    with pytest.raises(KeyConflict):
        await keys.begin(SCOPE, "k", request_sha(b"POST", b"/holds", b"{ }"))
    await keys.finish(SCOPE, "k", 200, "")
    with pytest.raises(KeyConflict):
        await keys.begin(SCOPE, "k", "other")


async def test_row_12_of_many_at_once_one_proceeds_the_others_wait(keys: SqlIdempotency) -> None:
    answers = await asyncio.gather(
        *(keys.begin(SCOPE, "k", SHA) for _ in range(8)), return_exceptions=True
    )
    assert answers.count(None) == 1
    assert sum(isinstance(answer, KeyInProgress) for answer in answers) == 7


async def test_a_request_that_died_may_be_repeated_after_its_lease(
    till: Till, keys: SqlIdempotency
) -> None:
    await keys.begin(SCOPE, "k", SHA)
    till.clock.ahead_ms = LEASE_MS + 1
    assert await keys.begin(SCOPE, "k", SHA) is None
    with pytest.raises(KeyInProgress):
        await keys.begin(SCOPE, "k", SHA)


async def test_who_may_run_twice_at_once_need_not_wait_for_a_node_that_died(
    till: Till, keys: SqlIdempotency
) -> None:
    await keys.begin(SCOPE, "k", SHA)
    till.clock.ahead_ms = 5_000
    with pytest.raises(KeyInProgress):
        await keys.begin(SCOPE, "k", SHA)
    assert await keys.begin(SCOPE, "k", SHA, lease_ms=4_000) is None


async def test_the_answer_is_stored_with_the_effect_or_not_at_all(
    till: Till, keys: SqlIdempotency
) -> None:
    await keys.begin(SCOPE, "k", SHA)

    async def fail_after_the_effect() -> None:
        async with till.database.begin() as conn:
            await keys.finish(SCOPE, "k", 200, "done", conn=conn)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail_after_the_effect()
    with pytest.raises(KeyInProgress):
        await keys.begin(SCOPE, "k", SHA)
    async with till.database.begin() as conn:
        await keys.finish(SCOPE, "k", 200, "done", conn=conn)
    assert await keys.begin(SCOPE, "k", SHA) == Replay(200, "done")


async def test_an_attempt_that_changed_nothing_frees_its_key(keys: SqlIdempotency) -> None:
    async def fail() -> None:
        async with keys.attempt(SCOPE, "k", SHA) as attempt:
            assert attempt.replay is None
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with keys.attempt(SCOPE, "k", SHA) as attempt:
        await keys.finish(SCOPE, "k", 200, "x")
        attempt.finished = True
    async with keys.attempt(SCOPE, "k", SHA) as attempt:
        assert attempt.replay == Replay(200, "x")
    assert await keys.begin(SCOPE, "k", SHA) == Replay(200, "x")


async def test_old_answers_are_forgotten(till: Till, keys: SqlIdempotency) -> None:
    await keys.begin(SCOPE, "k", SHA)
    await keys.finish(SCOPE, "k", 200, "x")
    assert await keys.prune() == 0
    till.clock.ahead_ms = KEEP_MS + 1_000
    assert await keys.begin(SCOPE, "k", "other") is None
    till.clock.ahead_ms = 2 * KEEP_MS + 3_000
    assert await keys.prune() == 1


@pytest.mark.parametrize(("scope", "key"), [("", "k"), ("s", ""), ("s", "k" * 256)])
async def test_lengths_are_bounded(keys: SqlIdempotency, scope: str, key: str) -> None:
    with pytest.raises(ValueError, match="length"):
        await keys.begin(scope, key, SHA)


def test_the_parts_of_a_request_do_not_run_into_each_other() -> None:
    assert request_sha(b"ab", b"c") != request_sha(b"a", b"bc")
