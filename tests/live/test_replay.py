"""Every call that changes something can be repeated: the route table is walked, none is left out.

A route either takes an Idempotency-Key, or stands below with the reason why it needs none. One with
a key either keeps its answer in the transaction of its effect (`Call.keep`), or stands below with
the reason why a crash between the two does no harm. So a new route without either fails here.
"""

import inspect
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from live.app import route_table
from live.http import Route
from live.trade import clock
from tests.live.conftest import Node
from tests.live.test_api import bearer
from tests.live.test_commands import CSV

WITHOUT_A_KEY = {
    "create_guest": "a guest more is nobody's harm, and there is no identity to key it by",
    "create_session": "a link or password is good once or for ever, whatever is repeated",
    "cancel_hold": "cancelled once and for all; the answer is the state",
    "accept_event": "the provider's event id is the key",
}
KEPT_AFTERWARDS = {
    "put_shop": "sets a state",
    "erase_me": "forgotten is forgotten",
    "erase_person": "forgotten is forgotten",
    "change_webhook": "sets a state",
    "delete_webhook": "gone is gone",
    "create_webhook": "an endpoint more, which its host sees and deletes",
    "rotate_webhook_secret": "another new secret: the answer to the repetition is the valid one",
    "test_webhook": "one more test event",
    "replay_dead": "receivers know an event by its id",
    "replay_delivery": "receivers know an event by its id",
}


@pytest.fixture
async def http(node: Node) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=node.url, trust_env=False, timeout=60) as http:
        yield http


@pytest.fixture
def node_table(node: Node) -> list[Route]:
    return route_table(node.app, node.url)


def changing(table: list[Route]) -> list[Route]:
    return [route for route in table if route.method not in ("GET", "HEAD")]


def keeps(route: Route) -> bool:
    """Whether its handler, or what it calls of its own class, keeps its answer."""
    owner = type(getattr(route.handler, "__self__", None))
    source = inspect.getsource(route.handler)
    called = [
        inspect.getsource(value)
        for name, value in vars(owner).items()
        if inspect.isfunction(value) and f"self.{name}(" in source
    ]
    return any(".keep(" in text for text in [source, *called])


def test_every_changing_route_takes_a_key_or_says_why_not(node_table: list[Route]) -> None:
    without = {route.name for route in changing(node_table) if route.key == "none"}
    assert without == set(WITHOUT_A_KEY)


def test_every_route_with_a_key_keeps_its_answer_with_its_effect_or_says_why_not(
    node_table: list[Route],
) -> None:
    keyed = [route for route in changing(node_table) if route.key != "none"]
    assert {route.name for route in keyed if not keeps(route)} == set(KEPT_AFTERWARDS)


def _examples(shows: str) -> list[tuple[str, str, dict[str, Any]]]:
    """(method, path, request) of what a host changes without an order; orders have tests of their
    own (`test_orders_api`)."""
    product = {
        "handle": "cup",
        "title": "Cup",
        "skus": [{"sku": "CUP", "amount": 500, "currency": "USD"}],
    }
    hook = {"url": "https://example.com/hook", "types": ["order.paid"]}
    return [
        ("POST", "/api/v1/shows", {"json": {"title": "Again"}}),
        ("PATCH", f"/api/v1/shows/{shows}", {"json": {"title": "Once more"}}),
        ("POST", "/api/v1/products", {"json": product}),
        ("POST", "/api/v1/stock/MUG-S/adjustments", {"json": {"delta": 3}}),
        ("PUT", "/api/v1/terms", {"json": {"tax_bp": 700, "tax_title": "VAT", "low_stock": 2}}),
        ("POST", "/api/v1/webhooks", {"json": hook}),
    ]


async def test_a_repetition_gets_the_same_answer_and_has_one_effect(
    node: Node, http: httpx.AsyncClient
) -> None:
    csv = {**bearer(node.host_token), "content-type": "text/csv"}
    imported = await http.post("/api/v1/imports?currency=USD", content=CSV, headers=csv)
    assert imported.status_code == 200, imported.text
    made = await http.post(
        "/api/v1/shows", json={"title": "First"}, headers=bearer(node.host_token)
    )
    show = made.json()["id"]
    sku = (await http.get("/api/v1/products")).json()["products"][0]["skus"][0]["sku"]
    for number, (method, path, request) in enumerate(_examples(show)):
        path = path.replace("MUG-S", sku)
        headers = bearer(node.host_token, **{"idempotency-key": f"again-{clock()}-{number}"})
        first = await http.request(method, path, headers=headers, **request)
        second = await http.request(method, path, headers=headers, **request)
        assert first.status_code < 400, (path, first.text)
        assert (second.status_code, second.content) == (first.status_code, first.content), path
        assert second.headers.get("idempotent-replayed") == "true", path
        other = {**request, "json": {**request["json"], "extra": 1}}
        conflict = await http.request(method, path, headers=headers, **other)
        assert conflict.status_code in (400, 422), path
    hooks = (await http.get("/api/v1/webhooks", headers=bearer(node.host_token))).json()
    assert len(hooks["endpoints"]) == 1
    titles = [show["title"] for show in (await http.get("/api/v1/shows")).json()["shows"]]
    assert sorted(titles) == ["Again", "Once more"]
