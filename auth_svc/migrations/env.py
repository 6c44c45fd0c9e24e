"""Run by Alembic."""

from auth_svc.tables import AuthRow
from chassis.migration import run_in_alembic

run_in_alembic(AuthRow.metadata)
