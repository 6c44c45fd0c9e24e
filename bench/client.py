"""The load: closed loop, or open loop at a fixed rate. Every answer is checked to be whole.

`python -m bench.client '<json of a Load>'` prints one line of JSON, a `Result`. With `hold_open` it prints a line once
all streams have begun, and leaves when its standard input closes.
"""

import asyncio
import json
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httptools
import uvloop

from bench.payload import EVENTS, question

_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Load:
    """What to send. `requests` answers are awaited in all, over `connections` kept-alive connections."""

    url: str
    key: str
    model: str
    stream: bool
    connections: int
    requests: int
    rate_per_s: float = 0  # 0: closed loop, each connection sends as soon as it has its answer
    hold_open: bool = False  # one stream on each connection, and none is awaited


@dataclass(slots=True)
class Result:
    """What came back. Latency counts from when a request was due, so a stalled target cannot hide its queue."""

    completed: int = 0
    events: int = 0
    failures: list[str] = field(default_factory=list)
    wall_s: float = 0
    latency_ms: list[float] = field(default_factory=list)


class _Client(asyncio.Protocol):
    """One kept-alive connection with at most one request on its way; httptools calls the on_* methods."""

    def __init__(self, run: "_Run") -> None:
        self._run = run
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._due = 0.0
        self._bytes = 0
        self._ends = 0
        self._tail = b""
        self._busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its class

    def send(self, due: float) -> None:
        self._due = due
        self._busy = True
        self._bytes = self._ends = 0
        self._tail = b""
        self._transport.write(self._run.request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self._busy:
            self._run.failed(f"connection lost in the middle: {error}")

    def close(self) -> None:
        self._busy = False
        self._transport.close()

    def on_body(self, body: bytes) -> None:
        if not self._bytes:
            self._run.begun += 1
            self._run.check_begun()
        self._bytes += len(body)
        if self._run.load.stream:
            text = self._tail + body  # an event's end may be cut in two
            self._ends += text.count(b"\n\n")
            self._tail = b"\n" if text.endswith(b"\n") and not text.endswith(b"\n\n") else b""

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        self._busy = False
        if status != 200:
            self._run.failed(f"status {status}")
        elif self._run.load.stream and self._ends < EVENTS:
            # 64 events and [DONE]; one fewer from a gateway that carries the usage on the event before.
            self._run.failed(f"only {self._ends} of {EVENTS + 1} events")
        elif not self._bytes:
            self._run.failed("an empty body")
        else:
            self._run.completed(self._due, self._ends)
        # A parser that has seen one answer is ready for the next.
        self._run.idle(self)


class _Run:
    """The state that the connections of one load share."""

    def __init__(self, load: Load) -> None:
        self.load = load
        body = question(load.model, stream=load.stream)
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {urlsplit(load.url).netloc}\r\n"
            f"authorization: Bearer {load.key}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self.request = head.encode() + body
        self.result = Result()
        self.begun = 0
        self.all_begun = asyncio.Event()
        self._done = asyncio.Event()
        self._sent = 0
        self._idle: deque[_Client] = deque()
        self._waiting: deque[float] = deque()  # when each request that has no connection yet was due

    async def play(self) -> Result:
        loop = asyncio.get_running_loop()
        at = urlsplit(self.load.url)
        for _ in range(self.load.connections):
            _, client = await loop.create_connection(lambda: _Client(self), at.hostname or "127.0.0.1", at.port or 80)
            self._idle.append(client)
        start = time.perf_counter()
        if self.load.rate_per_s:
            await self._pace(start)
        else:
            for client in list(self._idle):
                self._next(client)
        if self.load.hold_open:
            await asyncio.wait_for(self.all_begun.wait(), _TIMEOUT_S)
            print("open", flush=True)
            await loop.run_in_executor(None, sys.stdin.read)
        else:
            await asyncio.wait_for(self._done.wait(), _TIMEOUT_S)
        self.result.wall_s = time.perf_counter() - start
        for client in self._idle:
            client.close()
        return self.result

    async def _pace(self, start: float) -> None:
        for number in range(self.load.requests):
            due = start + number / self.load.rate_per_s
            if (pause_s := due - time.perf_counter()) > 0:
                await asyncio.sleep(pause_s)
            self._sent += 1
            if self._idle:
                self._idle.popleft().send(due)
            else:
                self._waiting.append(due)

    def _next(self, client: _Client) -> None:
        if self._sent < self.load.requests:
            self._sent += 1
            client.send(time.perf_counter())

    def idle(self, client: _Client) -> None:
        """The connection is free again."""
        if self._waiting:
            client.send(self._waiting.popleft())
        elif self.load.rate_per_s:
            self._idle.append(client)
        else:
            self._next(client)

    def completed(self, due: float, events: int) -> None:
        self.result.completed += 1
        self.result.events += events
        if self.load.rate_per_s:  # only there it is asked for, and a figure per request is much to print
            self.result.latency_ms.append((time.perf_counter() - due) * 1000)
        if self.result.completed >= self.load.requests:
            self._done.set()

    def failed(self, why: str) -> None:
        """The first failure ends the run: a bench that lost an answer has measured nothing."""
        self.result.failures.append(why)
        self.all_begun.set()
        self._done.set()

    def check_begun(self) -> None:
        if self.begun >= self.load.connections:
            self.all_begun.set()


async def run_load(load: Load) -> Result:
    """Plays one load to its end, or to its first failure.

    Raises:
        TimeoutError: answers stayed out.
    """
    return await _Run(load).play()


if __name__ == "__main__":
    result = uvloop.run(run_load(Load(**json.loads(sys.argv[1]))))
    print(json.dumps(asdict(result)), flush=True)
