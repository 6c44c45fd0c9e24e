"""A channel to a real server on which messages get lost, come twice, or come late and out of order."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from enum import Enum
from typing import Any

import grpc

from protos.usage.v1 import usage_pb2


class MessageFault(Enum):
    """What happens to the first, third and every seventh message of one method."""

    LOST = "the request never arrives"
    ANSWER_LOST = "the request arrives, its answer does not"
    REPEATED = "the request arrives twice; the second answer counts"
    LATE = "the caller hears nothing; the request arrives after the next one of its method has been answered"


def _unavailable() -> grpc.aio.AioRpcError:
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, "lost on the way, as scripted")


def _is_to(method: str, details: Any) -> bool:
    path = details.method.decode() if isinstance(details.method, bytes) else details.method
    return bool(path.endswith(f"/{method}"))


class FaultyCalls(grpc.aio.UnaryUnaryClientInterceptor):
    """Breaks the calls of one method, named without its service. `count` says how many by what became of them."""

    def __init__(self, method: str, fault: MessageFault) -> None:
        self._method, self._fault = method, fault
        self._number = 0
        self._held: tuple[Any, Any] | None = None
        self.count: Counter[str] = Counter()

    async def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        if not _is_to(self._method, details):
            return await continuation(details, request)
        self._number += 1
        if self._number not in (1, 3) and self._number % 7:
            call = await continuation(details, request)
            await call
            held, self._held = self._held, None
            if held is not None:
                await self._deliver_late(continuation, *held)
            return call
        self.count["broken"] += 1
        if self._fault is MessageFault.REPEATED:
            await (await continuation(details, request))
            return await continuation(details, request)
        if self._fault is MessageFault.ANSWER_LOST:
            await (await continuation(details, request))
        elif self._fault is MessageFault.LATE:
            self._held = details, request
        raise _unavailable()

    async def _deliver_late(self, continuation: Callable[..., Any], details: Any, request: Any) -> None:
        try:
            await (await continuation(details, request))
        except grpc.aio.AioRpcError:
            self.count["late and refused"] += 1
        else:
            self.count["late and answered"] += 1


class HeldCalls(grpc.aio.UnaryUnaryClientInterceptor):
    """Answers to one method, named without its service, come when `released` is set."""

    def __init__(self, method: str) -> None:
        self._method = method
        self.released = asyncio.Event()
        self.held = 0

    async def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        call = await continuation(details, request)
        if _is_to(self._method, details):
            await call
            self.held += 1
            await self.released.wait()
        return call


class OlderService(grpc.aio.UnaryUnaryClientInterceptor):
    """Makes usage_svc one of before there were rows: a row becomes a field that it does not know either."""

    def __init__(self) -> None:
        self.refused = 0

    async def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        if isinstance(request, usage_pb2.RecordUsageRequest):
            for record in request.records:
                if record.HasField("event_row"):
                    self.refused += 1
                    record.Clear()
                    record.MergeFromString(b"\xa2\x06\x03row")  # field 100
        return await continuation(details, request)


class FaultyHints(grpc.aio.UnaryStreamClientInterceptor):
    """Ends every server stream before its first message, or delivers each message twice."""

    def __init__(self, fault: MessageFault) -> None:
        self._fault = fault
        self.broken = 0

    async def intercept_unary_stream(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        if self._fault is MessageFault.LOST:
            self.broken += 1
            raise _unavailable()
        return self._altered(await continuation(details, request))

    async def _altered(self, call: Any) -> AsyncIterator[Any]:
        async for message in call:
            yield message
            if self._fault is MessageFault.REPEATED:
                self.broken += 1
                yield message


def faulty_channel(port: int, interceptor: FaultyCalls | FaultyHints | HeldCalls | OlderService) -> grpc.aio.Channel:
    """Close it with `async with`."""
    return grpc.aio.insecure_channel(f"127.0.0.1:{port}", interceptors=[interceptor])
