"""A charge is its usage row: `entry` becomes a view over movements and usage events.

docs/decisions/0006-a-charge-is-its-usage-row.md says why. Where a batch was posted from moves to `batch`.
"""

import sqlalchemy as sa
from alembic import op

from usage_svc.ledger_view import CREATE_VIEW

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ID = sa.String(100).with_variant(sa.String(100, collation="C"), "postgresql")
_WAIVERS = sa.text("kind = 4")
_NUMBERED = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_MOVED = "kind, account_id, debit_account_id, credit_account_id, amount_nanousd, overflow_nanousd, note, create_time_us"


def upgrade() -> None:
    op.create_table(
        "batch",
        sa.Column("batch_id", _NUMBERED, nullable=False, autoincrement=True),
        sa.Column("spool_uuid", _ID, nullable=False),
        sa.Column("incarnation", sa.BigInteger, nullable=False),
        sa.Column("first_seq", sa.BigInteger, nullable=False),
        sa.Column("create_time_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("batch_id"),
    )
    op.create_table(
        "movement",
        sa.Column("entry_id", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("debit_account_id", _ID, nullable=False),
        sa.Column("credit_account_id", _ID, nullable=False),
        sa.Column("amount_nanousd", sa.BigInteger, nullable=False),
        sa.Column("overflow_nanousd", sa.BigInteger, nullable=False),
        sa.Column("request_id", _ID, nullable=False),
        sa.Column("note", sa.String(500), nullable=False),
        sa.Column("create_time_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("entry_id"),
        sa.CheckConstraint("amount_nanousd > 0", name="movement_amount"),
        sa.CheckConstraint("debit_account_id <> credit_account_id", name="movement_pair"),
        sa.CheckConstraint("account_id IN (debit_account_id, credit_account_id)", name="movement_account"),
    )
    op.create_index("movement_account_time", "movement", ["account_id", "create_time_us", "entry_id"])
    op.add_column("usage_event", sa.Column("entry_id", sa.BigInteger, nullable=False, server_default="0"))
    # Each old entry becomes a batch of its own: who was posted together is not known any more, and the order stays.
    op.execute(
        "INSERT INTO batch (batch_id, spool_uuid, incarnation, first_seq, create_time_us) "
        "SELECT e.entry_id, COALESCE(u.spool_uuid, ''), COALESCE(u.incarnation, 0), COALESCE(u.seq, 0), "
        "e.create_time_us FROM entry e LEFT JOIN usage_event u ON u.request_id = e.request_id AND e.kind = 3"
    )
    op.execute(
        f"INSERT INTO movement (entry_id, request_id, {_MOVED}) "  # noqa: S608 - our names
        f"SELECT entry_id * 1000, request_id, {_MOVED} FROM entry WHERE kind <> 3"
    )
    op.execute(
        "UPDATE usage_event SET entry_id = 1000 * COALESCE("
        "(SELECT e.entry_id FROM entry e WHERE e.request_id = usage_event.request_id AND e.kind = 3), 0)"
    )
    with op.batch_alter_table("usage_event") as table:
        table.alter_column("entry_id", server_default=None)
        table.drop_column("spool_uuid")
        table.drop_column("incarnation")
        table.drop_column("seq")
    op.drop_table("entry")
    op.create_index(
        "movement_waiver",
        "movement",
        ["account_id", "request_id"],
        postgresql_where=_WAIVERS,
        sqlite_where=_WAIVERS,
    )
    op.execute(CREATE_VIEW)
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "SELECT setval(pg_get_serial_sequence('batch', 'batch_id'), "
            "(SELECT COALESCE(MAX(batch_id), 0) + 1 FROM batch))"
        )


def downgrade() -> None:
    raise NotImplementedError("the old ledger had a row for each charge: restore the copy made before the upgrade")
