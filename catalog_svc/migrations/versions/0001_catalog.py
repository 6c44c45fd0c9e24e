"""Snapshots, the documents that made them, and price versions."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    head = op.create_table(
        "head",
        sa.Column("head_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
    )
    op.bulk_insert(head, [{"head_id": 1, "number": 0}])
    op.create_table(
        "snapshots",
        sa.Column("number", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "documents",
        sa.Column("document_id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
    )
    op.create_table(
        "price_versions",
        sa.Column("price_version", sa.String(100), primary_key=True),
        sa.Column("model_id", sa.String(200), nullable=False),
        sa.Column("effective_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        *(
            sa.Column(name, sa.Text(), nullable=False)
            for name in ("prompt", "completion", "input_cache_read", "input_cache_write", "image", "request")
        ),
    )
    op.create_index("ix_price_versions_model_id", "price_versions", ["model_id"])
    op.create_table(
        "writes",
        sa.Column("request_id", sa.String(100), primary_key=True),
        sa.Column("request_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("response", sa.LargeBinary(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    for table in ("writes", "price_versions", "documents", "snapshots", "head"):
        op.drop_table(table)
