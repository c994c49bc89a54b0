"""The tables of money and fulfilment; they share the MetaData of `schema_sql`.

Responsible for names, types and the last walls: a unit is never refunded beyond what was paid for
it, and the double-entry ledger and the order's events can be added to but neither changed nor
deleted (triggers, on both databases). It must not hold queries.

One row per sold unit (`order_unit`) and not one counter per line, because a unit is what is
cancelled, shipped, returned and refunded: its state is its row, two who want the same unit meet in
one compare-and-set, and its share of discount, shipping and tax is stored once, so that giving back
unit by unit ends at exactly what was paid. A hold has at most 99 units of 20 lines; the usual order
has one to three.
"""

from typing import Final

from sqlalchemy import (
    DDL,
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Table,
    UniqueConstraint,
    event,
)

from commerce.schema_sql import Amount, Auto, Id, Ms, metadata

shop_terms = Table(
    "shop_terms",
    metadata,
    Column("id", Integer, primary_key=True),  # always 1
    Column("tax_bp", Integer, nullable=False),  # hundredths of a percent, included in prices
    Column("tax_title", String(60), nullable=False),
    Column("low_stock", BigInteger, nullable=False),  # warn at so many units or fewer
    CheckConstraint("id = 1", name="single"),
    CheckConstraint("tax_bp >= 0 AND tax_bp <= 10000", name="tax"),
    CheckConstraint("low_stock >= 0", name="low_stock"),
)

drop_discount = Table(
    "drop_discount",
    metadata,
    Column("drop", Id, ForeignKey("sale_drop.id"), primary_key=True),
    Column("title", String(60), nullable=False),
    Column("percent_bp", Integer, nullable=True),  # of the goods; or
    Column("amount", Amount, nullable=True),  # minor units off the order
    Column("updated_at", Ms, nullable=False),
    CheckConstraint("(percent_bp IS NULL) <> (amount IS NULL)", name="one_rule"),
)

coupon = Table(
    "coupon",
    metadata,
    Column("code", String(40), primary_key=True),
    Column("title", String(60), nullable=False),
    Column("percent_bp", Integer, nullable=True),  # of what is left of the goods; or
    Column("amount", Amount, nullable=True),  # minor units off the order
    Column("uses_max", BigInteger, nullable=False),
    Column("used", BigInteger, nullable=False),  # by holds that are open or sold
    Column("ends_at", Ms, nullable=True),
    Column("updated_at", Ms, nullable=False),
    CheckConstraint("(percent_bp IS NULL) <> (amount IS NULL)", name="one_rule"),
    CheckConstraint("used >= 0 AND used <= uses_max", name="used"),
)

coupon_use = Table(
    "coupon_use",
    metadata,
    Column("rid", Id, ForeignKey("reservation.rid"), primary_key=True),  # one of a hold
    Column("coupon", String(40), ForeignKey("coupon.code"), nullable=False, index=True),
    Column("state", String(16), nullable=False),  # reserved used released
    Column("created_at", Ms, nullable=False),
)

hold_promise = Table(
    "hold_promise",
    metadata,
    Column("rid", Id, ForeignKey("reservation.rid"), primary_key=True),
    Column("source", String(16), nullable=False),  # where the price came from: list
    Column("pinned", Id, nullable=True),  # the product that was pinned at the press
    Column("pinned_at", Ms, nullable=True),
    Column("media_ms", BigInteger, nullable=True),  # since the show went live
)

order_adjustment = Table(
    "order_adjustment",
    metadata,
    Column("rid", Id, ForeignKey("reservation.rid"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("kind", String(16), nullable=False),  # discount shipping tax
    Column("title", String(60), nullable=False),
    Column("amount", Amount, nullable=False),  # a discount is negative
    Column("included", Boolean, nullable=False),  # in the prices already: not added to the total
    Column("basis", JSON, nullable=False),  # how it was computed
    Column("created_at", Ms, nullable=False),
)

order_unit = Table(
    "order_unit",
    metadata,
    Column("order", Id, ForeignKey("orders.id"), primary_key=True),
    Column("position", Integer, primary_key=True),  # of its line
    Column("n", Integer, primary_key=True),  # from 0
    Column("sku", Id, nullable=False),
    Column("state", String(16), nullable=False),
    Column("price", Amount, nullable=False),
    Column("discount", Amount, nullable=False),
    Column("shipping", Amount, nullable=False),
    Column("tax", Amount, nullable=False),  # of which tax
    Column("amount", Amount, nullable=False),  # price - discount + shipping
    Column("refunded", Amount, nullable=False),  # by refunds that have not failed
    Column("shipment", Id, nullable=True),
    Column("return_case", Id, nullable=True),
    CheckConstraint("refunded >= 0 AND refunded <= amount", name="refunded"),
    CheckConstraint("tax >= 0 AND tax <= amount", name="tax"),
    CheckConstraint("amount = price - discount + shipping", name="amount"),
    Index("ix_order_unit_sku_state", "sku", "state"),
    Index("ix_order_unit_shipment", "shipment"),
    Index("ix_order_unit_return_case", "return_case"),
)

refund = Table(
    "refund",
    metadata,
    Column("id", Id, primary_key=True),
    Column("rid", Id, ForeignKey("reservation.rid"), nullable=False, index=True),
    Column("payment", Id, ForeignKey("payment.id"), nullable=False, index=True),
    Column("order", Id, ForeignKey("orders.id"), nullable=True),  # null: money without an order
    Column("provider", String(16), nullable=False),
    Column("provider_id", String(255), nullable=True, unique=True),
    Column("state", String(16), nullable=False),
    Column("amount", Amount, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("reason", String(200), nullable=False),
    Column("asked_by", Id, nullable=False),
    Column("units", JSON, nullable=True),  # of a request: what the viewer asked for
    Column("return_case", Id, nullable=True),
    Column("failure", String(80), nullable=False),
    Column("created_at", Ms, nullable=False),
    Column("updated_at", Ms, nullable=False),
    Column("next_at", Ms, nullable=True),  # when to look again; null: decided
    Column("tries", Integer, nullable=False),
    CheckConstraint("amount > 0", name="amount"),
    Index("ix_refund_next_at", "next_at"),
    Index("ix_refund_state_created_at", "state", "created_at"),
)

refund_unit = Table(
    "refund_unit",
    metadata,
    Column("refund", Id, ForeignKey("refund.id"), primary_key=True),
    Column("order", Id, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("amount", Amount, nullable=False),
    Column("tax", Amount, nullable=False),
    ForeignKeyConstraint(
        ["order", "position", "n"], ["order_unit.order", "order_unit.position", "order_unit.n"]
    ),
    CheckConstraint("amount > 0", name="amount"),
)

dispute = Table(
    "dispute",
    metadata,
    Column("provider_id", String(255), primary_key=True),
    Column("rid", Id, ForeignKey("reservation.rid"), nullable=False, index=True),
    Column("payment", Id, ForeignKey("payment.id"), nullable=False),
    Column("state", String(16), nullable=False),  # open won lost
    Column("amount", Amount, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("created_at", Ms, nullable=False),
    Column("updated_at", Ms, nullable=False),
)

return_case = Table(
    "return_case",
    metadata,
    Column("id", Id, primary_key=True),
    Column("rid", Id, ForeignKey("reservation.rid"), nullable=False, index=True),
    Column("order", Id, ForeignKey("orders.id"), nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", String(200), nullable=False),
    Column("asked_by", Id, nullable=False),
    Column("units", JSON, nullable=False),  # [[position, n], …], also after a refusal
    Column("stock", String(16), nullable=True),  # what became of the goods: restock write_off
    Column("created_at", Ms, nullable=False),
    Column("updated_at", Ms, nullable=False),
    Index("ix_return_case_state_created_at", "state", "created_at"),
)

shipment = Table(
    "shipment",
    metadata,
    Column("id", Id, primary_key=True),
    Column("rid", Id, ForeignKey("reservation.rid"), nullable=False, index=True),
    Column("order", Id, ForeignKey("orders.id"), nullable=False),
    Column("state", String(16), nullable=False),
    Column("carrier", String(60), nullable=False),
    Column("tracking", String(120), nullable=False),
    Column("created_at", Ms, nullable=False),
    Column("updated_at", Ms, nullable=False),
)

order_event = Table(
    "order_event",
    metadata,
    Column("id", Auto, primary_key=True, autoincrement=True),
    Column("rid", Id, nullable=False),
    Column("kind", String(40), nullable=False),
    Column("actor", Id, nullable=False),  # an account, a viewer, or empty: the program
    Column("data", JSON, nullable=False),  # nothing personal
    Column("at", Ms, nullable=False),
    Index("ix_order_event_rid_id", "rid", "id"),
)

ledger_entry = Table(
    "ledger_entry",
    metadata,
    Column("id", Auto, primary_key=True, autoincrement=True),
    Column("ref", String(140), nullable=False),  # what made it: each fact is posted once
    Column("rid", Id, nullable=False, index=True),
    Column("at", Ms, nullable=False),
    UniqueConstraint("ref"),
)

ledger_posting = Table(
    "ledger_posting",
    metadata,
    Column("entry", BigInteger, ForeignKey("ledger_entry.id"), primary_key=True),
    Column("account", String(32), primary_key=True),
    Column("amount", Amount, nullable=False),  # debit positive, credit negative
    Column("currency", String(3), nullable=False),
    CheckConstraint("amount <> 0", name="amount"),
    Index("ix_ledger_posting_account", "account"),
)

restored = Table(  # this database was filled from a copy; what the provider knows is brought in
    "restored",
    metadata,
    Column("id", Auto, primary_key=True, autoincrement=True),
    Column("backup_at", Ms, nullable=False),
    Column("recovered_at", Ms, nullable=True),  # null: at the next start
)

APPEND_ONLY: Final = ("ledger_entry", "ledger_posting", "order_event")


def append_only_sql(dialect: str, table: str) -> list[str]:
    """Statements that make a table refuse UPDATE and DELETE."""
    if dialect == "sqlite":
        return [
            f"CREATE TRIGGER {table}_{verb.lower()} BEFORE {verb} ON {table} "
            "BEGIN SELECT RAISE(ABORT, 'append-only'); END"
            for verb in ("UPDATE", "DELETE")
        ]
    return [
        "CREATE OR REPLACE FUNCTION vitrine_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'append-only' USING ERRCODE = 'integrity_constraint_violation'; "
        "END $$",
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table} "
        "FOR EACH ROW EXECUTE FUNCTION vitrine_append_only()",
    ]


for _name in APPEND_ONLY:
    for _dialect in ("sqlite", "postgresql"):
        for _statement in append_only_sql(_dialect, _name):
            _ddl = DDL(_statement.replace("%", "%%"))  # type: ignore[no-untyped-call]
            event.listen(metadata.tables[_name], "after_create", _ddl.execute_if(dialect=_dialect))
