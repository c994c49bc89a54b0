"""Keys of persons, and their details sealed. The program moves the old rows: it has the master."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Creates what this version adds."""
    op.create_table(
        "person_key",
        sa.Column("person", sa.String(length=64), nullable=False),
        sa.Column("wrapped", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("destroyed_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("person", name=op.f("pk_person_key")),
    )
    op.create_table(
        "person_detail",
        sa.Column("rid", sa.String(length=64), nullable=False),
        sa.Column("person", sa.String(length=64), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["rid"], ["reservation.rid"], name=op.f("fk_person_detail_rid")),
        sa.ForeignKeyConstraint(
            ["person"], ["person_key.person"], name=op.f("fk_person_detail_person")
        ),
        sa.PrimaryKeyConstraint("rid", name=op.f("pk_person_detail")),
    )
    op.create_index(op.f("ix_person_detail_person"), "person_detail", ["person"])
    op.create_index("ix_person_detail_updated_at", "person_detail", ["updated_at"])
