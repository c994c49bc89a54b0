"""`python -m live reconcile`: the books beside the provider's, without a running node."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.commerce.pay_support import KEY, Api

pytest_plugins = ("tests.commerce.pay_fixtures",)


def reconcile(data: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LIVE_")}
    return subprocess.run(
        [sys.executable, "-m", "live", "reconcile", "--json", "--data", str(data)],
        env={**kept, **variables},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


async def test_a_shop_without_sales_agrees_with_its_provider(tmp_path: Path, api: Api) -> None:
    done = reconcile(tmp_path, LIVE_STRIPE_KEY=KEY, LIVE_STRIPE_API=api.url)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert (report["charges"], report["differences"], report["faults"]) == (0, [], [])


def test_without_a_key_it_says_who_can_compare(tmp_path: Path) -> None:
    done = reconcile(tmp_path)
    assert done.returncode == 2
    assert "LIVE_STRIPE_KEY" in done.stderr
