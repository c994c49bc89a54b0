"""The doctor on real engines, sound and spoiled, and each verdict with its advice."""

import json
import socket
import sys
import time
from dataclasses import asdict, replace
from functools import partial

import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from commerce.database_sql import Database
from live import doctor_redis, doctor_sql
from live.crash import CrashAt
from live.doctor import (
    Finding,
    ProbeFailed,
    SqlFacts,
    Timing,
    ValkeyFacts,
    as_text,
    examine,
    judge_masters,
    judge_sql,
    judge_valkey,
    worst,
)
from live.doctor_machine import (
    judge_files,
    judge_folder,
    judge_machine,
    judge_packages,
    judge_python,
    judge_settings,
    judge_space,
)
from live.engines import EmbeddedValkey, find_valkey
from tests.valkey_cluster import ValkeyCluster
from tests.waiting import until

QUICK = Timing(0.1, 0.5, 3)
VALKEY = ValkeyFacts(
    server="Valkey",
    version=(9, 1, 2),
    role="master",
    timing=QUICK,
    cluster=False,
    cluster_ok=False,
    append_only=True,
    append_ok=True,
    append_sync="everysec",
    eviction="noeviction",
    memory_used=1 << 20,
    memory_max=0,
)
SQLITE = SqlFacts(
    "sqlite",
    exists=True,
    version=(3, 40, 1),
    timing=QUICK,
    settings=(("journal_mode", "wal"), ("synchronous", "2"), ("foreign_keys", "1")),
    revision="0001",
)
POSTGRES = SqlFacts(
    "postgresql",
    exists=True,
    version=(18, 6),
    timing=QUICK,
    settings=(
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("synchronous_commit", "on"),
        ("max_connections", "100"),
    ),
    revision="0001",
)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def low_port() -> int:
    """A free port below 55536: a cluster's bus listens 10,000 above it."""
    while True:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
            if port < 55_536:
                return port


def levels(findings: list[Finding]) -> dict[str, str]:
    return {finding.name: finding.level for finding in findings}


def sound(findings: list[Finding]) -> bool:
    """Everything is ok or says what to do, never both."""
    assert all((finding.level == "ok") == (finding.advice == "") for finding in findings)
    return worst(findings) == "ok"


def sound_if_slow(findings: list[Finding]) -> bool:
    """The same for engines on a busy test machine, whose delay says nothing."""
    return sound([finding for finding in findings if not finding.name.endswith("delay")])


async def test_the_embedded_valkey_is_found_sound(valkey_url):
    facts = await doctor_redis.probe(valkey_url, clock=now_ms)
    assert (facts.server, facts.role, facts.append_sync) == ("Valkey", "master", "everysec")
    assert abs(facts.timing.skew_ms) < 400
    assert sound_if_slow(judge_valkey(facts))


async def test_a_spoiled_valkey_is_found_out(private_valkey):
    url = await private_valkey.start()
    async with Redis.from_url(url) as client:
        await client.config_set("maxmemory-policy", "allkeys-lru")
        await client.config_set("maxmemory", 100 << 20)
        await client.config_set("appendfsync", "no")
        found = levels(judge_valkey(await doctor_redis.probe(url, clock=now_ms)))
        assert found["valkey memory"] == "fail"
        assert found["valkey persistence"] == "warn"
        await client.config_set("appendonly", "no")
    findings = judge_valkey(await doctor_redis.probe(url, clock=now_ms))
    assert any("empties the rooms" in finding.advice for finding in findings)


async def test_a_clock_that_differs_is_measured(valkey_url):
    for ahead_ms, level in ((-2_000, "warn"), (60_000, "fail")):
        facts = await doctor_redis.probe(valkey_url, clock=lambda a=ahead_ms: now_ms() - a)
        assert facts.timing.skew_ms == pytest.approx(ahead_ms, abs=400)
        assert levels(judge_valkey(facts))["valkey clock"] == level


async def test_a_cluster_with_unserved_slots_is_found_out(private_valkey, tmp_path):
    port = low_port()
    engine = EmbeddedValkey(
        private_valkey._folder,
        find_valkey(),
        extra=[*("--port", str(port), "--bind", "127.0.0.1"), *("--cluster-enabled", "yes")],
    )
    url = await engine.start()
    try:
        facts = await doctor_redis.probe(url, clock=now_ms)
        assert levels(judge_valkey(facts))["valkey cluster"] == "fail"
        async with Redis.from_url(url) as client:
            await client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)

            async def served() -> bool:
                return (await client.execute_command("CLUSTER INFO"))["cluster_state"] == "ok"

            await until(served)
        assert sound_if_slow(judge_valkey(await doctor_redis.probe(url, clock=now_ms)))
    finally:
        await engine.stop()


async def test_every_master_of_a_cluster_is_asked_and_named_by_its_address(tmp_path_factory):
    with ValkeyCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        addresses = [f"127.0.0.1:{master.port}" for master in cluster.masters]
        for url in (cluster.url, f"redis://{addresses[1]}"):  # a plain address finds the others
            answers = await doctor_redis.probe_all(url, clock=now_ms)
            assert sorted(answers) == sorted(addresses)
        found = {finding.name: finding for finding in judge_masters(answers)}
        assert sound_if_slow([*found.values()])
        assert found["valkey persistence"].found.startswith("3 of 3: ")

        cluster.masters[1].ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        cluster.masters[2].kill()
        answers = await doctor_redis.probe_all(cluster.url, clock=now_ms)
        bad = [finding for finding in judge_masters(answers) if finding.level != "ok"]
        named = {finding.name: finding.found.split(": ")[0] for finding in bad}
        assert named["valkey memory"] == addresses[1]
        assert named["valkey master"] == addresses[2]


async def test_a_cluster_is_asked_at_the_first_of_its_nodes_that_answers(tmp_path_factory):
    with ValkeyCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        url = cluster.url.replace("://", "://127.0.0.1:1,")
        answers = await doctor_redis.probe_all(url, clock=now_ms)
        assert len(answers) == len(cluster.masters)
    with pytest.raises(ProbeFailed, match="no node of the cluster"):
        await doctor_redis.probe_all(url, clock=now_ms)


@pytest.mark.parametrize("url", ["unix:///nowhere/valkey.sock", "redis://127.0.0.1:1", "x://y"])
async def test_a_valkey_that_is_away_is_a_finding_not_a_traceback(url):
    with pytest.raises(ProbeFailed):
        await doctor_redis.probe_all(url, clock=now_ms)


async def test_both_databases_are_asked_what_the_program_depends_on(database_url):
    database = await Database.open(database_url)
    async with database.begin() as conn:
        await conn.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
        await conn.execute(text("INSERT INTO alembic_version VALUES ('0001')"))
    await database.close()
    facts = await doctor_sql.probe(database_url, clock=now_ms)
    assert facts.revision == "0001"
    assert facts.timing is not None
    assert abs(facts.timing.skew_ms) < 400
    found = levels(judge_sql(facts, ["0001"]))
    del found["database delay"]  # a busy test machine's says nothing
    assert found["database schema"] == "ok"
    if facts.dialect == "postgresql":  # the test server runs without fsync, and that is seen
        assert found.pop("database durability") == "fail"
    assert set(found.values()) == {"ok"}


async def test_a_database_without_tables_and_one_that_is_not_there_yet_are_fine(database_url):
    for _ in range(2):  # looking does not make it
        facts = await doctor_sql.probe(database_url, clock=now_ms)
        assert facts.exists == (facts.dialect == "postgresql")
        assert facts.revision is None
    assert judge_sql(facts, ["0001"])[0].level == "ok"


@pytest.mark.parametrize(
    "url", ["postgresql://vitrine:hunter2@127.0.0.1:1/shop", "mysql://hunter2@h/d", "hunter2"]
)
async def test_a_database_that_is_away_is_reported_without_its_password(url):
    with pytest.raises(ProbeFailed) as raised:
        await doctor_sql.probe(url, clock=now_ms)
    assert "hunter2" not in str(raised.value)


async def test_the_report_goes_on_when_engines_are_away_and_says_what_to_do():
    findings = await examine(
        valkey=partial(doctor_redis.probe_all, "redis://127.0.0.1:1", clock=now_ms),
        sql=partial(doctor_sql.probe, "postgresql://127.0.0.1:1/x", clock=now_ms),
        revisions=["0001"],
        machine=[judge_python((3, 11, 7))],
    )
    assert levels(findings) == {"python": "ok", "valkey": "fail", "database": "fail"}
    assert "LIVE_VALKEY_URL" in as_text(findings)
    assert json.loads(json.dumps([asdict(finding) for finding in findings]))[1]["level"] == "fail"


@pytest.mark.parametrize(
    ("change", "name", "level"),
    [
        ({"version": (6, 2, 14)}, "valkey", "fail"),
        ({"role": "slave"}, "valkey role", "fail"),
        ({"cluster": True}, "valkey cluster", "fail"),
        ({"append_only": False}, "valkey persistence", "warn"),
        ({"append_ok": False}, "valkey persistence", "fail"),
        ({"append_sync": "no"}, "valkey persistence", "warn"),
        ({"eviction": None}, "valkey memory", "warn"),
        ({"eviction": "allkeys-lru"}, "valkey memory", "warn"),
        ({"eviction": "allkeys-lru", "memory_max": 1 << 30}, "valkey memory", "fail"),
        ({"memory_used": 90, "memory_max": 100}, "valkey memory", "warn"),
        ({"timing": Timing(9.0, 9.0, 0)}, "valkey delay", "warn"),
        ({"timing": Timing(0.1, 9.0, -501)}, "valkey clock", "warn"),
        ({"timing": Timing(0.1, 9.0, 5_001)}, "valkey clock", "fail"),
    ],
)
def test_each_fault_of_a_valkey_is_named(change, name, level):
    assert sound(judge_valkey(VALKEY))
    findings = judge_valkey(replace(VALKEY, **change))
    assert not sound(findings)
    assert {name: level} == {n: lv for n, lv in levels(findings).items() if lv != "ok"}


@pytest.mark.parametrize(
    ("facts", "name", "level"),
    [
        (replace(SQLITE, version=(3, 31, 0)), "database", "fail"),
        (replace(POSTGRES, version=(12, 4)), "database", "fail"),
        (replace(POSTGRES, replica=True), "database role", "fail"),
        (replace(SQLITE, revision="0002"), "database schema", "fail"),
        (replace(SQLITE, revision="0000"), "database schema", "warn"),
        (replace(SQLITE, settings=SQLITE.settings[:1]), "database durability", "fail"),
        (
            replace(SQLITE, settings=(("journal_mode", "delete"), *SQLITE.settings[1:])),
            "database durability",
            "fail",
        ),
        (
            replace(POSTGRES, settings=(*POSTGRES.settings, ("synchronous_commit", "off"))),
            "database durability",
            "fail",
        ),
        (
            replace(POSTGRES, settings=(*POSTGRES.settings, ("max_connections", "10"))),
            "database connections",
            "warn",
        ),
    ],
)
def test_each_fault_of_a_database_is_named(facts, name, level):
    known = ["0000", "0001"]
    assert sound(judge_sql(SQLITE, known))
    assert sound(judge_sql(POSTGRES, known))
    findings = judge_sql(facts, known)
    assert not sound(findings)
    assert {name: level} == {n: lv for n, lv in levels(findings).items() if lv != "ok"}


def test_this_machine_is_looked_at(tmp_path):
    found = levels(judge_machine(tmp_path))
    assert found["python"] == found["packages"] == "ok"
    assert set(found) >= {"open files", "disk space", "disk sync", "data folder"}
    assert list(tmp_path.iterdir()) == []


def test_each_fault_of_a_machine_is_named(tmp_path):
    assert judge_python((3, 10, 1)).level == "fail"
    assert [judge_files(n).level for n in (100, 1024, 65_536, sys.maxsize)] == [
        "fail",
        "warn",
        "ok",
        "ok",
    ]
    assert [judge_space(n << 20).level for n in (10, 1000, 9000)] == ["fail", "warn", "ok"]
    assert judge_packages(["pytest~=9.0", "python-multipart~=0.0.20"]).level == "ok"
    assert "no-such-package is missing" in judge_packages(["no-such-package~=1.0"]).found
    assert "instead of ==0.1" in judge_packages(["pytest==0.1"]).found
    assert judge_packages(["pytest~=8.1"]).level == judge_packages(["pytest~=9.99"]).level == "fail"
    assert levels(judge_folder(tmp_path / "none")) == {"data folder": "ok"}
    tmp_path.chmod(0o755)
    assert levels(judge_folder(tmp_path))["data folder"] == "warn"


@pytest.mark.parametrize(
    ("change", "name", "level"),
    [
        ({"host": "0.0.0.0"}, "public address", "warn"),
        ({"public_url": "http://shop.example"}, "public address", "fail"),
        ({"origins": ["*"]}, "origins", "fail"),
        ({"origins": ["https://shop.example/path"]}, "origins", "fail"),
        ({"secret": b"short"}, "secret", "fail"),
        ({"provider_key": "sk_test_x"}, "payments", "fail"),
        ({"crash_at": CrashAt("reserve:after_gate", 1)}, "crash point", "fail"),
    ],
)
def test_each_fault_of_the_settings_is_named(change, name, level):
    fine = {"host": "127.0.0.1", "public_url": "", "origins": [], "secret": None}
    assert sound(judge_settings(**fine))
    found = levels(judge_settings(**{**fine, **change}))
    assert found[name] == level


def test_a_shop_in_the_open_is_told_that_the_sandbox_takes_no_money():
    public = {"host": "0.0.0.0", "public_url": "https://shop.example", "secret": "x" * 32}
    assert levels(judge_settings(**public, origins=["http://old.example"])) == {
        "public address": "ok",
        "origins": "warn",
        "secret": "ok",
        "payments": "warn",
    }
    paid = judge_settings(
        **public, origins=[], provider_key="sk_live_x", webhook_secrets=["whsec_x"]
    )
    assert sound(paid)
    assert "sk_live_x" not in as_text(paid)
