"""catalog_svc: what the migrations make is what the tables say, on both engines."""

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection

from catalog_svc import migrations
from catalog_svc.tables import CatalogRow
from chassis.database import open_engine
from chassis.migration import current, head, migrate


def _differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    return list(compare_metadata(context, CatalogRow.metadata))


async def test_the_migrated_schema_is_the_one_of_the_tables(database_url: str) -> None:
    assert await migrate(database_url, migrations) == "0001"
    engine = open_engine(database_url)
    try:
        async with engine.connect() as connection:
            assert await connection.run_sync(_differences) == []
    finally:
        await engine.dispose()


async def test_migrating_again_keeps_what_is_there(database_url: str) -> None:
    await migrate(database_url, migrations)
    await migrate(database_url, migrations)
    assert await current(database_url) == head(migrations)
