"""The three gRPC services of this process, split by what their callers may do."""

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
from usage_svc.idempotency_keys import IdempotencyKeys
from usage_svc.key_uses import KeyUses
from usage_svc.metering_servicer import MeteringServicer
from usage_svc.reading_servicer import ReadingServicer
from usage_svc.recording import Recorder
from usage_svc.settings import UsageSettings
from usage_svc.sweeper import Sweeper


@asynccontextmanager
async def open_servicers(
    settings: UsageSettings, database: Database, lifetime: Lifetime
) -> AsyncIterator[Sequence[Servicer]]:
    """Serves metering, reading and administration, and sweeps silent sessions, for as long as the block lasts."""
    clock = SystemClock()
    sweeper = Sweeper(database, clock, settings.session_ttl_s, asyncio.sleep)
    key_uses = KeyUses(database)
    flushing = lifetime.supervise("key uses", key_uses.flush_for_ever())
    sweeping = lifetime.supervise("sweeper", sweeper.run())
    auditor = Auditor(database, asyncio.sleep)
    idempotency_keys = IdempotencyKeys(database, settings.idempotency_ttl_s, asyncio.sleep)
    tasks = [sweeping, flushing, lifetime.supervise("idempotency keys", idempotency_keys.sweep_for_ever())]
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
                    settings.session_ttl_s,
                    idempotency_keys,
                ),
            ),
            Servicer(
                services["UsageService"].full_name,
                usage_pb2_grpc.add_UsageServiceServicer_to_server,
                ReadingServicer(database, key_uses),
            ),
            Servicer(
                services["UsageAdminService"].full_name,
                usage_pb2_grpc.add_UsageAdminServiceServicer_to_server,
                AdminServicer(database, clock, settings.default_grace_nanousd, auditor),
            ),
        ]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await key_uses.flush()
