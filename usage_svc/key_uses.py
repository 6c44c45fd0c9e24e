"""When keys were last used: noted in memory as usage is recorded, written down together every few seconds.

Not in the transaction that records: a row for each key would make the batches of all edges wait for one another. What a
crash loses is the last few seconds of it, until the key is used again.
"""

import asyncio
from collections.abc import Sequence

from chassis.database import Database
from chassis.faults import Unavailable
from chassis.log import logger
from usage_svc.driver import Command, Query, Script, open_with, write_by_script
from usage_svc.intake import Posted

FLUSH_INTERVAL_S = 2.0
MAX_KEYS = 100_000  # noted and not written yet; those beyond wait for their next use

_log = logger(__name__)


class KeyUses:
    """Call `note` for what was recorded; run `flush_for_ever` beside it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._noted: dict[tuple[str, str], int] = {}

    def note(self, posted: Posted) -> None:
        """Remembers the latest end of each key's requests."""
        noted = self._noted
        keys = list(zip(posted.field("account_id"), posted.field("key_id"), strict=True))
        end_times_us = posted.field("end_time_us")
        if keys and keys.count(keys[0]) == len(keys):  # one key's batch: only the busiest have those
            keys, end_times_us = keys[:1], [max(end_times_us)]
        for key, end_time_us in zip(keys, end_times_us, strict=True):
            known_us = noted.get(key)
            if known_us is None:
                if len(noted) < MAX_KEYS:
                    noted[key] = end_time_us
            elif known_us < end_time_us:
                noted[key] = end_time_us

    async def flush_for_ever(self) -> None:
        """Writes what was noted, until cancelled. While the database is away it is kept."""
        while True:
            await asyncio.sleep(FLUSH_INTERVAL_S)
            await self.flush()

    async def flush(self) -> None:
        """Writes what was noted."""
        noted, self._noted = self._noted, {}
        if not noted:
            return
        rows = [(*key, moment_us) for key, moment_us in sorted(noted.items())]
        try:
            await write_by_script(self._database, lambda: _write(rows))
        except Unavailable as fault:
            _log.warning("last uses of keys wait", reason=fault.reason)
            for key, moment_us in noted.items():
                if len(self._noted) < MAX_KEYS or key in self._noted:
                    self._noted[key] = max(moment_us, self._noted.get(key, 0))

    async def of(self, account_id: str, key_ids: Sequence[str]) -> dict[str, int]:
        """The last uses of some keys of an account, in microseconds since 1970; without those that were never used."""
        async with self._database.read() as transaction:
            _, rows = await open_with(
                transaction,
                "SELECT key_id, last_use_time_us FROM key_use WHERE account_id = $1 AND key_id IN_LIST($2)",
                account_id,
                list(key_ids),
            )
        return {str(key_id): int(moment_us) for key_id, moment_us in rows}


def _write(rows: Sequence[tuple[str, str, int]]) -> Script[None]:
    yield (Query("SELECT 1"),)
    yield (
        Command(
            "INSERT INTO key_use AS k (account_id, key_id, last_use_time_us) VALUES ($1, $2, $3) "
            "ON CONFLICT (account_id, key_id) DO UPDATE SET last_use_time_us = excluded.last_use_time_us "
            "WHERE k.last_use_time_us < excluded.last_use_time_us",
            rows,
        ),
    )
