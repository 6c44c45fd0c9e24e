"""A client that sees bytes: what arrives exactly, and how a connection ends."""

import asyncio
import json
from typing import Any

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"


class RawClient:
    """A client that sees bytes, and how a connection ends."""

    def __init__(self, url: str) -> None:
        self._port = int(url.rpartition(":")[2])

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 24)

    async def ask(self, body: dict[str, Any], path: str = CHAT) -> bytes:
        """Everything that arrives until the server closes, which the request asks for."""
        reader, writer = await self.open()
        writer.write(request_bytes(body, path, ("Connection", "close")))
        try:
            return await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()


def request_bytes(body: dict[str, Any], path: str = CHAT, *headers: tuple[str, str]) -> bytes:
    """A whole POST."""
    data = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(data)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode() + data


def asking(mode: str, *, stream: bool = True, text: str = "one two three", **more: Any) -> dict[str, Any]:
    """A chat body that asks the scripted upstream for a mode."""
    return {"model": f"scripted/{mode}", "stream": stream, "messages": [{"role": "user", "content": text}], **more}


def body_of(answer: bytes) -> bytes:
    """The body of an answer, without its framing; of a broken chunked one, what there is."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head:
        return body
    plain = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        plain += rest[: int(size, 16)]
        body = rest[int(size, 16) + 2 :]
    return plain


def events_of(body: bytes) -> list[dict[str, Any]]:
    """The JSON objects of an event stream in its simplest form."""
    events = [line.removeprefix("data: ") for line in body.decode().split("\n") if line.startswith("data: {")]
    return [json.loads(event) for event in events]
