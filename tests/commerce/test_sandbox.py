"""The sandbox by itself: what it refuses, what it keeps, what it delivers, and its page."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from commerce.errors import BadSignature
from tests.commerce.pay_support import (
    ASKS,
    DECLINED,
    KEY,
    LATE,
    SUCCEEDS,
    Api,
    Clock,
    Sandbox,
    StripeProvider,
    Till,
    running,
)
from tests.waiting import until, until_sync

pytest_plugins = ("tests.commerce.pay_fixtures",)

SESSIONS = "/v1/checkout/sessions"


def form(**changes: str) -> dict[str, str]:
    fields = {
        "mode": "payment",
        "line_items[0][quantity]": "2",
        "line_items[0][price_data][currency]": "usd",
        "line_items[0][price_data][unit_amount]": "1500",
        "line_items[0][price_data][product_data][name]": "<b>Mug</b>",
        "success_url": "http://shop.example/done?s={CHECKOUT_SESSION_ID}",
        "cancel_url": "http://shop.example/back",
        "payment_intent_data[capture_method]": "manual",
    }
    fields.update(changes)
    return {name: value for name, value in fields.items() if value != "-"}


async def session(api: Api, **changes: str) -> dict[str, Any]:
    made = await api.post(SESSIONS, form(**changes))
    assert made.status_code == 200, made.text
    body: dict[str, Any] = made.json()
    return body


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "subscription"},
        {"mode": "-"},
        {"success_url": "-"},
        {"success_url": "javascript:alert(1)"},
        {"line_items[0][quantity]": "0"},
        {"line_items[0][price_data][unit_amount]": "-1"},
        {"line_items[0][price_data][unit_amount]": "9.99"},
        {"line_items[0][price_data][unit_amount]": "1"},
        {"line_items[0][price_data][unit_amount]": "99999999999"},
        {"line_items[0][price_data][currency]": "dollar"},
        {"line_items[0][price_data][product_data][name]": "-"},
        {"expires_at": "1"},
        {"expires_at": str(2**40)},
        {"payment_intent_data[capture_method]": "later"},
        {"metadata[a]": "x" * 501},
        {"a[b][c][d][e][f][g][h][i]": "deep"},
    ],
)
async def test_a_wrong_session_is_refused_in_stripes_words(api: Api, wrong: dict[str, str]) -> None:
    answer = await api.post(SESSIONS, form(**wrong))
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert (await api.get(SESSIONS))["data"] == []


async def test_only_the_key_opens_the_api(api: Api) -> None:
    for headers in ({"Authorization": "Bearer sk_test_other"}, {"Authorization": ""}):
        answer = await api.http.get(SESSIONS, headers=headers)
        assert answer.status_code == 401
        assert (await api.http.post("/sandbox/faults", headers=headers)).status_code == 401
    assert (await api.http.get("/v1/nothing")).status_code == 404
    assert (await api.http.get(f"{SESSIONS}/cs_test_none")).json()["error"]["code"] == (
        "resource_missing"
    )


async def test_an_idempotency_key_replays_its_answer_and_guards_its_request(api: Api) -> None:
    first = await api.post(SESSIONS, form(), key="k")
    again = await api.post(SESSIONS, form(), key="k")
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    other = await api.post(SESSIONS, form(cancel_url="http://x.example/"), key="k")
    assert (other.status_code, other.json()["error"]["type"]) == (400, "idempotency_error")
    # a request that failed validation is not remembered
    assert (await api.post(SESSIONS, form(mode="x"), key="k2")).status_code == 400
    assert (await api.post(SESSIONS, form(), key="k2")).status_code == 200


async def test_a_500_after_acting_is_replayed_although_it_acted(api: Api) -> None:
    await api.arm("error_after", match=SESSIONS)
    for _ in range(2):
        assert (await api.post(SESSIONS, form(), key="k")).status_code == 500
    assert len((await api.get(SESSIONS))["data"]) == 1


async def test_faults_strike_as_often_as_they_were_armed(api: Api) -> None:
    await api.arm("error_before", times=2, every=2)
    seen = [(await api.http.get(SESSIONS)).status_code for _ in range(6)]
    assert seen == [200, 500, 200, 500, 200, 200]
    for wrong in ({"kind": "fire"}, {"kind": "delay", "ms": -1}, {"kind": "delay", "times": "x"}):
        assert (await api.http.post("/sandbox/faults", json=wrong)).status_code == 400
    assert (await api.http.post("/sandbox/faults", content=b"{")).status_code == 400
    await api.arm("delay", ms=5)
    assert (await api.http.delete("/sandbox/faults")).json() == {"faults": []}


@pytest.mark.parametrize("language", ["en-GB,en;q=0.9", "zh-CN,zh;q=0.9"])
async def test_the_page_is_for_a_person(api: Api, language: str) -> None:
    made = await session(api)
    answer = await api.http.get(made["url"], headers={"Accept-Language": language})
    page = answer.text
    assert ("Sandbox" in page) == language.startswith("en")
    assert ("沙盒" in page) == language.startswith("zh")
    assert "30.00" in page
    assert "&lt;b&gt;Mug&lt;/b&gt; × 2" in page
    assert all(card in page for card in (SUCCEEDS, DECLINED, ASKS, LATE))
    assert "<script" not in page
    assert 'name="viewport"' in page
    assert "default-src 'none'" in answer.headers["content-security-policy"]


async def test_the_buttons_of_the_page(api: Api) -> None:
    made = await session(api)
    back = await api.press(made["url"], action="cancel")
    assert (back.status_code, back.headers["location"]) == (303, "http://shop.example/back")
    declined = await api.press(made["url"], card=DECLINED)
    assert "declined" in declined.text
    asked = await api.press(made["url"], card=ASKS)
    assert "Your bank asks" in asked.text
    refused = await api.press(made["url"], action="reject")
    assert "declined" in refused.text
    await api.press(made["url"], card="1234")
    paid = await api.press(made["url"], card="4242 4242 4242 4242")
    assert (paid.status_code, paid.headers["location"]) == (
        303,
        f"http://shop.example/done?s={made['id']}",
    )
    assert "complete" in (await api.http.get(made["url"])).text
    assert len(await api.events("checkout.session.completed")) == 1
    # paying twice is going back twice
    assert (await api.press(made["url"], card=SUCCEEDS)).status_code == 303
    assert len(await api.events("payment_intent.amount_capturable_updated")) == 1


async def test_late_money_arrives_by_itself(api: Api) -> None:
    made = await session(api)
    await api.press(made["url"], card=LATE)
    expired = await api.post(f"{SESSIONS}/{made['id']}/expire", {})
    assert expired.status_code == 400

    async def arrived() -> bool:
        return bool(await api.events("checkout.session.async_payment_succeeded"))

    await until(arrived)
    body = await api.get(f"{SESSIONS}/{made['id']}", **{"expand[]": "payment_intent"})
    assert body["payment_intent"]["status"] == "requires_capture"


async def test_objects_have_stripes_fields_and_types(api: Api, shared_data: Path) -> None:
    """Each field that it sends is one of Stripe's, of the same type or null, and none lacks."""
    fixtures = json.loads((shared_data / "payments" / "stripe-fixtures3.json").read_bytes())
    endpoint = await api.post(
        "/v1/webhook_endpoints", {"url": "http://127.0.0.1:9/", "enabled_events[0]": "nothing"}
    )
    made = await session(api)
    await api.press(made["url"], card=ASKS)
    await api.press(made["url"], action="approve")
    body = await api.get(f"{SESSIONS}/{made['id']}", **{"expand[]": "payment_intent"})
    objects = [made, body["payment_intent"], endpoint.json(), *(await api.events())]
    for sent in objects:
        if sent["object"] == "webhook_endpoint":
            assert sent.pop("secret").startswith("whsec_")
        known = fixtures["resources"][sent["object"]]
        assert set(sent) == set(known), sent["object"]
        for name, value in sent.items():
            if value is not None and known[name] is not None:
                assert type(value) is type(known[name]), f"{sent['object']}.{name}"


@asynccontextmanager
async def receiver(statuses: list[int]) -> AsyncIterator[tuple[str, list[tuple[bytes, str]]]]:
    """An endpoint that answers with each of `statuses` and then with 200; (URL, what came)."""
    got: list[tuple[bytes, str]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        lowered = {name.lower(): value for name, value in fields.items()}
        body = await reader.readexactly(int(lowered["content-length"]))
        got.append((body, lowered["stripe-signature"]))
        status = statuses.pop(0) if statuses else 200
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n".encode())
        writer.write(b"Connection: close\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook", got
    finally:
        server.close()
        await server.wait_closed()


async def _endpoint(api: Api, url: str) -> str:
    made = await api.post("/v1/webhook_endpoints", {"url": url, "enabled_events[0]": "*"})
    secret: str = made.json()["secret"]
    return secret


async def test_webhooks_are_signed_and_repeated_until_they_are_taken(api: Api) -> None:
    async with receiver([500, 404]) as (url, got):
        provider = StripeProvider(KEY, [await _endpoint(api, url)], api_base=api.url)
        made = await session(api)
        await api.press(made["url"], card=SUCCEEDS)
        clock = Clock()
        await until(lambda: len(got) >= 6)
        ids = [provider.verify(body, header, clock()).id for body, header in got]
        assert len(set(ids)) == 4
        with pytest.raises(BadSignature):
            provider.verify(got[0][0] + b" ", got[0][1], clock())
        await provider.close()
    assert {event["id"] for event in await api.events()} == set(ids)


async def test_webhooks_are_lost_duplicated_and_reordered_on_order(api: Api) -> None:
    async with receiver([]) as (url, got):
        await _endpoint(api, url)
        await api.arm("webhook_lose", match="charge.")
        await api.arm("webhook_duplicate", match="checkout.session.completed", copies=2)
        await api.arm("webhook_reorder", match="payment_intent.created")
        made = await session(api)
        await api.press(made["url"], card=SUCCEEDS)
        await until(lambda: len(got) >= 5)
        kinds = [json.loads(body)["type"] for body, _ in got]
    assert sorted(kinds[:-1]) == [
        *["checkout.session.completed"] * 3,
        "payment_intent.amount_capturable_updated",
    ]
    assert kinds[-1] == "payment_intent.created"


async def test_a_webhook_alone_makes_an_order(till: Till) -> None:
    """From the hosted page to a paid order through a real HTTP delivery, nothing asked for."""
    rid = await till.held()
    async with receiver([]) as (url, got):
        provider = StripeProvider(KEY, [await _endpoint(till.api, url)], api_base=till.api.url)
        till.pay = till.node(provider)
        page = await till.begin(rid)
        await till.api.press(page.url, card=SUCCEEDS)
        await until(lambda: len(got) >= 4)
        async with running(till.pay):
            for body, header in reversed(got):
                await till.pay.accept(body, header)

            async def paid() -> bool:
                return await till.facts("order", rid) == ["placed", "paid"]

            await until(paid)
        await provider.close()


def test_it_ends_by_sigterm_and_keeps_its_state(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path).start("--webhook", "http://127.0.0.1:9/", "--secret", "whsec_mine")
    assert sandbox.said["webhook_secret"] == "whsec_mine"
    began = time.monotonic()
    assert sandbox.stop() == 0
    assert time.monotonic() - began < 5
    sandbox.start("--webhook", "http://127.0.0.1:9/")
    assert sandbox.said["webhook_secret"] == "whsec_mine"
    assert sandbox.stop() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux")
def test_it_dies_with_the_program_that_started_it(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, time; "
        "p = subprocess.Popen([sys.executable, '-m', 'commerce.sandbox', '--data', sys.argv[1],"
        " '--print-url'], stdout=subprocess.PIPE); p.stdout.readline(); "
        "print(p.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait(10)
    parent.stdout.close()

    def gone() -> bool:
        try:
            os.kill(child, signal.SIGCONT)
        except ProcessLookupError:
            return True
        state = Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0]
        return state == "Z"

    until_sync(gone)
