"""A way to PostgreSQL that a test can cut and mend: TCP on this side, the server's socket on the other."""

import asyncio
from pathlib import Path

from sqlalchemy.engine import make_url


class PostgresProxy:
    """Forwards connections to a test database for as long as the block lasts."""

    def __init__(self, database_url: str) -> None:
        parsed = make_url(database_url)
        self._socket = Path(str(parsed.query["host"])) / ".s.PGSQL.5432"
        self._parsed = parsed
        self._server: asyncio.Server | None = None
        self._whole = True
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """The DSN by way of this proxy."""
        return f"postgresql+asyncpg://{self._parsed.username}@127.0.0.1:{self._port}/{self._parsed.database}"

    @property
    def _port(self) -> int:
        assert self._server is not None, "inside the block only"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> "PostgresProxy":
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()
        assert self._server is not None
        self._server.close()

    async def mend(self) -> None:
        """Forwards again."""
        self._whole = True

    async def cut(self) -> None:
        """Drops every connection, and new ones as they come.

        It goes on listening: somebody else, even a client's own outgoing connection, could get a port that was left.
        """
        self._whole = False
        for writer in self._writers:
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._whole:
            writer.transport.abort()
            return
        try:
            upstream_reader, upstream_writer = await asyncio.open_unix_connection(str(self._socket))
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, upstream_writer}
        await asyncio.gather(_copy(reader, upstream_writer), _copy(upstream_reader, writer))
        self._writers -= {writer, upstream_writer}


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()
