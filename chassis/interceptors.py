"""What happens around every gRPC call on the server: request id, metrics, faults to statuses.

One of the three places that may catch every exception: a bug becomes INTERNAL with the request id and leaks nothing.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import structlog
import uuid_utils
from google.protobuf.message import Message

from chassis import metrics
from chassis.faults import Fault, Internal, status_from_fault
from chassis.log import logger

REQUEST_ID_KEY = "x-request-id"
_MAX_REQUEST_ID_CHARS = 100

_log = logger(__name__)

MaybeHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"  # generic in the stubs only


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps unary and server-streaming handlers; the other kinds pass, since no contract of ours has them."""

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
                _unary(handler.unary_unary, method),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                _stream(handler.unary_stream, method),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        return handler


def _unary(behaviour: Any, method: str) -> Any:
    async def call(request: Message, context: grpc.aio.ServicerContext[Any, Any]) -> Message:
        request_id = _bind_request_id(context)
        start, code = time.perf_counter(), "OK"
        try:
            answer: Message = await behaviour(request, context)
            return answer
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except Exception as error:  # noqa: BLE001 - the interceptor: one of the three places
            fault = _fault(error, method, request_id)
            code = fault.code.name
            await context.abort_with_status(status_from_fault(fault))
            raise AssertionError("unreachable") from None
        finally:
            metrics.RPC_SERVER_CALLS.labels(method, code).inc()
            metrics.RPC_SERVER_DURATION.labels(method).observe(time.perf_counter() - start)

    return call


def _stream(behaviour: Any, method: str) -> Any:
    async def call(request: Message, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Message]:
        request_id = _bind_request_id(context)
        code = "OK"
        try:
            async for answer in behaviour(request, context):
                yield answer
        except (asyncio.CancelledError, GeneratorExit):
            code = "CANCELLED"
            raise
        except Exception as error:  # noqa: BLE001 - the interceptor: one of the three places
            fault = _fault(error, method, request_id)
            code = fault.code.name
            await context.abort_with_status(status_from_fault(fault))
        finally:
            metrics.RPC_SERVER_CALLS.labels(method, code).inc()

    return call


def _bind_request_id(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """The caller's request id, or a new one; bound to every log line of this call."""
    request_id = ""
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_KEY:
            request_id = (value if isinstance(value, str) else value.decode(errors="replace"))[:_MAX_REQUEST_ID_CHARS]
    request_id = request_id or str(uuid_utils.uuid7())
    structlog.contextvars.bind_contextvars(request_id=request_id)
    return request_id


def _fault(error: Exception, method: str, request_id: str) -> Fault:
    if isinstance(error, Fault):
        _log.info("call refused", method=method, reason=error.reason, message=error.message)
        return error
    _log.error("call failed", method=method, exc_info=error)
    return Internal("INTERNAL", f"unexpected error; look for request id {request_id} in the logs")
