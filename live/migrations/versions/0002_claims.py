"""Claims in order, and how many lapses a viewer had when a hold was given."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Creates what this version adds."""
    op.add_column(
        "reservation", sa.Column("lapses", sa.Integer(), nullable=False, server_default="0")
    )
    op.create_table(
        "claim",
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("n", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("drop", sa.String(length=64), nullable=False),
        sa.Column("rid", sa.String(length=128), nullable=False),
        sa.Column("viewer", sa.String(length=64), nullable=False),
        sa.Column("lines", sa.Text(), nullable=False),
        sa.Column("sku", sa.String(length=64), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("pressed_at", sa.BigInteger(), nullable=False),
        sa.Column("decided_at", sa.BigInteger(), nullable=False),
        sa.Column("node", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("epoch", "n", name=op.f("pk_claim")),
    )
    op.create_index("ix_claim_drop_epoch_n", "claim", ["drop", "epoch", "n"])
    op.create_index("ix_claim_rid", "claim", ["rid"])
    op.create_index("ix_claim_decided_at", "claim", ["decided_at"])
    op.create_table(
        "claim_flagged",
        sa.Column("drop", sa.String(length=64), nullable=False),
        sa.Column("source", sa.String(length=128), nullable=False),
        sa.Column("presses", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("drop", "source", name=op.f("pk_claim_flagged")),
    )


def downgrade() -> None:
    """Takes it away again."""
    op.drop_table("claim_flagged")
    op.drop_index("ix_claim_decided_at", table_name="claim")
    op.drop_index("ix_claim_rid", table_name="claim")
    op.drop_index("ix_claim_drop_epoch_n", table_name="claim")
    op.drop_table("claim")
    op.drop_column("reservation", "lapses")
