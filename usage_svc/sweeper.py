"""Fencing sessions that have gone silent. Fencing frees nothing: a paused edge may still be spending.

Where the operator has set a time for it, what has been silent for that long is released by force.
"""

from collections.abc import Awaitable, Callable

from sqlmodel.ext.asyncio.session import AsyncSession

from chassis.clock import Clock
from chassis.database import Database
from chassis.faults import FailedPrecondition, Unavailable
from chassis.log import logger
from usage_svc import funds_store, key_rate_store, metrics, session_store
from usage_svc.driver import Script, open_with, write_by_script
from usage_svc.funding import Funding
from usage_svc.sessions import SessionState

SWEEPS_PER_TTL = 10
MAX_INTERVAL_S = 30.0
KEY_RATES_MAX = 10_000  # rows deleted in one turn

_log = logger(__name__)


class Sweeper:
    """Sweeps ten times per TTL, and never before one full TTL after this process and its database were up.

    While either was down no edge could send a heartbeat, so silence then says nothing about the edges.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        ttl_s: float,
        sleep: Callable[[float], Awaitable[None]],
        funding: Funding,
        orphan_ttl_s: float = 0.0,
    ) -> None:
        self._database = database
        self._clock = clock
        self._ttl_s = ttl_s
        self._sleep = sleep
        self._funding = funding
        self._orphan_ttl_s = max(orphan_ttl_s, ttl_s) if orphan_ttl_s else 0.0
        self._quiet_until_s = clock.monotonic() + ttl_s

    async def run(self) -> None:
        """Sweeps until cancelled."""
        interval_s = min(self._ttl_s / SWEEPS_PER_TTL, MAX_INTERVAL_S)
        while True:
            await self.turn()
            await self._sleep(interval_s)

    async def turn(self) -> int:
        """One look at the database: sweeps if it may, and takes the gauges. Returns how many sessions it fenced."""
        swept = 0
        try:
            if self._clock.monotonic() >= self._quiet_until_s:
                swept = await self._database.write(
                    lambda transaction: session_store.sweep(transaction, round(self._ttl_s * 1_000_000))
                )
                await self._force_orphans()
            await write_by_script(self._database, _forget_key_rates)
            async with self._database.read() as transaction:
                await _take_gauges(transaction)
        except Unavailable as fault:
            self._quiet_until_s = self._clock.monotonic() + self._ttl_s
            _log.warning("not sweeping", reason=fault.reason, message=fault.message)
            return swept
        if swept:
            metrics.SWEPT.inc(swept)
            _log.warning("sessions lost", count=swept, ttl_s=self._ttl_s)
        return swept

    async def _force_orphans(self) -> None:
        if not self._orphan_ttl_s:
            return
        async with self._database.read() as transaction:
            orphans = await session_store.orphans(transaction, round(self._orphan_ttl_s * 1_000_000))
        for session_id in orphans:
            try:
                released = await self._funding.force(session_id)
            except FailedPrecondition:
                continue  # its spool came in between
            _log.warning(
                "orphan released by force",
                spool_uuid=session_id.spool_uuid,
                incarnation=session_id.incarnation,
                released_nanousd=released,
            )


def _forget_key_rates() -> Script[int]:
    (rows,) = yield (key_rate_store.forget(KEY_RATES_MAX),)
    return len(rows)


async def _take_gauges(transaction: AsyncSession) -> None:
    driver, state_rows = await open_with(transaction, session_store.COUNT_BY_STATE.sql)
    lease_rows = await driver.answer(funds_store.OPEN_LEASES)
    counts = {int(state): int(count) for state, count in state_rows}
    for state in SessionState:
        metrics.SESSIONS.labels(state.name.lower()).set(counts.get(int(state), 0))
    metrics.OPEN_LEASES.set(lease_rows[0][0])
    metrics.RESERVED.set(lease_rows[0][1])
