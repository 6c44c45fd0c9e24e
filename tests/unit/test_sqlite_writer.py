"""Transactions on SQLite's own thread: all or nothing, once more where a constraint broke, Unavailable if locked."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from chassis import database as database_module
from chassis.database import Database, open_engine
from chassis.faults import Unavailable


@pytest.fixture
async def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    monkeypatch.setattr(database_module, "SQLITE_BUSY_TIMEOUT_S", 0.01)
    async with Database(open_engine(f"sqlite+aiosqlite:///{tmp_path / 'test.db'}")) as opened:
        await opened.write_on_sqlite(lambda connection: connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)"))
        yield opened


def numbers(connection: sqlite3.Connection) -> list[int]:
    return [row[0] for row in connection.execute("SELECT n FROM t ORDER BY n")]


async def test_what_fails_leaves_nothing_behind(database: Database) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t VALUES (1)")
        raise LookupError

    with pytest.raises(LookupError):
        await database.write_on_sqlite(fail)
    assert await database.write_on_sqlite(numbers) == []


async def test_a_broken_constraint_is_tried_once_more_from_the_start(database: Database) -> None:
    tries: list[list[int]] = []

    def collide_once(connection: sqlite3.Connection) -> None:
        tries.append(numbers(connection))
        connection.execute("INSERT INTO t VALUES (7)")
        if len(tries) == 1:
            connection.execute("INSERT INTO t VALUES (7)")

    await database.write_on_sqlite(collide_once)
    assert tries == [[], []]
    with pytest.raises(sqlite3.IntegrityError):
        await database.write_on_sqlite(lambda connection: connection.execute("INSERT INTO t VALUES (7)"))
    assert await database.write_on_sqlite(numbers) == [7]


async def test_a_database_that_another_process_keeps_locked_is_unavailable(database: Database, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "test.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable):
            await database.write_on_sqlite(numbers)
        other.execute("ROLLBACK")
    assert await database.write_on_sqlite(numbers) == []
