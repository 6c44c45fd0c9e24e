"""A real model server at the edge of our world, which does exactly what a test tells it to.

It speaks HTTP/1.1 over raw sockets, so that it can be slow, rude, broken and byte-exact. `upstream_answer` has the
table of modes. What a request gets is decided, without touching any byte that a gateway must pass on, by

1. the queue filled with `upstream.script(Answer(...), ...)`, or `POST /_script` with a JSON list of Answer fields;
2. else by the model's name (`scripted/usage-in-choice+crlf:gap_ms=5`), changed by a directive in what the customer
   wrote (`[[mode=usage_last_chunk events=64 gap_ms=5]]`);
3. else by `upstream.default`, an honest small answer: as many prompt tokens as words, as many completion tokens as
   content events.

In a test: `async with ScriptedUpstream() as upstream: upstream.url`, then `upstream.requests` and `upstream.reported`.
As a process: `python -m tests.harness.scripted_upstream --port 0` prints `{"url": ...}`; its record is at
`GET /_recorded` (`POST /_reset` empties it), and `POST /_refuse?for_ms=500` closes the listener for a while.
"""

import argparse
import asyncio
import json
import signal
from collections import deque
from types import TracebackType
from typing import Any, Self

from tests.harness.upstream_answer import Answer, answer_from_options, options_from_model, options_from_text
from tests.harness.upstream_connection import Connection
from tests.harness.upstream_http import RawRequest
from tests.harness.upstream_question import Question, question_from_body
from tests.harness.upstream_record import Record, Recorded, Reported
from tests.harness.upstream_wire import http_head

_RESOURCES = ("/v1/chat/completions", "/v1/responses")


class ScriptedUpstream:
    """The server; see the module's docstring for how it decides, `upstream_answer` for what it can do."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, models: tuple[str, ...] = ("scripted/ok",)) -> None:
        self.default = Answer()
        self.models = models
        self.record = Record()
        self.open_answers = self.open_answers_max = 0  # requests that have arrived and are not answered, and the most
        self._host = host
        self._port = port
        self._scripts: deque[Answer] = deque()
        self._connections: set[Connection] = set()  # the open ones
        self._tasks: list[asyncio.Task[None]] = []  # of every connection since the start
        self._server: asyncio.Server | None = None
        self._refusing: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """The root, without /v1."""
        return f"http://{self._host}:{self._port}"

    @property
    def requests(self) -> list[Recorded]:
        """Every request to a resource of the API, in order of arrival."""
        return self.record.requests

    @property
    def reported(self) -> list[Reported]:
        """What each answer told of its usage, in the same order."""
        return self.record.reported

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    def script(self, *answers: Answer) -> None:
        """Queues answers for the next requests to come, in order, whatever those say."""
        self._scripts.extend(answers)

    def reset(self) -> None:
        """Forgets record, scripts and default; connections stay."""
        self.record.reset()
        self.open_answers_max = self.open_answers
        self._scripts.clear()
        self.default = Answer()

    async def start(self) -> None:
        """Listens; after `refuse`, on the same port as before."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, self._host, self._port, backlog=2048)
        self._port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Closes the listener, so that new connections are refused until `start`; open ones stay."""
        if self._server is not None:
            self._server.close()
            self._server = None
            await asyncio.sleep(0)  # the socket closes in the loop's next round

    def close_connections(self, *, reset: bool = False) -> None:
        """Closes every open connection, as a restarted model server does."""
        for connection in list(self._connections):
            connection.close(reset=reset)

    async def stop(self) -> None:
        """Drops everything. Raises what went wrong inside, so that no bug of the harness hides."""
        if self._refusing is not None:
            self._refusing.cancel()
        await self.refuse()
        while self._connections:
            self.close_connections(reset=True)
            await asyncio.sleep(0)
        await asyncio.gather(*self._tasks)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _connection(self) -> Connection:
        self.record.connections += 1
        return Connection(self.record.connections, self.record, self._play, self._connections, self._tasks)

    async def _play(self, connection: Connection, request: RawRequest) -> None:
        path = request.target.partition("?")[0]
        if path.startswith("/_"):
            await self._control(connection, request, path)
        elif path in _RESOURCES and request.method == "POST":
            await self._answer(connection, request, path)
        elif path == "/v1/models" and request.method == "GET":
            self._remember(connection, request)
            data = [{"id": model, "object": "model", "created": 1, "owned_by": "scripted"} for model in self.models]
            await _write_json(connection, 200, {"object": "list", "data": data})
        elif path == "/health":
            await _write_json(connection, 200, {"status": "ok"})
        else:
            self._remember(connection, request)
            await _write_json(connection, 404, {"error": {"message": f"no {request.method} {path}", "code": 404}})

    def _remember(self, connection: Connection, request: RawRequest) -> int:
        number = len(self.record.requests) + 1
        self.record.requests.append(
            Recorded(number, connection.number, request.method, request.target, request.headers, request.body)
        )
        return number

    async def _answer(self, connection: Connection, request: RawRequest, path: str) -> None:
        number = self._remember(connection, request)
        question = question_from_body(path, request.body)
        report = Reported(number, f"scripted-{number}", question.model, question.stream)
        self.record.reported.append(report)
        try:
            answer = self._choose(question)
        except ValueError as mistake:
            await _write_json(connection, 400, {"error": {"message": str(mistake), "code": "bad_script"}})
            return
        self.open_answers += 1
        self.open_answers_max = max(self.open_answers_max, self.open_answers)
        try:
            await connection.answer(request, question, answer, report)
        except asyncio.CancelledError:
            report.peer_gone = True
            raise
        finally:
            self.open_answers -= 1

    def _choose(self, question: Question) -> Answer:
        if self._scripts:
            return self._scripts.popleft()
        options = options_from_model(question.model) | options_from_text(question.text)
        return answer_from_options(options) if options else self.default

    async def _control(self, connection: Connection, request: RawRequest, path: str) -> None:
        if path == "/_recorded":
            body = self.record.to_json()
            await connection.write(http_head(200, [("content-length", str(len(body)))]) + body)
            return
        if path == "/_script":
            self.script(*(answer_from_options(options) for options in json.loads(request.body)))
        elif path == "/_reset":
            self.reset()
        await _write_json(connection, 200, {})
        if path == "/_refuse":
            for_s = float(request.target.rpartition("=")[2]) / 1000
            self._refusing = asyncio.create_task(self._refuse_for(for_s))  # outlives the connection that asked

    async def _refuse_for(self, for_s: float) -> None:
        await self.refuse()
        await asyncio.sleep(for_s)
        await self.start()


async def _write_json(connection: Connection, status: int, body: dict[str, Any]) -> None:
    data = json.dumps(body).encode()
    headers = [("content-type", "application/json"), ("content-length", str(len(data)))]
    await connection.write(http_head(status, headers) + data)


async def _serve(host: str, port: int) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    async with ScriptedUpstream(host=host, port=port) as upstream:
        print(json.dumps({"url": upstream.url}), flush=True)
        await stopping.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A scripted OpenAI-compatible upstream for tests.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    asyncio.run(_serve(options.host, options.port))
