"""Webhooks: signed so that the standard's own library agrees, at least once, in order per key."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from commerce.database_sql import Database
from commerce.outbox_sql import SqlOutbox
from commerce.webhook_courier import Courier
from commerce.webhooks import (
    ENDPOINTS_MAX,
    LEASE_MS,
    RETRY_S,
    ROTATION_MS,
    DeliveryState,
    Endpoint,
    Event,
    Stopped,
    next_try,
    secret_of,
    signed_headers,
)
from commerce.webhooks_sql import KEEP_MS, SqlWebhooks
from live.webhooks import body_of
from tests.commerce.receiver import Receiver, receiving
from tests.waiting import until

MASTER = "a master secret of thirty-two characters"
NOW = 1_800_000_000_000


class Desk:
    """Storage, a courier, and a clock that stands until it is moved."""

    def __init__(self, database: Database, try_s: float = 15.0) -> None:
        numbers = itertools.count(1)
        self.database = database
        self.now = NOW
        self.hooks = SqlWebhooks(database, lambda: f"{next(numbers):04}")
        self.courier = Courier(
            self.hooks, MASTER, clock=lambda: self.now, chance=lambda: 0.0, try_s=try_s
        )

    async def tell(self, *events: Event) -> None:
        """Facts that were committed, and their deliveries."""
        async with self.database.begin() as conn:
            for event in events:
                await SqlOutbox.add(conn, "order", event.key, {}, self.now)
        facts = await self.hooks.facts(100)
        await self.hooks.tell(
            [(fact, [event]) for fact, event in zip(facts, events, strict=True)], self.now
        )

    async def endpoint(self, url: str, *types: str) -> Endpoint:
        made = await self.hooks.add_endpoint(url, types, self.now)
        assert made is not None
        return made

    async def send(self) -> int:
        """Everything that is due now; how many tries."""
        return sum([await self.courier.round(one) for one in await self.hooks.due(self.now)])

    async def states(self, endpoint: Endpoint) -> list[tuple[str, str, int, str]]:
        found = await self.hooks.deliveries(endpoint.id, None, None, 100)
        return [(one.body, str(one.state), one.tries, one.answer) for one in reversed(found)]


@pytest.fixture
async def desk(database: Database) -> AsyncIterator[Desk]:
    made = Desk(database)
    yield made
    await made.courier.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as found:
        yield found


def paid(order: str, body: str) -> Event:
    return Event("order.paid", order, body)


async def test_what_arrives_is_verified_by_the_standards_own_library(
    desk: Desk, receiver: Receiver
) -> None:
    desk.now = int(time.time() * 1000)  # the library looks at its own clock
    endpoint = await desk.endpoint(receiver.url)
    await desk.tell(paid("o1", '{"price":"1 € ☃"}'))
    assert await desk.send() == 1
    headers, body = receiver.requests[0]
    secret = secret_of(MASTER, endpoint.id, 1)
    assert Webhook(secret).verify(body, headers) == {"price": "1 € ☃"}
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body + " ", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret_of(MASTER, "another", 1)).verify(body, headers)
    assert await desk.send() == 0
    found = await desk.hooks.endpoint(endpoint.id)
    assert found is not None
    assert found.delivered_at == desk.now


async def test_each_endpoint_gets_the_types_it_asked_for(desk: Desk, receiver: Receiver) -> None:
    everything = await desk.endpoint(receiver.url)
    stock = await desk.endpoint(receiver.url, "stock.changed")
    await desk.tell(paid("o1", "1"), Event("stock.changed", "MUG", "2"))
    await desk.hooks.test(stock.id, "3", desk.now)
    await desk.send()
    assert [row[0] for row in await desk.states(everything)] == ["1", "2"]
    assert [row[0] for row in await desk.states(stock)] == ["2", "3"]
    assert sorted(receiver.bodies) == ["1", "2", "2", "3"]
    # The same event has one id at all its receivers.
    ids = {(body, headers["webhook-id"]) for headers, body in receiver.requests}
    assert len(ids) == 3


async def test_an_earlier_event_of_a_key_holds_back_the_later_ones_and_nobody_elses(
    desk: Desk, receiver: Receiver
) -> None:
    endpoint = await desk.endpoint(receiver.url)
    receiver.answer = lambda n: (500 if n == 1 else 200, "")
    await desk.tell(paid("o1", "a1"))
    await desk.send()
    await desk.tell(paid("o1", "a2"), paid("o2", "b1"), paid("o1", "a3"))
    await desk.send()
    assert receiver.bodies == ["a1", "b1"]
    desk.now += RETRY_S[0] * 1000 - 1
    assert await desk.send() == 0
    desk.now += 1
    await desk.send()
    assert receiver.bodies == ["a1", "b1", "a1", "a2", "a3"]
    assert await desk.states(endpoint) == [
        ("a1", "delivered", 2, "200"),
        ("a2", "delivered", 1, "200"),
        ("b1", "delivered", 1, "200"),
        ("a3", "delivered", 1, "200"),
    ]
    first, again = (headers for headers, body in receiver.requests if body == "a1")
    assert first["webhook-id"] == again["webhook-id"]


async def test_an_event_is_given_up_after_the_schedule_and_can_be_sent_again_by_hand(
    desk: Desk, receiver: Receiver
) -> None:
    endpoint = await desk.endpoint(receiver.url)
    receiver.answer = lambda _n: (503, "")
    await desk.tell(paid("o1", "a1"), paid("o1", "a2"))
    for wait_s in (0, *RETRY_S):
        desk.now += wait_s * 1000
        assert await desk.send() >= 1
    assert [row[1:] for row in await desk.states(endpoint)] == [
        ("dead", 10, "503"),
        ("pending", 1, "503"),
    ], "what was given up holds nobody back"
    receiver.answer = lambda _n: (204, "")
    assert await desk.hooks.replay(endpoint.id, None, desk.now) == 1
    desk.now += RETRY_S[0] * 1000
    await desk.send()
    assert receiver.bodies[-2:] == ["a1", "a2"]
    event = (await desk.hooks.deliveries(endpoint.id, None, None, 1))[0].event
    assert await desk.hooks.replay(endpoint.id, event, desk.now) == 1, "also what was taken"
    assert await desk.hooks.replay(endpoint.id, event, desk.now) == 0, "it is on its way"


async def test_410_stops_the_endpoint_and_a_redirect_is_not_followed(
    desk: Desk, receiver: Receiver
) -> None:
    endpoint = await desk.endpoint(receiver.url)
    receiver.answer = lambda n: (302, "location: /elsewhere\r\n") if n == 1 else (410, "")
    await desk.tell(paid("o1", "a1"))
    await desk.send()
    assert await desk.states(endpoint) == [("a1", "pending", 1, "302")]
    assert len(receiver.requests) == 1
    desk.now += RETRY_S[0] * 1000
    await desk.send()
    await desk.tell(paid("o2", "b1"))
    assert await desk.send() == 0
    found = await desk.hooks.endpoint(endpoint.id)
    assert found is not None
    assert found.stopped is Stopped.GONE
    await desk.hooks.change_endpoint(endpoint.id, {"stopped": None})
    receiver.answer = lambda _n: (200, "")
    assert await desk.send() == 1, "what waited goes out when it is back"


async def test_a_receiver_that_hangs_or_is_not_there_is_tried_again(
    database: Database, receiver: Receiver
) -> None:
    desk = Desk(database, try_s=0.5)
    hanging = await desk.endpoint(receiver.url)
    absent = await desk.endpoint("http://127.0.0.1:9/")
    receiver.hang = True
    await desk.tell(paid("o1", "a1"))
    assert await desk.send() == 2
    assert await desk.states(hanging) == [("a1", "pending", 1, "timeout")]
    assert await desk.states(absent) == [("a1", "pending", 1, "no connection")]
    await desk.courier.close()


async def test_a_receivers_own_wish_to_wait_is_kept(desk: Desk, receiver: Receiver) -> None:
    await desk.endpoint(receiver.url)
    receiver.answer = lambda n: (429, "retry-after: 60\r\n") if n == 1 else (200, "")
    await desk.tell(paid("o1", "a1"))
    await desk.send()
    desk.now += 59_999
    assert await desk.send() == 0
    desk.now += 1
    assert await desk.send() == 1


async def test_a_courier_that_dies_leaves_its_deliveries_to_the_next_one(
    desk: Desk, receiver: Receiver
) -> None:
    endpoint = await desk.endpoint(receiver.url)
    await desk.tell(paid("o1", "a1"), paid("o1", "a2"))
    dead = await desk.hooks.claim(endpoint.id, 4, desk.now, LEASE_MS)
    assert [one.body for one in dead] == ["a1"], "one of a key at a time"
    assert await desk.send() == 0
    desk.now += LEASE_MS
    assert await desk.send() == 2
    assert receiver.bodies == ["a1", "a2"]
    await desk.hooks.failed(dead[0], "late", None, desk.now)  # it was not dead after all
    assert [row[1] for row in await desk.states(endpoint)] == ["delivered", "delivered"]


async def test_two_nodes_make_the_deliveries_of_a_fact_once(desk: Desk) -> None:
    endpoint = await desk.endpoint("http://127.0.0.1:9/")
    async with desk.database.begin() as conn:
        await SqlOutbox.add(conn, "order", "o1", {}, NOW)
        await SqlOutbox.add(conn, "hold", "h1", {}, NOW)
    facts = await desk.hooks.facts(10)
    assert [fact.topic for fact in facts] == ["order"], "holds are nobody else's business"
    told = [(fact, [paid("o1", "a1")]) for fact in facts]
    await asyncio.gather(*(desk.hooks.tell(told, NOW) for _ in range(3)))
    assert len(await desk.states(endpoint)) == 1
    assert await desk.hooks.facts(10) == []


async def test_the_running_courier_serves_a_live_endpoint_beside_one_that_hangs(
    desk: Desk, receiver: Receiver
) -> None:
    async with receiving() as hanging:
        hanging.hang = True
        await desk.endpoint(hanging.url)
        await desk.endpoint(receiver.url)
        await desk.tell(*(paid(f"o{n}", f"{n}") for n in range(12)))
        running = asyncio.create_task(desk.courier.run())
        try:
            await until(lambda: len(receiver.bodies) == 12)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    assert sorted(receiver.bodies, key=int) == [f"{n}" for n in range(12)]


async def test_a_rotation_happens_once_and_both_secrets_sign_for_a_day(desk: Desk) -> None:
    first = await desk.endpoint("http://127.0.0.1:9/")
    rotated = await desk.hooks.rotate(first.id, 1, NOW)
    assert rotated == await desk.hooks.rotate(first.id, 1, NOW + 1)
    assert rotated is not None
    assert (rotated.generation, rotated.rotated_at) == (2, NOW)

    def signatures(now: int) -> list[str]:
        headers = signed_headers(rotated, "msg_1", "{}", master=MASTER, now=now)
        return headers["webhook-signature"].split(" ")

    assert len(signatures(NOW)) == len(set(signatures(NOW))) == 2
    assert len(signatures(NOW + ROTATION_MS)) == 1


async def test_endpoints_are_bounded_and_one_can_be_removed_with_its_deliveries(
    desk: Desk,
) -> None:
    endpoints = [await desk.endpoint(f"http://127.0.0.1:9/{n}") for n in range(ENDPOINTS_MAX)]
    assert await desk.hooks.add_endpoint("http://127.0.0.1:9/x", [], NOW) is None
    await desk.tell(paid("o1", "a1"))
    assert await desk.hooks.remove_endpoint(endpoints[0].id)
    assert not await desk.hooks.remove_endpoint(endpoints[0].id)
    assert len(await desk.hooks.endpoints()) == ENDPOINTS_MAX - 1
    counts = await desk.hooks.counts()
    assert counts[endpoints[1].id] == {DeliveryState.PENDING: 1}
    assert endpoints[0].id not in counts
    assert await desk.hooks.prune(NOW + KEEP_MS) == 0
    assert await desk.hooks.prune(NOW + KEEP_MS + 1) == 1
    assert await desk.hooks.counts() == {}


def test_the_schedule_grows_ends_and_is_spread() -> None:
    waits = [next_try(tries, 0, lambda: 0.0) for tries in range(1, len(RETRY_S) + 2)]
    assert waits == [*(second * 1000 for second in RETRY_S), None]
    assert next_try(1, 0, lambda: 1.0) == 6_000
    assert next_try(1, 0, lambda: 0.0, at_least_s=10**9) == RETRY_S[-1] * 1000


def test_bodies_are_json_whatever_they_say() -> None:
    told = json.loads(body_of("order.paid", NOW, {"id": "o1"}))
    assert told == {
        "type": "order.paid",
        "timestamp": "2027-01-15T08:00:00.000Z",
        "data": {"id": "o1"},
    }
