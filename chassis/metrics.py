"""Prometheus over HTTP on a port of its own, and the metrics that every process has."""

import asyncio
from types import TracebackType

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, start_http_server

from chassis.faults import PortTaken

RPC_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

# method: the full gRPC method; code: the gRPC status name.
RPC_SERVER_CALLS = Counter(
    "tollgate_rpc_server_calls_total", "gRPC calls answered by this process.", ["method", "code"]
)
RPC_SERVER_DURATION = Histogram(
    "tollgate_rpc_server_duration_seconds", "Time to answer a unary gRPC call.", ["method"], buckets=RPC_BUCKETS_S
)
RPC_CLIENT_CALLS = Counter(
    "tollgate_rpc_client_calls_total", "gRPC calls made by this process, streams when they end.", ["method", "code"]
)
RPC_CLIENT_DURATION = Histogram(
    "tollgate_rpc_client_duration_seconds",
    "Time until a unary gRPC call was answered.",
    ["method"],
    buckets=RPC_BUCKETS_S,
)


class MetricsServer:
    """Serves a registry at /metrics from a daemon thread, for as long as the block lasts.

    Raises, on entering:
        PortTaken: the port is in use.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry = REGISTRY) -> None:
        self._host, self._requested_port, self._registry = host, port, registry

    @property
    def port(self) -> int:
        """Where it listens: the one asked for, or the one that the system gave for 0."""
        return int(self._server.server_port)

    async def __aenter__(self) -> "MetricsServer":
        try:
            self._server, self._thread = start_http_server(self._requested_port, self._host, self._registry)
        except OSError as error:
            raise PortTaken(
                f"cannot serve metrics on {self._host}:{self._requested_port}: {error.strerror or error}. Stop the "
                "process that has the port, or set another metrics port (0 lets the system choose)"
            ) from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._close)  # it waits for the server's next look at its socket, up to half a second

    def _close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
