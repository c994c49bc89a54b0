"""The whole program on a Valkey Cluster: two nodes, three masters, one of them killed and back."""

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from loadtests.__main__ import main
from loadtests.api import Api
from tests.program import Program
from tests.valkey_cluster import ValkeyCluster
from tests.waiting import until, until_sync

SECRET = "a cluster and two nodes, thirty-two characters"
GATE_KEY = "vitrine:{stock:shop}:cfg"


def house(folder: Path, cluster: ValkeyCluster, postgres_url: str, stripe_api: str = "") -> Program:
    environment = {
        "LIVE_VALKEY_URL": cluster.url,
        "LIVE_DATABASE_URL": postgres_url,
        "LIVE_SECRET": SECRET,
    }
    if stripe_api:
        environment["LIVE_STRIPE_API"] = stripe_api
    return Program(folder, environment=environment)


def ready(node: Program) -> bool:
    return httpx.get(f"{node.url}/readyz").status_code == 200


def gate_is_away(node: Program) -> bool:
    """Whether the node has just found out that its gate does not answer."""
    return "\nvitrine_gate_away 1.0\n" in httpx.get(f"{node.url}/metrics").text


async def signed_in(node: Program) -> str:
    await until(lambda: "#link=" in node.output)
    async with Api(node.url) as api:
        return await api.sign_in(node.host_link)


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.timeout(240)
def test_the_journey_passes_on_two_nodes_before_and_after_the_gates_master_was_killed(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    postgres_url: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def journey(one: Program, two: Program, token: str) -> None:
        where = ["--url", one.url, "--also", two.url, "--token", token, "--hold-s", "5"]
        code = main(["journey", "--json", *where])
        result = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert result["problems"] == []
        assert (code, result["oversold"], result["paid"]) == (0, 0, "paid")
        assert result["recovered"] is True

    with (
        ValkeyCluster(tmp_path_factory.mktemp("cluster")) as cluster,
        house(tmp_path / "one", cluster, postgres_url) as one,
        house(tmp_path / "two", cluster, postgres_url, sandbox_of(tmp_path / "one")) as two,
    ):
        token = asyncio.run(signed_in(one))
        journey(one, two, token)
        master = cluster.home(GATE_KEY)
        master.kill()
        until_sync(lambda: gate_is_away(one))
        until_sync(lambda: gate_is_away(two))
        master.start()
        cluster.wait_ok()
        until_sync(lambda: ready(one) and ready(two))
        until_sync(lambda: not gate_is_away(one) and not gate_is_away(two))
        journey(one, two, token)


def sandbox_of(folder: Path) -> str:
    """The payment sandbox that the first node started; the second one uses the same."""
    return f"http://127.0.0.1:{(folder / 'sandbox' / 'port').read_text().strip()}"
