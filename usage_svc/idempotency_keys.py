"""Idempotency keys over the database: each call one transaction, and what has expired swept away."""

from collections.abc import Awaitable, Callable

from chassis.database import Database
from chassis.faults import Unavailable
from chassis.log import logger
from usage_svc import idempotency, idempotency_store, metrics
from usage_svc.driver import Script, write_by_script
from usage_svc.idempotency import Claim, Claimed, StoredAnswer

SWEEP_INTERVAL_S = 60.0
# Rows in one transaction: each may hold an answer of a megabyte.
SWEEP_ROWS = 500

_log = logger(__name__)


class IdempotencyKeys:
    """Call `claim` and `finish` for edges; run `sweep_for_ever` beside them."""

    def __init__(self, database: Database, ttl_s: int, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._database, self._ttl_s, self._sleep = database, ttl_s, sleep

    async def claim(self, wanted: Claim) -> Claimed:
        """See `idempotency.claim`."""
        claimed = await write_by_script(self._database, lambda: idempotency.claim(wanted, self._ttl_s))
        metrics.IDEMPOTENCY_CLAIMS.labels(claimed.outcome).inc()
        return claimed

    async def finish(
        self, account_id: str, key: str, request_id: str, *, released: bool, answer: StoredAnswer | None
    ) -> None:
        """See `idempotency.finish`."""
        await write_by_script(
            self._database,
            lambda: idempotency.finish(account_id, key, request_id, released=released, answer=answer),
        )

    async def sweep_for_ever(self) -> None:
        """Forgets what has expired, until cancelled."""
        while True:
            await self._sleep(SWEEP_INTERVAL_S)
            try:
                while await self.sweep() >= SWEEP_ROWS:
                    pass
            except Unavailable as fault:
                _log.warning("idempotency keys not swept", reason=fault.reason)

    async def sweep(self) -> int:
        """Forgets some of what has expired. Returns how many keys."""
        return await write_by_script(self._database, _sweep)


def _sweep() -> Script[int]:
    (rows,) = yield (idempotency_store.sweep(SWEEP_ROWS),)
    return len(rows)
