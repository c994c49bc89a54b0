"""Is this node fit to sell? Judges what the probes found and says what to do about it.

Responsible for the verdicts on the engines: which version, which setting, which delay is fit,
which is worrying and which is dangerous. It must not reach an engine: `doctor_redis` and
`doctor_sql` gather facts, so every verdict is a pure function that a test can ask. The facts about
this machine and its settings are in `doctor_machine`.

fail: stock, money or messages can be lost or wrong. warn: it works, less well or less safely than
it could. Each finding says what was seen, and unless it is fine, what to do.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

Level = Literal["ok", "warn", "fail"]
Version = tuple[int, ...]

SKEW_WARN_MS: Final = 500
"""Countdowns and holds show whole seconds; half of one is where viewers begin to see it."""
SKEW_FAIL_MS: Final = 5_000
VALKEY_LATENCY_WARN_MS: Final = 2.0
"""Median round trip. A press of Buy waits for one; in one data centre it takes 0.5 ms."""
SQL_LATENCY_WARN_MS: Final = 5.0
MEMORY_WARN_SHARE: Final = 0.8
VALKEY_MIN: Final[Version] = (7, 0)
"""Sharded pub/sub came with 7.0 (both servers)."""
SQLITE_MIN: Final[Version] = (3, 35)
"""RETURNING came with 3.35."""
POSTGRES_MIN: Final[Version] = (14,)
POSTGRES_CONNECTIONS_MIN: Final = 20


class ProbeFailed(Exception):
    """The engine could not be asked; the text says why, without a password."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `advice` is empty when `level` is ok."""

    level: Level
    name: str
    found: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the engine takes (milliseconds) and how far its clock is ahead of ours."""

    median_ms: float
    worst_ms: float
    skew_ms: int


@dataclass(frozen=True, slots=True)
class ValkeyFacts:
    """What a Valkey or Redis says about itself; None where it would not say."""

    server: str
    version: Version
    role: str
    timing: Timing
    cluster: bool
    cluster_ok: bool
    append_only: bool
    append_ok: bool
    append_sync: str | None
    eviction: str | None
    memory_used: int
    memory_max: int | None


@dataclass(frozen=True, slots=True)
class SqlFacts:
    """What the database says about itself; `settings` holds the names the verdicts look up."""

    dialect: Literal["sqlite", "postgresql"]
    exists: bool
    version: Version = ()
    timing: Timing | None = None
    settings: tuple[tuple[str, str], ...] = ()
    revision: str | None = None
    replica: bool = False


Answers: TypeAlias = Mapping[str, ValkeyFacts | ProbeFailed]
"""By address: of each master of a cluster what it said or why it did not; of a single server one
answer under no address."""


async def examine(
    *,
    valkey: Callable[[], Awaitable[Answers]],
    sql: Callable[[], Awaitable[SqlFacts]],
    revisions: Sequence[str],
    machine: Sequence[Finding] = (),
) -> list[Finding]:
    """The whole report: the machine's findings first, then Valkey, then the database.

    `valkey` and `sql` are bound probes; `revisions` are the schema revisions this program knows,
    oldest first. Never raises for an engine that is away: that is a finding.
    """
    findings = list(machine)
    try:
        findings += judge_masters(await valkey())
    except ProbeFailed as error:
        findings.append(
            Finding("fail", "valkey", str(error), "Start it, or correct LIVE_VALKEY_URL.")
        )
    try:
        findings += judge_sql(await sql(), revisions)
    except ProbeFailed as error:
        findings.append(
            Finding("fail", "database", str(error), "Start it, or correct LIVE_DATABASE_URL.")
        )
    return findings


def worst(findings: Sequence[Finding]) -> Level:
    """The level of the whole report; ok when there is none."""
    levels = {finding.level for finding in findings}
    return "fail" if "fail" in levels else "warn" if "warn" in levels else "ok"


def as_text(findings: Sequence[Finding]) -> str:
    """The report for a person, one finding a line, advice indented below."""
    width = max((len(finding.name) for finding in findings), default=0)
    lines = []
    for finding in findings:
        lines.append(f"{finding.level:<4}  {finding.name:<{width}}  {finding.found}")
        if finding.advice:
            lines.append(f"      {'':<{width}}  → {finding.advice}")
    return "\n".join(lines)


def judge_masters(answers: Answers) -> list[Finding]:
    """Verdicts on every master. What is well is said once for all; what is not, by address."""
    if set(answers) == {""} and isinstance(alone := answers[""], ValkeyFacts):
        return judge_valkey(alone)
    findings = [Finding("ok", "valkey masters", ", ".join(answers))]
    sound: dict[str, list[Finding]] = {}
    for address, answer in answers.items():
        if isinstance(answer, ProbeFailed):
            advice = (
                "Start it, or let its replica take over: its keys can be neither read nor sold."
            )
            findings.append(Finding("fail", "valkey master", f"{address}: {answer}", advice))
            continue
        for found in judge_valkey(answer):
            if found.level == "ok":
                sound.setdefault(found.name, []).append(found)
            else:
                findings.append(replace(found, found=f"{address}: {found.found}"))
    return findings + [
        replace(every[0], found=f"{len(every)} of {len(answers)}: {_each(every)}")
        for every in sound.values()
    ]


def _each(findings: Sequence[Finding]) -> str:
    """What they say, without repeating it."""
    return "; ".join(dict.fromkeys(finding.found for finding in findings))


def judge_valkey(facts: ValkeyFacts) -> list[Finding]:
    """Verdicts on the Valkey: version, role, persistence, eviction, cluster, delay and clock."""
    title = f"{facts.server} {_dotted(facts.version)}, {'cluster' if facts.cluster else 'single'}"
    findings = [
        Finding("ok", "valkey", title)
        if facts.version >= VALKEY_MIN
        else Finding("fail", "valkey", title, f"Use {_dotted(VALKEY_MIN)} or newer, best Valkey 9.")
    ]
    if facts.role != "master":
        findings.append(
            Finding("fail", "valkey role", facts.role, "Point LIVE_VALKEY_URL at the primary.")
        )
    if facts.cluster and not facts.cluster_ok:
        findings.append(
            Finding(
                "fail",
                "valkey cluster",
                "not every slot is served",
                "Bring back the missing node; keys in its slots can be neither read nor sold.",
            )
        )
    findings.append(_persistence(facts))
    findings.append(_eviction(facts))
    findings += _timing("valkey", facts.timing, VALKEY_LATENCY_WARN_MS)
    return findings


def _persistence(facts: ValkeyFacts) -> Finding:
    name = "valkey persistence"
    if not facts.append_only:
        return Finding(
            "warn",
            name,
            "appendonly no",
            "Set appendonly yes: a restart now empties the rooms (chat, counters); "
            "stock is rebuilt from the database.",
        )
    if not facts.append_ok:
        return Finding(
            "fail", name, "the last write to the append-only file failed", "Look at its disk."
        )
    found = f"appendonly yes, appendfsync {facts.append_sync or 'not shown'}"
    if facts.append_sync == "no":
        return Finding("warn", name, found, "Set appendfsync everysec.")
    return Finding("ok", name, found)


def _eviction(facts: ValkeyFacts) -> Finding:
    name = "valkey memory"
    bounded = facts.memory_max is None or facts.memory_max > 0
    limit = "" if not facts.memory_max else f" of {_mebibytes(facts.memory_max)}"
    found = f"{facts.eviction or 'policy not shown'}, {_mebibytes(facts.memory_used)}{limit} used"
    if facts.eviction is None:
        return Finding("warn", name, found, "See to it that maxmemory-policy is noeviction.")
    if facts.eviction != "noeviction":
        return Finding(
            "fail" if bounded else "warn",
            name,
            found,
            "Set maxmemory-policy noeviction: an evicted key is a wrong number of units left.",
        )
    if facts.memory_max and facts.memory_used > MEMORY_WARN_SHARE * facts.memory_max:
        return Finding("warn", name, found, "Raise maxmemory: at the limit every write is refused.")
    return Finding("ok", name, found)


def judge_sql(facts: SqlFacts, revisions: Sequence[str]) -> list[Finding]:
    """Verdicts on the database: version, durability, schema, delay and clock."""
    if not facts.exists:
        return [Finding("ok", "database", "not there yet: the first start makes it")]
    title = f"{facts.dialect} {_dotted(facts.version)}"
    oldest = SQLITE_MIN if facts.dialect == "sqlite" else POSTGRES_MIN
    findings = [
        Finding("ok", "database", title)
        if facts.version >= oldest
        else Finding("fail", "database", title, f"Use {_dotted(oldest)} or newer.")
    ]
    if facts.replica:
        findings.append(
            Finding("fail", "database role", "a read-only replica", "Use the primary's address.")
        )
    findings.append(_durability(facts))
    if facts.dialect == "postgresql":
        findings.append(_connections(dict(facts.settings)))
    findings.append(_schema(facts.revision, revisions))
    if facts.timing is not None:
        findings += _timing("database", facts.timing, SQL_LATENCY_WARN_MS)
    return findings


DURABLE: Final[dict[str, dict[str, frozenset[str]]]] = {
    "sqlite": {
        "journal_mode": frozenset({"wal"}),
        "synchronous": frozenset({"2", "3"}),  # FULL, EXTRA
        "foreign_keys": frozenset({"1"}),
    },
    "postgresql": {
        "fsync": frozenset({"on"}),
        "full_page_writes": frozenset({"on"}),
        "synchronous_commit": frozenset({"on", "remote_apply", "remote_write", "local"}),
    },
}


def _durability(facts: SqlFacts) -> Finding:
    name = "database durability"
    settings = dict(facts.settings)
    wanted = DURABLE[facts.dialect]
    wrong = [key for key, good in wanted.items() if settings.get(key) not in good]
    found = ", ".join(f"{key} {settings.get(key, 'not shown')}" for key in wanted)
    if not wrong:
        return Finding("ok", name, found)
    if facts.dialect == "sqlite":
        advice = "Keep the file on a local disk: this one refuses what a safe commit needs."
    else:
        advice = f"Switch on {', '.join(wrong)}: a sale must survive a power cut."
    return Finding("fail", name, found, advice)


def _connections(settings: dict[str, str]) -> Finding:
    found = settings.get("max_connections", "0")
    if int(found) < POSTGRES_CONNECTIONS_MIN:
        return Finding(
            "warn",
            "database connections",
            found,
            f"Set max_connections to {POSTGRES_CONNECTIONS_MIN} or more; each node takes 8.",
        )
    return Finding("ok", "database connections", found)


def _schema(revision: str | None, revisions: Sequence[str]) -> Finding:
    name = "database schema"
    if revision is None:
        return Finding("ok", name, "no tables yet: the first start makes them")
    if revision not in revisions:
        return Finding(
            "fail",
            name,
            f"revision {revision}, unknown to this program",
            "A newer version has worked here: install that version, or restore its backup.",
        )
    if revision != revisions[-1]:
        return Finding(
            "warn",
            name,
            f"revision {revision}, this program's is {revisions[-1]}",
            "The next start brings it up to date; make a backup first.",
        )
    return Finding("ok", name, f"revision {revision}, up to date")


def _timing(name: str, timing: Timing, warn_ms: float) -> list[Finding]:
    delay = f"median {timing.median_ms:.1f} ms, worst {timing.worst_ms:.1f} ms"
    skew = f"{timing.skew_ms:+d} ms from this machine's"
    off = abs(timing.skew_ms)
    clock_level: Level = "fail" if off > SKEW_FAIL_MS else "warn" if off > SKEW_WARN_MS else "ok"
    return [
        Finding("ok", f"{name} delay", delay)
        if timing.median_ms <= warn_ms
        else Finding(
            "warn", f"{name} delay", delay, f"Bring it nearer: under {warn_ms:g} ms is usual."
        ),
        Finding(
            clock_level,
            f"{name} clock",
            skew,
            ""
            if clock_level == "ok"
            else "Run a time service (chrony, systemd-timesyncd) on both.",
        ),
    ]


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))


def _mebibytes(count: int) -> str:
    return f"{count / (1 << 20):.0f} MiB"
