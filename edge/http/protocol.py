"""aiohttp's HTTP server with three things changed.

1. A request is a slotted object of ours over aiohttp's parsed message: the general `BaseRequest` costs more than all
   that this edge does with it.
2. Answers are written to the transport as bytes (answer.py), so an upstream's event reaches the client in the same loop
   step in which it arrived.
3. What the connection notices, its answer is told at once: the client has gone, the socket is full, it drained again.
   (aiohttp's own choices are to cancel the handler or to say nothing; a request that must be billed can use neither.)

The overridden names belong to aiohttp 3.14's `RequestHandler`; pyproject.toml pins that series and
tests/stack/test_http_surface.py holds every behaviour.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, Protocol, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import ERROR, RequestHandler, RequestPayloadError
from multidict import CIMultiDictProxy

from chassis.log import logger
from edge.http.answer import Answer, Sent, simple_answer
from edge.openai.errors import RequestError, bad_http, headers_too_large, internal_error

_log = logger(__name__)


class ConnectionListener(Protocol):
    """Whoever writes an answer over a longer time."""

    def client_gone(self) -> None:
        """The client closed its connection; nothing can be written any more."""
        ...

    def client_full(self) -> None:
        """The client reads slower than we write: stop writing for now."""
        ...

    def client_drained(self) -> None:
        """The client has caught up."""
        ...


class Request:
    """One HTTP request: its parsed head, its body as a stream, its connection."""

    __slots__ = ("_task", "answer_lines", "connection", "content", "message", "method", "path", "query")

    def __init__(self, message: RawRequestMessage, content: StreamReader, connection: "Connection") -> None:
        self.message = message
        self.content = content
        self.connection = connection
        self.method: str = message.method
        self.path, _, self.query = _target(message.path).partition("?")
        self.answer_lines = b""  # more header lines for whatever it is answered with
        self._task: Any = None  # aiohttp's connection loop sets it back to None

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """Header names in any case to their values, decoded."""
        return self.message.headers

    @property
    def keep_alive(self) -> bool:
        """Whether the connection may serve another request after this one: not if the client asked for its end, and not
        while a part of the request's body is unread, since the next request would begin after all of it."""
        return not self.message.should_close and not self.connection.closing and self.content.is_eof()

    def _finish(self) -> None:
        """Called by aiohttp when the handler is done; nothing is held open here."""

    def _cancel(self, error: BaseException) -> None:
        """Called by aiohttp when the connection is lost: a body that is still being read breaks off."""
        if not self.content.is_eof():
            self.content.set_exception(error)


class Connection(RequestHandler):
    """One client connection."""

    __slots__ = ("_bounds", "_drained", "_is_counted", "authorization", "closing", "key_digest", "listener", "peer")

    def __init__(self, server: "Server", **options: Any) -> None:
        super().__init__(server, **options)
        self._bounds = server.bounds
        self._is_counted = False
        self.peer = ""  # the other end's address
        # Of the last request that had a key: its header, and the key's digest.
        self.authorization: Sequence[str] = ()
        self.key_digest = b""
        self.listener: ConnectionListener | None = None
        self.closing = False
        self._drained: asyncio.Future[None] | None = None

    def write(self, data: bytes) -> None:
        """Hands bytes to the socket; drops them when the client has gone."""
        if self.transport is not None:
            self.transport.write(data)

    async def until_taken(self, stall_s: float) -> None:
        """Waits until the client has taken most of what was written, so that answers to one who asks on and never reads
        do not gather here. A client that takes nothing for `stall_s` is dropped."""
        transport = self.transport
        while self.writing_paused and transport is not None and not transport.is_closing():
            waiting_bytes = transport.get_write_buffer_size()
            self._drained = self._loop.create_future()
            try:
                async with asyncio.timeout(stall_s):
                    await self._drained
            except TimeoutError:
                if transport.get_write_buffer_size() >= waiting_bytes:
                    transport.abort()
                    return
            finally:
                self._drained = None

    def _stop_waiting(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # uvloop's transports have the interface and not the base class, so nothing can be asserted here.
        cast("asyncio.Transport", transport).set_write_buffer_limits(high=WRITE_BUFFER_BYTES_MAX)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else ""
        self._is_counted = self._bounds.opened(self.peer)
        if not self._is_counted:
            cast("asyncio.Transport", transport).abort()
            return
        self._loop.call_later(self._bounds.first_head_s, self._end_without_request)

    def _end_without_request(self) -> None:
        """aiohttp waits for ever for the first request of a connection; for later ones it has the keep-alive time."""
        if self._request_count == 0 and self.transport is not None:
            self.force_close()

    async def start(self) -> None:
        """Serves the connection's requests, one after the other, until it ends. aiohttp calls it once.

        aiohttp's own loop makes a task, a stream writer and a deadline of its own for each request; here the request is
        served in the connection's task, which is a twentieth of a request's whole cost in the edge.
        """
        manager, handler = self._manager, self._request_handler
        assert manager is not None
        assert handler is not None
        serve = cast("Handler", handler)
        while not self._force_close:
            if not self._messages:
                self._waiter = self._loop.create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
            message, content = self._messages.popleft()
            if self._parser is not None:
                self._parser.message_consumed()
            if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
                self._resume_reading_if_drained()
            manager.requests_count += 1
            if isinstance(message, RawRequestMessage):
                request = Request(message, content, self)
                self._current_request, self._request_in_progress = cast("Any", request), True
                try:
                    sent = await serve(request)
                finally:
                    self._current_request, self._request_in_progress = None, False
                    if self._handler_waiter is not None:  # a shutdown waits for this request
                        self._handler_waiter.set_result(None)
                if self._upgraded:  # an upgrade that was declined: what came behind it is HTTP again
                    await self.finish_response(cast("Any", request), cast("Any", sent), None)
            else:  # what the parser made of something that is no request
                sent = self.handle_error(Request(ERROR, content, self), message.status, message.exc, message.message)
            if not content.is_eof():
                await self._skip_rest(content)
            if not sent.keep_alive or self._close or self._force_close:
                break
            self._keepalive = True
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
            if self._keepalive_handle is None:
                self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)
        self._task_handler = None
        if self.transport is not None:
            self.transport.close()

    async def _skip_rest(self, content: StreamReader) -> None:
        """Reads what remains of a body that nobody wanted, so that its sender sees the answer and not a reset."""
        try:
            async with asyncio.timeout(LINGER_S):
                while not content.is_eof():
                    await content.readany()
        except (TimeoutError, OSError, HttpProcessingError, RequestPayloadError):
            self.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        listener, self.listener = self.listener, None
        if self._is_counted:
            self._is_counted = False
            self._bounds.closed(self.peer)
        super().connection_lost(exc)
        self._stop_waiting()
        if listener is not None:
            listener.client_gone()

    def resume_reading(self, resume_parser: bool = True) -> None:
        # aiohttp calls this whenever a body was taken, and asks its parser again even where nothing was paused.
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.listener is not None:
            self.listener.client_full()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_waiting()
        if self.listener is not None:
            self.listener.client_drained()

    def handle_error(  # type: ignore[override]  # our Request, our answers
        self, request: Request, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> Sent:
        """Answers what aiohttp's parser refused, in the shape that every error has."""
        error = parser_error(exc, message) if status < 500 else internal_error()
        if status >= 500:
            _log.error("connection handling failed", exc_info=exc)
        return simple_answer(request, Answer.from_error(error), keep_alive=False)


def _target(target: str) -> str:
    """The target as path and query: of a whole URL (RFC 9112, 3.2.2) what follows the host, and always text that can be
    encoded, since it is logged and echoed."""
    if not target.startswith("/") and "://" in target:
        _, slash, path = target.partition("://")[2].partition("/")
        target = slash + path
    return target if target.isascii() else target.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def parser_error(exc: BaseException | None, message: str | None) -> RequestError:
    """What a client is told whose request was not HTTP, or went over a limit of the parser."""
    if isinstance(exc, LineTooLong) or (message or "").startswith(_TOO_MANY_HEADERS):
        return headers_too_large()
    return bad_http((message or "not a valid HTTP request").splitlines()[0].rstrip(":"))


_TOO_MANY_HEADERS = "Too many headers"

# How long the rest of an unwanted body is read.
LINGER_S = 10.0

# What may wait in one client's socket before its upstream is no longer read.
WRITE_BUFFER_BYTES_MAX = 256 * 1024

Handler = Callable[[Request], Awaitable[Sent]]


class ConnectionBounds(NamedTuple):
    """What bounds connections: whether one more of a peer may stay, its end, and the time until its first request."""

    opened: Callable[[str], bool]
    closed: Callable[[str], None]
    first_head_s: float


class Server(web.Server):
    """Makes a `Connection` for every client."""

    def __init__(self, handler: Handler, bounds: ConnectionBounds, **options: Any) -> None:
        self.bounds = bounds
        # aiohttp types its own request and response here; it uses no more of them than `Request` and `Sent` have.
        request_factory: Any = self._make
        serve: Any = handler
        super().__init__(serve, request_factory=request_factory, access_log=None, auto_decompress=False, **options)

    def _make(
        self, message: RawRequestMessage, content: StreamReader, connection: Any, _writer: object, _task: object
    ) -> Request:
        return Request(message, content, connection)

    def __call__(self) -> Connection:
        return Connection(self, loop=self._loop, **self._kwargs)

    def close_idle(self) -> None:
        """From now on every answer says `Connection: close`; connections without a request close at once."""
        for connection in self.connections:
            assert isinstance(connection, Connection)
            connection.closing = True
            if not connection._request_in_progress:
                connection.force_close()
