"""What happens around every gRPC call on the server: request id, caller, deadline, metrics, faults to statuses.

One of the three places that may catch every exception: a bug becomes INTERNAL with the request id and leaks nothing.
"""

import asyncio
import inspect
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeAlias, cast

import grpc
import structlog
import uuid_utils
from google.protobuf.message import DecodeError, Message

from chassis import metrics
from chassis.callers import Gate
from chassis.faults import DeadlineExceeded, Fault, Internal, InvalidArgument, status_from_fault
from chassis.log import logger
from protos.client import REQUEST_ID_KEY

_MAX_REQUEST_ID_CHARS = 100

_log = logger(__name__)

MaybeHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"  # generic in the stubs only
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class CurrentCall(NamedTuple):
    """The call that this task answers. What it calls in turn has the same request id, and no later deadline."""

    request_id: str
    deadline_s: float | None  # by the event loop's clock; None for a watch


class Undecodable(NamedTuple):
    """What came in place of a request; `problem` is the decoder's word, which holds nothing of the content."""

    problem: str


CURRENT_CALL: ContextVar[CurrentCall | None] = ContextVar("current_call", default=None)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps unary and server-streaming handlers; the other kinds pass, since no contract of ours has them.

    `gate` decides who may call; without one everybody may.
    """

    def __init__(
        self, gate: Gate | None, *, call_timeout_s: float, call_timeout_s_max: float, watch_age_s_max: float
    ) -> None:
        self._gate, self._watch_age_s_max = gate, watch_age_s_max
        self._call_timeout_s, self._call_timeout_s_max = call_timeout_s, call_timeout_s_max

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[MaybeHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> MaybeHandler:
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        method = str(handler_call_details.method)
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(handler.unary_unary, method),
                request_deserializer=_decoder(handler.request_deserializer),
                response_serializer=handler.response_serializer,
            )
        streaming: Any = handler.unary_stream
        # A coroutine writes its answers by itself: health's Watch alone does.
        if streaming is not None and not inspect.iscoroutinefunction(streaming):
            return grpc.unary_stream_rpc_method_handler(
                self._stream(streaming, method),
                request_deserializer=_decoder(handler.request_deserializer),
                response_serializer=handler.response_serializer,
            )
        return handler

    def _unary(self, behaviour: Any, method: str) -> Any:
        async def call(request: Message | Undecodable, context: Context) -> Message:
            request_id = _bind_request_id(context)
            remaining_s = cast("float | None", context.time_remaining())  # its types know no call without
            timeout_s = min(self._call_timeout_s if remaining_s is None else remaining_s, self._call_timeout_s_max)
            start, code = time.perf_counter(), "OK"
            try:
                async with asyncio.timeout(timeout_s) as deadline:
                    CURRENT_CALL.set(CurrentCall(request_id, deadline.when()))
                    if self._gate is not None:
                        self._gate.check(method, context)
                    _require_decoded(request)
                    answer: Message = await behaviour(request, context)
                return answer
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            except Exception as error:  # noqa: BLE001 - the interceptor: one of the three places
                fault = _late(timeout_s) if deadline.expired() else _fault(error, method, request_id)
                code = fault.code.name
                await context.abort_with_status(status_from_fault(fault, request_id))
                raise AssertionError("unreachable") from None
            finally:
                duration_s = time.perf_counter() - start
                metrics.RPC_SERVER_CALLS.labels(method, code).inc()
                metrics.RPC_SERVER_DURATION.labels(method).observe(duration_s)
                _log.debug("call", method=method, code=code, duration_ms=round(duration_s * 1000, 3))

        return call

    def _stream(self, behaviour: Any, method: str) -> Any:
        async def call(request: Message | Undecodable, context: Context) -> AsyncIterator[Message]:
            request_id = _bind_request_id(context)
            CURRENT_CALL.set(CurrentCall(request_id, None))
            code = "OK"
            # A watch ends between two messages and before its connection is cut for its age: its reader resumes on a
            # new connection and has missed nothing. Spread, so that the readers of one restart do not meet again.
            age_s = self._watch_age_s_max * random.uniform(0.6, 0.9)  # noqa: S311 - not a secret
            end_s = asyncio.get_running_loop().time() + age_s
            try:
                if self._gate is not None:
                    self._gate.check(method, context)
                _require_decoded(request)
                async with aclosing(behaviour(request, context)) as answers:
                    while True:
                        try:
                            async with asyncio.timeout_at(end_s) as age:
                                answer = await anext(answers)
                        except StopAsyncIteration:
                            return
                        except TimeoutError:
                            if age.expired():
                                return
                            raise
                        yield answer
            except (asyncio.CancelledError, GeneratorExit):
                code = "CANCELLED"
                raise
            except Exception as error:  # noqa: BLE001 - the interceptor: one of the three places
                fault = _fault(error, method, request_id)
                code = fault.code.name
                await context.abort_with_status(status_from_fault(fault, request_id))
            finally:
                metrics.RPC_SERVER_CALLS.labels(method, code).inc()
                _log.debug("watch ended", method=method, code=code)

        return call


def _decoder(decode: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    """Left to itself, gRPC answers UNKNOWN to bytes that are no message, with the exception's text."""
    assert decode is not None  # all of our contracts have messages

    def decoded(content: bytes) -> Any:
        try:
            return decode(content)
        except DecodeError as error:
            return Undecodable(str(error).rpartition(": ")[2])

    return decoded


def _require_decoded(request: Message | Undecodable) -> None:
    if isinstance(request, Undecodable):
        raise InvalidArgument(
            "request",
            f"these bytes are not a message of this method ({request.problem}): send what its contract says, texts in "
            "UTF-8",
            "REQUEST_UNDECODABLE",
        )


def _bind_request_id(context: Context) -> str:
    """The caller's request id, or a new one; bound to every log line of this call."""
    request_id = ""
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_KEY:
            request_id = (value if isinstance(value, str) else value.decode(errors="replace"))[:_MAX_REQUEST_ID_CHARS]
    request_id = request_id or str(uuid_utils.uuid7())
    structlog.contextvars.bind_contextvars(request_id=request_id)
    return request_id


def _late(timeout_s: float) -> Fault:
    return DeadlineExceeded(
        "DEADLINE_EXCEEDED",
        f"not done within {timeout_s:.3g} s: repeat it with a later deadline, or ask for less; a write may have "
        "happened, so repeat it with the same request_id",
    )


def _fault(error: Exception, method: str, request_id: str) -> Fault:
    if isinstance(error, Fault):
        _log.info("call refused", method=method, reason=error.reason, message=error.message)
        return error
    _log.error("call failed", method=method, exc_info=error)
    return Internal("INTERNAL", f"unexpected error; look for request id {request_id} in the logs")
