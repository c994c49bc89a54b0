"""The double-entry ledger in the record: posting, balances, and looking whether it all agrees.

Responsible for the rows of `ledger_entry` and `ledger_posting`. `post` takes the caller's
connection: an entry is written in the transaction of the change of state that it books, or not at
all. `ref` names that change, so a repeated change posts nothing. It must not know why money moves.

`faults` asks the questions an auditor asks, in SQL, over everything there is; the sums of a shop
with 100,000 orders take about a second, so it is asked by a person or every few minutes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce.database_sql import Database, insert_into
from commerce.ledger import Account, Posting, balanced
from commerce.money_schema_sql import ledger_entry, ledger_posting

FAULTS_MAX: Final = 100
"""Rows of one kind of fault in one report."""

_QUESTIONS: Final = {
    "unbalanced": (
        "SELECT CAST(p.entry AS TEXT) AS what, SUM(p.amount) AS amount FROM ledger_posting p "
        "GROUP BY p.entry, p.currency HAVING SUM(p.amount) <> 0"
    ),
    # What the ledger has at the provider for a hold is what its payments took less what went back.
    "clearing": (
        "SELECT x.rid AS what, SUM(x.amount) AS amount FROM ("
        "SELECT e.rid, p.amount FROM ledger_posting p JOIN ledger_entry e ON e.id = p.entry "
        f"WHERE p.account = '{Account.PROVIDER}' "
        "UNION ALL SELECT y.rid, -y.captured FROM payment y "
        "UNION ALL SELECT r.rid, r.amount FROM refund r WHERE r.state = 'succeeded' "
        "UNION ALL SELECT d.rid, d.amount FROM dispute d WHERE d.state IN ('open', 'lost')"
        ") x GROUP BY x.rid HAVING SUM(x.amount) <> 0"
    ),
    "payable": (
        "SELECT x.rid AS what, SUM(x.amount) AS amount FROM ("
        "SELECT e.rid, p.amount FROM ledger_posting p JOIN ledger_entry e ON e.id = p.entry "
        f"WHERE p.account = '{Account.REFUNDS_PAYABLE}' "
        "UNION ALL SELECT r.rid, r.amount FROM refund r "
        "WHERE r.state IN ('requested', 'submitted')"
        ") x GROUP BY x.rid HAVING SUM(x.amount) <> 0"
    ),
    "refunded": (
        "SELECT p.id AS what, p.refunded - COALESCE((SELECT SUM(r.amount) FROM refund r WHERE "
        "r.payment = p.id AND r.state IN ('requested', 'submitted', 'succeeded')), 0) AS amount "
        "FROM payment p WHERE p.refunded <> COALESCE((SELECT SUM(r.amount) FROM refund r WHERE "
        "r.payment = p.id AND r.state IN ('requested', 'submitted', 'succeeded')), 0)"
    ),
    "units": (
        "SELECT o.id AS what, o.total - COALESCE((SELECT SUM(u.amount) FROM order_unit u "
        'WHERE u."order" = o.id), 0) AS amount FROM orders o WHERE o.total <> '
        'COALESCE((SELECT SUM(u.amount) FROM order_unit u WHERE u."order" = o.id), 0)'
    ),
    "unit_refunds": (
        'SELECT u."order" AS what, u.refunded - COALESCE((SELECT SUM(x.amount) FROM refund_unit x '
        'JOIN refund r ON r.id = x.refund WHERE x."order" = u."order" AND x.position = u.position '
        "AND x.n = u.n AND r.state IN ('requested', 'submitted', 'succeeded')), 0) AS amount "
        "FROM order_unit u WHERE u.refunded <> COALESCE((SELECT SUM(x.amount) FROM refund_unit x "
        'JOIN refund r ON r.id = x.refund WHERE x."order" = u."order" AND x.position = u.position '
        "AND x.n = u.n AND r.state IN ('requested', 'submitted', 'succeeded')), 0)"
    ),
    **{
        f"stock_{column}": (
            f"SELECT s.sku AS what, s.{column} - COALESCE((SELECT SUM(l.d_{column}) FROM "
            f"stock_ledger l WHERE l.sku = s.sku), 0) AS amount FROM sku_stock s WHERE s.{column} "
            f"<> COALESCE((SELECT SUM(l.d_{column}) FROM stock_ledger l WHERE l.sku = s.sku), 0)"
        )
        for column in ("on_hand", "held", "committed")
    },
    "stock_sold": (
        "SELECT s.sku AS what, s.committed - COALESCE((SELECT COUNT(*) FROM order_unit u "
        "WHERE u.sku = s.sku AND u.state = 'sold'), 0) AS amount FROM sku_stock s "
        "WHERE s.committed <> COALESCE((SELECT COUNT(*) FROM order_unit u "
        "WHERE u.sku = s.sku AND u.state = 'sold'), 0)"
    ),
}
"""Each lists what should not exist, with the difference."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that does not add up: which question found it, at what, and by how much."""

    kind: str
    what: str
    amount: int


async def post(
    conn: AsyncConnection,
    ref: str,
    rid: str,
    currency: str,
    postings: Sequence[Posting],
    now: int,
) -> bool:
    """Writes one entry, once per `ref`; False if it is there. Raises Unbalanced."""
    rows = balanced(postings)
    if not rows:
        return False
    statement = insert_into(conn, ledger_entry).values(ref=ref, rid=rid, at=now)
    made = await conn.execute(
        statement.on_conflict_do_nothing(index_elements=["ref"]).returning(ledger_entry.c.id)
    )
    entry = made.scalar()
    if entry is None:
        return False
    await conn.execute(
        insert(ledger_posting),
        [
            {
                "entry": entry,
                "account": row.account.value,
                "amount": row.amount,
                "currency": currency,
            }
            for row in rows
        ],
    )
    return True


async def entries_of(conn: AsyncConnection, rid: str) -> list[dict[str, Any]]:
    """The entries of one hold, oldest first: `{ref, at, postings: {account: amount}, currency}`."""
    wanted = (
        select(ledger_entry, ledger_posting)
        .join(ledger_posting, ledger_posting.c.entry == ledger_entry.c.id)
        .where(ledger_entry.c.rid == rid)
        .order_by(ledger_entry.c.id, ledger_posting.c.account)
    )
    found: dict[int, dict[str, Any]] = {}
    for row in (await conn.execute(wanted)).all():
        blank = {"ref": row.ref, "at": row.at, "currency": row.currency, "postings": {}}
        found.setdefault(row.id, blank)["postings"][row.account] = row.amount
    return list(found.values())


class SqlLedger:
    """Questions to the ledger of one database. Raises Unavailable when it is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def balances(self) -> dict[str, dict[str, int]]:
        """By currency and account; the accounts of a currency add up to zero."""
        wanted = text(
            "SELECT p.currency, p.account, SUM(p.amount) AS amount FROM ledger_posting p "
            "GROUP BY p.currency, p.account ORDER BY p.currency, p.account"
        )
        found: dict[str, dict[str, int]] = {}
        async with self._database.read() as conn:
            for currency, account, amount in (await conn.execute(wanted)).all():
                found.setdefault(currency, {})[account] = int(amount)
        return found

    async def faults(self) -> list[Fault]:
        """What does not add up, at most `FAULTS_MAX` of each kind; none in a healthy shop."""
        found: list[Fault] = []
        async with self._database.read() as conn:
            for kind, question in _QUESTIONS.items():
                rows = await conn.execute(text(f"{question} LIMIT {FAULTS_MAX}"))
                found += [Fault(kind, str(what), int(amount)) for what, amount in rows.all()]
        return found
