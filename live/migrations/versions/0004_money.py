"""Money and fulfilment: single units, refunds, returns, parcels, the ledger.

Orders of the first version get their units, steps and ledger entries here, so that they can be
shipped, cancelled and refunded like new ones. Money that had come for nobody is promised back.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

from commerce.ledger import Account, Posting, balanced, moved, refund_promised, sale
from commerce.money_schema_sql import APPEND_ONLY, append_only_sql
from commerce.pricing import Terms, adjust, share_out
from commerce.stock import HeldLine

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Creates what this version adds, and fills it for what is there."""
    _tables()
    connection = op.get_bind()
    _fill_orders(connection)
    _fill_late_money(connection)
    for table in APPEND_ONLY:
        for statement in append_only_sql(connection.dialect.name, table):
            connection.exec_driver_sql(statement)


def _tables() -> None:
    op.create_table(
        "ledger_entry",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("ref", sa.String(length=140), nullable=False),
        sa.Column("rid", sa.String(length=64), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_entry")),
        sa.UniqueConstraint("ref", name=op.f("uq_ledger_entry_ref")),
    )
    op.create_index(op.f("ix_ledger_entry_rid"), "ledger_entry", ["rid"], unique=False)
    op.create_table(
        "order_event",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("rid", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("actor", sa.String(length=64), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_order_event")),
    )
    op.create_index("ix_order_event_rid_id", "order_event", ["rid", "id"], unique=False)
    op.create_table(
        "shop_terms",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("tax_bp", sa.Integer(), nullable=False),
        sa.Column("tax_title", sa.String(length=60), nullable=False),
        sa.Column("low_stock", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_shop_terms_single")),
        sa.CheckConstraint("low_stock >= 0", name=op.f("ck_shop_terms_low_stock")),
        sa.CheckConstraint("tax_bp >= 0 AND tax_bp <= 10000", name=op.f("ck_shop_terms_tax")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shop_terms")),
    )
    op.create_table(
        "drop_discount",
        sa.Column("drop", sa.String(length=64), nullable=False),
        sa.Column("title", sa.String(length=60), nullable=False),
        sa.Column("percent_bp", sa.Integer(), nullable=True),
        sa.Column("amount", sa.BigInteger(), nullable=True),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "(percent_bp IS NULL) <> (amount IS NULL)", name=op.f("ck_drop_discount_one_rule")
        ),
        sa.ForeignKeyConstraint(["drop"], ["sale_drop.id"], name=op.f("fk_drop_discount_drop")),
        sa.PrimaryKeyConstraint("drop", name=op.f("pk_drop_discount")),
    )
    op.create_table(
        "ledger_posting",
        sa.Column("entry", sa.BigInteger(), nullable=False),
        sa.Column("account", sa.String(length=32), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.CheckConstraint("amount <> 0", name=op.f("ck_ledger_posting_amount")),
        sa.ForeignKeyConstraint(
            ["entry"], ["ledger_entry.id"], name=op.f("fk_ledger_posting_entry")
        ),
        sa.PrimaryKeyConstraint("entry", "account", name=op.f("pk_ledger_posting")),
    )
    op.create_index("ix_ledger_posting_account", "ledger_posting", ["account"], unique=False)
    op.create_table(
        "hold_promise",
        sa.Column("rid", sa.String(length=64), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("pinned", sa.String(length=64), nullable=True),
        sa.Column("pinned_at", sa.BigInteger(), nullable=True),
        sa.Column("media_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["rid"], ["reservation.rid"], name=op.f("fk_hold_promise_rid")),
        sa.PrimaryKeyConstraint("rid", name=op.f("pk_hold_promise")),
    )
    op.create_table(
        "order_adjustment",
        sa.Column("rid", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("title", sa.String(length=60), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("included", sa.Boolean(), nullable=False),
        sa.Column("basis", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["rid"], ["reservation.rid"], name=op.f("fk_order_adjustment_rid")),
        sa.PrimaryKeyConstraint("rid", "position", name=op.f("pk_order_adjustment")),
    )
    op.create_table(
        "dispute",
        sa.Column("provider_id", sa.String(length=255), nullable=False),
        sa.Column("rid", sa.String(length=64), nullable=False),
        sa.Column("payment", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["payment"], ["payment.id"], name=op.f("fk_dispute_payment")),
        sa.ForeignKeyConstraint(["rid"], ["reservation.rid"], name=op.f("fk_dispute_rid")),
        sa.PrimaryKeyConstraint("provider_id", name=op.f("pk_dispute")),
    )
    op.create_index(op.f("ix_dispute_rid"), "dispute", ["rid"], unique=False)
    op.create_table(
        "order_unit",
        sa.Column("order", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("sku", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("price", sa.BigInteger(), nullable=False),
        sa.Column("discount", sa.BigInteger(), nullable=False),
        sa.Column("shipping", sa.BigInteger(), nullable=False),
        sa.Column("tax", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("refunded", sa.BigInteger(), nullable=False),
        sa.Column("shipment", sa.String(length=64), nullable=True),
        sa.Column("return_case", sa.String(length=64), nullable=True),
        sa.CheckConstraint(
            "amount = price - discount + shipping", name=op.f("ck_order_unit_amount")
        ),
        sa.CheckConstraint(
            "refunded >= 0 AND refunded <= amount", name=op.f("ck_order_unit_refunded")
        ),
        sa.CheckConstraint("tax >= 0 AND tax <= amount", name=op.f("ck_order_unit_tax")),
        sa.ForeignKeyConstraint(["order"], ["orders.id"], name=op.f("fk_order_unit_order")),
        sa.PrimaryKeyConstraint("order", "position", "n", name=op.f("pk_order_unit")),
    )
    op.create_index("ix_order_unit_return_case", "order_unit", ["return_case"], unique=False)
    op.create_index("ix_order_unit_shipment", "order_unit", ["shipment"], unique=False)
    op.create_index("ix_order_unit_sku_state", "order_unit", ["sku", "state"], unique=False)
    op.create_table(
        "refund",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("rid", sa.String(length=64), nullable=False),
        sa.Column("payment", sa.String(length=64), nullable=False),
        sa.Column("order", sa.String(length=64), nullable=True),
        sa.Column("provider", sa.String(length=16), nullable=False),
        sa.Column("provider_id", sa.String(length=255), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("reason", sa.String(length=200), nullable=False),
        sa.Column("asked_by", sa.String(length=64), nullable=False),
        sa.Column("units", sa.JSON(), nullable=True),
        sa.Column("return_case", sa.String(length=64), nullable=True),
        sa.Column("failure", sa.String(length=80), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.CheckConstraint("amount > 0", name=op.f("ck_refund_amount")),
        sa.ForeignKeyConstraint(["order"], ["orders.id"], name=op.f("fk_refund_order")),
        sa.ForeignKeyConstraint(["payment"], ["payment.id"], name=op.f("fk_refund_payment")),
        sa.ForeignKeyConstraint(["rid"], ["reservation.rid"], name=op.f("fk_refund_rid")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refund")),
        sa.UniqueConstraint("provider_id", name=op.f("uq_refund_provider_id")),
    )
    op.create_index("ix_refund_next_at", "refund", ["next_at"], unique=False)
    op.create_index(op.f("ix_refund_payment"), "refund", ["payment"], unique=False)
    op.create_index(op.f("ix_refund_rid"), "refund", ["rid"], unique=False)
    op.create_index("ix_refund_state_created_at", "refund", ["state", "created_at"], unique=False)
    op.create_table(
        "return_case",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("rid", sa.String(length=64), nullable=False),
        sa.Column("order", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=200), nullable=False),
        sa.Column("asked_by", sa.String(length=64), nullable=False),
        sa.Column("units", sa.JSON(), nullable=False),
        sa.Column("stock", sa.String(length=16), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["order"], ["orders.id"], name=op.f("fk_return_case_order")),
        sa.ForeignKeyConstraint(["rid"], ["reservation.rid"], name=op.f("fk_return_case_rid")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_return_case")),
    )
    op.create_index(op.f("ix_return_case_rid"), "return_case", ["rid"], unique=False)
    op.create_index(
        "ix_return_case_state_created_at", "return_case", ["state", "created_at"], unique=False
    )
    op.create_table(
        "shipment",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("rid", sa.String(length=64), nullable=False),
        sa.Column("order", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("carrier", sa.String(length=60), nullable=False),
        sa.Column("tracking", sa.String(length=120), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["order"], ["orders.id"], name=op.f("fk_shipment_order")),
        sa.ForeignKeyConstraint(["rid"], ["reservation.rid"], name=op.f("fk_shipment_rid")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shipment")),
    )
    op.create_index(op.f("ix_shipment_rid"), "shipment", ["rid"], unique=False)
    op.create_table(
        "refund_unit",
        sa.Column("refund", sa.String(length=64), nullable=False),
        sa.Column("order", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("tax", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("amount > 0", name=op.f("ck_refund_unit_amount")),
        sa.ForeignKeyConstraint(
            ["order", "position", "n"],
            ["order_unit.order", "order_unit.position", "order_unit.n"],
            name=op.f("fk_refund_unit_order_position_n"),
        ),
        sa.ForeignKeyConstraint(["refund"], ["refund.id"], name=op.f("fk_refund_unit_refund")),
        sa.PrimaryKeyConstraint("refund", "order", "position", "n", name=op.f("pk_refund_unit")),
    )
    op.add_column(
        "orders", sa.Column("discount", sa.BigInteger(), server_default="0", nullable=False)
    )
    op.add_column("orders", sa.Column("tax", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column(
        "orders", sa.Column("refunded", sa.BigInteger(), server_default="0", nullable=False)
    )


def _fill_orders(connection: sa.Connection) -> None:
    lines: dict[str, list[HeldLine]] = {}
    wanted = 'SELECT * FROM order_line ORDER BY "order", position'
    for row in connection.execute(sa.text(wanted)).mappings():
        line = HeldLine(row["sku"], row["title"], row["quantity"], row["unit_amount"])
        lines.setdefault(row["order"], []).append(line)
    for order in connection.execute(sa.text("SELECT * FROM orders")).mappings().all():
        steps = adjust(order["subtotal"], Terms(order["currency"], order["shipping"]))
        for position, step in enumerate(steps):
            _insert(
                connection,
                "order_adjustment",
                rid=order["rid"],
                position=position,
                kind=step.kind,
                title=step.title,
                amount=step.amount,
                included=step.included,
                basis=step.basis,
                created_at=order["placed_at"],
            )
        for unit in share_out(lines[order["id"]], steps):
            _insert(
                connection,
                "order_unit",
                order=order["id"],
                position=unit.position,
                n=unit.n,
                sku=unit.sku,
                state="sold",
                price=unit.price,
                discount=unit.discount,
                shipping=unit.shipping,
                tax=unit.tax,
                amount=unit.amount,
                refunded=0,
            )
        paid = sa.text("SELECT * FROM payment WHERE rid = :rid AND state = 'captured'")
        for payment in connection.execute(paid, {"rid": order["rid"]}).mappings().all():
            postings = [
                Posting(Account.PROVIDER, payment["captured"]),
                *sale(order["subtotal"], 0, order["shipping"], 0),
            ]
            _post(connection, f"capture:{payment['id']}", payment, postings)


def _fill_late_money(connection: sa.Connection) -> None:
    wanted = sa.text("SELECT * FROM payment WHERE state = 'unallocated' AND captured > 0")
    for payment in connection.execute(wanted).mappings().all():
        taken = moved(Account.UNALLOCATED, Account.PROVIDER, payment["captured"])
        _post(connection, f"capture:{payment['id']}", payment, taken)
        id_, at = f"late-{payment['id']}"[:64], payment["updated_at"]
        _insert(
            connection,
            "refund",
            id=id_,
            rid=payment["rid"],
            payment=payment["id"],
            provider=payment["provider"],
            state="requested",
            amount=payment["captured"],
            currency=payment["currency"],
            reason="no unit left",
            asked_by="",
            failure="",
            created_at=at,
            updated_at=at,
            next_at=at,
            tries=0,
        )
        owed = refund_promised(payment["captured"], 0, has_order=False)
        _post(connection, f"refund:{id_}", payment, owed)
        connection.execute(
            sa.text("UPDATE payment SET refunded = captured WHERE id = :id"), {"id": payment["id"]}
        )


def _post(connection: sa.Connection, ref: str, payment: Any, postings: list[Posting]) -> None:
    _insert(connection, "ledger_entry", ref=ref, rid=payment["rid"], at=payment["updated_at"])
    found = connection.execute(
        sa.text("SELECT id FROM ledger_entry WHERE ref = :ref"), {"ref": ref}
    )
    entry = found.scalar_one()
    for row in balanced(postings):
        _insert(
            connection,
            "ledger_posting",
            entry=entry,
            account=row.account.value,
            amount=row.amount,
            currency=payment["currency"],
        )


def _insert(connection: sa.Connection, table: str, **values: Any) -> None:
    known = sa.table(
        table,
        *(
            sa.column(n, sa.JSON()) if isinstance(v, dict) else sa.column(n)
            for n, v in values.items()
        ),
    )
    connection.execute(known.insert().values(**values))
