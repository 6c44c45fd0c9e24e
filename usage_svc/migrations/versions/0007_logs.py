"""Captured inputs and outputs, and what customers deleted of them."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_ID = sa.String(100).with_variant(sa.String(100, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "request_log",
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("request_id", _ID, nullable=False),
        sa.Column("expire_day", sa.Integer, nullable=False),
        sa.Column("key_id", sa.String(100), nullable=False),
        sa.Column("model_id", sa.String(200), nullable=False),
        sa.Column("resource", sa.SmallInteger, nullable=False),
        sa.Column("status_code", sa.Integer, nullable=False),
        sa.Column("streamed", sa.Boolean, nullable=False),
        sa.Column("end_time_us", sa.BigInteger, nullable=False),
        sa.Column("expire_time_us", sa.BigInteger, nullable=False),
        sa.Column("input_bytes", sa.BigInteger, nullable=False),
        sa.Column("output_bytes", sa.BigInteger, nullable=False),
        sa.Column("parts", sa.SmallInteger, nullable=False),
        sa.Column("padding", sa.LargeBinary, nullable=False),
        sa.Column("input", sa.LargeBinary, nullable=True),
        sa.Column("output", sa.LargeBinary, nullable=True),
        sa.Column("output_raw", sa.LargeBinary, nullable=True),
        sa.PrimaryKeyConstraint("account_id", "request_id", "expire_day"),
        postgresql_partition_by="RANGE (expire_day)",
    )
    op.create_index("request_log_account_time", "request_log", ["account_id", "end_time_us", "request_id"])
    op.create_index("request_log_expire_time", "request_log", ["expire_time_us"])
    op.create_table(
        "log_deletion",
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("request_id", _ID, nullable=False),
        sa.Column("start_time_us", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("end_time_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "request_id", "start_time_us"),
    )
    op.create_index("log_deletion_end_time", "log_deletion", ["end_time_us"])


def downgrade() -> None:
    op.drop_table("log_deletion")
    op.drop_table("request_log")
