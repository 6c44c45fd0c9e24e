"""A link between two parts that can be cut, or fall silent: TCP on this side, TCP or a Unix socket on the other."""

import asyncio
import socket
import struct
from collections.abc import Callable
from pathlib import Path

Target = tuple[str, int] | Path


class Relay:
    """Forwards connections for as long as the block lasts. `target` is asked anew for each; None: nobody is there."""

    def __init__(self, name: str, target: Callable[[], Target | None]) -> None:
        self.name, self._target = name, target
        self._server: asyncio.Server | None = None
        self._is_cut = False
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def __aenter__(self) -> "Relay":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        assert self._server is not None
        self._server.close()

    def cut(self) -> None:
        """Resets every connection, and new ones as they come."""
        self._is_cut = True
        self._flows.set()
        for writer in list(self._writers):
            _reset(writer)

    def hang(self) -> None:
        """Delivers nothing until it is mended; connections stay, and new ones are taken."""
        self._flows.clear()

    def mend(self) -> None:
        """Forwards again; what was swallowed arrives now."""
        self._is_cut = False
        self._flows.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = self._target()
        if self._is_cut or target is None:
            _reset(writer)
            return
        try:
            if isinstance(target, Path):
                far_reader, far_writer = await asyncio.open_unix_connection(str(target))
            else:
                far_reader, far_writer = await asyncio.open_connection(*target)
        except OSError:
            _reset(writer)
            return
        self._writers |= {writer, far_writer}
        try:
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        finally:
            self._writers -= {writer, far_writer}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
            await self._flows.wait()
        except ConnectionError:
            pass
        finally:
            writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.family == socket.AF_INET and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
