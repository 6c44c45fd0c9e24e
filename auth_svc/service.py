"""auth_svc put together: what `__main__` runs, and what tests run inside their own process."""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import uuid_utils.compat
from sqlmodel.ext.asyncio.session import AsyncSession

from auth_svc import key_format, store
from auth_svc.change_feed import ChangeFeed
from auth_svc.ids import NewUuid
from auth_svc.key_format import RandomBytes
from auth_svc.key_writing import KeyWriter
from auth_svc.limits import Tiers
from auth_svc.management_servicer import KeyManagementServicer
from auth_svc.servicer import AuthAdminServicer, KeyServicer
from auth_svc.settings import AuthSettings
from chassis.clock import Clock, SystemClock
from chassis.database import Database
from chassis.faults import FailedPrecondition
from chassis.lifetime import Lifetime
from chassis.server import Servicer
from protos.auth.v1 import auth_pb2 as pb
from protos.auth.v1 import auth_pb2_grpc as rpc

_SYSTEM_CLOCK = SystemClock()


@asynccontextmanager
async def open_servicers(
    settings: AuthSettings,
    database: Database,
    lifetime: Lifetime,
    *,
    clock: Clock = _SYSTEM_CLOCK,
    new_uuid: NewUuid = uuid_utils.compat.uuid7,
    random_bytes: RandomBytes = secrets.token_bytes,
) -> AsyncIterator[Sequence[Servicer]]:
    """The servicers over a migrated database, for as long as the block lasts.

    Raises:
        FailedPrecondition: the pepper is not the one that the keys of this database are hashed with (WRONG_PEPPER), or
            a key has a tier that is not in the settings (TIER_MISSING).
        Unavailable: the database cannot be reached.
    """
    pepper = settings.key_pepper.get_secret_value().encode()
    await _require_same_pepper(database, key_format.pepper_check(pepper))
    tiers = settings.presets()
    await _tell_of_tiers(database, tiers)
    async with database.read() as session:
        revision = await store.newest_revision(session)
    feed = ChangeFeed(database, clock, lifetime, revision, settings.watch_heartbeat_s)
    writer = KeyWriter(database, clock, feed, pepper, settings.key_change_history_max, new_uuid, random_bytes)
    polling = lifetime.supervise("key changes", feed.poll_until_stopped())
    try:
        yield (
            Servicer(
                _service_name("KeyService"),
                rpc.add_KeyServiceServicer_to_server,
                KeyServicer(database, clock, feed, pepper, tiers, settings.watch_heartbeat_s),
            ),
            Servicer(
                _service_name("AuthAdminService"),
                rpc.add_AuthAdminServiceServicer_to_server,
                AuthAdminServicer(database, clock, writer, tiers, new_uuid),
            ),
            Servicer(
                _service_name("KeyManagementService"),
                rpc.add_KeyManagementServiceServicer_to_server,
                KeyManagementServicer(
                    database,
                    clock,
                    writer,
                    tiers,
                    keys_max=settings.keys_per_account_max,
                    retention_days_max=settings.log_retention_days_max,
                ),
            ),
        )
    finally:
        polling.cancel()
        await asyncio.gather(polling, return_exceptions=True)


async def _require_same_pepper(database: Database, check: bytes) -> None:
    async def first_or_kept(session: AsyncSession) -> bytes | None:
        await store.set_pepper_check(session, check)
        return await store.pepper_check(session)

    if await database.write(first_or_kept) != check:
        raise FailedPrecondition(
            "WRONG_PEPPER",
            "TOLLGATE_AUTH_KEY_PEPPER is not the one that the keys of this database are hashed with, so none of them "
            "would work: set the one that was used before",
        )


async def _tell_of_tiers(database: Database, tiers: Tiers) -> None:
    """Makes edges forget their grants where a preset has changed since they were told."""
    check = hashlib.sha256(repr(sorted(tiers.items())).encode()).digest()

    async def told(session: AsyncSession) -> set[str]:
        missing = await store.tiers_in_use(session) - tiers.keys()
        if not missing and await store.exchange_tiers_check(session, check):
            await store.forget_history(session)
        return missing

    if missing := await database.write(told):
        raise FailedPrecondition(
            "TIER_MISSING",
            f"keys have the tier {', '.join(sorted(missing))}, which TOLLGATE_AUTH_TIERS does not name: add it again, "
            "give those keys another one, and then leave it out",
        )


def _service_name(name: str) -> str:
    return pb.DESCRIPTOR.services_by_name[name].full_name
