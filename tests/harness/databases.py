"""Migrated databases: the first of a kind is migrated, and every further one is a copy of it, in a third of the time.

What migrations do is tested in tests/service/test_*_schema.py and test_usage_migrations.py, by chassis' own `migrate`.
"""

import asyncio
import shutil
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

import asyncpg
from sqlalchemy import URL, make_url

from chassis import migration

_folder = tempfile.TemporaryDirectory(prefix="tollgate-databases-")  # goes with this process
_templates: dict[tuple[str, str], str] = {}
_making = Lock()
# What a copy does not share with what it is a copy of: each database of auth_svc counts from the time it was made at.
_OF_ITS_OWN = {"auth_svc.migrations": "UPDATE service_state SET key_revision = {now_ms}"}


async def migrate(database_url: str, package: ModuleType) -> None:
    """Brings a test's database to the newest revision of a service's migrations, whatever it holds."""
    url = make_url(database_url)
    if url.host:  # by way of a relay
        await migration.migrate(_text(url), package)
    elif url.get_backend_name() == "sqlite":
        await asyncio.to_thread(_migrate_sqlite, url, package)
    else:
        await _migrate_postgres(url, package)


def _migrate_sqlite(url: URL, package: ModuleType) -> None:
    path, template = Path(str(url.database)), Path(_folder.name) / f"{package.__name__}.db"
    if path.exists():
        migration.migrate_now(_text(url), package)
        return
    with _making:
        if not template.exists():
            unfinished = template.with_suffix(".unfinished")
            migration.migrate_now(_text(url.set(database=str(unfinished))), package)
            unfinished.rename(template)
    shutil.copyfile(template, path)
    if package.__name__ in _OF_ITS_OWN:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(_of_its_own(package))


async def _migrate_postgres(url: URL, package: ModuleType) -> None:
    if not await _is_empty(url):
        await migration.migrate(_text(url), package)
        return
    key = (str(url.query["host"]), package.__name__)
    if key not in _templates:
        name = f"template_{package.__name__.replace('.', '_')}"
        await _execute(_maintenance(url), f'CREATE DATABASE "{name}" STRATEGY FILE_COPY')
        await migration.migrate(_text(url.set(database=name)), package)
        _templates[key] = name
    await _execute(
        _maintenance(url),
        f'DROP DATABASE "{url.database}"',
        f'CREATE DATABASE "{url.database}" TEMPLATE "{_templates[key]}" STRATEGY FILE_COPY',
    )
    if package.__name__ in _OF_ITS_OWN:
        await _execute(url, _of_its_own(package))


def _of_its_own(package: ModuleType) -> str:
    return _OF_ITS_OWN[package.__name__].format(now_ms=time.time_ns() // 1_000_000)


async def _is_empty(url: URL) -> bool:
    connection = await _connect(url)
    try:
        return not await connection.fetch("SELECT 1 FROM pg_tables WHERE schemaname = 'public' LIMIT 1")
    finally:
        await connection.close()


def _maintenance(url: URL) -> URL:
    return url.set(database="postgres")


async def _execute(url: URL, *statements: str) -> None:
    connection = await _connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def _connect(url: URL) -> Any:
    return await asyncpg.connect(user=url.username, database=url.database, host=str(url.query["host"]))


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)
