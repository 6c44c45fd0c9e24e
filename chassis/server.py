"""A gRPC server with what every one of ours has: TLS, interceptor, health, reflection, bounds, graceful stop."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from chassis.callers import Callers, Gate
from chassis.faults import PortTaken
from chassis.interceptors import CallInterceptor
from chassis.tls import tls_of_server
from protos.client import TlsFiles

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
MAX_METADATA_BYTES = 16 * 1024
# On one connection. An honest client needs few: its calls end, and its watches are as many as there are kinds of them.
MAX_CONCURRENT_STREAMS = 1000


@dataclass(frozen=True, slots=True)
class Servicer:
    """A servicer and how to add it: `Servicer("tollgate.x.v1.XService", add_XServicer_to_server, servicer)`."""

    service_name: str
    add_to_server: Callable[[Any, Any], None]
    servicer: Any


@dataclass(frozen=True, slots=True)
class Serving:
    """How a server serves. `callers` count over TLS alone, where they have names."""

    host: str = "127.0.0.1"
    port: int = 0
    drain_s: float = 10.0
    tls: TlsFiles | None = None
    callers: Callers = field(default_factory=dict)
    connection_age_s: float = 300.0
    connections_max: int = 1000
    calls_max: int = 4000
    call_timeout_s: float = 60.0
    call_timeout_s_max: float = 3600.0
    # A peer that has gone without a word, or that takes nothing, is noticed within the sum of both.
    keepalive_s: float = 30.0
    keepalive_timeout_s: float = 10.0
    handshake_timeout_s: float = 10.0  # for who connects and says nothing


class RpcServer:
    """Serves for as long as the block lasts. Health turns NOT_SERVING before the listener closes.

    Raises, on entering:
        PortTaken: the port is in use.
        TlsUnusable: the certificates cannot be used.
    """

    def __init__(self, servicers: Sequence[Servicer], serving: Serving) -> None:
        self._servicers, self._serving = servicers, serving
        self.port = 0
        self._health = health.aio.HealthServicer()
        age_ms = int(serving.connection_age_s * 1000)
        self._server = grpc.aio.server(
            interceptors=[
                CallInterceptor(
                    Gate(serving.callers) if serving.tls is not None else None,
                    call_timeout_s=serving.call_timeout_s,
                    call_timeout_s_max=serving.call_timeout_s_max,
                    watch_age_s_max=serving.connection_age_s,
                )
            ],
            maximum_concurrent_rpcs=serving.calls_max,
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_metadata_size", MAX_METADATA_BYTES),
                ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
                ("grpc.max_concurrent_streams", MAX_CONCURRENT_STREAMS),
                ("grpc.max_allowed_incoming_connections", serving.connections_max),
                ("grpc.server_handshake_timeout_ms", int(serving.handshake_timeout_s * 1000)),
                ("grpc.so_reuseport", 0),
                ("grpc.keepalive_time_ms", int(serving.keepalive_s * 1000)),
                ("grpc.keepalive_timeout_ms", int(serving.keepalive_timeout_s * 1000)),
                # Without these a ping that is never answered is waited for a whole minute (measured; grpcio 1.85).
                ("grpc.http2.ping_timeout_ms", int(serving.keepalive_timeout_s * 1000)),
                ("grpc.http2.settings_timeout", int(serving.keepalive_timeout_s * 1000)),
                # Clients ping an idle watch every 10 s (protos/client); without this the server calls that an attack.
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
                ("grpc.keepalive_permit_without_calls", 1),
                # gRPC spreads this by a tenth either way. A watch ends by itself before its age is that of a connection
                # (interceptors.py), so the grace cuts only who does not read.
                ("grpc.max_connection_age_ms", age_ms),
                ("grpc.max_connection_age_grace_ms", age_ms),
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
        tls = tls_of_server(self._serving.tls) if self._serving.tls is not None else None
        self.port = listen(self._server, self._serving.host, self._serving.port, tls)
        await self._server.start()
        for name in ("", *names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._health.enter_graceful_shutdown()
        await self._server.stop(self._serving.drain_s)


def listen(server: grpc.aio.Server, host: str, port: int, tls: grpc.ServerCredentials | None) -> int:
    """Opens a server's port and returns it: the one asked for, or the system's choice for 0.

    Raises:
        PortTaken: it cannot be opened.
    """
    address = f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"
    try:
        if tls is None:
            return int(server.add_insecure_port(address))
        return int(server.add_secure_port(address, tls))
    except RuntimeError:
        raise PortTaken(
            f"cannot listen on {address}: another process has the port, or the host is not this machine's"
        ) from None
