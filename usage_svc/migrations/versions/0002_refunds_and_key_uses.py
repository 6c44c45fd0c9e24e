"""Refunds of charges, and when keys were last used."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ID = sa.String(100).with_variant(sa.String(100, collation="C"), "postgresql")
_WAIVERS = sa.text("kind = 4")


def upgrade() -> None:
    for table in ("account", "usage_event"):
        op.add_column(table, sa.Column("refunded_nanousd", sa.BigInteger, nullable=False, server_default="0"))
    op.create_index(
        "entry_waiver",
        "entry",
        ["account_id", "request_id"],
        unique=False,
        postgresql_where=_WAIVERS,
        sqlite_where=_WAIVERS,
    )
    op.create_table(
        "key_use",
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("key_id", sa.String(100), nullable=False),
        sa.Column("last_use_time_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "key_id"),
    )


def downgrade() -> None:
    op.drop_table("key_use")
    op.drop_index("entry_waiver", table_name="entry")
    for table in ("usage_event", "account"):
        op.drop_column(table, "refunded_nanousd")
