"""The shop's other systems hear what happens, over HTTP, from a running node."""

import json
from typing import Any

import pytest
from standardwebhooks import Webhook

from commerce.orders import OrderState
from commerce.webhooks import TYPES
from live.api_webhooks import allowed
from live.shows import ShowState
from live.webhooks import body_of
from loadtests.refused import Refused
from tests.commerce.receiver import receiving
from tests.live.conftest import Node
from tests.live.test_commands import CSV
from tests.waiting import until

HOOKS = "/api/v1/webhooks"


async def test_a_show_and_its_stock_are_told_and_what_fails_can_be_sent_again(node: Node) -> None:
    async with receiving() as receiver, node.api(node.host_token) as api:
        made = await api.call("POST", HOOKS, {"url": receiver.url})
        secret = (await api.get(f"{HOOKS}/{made['id']}/secret"))["secret"]
        await api.call("POST", f"{HOOKS}/{made['id']}/test")
        await until(lambda: len(receiver.bodies) == 1)
        await api.send_csv("/api/v1/imports?currency=EUR", CSV)
        show = (await api.call("POST", "/api/v1/shows", {"title": "Told"}))["id"]
        async with node.host(show) as host:
            await host.take_console()
            await host.act("go_live")
            await host.act("adjust_stock", sku="MUG-S", delta=4)
            await host.act("end")

        def heard(type_: str) -> list[Any]:
            verified = [Webhook(secret).verify(body, head) for head, body in receiver.requests]
            return [event["data"] for event in verified if event["type"] == type_]

        await until(lambda: len(heard("show.live")) == len(heard("show.ended")) == 1)
        await until(lambda: any(row["on_hand"] == 7 for row in heard("stock.changed")))
        assert len(heard("webhook.test")) == 1
        shows = [head["webhook-id"] for head, body in receiver.requests if '"show.' in body]
        assert len(shows) == 2
        (listed,) = (await api.get(HOOKS))["endpoints"]
        assert (listed["dead"], listed["stopped"]) == (0, None)

        before = len(receiver.bodies)
        sent = (await api.get(f"{HOOKS}/{made['id']}/deliveries?limit=1"))["deliveries"][0]
        again = await api.call("POST", f"{HOOKS}/{made['id']}/deliveries/{sent['event']}/replay")
        assert again == {"replayed": 1}
        await until(lambda: len(receiver.bodies) == before + 1)
        assert receiver.requests[-1][0]["webhook-id"] == sent["id"]

        await api.call("PATCH", f"{HOOKS}/{made['id']}", {"paused": True})
        await api.call("POST", f"{HOOKS}/{made['id']}/test")
        (listed,) = (await api.get(HOOKS))["endpoints"]
        assert (listed["stopped"], listed["pending"]) == ("paused", 1)
        await api.call("DELETE", f"{HOOKS}/{made['id']}")
        assert (await api.get(HOOKS))["endpoints"] == []


async def test_only_hosts_have_webhooks_and_wrong_ones_are_refused(node: Node) -> None:
    async with node.api(node.token()) as viewer, node.api(node.host_token) as api:
        with pytest.raises(Refused, match="forbidden"):
            await viewer.get(HOOKS)
        for body, code in (
            ({"url": "http://shop.example.com/hook"}, "bad_webhook_url"),
            ({"url": "https://shop.example.com/hook", "types": ["order.lost"]}, "bad_params"),
        ):
            with pytest.raises(Refused) as refused:
                await api.call("POST", HOOKS, body)
            assert refused.value.code == code
        for method, path in (
            ("PATCH", "/nobody"),
            ("DELETE", "/nobody"),
            ("POST", "/nobody/test"),
            ("POST", "/nobody/replay"),
            ("GET", "/nobody/secret"),
            ("GET", "/nobody/deliveries"),
        ):
            with pytest.raises(Refused) as refused:
                await api.call(method, HOOKS + path, {} if method == "PATCH" else None)
            assert refused.value.code == "unknown_webhook"


@pytest.mark.parametrize(
    ("url", "may"),
    [
        ("https://erp.example.com/hook?shop=1", True),
        ("https://93.184.216.34/hook", True),
        ("http://127.0.0.1:9000/hook", True),
        ("http://[::1]:9000/hook", True),
        ("http://192.168.1.20/hook", True),
        ("http://erp/hook", True),
        ("http://erp.internal/hook", True),
        ("http://erp.example.com/hook", False),
        ("http://93.184.216.34/hook", False),
        ("http://169.254.169.254/latest/meta-data", False),
        ("https://169.254.169.254/latest/meta-data", False),
        ("https://[::ffff:169.254.169.254]/", False),
        ("https://0.0.0.0/", False),
        ("https://user:secret@erp.example.com/", False),
        ("https://erp.example.com/#part", False),
        ("https://erp.example.com:99999/", False),
        ("https:///hook", False),
        ("ftp://erp.example.com/", False),
        ("https://erp.example.com/a b", False),
        ("https://erp.example.com/\n", False),
    ],
)
def test_events_go_to_https_or_into_the_shops_own_network(url: str, may: bool) -> None:
    assert allowed(url) is may


def test_every_state_that_is_told_exists() -> None:
    known = {f"order.{state}" for state in OrderState} | {f"show.{state}" for state in ShowState}
    assert {one for one in TYPES if one != "stock.changed"} <= known
    assert json.loads(body_of("show.live", 0, {}))["timestamp"] == "1970-01-01T00:00:00.000Z"
