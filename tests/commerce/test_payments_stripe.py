"""The adapter's contract, kept against the real sandbox over HTTP, and Stripe's signatures."""

import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from commerce import payments_stripe
from commerce.errors import BadSignature, Unavailable
from commerce.payments import Meaning, ProviderRefused, SessionRequest, judge
from commerce.payments_stripe import StripeProvider, from_provider, to_provider
from commerce.stock import HeldLine
from tests.commerce.pay_support import DECLINED, KEY, SUCCEEDS, Api

pytest_plugins = ("tests.commerce.pay_fixtures",)

SECRET, OLD_SECRET = "whsec_new", "whsec_old"
NOW_MS = 1_700_000_000_000


@pytest.fixture
async def stripe(api: Api) -> AsyncIterator[StripeProvider]:
    provider = StripeProvider(KEY, [SECRET, OLD_SECRET], api_base=api.url, retries=0)
    yield provider
    await provider.close()


def request(**changes: object) -> SessionRequest:
    now = time.time_ns() // 1_000_000
    made = SessionRequest(
        key="key-1",
        payment="pay-1",
        rid="rid-1",
        lines=(HeldLine("A", "Mug & co. 杯", 2, 1250), HeldLine("B", "", 1, 99)),
        shipping=401,
        shipping_label="Shipping",
        amount=3000,
        currency="USD",
        expires_at_ms=now + 45 * 60_000,
        success_url="https://shop.example/done?rid=1",
        cancel_url="https://shop.example/back",
        about={"rid": "rid-1", "payment": "pay-1"},
    )
    return replace(made, **changes)  # type: ignore[arg-type]


async def test_a_session_says_what_was_asked_for(stripe: StripeProvider, api: Api) -> None:
    seen = await stripe.create_session(request())
    assert (seen.payment, seen.rid, seen.amount, seen.currency) == ("pay-1", "rid-1", 3000, "USD")
    assert (seen.session_status, seen.intent, seen.captured) == ("open", None, 0)
    page = (await api.http.get(seen.url)).text
    assert "Mug &amp; co. 杯 × 2" in page
    assert "$30.00" in page
    assert seen == await stripe.look(seen.session or "")


async def test_the_same_key_is_the_same_session_and_another_request_is_refused(
    stripe: StripeProvider,
) -> None:
    wanted = request()
    first = await stripe.create_session(wanted)
    assert first == await stripe.create_session(wanted)
    with pytest.raises(ProviderRefused) as refused:
        await stripe.create_session(replace(wanted, success_url="https://shop.example/other"))
    assert refused.value.code == "idempotency_error"


async def test_stripes_thirty_minutes_are_refused(stripe: StripeProvider) -> None:
    soon = time.time_ns() // 1_000_000 + 29 * 60_000
    with pytest.raises(ProviderRefused):
        await stripe.create_session(request(expires_at_ms=soon))


async def test_authorise_capture_and_what_comes_after_is_refused(
    stripe: StripeProvider, api: Api
) -> None:
    session = await stripe.create_session(request())
    await api.press(session.url, card=SUCCEEDS)
    seen = await stripe.look(session.session or "")
    assert seen is not None
    assert judge(seen, 3000, "USD") is Meaning.AUTHORISED
    assert seen.intent is not None
    by_intent = await stripe.look(seen.intent)
    assert by_intent is not None
    assert by_intent.payment == "pay-1"
    with pytest.raises(ProviderRefused):
        await stripe.expire_session(session.session or "", "key-2")

    taken = await stripe.capture(seen.intent, 3000, "USD", "key-3")
    assert (taken.intent_status, taken.captured) == ("succeeded", 3000)
    assert taken == await stripe.capture(seen.intent, 3000, "USD", "key-3")
    for refused in (
        stripe.capture(seen.intent, 3000, "USD", "key-4"),
        stripe.cancel(seen.intent, "key-5"),
    ):
        with pytest.raises(ProviderRefused) as why:
            await refused
        assert why.value.code == "payment_intent_unexpected_state"


async def test_cancel_lets_the_money_go(stripe: StripeProvider, api: Api) -> None:
    session = await stripe.create_session(request())
    await api.press(session.url, card=SUCCEEDS)
    seen = await stripe.look(session.session or "")
    assert seen is not None
    gone = await stripe.cancel(seen.intent or "", "key-2")
    assert gone.intent_status == "canceled"
    after = await stripe.look(session.session or "")
    assert after is not None
    assert judge(after, 3000, "USD") is Meaning.DEAD
    with pytest.raises(ProviderRefused):
        await stripe.capture(seen.intent or "", 3000, "USD", "key-3")


async def test_expire_ends_the_page_and_the_intent_of_an_open_session_is_ended_by_it_only(
    stripe: StripeProvider, api: Api
) -> None:
    session = await stripe.create_session(request())
    await api.press(session.url, card=DECLINED)
    seen = await stripe.look(session.session or "")
    assert seen is not None
    assert judge(seen, 3000, "USD") is Meaning.DECLINED
    with pytest.raises(ProviderRefused):
        await stripe.cancel(seen.intent or "", "key-2")
    ended = await stripe.expire_session(session.session or "", "key-3")
    assert judge(ended, 3000, "USD") is Meaning.DEAD
    with pytest.raises(ProviderRefused):
        await stripe.expire_session(session.session or "", "key-4")


async def test_a_session_is_found_by_our_payment_when_the_answer_was_lost(
    stripe: StripeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payments_stripe, "PAGE", 1)
    now = time.time_ns() // 1_000_000
    for n in range(3):
        await stripe.create_session(request(key=f"k{n}", payment=f"pay-{n}"))
    found = await stripe.find_session("pay-1", now, now + 60_000)
    assert found is not None
    assert found.payment == "pay-1"
    assert await stripe.find_session("pay-9", now, now + 60_000) is None


async def test_what_was_made_long_after_a_payment_is_not_read_to_find_its_session(
    stripe: StripeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a busy shop thousands follow, and their number decided once that it was never found."""
    monkeypatch.setattr(payments_stripe, "PAGE", 1)
    monkeypatch.setattr(payments_stripe, "FIND_PAGES_MAX", 1)
    now = time.time_ns() // 1_000_000
    for n in range(3):
        await stripe.create_session(request(key=f"k{n}", payment=f"pay-{n}"))
    with pytest.raises(Unavailable):
        await stripe.find_session("pay-0", now - 300_000, now)
    assert await stripe.find_session("pay-0", now - 300_000, now - 120_000) is None


async def test_unknown_objects_are_none(stripe: StripeProvider) -> None:
    assert await stripe.look("cs_test_nothing") is None
    assert await stripe.look("pi_nothing") is None
    assert await stripe.look("ch_other") is None


async def test_events_are_listed_oldest_first(stripe: StripeProvider, api: Api) -> None:
    session = await stripe.create_session(request())
    await api.press(session.url, card=SUCCEEDS)
    events = await stripe.list_events(0, 100)
    assert [event.kind for event in events] == [
        "payment_intent.created",
        "charge.succeeded",
        "payment_intent.amount_capturable_updated",
        "checkout.session.completed",
    ]
    assert [event.about_payment for event in events] == [True, False, True, True]
    assert list(await stripe.list_events(0, 2)) == list(events[-2:])
    assert await stripe.list_events(time.time_ns() // 1_000_000 + 60_000, 100) == []


async def test_a_provider_that_does_not_answer_is_unavailable(api: Api) -> None:
    wrong_key = StripeProvider("sk_test_wrong", [], api_base=api.url, retries=0)
    nobody = StripeProvider(KEY, [], api_base="http://127.0.0.1:9", retries=0, timeout_s=1)
    slow = StripeProvider(KEY, [], api_base=api.url, retries=0, timeout_s=0.2)
    await api.arm("delay", ms=600)
    for provider in (slow, wrong_key, nobody):
        with pytest.raises(Unavailable):
            await provider.look("cs_test_1")
        await provider.close()


async def test_the_sdk_repeats_a_500_with_the_same_key(api: Api) -> None:
    patient = StripeProvider(KEY, [], api_base=api.url, retries=2)
    await api.arm("error_before", match="POST /v1/checkout/sessions", times=1)
    seen = await patient.create_session(request())
    await patient.close()
    assert seen.session_status == "open"
    assert len((await api.get("/v1/checkout/sessions"))["data"]) == 1


def test_currencies_are_counted_as_stripe_counts_them() -> None:
    assert to_provider(1000, "JPY") == 1000
    assert to_provider(1000, "ISK") == 100_000
    assert from_provider(100_000, "ISK") == 1000
    assert from_provider(100_050, "UGX") == -1
    assert from_provider(999, "USD") == 999


# Signatures


def signed(body: bytes, secret: str, at_s: int, *, scheme: str = "v1") -> str:
    """Written out by hand, so that it is not the code under test that signs."""
    mac = hmac.new(secret.encode(), str(at_s).encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"t={at_s},{scheme}={mac}"


BODY = json.dumps(
    {
        "id": "evt_1",
        "object": "event",
        "type": "checkout.session.completed",
        "created": NOW_MS // 1000,
        "data": {"object": {"id": "cs_test_1", "object": "checkout.session"}},
    }
).encode()
AT_S = NOW_MS // 1000


def offline() -> StripeProvider:
    return StripeProvider(KEY, [SECRET, OLD_SECRET], api_base="http://127.0.0.1:9", retries=0)


@pytest.mark.parametrize(
    "header",
    [
        signed(BODY, SECRET, AT_S),
        signed(BODY, OLD_SECRET, AT_S),
        signed(BODY, SECRET, AT_S - 300),
        signed(BODY, SECRET, AT_S + 300),
        signed(BODY, "whsec_third", AT_S) + "," + signed(BODY, SECRET, AT_S).split(",")[1],
        signed(BODY, SECRET, AT_S) + ",v0=abc",
    ],
)
async def test_a_right_signature_is_accepted(header: str) -> None:
    provider = offline()
    event = provider.verify(BODY, header, NOW_MS)
    await provider.close()
    assert (event.id, event.object_id, event.created_ms) == ("evt_1", "cs_test_1", NOW_MS)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "t=,v1=",
        "t=1",
        "v1=abc",
        "garbage",
        "t=x,v1=abc",
        "t=1,v1=é",
        "t=" + "9" * 5000 + ",v1=abc",
        "t=" + "9" * 100 + ",v1=abc",
        signed(BODY, "whsec_third", AT_S),
        signed(BODY, SECRET, AT_S, scheme="v0"),
        signed(BODY, SECRET, AT_S - 301),
        signed(BODY, SECRET, AT_S + 301),
        signed(BODY + b" ", SECRET, AT_S),
        signed(BODY, SECRET, AT_S - 1).replace(f"t={AT_S - 1}", f"t={AT_S}"),
    ],
)
async def test_a_wrong_signature_is_refused(header: str) -> None:
    provider = offline()
    with pytest.raises(BadSignature):
        provider.verify(BODY, header, NOW_MS)
    await provider.close()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'{"id": 1}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"id":"e","type":"t","created":"x","data":{"object":{"id":"cs"}}}',
        b'{"id":"e","type":"t","created":1,"data":{"object":[]}}',
        b"x" * 300_000,
    ],
)
async def test_a_signed_body_that_is_no_event_is_refused(body: bytes) -> None:
    provider = offline()
    with pytest.raises(BadSignature):
        provider.verify(body, signed(body, SECRET, AT_S), NOW_MS)
    await provider.close()


async def test_without_a_secret_nothing_is_accepted() -> None:
    provider = StripeProvider(KEY, ["", ""], api_base="http://127.0.0.1:9")
    with pytest.raises(BadSignature):
        provider.verify(BODY, signed(BODY, "", AT_S), NOW_MS)
    await provider.close()


async def test_stripes_own_webhook_bodies_are_understood(shared_data: Path) -> None:
    provider = offline()
    files = sorted((shared_data / "payments" / "webhooks").glob("*.json"))
    assert files
    for file in files:
        body = file.read_bytes()
        event = provider.verify(body, signed(body, SECRET, AT_S), NOW_MS)
        assert event.kind == json.loads(body)["type"]
        ours = ("checkout.", "payment_intent.", "refund.", "charge.refund", "charge.dispute.")
        assert event.about_payment == (event.kind.startswith(ours) and bool(event.object_id))
    await provider.close()
