"""Accounts, the ledger, sessions, leases and usage events."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.String(100).with_variant(sa.String(100, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "account",
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("available_nanousd", sa.BigInteger, nullable=False),
        sa.Column("grace_nanousd", sa.BigInteger, nullable=True),
        sa.Column("overflow_nanousd", sa.BigInteger, nullable=False),
        sa.Column("credited_nanousd", sa.BigInteger, nullable=False),
        sa.Column("charged_nanousd", sa.BigInteger, nullable=False),
        sa.Column("create_time_us", sa.BigInteger, nullable=False),
        sa.CheckConstraint(
            "available_nanousd + COALESCE(grace_nanousd, 0) + overflow_nanousd >= 0", name="account_solvent"
        ),
        sa.CheckConstraint("grace_nanousd >= 0", name="account_grace"),
        sa.PrimaryKeyConstraint("account_id"),
    )
    op.create_table(
        "entry",
        sa.Column("entry_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("debit_account_id", _ID, nullable=False),
        sa.Column("credit_account_id", _ID, nullable=False),
        sa.Column("amount_nanousd", sa.BigInteger, nullable=False),
        sa.Column("overflow_nanousd", sa.BigInteger, nullable=False),
        sa.Column("request_id", _ID, nullable=False),
        sa.Column("note", sa.String(500), nullable=False),
        sa.Column("create_time_us", sa.BigInteger, nullable=False),
        sa.CheckConstraint("account_id IN (debit_account_id, credit_account_id)", name="entry_account"),
        sa.CheckConstraint("amount_nanousd > 0", name="entry_amount"),
        sa.CheckConstraint("debit_account_id <> credit_account_id", name="entry_pair"),
        sa.PrimaryKeyConstraint("entry_id"),
    )
    op.create_index("entry_account_id", "entry", ["account_id", "entry_id"], unique=False)
    op.create_table(
        "finished_write",
        sa.Column("request_id", sa.String(100), nullable=False),
        sa.Column("request_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("response", sa.LargeBinary(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("request_id"),
    )
    op.create_table(
        "lease",
        sa.Column("lease_id", _ID, nullable=False),
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("spool_uuid", _ID, nullable=False),
        sa.Column("incarnation", sa.BigInteger, nullable=False),
        sa.Column("granted_nanousd", sa.BigInteger, nullable=False),
        sa.Column("settled_nanousd", sa.BigInteger, nullable=False),
        sa.Column("returned_nanousd", sa.BigInteger, nullable=False),
        sa.Column("overflow_nanousd", sa.BigInteger, nullable=False),
        sa.Column("acquire_seq", sa.BigInteger, nullable=False),
        sa.Column("last_granted_nanousd", sa.BigInteger, nullable=False),
        sa.Column("last_near_limit", sa.Boolean(), nullable=False),
        sa.Column("last_available_nanousd", sa.BigInteger, nullable=False),
        sa.Column("closed", sa.Boolean(), nullable=False),
        sa.Column("create_time_us", sa.BigInteger, nullable=False),
        sa.CheckConstraint(
            "settled_nanousd >= 0 AND returned_nanousd >= 0 AND settled_nanousd + returned_nanousd <= granted_nanousd",
            name="lease_conserved",
        ),
        sa.PrimaryKeyConstraint("lease_id"),
    )
    op.create_index("lease_account_open", "lease", ["account_id", "closed"], unique=False)
    op.create_index("lease_session", "lease", ["spool_uuid", "incarnation"], unique=False)
    op.create_table(
        "price_version",
        sa.Column("price_version", sa.String(100), nullable=False),
        sa.Column("prompt", sa.String(50), nullable=False),
        sa.Column("completion", sa.String(50), nullable=False),
        sa.Column("input_cache_read", sa.String(50), nullable=False),
        sa.Column("input_cache_write", sa.String(50), nullable=False),
        sa.Column("image", sa.String(50), nullable=False),
        sa.Column("request", sa.String(50), nullable=False),
        sa.PrimaryKeyConstraint("price_version"),
    )
    op.create_table(
        "quarantine",
        sa.Column("spool_uuid", _ID, nullable=False),
        sa.Column("incarnation", sa.BigInteger, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.String(100), nullable=False),
        sa.Column("record", sa.LargeBinary(), nullable=False),
        sa.Column("create_time_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("spool_uuid", "incarnation", "seq"),
    )
    op.create_table(
        "session",
        sa.Column("spool_uuid", _ID, nullable=False),
        sa.Column("incarnation", sa.BigInteger, nullable=False),
        sa.Column("open_request_id", _ID, nullable=False),
        sa.Column("edge_name", sa.String(200), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("next_seq", sa.BigInteger, nullable=False),
        sa.Column("released_nanousd", sa.BigInteger, nullable=False),
        sa.Column("heartbeat_time_us", sa.BigInteger, nullable=False),
        sa.Column("create_time_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("spool_uuid", "incarnation"),
        sa.UniqueConstraint("spool_uuid", "open_request_id", name="session_open_request_id"),
    )
    op.create_index("session_state", "session", ["state", "heartbeat_time_us"], unique=False)
    op.create_table(
        "spool",
        sa.Column("spool_uuid", _ID, nullable=False),
        sa.Column("incarnation", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("spool_uuid"),
    )
    op.create_table(
        "usage_event",
        sa.Column("day", sa.SmallInteger(), nullable=False),
        sa.Column("request_id", _ID, nullable=False),
        sa.Column("lease_id", _ID, nullable=False),
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("key_id", sa.String(100), nullable=False),
        sa.Column("model_id", sa.String(200), nullable=False),
        sa.Column("deployment_id", sa.String(200), nullable=False),
        sa.Column("resource", sa.SmallInteger(), nullable=False),
        sa.Column("admit_time_us", sa.BigInteger, nullable=False),
        sa.Column("end_time_us", sa.BigInteger, nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=False),
        sa.Column("streamed", sa.Boolean(), nullable=False),
        sa.Column("outcome", sa.SmallInteger(), nullable=False),
        sa.Column("source", sa.SmallInteger(), nullable=False),
        sa.Column("ending", sa.SmallInteger(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("completion_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("cache_write_tokens", sa.BigInteger, nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger, nullable=False),
        sa.Column("audio_tokens", sa.BigInteger, nullable=False),
        sa.Column("image_tokens", sa.BigInteger, nullable=False),
        sa.Column("images", sa.BigInteger, nullable=False),
        sa.Column("price_version", sa.String(100), nullable=False),
        sa.Column("hold_nanousd", sa.BigInteger, nullable=False),
        sa.Column("plausible_tokens_max", sa.BigInteger, nullable=False),
        sa.Column("first_byte_ms", sa.BigInteger, nullable=False),
        sa.Column("duration_ms", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.LargeBinary(), nullable=False),
        sa.Column("charged_nanousd", sa.BigInteger, nullable=False),
        sa.Column("overflow_nanousd", sa.BigInteger, nullable=False),
        sa.Column("spool_uuid", _ID, nullable=False),
        sa.Column("incarnation", sa.BigInteger, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("day", "request_id"),
    )
    op.create_index("usage_event_account", "usage_event", ["account_id", "end_time_us", "request_id"], unique=False)


def downgrade() -> None:
    op.drop_index("usage_event_account", table_name="usage_event")
    op.drop_table("usage_event")
    op.drop_table("spool")
    op.drop_index("session_state", table_name="session")
    op.drop_table("session")
    op.drop_table("quarantine")
    op.drop_table("price_version")
    op.drop_index("lease_session", table_name="lease")
    op.drop_index("lease_account_open", table_name="lease")
    op.drop_table("lease")
    op.drop_table("finished_write")
    op.drop_index("entry_account_id", table_name="entry")
    op.drop_table("entry")
    op.drop_table("account")
