"""gRPC health on a port of its own, for probes: there from the first moment to the last, and never encrypted.

Kubernetes' gRPC probes speak no TLS, and a process that waits for its database must be told apart from one that hangs.
It serves health and nothing else, so that there is nothing in it to protect.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from chassis.faults import PortTaken

LIVE = "live"
READY = ""
# Whoever reaches the port may ask: few are let in at once.
_CALLS_MAX = 100


class HealthServer:
    """Answers LIVE with SERVING as long as the block lasts, READY within `serving`. A port of None serves nothing."""

    def __init__(self, host: str, port: int | None) -> None:
        self._host, self._requested_port = host, port
        self.port: int | None = None
        self._health = health.aio.HealthServicer()
        self._server: grpc.aio.Server | None = None

    async def __aenter__(self) -> "HealthServer":
        if self._requested_port is None:
            return self
        await self._health.set(LIVE, health_pb2.HealthCheckResponse.SERVING)
        await self._health.set(READY, health_pb2.HealthCheckResponse.NOT_SERVING)
        self._server = grpc.aio.server(
            maximum_concurrent_rpcs=_CALLS_MAX,
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", 4096),
                ("grpc.max_allowed_incoming_connections", _CALLS_MAX),
                ("grpc.max_connection_idle_ms", 60_000),
            ],
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        address = f"{self._host}:{self._requested_port}"
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError:
            raise PortTaken(
                f"cannot serve health on {address}: another process has the port, or the host is not this machine's"
            ) from None
        await self._server.start()
        return self

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """READY for as long as the block lasts: enter it last, so that it ends before the listener does."""
        await self._health.set(READY, health_pb2.HealthCheckResponse.SERVING)
        try:
            yield
        finally:
            await self._health.set(READY, health_pb2.HealthCheckResponse.NOT_SERVING)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            await self._server.stop(None)
