"""catalog_svc put together: what `__main__` runs, and what tests run inside their own process."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from catalog_svc.servicer import CatalogAdminServicer, CatalogServicer
from catalog_svc.settings import CatalogSettings
from catalog_svc.snapshot_feed import POLL_INTERVAL_S, POLL_INTERVAL_SQLITE_S, SnapshotFeed
from catalog_svc.store import CatalogStore
from chassis.clock import Clock, SystemClock
from chassis.database import Database
from chassis.lifetime import Lifetime
from chassis.server import Servicer
from protos.catalog.v1 import catalog_pb2 as pb
from protos.catalog.v1 import catalog_pb2_grpc as rpc

_SYSTEM_CLOCK = SystemClock()


@asynccontextmanager
async def open_servicers(
    settings: CatalogSettings, database: Database, lifetime: Lifetime, *, clock: Clock = _SYSTEM_CLOCK
) -> AsyncIterator[Sequence[Servicer]]:
    """The servicers over a migrated database, for as long as the block lasts.

    Watches end when the lifetime is stopped, so that the server does not have to wait for them.
    """
    store = CatalogStore(database)
    feed = SnapshotFeed(
        store,
        clock,
        heartbeat_s=settings.watch_heartbeat_s,
        watches_max=settings.watches_max,
        poll_interval_s=POLL_INTERVAL_SQLITE_S if database.is_sqlite else POLL_INTERVAL_S,
    )

    async def close_feed_when_stopped() -> None:
        await lifetime.until_stopped()
        feed.close()

    tasks = [
        lifetime.supervise("catalog poll", feed.poll()),
        lifetime.supervise("catalog watches", close_feed_when_stopped()),
    ]
    try:
        yield (
            Servicer(
                _service_name("CatalogService"),
                rpc.add_CatalogServiceServicer_to_server,
                CatalogServicer(feed),
            ),
            Servicer(
                _service_name("CatalogAdminService"),
                rpc.add_CatalogAdminServiceServicer_to_server,
                CatalogAdminServicer(store, feed, clock),
            ),
        )
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _service_name(name: str) -> str:
    return pb.DESCRIPTOR.services_by_name[name].full_name
