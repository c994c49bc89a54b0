"""The wait list, stock that drains, raffles."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_PENDING = sa.text("state IN ('entered', 'waiting')")


def upgrade() -> None:
    """Creates what this version adds."""
    op.add_column(
        "sku_stock",
        sa.Column("draining", sa.BigInteger(), nullable=False, server_default="0"),
    )
    for column in (
        sa.Column("draws_at", sa.BigInteger(), nullable=True),
        sa.Column("seed", sa.String(length=64), nullable=True),
        sa.Column("seed_sha", sa.String(length=64), nullable=True),
        sa.Column("drawn_at", sa.BigInteger(), nullable=True),
        sa.Column("entries", sa.BigInteger(), nullable=True),
    ):
        op.add_column("sale_drop", column)
    op.create_table(
        "waiting",
        sa.Column(
            "n",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("rid", sa.String(length=64), nullable=False),
        sa.Column("drop", sa.String(length=64), nullable=False),
        sa.Column("sku", sa.String(length=64), nullable=False),
        sa.Column("viewer", sa.String(length=64), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("place", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("closed_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("quantity > 0", name=op.f("ck_waiting_quantity")),
        sa.ForeignKeyConstraint(["drop"], ["sale_drop.id"], name=op.f("fk_waiting_drop")),
        sa.PrimaryKeyConstraint("n", name=op.f("pk_waiting")),
        sa.UniqueConstraint("rid", name=op.f("uq_waiting_rid")),
    )
    op.create_index("ix_waiting_drop_sku_state", "waiting", ["drop", "sku", "state"])
    op.create_index("ix_waiting_viewer_state", "waiting", ["viewer", "state"])
    op.create_index("ix_waiting_state", "waiting", ["state"])
    op.create_index(
        "uq_waiting_pending",
        "waiting",
        ["drop", "sku", "viewer"],
        unique=True,
        sqlite_where=_PENDING,
        postgresql_where=_PENDING,
    )
