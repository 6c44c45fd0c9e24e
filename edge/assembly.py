"""The edge, put together: opens everything in the order in which it is needed, and closes it in the reverse."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import uuid_utils

from chassis.client import channel
from chassis.clock import SystemClock
from chassis.faults import PortTaken
from chassis.lifetime import Lifetime, end_tasks
from chassis.log import logger
from chassis.metrics import MetricsServer
from edge import metrics
from edge.access.key_cache import KeyCache
from edge.app import App
from edge.console.routes import ConsoleRoutes
from edge.generation import Generator
from edge.http.access_log import AccessLog
from edge.http.https import Https
from edge.http.protocol import ConnectionBounds, Server
from edge.idempotency import Idempotency
from edge.limits.addresses import Addresses
from edge.limits.limiter import Limiter
from edge.limits.spend import SpendBook
from edge.listing import Listing
from edge.logs.keeper import LogKeeper, LogSettings
from edge.management.caller import Callers
from edge.management.keys import Keys
from edge.management.logs import Logs
from edge.management.routes import ManagementRoutes
from edge.management.spending import Spending
from edge.metering.adoption import Adopter
from edge.metering.meter import Meter
from edge.metering.settings import Durability, MeteringSettings
from edge.readiness import Readiness
from edge.routing.catalog_watch import CatalogWatch
from edge.settings import EdgeSettings
from edge.upstream.credentials import credential_found
from edge.upstream.upstreams import Upstreams
from edge.upstream.watchdog import Watchdog
from protos.auth.v1 import auth_pb2_grpc
from protos.catalog.v1 import catalog_pb2_grpc
from protos.usage.v1 import usage_pb2_grpc

_log = logger(__name__)

LISTEN_BACKLOG = 2048
# What a connection whose requests are done may take to close.
SHUTDOWN_TIMEOUT_S = 1.0
# What requests whose upstreams were closed at the end of the drain time may take to be billed and answered.
BREAK_OFF_S_MAX = 2.0
MEMBER_READY_S_MAX = 10.0
MEMBER_READY_POLL_S = 0.05
# Requests of limited keys wait for this call; without an answer the edge limits by itself.
LIMITS_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Edge:
    """A serving edge."""

    port: int
    metrics_port: int
    generator: Generator
    meter: Meter
    catalog: CatalogWatch


@asynccontextmanager
async def open_edge(configured: EdgeSettings, process: Lifetime, *, is_member: bool = False) -> AsyncIterator[Edge]:
    """Serves for as long as the block lasts; then drains. A member shares its port with others (edge/group.py).

    Raises:
        PortTaken: the port is in use.
        MeteringRefusal: the spool folder belongs to another process.
        TlsUnusable: certificates cannot be used.
    """
    async with AsyncExitStack() as stack:
        yield await _open(configured, process, stack, is_member)


async def _open(configured: EdgeSettings, process: Lifetime, stack: AsyncExitStack, is_member: bool) -> Edge:
    clock = SystemClock()
    configured.data_dir.mkdir(parents=True, exist_ok=True)
    metrics_server = await stack.enter_async_context(MetricsServer(configured.metrics_host, configured.metrics_port))
    auth = await stack.enter_async_context(channel(configured.auth_address, configured.tls_files))
    catalog_channel = await stack.enter_async_context(channel(configured.catalog_address, configured.tls_files))
    usage = await stack.enter_async_context(channel(configured.usage_address, configured.tls_files))

    watchdog = Watchdog()
    upstreams = Upstreams(
        watchdog,
        idle_s=configured.upstream_idle_s,
        connections_max=configured.upstream_connections_max,
        answer_bytes_max=configured.answer_bytes_max,
    )
    stack.push_async_callback(upstreams.close)
    keys = KeyCache(
        auth_pb2_grpc.KeyServiceStub(auth),
        clock,
        entries_max=configured.key_cache_entries_max,
        max_age_s=configured.key_max_age_s,
        unknown_s=configured.unknown_key_s,
        rpc_timeout_s=configured.rpc_timeout_s,
    )
    addresses = Addresses(
        clock,
        trusted_proxy_hops=configured.trusted_proxy_hops,
        connections_max=configured.connections_per_address_max,
        failed_keys_per_minute=configured.failed_keys_per_minute,
    )
    catalog = CatalogWatch(
        catalog_pb2_grpc.CatalogServiceStub(catalog_channel),
        configured.data_dir,
        clock,
        credential_found,
        first_timeout_s=configured.rpc_timeout_s,
    )
    catalog.on_change.append(upstreams.use)
    catalog.load_from_disk()
    metering = usage_pb2_grpc.MeteringServiceStub(usage)
    meter = await stack.enter_async_context(Meter(metering_settings(configured), metering, clock, process))
    idempotency = await stack.enter_async_context(
        Idempotency(
            metering,
            meter,
            process,
            answer_bytes_max=configured.idempotency_answer_bytes_max,
            rpc_timeout_s=configured.rpc_timeout_s,
        )
    )
    logs = await stack.enter_async_context(LogKeeper(log_settings(configured), metering, clock, process))
    limiter = Limiter(
        metering,
        clock,
        str(uuid_utils.uuid7()),
        keys_max=configured.key_cache_entries_max,
        rpc_timeout_s=LIMITS_TIMEOUT_S,
    )
    spending = SpendBook(
        usage_pb2_grpc.MeteringServiceStub(usage),
        clock,
        lambda: meter.session,
        rpc_timeout_s=configured.rpc_timeout_s,
    )
    metrics.LIMITED_KEYS.set_function(lambda: float(len(limiter)))
    if configured.adopt_dir is not None:
        adopter = Adopter(
            usage_pb2_grpc.MeteringServiceStub(usage), metering_settings(configured), clock, configured.adopt_dir
        )
        stack.callback(process.supervise("adoption", adopter.run()).cancel)
    access_log = AccessLog(configured.access_log)
    stack.callback(access_log.flush)
    generator = Generator(
        configured, clock, keys, addresses, catalog, meter, limiter, spending, upstreams, watchdog, idempotency, logs
    )
    readiness = Readiness(clock, keys, catalog, meter)
    listing = Listing(clock, keys, addresses, catalog, configured.models_public)
    callers = Callers(keys, addresses, configured.rpc_timeout_s)
    usage_reader = usage_pb2_grpc.UsageServiceStub(usage)
    management = ManagementRoutes(
        Keys(
            callers,
            clock,
            auth_pb2_grpc.KeyManagementServiceStub(auth),
            usage_reader,
            configured.body_timeout_s,
        ),
        Spending(callers, clock, usage_reader),
        Logs(callers, usage_pb2_grpc.LogServiceStub(usage)),
    )
    console = ConsoleRoutes(callers, management, listing, configured.body_timeout_s) if configured.console else None
    app = App(generator, listing, management, console, readiness, access_log, configured.client_stall_s)
    for name, work in (
        ("watchdog", watchdog.watch()),
        ("key watch", keys.follow()),
        ("limits", limiter.run()),
        ("spend limits", spending.run()),
        ("catalog watch", catalog.follow()),
        ("access log", access_log.flush_for_ever()),
    ):
        stack.push_async_callback(end_tasks, [process.supervise(name, work)])
    _export_ages(keys, catalog)
    metrics.READY.set_function(lambda: float(not readiness.missing()))

    server = Server(
        app,
        ConnectionBounds(addresses.opened, addresses.closed, configured.header_timeout_s),
        keepalive_timeout=configured.keep_alive_s,
        max_line_size=configured.header_bytes_max,
        max_field_size=configured.header_bytes_max,
        max_headers=configured.header_count_max,
    )
    https = None
    if configured.https_certificate_file is not None and configured.https_key_file is not None:
        https = Https(configured.https_certificate_file, configured.https_key_file)
        stack.callback(process.supervise("https certificate", https.follow()).cancel)
    if is_member:
        await _until_ready(readiness, process)
    try:
        listener = await asyncio.get_running_loop().create_server(
            server,
            configured.listen_host,
            configured.listen_port,
            backlog=LISTEN_BACKLOG,
            ssl=https.context if https is not None else None,
            reuse_port=is_member,
        )
    except OSError as error:
        raise PortTaken(
            f"cannot listen on {configured.listen_host}:{configured.listen_port}: {error.strerror or error}. "
            "Stop the process that has the port, or set TOLLGATE_EDGE_LISTEN_PORT"
        ) from None
    port = listener.sockets[0].getsockname()[1]
    stack.push_async_callback(server.shutdown, SHUTDOWN_TIMEOUT_S)
    stack.callback(listener.close)
    stack.push_async_callback(_drain, configured, readiness, generator, upstreams, server, listener)
    return Edge(port, metrics_server.port, generator, meter, catalog)


async def _until_ready(readiness: Readiness, process: Lifetime) -> None:
    """Others serve the port: it is not taken up before it can be served, unless that takes too long.

    Then the services are away, and answers that say so are better than none.
    """
    try:
        async with asyncio.timeout(MEMBER_READY_S_MAX):
            while readiness.missing() and not process.stopping:  # noqa: ASYNC110 - it has many sources, and no event
                await asyncio.sleep(MEMBER_READY_POLL_S)
    except TimeoutError:
        _log.warning("serving although not ready", missing=readiness.missing())


async def _drain(
    configured: EdgeSettings,
    readiness: Readiness,
    generator: Generator,
    upstreams: Upstreams,
    server: Server,
    listener: asyncio.Server,
) -> None:
    """Not ready; then no new connections; then every open request to its end, or the drain time's.

    What is open then loses its upstream: as long as the meter is there, so that it has an outcome, and as long as its
    client is, so that a cut answer does not look finished.
    """
    readiness.stopping = True
    if configured.endpoint_lag_s:
        await asyncio.sleep(configured.endpoint_lag_s)
    listener.close()
    server.close_idle()
    _log.info("draining", open_requests=generator.open_requests)
    try:
        async with asyncio.timeout(configured.drain_s):
            await generator.until_idle()
    except TimeoutError:
        _log.warning("drain time is over", open_requests=generator.open_requests)
    else:
        return
    await upstreams.close()
    try:
        async with asyncio.timeout(BREAK_OFF_S_MAX):
            await generator.until_idle()
    except TimeoutError:
        _log.warning("requests are cut", open_requests=generator.open_requests)


def metering_settings(configured: EdgeSettings) -> MeteringSettings:
    """The part of the settings that metering needs."""
    return MeteringSettings(
        spool_dir=configured.data_dir / "spool",
        spool_bytes_max=configured.spool_bytes_max,
        segment_bytes=configured.spool_segment_bytes,
        edge_name=f"{socket.gethostname()}:{os.getpid()}",
        durability=Durability(configured.durability),
        sync_interval_s=configured.durability_interval_s,
        ship_linger_s=configured.ship_linger_s,
        ship_batch_max=configured.ship_batch_max,
        session_margin_s=configured.session_margin_s,
        outage_s=configured.outage_s,
        rpc_timeout_s=configured.rpc_timeout_s,
    )


def log_settings(configured: EdgeSettings) -> LogSettings:
    """The part of the settings that logs need."""
    return LogSettings(
        folder=configured.data_dir / "logs",
        body_bytes_max=configured.log_body_bytes_max,
        retention_days=configured.log_retention_days,
        spool_bytes_max=configured.log_spool_bytes_max,
        memory_bytes_max=configured.log_memory_bytes_max,
        free_bytes_min=configured.spool_bytes_max,
        rpc_timeout_s=configured.rpc_timeout_s,
    )


def _export_ages(keys: KeyCache, catalog: CatalogWatch) -> None:
    metrics.KEY_CACHE_AGE.set_function(keys.age_s)
    metrics.KEY_CACHE_ENTRIES.set_function(lambda: float(len(keys)))
    metrics.CATALOG_AGE.set_function(catalog.age_s)
    metrics.CATALOG_NUMBER.set_function(lambda: float(catalog.current.number))
