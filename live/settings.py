"""What an operator may set, and the only reader of the environment.

Responsible for turning `LIVE_*` variables into one frozen value, with a table that explains each
(`python -m live serve --help`, README). It must not open anything. Unknown `LIVE_*` names are
refused by name, because a mistyped variable that silently does nothing is found in the middle of a
show; constants that are for developers stand beside what they limit, not here.
"""

import difflib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, NamedTuple

from typing_extensions import override


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
    Variable("LIVE_PUBLIC_URL", "", "address that viewers use, as in https://live.example.com"),
    Variable("LIVE_ORIGINS", "", "further sites whose pages may connect, separated by commas"),
    Variable("LIVE_STRIPE_KEY", "", "Stripe secret key; empty: the sandbox provider"),
    Variable("LIVE_STRIPE_WEBHOOK_SECRET", "", "signing secret(s) of the webhook, by commas"),
    Variable("LIVE_STRIPE_API", "", "base address of the provider, for a sandbox of your own"),
    Variable("LIVE_TRUSTED_PROXIES", "", "addresses whose X-Forwarded-For is believed, by commas"),
    Variable("LIVE_NODE_NAME", "", "name of this node; empty: host name and process id"),
    Variable("LIVE_LOG_LEVEL", "info", "debug, info, warning or error"),
)
SECRET_CHARS_MIN: Final = 32


@dataclass(frozen=True, slots=True)
class Settings:
    """What this node was told."""

    host: str = "127.0.0.1"
    port: int = 8000
    data: Path = Path("data")
    valkey_url: str = ""
    database_url: str = ""
    secret: str = ""
    public_url: str = ""
    origins: tuple[str, ...] = ()
    stripe_key: str = ""
    stripe_webhook_secrets: tuple[str, ...] = ()
    stripe_api: str = ""
    trusted_proxies: tuple[str, ...] = ()
    node_name: str = ""
    log_level: str = "info"

    @override
    def __repr__(self) -> str:
        """Secrets never reach a log by way of a repr."""
        shown = (
            f"{field.name}={getattr(self, field.name)!r}"
            for field in fields(self)
            if field.name
            not in {
                "secret",
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
        known = {variable.name for variable in VARIABLES}
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
            port=_port(text("LIVE_PORT", "8000")),
            data=Path(text("LIVE_DATA", "data")),
            valkey_url=text("LIVE_VALKEY_URL"),
            database_url=text("LIVE_DATABASE_URL"),
            secret=text("LIVE_SECRET"),
            public_url=text("LIVE_PUBLIC_URL").rstrip("/"),
            origins=tuple(origin.rstrip("/") for origin in several("LIVE_ORIGINS")),
            stripe_key=text("LIVE_STRIPE_KEY"),
            stripe_webhook_secrets=several("LIVE_STRIPE_WEBHOOK_SECRET"),
            stripe_api=text("LIVE_STRIPE_API").rstrip("/"),
            trusted_proxies=several("LIVE_TRUSTED_PROXIES"),
            node_name=text("LIVE_NODE_NAME"),
            log_level=text("LIVE_LOG_LEVEL", "info").lower(),
        )
        settings.check()
        return settings

    def check(self) -> None:
        """Raises `BadSettings` for a value that makes no sense."""
        if self.secret and len(self.secret) < SECRET_CHARS_MIN:
            raise BadSettings(f"LIVE_SECRET needs at least {SECRET_CHARS_MIN} characters")
        for name, url in (
            ("LIVE_PUBLIC_URL", self.public_url),
            ("LIVE_STRIPE_API", self.stripe_api),
        ):
            if url and not url.startswith(("http://", "https://")):
                raise BadSettings(f"{name} must start with http:// or https://")
        for origin in self.origins:
            if not origin.startswith(("http://", "https://")):
                raise BadSettings(f"LIVE_ORIGINS: {origin} must start with http:// or https://")
        if self.valkey_url and not self.valkey_url.startswith(("redis://", "rediss://", "unix://")):
            raise BadSettings("LIVE_VALKEY_URL must start with redis://, rediss:// or unix://")
        if self.database_url and not self.database_url.startswith(
            ("postgresql://", "postgres://", "sqlite://")
        ):
            raise BadSettings("LIVE_DATABASE_URL must start with postgresql:// or sqlite:///")
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


def _port(text: str) -> int:
    try:
        port = int(text)
    except ValueError:
        raise BadSettings("LIVE_PORT must be a number") from None
    if not 0 <= port <= 65535:
        raise BadSettings("LIVE_PORT must be between 0 and 65535")
    return port
