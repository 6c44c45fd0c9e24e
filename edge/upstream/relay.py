"""A streamed answer on its way to one client: bytes in from the upstream, bytes out in the same loop step.

The relay keeps the end of the answer back (the tap does) and tells its request when the end, or a break, is there; the
request then writes the bill and calls `finish`. When the client reads slowly the upstream is paused, so that nothing
grows here. When the client goes away the upstream is read on, without a client, for its usage; or it is closed, where
its deployment reports usage all the time, and where too many are being read on already.
"""

from collections.abc import Callable

from edge import metrics
from edge.http.answer import Headers, Sent, head, header_lines
from edge.http.protocol import Request
from edge.upstream.connection import Call, Failure
from edge.upstream.drains import Drains
from edge.upstream.sse import EventTooLarge
from edge.upstream.stream_tap import StreamTap

COMMENT = b": keep-alive\n\n"
STREAM_HEADERS: Headers = (("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache"))


def no_buffering(call: Call) -> Headers:
    """Tells proxies in front of us (nginx) to pass events on as they come."""
    headers: list[tuple[str, str]] = [("x-accel-buffering", "no")]
    if not call.header("cache-control"):
        headers.append(STREAM_HEADERS[1])
    return headers


class Relay:
    """Writes one stream to one client. Also a `Watched`: comments into silence, gives up on a client that stalls."""

    # What only an abandoned stream changes.
    _aborts = _draining = _given_up = False

    def __init__(
        self,
        request: Request,
        tap: StreamTap,
        request_id: str,
        *,
        now_s: float,
        comment_interval_s: float,
        client_stall_s: float,
        abandoned_drain_s: float,
        commit_at_s: float,
        clock_s: Callable[[], float],
        drains: Drains,
        more_headers: Headers = (),
    ) -> None:
        self.request, self.tap, self.request_id = request, tap, request_id
        self.connection = request.connection
        self.keep_alive = request.keep_alive and request.message.version >= (1, 1)
        self.chunked = request.message.version >= (1, 1)
        self.committed = False
        self.gone = self.connection.transport is None
        self.finished = False
        self.gone_at_s = now_s
        self.first_byte_at_s = 0.0
        self._comment_interval_s, self._client_stall_s = comment_interval_s, client_stall_s
        self._abandoned_drain_s = abandoned_drain_s
        self._commit_at_s = commit_at_s
        self._clock_s, self._drains = clock_s, drains
        self._more_headers = more_headers
        self._last_write_s = now_s
        self._full_since_s = 0.0
        self._call: Call | None = None
        self.connection.listener = self

    # -- the answer's way --

    def commit(self, headers: Headers) -> None:
        """Sends 200 and the headers. From here on trouble is told in the stream."""
        if self.committed:
            return
        self.committed = True
        lines = header_lines(headers)
        if self._more_headers:
            lines += header_lines(self._more_headers)
        if self.chunked:
            lines += b"transfer-encoding: chunked\r\n"
        self._put(head(self.request, 200, self.request_id, self.keep_alive, lines))

    def waits_for(self, call: Call, aborts: bool) -> None:
        """This call may become the answer: what happens to the client happens to it. `aborts`: it is closed when the
        client goes, and not read on."""
        self._call, self._aborts = call, aborts
        if self.gone:
            self._go_on_alone(call)

    def follow(self, call: Call, headers: Headers) -> None:
        """Passes a call's answer on, from what came already to its end."""
        self.commit(headers)
        if self._full_since_s:
            call.pause_reading()
        call.pour_into(self._pass_on)

    def _pass_on(self, data: bytes) -> None:
        try:
            out = self.tap.feed(data)
        except EventTooLarge as error:
            assert self._call is not None
            self._call.fail(Failure("too_large", str(error)))
            return
        if out:
            self.write(out)
        if self.tap.ended and self._call is not None:
            self._call.enough()

    def write(self, data: bytes) -> None:
        """Sends a piece of the stream that ends between two events."""
        if self.gone or not data:
            return
        now_s = self._clock_s()
        self._last_write_s = now_s
        if not self.first_byte_at_s:
            self.first_byte_at_s = now_s
        if self.chunked:
            self._put(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self._put(data)

    def finish(self, ending: bytes) -> Sent:
        """Sends the end that was kept back and closes the stream."""
        self.finished = True
        self.let_go()
        if not self.gone:
            if not self.chunked:
                self._put(ending)
            elif ending:
                self._put(b"%x\r\n%b\r\n0\r\n\r\n" % (len(ending), ending))
            else:
                self._put(b"0\r\n\r\n")
        return Sent(200, self.keep_alive and not self.gone)

    def let_go(self) -> None:
        """The answer is over, in whatever way: the connection belongs to the next request."""
        if self.committed and not self.finished:
            # Nothing else may be written behind half a stream, and nobody reads its upstream any more.
            if self._call is not None:
                self._call.abandon()
            if self.connection.transport is not None:
                self.connection.transport.abort()
        self.finished = True
        if self.connection.listener is self:
            self.connection.listener = None
        if self._draining:
            self._draining = False
            self._drains.end()

    def _put(self, data: bytes) -> None:
        self.connection.write(data)

    # -- ConnectionListener --

    def client_gone(self) -> None:
        if self.finished or self.gone:
            return
        self.gone = True
        self.gone_at_s = self._clock_s()
        if self._full_since_s and self._call is not None:
            self._call.resume_reading()
        self._full_since_s = 0.0
        if self._call is not None and not self.tap.ended:
            self._go_on_alone(self._call)

    def _go_on_alone(self, call: Call) -> None:
        """The client is gone: reads on for the usage, if it may."""
        if self._aborts:
            self._give_up(call, "abort")
        elif not self._draining:
            self._draining = self._drains.begin()
            if self._draining:
                metrics.ABANDONED.labels("drain").inc()
            else:
                self._give_up(call, "bound")

    def _give_up(self, call: Call, how: str) -> None:
        if not self._given_up:
            self._given_up = True
            metrics.ABANDONED.labels(how).inc()
        call.abandon()

    def client_full(self) -> None:
        self._full_since_s = self._clock_s()
        if self._call is not None:
            self._call.pause_reading()

    def client_drained(self) -> None:
        self._full_since_s = 0.0
        if self._call is not None:
            self._call.resume_reading()

    # -- Watched --

    def look(self, now_s: float) -> bool:
        if self.finished:
            return False
        if self.gone:
            if now_s - self.gone_at_s > self._abandoned_drain_s and self._call is not None:
                self._give_up(self._call, "timeout")
            return True
        if self._full_since_s:
            if now_s - self._full_since_s > self._client_stall_s and self.connection.transport is not None:
                self.connection.transport.abort()  # connection_lost follows, and with it client_gone
            return True
        if not self.committed:
            if now_s < self._commit_at_s:
                return True
            self.commit(STREAM_HEADERS)
            self.write(COMMENT)
        elif now_s - self._last_write_s >= self._comment_interval_s:
            self.write(COMMENT)
        return True
