"""The API does what `/openapi.json` says: schemathesis drives the whole program with it.

Hosts' and guests' operations alike, with data that fits the document and data that does not. Wrong
data must be refused with a documented problem, right data answered as described, and nothing may be
a server error.
"""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.program import Program

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
DEADLINE_S = 300


@pytest.mark.slow
@pytest.mark.timeout(DEADLINE_S + 60)
def test_the_api_keeps_its_own_description(tmp_path: Path, database_url: str) -> None:
    with Program(tmp_path / "data", environment={"LIVE_DATABASE_URL": database_url}) as program:
        link = program.host_link.partition("link=")[2]
        signed_in = httpx.post(f"{program.url}/api/v1/sessions", json={"link": link})
        token = signed_in.json()["token"]
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
                "examples,coverage,fuzzing",
                "--no-color",
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-12_000:] + done.stderr[-2_000:]
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
