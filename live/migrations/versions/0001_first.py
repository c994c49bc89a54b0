"""The first schema."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Creates what this version adds."""
    op.create_table(
        "account",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("login", sa.String(length=120), nullable=False),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("disabled_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "role IN ('viewer', 'moderator', 'host', 'operator')", name=op.f("ck_account_role")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_account")),
        sa.UniqueConstraint("login", name=op.f("uq_account_login")),
    )
    op.create_table(
        "idempotency",
        sa.Column("scope", sa.String(length=160), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("request_sha", sa.String(length=64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("body", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "key", name=op.f("pk_idempotency")),
    )
    op.create_index("ix_idempotency_created_at", "idempotency", ["created_at"], unique=False)
    op.create_table(
        "outbox",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("topic", sa.String(length=32), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("claimed_until", sa.BigInteger(), nullable=True),
        sa.Column("sent_at", sa.BigInteger(), nullable=True),
        sa.Column("gate_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    op.create_index("ix_outbox_gate_at_id", "outbox", ["gate_at", "id"], unique=False)
    op.create_index("ix_outbox_sent_at_id", "outbox", ["sent_at", "id"], unique=False)
    op.create_index("ix_outbox_topic_key_id", "outbox", ["topic", "key", "id"], unique=False)
    op.create_table(
        "product",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("handle", sa.String(length=255), nullable=False),
        sa.Column("title", sa.String(length=255), nullable=False),
        sa.Column("description_html", sa.Text(), nullable=False),
        sa.Column("vendor", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=255), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("published", sa.Boolean(), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_product")),
        sa.UniqueConstraint("handle", name=op.f("uq_product_handle")),
    )
    op.create_table(
        "psp_inbox",
        sa.Column("provider", sa.String(length=16), nullable=False),
        sa.Column("event_id", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=80), nullable=False),
        sa.Column("object_id", sa.String(length=255), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("provider", "event_id", name=op.f("pk_psp_inbox")),
    )
    op.create_index("ix_psp_inbox_state_next_at", "psp_inbox", ["state", "next_at"], unique=False)
    op.create_table(
        "sale_drop",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("show", sa.String(length=64), nullable=False),
        sa.Column("title", sa.String(length=120), nullable=False),
        sa.Column("opens_at", sa.BigInteger(), nullable=False),
        sa.Column("closes_at", sa.BigInteger(), nullable=True),
        sa.Column("closed_at", sa.BigInteger(), nullable=True),
        sa.Column("hold_s", sa.Integer(), nullable=False),
        sa.Column("per_viewer", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sale_drop")),
    )
    op.create_index(op.f("ix_sale_drop_show"), "sale_drop", ["show"], unique=False)
    op.create_table(
        "shop",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("shipping_amount", sa.BigInteger(), nullable=False),
        sa.Column("gate_epoch", sa.BigInteger(), nullable=False),
        sa.Column("gate_n", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("id = 1", name=op.f("ck_shop_single")),
        sa.CheckConstraint("shipping_amount >= 0", name=op.f("ck_shop_shipping")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shop")),
    )
    op.create_table(
        "show",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("title", sa.String(length=160), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("video", sa.Text(), nullable=True),
        sa.Column("hidden", sa.Boolean(), nullable=False),
        sa.Column("starts_at", sa.BigInteger(), nullable=True),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("pinned", sa.String(length=64), nullable=True),
        sa.Column("pinned_at", sa.BigInteger(), nullable=True),
        sa.Column("announcement", sa.Text(), nullable=False),
        sa.Column("announced_at", sa.BigInteger(), nullable=True),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("action", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "state IN ('scheduled', 'live', 'paused', 'ended')", name=op.f("ck_show_state")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_show")),
    )
    op.create_index("ix_show_state_hidden", "show", ["state", "hidden"], unique=False)
    op.create_table(
        "stock_ledger",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("sku", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("d_on_hand", sa.BigInteger(), nullable=False),
        sa.Column("d_held", sa.BigInteger(), nullable=False),
        sa.Column("d_committed", sa.BigInteger(), nullable=False),
        sa.Column("ref", sa.String(length=80), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stock_ledger")),
        sa.UniqueConstraint("ref", "sku", "kind", name=op.f("uq_stock_ledger_ref_sku_kind")),
    )
    op.create_index("ix_stock_ledger_sku_id", "stock_ledger", ["sku", "id"], unique=False)
    op.create_table(
        "viewer_use",
        sa.Column("drop", sa.String(length=64), nullable=False),
        sa.Column("viewer", sa.String(length=64), nullable=False),
        sa.Column("sku", sa.String(length=64), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("units >= 0", name=op.f("ck_viewer_use_units")),
        sa.PrimaryKeyConstraint("drop", "viewer", "sku", name=op.f("pk_viewer_use")),
    )
    op.create_table(
        "product_image",
        sa.Column("product", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("alt", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["product"], ["product.id"], name=op.f("fk_product_image_product")),
        sa.PrimaryKeyConstraint("product", "position", name=op.f("pk_product_image")),
    )
    op.create_table(
        "reservation",
        sa.Column("rid", sa.String(length=64), nullable=False),
        sa.Column("viewer", sa.String(length=64), nullable=False),
        sa.Column("drop", sa.String(length=64), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("until_ms", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("closed_at", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.String(length=32), nullable=True),
        sa.ForeignKeyConstraint(["drop"], ["sale_drop.id"], name=op.f("fk_reservation_drop")),
        sa.PrimaryKeyConstraint("rid", name=op.f("pk_reservation")),
    )
    op.create_index("ix_reservation_closed_at", "reservation", ["closed_at"], unique=False)
    op.create_index("ix_reservation_drop", "reservation", ["drop"], unique=False)
    op.create_index(
        "ix_reservation_state_until_ms", "reservation", ["state", "until_ms"], unique=False
    )
    op.create_index("ix_reservation_viewer_state", "reservation", ["viewer", "state"], unique=False)
    op.create_table(
        "sign_in_link",
        sa.Column("token_sha", sa.String(length=64), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("used_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["account"], ["account.id"], name=op.f("fk_sign_in_link_account")),
        sa.PrimaryKeyConstraint("token_sha", name=op.f("pk_sign_in_link")),
    )
    op.create_table(
        "sku",
        sa.Column("sku", sa.String(length=64), nullable=False),
        sa.Column("product", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("title", sa.String(length=255), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("compare_at", sa.BigInteger(), nullable=True),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("barcode", sa.String(length=64), nullable=False),
        sa.Column("image_url", sa.Text(), nullable=False),
        sa.Column("grams", sa.Integer(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.CheckConstraint("amount >= 0", name=op.f("ck_sku_amount")),
        sa.ForeignKeyConstraint(["product"], ["product.id"], name=op.f("fk_sku_product")),
        sa.PrimaryKeyConstraint("sku", name=op.f("pk_sku")),
    )
    op.create_index(op.f("ix_sku_product"), "sku", ["product"], unique=False)
    op.create_table(
        "customer_detail",
        sa.Column("rid", sa.String(length=64), nullable=False),
        sa.Column("viewer", sa.String(length=64), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["rid"], ["reservation.rid"], name=op.f("fk_customer_detail_rid")),
        sa.PrimaryKeyConstraint("rid", name=op.f("pk_customer_detail")),
    )
    op.create_index(op.f("ix_customer_detail_viewer"), "customer_detail", ["viewer"], unique=False)
    op.create_table(
        "orders",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("rid", sa.String(length=64), nullable=False),
        sa.Column("viewer", sa.String(length=64), nullable=False),
        sa.Column("show", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("subtotal", sa.BigInteger(), nullable=False),
        sa.Column("shipping", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("placed_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["rid"], ["reservation.rid"], name=op.f("fk_orders_rid")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orders")),
        sa.UniqueConstraint("rid", name=op.f("uq_orders_rid")),
    )
    op.create_index("ix_orders_placed_at_id", "orders", ["placed_at", "id"], unique=False)
    op.create_index(op.f("ix_orders_show"), "orders", ["show"], unique=False)
    op.create_index(op.f("ix_orders_viewer"), "orders", ["viewer"], unique=False)
    op.create_table(
        "payment",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("rid", sa.String(length=64), nullable=False),
        sa.Column("provider", sa.String(length=16), nullable=False),
        sa.Column("session_id", sa.String(length=255), nullable=True),
        sa.Column("intent_id", sa.String(length=255), nullable=True),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("shipping", sa.BigInteger(), nullable=False),
        sa.Column("captured", sa.BigInteger(), nullable=False),
        sa.Column("refunded", sa.BigInteger(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.CheckConstraint("captured <= amount", name=op.f("ck_payment_captured")),
        sa.CheckConstraint("refunded <= captured", name=op.f("ck_payment_refunded")),
        sa.ForeignKeyConstraint(["rid"], ["reservation.rid"], name=op.f("fk_payment_rid")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payment")),
        sa.UniqueConstraint("intent_id", name=op.f("uq_payment_intent_id")),
        sa.UniqueConstraint("session_id", name=op.f("uq_payment_session_id")),
    )
    op.create_index("ix_payment_next_at", "payment", ["next_at"], unique=False)
    op.create_index(op.f("ix_payment_rid"), "payment", ["rid"], unique=False)
    op.create_table(
        "reservation_line",
        sa.Column("rid", sa.String(length=64), nullable=False),
        sa.Column("sku", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("title", sa.String(length=512), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("unit_amount", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("quantity > 0", name=op.f("ck_reservation_line_quantity")),
        sa.ForeignKeyConstraint(["rid"], ["reservation.rid"], name=op.f("fk_reservation_line_rid")),
        sa.PrimaryKeyConstraint("rid", "sku", name=op.f("pk_reservation_line")),
    )
    op.create_table(
        "sale_drop_line",
        sa.Column("drop", sa.String(length=64), nullable=False),
        sa.Column("sku", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=True),
        sa.Column("taken", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("taken >= 0", name=op.f("ck_sale_drop_line_taken")),
        sa.CheckConstraint(
            "units IS NULL OR taken <= units", name=op.f("ck_sale_drop_line_not_over_units")
        ),
        sa.ForeignKeyConstraint(["drop"], ["sale_drop.id"], name=op.f("fk_sale_drop_line_drop")),
        sa.ForeignKeyConstraint(["sku"], ["sku.sku"], name=op.f("fk_sale_drop_line_sku")),
        sa.PrimaryKeyConstraint("drop", "sku", name=op.f("pk_sale_drop_line")),
    )
    op.create_table(
        "sku_stock",
        sa.Column("sku", sa.String(length=64), nullable=False),
        sa.Column("on_hand", sa.BigInteger(), nullable=False),
        sa.Column("held", sa.BigInteger(), nullable=False),
        sa.Column("committed", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("committed >= 0", name=op.f("ck_sku_stock_committed")),
        sa.CheckConstraint("held + committed <= on_hand", name=op.f("ck_sku_stock_not_oversold")),
        sa.CheckConstraint("held >= 0", name=op.f("ck_sku_stock_held")),
        sa.ForeignKeyConstraint(["sku"], ["sku.sku"], name=op.f("fk_sku_stock_sku")),
        sa.PrimaryKeyConstraint("sku", name=op.f("pk_sku_stock")),
    )
    op.create_table(
        "order_line",
        sa.Column("order", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("sku", sa.String(length=64), nullable=False),
        sa.Column("title", sa.String(length=512), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("unit_amount", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["order"], ["orders.id"], name=op.f("fk_order_line_order")),
        sa.PrimaryKeyConstraint("order", "position", name=op.f("pk_order_line")),
    )


def downgrade() -> None:
    """Takes it away again."""
    op.drop_table("order_line")
    op.drop_table("sku_stock")
    op.drop_table("sale_drop_line")
    op.drop_table("reservation_line")
    op.drop_index(op.f("ix_payment_rid"), table_name="payment")
    op.drop_index("ix_payment_next_at", table_name="payment")
    op.drop_table("payment")
    op.drop_index(op.f("ix_orders_viewer"), table_name="orders")
    op.drop_index(op.f("ix_orders_show"), table_name="orders")
    op.drop_index("ix_orders_placed_at_id", table_name="orders")
    op.drop_table("orders")
    op.drop_index(op.f("ix_customer_detail_viewer"), table_name="customer_detail")
    op.drop_table("customer_detail")
    op.drop_index(op.f("ix_sku_product"), table_name="sku")
    op.drop_table("sku")
    op.drop_table("sign_in_link")
    op.drop_index("ix_reservation_viewer_state", table_name="reservation")
    op.drop_index("ix_reservation_state_until_ms", table_name="reservation")
    op.drop_index("ix_reservation_drop", table_name="reservation")
    op.drop_index("ix_reservation_closed_at", table_name="reservation")
    op.drop_table("reservation")
    op.drop_table("product_image")
    op.drop_table("viewer_use")
    op.drop_index("ix_stock_ledger_sku_id", table_name="stock_ledger")
    op.drop_table("stock_ledger")
    op.drop_index("ix_show_state_hidden", table_name="show")
    op.drop_table("show")
    op.drop_table("shop")
    op.drop_index(op.f("ix_sale_drop_show"), table_name="sale_drop")
    op.drop_table("sale_drop")
    op.drop_index("ix_psp_inbox_state_next_at", table_name="psp_inbox")
    op.drop_table("psp_inbox")
    op.drop_table("product")
    op.drop_index("ix_outbox_topic_key_id", table_name="outbox")
    op.drop_index("ix_outbox_sent_at_id", table_name="outbox")
    op.drop_index("ix_outbox_gate_at_id", table_name="outbox")
    op.drop_table("outbox")
    op.drop_index("ix_idempotency_created_at", table_name="idempotency")
    op.drop_table("idempotency")
    op.drop_table("account")
