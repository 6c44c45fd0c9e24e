"""Calls with deadlines, listings page by page, and watches that resume."""

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol, Self, TypeVar

import grpc

from protos.client.failure import CallFailed, failure_from_rpc

REQUEST_ID_KEY = "x-request-id"
# Two lost heartbeats may be a busy machine; three are a broken watch.
MISSED_HEARTBEATS = 3
_RESUME_S_MIN, _RESUME_S_MAX = 0.05, 1.0

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")


class Page(Protocol):
    """What every listing answers with, beside its rows."""

    next_page_token: str


class Listing(Protocol):
    """What every listing is asked with, beside its filters."""

    page_token: str

    def CopyFrom(self, other: Self, /) -> None: ...  # noqa: N802 - protobuf's


PageT = TypeVar("PageT", bound=Page)
ListingT = TypeVar("ListingT", bound=Listing)

# Told of every call when it ends: its full method, the status's name, and its seconds (None for a watch).
Observer = Callable[[str, str, float | None], None]


def new_request_id() -> str:
    """For one write: a repeat of it must use the same one."""
    return str(uuid.uuid4())


async def call(
    method: grpc.aio.UnaryUnaryMultiCallable[RequestT, ResponseT],
    request: RequestT,
    *,
    timeout_s: float,
    request_id: str | None = None,
    observe: Observer | None = None,
) -> ResponseT:
    """One unary call with a deadline. `request_id` is what the server's log will have it under.

    Raises:
        CallFailed: whatever the server answered, or UNAVAILABLE / DEADLINE_EXCEEDED where it could not be asked.
    """
    start, code = time.perf_counter(), "OK"
    metadata = ((REQUEST_ID_KEY, request_id),) if request_id else None
    try:
        return await method(request, timeout=timeout_s, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        code = error.code().name
        raise failure_from_rpc(error) from None
    except asyncio.CancelledError:
        code = "CANCELLED"
        raise
    finally:
        if observe is not None:
            observe(_name(method), code, time.perf_counter() - start)


async def pages(
    method: grpc.aio.UnaryUnaryMultiCallable[ListingT, PageT],
    request: ListingT,
    *,
    timeout_s: float,
    request_id: str | None = None,
) -> AsyncIterator[PageT]:
    """Every page of a listing, from the request's page_token on. The request is left as it was.

    Raises:
        CallFailed: as `call`.
    """
    asked = type(request)()
    asked.CopyFrom(request)
    while True:
        page = await call(method, asked, timeout_s=timeout_s, request_id=request_id)
        yield page
        if not page.next_page_token:
            return
        asked.page_token = page.next_page_token


def heartbeat_interval_s(message: Any) -> float | None:
    """The interval that a watch's heartbeat names; None for every other message."""
    if "heartbeat" in message.DESCRIPTOR.fields_by_name and message.HasField("heartbeat"):
        interval_s: float = message.heartbeat.interval.ToTimedelta().total_seconds()
        return interval_s
    return None


async def watch(
    method: grpc.aio.UnaryStreamMultiCallable[RequestT, ResponseT],
    request: RequestT,
    *,
    first_timeout_s: float,
    silence_s: Callable[[ResponseT], float | None] = heartbeat_interval_s,
    observe: Observer | None = None,
) -> AsyncIterator[ResponseT]:
    """Reads a server stream until it ends: the server ends every watch after a while, for its reader to resume.

    `silence_s` says of a message after how much silence the next one is overdue (a heartbeat names its interval); None
    leaves the last word standing. A stream is given up after MISSED_HEARTBEATS such spans.

    Raises:
        CallFailed: as `call`.
        TimeoutError: the first message did not come in time, or heartbeats stayed out.
    """
    timeout_s = first_timeout_s
    code = "OK"
    stream = method(request, wait_for_ready=False)
    try:
        while True:
            message: Any = await asyncio.wait_for(stream.read(), timeout_s)
            if message is grpc.aio.EOF:
                return
            named_s = silence_s(message)
            if named_s is not None:
                timeout_s = named_s * MISSED_HEARTBEATS
            yield message
    except grpc.aio.AioRpcError as error:
        code = error.code().name
        raise failure_from_rpc(error) from None
    except asyncio.CancelledError:
        code = "CANCELLED"
        task = asyncio.current_task()
        if task is not None and not task.cancelling():
            return  # not we: the channel was made anew with other certificates, and this stream was on the old one
        raise
    except (GeneratorExit, TimeoutError):
        code = "CANCELLED"
        raise
    finally:
        stream.cancel()
        if observe is not None:
            observe(_name(method), code, None)


async def follow(
    method: grpc.aio.UnaryStreamMultiCallable[RequestT, ResponseT],
    make_request: Callable[[], RequestT],
    *,
    first_timeout_s: float,
    on_break: Callable[[str], None] = lambda reason: None,
    observe: Observer | None = None,
) -> AsyncIterator[ResponseT]:
    """A watch without end: resumes with a new request whenever the stream ends, breaks or falls silent.

    `make_request` says where to go on: it is asked before each stream, after all messages so far were taken. What
    comes with age (an end by the server, a lost connection that is back at once) is silent; `on_break` hears of
    everything else. Waits between tries, up to a second, with full jitter: many readers lose one server together.
    """
    pause_s = _RESUME_S_MIN
    while True:
        heard = False
        try:
            async for message in watch(method, make_request(), first_timeout_s=first_timeout_s, observe=observe):
                heard = True
                pause_s = _RESUME_S_MIN
                yield message
        except CallFailed as failure:
            if not (heard and failure.code is grpc.StatusCode.UNAVAILABLE):
                on_break(str(failure))
        except TimeoutError:
            on_break("silence")
        await asyncio.sleep(random.uniform(0, pause_s))  # noqa: S311 - not a secret
        pause_s = min(pause_s * 2, _RESUME_S_MAX)


def _name(method: Any) -> str:
    name = method._method  # the multi-callable keeps the path it was made with, and offers no public way to read it
    return name.decode() if isinstance(name, bytes) else str(name)
