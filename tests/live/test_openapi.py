"""The API does what `/openapi.json` says: schemathesis drives the whole program with it.

Hosts' and guests' operations alike, with data that fits the document and data that does not. Wrong
data must be refused with a documented problem, right data answered as described, and nothing may be
a server error.

The shop has something in it, and half of the time the tester names it: an API of which one only
ever asks for what is not there answers 404 and shows nothing.
"""

import asyncio
import json
import random
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from loadtests.api import Api
from loadtests.client import new_rid
from loadtests.journey import DELIVERY
from loadtests.shopper import Shopper, wall_ms
from loadtests.stage import Stage
from tests.program import Program
from tests.waiting import until

EXAMPLES = 5
SEED = 20261122
CHECKS = ",".join(
    (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "negative_data_rejection",
        "ignored_auth",
        "unsupported_method",
    )
)
WORKERS = 2
"""Threads of the tester: while one waits for an answer the other makes its next case."""
REQUEST_TIMEOUT_S = 120
DEADLINE_S = 900
"""Some 2,900 cases: about 50 s of CPU, most of it the tester's own."""


UNITS = 20
ORDERS = 3
KNOWN_SHARE = 0.5
"""Of the ids in paths and queries; the others are made up."""


async def paid_order(api: Api, buyer: str, rid: str) -> str:
    """Pays for a hold at the provider's page; the id of its order."""
    path = f"/api/v1/holds/{rid}/payment"
    page = await api.call("POST", path, DELIVERY, token=buyer, key=f"pay-{rid}")
    await api.press(await api.payment_form(page["url"]))
    found: list[str] = []

    async def paid() -> bool:
        orders = (await api.get("/api/v1/orders", token=buyer))["orders"]
        found[:] = [one["id"] for one in orders if (one["rid"], one["state"]) == (rid, "paid")]
        return bool(found)

    await until(paid, DEADLINE_S)
    return found[0]


async def furnish(url: str, token: str) -> dict[str, list[str]]:
    """A shop in use: a show with a sale, paid orders, a hold, a parcel, wishes, a webhook.

    What is there, by the names that the API has for it in its paths.
    """
    async with Api(url, token) as api:
        stage = Stage(api, UNITS)
        rids = [new_rid(wall_ms(), random.Random()) for _ in range(ORDERS + 1)]
        orders: list[str] = []
        ids = {}
        async with stage.on_air(hold_s=3600):
            buyer = await api.guest("Ada")
            async with Shopper(url, stage.show, buyer) as viewer:
                for rid in rids[:-1]:  # one after the other: unpaid ones are limited
                    await viewer.buy(stage.drop, [(stage.sku, 2)], rid=rid)
                    orders.append(await paid_order(api, buyer, rid))
                await viewer.buy(stage.drop, [(stage.sku, 2)], rid=rids[-1])
            one_unit = {"units": [{"position": 0, "quantity": 1}]}
            for name, what, body in (
                ("shipment", "shipments", one_unit | {"carrier": "DHL", "tracking": "JD1"}),
                ("return", "returns", one_unit | {"reason": "too small"}),
                ("refund", "refunds", {"amount": 100, "reason": "a scratch"}),
            ):
                done = await api.call("POST", f"/api/v1/orders/{orders[0]}/{what}", body, key=name)
                ids[name] = [one["id"] for one in done[what]]
        hook = {"url": "http://127.0.0.1:9/hook", "types": []}
        endpoint = await api.call("POST", "/api/v1/webhooks", hook, key="hook")
        mine = await api.get("/api/v1/me")
    return {
        "show": [stage.show],
        "drop": [stage.drop],
        "sku": [stage.sku],
        "product": [stage.product],
        "order": orders,
        "rid": rids,
        "endpoint": [endpoint["id"]],
        "person": [mine["id"]],
        "viewer": [mine["id"]],
        **ids,
    }


def config_of(known: dict[str, list[str]]) -> str:
    """The tester's configuration (TOML): which names to use where."""
    lines = []
    for name, values in known.items():
        lines += [f"[dictionaries.{name}]", f"values = {json.dumps(values)}"]
    lines.append("[parameters]")
    use = f"probability = {KNOWN_SHARE}"
    lines += [f'{name} = {{ dictionary = "{name}", {use} }}' for name in known]
    return "\n".join(lines)


@pytest.mark.slow
@pytest.mark.timeout(2 * DEADLINE_S)
def test_the_api_keeps_its_own_description(tmp_path: Path, database_url: str) -> None:
    with Program(tmp_path / "data", environment={"LIVE_DATABASE_URL": database_url}) as program:
        link = program.host_link.partition("link=")[2]
        signed_in = httpx.post(f"{program.url}/api/v1/sessions", json={"link": link})
        token = signed_in.json()["token"]
        known = asyncio.run(furnish(program.url, token))
        (tmp_path / "schemathesis.toml").write_text(config_of(known))
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "schemathesis.cli",
                "run",
                f"{program.url}/openapi.json",
                "--checks",
                CHECKS,
                "--max-examples",
                str(EXAMPLES),
                "--seed",
                str(SEED),
                "--header",
                f"Authorization: Bearer {token}",
                "--phases",
                "coverage,fuzzing",
                "--request-timeout",
                str(REQUEST_TIMEOUT_S),
                "--workers",
                str(WORKERS),
                "--no-color",
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-12_000:] + done.stderr[-2_000:]
        described = httpx.get(f"{program.url}/openapi.json").json()["paths"].values()
        assert f"Tested: {sum(map(len, described))}\n" in done.stdout  # none was left out
        assert httpx.get(f"{program.url}/readyz").status_code == 200


def test_every_operation_is_described_with_its_refusals(tmp_path: Path) -> None:
    with Program(tmp_path / "data") as program:
        document = httpx.get(f"{program.url}/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (method, path)
            assert set(operation["responses"]) & {"200", "201", "204"}, (method, path)
            if operation.get("security"):
                assert "401" in operation["responses"], (method, path)
