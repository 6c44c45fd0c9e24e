"""Spend limits of keys: what was charged within a period, and what sessions have set aside."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_ID = sa.String(100).with_variant(sa.String(100, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "key_spend",
        sa.Column("key_id", _ID, nullable=False),
        sa.Column("period_id", sa.String(10), nullable=False),
        sa.Column("spent_nanousd", sa.BigInteger, nullable=False),
        sa.Column("counted_time_us", sa.BigInteger, nullable=False),
        sa.Column("is_recounted", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("key_id", "period_id"),
    )
    op.create_table(
        "key_spend_share",
        sa.Column("spool_uuid", _ID, nullable=False),
        sa.Column("incarnation", sa.BigInteger, nullable=False),
        sa.Column("key_id", _ID, nullable=False),
        sa.Column("period_id", sa.String(10), nullable=False),
        sa.Column("granted_nanousd", sa.BigInteger, nullable=False),
        sa.Column("returned_nanousd", sa.BigInteger, nullable=False),
        sa.Column("settled_nanousd", sa.BigInteger, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("near_limit", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("spool_uuid", "incarnation", "key_id", "period_id"),
    )
    op.create_index("key_spend_share_key", "key_spend_share", ["key_id", "period_id"])


def downgrade() -> None:
    op.drop_table("key_spend_share")
    op.drop_table("key_spend")
