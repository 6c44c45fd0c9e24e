"""Whole write transactions on one SQLite connection with a thread of its own.

Through SQLAlchemy each statement is a hop to a thread and back, ten of them for a transaction of five statements, and
the hops cost more than the statements (measured: 2.4 ms of CPU against 0.5 ms). Here a transaction is one hop.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

SQLITE_BUSY_TIMEOUT_S = 10.0

ResultT = TypeVar("ResultT")


def prepare_sqlite(connection: Any) -> None:
    """What every connection of ours to SQLite has; takes the driver's connection or SQLAlchemy's face of one."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")  # a committed charge survives a power cut
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA secure_delete=ON")  # what is deleted is overwritten, in the file and not only in the index
    cursor.close()


class SqliteWriter:
    """Opens its connection when it is first used. Transactions wait for each other: SQLite has one writer anyway."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite writer")

    async def write(self, work: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
        """Runs `work` on the thread, in one transaction, and commits.

        Once more from the start where it broke a constraint, as `Database.write` does. Cancelling the call does not end
        a transaction that has begun.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._write, work)

    async def close(self) -> None:
        """Waits for what has begun."""
        if self._connection is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)
        self._thread.shutdown()

    def _write(self, work: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
        if self._connection is None:
            self._connection = self._connect()
            prepare_sqlite(self._connection)
        try:
            return _transact(self._connection, work)
        except sqlite3.IntegrityError:
            return _transact(self._connection, work)


def _transact(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # some errors have ended it already
            connection.execute("ROLLBACK")
        raise
    return result
