"""What the sandbox remembers, in one SQLite file: objects, idempotency keys, deliveries, timers.

Responsible for surviving a `kill -9`: every request is one transaction with full sync, so that the
sandbox never forgets money that it has reported. It must not know what the objects mean. Standard
library only: the record of the shop and the record of the provider should share no code.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

Object = dict[str, Any]

OPEN_END_S: Final = 1 << 62

_SCHEMA = """
CREATE TABLE IF NOT EXISTS object (
  id TEXT PRIMARY KEY, kind TEXT NOT NULL, created INTEGER NOT NULL,
  n INTEGER NOT NULL, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS object_kind ON object (kind, n);
CREATE INDEX IF NOT EXISTS object_n ON object (n);
CREATE INDEX IF NOT EXISTS object_intent ON object (
  kind, json_extract(body, '$.payment_intent'), n);
CREATE INDEX IF NOT EXISTS object_charge ON object (kind, json_extract(body, '$.latest_charge'));
CREATE TABLE IF NOT EXISTS idempotency (
  key TEXT PRIMARY KEY, sha TEXT NOT NULL, status INTEGER, body TEXT, created INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS idempotency_created ON idempotency (created);
CREATE TABLE IF NOT EXISTS delivery (
  id INTEGER PRIMARY KEY AUTOINCREMENT, endpoint TEXT NOT NULL, event TEXT NOT NULL,
  due_ms INTEGER NOT NULL, tries INTEGER NOT NULL, done INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS delivery_due ON delivery (done, due_ms);
CREATE TABLE IF NOT EXISTS timer (
  intent TEXT PRIMARY KEY, due_ms INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class Store:
    """One file; one connection; used from one thread."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Release the file."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing. Not re-entrant; there must be no `await` inside."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def wipe(self) -> None:
        """Forget everything but the settings."""
        for table in ("object", "idempotency", "delivery", "timer"):
            self._db.execute(f"DELETE FROM {table}")

    # Objects

    def put(self, body: Object) -> None:
        """Create or replace; the kind is Stripe's `object` field."""
        text = json.dumps(body)
        self._db.execute(
            "INSERT INTO object (id, kind, created, n, body) VALUES (?, ?, ?, "
            "(SELECT COALESCE(MAX(n), 0) + 1 FROM object), ?) "
            "ON CONFLICT (id) DO UPDATE SET body = excluded.body",
            (body["id"], body["object"], body.get("created", 0), text),
        )

    def get(self, kind: str, id_: str) -> Object | None:
        """An object by id, or None."""
        row = self._db.execute(
            "SELECT body FROM object WHERE id = ? AND kind = ?", (id_, kind)
        ).fetchone()
        return None if row is None else json.loads(row[0])

    def newest(
        self, kind: str, *, after: str | None = None, since: int = 0, until: int = OPEN_END_S
    ) -> Iterator[Object]:
        """Objects of a kind, newest first, made in these seconds; `after`: older than this id."""
        below = "(SELECT n FROM object WHERE id = ?)" if after is not None else "?"
        rows = self._db.execute(
            "SELECT body FROM object WHERE kind = ? AND created BETWEEN ? AND ? "
            f"AND n < {below} ORDER BY n DESC",
            (kind, since, until, after if after is not None else 1 << 62),
        )
        for (text,) in rows:  # one by one: a list of 100 must not read a year of events
            yield json.loads(text)

    def of_intent(self, kind: str, intent: str) -> list[Object]:
        """Objects of a kind that are about this intent, newest first."""
        rows = self._db.execute(
            "SELECT body FROM object WHERE kind = ? AND "
            "json_extract(body, '$.payment_intent') = ? ORDER BY n DESC",
            (kind, intent),
        )
        return [json.loads(text) for (text,) in rows]

    def intent_of_charge(self, charge: str) -> Object | None:
        """The intent whose newest charge this is."""
        row = self._db.execute(
            "SELECT body FROM object WHERE kind = 'payment_intent' AND "
            "json_extract(body, '$.latest_charge') = ?",
            (charge,),
        ).fetchone()
        return None if row is None else json.loads(row[0])

    # Idempotency keys

    def key(self, key: str) -> tuple[str, int | None, str | None] | None:
        """(sha, status, body) of a key that was used; status None: it is running or was killed."""
        row = self._db.execute(
            "SELECT sha, status, body FROM idempotency WHERE key = ?", (key,)
        ).fetchone()
        return None if row is None else (row[0], row[1], row[2])

    def keep_key(self, key: str, sha: str, status: int, body: str, now_s: int) -> None:
        """The answer of a request, in the transaction of its effect."""
        self._db.execute(
            "INSERT OR REPLACE INTO idempotency (key, sha, status, body, created) "
            "VALUES (?, ?, ?, ?, ?)",
            (key, sha, status, body, now_s),
        )

    def prune_keys(self, before_s: int) -> None:
        """Stripe may forget keys after 24 hours."""
        self._db.execute("DELETE FROM idempotency WHERE created < ?", (before_s,))

    # Webhook deliveries

    def add_delivery(self, endpoint: str, event: str, due_ms: int) -> None:
        """To be sent from `due_ms` on."""
        self._db.execute(
            "INSERT INTO delivery (endpoint, event, due_ms, tries, done) VALUES (?, ?, ?, 0, 0)",
            (endpoint, event, due_ms),
        )

    def due_deliveries(self, now_ms: int, limit: int) -> list[tuple[int, str, str, int]]:
        """(id, endpoint, event, tries), oldest first."""
        rows = self._db.execute(
            "SELECT id, endpoint, event, tries FROM delivery WHERE done = 0 AND due_ms <= ? "
            "ORDER BY due_ms, id LIMIT ?",
            (now_ms, limit),
        )
        return [(int(a), str(b), str(c), int(d)) for a, b, c, d in rows.fetchall()]

    def delivered(self, id_: int) -> None:
        """It was answered with 2xx, or is given up."""
        self._db.execute("UPDATE delivery SET done = 1 WHERE id = ?", (id_,))

    def again(self, id_: int, due_ms: int) -> None:
        """It was not answered with 2xx."""
        self._db.execute(
            "UPDATE delivery SET tries = tries + 1, due_ms = ? WHERE id = ?", (due_ms, id_)
        )

    # Timers of payments that succeed late

    def set_timer(self, intent: str, due_ms: int) -> None:
        """This intent decides itself at `due_ms`."""
        self._db.execute(
            "INSERT OR REPLACE INTO timer (intent, due_ms) VALUES (?, ?)", (intent, due_ms)
        )

    def due_timers(self, now_ms: int) -> list[str]:
        """Intents whose time has come; they are taken off."""
        rows = self._db.execute("SELECT intent FROM timer WHERE due_ms <= ?", (now_ms,)).fetchall()
        self._db.execute("DELETE FROM timer WHERE due_ms <= ?", (now_ms,))
        return [str(row[0]) for row in rows]

    # Settings

    def setting(self, name: str, default: str) -> str:
        """A value that survives a restart."""
        row = self._db.execute("SELECT value FROM setting WHERE name = ?", (name,)).fetchone()
        return default if row is None else str(row[0])

    def set_setting(self, name: str, value: str) -> None:
        """Keep a value."""
        self._db.execute("INSERT OR REPLACE INTO setting VALUES (?, ?)", (name, value))
