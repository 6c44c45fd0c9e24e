"""What all edges together use of a key's limits."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ID = sa.String(100).with_variant(sa.String(100, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "key_rate",
        sa.Column("key_id", _ID, nullable=False),
        sa.Column("used_requests", sa.Double, nullable=False),
        sa.Column("used_tokens", sa.Double, nullable=False),
        sa.Column("time_us", sa.BigInteger, nullable=False),
        sa.Column("holdings", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("key_id"),
    )
    op.create_index("key_rate_time", "key_rate", ["time_us"])


def downgrade() -> None:
    op.drop_table("key_rate")
