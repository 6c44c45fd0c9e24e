"""Schema migrations by Alembic: one history per service, in the service's own `migrations` package.

A service's `migrations/env.py` is one call to `run_in_alembic`; nobody runs the `alembic` command by hand.
"""

import asyncio
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

from sqlalchemy import Connection, MetaData, inspect, text

from chassis.database import open_engine

# Alembic is loaded where it migrates: a service that finds its schema current starts without it.

_REVISION_DIGITS = 4
# Whoever migrates holds this on PostgreSQL, so that two who start at once go one after the other. Any number will do.
_MIGRATION_LOCK = 7_310_580_113


class SchemaState(Enum):
    """How a database stands to the code that asks for it."""

    BEHIND = "behind"  # `tollgate migrate` of this version has not run
    CURRENT = "current"
    AHEAD = "ahead"  # a later version migrated it: safe, since migrations expand first and contract a version later


async def migrate(url: str, package: ModuleType, *, schema: str = "", to: str = "head") -> str:
    """Brings a database to the newest revision, from whatever it is at. Safe to repeat. Returns the revision.

    One that a later version has migrated stays as it is: that is how a version is undone. `to` stops at an earlier
    revision: for tests of what comes after it.
    """
    engine = open_engine(url, schema=schema)
    try:
        async with engine.execution_options(writes=True).connect() as connection:
            if connection.dialect.name == "postgresql":
                await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
            if schema:
                await connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
            revision = await connection.run_sync(_upgrade, package, to)
            await connection.commit()
    finally:
        await engine.dispose()
    return revision


def _upgrade(connection: Connection, package: ModuleType, to: str) -> str:
    found = _found(connection)
    if state(found, package) is not SchemaState.BEHIND:
        assert found is not None  # an empty database is behind
        return found

    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_folder(package)))
    config.attributes["connection"] = connection
    command.upgrade(config, to)
    return head(package)


def head(package: ModuleType) -> str:
    """The newest revision that this code knows. Revisions are numbers, and what a migration's file begins with."""
    return max(path.name[:_REVISION_DIGITS] for path in (_folder(package) / "versions").glob("[0-9]*.py"))


def _folder(package: ModuleType) -> Path:
    assert package.__file__ is not None  # a regular package
    return Path(package.__file__).parent


def state(found: str | None, package: ModuleType) -> SchemaState:
    """What a database's revision means to this code. Revisions sort, as text too."""
    if found == head(package):
        return SchemaState.CURRENT
    return SchemaState.AHEAD if found is not None and found > head(package) else SchemaState.BEHIND


async def current(url: str, *, schema: str = "") -> str | None:
    """The revision that a database is at; None for an empty one."""
    engine = open_engine(url, schema=schema)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(_found)
    finally:
        await engine.dispose()


def _found(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    # Two are none that we can go on from: that is an SQLAlchemyError, for whoever asks.
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return found


def run_in_alembic(metadata: MetaData) -> None:
    """The body of every `env.py`: runs the scripts on the connection that `migrate` passed in."""
    from alembic import context

    connection: Any = context.config.attributes["connection"]
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def migrate_now(url: str, package: ModuleType, *, schema: str = "") -> str:
    """`migrate` for code that has no event loop."""
    return asyncio.run(migrate(url, package, schema=schema))
