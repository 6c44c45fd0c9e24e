"""A gRPC server with what every one of ours has: interceptor, health, reflection, bounds, graceful stop."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from chassis.faults import PortTaken
from chassis.interceptors import CallInterceptor

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
MAX_CONCURRENT_STREAMS = 1000


@dataclass(frozen=True, slots=True)
class Servicer:
    """A servicer and how to add it: `Servicer("tollgate.x.v1.XService", add_XServicer_to_server, servicer)`."""

    service_name: str
    add_to_server: Callable[[Any, Any], None]
    servicer: Any


class RpcServer:
    """Serves for as long as the block lasts. Health turns NOT_SERVING before the listener closes."""

    def __init__(self, servicers: Sequence[Servicer], host: str, port: int, drain_s: float) -> None:
        self._servicers = servicers
        self._host, self._requested_port, self._drain_s = host, port, drain_s
        self.port = 0
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(
            interceptors=[CallInterceptor()],
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_concurrent_streams", MAX_CONCURRENT_STREAMS),
                ("grpc.so_reuseport", 0),
                ("grpc.keepalive_time_ms", 30_000),
                ("grpc.keepalive_timeout_ms", 10_000),
                # Clients ping an idle watch every 10 s (client.py); without this the server calls that an attack.
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
                ("grpc.keepalive_permit_without_calls", 1),
            ],
        )

    async def __aenter__(self) -> "RpcServer":
        for each in self._servicers:
            each.add_to_server(each.servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [each.service_name for each in self._servicers]
        reflection.enable_server_reflection(
            [*names, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME], self._server
        )
        try:
            self.port = self._server.add_insecure_port(f"{self._host}:{self._requested_port}")
        except RuntimeError:
            raise PortTaken(
                f"cannot listen on {self._host}:{self._requested_port}: another process has the port, or the host is "
                "not this machine's"
            ) from None
        await self._server.start()
        for name in ("", *names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._health.enter_graceful_shutdown()
        await self._server.stop(self._drain_s)
