"""A PostgreSQL that goes away while a connection to it is made."""

import asyncio
import struct

import asyncpg
import pytest
from sqlalchemy import text

from chassis.database import Database, open_engine
from chassis.faults import Unavailable

_SSL_REQUEST = 80877103


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


_WELCOME = b"".join(
    (
        _message(b"R", struct.pack("!I", 0)),  # authenticated
        _message(b"S", b"server_version\x0018.0\x00"),
        _message(b"S", b"client_encoding\x00UTF8\x00"),
        _message(b"K", struct.pack("!II", 1, 1)),
        _message(b"Z", b"I"),  # ready for a query
    )
)


async def _go_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Lets a client in, and ends."""
    try:
        while True:
            (length,) = struct.unpack("!I", await reader.readexactly(4))
            (code,) = struct.unpack("!I", (await reader.readexactly(length - 4))[:4])
            if code != _SSL_REQUEST:
                writer.write(_WELCOME)
                return
            writer.write(b"N")
    finally:
        writer.close()


async def _ask(database: Database) -> None:
    async with database.read() as transaction:
        connection = await transaction.connection()
        await connection.execute(text("SELECT 1"))


async def test_a_server_that_ends_while_it_is_connected_to_is_unavailable_and_no_bug() -> None:
    server = await asyncio.start_server(_go_away, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Database(open_engine(f"postgresql+asyncpg://x@127.0.0.1:{port}/x")) as database:
        with pytest.raises(Unavailable):
            await _ask(database)


async def test_what_the_driver_says_of_a_connection_that_ended_before_its_first_use_is_unavailable_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By whether the loss is noticed before or after SQLAlchemy sets the connection up, it comes wrapped or bare."""

    def bare(*_: object, **__: object) -> None:
        raise asyncpg.InterfaceError("connection is closed")

    monkeypatch.setattr("sqlalchemy.dialects.postgresql.asyncpg.PGDialect_asyncpg.connect", bare)
    async with Database(open_engine("postgresql+asyncpg://x@127.0.0.1:1/x")) as database:
        with pytest.raises(Unavailable):
            await _ask(database)
