"""Calls to other processes: the client library's, with metrics, and with faults in place of its failures."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import grpc

from chassis import metrics
from chassis.faults import fault_from_failure
from chassis.interceptors import CURRENT_CALL
from chassis.log import logger
from protos import client
from protos.client import CallFailed, TlsFiles

_log = logger(__name__)

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")


def channel(address: str, tls: TlsFiles | None = None) -> grpc.aio.Channel:
    """A channel to `host:port`. Costs nothing until the first call; close it with `async with`.

    Raises:
        TlsUnusable: the certificates cannot be used.
    """
    return client.open_channel(
        address, tls, on_trouble=lambda trouble: _log.error("certificates not replaced", reason=trouble)
    )


async def call(
    method: grpc.aio.UnaryUnaryMultiCallable[RequestT, ResponseT],
    request: RequestT,
    *,
    timeout_s: float,
    request_id: str | None = None,
) -> ResponseT:
    """One unary call with a deadline; inside a call that is being answered, no later one than that call's.

    Raises:
        Fault: whatever the server raised, or Unavailable / DeadlineExceeded where it could not be asked.
    """
    outer = CURRENT_CALL.get()
    if outer is not None:
        request_id = request_id or outer.request_id
        if outer.deadline_s is not None:
            timeout_s = max(0.0, min(timeout_s, outer.deadline_s - asyncio.get_running_loop().time()))
    try:
        return await client.call(method, request, timeout_s=timeout_s, request_id=request_id, observe=_observe)
    except CallFailed as failure:
        raise fault_from_failure(failure) from None


async def watch(
    method: grpc.aio.UnaryStreamMultiCallable[RequestT, ResponseT],
    request: RequestT,
    *,
    first_timeout_s: float,
    silence_s: Callable[[ResponseT], float | None] = client.heartbeat_interval_s,
) -> AsyncIterator[ResponseT]:
    """Reads a server stream until it ends.

    Raises:
        Fault: as `call`.
        TimeoutError: the first message did not come in time, or heartbeats stayed out.
    """
    try:
        async for message in client.watch(
            method, request, first_timeout_s=first_timeout_s, silence_s=silence_s, observe=_observe
        ):
            yield message
    except CallFailed as failure:
        raise fault_from_failure(failure) from None


def follow(
    name: str,
    method: grpc.aio.UnaryStreamMultiCallable[RequestT, ResponseT],
    make_request: Callable[[], RequestT],
    *,
    first_timeout_s: float,
) -> AsyncIterator[ResponseT]:
    """A watch that resumes for ever; `make_request` says where it goes on. `name` is for the log."""
    return client.follow(
        method,
        make_request,
        first_timeout_s=first_timeout_s,
        on_break=lambda reason: _log.warning("watch broke", watch=name, reason=reason),
        observe=_observe,
    )


def _observe(method: str, code: str, duration_s: float | None) -> None:
    metrics.RPC_CLIENT_CALLS.labels(method, code).inc()
    if duration_s is not None:
        metrics.RPC_CLIENT_DURATION.labels(method).observe(duration_s)
