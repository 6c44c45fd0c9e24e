"""Answers as bytes: one write for a head and a body, or a head and then pieces."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec
import uuid_utils

from edge.openai.errors import RequestError, error_body

if TYPE_CHECKING:
    from edge.http.protocol import Request

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_STATUS_LINES = {status: f"HTTP/1.1 {status} {phrase}\r\n".encode() for status, phrase in _PHRASES.items()}

JSON_TYPE = "application/json"
REQUEST_ID_HEADER = "x-request-id"
EXPOSED_HEADERS = (
    "x-request-id, retry-after, x-should-retry, idempotent-replayed, x-ratelimit-limit-requests, "
    "x-ratelimit-limit-tokens, x-ratelimit-remaining-requests, x-ratelimit-remaining-tokens, "
    "x-ratelimit-reset-requests, x-ratelimit-reset-tokens"
)
_CORS = f"access-control-allow-origin: *\r\naccess-control-expose-headers: {EXPOSED_HEADERS}\r\n".encode()

Headers = Sequence[tuple[str, str]]


class Sent:
    """Tells aiohttp that the answer was written already, and whether the connection lives on."""

    __slots__ = ("keep_alive", "status")

    def __init__(self, status: int, keep_alive: bool) -> None:
        self.status = status
        self.keep_alive = keep_alive

    async def prepare(self, _request: object) -> None:
        """Nothing is left to do; aiohttp calls it."""

    async def write_eof(self) -> None:
        """Nothing is left to do; aiohttp calls it."""


class Answer(msgspec.Struct, frozen=True):
    """A whole answer that is known before it is written."""

    status: int
    body: bytes = b""
    content_type: str = JSON_TYPE
    headers: Headers = ()

    def also(self, more: Headers) -> "Answer":
        """The same answer with more headers."""
        return Answer(self.status, self.body, self.content_type, (*self.headers, *more))

    @staticmethod
    def from_error(error: RequestError, more: Headers = ()) -> "Answer":
        """The answer that a refused request gets, with `more` headers."""
        return Answer(error.status, error_body(error), headers=(*error.headers().items(), *more))

    @staticmethod
    def from_json(value: object) -> "Answer":
        """200 with a JSON body."""
        return Answer(200, msgspec.json.encode(value))


def new_request_id() -> str:
    """A UUIDv7: it names a request in answers, logs, the spool and the ledger, and carries the day of its charge."""
    return str(uuid_utils.uuid7())


def head(request: "Request", status: int, request_id: str, keep_alive: bool, headers: bytes) -> bytes:
    """Status line and headers up to the empty line. `headers` are whole lines, each with its line end."""
    line = _STATUS_LINES.get(status) or f"HTTP/1.1 {status} Unknown\r\n".encode()
    return b"".join(
        (
            line,
            headers,
            b"x-request-id: ",
            request_id.encode(),
            _CORS_LINE if "Origin" in request.headers else b"\r\n",
            b"connection: keep-alive\r\n\r\n" if keep_alive else b"connection: close\r\n\r\n",
        )
    )


_CORS_LINE = b"\r\n" + _CORS


def header_lines(headers: Headers) -> bytes:
    """Header pairs as lines. Values are ours or passed a header parser, so they hold no line end."""
    return "".join(f"{name}: {value}\r\n" for name, value in headers).encode("utf-8", "surrogateescape")


def simple_answer(
    request: "Request", answer: Answer, *, request_id: str | None = None, keep_alive: bool | None = None
) -> Sent:
    """Writes a whole answer in one piece; without its body to HEAD."""
    keep = request.keep_alive if keep_alive is None else keep_alive
    lines = header_lines(answer.headers) + request.answer_lines
    if answer.status not in (204, 304):
        if answer.body:
            lines += f"content-type: {answer.content_type}\r\n".encode()
        lines += b"content-length: %d\r\n" % len(answer.body)
    written = head(request, answer.status, request_id or new_request_id(), keep, lines)
    if request.method != "HEAD":
        written += answer.body
    request.connection.write(written)
    return Sent(answer.status, keep)
