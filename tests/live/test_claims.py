"""Claims as viewers and hosts meet them: receipts, the export, the check, the rule."""

import asyncio
import csv
import io
import json
import os
import sys
from collections.abc import AsyncIterator

import httpx
import pytest

from commerce.claims import Claim, Kind
from commerce.claims_sql import SqlClaims
from commerce.database_sql import Database
from live.audit import CSV_COLUMNS, Audit, human
from live.migrate_sql import migrate
from live.settings import BadSettings, Settings
from loadtests.refused import Refused
from tests.live.conftest import Node
from tests.live.test_api import bearer, problem
from tests.live.test_commands import open_sale, rid
from tests.live.test_commands import show as show
from tests.program import ROOT
from tests.waiting import until


@pytest.fixture
async def http(node: Node) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=node.url, trust_env=False) as client:
        yield client


async def sold_out_sale(node: Node, show: str) -> tuple[str, list[int], list[int]]:
    """One unit, two viewers: the drop and both receipts."""
    async with node.host(show) as host:
        await host.take_console()
        await host.act("go_live")
        drop = await open_sale(host, lines=[{"sku": "MUG-S", "units": 1}], hold_s=60)
    async with node.viewer(show) as ada, node.viewer(show, "g_bob", "Bob") as bob:
        hold = await ada.buy(drop, [("MUG-S", 1)], rid=rid(1))
        assert hold["lapses"] == 0
        with pytest.raises(Refused) as refused:
            await bob.buy(drop, [("MUG-S", 1)], rid=rid(2), retry=True)  # past the flag
        assert refused.value.code == "sold_out"
        with pytest.raises(Refused) as flagged:
            await bob.buy(drop, [("MUG-S", 1)], rid=rid(3))
        assert "receipt" not in flagged.value.details
        return drop, hold["receipt"], refused.value.details["receipt"]


async def test_winner_and_loser_get_a_receipt_and_find_it_again(
    node: Node, show: str, http: httpx.AsyncClient
) -> None:
    drop, won, lost = await sold_out_sale(node, show)
    assert won[0] == lost[0]
    assert won[1] < lost[1]
    ada, bob = bearer(node.token()), bearer(node.token(id_="g_bob", name="Bob"))

    async def stored() -> bool:
        return (await http.get(f"/api/v1/claims/{rid(2)}", headers=bob)).status_code == 200

    await until(stored)
    theirs = (await http.get(f"/api/v1/claims/{rid(2)}", headers=bob)).json()["claims"]
    assert [claim["what"] for claim in theirs] == ["sold_out"]
    assert theirs[0]["receipt"] == lost
    assert theirs[0]["text"] == human(*lost)
    assert 0 < theirs[0]["pressed_at"] <= theirs[0]["decided_at"]
    mine = (await http.get(f"/api/v1/claims/{rid(1)}", headers=ada)).json()["claims"]
    assert [(claim["what"], claim["state"], claim["receipt"]) for claim in mine] == [
        ("won", "held", won)
    ]
    stranger = await http.get(f"/api/v1/claims/{rid(1)}", headers=bob)
    problem(stranger, 404, "unknown_claim")
    problem(await http.get(f"/api/v1/drops/{drop}/claims", headers=ada), 403, "forbidden")


async def test_a_host_exports_and_checks_the_order(
    node: Node, show: str, http: httpx.AsyncClient
) -> None:
    drop, won, lost = await sold_out_sale(node, show)
    host, base = bearer(node.host_token), f"/api/v1/drops/{drop}/claims"

    async def complete() -> bool:
        page = (await http.get(base, headers=host)).json()
        return page["flagged"] == 1 and len(page["claims"]) == 3

    await until(complete)
    first = (await http.get(base, headers=host, params={"limit": 2})).json()
    assert [claim["what"] for claim in first["claims"]] == ["loaded", "won"]
    second = (await http.get(base, headers=host, params={"after": first["next"]})).json()
    assert [claim["receipt"] for claim in second["claims"]] == [lost]
    assert second["next"] is None
    problem(await http.get(base, headers=host, params={"after": "x"}), 422, "bad_params")
    report = (await http.get(base + "/check", headers=host)).json()
    assert (report["ok"], report["winners"], report["refused"]) == (True, 1, 1)
    assert (report["missing"], report["flagged"], report["findings"]) == (0, 1, [])
    file = await http.get(base + ".csv", headers=host)
    assert file.headers["content-type"].startswith("text/csv")
    assert file.headers["content-disposition"] == 'attachment; filename="claims.csv"'
    rows = list(csv.DictReader(io.StringIO(file.text)))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert [row["what"] for row in rows] == ["loaded", "won", "sold_out", "flagged"]
    assert (rows[1]["claim"], rows[1]["became"]) == (human(*won), "held")
    assert rows[3]["claim"] == "and 1 more were told sold out by a node's flag"
    nowhere = await http.get("/api/v1/drops/nowhere/claims.csv", headers=host)
    problem(nowhere, 404, "unknown_drop")
    metrics = (await http.get("/metrics")).text
    assert "vitrine_claims_lost 0.0" in metrics
    assert "vitrine_claims_flagged 1.0" in metrics


async def test_the_command_line_prints_and_checks_beside_a_running_node(
    node: Node, show: str, sqlite_url: str
) -> None:
    drop, won, _lost = await sold_out_sale(node, show)
    await until(lambda: node.app.trade.claims.kept >= 3)
    printed = await _live(sqlite_url, "claims", drop)
    assert printed[0] == 0
    assert f"{human(*won)},{won[0]},{won[1]},won,held,g_ada,{rid(1)},1xMUG-S" in printed[1]
    code, text = await _live(sqlite_url, "claims", drop, "--check")
    report = json.loads(text)
    assert (code, report["ok"], report["winners"], report["missing"]) == (0, True, 1, 0)
    assert (await _live(sqlite_url, "claims", "nowhere"))[0] == 2


async def _live(database_url: str, *arguments: str) -> tuple[int, str]:
    """`python -m live …` on this database; status and output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "live", *arguments),
        env={**os.environ, "LIVE_DATABASE_URL": database_url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=ROOT,
    )
    output, _none = await process.communicate()
    return process.returncode or 0, output.decode()


async def test_the_rule_is_told_to_everybody_and_who_is_limited_to_the_host(
    node: Node, http: httpx.AsyncClient
) -> None:
    rule = (await http.get("/api/v1/hold-rule")).json()
    assert rule == {
        "window_ms": 86_400_000,
        "steps": [
            {"lapses": 2, "percent": 50, "holds": 2},
            {"lapses": 4, "percent": 25, "holds": 1},
        ],
    }
    host = bearer(node.host_token)
    limited = (await http.get("/api/v1/limited-viewers", headers=host)).json()
    assert limited == {"viewers": []}
    guest = await http.get("/api/v1/limited-viewers", headers=bearer(node.token()))
    problem(guest, 403, "forbidden")


async def test_the_export_has_no_formula_and_says_what_is_missing(sqlite_url: str) -> None:
    database = await Database.open(sqlite_url)
    try:
        await migrate(database)
        book = SqlClaims(database)
        pressed = Claim(
            *(3, 1, Kind.SOLD_OUT, 1_800_000_000_000, "d", "-cmd|x", "=viewer", (("+A", 1),)),
            sku="+A",
            pressed_at=1_799_999_999_990,
            node="node",
        )
        lost = Claim(3, 2, Kind.LOST, 1_800_000_000_001, number=7)
        await book.store([pressed, lost])

        class Known:
            async def left(self, _drop: str) -> object:
                return {"+A": 0}

        audit = Audit(book, Known(), Settings().hold_rule, lambda: 1_800_000_000_000)
        text = b"".join([chunk async for chunk in await audit.csv("d")]).decode()
        rows = list(csv.DictReader(io.StringIO(text)))
        assert (rows[0]["press"], rows[0]["viewer"], rows[0]["sku"]) == (
            "'-cmd|x",
            "'=viewer",
            "'+A",
        )
        assert rows[0]["pressed_at"] == "2027-01-15T07:59:59.990Z"
        assert (rows[1]["what"], rows[1]["number"]) == ("lost", "7")
    finally:
        await database.close()


def test_the_rule_is_a_setting() -> None:
    assert Settings.from_environ({"LIVE_HOLD_RULE": "off"}).hold_rule.steps == ()
    assert Settings.from_environ({"LIVE_HOLD_RULE": "1:10:1"}).hold_rule.steps[0].percent == 10
    with pytest.raises(BadSettings, match="LIVE_HOLD_RULE"):
        Settings.from_environ({"LIVE_HOLD_RULE": "5"})
