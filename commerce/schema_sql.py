"""The tables of the record. Alembic migrations (`live/migrations`) create what stands here.

Responsible for names, types and the last walls: `CHECK (held + committed <= on_hand)` refuses an
oversold unit even if everything above it is wrong. It must not hold queries. Times are integers
(milliseconds UTC), because the same code runs on SQLite, and because time is always an argument.
Money is minor units. Personal data stands in `person_detail` alone, sealed under the person's key.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Ms = BigInteger
Amount = BigInteger
Id = String(64)
Auto = BigInteger().with_variant(Integer, "sqlite")

shop = Table(
    "shop",
    metadata,
    Column("id", Integer, primary_key=True),  # always 1
    Column("name", String(120), nullable=False),
    Column("currency", String(3), nullable=False),
    Column("shipping_amount", Amount, nullable=False),
    Column("gate_epoch", BigInteger, nullable=False),  # fences a gate that came back old
    Column("gate_n", BigInteger, nullable=True),  # decisions made without a gate; null: it has one
    CheckConstraint("id = 1", name="single"),
    CheckConstraint("shipping_amount >= 0", name="shipping"),
)

product = Table(
    "product",
    metadata,
    Column("id", Id, primary_key=True),
    Column("handle", String(255), nullable=False, unique=True),
    Column("title", String(255), nullable=False),
    Column("description_html", Text, nullable=False),
    Column("vendor", String(255), nullable=False),
    Column("kind", String(255), nullable=False),
    Column("tags", JSON, nullable=False),
    Column("options", JSON, nullable=False),  # names in order: ["Size", "Colour"]
    Column("published", Boolean, nullable=False),
    Column("fingerprint", String(64), nullable=False),  # of the imported content
    Column("created_at", Ms, nullable=False),
    Column("updated_at", Ms, nullable=False),
)

product_image = Table(
    "product_image",
    metadata,
    Column("product", Id, ForeignKey("product.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("url", Text, nullable=False),
    Column("alt", Text, nullable=False),
)

sku = Table(
    "sku",
    metadata,
    Column("sku", Id, primary_key=True),
    Column("product", Id, ForeignKey("product.id"), nullable=False, index=True),
    Column("position", Integer, nullable=False),
    Column("title", String(255), nullable=False),  # "Small / Blue", empty for the only variant
    Column("options", JSON, nullable=False),  # {"Size": "Small"}
    Column("amount", Amount, nullable=False),
    Column("compare_at", Amount, nullable=True),
    Column("currency", String(3), nullable=False),
    Column("barcode", String(64), nullable=False),
    Column("image_url", Text, nullable=False),
    Column("grams", Integer, nullable=False),
    Column("active", Boolean, nullable=False),
    CheckConstraint("amount >= 0", name="amount"),
)

sku_stock = Table(
    "sku_stock",
    metadata,
    Column("sku", Id, ForeignKey("sku.sku"), primary_key=True),
    Column("on_hand", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),
    Column("committed", BigInteger, nullable=False),
    Column("draining", BigInteger, nullable=False, server_default="0"),  # leave when freed
    CheckConstraint("held >= 0", name="held"),
    CheckConstraint("committed >= 0", name="committed"),
    CheckConstraint("held + committed <= on_hand", name="not_oversold"),
)

stock_ledger = Table(
    "stock_ledger",
    metadata,
    Column("id", Auto, primary_key=True, autoincrement=True),
    Column("sku", Id, nullable=False),
    # receive adjust set drain hold release commit ship restock
    Column("kind", String(16), nullable=False),
    Column("d_on_hand", BigInteger, nullable=False),
    Column("d_held", BigInteger, nullable=False),
    Column("d_committed", BigInteger, nullable=False),
    Column("ref", String(80), nullable=False),  # rid, import id, operation id
    Column("at", Ms, nullable=False),
    UniqueConstraint("ref", "sku", "kind"),
    Index("ix_stock_ledger_sku_id", "sku", "id"),
)

sale_drop = Table(
    "sale_drop",
    metadata,
    Column("id", Id, primary_key=True),
    Column("show", Id, nullable=False, index=True),
    Column("title", String(120), nullable=False),
    Column("opens_at", Ms, nullable=False),
    Column("closes_at", Ms, nullable=True),
    Column("closed_at", Ms, nullable=True),
    Column("hold_s", Integer, nullable=False),
    Column("per_viewer", Integer, nullable=True),
    Column("created_at", Ms, nullable=False),
    Column("draws_at", Ms, nullable=True),  # of a raffle: entries until then
    Column("seed", String(64), nullable=True),  # secret until it is drawn
    Column("seed_sha", String(64), nullable=True),
    Column("drawn_at", Ms, nullable=True),
    Column("entries", BigInteger, nullable=True),
)

sale_drop_line = Table(
    "sale_drop_line",
    metadata,
    Column("drop", Id, ForeignKey("sale_drop.id"), primary_key=True),
    Column("sku", Id, ForeignKey("sku.sku"), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("units", BigInteger, nullable=True),
    Column("taken", BigInteger, nullable=False),  # held or sold in this drop
    CheckConstraint("taken >= 0", name="taken"),
    CheckConstraint("units IS NULL OR taken <= units", name="not_over_units"),
)

reservation = Table(
    "reservation",
    metadata,
    Column("rid", Id, primary_key=True),
    Column("viewer", Id, nullable=False),
    Column("drop", Id, ForeignKey("sale_drop.id"), nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("until_ms", Ms, nullable=False),
    Column("epoch", BigInteger, nullable=False),  # receipt: the gate's (epoch, n)
    Column("n", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("total", Amount, nullable=False),
    Column("created_at", Ms, nullable=False),
    Column("closed_at", Ms, nullable=True),
    Column("reason", String(32), nullable=True),
    # of the viewer, if the rule made this hold shorter for them
    Column("lapses", Integer, nullable=False, server_default="0"),
    Index("ix_reservation_viewer_state", "viewer", "state"),
    Index("ix_reservation_state_until_ms", "state", "until_ms"),
    Index("ix_reservation_drop", "drop"),
    Index("ix_reservation_closed_at", "closed_at"),
)

reservation_line = Table(
    "reservation_line",
    metadata,
    Column("rid", Id, ForeignKey("reservation.rid"), primary_key=True),
    Column("sku", Id, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("title", String(512), nullable=False),
    Column("quantity", BigInteger, nullable=False),
    Column("unit_amount", Amount, nullable=False),
    CheckConstraint("quantity > 0", name="quantity"),
)

_PENDING = "state IN ('entered', 'waiting')"

waiting = Table(
    "waiting",
    metadata,
    Column("n", Auto, primary_key=True, autoincrement=True),  # who came first is served first
    Column("rid", Id, nullable=False, unique=True),  # of the reservation it may become
    Column("drop", Id, ForeignKey("sale_drop.id"), nullable=False),
    Column("sku", Id, nullable=False),
    Column("viewer", Id, nullable=False),
    Column("quantity", BigInteger, nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("state", String(16), nullable=False),  # entered waiting offered left passed closed
    Column("place", BigInteger, nullable=True),  # the lot of a raffle; else n decides
    Column("created_at", Ms, nullable=False),
    Column("closed_at", Ms, nullable=True),
    CheckConstraint("quantity > 0", name="quantity"),
    Index("ix_waiting_drop_sku_state", "drop", "sku", "state"),
    Index("ix_waiting_viewer_state", "viewer", "state"),
    Index("ix_waiting_state", "state"),  # those that can still move are few
    Index(
        "uq_waiting_pending",  # a viewer waits once for one thing
        "drop",
        "sku",
        "viewer",
        unique=True,
        sqlite_where=text(_PENDING),
        postgresql_where=text(_PENDING),
    ),
)

viewer_use = Table(
    "viewer_use",
    metadata,
    Column("drop", Id, primary_key=True),
    Column("viewer", Id, primary_key=True),
    Column("sku", Id, primary_key=True),
    Column("units", BigInteger, nullable=False),
    CheckConstraint("units >= 0", name="units"),
)

person_key = Table(
    "person_key",
    metadata,
    Column("person", Id, primary_key=True),
    Column("wrapped", Text, nullable=True),  # the person's key under the master; null: erased
    Column("created_at", Ms, nullable=False),
    Column("destroyed_at", Ms, nullable=True),
)

person_detail = Table(
    "person_detail",
    metadata,
    Column("rid", Id, ForeignKey("reservation.rid"), primary_key=True),
    Column("person", Id, ForeignKey("person_key.person"), nullable=False, index=True),
    Column("sealed", Text, nullable=False),  # name, e-mail, phone, address, under the person's key
    Column("updated_at", Ms, nullable=False),
    Index("ix_person_detail_updated_at", "updated_at"),
)

claim = Table(  # the gate's log: whatever took a number, in its order
    "claim",
    metadata,
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("n", BigInteger, primary_key=True, autoincrement=False),
    Column("verdict", String(16), nullable=False),  # commerce.claims.Kind
    Column("drop", String(64), nullable=False),  # empty: of no drop
    Column("rid", String(128), nullable=False),  # of a press; of a change of stock its ref
    Column("viewer", String(64), nullable=False),
    Column("lines", Text, nullable=False),  # JSON [[sku, units], ...]
    Column("sku", String(64), nullable=False),  # which SKU a refusal is about
    Column("number", BigInteger, nullable=False),
    Column("pressed_at", Ms, nullable=False),  # when it arrived at the node; 0: not a press
    Column("decided_at", Ms, nullable=False),
    Column("node", String(128), nullable=False),
    Index("ix_claim_drop_epoch_n", "drop", "epoch", "n"),
    Index("ix_claim_rid", "rid"),
    Index("ix_claim_decided_at", "decided_at"),
)

claim_flagged = (
    Table(  # presses that a node's own sold-out flag has answered: counted, not numbered
        "claim_flagged",
        metadata,
        Column("drop", String(64), primary_key=True),
        Column("source", String(128), primary_key=True),  # one run of one node
        Column("presses", BigInteger, nullable=False),
        Column("updated_at", Ms, nullable=False),
    )
)

customer_detail = Table(  # details as version 0.1 kept them: sealed and emptied at the next start
    "customer_detail",
    metadata,
    Column("rid", Id, ForeignKey("reservation.rid"), primary_key=True),
    Column("viewer", Id, nullable=False, index=True),
    Column("detail", JSON, nullable=False),
    Column("updated_at", Ms, nullable=False),
)

orders = Table(
    "orders",
    metadata,
    Column("id", Id, primary_key=True),
    Column("rid", Id, ForeignKey("reservation.rid"), nullable=False, unique=True),
    Column("viewer", Id, nullable=False, index=True),
    Column("show", Id, nullable=False, index=True),
    Column("state", String(20), nullable=False),
    Column("currency", String(3), nullable=False),
    Column("subtotal", Amount, nullable=False),
    Column("shipping", Amount, nullable=False),
    Column("discount", Amount, nullable=False, server_default="0"),
    Column("tax", Amount, nullable=False, server_default="0"),  # of which tax
    Column("total", Amount, nullable=False),
    Column("refunded", Amount, nullable=False, server_default="0"),  # has arrived back
    Column("placed_at", Ms, nullable=False),
    Column("updated_at", Ms, nullable=False),
    Index("ix_orders_placed_at_id", "placed_at", "id"),
)

order_line = Table(
    "order_line",
    metadata,
    Column("order", Id, ForeignKey("orders.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("sku", Id, nullable=False),
    Column("title", String(512), nullable=False),
    Column("quantity", BigInteger, nullable=False),
    Column("unit_amount", Amount, nullable=False),
)

payment = Table(
    "payment",
    metadata,
    Column("id", Id, primary_key=True),
    Column("rid", Id, ForeignKey("reservation.rid"), nullable=False, index=True),
    Column("provider", String(16), nullable=False),
    Column("session_id", String(255), nullable=True, unique=True),
    Column("intent_id", String(255), nullable=True, unique=True),
    Column("state", String(20), nullable=False),
    Column("amount", Amount, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("shipping", Amount, nullable=False),
    Column("captured", Amount, nullable=False),
    Column("refunded", Amount, nullable=False),
    Column("url", Text, nullable=False),
    Column("created_at", Ms, nullable=False),
    Column("updated_at", Ms, nullable=False),
    Column("next_at", Ms, nullable=True),  # when the poller looks again; null: settled
    Column("tries", Integer, nullable=False),
    CheckConstraint("captured <= amount", name="captured"),
    CheckConstraint("refunded <= captured", name="refunded"),
    Index("ix_payment_next_at", "next_at"),
)

psp_inbox = Table(
    "psp_inbox",
    metadata,
    Column("provider", String(16), primary_key=True),
    Column("event_id", String(255), primary_key=True),
    Column("kind", String(80), nullable=False),
    Column("object_id", String(255), nullable=False),
    Column("received_at", Ms, nullable=False),
    Column("state", String(16), nullable=False),  # received done parked dead
    Column("tries", Integer, nullable=False),
    Column("next_at", Ms, nullable=True),
    Index("ix_psp_inbox_state_next_at", "state", "next_at"),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("scope", String(160), primary_key=True),  # who, method and route
    Column("key", String(255), primary_key=True),
    Column("request_sha", String(64), nullable=False),
    Column("status", Integer, nullable=True),  # null: in progress
    Column("body", Text, nullable=True),
    Column("created_at", Ms, nullable=False),
    Index("ix_idempotency_created_at", "created_at"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", Auto, primary_key=True, autoincrement=True),
    Column("topic", String(32), nullable=False),  # hold, order, payment, stock
    Column("key", Id, nullable=False),
    Column("payload", JSON, nullable=False),
    Column("created_at", Ms, nullable=False),
    Column("claimed_until", Ms, nullable=True),
    Column("sent_at", Ms, nullable=True),
    Column("gate_at", Ms, nullable=True),  # the gate was told (or need not be)
    Column("hooks_at", Ms, nullable=True),  # other systems' deliveries were made (or need not be)
    Index("ix_outbox_sent_at_id", "sent_at", "id"),
    Index("ix_outbox_gate_at_id", "gate_at", "id"),
    Index("ix_outbox_topic_key_id", "topic", "key", "id"),
    Index(
        "ix_outbox_hooks_open",
        "id",
        sqlite_where=text("hooks_at IS NULL"),
        postgresql_where=text("hooks_at IS NULL"),
    ),
)

webhook_endpoint = Table(
    "webhook_endpoint",
    metadata,
    Column("id", Id, primary_key=True),
    Column("url", Text, nullable=False),
    Column("types", JSON, nullable=False),  # event types; empty: all
    Column("generation", Integer, nullable=False),  # of its signing secret, which is not stored
    Column("rotated_at", Ms, nullable=True),
    Column("created_at", Ms, nullable=False),
    Column("stopped", String(16), nullable=True),  # why nothing is sent: paused, gone
    Column("delivered_at", Ms, nullable=True),  # the last success
)

webhook_event = Table(
    "webhook_event",
    metadata,
    Column("id", Auto, primary_key=True, autoincrement=True),
    Column("uid", Id, nullable=False, unique=True),  # what receivers tell repetitions by
    Column("type", String(64), nullable=False),
    Column("key", Id, nullable=False),  # events of one key are delivered in order
    Column("body", Text, nullable=False),
    Column("created_at", Ms, nullable=False),
    Index("ix_webhook_event_created_at", "created_at"),
)

webhook_delivery = Table(
    "webhook_delivery",
    metadata,
    Column("endpoint", Id, ForeignKey("webhook_endpoint.id"), primary_key=True),
    Column("event", BigInteger, ForeignKey("webhook_event.id"), primary_key=True),
    Column("key", Id, nullable=False),
    Column("state", String(16), nullable=False),  # pending delivered dead
    Column("tries", Integer, nullable=False),
    Column("next_at", Ms, nullable=False),
    Column("claimed_until", Ms, nullable=True),
    Column("answer", String(32), nullable=False),  # of the last try: a status, or why none came
    Column("updated_at", Ms, nullable=False),
    Index("ix_webhook_delivery_state_next_at", "state", "next_at"),
    Index("ix_webhook_delivery_endpoint_key_event", "endpoint", "key", "event"),
    Index("ix_webhook_delivery_event", "event"),
)
