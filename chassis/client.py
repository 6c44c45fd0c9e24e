"""gRPC channels and calls: keepalive, round robin over DNS, deadlines, retries of what is safe to repeat, faults."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import grpc

from chassis import metrics
from chassis.faults import fault_from_rpc
from chassis.interceptors import REQUEST_ID_KEY
from chassis.server import MAX_MESSAGE_BYTES

_SERVICE_CONFIG = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        # Every call of ours is safe to repeat: reads are, and writes carry an id made by their first sender.
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 3,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "0.5s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
    }
)

# Two lost heartbeats may be a busy machine; three are a broken stream.
MISSED_HEARTBEATS = 3

MAX_METADATA_BYTES = 64 * 1024

ResponseT = TypeVar("ResponseT")


def channel(address: str) -> grpc.aio.Channel:
    """A channel to `host:port`. Costs nothing until the first call; close it with `async with`."""
    return grpc.aio.insecure_channel(
        address,
        options=[
            ("grpc.service_config", _SERVICE_CONFIG),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            # A fault may name many fields, and its details travel as metadata: the default of 8 KB would lose the call.
            ("grpc.max_metadata_size", MAX_METADATA_BYTES),
            ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
            ("grpc.keepalive_time_ms", 10_000),
            ("grpc.keepalive_timeout_ms", 5_000),
            ("grpc.keepalive_permit_without_calls", 1),
            # A restarted service must be found again within a second, not after gRPC's default of up to two minutes.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1_000),
        ],
    )


async def call(
    method: grpc.aio.UnaryUnaryMultiCallable[Any, ResponseT],
    request: Any,
    *,
    timeout_s: float,
    request_id: str | None = None,
) -> ResponseT:
    """One unary call with a deadline.

    Raises:
        Fault: whatever the server raised, or Unavailable / DeadlineExceeded where it could not be asked.
    """
    name = _method_name(method)
    start, code = time.perf_counter(), "OK"
    metadata = ((REQUEST_ID_KEY, request_id),) if request_id else None
    try:
        return await method(request, timeout=timeout_s, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        code = error.code().name
        raise fault_from_rpc(error) from None
    except asyncio.CancelledError:
        code = "CANCELLED"
        raise
    finally:
        metrics.RPC_CLIENT_CALLS.labels(name, code).inc()
        metrics.RPC_CLIENT_DURATION.labels(name).observe(time.perf_counter() - start)


async def watch(
    method: grpc.aio.UnaryStreamMultiCallable[Any, ResponseT],
    request: Any,
    *,
    first_timeout_s: float,
    silence_s: Callable[[ResponseT], float | None],
) -> AsyncIterator[ResponseT]:
    """Reads a server stream until it ends.

    `silence_s` says of a message after how much silence the next one is overdue (a heartbeat names its interval); None
    leaves the last word standing. A stream is given up after MISSED_HEARTBEATS such spans.

    Raises:
        Fault: as `call`.
        TimeoutError: the first message did not come in time, or heartbeats stayed out.
    """
    timeout_s = first_timeout_s
    name, code = _method_name(method), "OK"
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
        raise fault_from_rpc(error) from None
    except (asyncio.CancelledError, GeneratorExit, TimeoutError):
        code = "CANCELLED"
        raise
    finally:
        stream.cancel()
        metrics.RPC_CLIENT_CALLS.labels(name, code).inc()


def _method_name(method: Any) -> str:
    name = method._method  # the multi-callable keeps the path it was made with, and offers no public way to read it
    return name.decode() if isinstance(name, bytes) else str(name)
