"""An HTTP client that sees every byte: what came, in which piece, and how the connection ended."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

from tests.harness.stack import MODEL, Json

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
TIMEOUT_S = 10.0
Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer, or its head."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    version: str = "1.1"

    def header(self, name: str) -> str | None:
        """The only header of that name.

        Raises:
            AssertionError: it came more than once.
        """
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) <= 1, f"{name} came {len(values)} times: {values}"
        return values[0] if values else None

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Json:
        """The body's error, which must have all of the members that every error has."""
        error: Json = self.json["error"]
        assert self.header("content-type") == "application/json"
        assert self.json.keys() == {"error"}
        assert error.keys() >= {"message", "type", "param", "code"}
        assert isinstance(error["message"], str)
        assert error["message"]
        assert self.header("x-request-id")
        return error

    @property
    def events(self) -> list[Json]:
        """The JSON of each event of a simple stream; `[DONE]` is left out."""
        return [json.loads(line[6:]) for line in self.body.decode().split("\n") if line.startswith("data: {")]


class Connection:
    """One TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> Self:
        self.writer.write(data)
        await self.writer.drain()
        return self

    async def head(self) -> Response:
        """The next answer's head."""
        async with asyncio.timeout(TIMEOUT_S):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines[1:-2])]
        version, status = lines[0].split(" ")[:2]
        return Response(int(status), headers, version=version.removeprefix("HTTP/"))

    async def pieces(self) -> AsyncIterator[bytes]:
        """The chunks of a chunked body, each when it arrives, until the last one."""
        while True:
            async with asyncio.timeout(TIMEOUT_S):
                size = int(await self.reader.readline(), 16)
                piece = await self.reader.readexactly(size + 2)
            assert piece.endswith(b"\r\n")
            if not size:
                return
            yield piece[:-2]

    async def whole(self, method: str = "POST") -> Response:
        """The next answer with its body."""
        head = await self.head()
        if method == "HEAD" or head.status in (100, 204, 304):
            return head
        length = head.header("content-length")
        async with asyncio.timeout(TIMEOUT_S):
            if length is not None:
                assert head.header("transfer-encoding") is None
                body = await self.reader.readexactly(int(length))
            elif head.header("transfer-encoding") == "chunked":
                body = b"".join([piece async for piece in self.pieces()])
            else:
                assert head.header("connection") == "close"
                body = await self.reader.read()
        return Response(head.status, head.headers, body, head.version)

    async def closed(self, timeout_s: float = TIMEOUT_S) -> bool:
        """Waits until the server closes; fails if it sends anything more."""
        async with asyncio.timeout(timeout_s):
            try:
                rest = await self.reader.read()
            except ConnectionResetError:
                rest = b""
        assert rest == b"", rest[:200]
        return True

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Goes away by RST, as a killed process does."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Client:
    """Makes connections to an edge, and requests with one key."""

    def __init__(self, url: str, secret: str = "") -> None:
        self.port = int(url.rpartition(":")[2])
        self.secret = secret

    @asynccontextmanager
    async def connected(self, *, limit_bytes: int = 1 << 25) -> AsyncIterator[Connection]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=limit_bytes)
        try:
            yield Connection(reader, writer)
        finally:
            writer.close()

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Headers = (), *, version: str = "1.1"
    ) -> bytes:
        """A request's bytes; with Authorization if there is a key and `headers` have none."""
        lines = [f"{method} {path} HTTP/{version}", "Host: tollgate.test"]
        if self.secret and not any(name.lower() == "authorization" for name, _ in headers):
            lines.append(f"Authorization: Bearer {self.secret}")
        if body is not None and not any(name.lower() in ("content-length", "transfer-encoding") for name, _ in headers):
            lines.append(f"Content-Length: {len(body)}")
        lines += [f"{name}: {value}" for name, value in headers]
        return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + (body or b"")

    def post(self, body: Json | bytes, headers: Headers = (), path: str = CHAT) -> bytes:
        """A POST's bytes."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.request("POST", path, data, [("Content-Type", "application/json"), *headers])

    async def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Headers = (), *, version: str = "1.1"
    ) -> Response:
        """One request on a connection of its own, and its answer."""
        async with self.connected() as connection:
            await connection.send(self.request(method, path, body, headers, version=version))
            return await connection.whole(method)

    async def chat(self, body: Json | bytes | None = None, headers: Headers = (), path: str = CHAT) -> Response:
        """One POST, and its answer."""
        async with self.connected() as connection:
            await connection.send(self.post(chat() if body is None else body, headers, path))
            return await connection.whole()


def chat(text: str = "one two three", **members: Any) -> Json:
    """A chat body: three prompt tokens, unless the text says otherwise."""
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **members}


def responses(text: str = "one two three", **members: Any) -> Json:
    """A Responses body."""
    return {"model": MODEL, "input": text, **members}
