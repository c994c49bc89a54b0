"""HTTP: who may, what is refused and how, and that a repetition gets the same answer."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from starlette.applications import Starlette

from live.endpoints import routes
from live.identity import Role
from tests.live.conftest import Node
from tests.live.test_commands import CSV
from tests.waiting import until


@pytest.fixture
async def http(node: Node) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=node.url, trust_env=False) as client:
        yield client


def bearer(token: str, **more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}", **more}


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, object]:
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, object] = answer.json()
    assert (answer.status_code, body["status"], body["code"]) == (status, status, code)
    assert body["title"]
    assert body["detail"]
    return body


async def test_a_guest_gets_a_token_that_says_who_they_are(http: httpx.AsyncClient) -> None:
    made = await http.post("/api/v1/guests", json={"name": "  Ada \n L "})
    assert made.status_code == 201
    assert made.json()["viewer"]["name"] == "Ada L"
    me = await http.get("/api/v1/me", headers=bearer(made.json()["token"]))
    assert me.json() == {**made.json()["viewer"], "role": "guest"}


async def test_a_guest_who_changes_their_name_stays_who_they_are(http: httpx.AsyncClient) -> None:
    first = (await http.post("/api/v1/guests", json={"name": "Ada"})).json()
    again = await http.post(
        "/api/v1/guests", json={"name": "Countess"}, headers=bearer(first["token"])
    )
    assert again.json()["viewer"] == {**first["viewer"], "name": "Countess"}
    forged = await http.post("/api/v1/guests", json={"name": "Eve"}, headers=bearer("x"))
    assert forged.json()["viewer"]["id"] != first["viewer"]["id"]


async def test_who_asks_without_a_right_is_told_which_one_is_missing(
    node: Node, http: httpx.AsyncClient
) -> None:
    new = {"title": "Tonight"}
    problem(await http.post("/api/v1/shows", json=new), 401, "token_missing")
    forged = bearer("x.y.z")
    problem(await http.post("/api/v1/shows", json=new, headers=forged), 401, "token_invalid")
    guest = bearer(node.token())
    problem(await http.post("/api/v1/shows", json=new, headers=guest), 403, "forbidden")
    host = bearer(node.host_token)
    assert (await http.post("/api/v1/shows", json=new, headers=host)).status_code == 201


async def test_an_old_token_does_not_stand_in_the_way_of_what_is_public(
    http: httpx.AsyncClient,
) -> None:
    assert (await http.get("/api/v1/shows", headers=bearer("old"))).status_code == 200


async def test_a_one_time_link_signs_in_once(node: Node, http: httpx.AsyncClient) -> None:
    account = await node.app.accounts.add("host", "Hostess", Role.HOST)
    link = await node.app.accounts.make_link(account.id)
    first = await http.post("/api/v1/sessions", json={"link": link})
    assert first.json()["viewer"] == {"id": account.id, "name": "Hostess", "role": "host"}
    problem(await http.post("/api/v1/sessions", json={"link": link}), 401, "bad_credentials")


async def test_a_password_signs_in_and_a_wrong_one_does_not(
    node: Node, http: httpx.AsyncClient
) -> None:
    await node.app.accounts.add("host", "Hostess", Role.HOST)
    assert await node.app.accounts.set_password("host", "correct horse battery")
    right = {"login": "host", "password": "correct horse battery"}
    assert (await http.post("/api/v1/sessions", json=right)).status_code == 201
    for wrong in ({**right, "password": "wrong"}, {**right, "login": "nobody"}):
        problem(await http.post("/api/v1/sessions", json=wrong), 401, "bad_credentials")


async def test_guessing_passwords_is_paced(node: Node, http: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(
        *(http.post("/api/v1/sessions", json={"link": f"guess-{n}"}) for n in range(40))
    )
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) == {401, 429}
    assert 10 <= statuses[401] < 30


async def test_bad_bodies_are_refused_with_their_field(node: Node, http: httpx.AsyncClient) -> None:
    host = bearer(node.host_token)
    json = {**host, "content-type": "application/json"}
    for body in (b"", b"{", b"[]", b"null", b"\xff", b"[" * 10_000):
        problem(await http.post("/api/v1/shows", content=body, headers=json), 422, "bad_params")
    wrong = await http.post("/api/v1/shows", json={"title": 7}, headers=host)
    assert problem(wrong, 422, "bad_params")["details"] == {"field": "title"}
    text = {**host, "content-type": "text/plain"}
    answer = await http.post("/api/v1/shows", content=b"{}", headers=text)
    problem(answer, 415, "unsupported_media_type")
    large = await http.post("/api/v1/shows", json={"title": "x" * 300_000}, headers=host)
    problem(large, 413, "too_large")


async def test_a_card_number_is_refused_wherever_it_stands_and_never_repeated(
    node: Node, http: httpx.AsyncClient
) -> None:
    host = bearer(node.host_token)
    for body in (
        {"title": "mine is 4242-4242-4242-4242"},
        {"title": "fine", "card_number": "1"},
        {"title": "fine", "note": {"deep": ["5555555555554444"]}},
    ):
        answer = await http.post("/api/v1/shows", json=body, headers=host)
        problem(answer, 422, "card_number")
        assert "4242" not in answer.text
        assert "5555" not in answer.text


async def test_what_is_not_there_is_a_problem_document_too(http: httpx.AsyncClient) -> None:
    problem(await http.get("/api/v1/nothing"), 404, "not_found")
    problem(await http.delete("/api/v1/shows"), 405, "method_not_allowed")
    problem(await http.get("/api/v1/shows/s_none"), 404, "unknown_show")


async def test_the_same_key_gets_the_same_answer_and_does_it_once(
    node: Node, http: httpx.AsyncClient
) -> None:
    host = bearer(node.host_token, **{"idempotency-key": "one"})
    first = await http.post("/api/v1/shows", json={"title": "Once"}, headers=host)
    again = await http.post("/api/v1/shows", json={"title": "Once"}, headers=host)
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert len((await http.get("/api/v1/shows")).json()["shows"]) == 1
    other = await http.post("/api/v1/shows", json={"title": "Other"}, headers=host)
    problem(other, 422, "key_conflict")


async def test_stock_is_moved_once_per_key_and_needs_one(
    node: Node, http: httpx.AsyncClient
) -> None:
    host = bearer(node.host_token)
    csv = {**host, "content-type": "text/csv"}
    await http.post("/api/v1/imports?currency=EUR", content=CSV, headers=csv)
    path = "/api/v1/stock/MUG-S/adjustments"
    problem(await http.post(path, json={"delta": 2}, headers=host), 400, "key_missing")
    keyed = {**host, "idempotency-key": "k1"}
    for _ in range(2):
        answer = await http.post(path, json={"delta": 2}, headers=keyed)
        assert answer.json()["on_hand"] == 5
    below = await http.post(path, json={"delta": -9}, headers={**host, "idempotency-key": "k2"})
    assert problem(below, 409, "stock_held")["details"] == {
        "on_hand": 5,
        "held": 0,
        "committed": 0,
    }
    none = await http.get("/api/v1/stock/NONE", headers=host)
    problem(none, 404, "unknown_sku")


async def test_a_wrong_file_imports_nothing_and_names_each_wrong_row(
    node: Node, http: httpx.AsyncClient
) -> None:
    csv = bearer(node.host_token, **{"content-type": "text/csv"})
    bad = CSV.replace("12.50", "-1").replace("15.00", "lots")
    answer = await http.post("/api/v1/imports?currency=EUR", content=bad, headers=csv)
    details = problem(answer, 422, "csv_refused")["details"]
    assert isinstance(details, dict)
    assert [one["line"] for one in details["problems"]] == [2, 3]
    assert (await http.get("/api/v1/products")).json()["products"] == []
    columns = await http.post("/api/v1/imports?currency=EUR", content="a,b\n1,2\n", headers=csv)
    problem(columns, 422, "csv_columns")
    broken = await http.post(
        "/api/v1/imports?currency=EUR", content=CSV.encode("utf-16"), headers=csv
    )
    problem(broken, 422, "csv_encoding")
    nowhere = await http.post("/api/v1/imports?currency=XXQ", content=CSV, headers=csv)
    problem(nowhere, 422, "bad_currency")


async def test_the_same_file_twice_changes_nothing(node: Node, http: httpx.AsyncClient) -> None:
    csv = bearer(node.host_token, **{"content-type": "text/csv"})
    first = await http.post("/api/v1/imports?currency=EUR", content=CSV, headers=csv)
    again = await http.post("/api/v1/imports?currency=EUR", content=CSV, headers=csv)
    assert first.json()["counts"]["products_created"] == 1
    assert again.json()["counts"]["products_unchanged"] == 1
    assert again.json()["counts"]["units_received"] == 0


async def test_the_first_products_decide_the_currency_of_the_shop(
    node: Node, http: httpx.AsyncClient
) -> None:
    csv = bearer(node.host_token, **{"content-type": "text/csv"})
    assert (await http.get("/api/v1/shop")).json()["currency"] == "USD"
    await http.post("/api/v1/imports?currency=EUR", content=CSV, headers=csv)
    assert (await http.get("/api/v1/shop")).json()["currency"] == "EUR"
    other = CSV.replace("mug", "cup").replace("MUG", "CUP")
    answer = await http.post("/api/v1/imports?currency=JPY", content=other, headers=csv)
    problem(answer, 422, "csv_refused")  # yen have no cents
    other = other.replace(".50", "").replace(".00", "")
    answer = await http.post("/api/v1/imports?currency=JPY", content=other, headers=csv)
    assert problem(answer, 409, "wrong_currency")["details"] == {"currency": "EUR"}
    host = bearer(node.host_token)
    shop = {"name": "Mugs", "currency": "USD", "shipping_amount": 490}
    problem(await http.put("/api/v1/shop", json=shop, headers=host), 409, "wrong_currency")
    kept = await http.put("/api/v1/shop", json={**shop, "currency": "EUR"}, headers=host)
    assert kept.json()["shipping_amount"] == 490


async def test_hidden_shows_are_listed_for_hosts_who_ask(
    node: Node, http: httpx.AsyncClient
) -> None:
    host = bearer(node.host_token)
    await http.post("/api/v1/shows", json={"title": "Secret", "hidden": True}, headers=host)

    async def listed(**how: object) -> int:
        answer = await http.get("/api/v1/shows", **how)  # type: ignore[arg-type]
        return len(answer.json()["shows"])

    asked = {"hidden": "true"}
    assert await listed() == 0
    assert await listed(params=asked) == 0
    assert await listed(params=asked, headers=host) == 1


async def test_a_stranger_sees_neither_holds_nor_orders(
    node: Node, http: httpx.AsyncClient
) -> None:
    guest = bearer(node.token())
    assert (await http.get("/api/v1/holds", headers=guest)).json() == {"holds": []}
    problem(await http.get("/api/v1/holds/some-hold-of-yours", headers=guest), 404, "unknown_hold")
    problem(await http.get("/api/v1/orders/o_1", headers=guest), 404, "unknown_order")


async def test_a_webhook_without_a_signature_is_refused(http: httpx.AsyncClient) -> None:
    answer = await http.post(
        "/api/v1/webhooks/stripe", json={"id": "evt_1", "type": "x", "object": "event"}
    )
    problem(answer, 400, "bad_signature")


async def test_pages_carry_the_policy_and_nothing_is_framed(http: httpx.AsyncClient) -> None:
    for path in ("/", "/show/demo", "/host", "/healthz", "/api/v1/shows"):
        answer = await http.get(path)
        assert answer.status_code == 200, path
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_page_of_another_site_may_not_connect(node: Node) -> None:
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed, InvalidStatus
    from websockets.typing import Origin, Subprotocol

    address = node.url.replace("http://", "ws://") + "/live"
    offer = [Subprotocol("live.v1")]
    with pytest.raises(InvalidStatus) as refused:
        await connect(address, origin=Origin("https://evil.example"), subprotocols=offer)
    assert refused.value.response.status_code == 403
    async with connect(address, origin=Origin(node.url), subprotocols=offer) as socket:
        assert socket.subprotocol == "live.v1"
    async with connect(address, origin=Origin(node.url)) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4502


async def test_a_node_without_its_broker_is_ready_unless_it_never_had_it() -> None:
    states: dict[str, str] = {}

    async def ready() -> dict[str, str]:
        return states

    door = cast("Any", SimpleNamespace(open=ready))
    transport = httpx.ASGITransport(Starlette(routes=routes(door, ready, lambda: b"")))
    async with httpx.AsyncClient(transport=transport, base_url="http://node") as http:

        async def code(**now: str) -> int:
            states.clear()
            states.update(now)
            return (await http.get("/readyz")).status_code

        assert await code(broker="not yet", database="ok") == 503, "do not roll it out"
        assert await code(broker="ok", database="away") == 503
        assert await code(broker="ok", database="ok") == 200
        assert await code(broker="away", database="ok") == 200
        assert await code(broker="away", database="away") == 503
        assert await code(broker="ok", database="ok", node="draining") == 503


async def test_health_readiness_and_metrics(node: Node, http: httpx.AsyncClient) -> None:
    assert (await http.get("/healthz")).text == "ok\n"
    ready = await http.get("/readyz")
    assert ready.json() == {"broker": "ok", "database": "ok"}
    metrics = (await http.get("/metrics")).text
    assert "vitrine_connections 0.0" in metrics
    assert "vitrine_broker_ok 1.0" in metrics


async def test_stock_is_set_by_comparing_and_refused_with_the_numbers(
    http: httpx.AsyncClient, node: Node
) -> None:
    host = bearer(node.host_token)
    csv = {**host, "Content-Type": "text/csv"}
    await http.post("/api/v1/imports?currency=EUR", content=CSV, headers=csv)
    path = "/api/v1/stock/MUG-S"
    body = {"on_hand": 9, "expected": 3}
    first = await http.post(f"{path}/count", json=body, headers={**host, "Idempotency-Key": "one"})
    expected = {"on_hand": 9, "held": 0, "committed": 0, "available": 9, "draining": 0}
    assert first.json() == {"sku": "MUG-S", **expected}
    again = await http.post(f"{path}/count", json=body, headers={**host, "Idempotency-Key": "one"})
    assert again.json() == first.json()
    stale = await http.post(f"{path}/count", json=body, headers={**host, "Idempotency-Key": "two"})
    assert problem(stale, 409, "stock_changed")["details"]["on_hand"] == 9
    problem(await http.post(f"{path}/count", json=body, headers=host), 400, "key_missing")
    kept = await http.post(f"{path}/keep", headers={**host, "Idempotency-Key": "three"})
    assert kept.json() == first.json()


async def test_a_host_sees_whether_the_numbers_of_stock_agree_and_so_does_prometheus(
    http: httpx.AsyncClient, node: Node
) -> None:
    host = bearer(node.host_token)

    async def looked() -> bool:
        return bool((await http.get("/api/v1/stock-check", headers=host)).json()["rounds"])

    await until(looked)
    found = (await http.get("/api/v1/stock-check", headers=host)).json()
    assert (found["light"], found["reason"], found["differences"]) == ("green", "agrees", [])
    problem(await http.get("/api/v1/stock-check", headers=bearer(node.token())), 403, "forbidden")
    numbers = (await http.get("/metrics")).text
    assert "vitrine_stock_light 0.0" in numbers
    assert "vitrine_stock_differences 0.0" in numbers
