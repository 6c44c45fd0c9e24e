"""Waiting at the start for a database that can be reached and has this code's schema.

In a cluster a service starts beside the job that migrates, and perhaps before its database. It waits, alive and not
serving, instead of ending: whoever restarts it would wait longer after every end.
"""

import asyncio
import time
from types import ModuleType

import asyncpg
from sqlalchemy.exc import SQLAlchemyError

from chassis import migration
from chassis.lifetime import Lifetime
from chassis.log import logger
from chassis.migration import SchemaState
from chassis.settings import ServiceSettings

_log = logger(__name__)

POLL_INTERVAL_S = 1.0

# The driver's own where the server ends, or is not up yet, while it is connected to.
UNREACHABLE = (SQLAlchemyError, OSError, asyncpg.InterfaceError)


async def until_usable(configured: ServiceSettings, migrations: ModuleType, process: Lifetime) -> None:
    """Returns when the schema can be used, when `schema_wait_s` is over, or when the process is asked to stop.

    What is in the way after the wait shows itself to whoever uses the database next.
    """
    end_s = time.monotonic() + configured.schema_wait_s
    expected = migration.head(migrations)
    told = None
    while time.monotonic() < end_s and not process.stopping:
        obstacle = await _obstacle(configured, migrations)
        if obstacle is None:
            return
        if obstacle != told:
            _log.info("waiting for the database", obstacle=obstacle, expected=expected)
            told = obstacle
        try:
            await asyncio.wait_for(process.until_stopped(), POLL_INTERVAL_S)
        except TimeoutError:
            pass


async def _obstacle(configured: ServiceSettings, migrations: ModuleType) -> str | None:
    """What stands in the way of serving now; never with the URL in it, which holds a password."""
    try:
        found = await migration.current(configured.database_url.get_secret_value(), schema=configured.database_schema)
    except UNREACHABLE as error:
        return f"it cannot be asked: {reason(error)}"
    if migration.state(found, migrations) is SchemaState.BEHIND:
        return f"it is at schema revision {found or 'none'}"
    return None


def reason(error: Exception) -> str:
    """Why the database could not be asked, in one line."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
