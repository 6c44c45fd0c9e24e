"""Customers' idempotency keys."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_ID = sa.String(100).with_variant(sa.String(100, collation="C"), "postgresql")
_KEY = sa.String(255).with_variant(sa.String(255, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "idempotency_key",
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("idempotency_key", _KEY, nullable=False),
        sa.Column("request_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("request_id", _ID, nullable=False),
        sa.Column("spool_uuid", _ID, nullable=False),
        sa.Column("incarnation", sa.BigInteger, nullable=False),
        sa.Column("expire_time_us", sa.BigInteger, nullable=False),
        sa.Column("finished", sa.Boolean, nullable=False),
        sa.Column("status_code", sa.SmallInteger(), nullable=False),
        sa.Column("content_type", sa.String(200), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "idempotency_key"),
    )
    op.create_index("idempotency_key_expiry", "idempotency_key", ["expire_time_us"], unique=False)


def downgrade() -> None:
    op.drop_table("idempotency_key")
