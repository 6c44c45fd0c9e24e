"""The driver's own connection inside a transaction, for the statements that run again and again.

Through SQLAlchemy each statement costs several hops to SQLite's thread, or twice the CPU on asyncpg (measured: 260 us
against 65 us for a hop of the driver's own, 390 us against 260 us). Here a group of statements is one hop on SQLite,
and a script is one hop as a whole.

A *script* is a transaction as a generator: it yields statements, is sent their rows, and returns its result. So its
rules are written once, and run on SQLite's own thread as well as on an event loop.

SQL is written once, for both: `$1` is a parameter, `IN_LIST($1)` takes a list, `{for_update}` locks rows where rows can
be locked (SQLite has one writer, and needs none), `{now_us}` is the database's clock in microseconds since 1970.
"""

import functools
import itertools
import json
import re
import sqlite3
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias, TypeVar

import asyncpg
from sqlalchemy import LargeBinary, SmallInteger, Table
from sqlalchemy import types as sa_types
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlmodel.ext.asyncio.session import AsyncSession

from chassis.database import Database

Row = Sequence[Any]

_SQLITE_PARAMETERS_MAX = 999  # of any version of SQLite (https://www.sqlite.org/limits.html)
_SQLITE_ROWS_PER_INSERT = 25  # more together are no cheaper

_POSTGRES_NOW_US = "(extract(epoch from clock_timestamp()) * 1000000)::bigint"
# SQLite keeps 'now' in whole milliseconds; julianday is the only function of its version 3.40 that shows them.
_SQLITE_NOW_US = "(CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000)"
_POSTGRES_TYPES: tuple[tuple[type[sa_types.TypeEngine[Any]], str], ...] = (
    (SmallInteger, "smallint"),
    (sa_types.BigInteger, "bigint"),
    (sa_types.Integer, "integer"),
    (sa_types.Boolean, "boolean"),
    (LargeBinary, "bytea"),
)


class Query(NamedTuple):
    """A statement that answers with rows."""

    sql: str
    params: tuple[Any, ...] = ()


class Command(NamedTuple):
    """A statement to run once for each tuple of parameters; for none, if there are none."""

    sql: str
    rows: Sequence[Row]


class Insert(NamedTuple):
    """Rows for a table, by column: a sequence of values for each of `columns`, all of one length."""

    table: Table
    columns: tuple[str, ...]
    values: Sequence[Sequence[Any]]

    @property
    def rows(self) -> Sequence[Any]:
        """As many as there are rows; none, none."""
        return self.values[0] if self.values else ()


def insert_of_rows(table: Table, columns: tuple[str, ...], rows: Sequence[Row]) -> Insert:
    """The same of rows, each in the order of `columns`."""
    return Insert(table, columns, list(zip(*rows, strict=True)))


ResultT = TypeVar("ResultT")
Statement: TypeAlias = Query | Command | Insert
# Each step's rows come back in a list for each statement, empty for what is no query. The first step is one query.
Script: TypeAlias = Generator[Sequence[Statement], list[list[Row]], ResultT]


async def write_by_script(database: Database, make_script: Callable[[], Script[ResultT]]) -> ResultT:
    """Runs a script in one write transaction and commits. A fault that it raises ends the transaction.

    `make_script` makes a new one for each try, see Database.write.

    Raises:
        Unavailable: the database cannot be asked now.
    """
    if database.is_sqlite:
        return await database.write_on_sqlite(lambda connection: _run_on_sqlite(connection, make_script()))
    return await database.write(lambda transaction: _run_on_postgres(transaction, make_script()))


class Driver:
    """The connection of one transaction. Make it with `attach` or `open_with`."""

    def __init__(self, connection: Any, *, is_sqlite: bool) -> None:
        self._connection = connection
        self.is_sqlite = is_sqlite

    async def fetch(self, sql: str, *params: Any) -> list[Row]:
        """The rows of one statement."""
        return (await self.fetch_each(Query(sql, params)))[0]

    async def answer(self, query: Query) -> list[Row]:
        """The rows of one query."""
        return (await self.fetch_each(query))[0]

    async def fetch_each(self, *queries: Query) -> list[list[Row]]:
        """The rows of each query, in order."""
        if self.is_sqlite:
            # The one private name that we use of aiosqlite (pinned to a minor version): any function may run on the
            # connection's thread, while the public methods run one statement a hop.
            answer: list[list[Row]] = await self._connection._execute(_fetch_on_sqlite, self._connection._conn, queries)
            return answer
        with _asyncpg_errors_as_sqlalchemy():
            return [await self._connection.fetch(_postgres(sql), *params) for sql, params in queries]

    async def execute_each(self, *commands: Command | Insert) -> None:
        """Runs commands in order; those without rows are left out."""
        wanted = [command for command in commands if command.rows]
        if self.is_sqlite:
            await self._connection._execute(_execute_on_sqlite, self._connection._conn, wanted)
            return
        with _asyncpg_errors_as_sqlalchemy():
            for command in wanted:
                await self._execute_on_postgres(command)

    async def step(self, statements: Sequence[Statement]) -> list[list[Row]]:
        """One step of a script, on PostgreSQL."""
        with _asyncpg_errors_as_sqlalchemy():
            answers: list[list[Row]] = []
            for statement in statements:
                if isinstance(statement, Query):
                    answers.append(await self._connection.fetch(_postgres(statement.sql), *statement.params))
                else:
                    answers.append([])
                    if statement.rows:
                        await self._execute_on_postgres(statement)
            return answers

    async def _execute_on_postgres(self, command: Command | Insert) -> None:
        if isinstance(command, Insert):
            # One statement for all rows, as a list per column: three times as fast as a statement per row.
            sql = _postgres_insert(command.table, command.columns)
            await self._connection.execute(sql, *map(list, command.values))
        else:
            await self._connection.executemany(_postgres(command.sql), command.rows)


async def open_with(session: AsyncSession, sql: str, *params: Any) -> tuple[Driver, list[Row]]:
    """Begins the session's transaction with a statement; its rows, and the driver for what follows.

    The first statement goes through SQLAlchemy, since that is what begins a transaction on PostgreSQL.
    """
    connection = await session.connection()
    is_sqlite = connection.dialect.name == "sqlite"
    statement = _sqlite(sql) if is_sqlite else _postgres(sql)
    result = await connection.exec_driver_sql(statement, _sqlite_params(params) if is_sqlite else params)
    rows: list[Row] = [tuple(row) for row in result.all()] if result.returns_rows else []
    return await attach(session), rows


async def attach(session: AsyncSession) -> Driver:
    """The driver of a session that has run a statement."""
    connection = await session.connection()
    raw = (await connection.get_raw_connection()).driver_connection
    is_sqlite = connection.dialect.name == "sqlite"
    # Else every statement would be a transaction of its own.
    assert raw is not None
    assert raw.in_transaction if is_sqlite else raw.is_in_transaction()
    return Driver(raw, is_sqlite=is_sqlite)


@functools.cache
def _postgres(sql: str) -> str:
    sql = re.sub(r"IN_LIST\((\$\d+)\)", r"= ANY(\1::text[])", sql)
    return sql.format(for_update="FOR UPDATE", now_us=_POSTGRES_NOW_US)


@functools.cache
def _sqlite(sql: str) -> str:
    sql = re.sub(r"IN_LIST\((\$\d+)\)", r"IN (SELECT value FROM json_each(\1))", sql)
    return sql.replace("$", "?").format(for_update="", now_us=_SQLITE_NOW_US)


@functools.cache
def _postgres_insert(table: Table, columns: tuple[str, ...]) -> str:
    arrays = ", ".join(f"${n}::{_postgres_type(table, name)}[]" for n, name in enumerate(columns, start=1))
    return f"INSERT INTO {table.name} ({', '.join(columns)}) SELECT * FROM unnest({arrays})"  # noqa: S608 - our names


@functools.lru_cache(maxsize=100)
def _sqlite_insert(table: Table, columns: tuple[str, ...], shared: frozenset[int], rows: int) -> str:
    """`shared` says which columns have one value for all rows: those come first, once."""
    marks = itertools.count(len(shared) + 1)
    varying = len(columns) - len(shared)
    values = ", ".join(f"({', '.join(f'?{next(marks)}' for _ in range(varying))})" for _ in range(rows))
    of_shared, of_varying = itertools.count(1), itertools.count(1)
    chosen = [f"?{next(of_shared)}" if n in shared else f"column{next(of_varying)}" for n in range(len(columns))]
    return f"INSERT INTO {table.name} ({', '.join(columns)}) SELECT {', '.join(chosen)} FROM (VALUES {values})"  # noqa: S608 - our names


def _postgres_type(table: Table, column: str) -> str:
    kind = table.c[column].type
    # What is none of these is a text: SQLModel's own type for one is not a subclass of SQLAlchemy's.
    return next((name for type_, name in _POSTGRES_TYPES if isinstance(kind, type_)), "text")


def _sqlite_params(params: Row) -> tuple[Any, ...]:
    return tuple(json.dumps(value) if isinstance(value, list) else value for value in params)


def _fetch_on_sqlite(connection: sqlite3.Connection, queries: Sequence[Query]) -> list[list[Row]]:
    return [connection.execute(_sqlite(sql), _sqlite_params(params)).fetchall() for sql, params in queries]


def _execute_on_sqlite(connection: sqlite3.Connection, commands: Sequence[Command | Insert]) -> None:
    for command in commands:
        if isinstance(command, Insert):
            _insert_on_sqlite(connection, command)
        else:
            connection.executemany(_sqlite(command.sql), command.rows)


def _insert_on_sqlite(connection: sqlite3.Connection, insert: Insert) -> None:
    """Many rows a statement, and a value that all rows share bound once: to bind is half of the cost of an insert."""
    table, columns, by_column = insert
    row_count = len(insert.rows)
    shared = [
        n
        for n, values in enumerate(by_column)
        if values[0] == values[-1] and values.count(values[0]) == len(values)  # most that vary end otherwise
    ]
    del shared[len(columns) - 1 :]  # a table needs one column that varies: of a single row all are shared
    once = tuple(by_column[n][0] for n in shared)
    is_shared = frozenset(shared)
    varying = list(zip(*(_bindable(values) for n, values in enumerate(by_column) if n not in is_shared), strict=True))
    rows_max = max(1, (_SQLITE_PARAMETERS_MAX - len(once)) // (len(columns) - len(once)))
    per_statement = min(_SQLITE_ROWS_PER_INSERT, rows_max)
    together = row_count - row_count % per_statement
    starts = range(0, together, per_statement)
    connection.executemany(
        _sqlite_insert(table, columns, is_shared, per_statement),
        [once + tuple(itertools.chain.from_iterable(varying[start : start + per_statement])) for start in starts],
    )
    connection.executemany(
        _sqlite_insert(table, columns, is_shared, 1), [once + values for values in varying[together:]]
    )


def _bindable(values: Sequence[Any]) -> Sequence[Any]:
    """Values of the types that Python's sqlite3 binds as they are: for any other it first looks for an adapter, which
    costs more than to bind."""
    if isinstance(values[0], (bytes, bool)):
        kinds = set(map(type, values))
        if kinds == {bytes}:
            return list(map(bytearray, values))
        if kinds == {bool}:
            return list(map(int, values))
    return values


def _run_on_sqlite(connection: sqlite3.Connection, script: Script[ResultT]) -> ResultT:
    answers: list[list[Row]] | None = None
    while True:
        try:
            step = next(script) if answers is None else script.send(answers)
        except StopIteration as end:
            result: ResultT = end.value
            return result
        answers = []
        for statement in step:
            if isinstance(statement, Query):
                answers += _fetch_on_sqlite(connection, [statement])
            else:
                answers.append([])
                if statement.rows:
                    _execute_on_sqlite(connection, [statement])


async def _run_on_postgres(transaction: AsyncSession, script: Script[ResultT]) -> ResultT:
    (opening,) = next(script)
    assert isinstance(opening, Query)
    driver, rows = await open_with(transaction, opening.sql, *opening.params)
    answers = [rows]
    while True:
        try:
            step = script.send(answers)
        except StopIteration as end:
            result: ResultT = end.value
            return result
        answers = await driver.step(step)


@contextmanager
def _asyncpg_errors_as_sqlalchemy() -> Iterator[None]:
    """So that chassis' transactions know what to run again and what is out of reach, as for SQLAlchemy's own."""
    try:
        yield
    except asyncpg.IntegrityConstraintViolationError as error:
        raise IntegrityError("driver statement", None, error) from error
    except asyncpg.PostgresError as error:
        lost = isinstance(error, asyncpg.PostgresConnectionError)
        raise OperationalError("driver statement", None, error, connection_invalidated=lost) from error
    except asyncpg.InterfaceError as error:
        raise OperationalError("driver statement", None, error, connection_invalidated=True) from error
