"""What an operator may set, and the only reader of the environment.

Responsible for turning `LIVE_*` variables into one frozen value, with a table that explains each
(`python -m live serve --help`, README). It must not open anything. Unknown `LIVE_*` names are
refused by name, because a mistyped variable that silently does nothing is found in the middle of a
show; constants that are for developers stand beside what they limit, not here.
"""

import difflib
import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, NamedTuple

from typing_extensions import override

from commerce.crash_points import POINTS
from commerce.hold_rule import DEFAULT_RULE, HoldRule
from live.crash import CrashAt


class BadSettings(Exception):
    """A variable is unknown or its value makes no sense; the text says which and what to do."""


class Variable(NamedTuple):
    """One row of the table in README."""

    name: str
    default: str
    meaning: str


VARIABLES: Final = (
    Variable("LIVE_HOST", "127.0.0.1", "address to listen on; 0.0.0.0 for all"),
    Variable("LIVE_PORT", "8000", "port to listen on"),
    Variable("LIVE_DATA", "./data", "folder of the embedded engines and the secret"),
    Variable(
        "LIVE_VALKEY_URL", "", "redis:// or unix:// of a Valkey or Redis; empty: start our own"
    ),
    Variable(
        "LIVE_DATABASE_URL", "", "postgresql:// or sqlite:///; empty: SQLite in the data folder"
    ),
    Variable("LIVE_SECRET", "", "signs tokens (32 characters or more); empty: made and kept"),
    Variable(
        "LIVE_DATA_KEYS",
        "",
        "seal what is personal (32 characters or more); by commas, the first one seals, all of "
        "them open; empty: LIVE_SECRET",
    ),
    Variable("LIVE_RETENTION_DAYS", "1095", "names and addresses are forgotten then; 0: never"),
    Variable("LIVE_PUBLIC_URL", "", "address that viewers use, as in https://live.example.com"),
    Variable("LIVE_ORIGINS", "", "further sites whose pages may connect, separated by commas"),
    Variable("LIVE_STRIPE_KEY", "", "Stripe secret key; empty: the sandbox provider"),
    Variable("LIVE_STRIPE_WEBHOOK_SECRET", "", "signing secret(s) of the webhook, by commas"),
    Variable("LIVE_STRIPE_API", "", "base address of the provider, for a sandbox of your own"),
    Variable(
        "LIVE_TRUSTED_PROXIES",
        "",
        "addresses and CIDR ranges whose X-Forwarded-For is believed, by commas",
    ),
    Variable("LIVE_NODE_NAME", "", "name of this node; empty: host name and process id"),
    Variable("LIVE_NODES", "1", "processes that serve on the one port; about one per core"),
    Variable(
        "LIVE_CONNECTIONS_MAX",
        "",
        "viewers that one process takes; empty: nine tenths of its open files",
    ),
    Variable(
        "LIVE_JOIN_LIMITS",
        "500,20",
        "joins a second of one room and of one address, per process; off for load tests",
    ),
    Variable(
        "LIVE_EGRESS",
        "2000,1600",
        "Mbit a second of shared frames, per process and per room; over it comments are sampled",
    ),
    Variable(
        "LIVE_ELSEWHERE_URL",
        "",
        "ws:// or wss:// address for viewers when this node is full or leaves; empty: the same",
    ),
    Variable(
        "LIVE_HOLD_RULE",
        "2:50:2,4:25:1",
        "from so many lapses in a day on : percent of the hold : open holds; off for no rule",
    ),
    Variable("LIVE_DRAIN_S", "20", "seconds in which viewers are sent away when it is to end"),
    Variable("LIVE_LOG_LEVEL", "info", "debug, info, warning or error"),
)
DRILL_VARIABLES: Final = ("LIVE_CRASH_AT", "LIVE_DRILL")
"""Known, and on no list for operators: `LIVE_CRASH_AT=reserve:after_commit:3` ends this process by
SIGKILL when it gets to that place for the third time. Two variables, so that one copied by accident
does nothing but refuse to start."""
DRILL_WORD: Final = "kill-this-process"
LIVE_KEYS: Final = ("sk_live_", "rk_live_")
SECRET_CHARS_MIN: Final = 32
VALKEY_SCHEMES: Final = (
    "redis://",
    "rediss://",
    "unix://",
    "redis+cluster://",
    "rediss+cluster://",
)
NODES_MAX: Final = 64
DRAIN_S_MAX: Final = 600
RETENTION_DAYS_MAX: Final = 36_500
JOIN_LIMITS: Final = (500, 20)
EGRESS_MBIT: Final = (2000, 1600)


@dataclass(frozen=True, slots=True)
class Settings:
    """What this node was told."""

    host: str = "127.0.0.1"
    port: int = 8000
    data: Path = Path("data")
    valkey_url: str = ""
    database_url: str = ""
    secret: str = ""
    data_keys: tuple[str, ...] = ()
    retention_days: int = 1095
    public_url: str = ""
    origins: tuple[str, ...] = ()
    stripe_key: str = ""
    stripe_webhook_secrets: tuple[str, ...] = ()
    stripe_api: str = ""
    trusted_proxies: tuple[str, ...] = ()
    node_name: str = ""
    nodes: int = 1
    connections_max: int | None = None
    join_limits: tuple[int, int] | None = JOIN_LIMITS
    """Joins a second of one room and of one address; None: not paced."""
    egress_mbit: tuple[int, int] = EGRESS_MBIT
    """Megabits a second of one process, and of one of its rooms."""
    elsewhere_url: str = ""
    hold_rule: HoldRule = DEFAULT_RULE
    """What becomes of the holds of viewers whose holds lapse."""
    drain_s: int = 20
    log_level: str = "info"
    crash_at: CrashAt | None = None
    """Only in drills: where this process kills itself."""

    @override
    def __repr__(self) -> str:
        """Secrets never reach a log by way of a repr."""
        shown = (
            f"{field.name}={getattr(self, field.name)!r}"
            for field in fields(self)
            if field.name
            not in {
                "secret",
                "data_keys",
                "stripe_key",
                "stripe_webhook_secrets",
                "database_url",
                "valkey_url",
            }
        )
        return f"Settings({', '.join(shown)})"

    @classmethod
    def from_environ(
        cls, environ: Mapping[str, str] | None = None, *, flags: Mapping[str, str] | None = None
    ) -> "Settings":
        """Settings from `LIVE_*`, overruled by `flags` (the same names).

        Raises `BadSettings` for an unknown name or a bad value.
        """
        given = {**(os.environ if environ is None else environ), **(flags or {})}
        found = {name: value.strip() for name, value in given.items() if name.startswith("LIVE_")}
        known = {variable.name for variable in VARIABLES} | set(DRILL_VARIABLES)
        for name in sorted(found.keys() - known):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise BadSettings(f"{name} is not a setting{hint}")

        def text(name: str, default: str = "") -> str:
            return found.get(name) or default

        def several(name: str) -> tuple[str, ...]:
            return tuple(part.strip() for part in text(name).split(",") if part.strip())

        settings = cls(
            host=text("LIVE_HOST", "127.0.0.1"),
            port=_number("LIVE_PORT", text("LIVE_PORT", "8000"), 0, 65535),
            data=Path(text("LIVE_DATA", "data")),
            valkey_url=text("LIVE_VALKEY_URL"),
            database_url=text("LIVE_DATABASE_URL"),
            secret=text("LIVE_SECRET"),
            data_keys=several("LIVE_DATA_KEYS"),
            retention_days=_number(
                "LIVE_RETENTION_DAYS", text("LIVE_RETENTION_DAYS", "1095"), 0, RETENTION_DAYS_MAX
            ),
            public_url=text("LIVE_PUBLIC_URL").rstrip("/"),
            origins=tuple(origin.rstrip("/") for origin in several("LIVE_ORIGINS")),
            stripe_key=text("LIVE_STRIPE_KEY"),
            stripe_webhook_secrets=several("LIVE_STRIPE_WEBHOOK_SECRET"),
            stripe_api=text("LIVE_STRIPE_API").rstrip("/"),
            trusted_proxies=several("LIVE_TRUSTED_PROXIES"),
            node_name=text("LIVE_NODE_NAME"),
            nodes=_number("LIVE_NODES", text("LIVE_NODES", "1"), 1, NODES_MAX),
            connections_max=_number("LIVE_CONNECTIONS_MAX", most, 1, 10_000_000)
            if (most := text("LIVE_CONNECTIONS_MAX"))
            else None,
            join_limits=_join_limits(text("LIVE_JOIN_LIMITS")),
            egress_mbit=_pair("LIVE_EGRESS", text("LIVE_EGRESS"), EGRESS_MBIT),
            elsewhere_url=text("LIVE_ELSEWHERE_URL"),
            hold_rule=_hold_rule(text("LIVE_HOLD_RULE")),
            drain_s=_number("LIVE_DRAIN_S", text("LIVE_DRAIN_S", "20"), 0, DRAIN_S_MAX),
            log_level=text("LIVE_LOG_LEVEL", "info").lower(),
            crash_at=_crash_at(text("LIVE_CRASH_AT"), text("LIVE_DRILL")),
        )
        settings.check()
        return settings

    def check(self) -> None:
        """Raises `BadSettings` for a value that makes no sense."""
        if self.secret and len(self.secret) < SECRET_CHARS_MIN:
            raise BadSettings(f"LIVE_SECRET needs at least {SECRET_CHARS_MIN} characters")
        if any(len(key) < SECRET_CHARS_MIN for key in self.data_keys):
            raise BadSettings(f"LIVE_DATA_KEYS needs at least {SECRET_CHARS_MIN} characters each")
        for name, url in (
            ("LIVE_PUBLIC_URL", self.public_url),
            ("LIVE_STRIPE_API", self.stripe_api),
        ):
            if url and not url.startswith(("http://", "https://")):
                raise BadSettings(f"{name} must start with http:// or https://")
        for origin in self.origins:
            if not origin.startswith(("http://", "https://")):
                raise BadSettings(f"LIVE_ORIGINS: {origin} must start with http:// or https://")
        if self.egress_mbit[1] > self.egress_mbit[0]:
            raise BadSettings("LIVE_EGRESS: a room cannot have more than its process")
        if self.valkey_url and not self.valkey_url.startswith(VALKEY_SCHEMES):
            raise BadSettings(f"LIVE_VALKEY_URL must start with {', '.join(VALKEY_SCHEMES)}")
        if self.database_url and not self.database_url.startswith(
            ("postgresql://", "postgres://", "sqlite://")
        ):
            raise BadSettings("LIVE_DATABASE_URL must start with postgresql:// or sqlite:///")
        if self.elsewhere_url and not self.elsewhere_url.startswith(("ws://", "wss://")):
            raise BadSettings("LIVE_ELSEWHERE_URL must start with ws:// or wss://")
        for proxy in self.trusted_proxies:
            try:
                ipaddress.ip_network(proxy, strict=False)
            except ValueError:
                raise BadSettings(
                    f"LIVE_TRUSTED_PROXIES: {proxy} is neither an address nor a CIDR range"
                ) from None
        if self.crash_at is not None and self.stripe_key.startswith(LIVE_KEYS):
            raise BadSettings("LIVE_CRASH_AT is for drills, and this key takes real money")
        if self.log_level not in {"debug", "info", "warning", "error"}:
            raise BadSettings("LIVE_LOG_LEVEL must be debug, info, warning or error")

    @property
    def address(self) -> str:
        """Where viewers find this server."""
        if self.public_url:
            return self.public_url
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::"} else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def node(self) -> str:
        """This node's name among others."""
        return self.node_name or f"{socket.gethostname()}-{os.getpid()}"


def environ_with(changes: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with some variables set: what a child of it is started with."""
    return {**os.environ, **changes}


def _number(name: str, text: str, least: int, most: int) -> int:
    try:
        number = int(text)
    except ValueError:
        raise BadSettings(f"{name} must be a number") from None
    if not least <= number <= most:
        raise BadSettings(f"{name} must be between {least} and {most}")
    return number


def _hold_rule(text: str) -> HoldRule:
    if not text:
        return DEFAULT_RULE
    try:
        return HoldRule.parse(text)
    except ValueError as wrong:
        raise BadSettings(f"LIVE_HOLD_RULE: {wrong}") from None


def _crash_at(text: str, drill: str) -> CrashAt | None:
    if not text:
        return None
    if drill != DRILL_WORD:
        raise BadSettings(
            f"LIVE_CRASH_AT kills this process on purpose: only with LIVE_DRILL={DRILL_WORD}"
        )
    name, _, nth = text.rpartition(":")
    for point in POINTS:
        if point == name:
            return CrashAt(point, _number("LIVE_CRASH_AT", nth, 1, 1_000_000))
    raise BadSettings(f"LIVE_CRASH_AT must be one of {', '.join(POINTS)}, with :1 for the first")


def _join_limits(text: str) -> tuple[int, int] | None:
    if text.lower() == "off":
        return None
    return _pair("LIVE_JOIN_LIMITS", text, JOIN_LIMITS, ", or off")


def _pair(name: str, text: str, default: tuple[int, int], otherwise: str = "") -> tuple[int, int]:
    if not text:
        return default
    first, comma, second = text.partition(",")
    if not comma:
        example = ",".join(map(str, default))
        raise BadSettings(f"{name} must be two numbers, as in {example}{otherwise}")
    return _number(name, first, 1, 1_000_000), _number(name, second, 1, 1_000_000)
