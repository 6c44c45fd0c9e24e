"""One way to a database: SQLite in one file, or PostgreSQL.

Reads and writes are separate blocks. On SQLite a write begins IMMEDIATE: a deferred transaction that upgrades fails at
once when another writer was there, whatever the time-out (https://www.sqlite.org/lang_transaction.html). On PostgreSQL
both are READ COMMITTED; stores use guarded updates, so that is enough.
"""

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

from chassis.faults import Unavailable
from chassis.sqlite_writer import SQLITE_BUSY_TIMEOUT_S, SqliteWriter, prepare_sqlite

MAX_TRANSACTION_TRIES = 5
# Shutting down, crashed, starting up, too many connections; beside all of class 08, "connection exception".
_UNREACHABLE_SQLSTATES = frozenset({"57P01", "57P02", "57P03", "53300"})
_RETRY_SQLSTATES = frozenset({"40001", "40P01"})  # serialization failure, deadlock: both say "run it again"

ResultT = TypeVar("ResultT")


def open_engine(url: str, *, schema: str = "", pool_size: int = 10) -> AsyncEngine:
    """An engine for either database.

    Raises:
        ValueError: a URL of another kind; names the two that work.
    """
    parsed = make_url(url)
    if parsed.drivername == "sqlite+aiosqlite":
        engine = create_async_engine(
            url,
            connect_args={"timeout": SQLITE_BUSY_TIMEOUT_S, "isolation_level": None},
            pool_size=pool_size,
            max_overflow=0,
        )
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine
    if parsed.drivername == "postgresql+asyncpg":
        server_settings = {"search_path": schema} if schema else {}
        return create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=0,
            pool_pre_ping=True,
            connect_args={"server_settings": server_settings, "timeout": 10.0},
        )
    raise ValueError(
        f"database driver {parsed.drivername!r}: use sqlite+aiosqlite:///file or postgresql+asyncpg://user:password@host/name"
    )


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    prepare_sqlite(connection)


def _begin_sqlite(connection: Any) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


class Database:
    """Transactions over an engine; closes it at the end of the block."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self._writing = engine.execution_options(writes=True)
        self._sqlite_writer = SqliteWriter(self._connect_to_sqlite) if self.is_sqlite else None
        self._version_reader: sqlite3.Connection | None = None

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    async def __aenter__(self) -> "Database":
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._sqlite_writer is not None:
            await self._sqlite_writer.close()
        if self._version_reader is not None:
            self._version_reader.close()
        await self.engine.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A transaction that only reads.

        Raises:
            Unavailable: the database cannot be asked now.
        """
        with _unreachable_is_unavailable():
            async with AsyncSession(self.engine, expire_on_commit=False) as session, session.begin():
                yield session

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncSession]:
        """A transaction that only reads, all of whose statements see the same moment; nobody waits for it.

        Raises:
            Unavailable: the database cannot be asked now.
        """
        # On SQLite any read transaction is one (https://www.sqlite.org/isolation.html, WAL).
        options = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        with _unreachable_is_unavailable():
            async with (
                AsyncSession(self.engine.execution_options(**options), expire_on_commit=False) as session,
                session.begin(),
            ):
                yield session

    async def write(self, work: Callable[[AsyncSession], Awaitable[ResultT]]) -> ResultT:
        """Runs `work` in one transaction and commits; again from the start when the database asks for that.

        `work` must do nothing but SQL, since it may run more than once.

        Raises:
            Unavailable: the database cannot be asked now, or asked again too often.
        """
        for attempt in range(MAX_TRANSACTION_TRIES):
            try:
                with _unreachable_is_unavailable():
                    async with AsyncSession(self._writing, expire_on_commit=False) as session, session.begin():
                        return await work(session)
            except DBAPIError as error:
                # A unique violation may be the race of two first senders of one write: the next try finds the other's
                # answer (once.py). A lasting one shows itself again at the next try.
                raced = isinstance(error, IntegrityError) and attempt == 0
                if not raced and getattr(error.orig, "sqlstate", None) not in _RETRY_SQLSTATES:
                    raise
                # Full jitter, so that two that collided do not collide again.
                await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311 - not a secret
        raise Unavailable("DATABASE_CONTENDED", "too many conflicting transactions; try again")

    async def write_on_sqlite(self, work: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
        """`write` for SQLite alone and for what runs often: one hop to a thread, without SQLAlchemy.

        Raises:
            Unavailable: the database is locked by another process.
        """
        assert self._sqlite_writer is not None, "the database is not SQLite"
        with _unreachable_is_unavailable():
            return await self._sqlite_writer.write(work)

    def data_version(self) -> int | None:
        """A number that is another one after anybody has written to an SQLite file; None on PostgreSQL, which has none.

        So that who polls need not ask what he knows: a query costs 4 ms of CPU there, this some microseconds of memory
        that all processes share (https://www.sqlite.org/pragma.html#pragma_data_version).

        Raises:
            Unavailable: the file cannot be read.
        """
        if not self.is_sqlite:
            return None
        with _unreachable_is_unavailable():
            if self._version_reader is None:
                self._version_reader = self._connect_to_sqlite()
            return int(self._version_reader.execute("PRAGMA data_version").fetchone()[0])

    async def empty_sqlite_wal(self) -> bool:
        """Moves the write-ahead log into the file and cuts it to nothing, so that nothing deleted goes on standing in
        it. False where a reader or a writer was in the way; nobody waits for it.

        Raises:
            Unavailable: the file cannot be opened.
        """
        with _unreachable_is_unavailable():
            return await asyncio.to_thread(self._empty_sqlite_wal)

    def _empty_sqlite_wal(self) -> bool:
        connection = self._connect_to_sqlite()
        try:
            connection.execute("PRAGMA busy_timeout=0")
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            connection.close()
        return not busy

    def _connect_to_sqlite(self) -> sqlite3.Connection:
        arguments, options = self.engine.dialect.create_connect_args(self.engine.url)
        return sqlite3.connect(
            arguments[0], SQLITE_BUSY_TIMEOUT_S, isolation_level=None, uri=bool(options.get("uri", False))
        )


class _unreachable_is_unavailable:  # noqa: N801 - reads as a phrase where it is used
    """Turns a lost or refused connection into a fault; everything else passes.

    While it connects, the system's own exceptions (a refused port, a missing socket, an unknown host) come through as
    they are, and the driver's where the server ended in between; the database's come wrapped, with its SQLSTATE.
    """

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        lost = isinstance(error, DBAPIError) and error.connection_invalidated
        cause = error.orig if isinstance(error, DBAPIError) else error
        state = str(getattr(cause, "sqlstate", ""))
        refused = state in _UNREACHABLE_SQLSTATES or state.startswith("08")
        busy = isinstance(error, DBAPIError | sqlite3.OperationalError) and "database is locked" in str(cause)
        if lost or refused or busy or isinstance(error, OSError | PoolTimeout | asyncpg.InterfaceError):
            raise Unavailable("DATABASE_UNREACHABLE", "the database cannot be reached; try again") from error
