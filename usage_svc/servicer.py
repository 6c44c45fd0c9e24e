"""The gRPC services of this process, split by what their callers may do."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from chassis.clock import SystemClock
from chassis.database import Database
from chassis.lifetime import Lifetime
from chassis.server import Servicer
from protos.usage.v1 import usage_pb2, usage_pb2_grpc
from usage_svc.admin_servicer import AdminServicer
from usage_svc.auditor import Auditor
from usage_svc.funding import Funding
from usage_svc.idempotency_keys import IdempotencyKeys
from usage_svc.key_uses import KeyUses
from usage_svc.log_partitions import LogPartitions
from usage_svc.log_servicer import LogKeeper, LogServicer
from usage_svc.log_sweeper import LogSweeper
from usage_svc.metering_servicer import MeteringServicer
from usage_svc.rating import MICROSECONDS_PER_DAY
from usage_svc.reading_servicer import ReadingServicer
from usage_svc.recording import Recorder
from usage_svc.replicas import Replicas
from usage_svc.settings import UsageSettings
from usage_svc.signals import Signals
from usage_svc.sweeper import Sweeper


@asynccontextmanager
async def open_servicers(
    settings: UsageSettings, database: Database, lifetime: Lifetime
) -> AsyncIterator[Sequence[Servicer]]:
    """Serves metering, logs, reading and administration for as long as the block lasts; sweeps what is over."""
    clock = SystemClock()
    signals = Signals(clock, lifetime)
    funding = Funding(database, signals)
    sweeper = Sweeper(database, clock, settings.session_ttl_s, asyncio.sleep, funding, settings.orphan_ttl_s)
    key_uses = KeyUses(database)
    auditor = Auditor(database, asyncio.sleep)
    idempotency_keys = IdempotencyKeys(database, settings.idempotency_ttl_s, asyncio.sleep)
    horizon_us = settings.log_horizon_days * MICROSECONDS_PER_DAY
    partitions = LogPartitions(database)
    log_sweeper = LogSweeper(
        database, partitions, interval_s=settings.log_sweep_interval_s, horizon_us=horizon_us, sleep=asyncio.sleep
    )
    tasks = [
        lifetime.supervise("key uses", key_uses.flush_for_ever()),
        lifetime.supervise("sweeper", sweeper.run()),
        lifetime.supervise("signals", signals.run()),
        lifetime.supervise("idempotency keys", idempotency_keys.sweep_for_ever()),
        lifetime.supervise("log sweeper", log_sweeper.run()),
    ]
    if not database.is_sqlite:
        tasks.append(lifetime.supervise("replicas", Replicas(database, signals).run()))
    if settings.drift_interval_s:
        tasks.append(lifetime.supervise("drift watch", auditor.watch_drift(settings.drift_interval_s)))
    services = usage_pb2.DESCRIPTOR.services_by_name
    try:
        yield [
            Servicer(
                services["MeteringService"].full_name,
                usage_pb2_grpc.add_MeteringServiceServicer_to_server,
                MeteringServicer(
                    database,
                    Recorder(database, settings.dedupe_horizon_days),
                    key_uses,
                    funding,
                    signals,
                    settings.session_ttl_s,
                    idempotency_keys,
                    LogKeeper(database, clock, partitions, horizon_us),
                ),
            ),
            Servicer(
                services["LogService"].full_name,
                usage_pb2_grpc.add_LogServiceServicer_to_server,
                LogServicer(database, clock, log_sweeper, horizon_us),
            ),
            Servicer(
                services["UsageService"].full_name,
                usage_pb2_grpc.add_UsageServiceServicer_to_server,
                ReadingServicer(database, key_uses),
            ),
            Servicer(
                services["UsageAdminService"].full_name,
                usage_pb2_grpc.add_UsageAdminServiceServicer_to_server,
                AdminServicer(database, clock, settings.default_grace_nanousd, auditor, funding, signals),
            ),
        ]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await key_uses.flush()
