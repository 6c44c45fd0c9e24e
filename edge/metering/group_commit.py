"""Makes written records durable: one sync for all that wait, beside the event loop (disk_sync.py)."""

import asyncio
import time
from collections.abc import Callable, Iterable

from chassis.log import logger
from edge.metering import metrics
from edge.metering.disk_sync import open_disk_sync
from edge.metering.settings import Durability
from edge.metering.spool_log import SpoolLog

_WRITE_RETRY_S = 0.5
# While other requests are under way, rounds begin at least so far apart, and what ends meanwhile shares one: each costs
# CPU for itself and for the wake-up at its end (docs/decisions/0004). Who is alone waits for nobody.
ROUND_GAP_S = 0.001

_log = logger(__name__)


class Round(asyncio.Future[None]):
    """What all events of one sync wait for. Shared, so one waiter's cancellation must not cancel it for the others: a
    cancelled waiter learns of its cancellation when the round ends.
    """

    def cancel(self, msg: object | None = None) -> bool:
        return False


class GroupCommit:
    """`on_safe` is called after each round, when more records may be shipped."""

    def __init__(self, durability: Durability, sync_interval_s: float, on_safe: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._durability, self._sync_interval_s, self._on_safe = durability, sync_interval_s, on_safe
        self._touched: set[SpoolLog] = set()
        self._is_scheduled = self._is_running = False
        self._round = Round(loop=self._loop)  # the next to start
        self.done = Round(loop=self._loop)  # for what waits for nothing
        self.done.set_result(None)
        self._covered: list[tuple[SpoolLog, int]] = []
        self._syncing: Round = self.done
        self._disk = open_disk_sync(self._on_synced)
        self.is_closed = False
        self._start_s = 0.0
        self.failed: OSError | None = None

    def settle(self, log: SpoolLog) -> asyncio.Future[None]:
        """To be called after an append; done when what was appended is as durable as the mode promises."""
        self._touched.add(log)
        if self._durability is Durability.GROUP:
            if not self._is_scheduled:
                self._is_scheduled = True
                self._loop.call_soon(self._tick)
            return self._round
        try:
            log.flush()
        except OSError:
            self._tick_later(_WRITE_RETRY_S)
            return self._round
        log.safe_seq = log.next_seq
        self._tick_later(self._sync_interval_s)
        return self.done

    async def forget(self, log: SpoolLog) -> None:
        """Waits until no sync uses a log's files, so that the log can be removed at once."""
        while self._is_running:
            await self._syncing
        self._touched.discard(log)

    def close(self, logs: Iterable[SpoolLog]) -> None:
        """Writes and syncs what is left, here and now.

        Raises:
            OSError: the disk refuses; what it has not taken is lost.
        """
        self.is_closed = True
        self._disk.close()
        for log in logs:
            log.flush()
            log.sync_now()
        for waiting in (self._syncing, self._round):
            if not waiting.done():
                waiting.set_result(None)

    def _tick_later(self, delay_s: float) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_later(delay_s, self._tick)

    def _tick(self) -> None:
        """Starts a round, unless one is running: that one's end starts the next."""
        self._is_scheduled = False
        try:
            for log in self._touched:
                log.flush()
        except OSError as error:
            _log.error("spool not writable, will be tried again", error=str(error))
            self._tick_later(_WRITE_RETRY_S)
            return
        if self._is_running or self.is_closed:
            return
        early_s = self._start_s + ROUND_GAP_S - time.perf_counter()
        if early_s > 0 and any(log.open_count for log in self._touched):
            self._tick_later(early_s)
            return
        files: list[int] = []
        for log in self._touched:
            unsynced, next_seq = log.take_unsynced()
            files += unsynced
            self._covered.append((log, next_seq))
        self._touched.clear()
        self._syncing, self._round = self._round, Round(loop=self._loop)
        self._is_running = True
        self._start_s = time.perf_counter()
        self._disk.start(files)

    def _on_synced(self, failure: OSError | None) -> None:
        metrics.SPOOL_SYNC_DURATION.observe(time.perf_counter() - self._start_s)
        self._is_running = False
        if failure is not None:
            # After a failed sync nobody can say what is on the disk. The system still has the records, so they are
            # shipped and answers end; nothing new is admitted (docs/billing.md, "Session, lease, spool").
            _log.error("spool cannot be synced; nothing more is admitted", error=str(failure))
            self.failed = failure
        for log, next_seq in self._covered:
            log.safe_seq = max(log.safe_seq, next_seq)
            log.close_deleted()
        self._covered.clear()
        if not self._syncing.done():
            self._syncing.set_result(None)
        if self._touched and self._durability is Durability.GROUP:
            self._tick()
        elif self._touched:
            self._tick_later(self._sync_interval_s)
        self._on_safe()
