"""The fast local model server of the bench: `python -m bench.upstream` prints its port as one line of JSON.

It costs as little as it can, so that it never is what limits a target: uvloop, a bare Protocol, answers made once.
"""

import asyncio
import json
from typing import cast

import httptools
import uvloop

from bench.payload import GAP_S, GAP_SLOW_S, MODEL_SLOW, answer, events

_ANSWER = answer()
_WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(_ANSWER), _ANSWER)
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_CHUNKS = [b"%x\r\n%b\r\n" % (len(event), event) for event in events()]
_CHUNKS[-1] += b"0\r\n\r\n"
_CHUNKS[0] = _STREAM_HEAD + _CHUNKS[0]
_MODEL_SLOW = MODEL_SLOW.encode()


class _Upstream(asyncio.Protocol):
    """One connection; httptools calls the on_* methods."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._body = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its class

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def on_message_begin(self) -> None:
        self._body.clear()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if b'"stream": true' not in self._body and b'"stream":true' not in self._body:
            self._transport.write(_WHOLE)
            return
        gap_s = GAP_SLOW_S if _MODEL_SLOW in self._body else GAP_S
        self._send(0, self._loop.time(), gap_s)

    def _send(self, number: int, due: float, gap_s: float) -> None:
        """Sends event `number`; the next is due a gap after this one was, so that delays do not add up."""
        self._transport.write(_CHUNKS[number])
        if number + 1 < len(_CHUNKS):
            due += gap_s
            self._timer = self._loop.call_at(due, self._send, number + 1, due, gap_s)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Upstream, "127.0.0.1", 0, backlog=4096)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve())
