"""One connection to an upstream, and the one call that is on it.

Bytes from the upstream go through the HTTP parser straight into the call's sink, in the loop step in which they arrive:
no task, no queue. Time-outs are kept as plain moments and looked at by one watchdog for all calls (watchdog.py), since
a timer per read is what costs most in a stream (performance notes in docs/architecture.md).
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from chassis.log import logger
from edge.upstream.decode import BrokenEncoding, Decode, EncodingUnknown, decoder

_log = logger(__name__)

HEADER_BYTES_MAX = 64 * 1024
# How long an upstream may take to close its answer after the event that ends it.
FINISH_TIMEOUT_S = 5.0
_FRAMING = frozenset({"content-length", "transfer-encoding"})


class Failure(Exception):
    """A call that brought no whole answer. `kind` is what attempts and metrics show.

    connect, connect_timeout: nothing was sent. closed, first_byte_timeout, idle_timeout, garbage, too_large: something
    may have been generated. abandoned: we gave it up ourselves, since its client had left. stopped: this process ends.
    `status`: the answer's, if its head had come; else 0.
    """

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind
        self.detail = detail
        self.status = 0


class Home(Protocol):
    """The pool that a connection goes back to."""

    def take_back(self, connection: "UpstreamConnection") -> None:
        """Its answer is read and it may serve another call."""
        ...

    def forget(self, connection: "UpstreamConnection") -> None:
        """It is closed."""
        ...


class Call:
    """One request and its answer. Await `head()`, then `end()`; give it a `sink` in between to have bytes at once."""

    __slots__ = (
        "_chunks",
        "_decode",
        "_end_waiter",
        "_ended",
        "_failure",
        "_head_waiter",
        "_loop",
        "answer_bytes_max",
        "connection",
        "deadline_kind",
        "deadline_s",
        "first_byte_at_s",
        "headers",
        "idle_timeout_s",
        "last_read_at_s",
        "received_bytes",
        "sent_at_s",
        "sink",
        "status",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, first_byte_timeout_s: float, idle_timeout_s: float) -> None:
        self._loop = loop
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.sink: Callable[[bytes], None] | None = None
        self.answer_bytes_max = 0
        self.received_bytes = 0
        self.sent_at_s = time.monotonic()
        self.first_byte_at_s = 0.0
        self.last_read_at_s = self.sent_at_s
        self.idle_timeout_s = idle_timeout_s
        self.deadline_s = self.sent_at_s + first_byte_timeout_s
        self.deadline_kind = "first_byte_timeout"
        self.connection: UpstreamConnection | None = None
        self._chunks: list[bytes] = []
        self._decode: Decode | None = None
        self._failure: Failure | None = None
        self._ended = False
        self._head_waiter: asyncio.Future[None] | None = None
        self._end_waiter: asyncio.Future[None] | None = None

    # -- for whoever made the call --

    async def head(self) -> None:
        """Waits until `status` and `headers` are known.

        Raises:
            Failure: they never came.
        """
        if not self.status and self._failure is None:
            self._head_waiter = self._loop.create_future()
            await self._head_waiter
        if not self.status:
            raise self._failure or Failure("closed")

    async def end(self) -> None:
        """Waits until the whole answer was read.

        Raises:
            Failure: it broke off.
        """
        if not self._ended:
            self._end_waiter = self._loop.create_future()
            await self._end_waiter
        if self._failure is not None:
            raise self._failure

    def body(self) -> bytes:
        """What came while there was no sink."""
        chunks, self._chunks = self._chunks, []
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def peek(self) -> bytes:
        """The same, and it stays there."""
        self._chunks = [self.body()]
        return self._chunks[0]

    @property
    def untouched(self) -> bool:
        """Whether not a single byte has come back."""
        return self.last_read_at_s == self.sent_at_s

    def pour_into(self, sink: Callable[[bytes], None]) -> None:
        """From now on bytes go to `sink`, those that came already first."""
        self.sink = sink
        waiting = self.body()
        if waiting:
            sink(waiting)

    def header(self, name: str) -> str:
        """The first header of a lower-case name, or an empty string."""
        for key, value in self.headers:
            if key == name:
                return value
        return ""

    def pause_reading(self) -> None:
        """Lets the upstream wait: TCP tells it. The idle time-out rests meanwhile."""
        self.deadline_s = float("inf")
        if self.connection is not None:
            self.connection.pause_reading()

    def resume_reading(self) -> None:
        """Ends `pause_reading`."""
        self.last_read_at_s = time.monotonic()
        self.deadline_s = self.last_read_at_s + self.idle_timeout_s
        if self.connection is not None:
            self.connection.resume_reading()

    def enough(self) -> None:
        """All that mattered was read (`[DONE]` came): end now; the connection gets a moment to finish by itself."""
        self._end(None)
        self.deadline_s = time.monotonic() + FINISH_TIMEOUT_S
        self.deadline_kind = "closed"
        if self.connection is not None:
            self.connection.end_pause()

    def abandon(self, kind: str = "abandoned") -> None:
        """Gives the answer up and closes the connection, which tells the upstream to stop generating."""
        self.fail(Failure(kind))

    # -- for the connection and the watchdog --

    def look(self, now_s: float) -> bool:
        """Fails the call when its upstream was silent for too long (a `Watched`)."""
        if now_s >= self.deadline_s:
            if self.deadline_kind == "idle_timeout":  # reads only note their time; here the deadline follows them
                self.deadline_s = self.last_read_at_s + self.idle_timeout_s
            if now_s >= self.deadline_s:
                self.fail(Failure(self.deadline_kind))
        return not self._ended or self.connection is not None

    def took_head(self, status: int, headers: list[tuple[str, str]]) -> None:
        self.headers = headers
        encoding = self.header("content-encoding")
        if encoding:  # before the status is known: an answer that cannot be read is none
            self._decode = decoder(encoding)
        self.status = status
        self.first_byte_at_s = self.last_read_at_s
        self.deadline_kind = "idle_timeout"
        self.deadline_s = self.last_read_at_s + self.idle_timeout_s
        if self._head_waiter is not None and not self._head_waiter.done():
            self._head_waiter.set_result(None)

    def took_body(self, data: bytes) -> None:
        if self._ended:
            return
        if self._decode is not None:
            data = self._decode(data)
        if self.sink is not None:
            self.sink(data)
            return
        self.received_bytes += len(data)
        if self.received_bytes > self.answer_bytes_max > 0:
            self.fail(Failure("too_large", f"more than {self.answer_bytes_max} bytes"))
        else:
            self._chunks.append(data)

    def took_end(self) -> None:
        self._end(None)

    def fail(self, failure: Failure) -> None:
        """Ends the call without a whole answer, unless it has ended, and closes the connection that it is still on."""
        self._end(failure)
        if self.connection is not None:
            self.connection.close()

    def _end(self, failure: Failure | None) -> None:
        if self._ended:
            return
        self._ended, self._failure = True, failure
        if failure is not None:
            failure.status = self.status
        for waiter in (self._head_waiter, self._end_waiter):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)


class UpstreamConnection(asyncio.Protocol):
    """A TCP or TLS connection that carries one call at a time."""

    __slots__ = (
        "_call",
        "_head",
        "_head_bytes",
        "_home",
        "_is_framed",
        "_parser",
        "_reading_paused",
        "_until_close",
        "calls",
        "idle_since_s",
        "transport",
    )

    def __init__(self, home: Home) -> None:
        self._home = home
        self._call: Call | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._head: list[tuple[str, str]] = []
        self._head_bytes = 0
        self._is_framed = self._until_close = False
        self._reading_paused = False
        self.transport: asyncio.Transport | None = None
        self.idle_since_s = 0.0
        self.calls = 0  # how many were started on it: the second and later ones meet a connection that may be stale

    def start(self, call: Call, request: bytes) -> None:
        """Sends a whole request. The connection must be idle and open."""
        assert self._call is None
        assert self.transport is not None
        self._call = call
        call.connection = self
        self.calls += 1
        self.transport.write(request)

    def pause_reading(self) -> None:
        self._reading_paused = True
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        self._reading_paused = False
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def end_pause(self) -> None:
        """Reads on, if it was paused: nobody is left who would be flooded."""
        if self._reading_paused:
            self.resume_reading()

    def close(self) -> None:
        """Closes at once; a call that is still on it must have ended or fails."""
        if self.transport is not None:
            self.transport.abort()

    def stop(self) -> None:
        """The same, and a call that is still on it is `stopped`: an answer that lasts until its connection closes must
        not look whole."""
        if self._call is not None:
            self._call.abandon("stopped")
        self.close()

    @property
    def open(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    # -- asyncio.Protocol --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's have the interface and not the base class

    def data_received(self, data: bytes) -> None:
        call = self._call
        if call is None:  # an answer that nobody asked for: not a connection to be used again
            self.close()
            return
        call.last_read_at_s = time.monotonic()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserCallbackError) as error:
            cause = error.__context__ or error
            if not isinstance(cause, EncodingUnknown | BrokenEncoding | httptools.HttpParserError):
                _log.error("reading an answer failed", exc_info=cause)  # a bug of ours, which must not pass for theirs
            call.fail(Failure("garbage", str(cause)))
        except httptools.HttpParserUpgrade:
            call.fail(Failure("garbage", "an upgrade that was not asked for"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        call, self._call = self._call, None
        if call is not None:
            call.connection = None
            if self._until_close and exc is None:
                call.took_end()
            else:
                call.fail(Failure("closed", str(exc) if exc is not None else "before the end of the answer"))
        self._home.forget(self)

    # -- httptools --

    def on_message_begin(self) -> None:
        self._head = []
        self._head_bytes = 0
        self._is_framed = False  # whether its end can be told

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > HEADER_BYTES_MAX:
            raise httptools.HttpParserError("headers over the limit")
        lower = name.decode("latin-1").lower()
        if lower in _FRAMING:
            self._is_framed = True
        self._head.append((lower, value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200 or self._call is None:  # 100 and 103 announce; the answer follows
            return
        self._until_close = not self._is_framed and status not in (204, 304)
        self._call.took_head(status, self._head)

    def on_body(self, data: bytes) -> None:
        if self._call is not None:
            self._call.took_body(data)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() < 200:
            return
        call, self._call = self._call, None
        reusable = self._parser.should_keep_alive() and not self._until_close
        if call is not None:
            call.connection = None
            call.took_end()
        if reusable and self.open:
            self.end_pause()  # by the very read that held the end; the next call would wait for ever
            self.idle_since_s = time.monotonic()
            self._home.take_back(self)
        else:
            self.close()
