"""Logs go when they expire, or when their customer says so, and leave nothing behind.

On PostgreSQL a row that is gone is out of the table at once, and out of its files when its day's partition is dropped
or when a vacuum comes before that. On SQLite freed pages are cleared (chassis/sqlite_writer.py), and the write-ahead
log, where old pages would go on standing, is emptied after every deletion.
"""

from collections.abc import Awaitable, Callable

from chassis.database import Database
from chassis.faults import Unavailable
from chassis.log import logger
from usage_svc import log_store, metrics
from usage_svc.log_partitions import LogPartitions
from usage_svc.logs import Span

_log = logger(__name__)


class LogSweeper:
    """Run `run` beside the servicers; they delete through it, too."""

    def __init__(
        self,
        database: Database,
        partitions: LogPartitions,
        *,
        interval_s: float,
        horizon_us: int,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._database, self._partitions = database, partitions
        self._interval_s, self._horizon_us, self._sleep = interval_s, horizon_us, sleep
        self._left_in_wal = True  # perhaps, by the process before

    async def run(self) -> None:
        """Sweeps until cancelled."""
        while True:
            await self.turn()
            await self._sleep(self._interval_s)

    async def turn(self) -> int:
        """Removes what has expired. Returns how many logs."""
        expired = 0
        try:
            expired += await self._partitions.drop_past()
            more = True
            while more:
                count, more = await self._database.write(log_store.delete_expired)
                expired += count
                self._left_in_wal = self._left_in_wal or count > 0
            await self._database.write(lambda transaction: log_store.forget_deletions(transaction, self._horizon_us))
            await self._clear_wal()
        except Unavailable as fault:
            _log.warning("expired logs wait", reason=fault.reason, message=fault.message)
        if expired:
            metrics.LOGS_DELETED.labels("expired").inc(expired)
        return expired

    async def delete_one(self, account_id: str, request_id: str, forget_us: int, ahead_max: int) -> bool | None:
        """See log_store.delete_one. Raises: Unavailable."""
        found = await self._database.write(
            lambda transaction: log_store.delete_one(transaction, account_id, request_id, forget_us, ahead_max)
        )
        if found:
            metrics.LOGS_DELETED.labels("customer").inc()
            await self.deleted()
        return found

    async def delete_span(self, account_id: str, span: Span) -> int:
        """Deletes an account's logs of a time. Returns how many. Raises: Unavailable; then some may be gone."""
        deleted, more = 0, True
        while more:
            count, more = await self._database.write(
                lambda transaction: log_store.delete_some(transaction, account_id, span)
            )
            deleted += count
        if deleted:
            metrics.LOGS_DELETED.labels("customer").inc(deleted)
            await self.deleted()
        return deleted

    async def deleted(self) -> None:
        """Something was deleted: nothing of it may stay in SQLite's write-ahead log."""
        self._left_in_wal = True
        await self._clear_wal()

    async def _clear_wal(self) -> None:
        if self._left_in_wal and self._database.is_sqlite:
            # A reader of an older state holds it up: then the next turn tries again. Not set by the outcome alone: what
            # is deleted meanwhile needs another look.
            self._left_in_wal = False
            if not await self._database.empty_sqlite_wal():
                self._left_in_wal = True
