"""Accounts, keys, and the history of their changes."""

import time

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.String(27).with_variant(sa.String(27, collation="C"), "postgresql")
_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("account_id", _ID, primary_key=True),
        sa.Column("name", sa.String(100), nullable=False, unique=True),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("create_time", _MOMENT, nullable=False),
    )
    op.create_table(
        "keys",
        sa.Column("key_id", _ID, primary_key=True),
        sa.Column("account_id", _ID, sa.ForeignKey("accounts.account_id"), nullable=False),
        sa.Column("secret_hmac", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("public_prefix", sa.String(40), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("allowed_models", sa.JSON, nullable=False),
        sa.Column("expire_time", _MOMENT),
        sa.Column("log_inputs", sa.Boolean, nullable=False),
        sa.Column("log_outputs", sa.Boolean, nullable=False),
        sa.Column("log_retention_days", sa.Integer, nullable=False),
        sa.Column("create_time", _MOMENT, nullable=False),
        sa.Column("revoke_time", _MOMENT),
    )
    op.create_index("keys_by_account", "keys", ["account_id", "key_id"])
    op.create_table(
        "key_changes",
        sa.Column("revision", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("key_id", _ID),
        sa.Column("account_id", _ID),
    )
    service_state = op.create_table(
        "service_state",
        sa.Column("state_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("key_revision", sa.BigInteger, nullable=False),
        sa.Column("pepper_check", sa.LargeBinary),
    )
    op.create_table(
        "writes",
        sa.Column("request_id", sa.String(100), primary_key=True),
        sa.Column("request_sha256", sa.LargeBinary, nullable=False),
        sa.Column("response", sa.LargeBinary, nullable=False),
        sa.Column("create_time", _MOMENT, nullable=False),
    )
    # Counting from now, in milliseconds, tells a reader of this database from one of another (key_changes.py).
    op.bulk_insert(service_state, [{"state_id": 1, "key_revision": time.time_ns() // 1_000_000}])


def downgrade() -> None:
    for table in ("writes", "service_state", "key_changes", "keys", "accounts"):
        op.drop_table(table)
