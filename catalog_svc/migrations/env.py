"""Run by Alembic (chassis/migration.py)."""

from catalog_svc.tables import CatalogRow
from chassis.migration import run_in_alembic

run_in_alembic(CatalogRow.metadata)
