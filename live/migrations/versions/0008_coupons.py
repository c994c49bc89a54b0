"""Coupons: codes that take something off so many orders."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Creates what this version adds."""
    op.create_table(
        "coupon",
        sa.Column("code", sa.String(length=40), nullable=False),
        sa.Column("title", sa.String(length=60), nullable=False),
        sa.Column("percent_bp", sa.Integer(), nullable=True),
        sa.Column("amount", sa.BigInteger(), nullable=True),
        sa.Column("uses_max", sa.BigInteger(), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=True),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "(percent_bp IS NULL) <> (amount IS NULL)", name=op.f("ck_coupon_one_rule")
        ),
        sa.CheckConstraint("used >= 0 AND used <= uses_max", name=op.f("ck_coupon_used")),
        sa.PrimaryKeyConstraint("code", name=op.f("pk_coupon")),
    )
    op.create_table(
        "coupon_use",
        sa.Column("rid", sa.String(length=64), nullable=False),
        sa.Column("coupon", sa.String(length=40), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["coupon"], ["coupon.code"], name=op.f("fk_coupon_use_coupon_coupon")
        ),
        sa.ForeignKeyConstraint(
            ["rid"], ["reservation.rid"], name=op.f("fk_coupon_use_rid_reservation")
        ),
        sa.PrimaryKeyConstraint("rid", name=op.f("pk_coupon_use")),
    )
    op.create_index(op.f("ix_coupon_use_coupon"), "coupon_use", ["coupon"])
