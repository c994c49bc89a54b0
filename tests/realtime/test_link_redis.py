"""The bare connection and its caller, against a real engine."""

import asyncio
import signal
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import (
    MovedError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from realtime import broker_redis, caller_redis
from realtime.broker import Control
from realtime.broker_redis import RedisBroker, connect
from realtime.caller_redis import Caller, Overloaded, Script
from realtime.link_redis import Link, packed
from tests.realtime.engine import Valkey
from tests.realtime.kit import new_id, until


@pytest.fixture
async def client(realtime_valkey_url):
    one: Any = connect(realtime_valkey_url)
    yield one
    await one.aclose()
    await one.connection_pool.disconnect()


@pytest.fixture
def caller(client):
    one = Caller(client)
    yield one
    one.close()


async def test_redis_pys_connection_has_the_two_names_that_are_taken_over(client):
    connection = client.connection_pool.make_connection()
    await connection.connect()
    assert isinstance(connection._reader, asyncio.StreamReader)
    assert isinstance(connection._writer, asyncio.StreamWriter)
    assert not connection._reader._buffer, "the handshake leaves nothing unread"
    await connection.disconnect()


async def test_answers_come_in_order_and_are_not_decoded(caller, prefix):
    asked = [caller.call("RPUSH", prefix, f"v{number}") for number in range(100)]
    assert await asyncio.gather(*asked) == list(range(1, 101))
    assert await caller.call("LRANGE", prefix, 0, 1) == [b"v0", b"v1"]
    assert await caller.call("GET", prefix + "none") is None


async def test_a_large_answer_in_many_reads_is_one_answer(caller, prefix):
    await caller.call("SET", prefix, b"x" * 3_000_000)
    assert len(await caller.call("GET", prefix)) == 3_000_000


async def test_refusals_are_redis_pys_and_the_connection_lives_on(caller, prefix):
    with pytest.raises(NoScriptError):
        await caller.call("EVALSHA", "0" * 40, 0)
    with pytest.raises(ResponseError):
        await caller.call("INCR")
    text = "return redis.error_reply('MOVED 42 10.0.0.1:7000')"
    with pytest.raises(MovedError) as moved:
        await caller.call("EVAL", text, 0)
    assert (moved.value.slot_id, moved.value.host, moved.value.port) == (42, "10.0.0.1", 7000)
    with pytest.raises(TypeError):
        await caller.call("SET", prefix, object())
    assert await caller.call("PING") == b"PONG"


async def test_a_script_that_the_engine_does_not_know_is_sent_with_its_text(caller, prefix):
    script = Script(caller, f"-- {prefix}\nreturn {{KEYS[1], ARGV[1]}}")
    await caller.call("SCRIPT", "FLUSH")
    for _ in range(2):
        assert await script([prefix], [7]) == [prefix.encode(), b"7"]


async def test_who_gives_up_does_not_shift_the_answers_of_the_others(caller):
    await caller.call("PING")
    gone = asyncio.ensure_future(caller.call("ECHO", "gone"))
    kept = asyncio.ensure_future(caller.call("ECHO", "kept"))
    await asyncio.sleep(0)
    assert len(caller._waiting) == 2
    gone.cancel()
    assert await kept == b"kept"
    assert gone.cancelled()
    assert await caller.call("ECHO", "next") == b"next"


async def test_what_is_under_way_fails_with_the_connection_and_the_next_connects_anew(
    caller, client, prefix
):
    await caller.call("PING")
    blocked = asyncio.ensure_future(caller.call("BLPOP", prefix, 60))
    behind = asyncio.ensure_future(caller.call("PING"))
    await asyncio.sleep(0)
    assert len(caller._waiting) == 2
    await client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    for asked in (blocked, behind):
        with pytest.raises((RedisError, OSError)):
            await asked
    assert await caller.call("PING") == b"PONG"


async def test_an_engine_that_is_silent_is_given_up_in_bounded_time(tmp_path, monkeypatch):
    monkeypatch.setattr(broker_redis, "ANSWER_TIMEOUT_S", 0.3)
    engine = Valkey(tmp_path)
    engine.start()
    client: Any = connect(engine.url)
    caller = Caller(client)
    assert await caller.call("PING") == b"PONG"
    engine.signal(signal.SIGSTOP)
    async with asyncio.timeout(5):
        first, second = (asyncio.ensure_future(caller.call("PING")) for _ in range(2))
        for asked in (first, second):
            with pytest.raises(RedisTimeoutError):
                await asked
    engine.signal(signal.SIGCONT)
    async with asyncio.timeout(5):
        assert await caller.call("PING") == b"PONG"
    caller.close()
    await client.aclose()
    await client.connection_pool.disconnect()
    engine.kill()


async def test_all_who_wait_for_an_engine_that_is_away_share_one_attempt(tmp_path, monkeypatch):
    attempts = []
    original = Link.open

    async def counted(*given: Any) -> Link:
        attempts.append(1)
        await asyncio.sleep(0)
        return await original(*given)

    monkeypatch.setattr(caller_redis.Link, "open", counted)
    client: Any = connect(f"unix://{tmp_path}/nobody.sock")
    caller = Caller(client)
    asked = [caller.call("PING") for _ in range(50)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(answer, RedisConnectionError) for answer in answers)
    assert len(attempts) == 1
    with pytest.raises(RedisConnectionError):
        await caller.call("PING")
    assert len(attempts) == 2
    await client.aclose()


async def test_too_much_under_way_is_refused_before_it_is_sent(caller, monkeypatch):
    monkeypatch.setattr(caller_redis, "WAITING_MAX", 3)
    await caller.call("PING")
    asked = [asyncio.ensure_future(caller.call("PING")) for _ in range(5)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert answers[:3] == [b"PONG"] * 3
    assert all(isinstance(answer, Overloaded) for answer in answers[3:])


async def test_a_replica_by_now_is_left_for_whom_the_name_leads_to(caller):
    await caller.call("PING")
    link = caller._link
    with pytest.raises(ReadOnlyError):
        await caller.call("EVAL", "return redis.error_reply('READONLY no writes here')", 0)
    assert await caller.call("PING") == b"PONG"
    assert caller._link is not link


async def test_bytes_that_are_no_answer_end_the_connection():
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            if b"PING" in line:
                writer.write(b"what?\r\n")
            elif line.startswith(b"*"):
                writer.write(b"+OK\r\n")
        writer.close()

    server = await asyncio.start_server(nonsense, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client: Any = connect(f"redis://127.0.0.1:{port}")
    lost: list[Exception] = []
    link = await Link.open(client, lambda _: None, lost.append)
    link.send(packed(("PING",)))
    await until(lambda: bool(lost))
    assert isinstance(lost[0], RedisError)
    assert link.closing
    server.close()
    await client.aclose()


async def test_a_cancelled_publish_neither_blocks_nor_reorders_the_next(
    realtime_valkey_url, prefix
):
    broker = RedisBroker(connect(realtime_valkey_url), new_id=new_id, prefix=prefix)
    await broker.publish("s", [Control("n", 0)])
    given_up = asyncio.ensure_future(broker.publish("s", [Control("n", 1)]))
    await asyncio.sleep(0)
    given_up.cancel()
    assert (await broker.publish("s", [Control("n", 2)])).numbers == [3]
    assert (await broker.load("s")).facts == {"n": 2}
    await broker.close()


async def test_a_caller_that_is_closed_while_it_connects_leaves_nothing_open(caller):
    asked = asyncio.ensure_future(caller.call("PING"))
    await asyncio.sleep(0)
    caller.close()
    with pytest.raises(RedisConnectionError):
        await asked
    assert caller._link is None
    assert await caller.call("PING") == b"PONG"
