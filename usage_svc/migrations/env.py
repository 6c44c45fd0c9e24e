"""Alembic's entry: runs this history on the connection that chassis.migration passed in."""

from chassis.migration import run_in_alembic
from usage_svc.tables import UsageRow

run_in_alembic(UsageRow.metadata)
