"""What a batch of winners is judged by, in one go: the epoch, the drops, the prices, open holds.

Responsible for reading it under the locks that keep it so until the batch is written. It must not
know presses, nor whether a hold is given.

Why in one go: the transaction runs in a thread beside the event loop, and for each answer it gives
the interpreter away and gets it back when the loop lets go. With a crowd in the room that costs
more than the statement: 0.01 ms in SQLite, 0.5 ms until the thread runs again. And PostgreSQL is
met once for the beginning and both questions instead of three times.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any, Final

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce.bulk_sql import Question, ask_all, in_texts, rows_of_texts, texts
from commerce.drops_sql import DropRow, drop_of
from commerce.epochs_sql import lock_epoch
from commerce.reservations_sql import OPEN_STATES
from commerce.schema_sql import sale_drop

TITLE_MAX: Final = 512
_OPEN: Final = ", ".join(f"'{state.value}'" for state in OPEN_STATES)
_HEAD: Final = tuple(column.name for column in sale_drop.columns)


@cache
def _drops_of(chosen: str, lock: str) -> TextClause:
    """A row for each SKU of each drop: the epoch, the SKU, and the drop as `_HEAD`."""
    head = ", ".join(f'd."{name}"' for name in _HEAD)
    return text(
        "SELECT s.gate_epoch, l.sku, l.units, l.taken, k.active, k.amount, k.currency, "
        f"p.title, k.title, {head} "
        f"FROM shop s JOIN sale_drop d ON {chosen} "
        'LEFT JOIN sale_drop_line l ON l."drop" = d.id '
        "LEFT JOIN sku k ON k.sku = l.sku LEFT JOIN product p ON p.id = k.product "
        f"WHERE s.id = 1 ORDER BY d.created_at, d.id, l.position {lock}"
    )


@cache
def _holds_of(viewers: str) -> TextClause:
    """A row for each viewer. FILTER, not WHERE, so that there is one index to go by, the viewer's.

    A plan is kept once it has run five times, and may have been made while the table was empty.
    Then PostgreSQL went by `state`: for 40 viewers 33 ms at 12,000 holds, and 0.3 so.
    """
    counted = f"count(*) FILTER (WHERE r.state IN ({_OPEN}))"
    of_viewer = f"SELECT {counted} FROM reservation r WHERE r.viewer = v.value"
    return text(f"SELECT v.value, ({of_viewer}) FROM {viewers} v")


@dataclass(frozen=True, slots=True)
class Priced:
    """A SKU as the snapshot in a hold needs it."""

    title: str
    amount: int
    currency: str


@dataclass(frozen=True, slots=True)
class Grounds:
    """`drops` by id; `priced` has every SKU of these drops that is sold."""

    epoch: int
    drops: Mapping[str, DropRow]
    priced: Mapping[str, Priced]
    open_holds: Counter[str]
    """By viewer, of those who were asked about; not to be changed."""


async def read_grounds(
    conn: AsyncConnection, drops: Collection[str], viewers: Collection[str]
) -> Grounds:
    """Until this transaction ends the epoch cannot move, nor can one of these drops be closed."""
    lock = "FOR SHARE OF s, d" if conn.dialect.name == "postgresql" else ""
    of_drops = _drops_of(in_texts(conn, "d.id", "drops"), lock)
    of_viewers = _holds_of(rows_of_texts(conn, "viewers"))
    rows, counts = await ask_all(
        conn,
        [
            Question(of_drops, {"drops": texts(sorted(set(drops)))}),
            Question(of_viewers, {"viewers": texts(set(viewers))}),
        ],
    )
    open_holds = Counter({row[0]: row[1] for row in counts})
    if not rows:
        return Grounds(await lock_epoch(conn), {}, {}, open_holds)
    heads: dict[str, Any] = {}
    units: defaultdict[str, dict[str, tuple[int | None, int]]] = defaultdict(dict)
    priced: dict[str, Priced] = {}
    for _epoch, sku, of_sale, taken, active, amount, currency, product, variant, *rest in rows:
        head = SimpleNamespace(**dict(zip(_HEAD, rest, strict=True)))
        heads[head.id] = head
        if sku is None:
            continue
        units[head.id][sku] = (of_sale, taken)
        if active:
            title = f"{product} – {variant}"[:TITLE_MAX] if variant else product
            priced[sku] = Priced(title, amount, currency)
    found = {id_: DropRow(drop_of(head, units[id_]), units[id_]) for id_, head in heads.items()}
    return Grounds(rows[0][0], found, priced, open_holds)
