"""What a key may ask for and spend."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("keys") as keys:
        keys.add_column(sa.Column("tier", sa.String(50), nullable=False, server_default=""))
        for name in ("requests_per_minute", "tokens_per_minute", "concurrent_requests"):
            keys.add_column(sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))
        keys.add_column(sa.Column("spend_limit_nanousd", sa.BigInteger))
        keys.add_column(sa.Column("spend_period", sa.String(20)))
    op.add_column("service_state", sa.Column("tiers_check", sa.LargeBinary))


def downgrade() -> None:
    with op.batch_alter_table("keys") as keys:
        for name in ("tier", "requests_per_minute", "tokens_per_minute", "concurrent_requests"):
            keys.drop_column(name)
        keys.drop_column("spend_limit_nanousd")
        keys.drop_column("spend_period")
    with op.batch_alter_table("service_state") as state:
        state.drop_column("tiers_check")
