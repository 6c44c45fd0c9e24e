"""Reading a request's body, within bounds."""

import asyncio

from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError

from edge.http.protocol import Request
from edge.openai import errors


class ClientGone(Exception):
    """The client left before its request was whole, or before anything was done for it."""


async def read_body(request: Request, bytes_max: int, timeout_s: float) -> bytes:
    """The whole body.

    Raises:
        RequestError: 400, 408, 413, 415, 417; what remains of the body is then not read.
        ClientGone: the connection was lost.
    """
    body = held_body(request, bytes_max)
    return await read_rest(request, bytes_max, timeout_s) if body is None else body


def held_body(request: Request, bytes_max: int) -> bytes | None:
    """The whole body if it came with the head, which is the usual case; else `read_rest` goes on from here.

    Raises:
        RequestError: 400, 413, 415, 417; what remains of the body is then not read.
    """
    headers = request.headers
    encoding = headers.get("Content-Encoding")
    if encoding is not None and encoding.strip().lower() != "identity":
        raise errors.unsupported_encoding(encoding.encode("ascii", "replace").decode())  # may hold bytes of any kind
    length = headers.get("Content-Length")
    if length is not None and int(length) > bytes_max:  # the parser has checked that it is a number
        raise errors.body_too_large(bytes_max)
    expect = headers.get("Expect")
    if expect is not None:
        if expect.strip().lower() != "100-continue":
            raise errors.expectation_failed()
        if request.message.version >= (1, 1):
            request.connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    content = request.content
    if not content.is_eof():
        return None
    body = content.read_nowait()
    if len(body) > bytes_max:
        raise errors.body_too_large(bytes_max)
    return body


async def read_rest(request: Request, bytes_max: int, timeout_s: float) -> bytes:
    """The whole body, of which at least a part is still on its way.

    Raises:
        RequestError: 400, 408, 413.
        ClientGone: the connection was lost.
    """
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            while piece := await request.content.readany():
                pieces.append(piece)
                size += len(piece)
                if size > bytes_max:
                    raise errors.body_too_large(bytes_max)
    except TimeoutError:
        raise errors.request_timeout(timeout_s) from None
    except ConnectionError:
        raise ClientGone from None
    except (HttpProcessingError, RequestPayloadError) as error:
        if request.connection.transport is None:
            raise ClientGone from None
        raise errors.bad_http(f"its body cannot be read: {error}") from None
    return b"".join(pieces)
