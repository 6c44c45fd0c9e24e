"""Carries the spool to usage_svc: the live session in batches as they come, former ones throttled, then sealed."""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from chassis.client import call
from chassis.clock import Clock
from chassis.faults import FailedPrecondition, Fault, NotFound
from chassis.log import logger
from edge.metering import metrics
from edge.metering.convert import end_time_s_of, record_for_older_service, record_usage_request
from edge.metering.settings import MeteringSettings
from edge.metering.spool_log import SpoolLog
from protos.usage.v1 import usage_pb2, usage_pb2_grpc

_RETRY_S_MIN, _RETRY_S_MAX = 0.05, 5.0
_BACKLOG_POLL_S = 0.5  # a former session may have requests open; their ends are noticed at the latest after this
_MARK_S = 0.5  # resolution of the lag
_EXCEPTIONS_LOGGED_MAX = 20  # of one batch

_log = logger(__name__)

_OUTCOME_LABELS = {
    usage_pb2.RECORD_OUTCOME_DUPLICATE: "duplicate",
    usage_pb2.RECORD_OUTCOME_QUARANTINED: "quarantined",
}


class Shipper:
    """Two tasks: `run_live` and `run_backlog`. One batch of a session is in flight at a time.

    `former` logs are to be added as backlog once a session stands; until then they count as unshipped.

    `remove` is called with each log that usage_svc has sealed. `on_shipped` follows each batch of the live session.
    """

    def __init__(
        self,
        stub: "usage_pb2_grpc.MeteringServiceAsyncStub",
        spool_uuid: str,
        settings: MeteringSettings,
        clock: Clock,
        remove: Callable[[SpoolLog], Awaitable[None]],
        on_shipped: Callable[[], None],
        former: Iterable[SpoolLog] = (),
    ) -> None:
        self._stub, self._spool_uuid, self._settings, self._clock = stub, spool_uuid, settings, clock
        self._remove, self._on_shipped = remove, on_shipped
        self._live: SpoolLog | None = None
        self._backlog: list[SpoolLog] = []
        # Of these and of those to come: when the oldest record that was unshipped then was written.
        self._backlog_since = {log: clock.monotonic() - self._age_s(log) for log in former}
        self._in_flight: set[SpoolLog] = set()
        self._wake, self._backlog_wake = asyncio.Event(), asyncio.Event()
        self._linger: asyncio.TimerHandle | None = None
        self._marks: deque[tuple[int, float]] = deque()  # records below this seq of the live log were written by then
        self._hurry_seq = 0  # up to here without waiting for company
        self._is_draining = False
        self._is_service_older = False  # it knows no rows; until the next session
        self._moved = asyncio.Event()  # the backlog got shorter

    def begin(self, log: SpoolLog) -> None:
        """Makes this the live session's log; the one before becomes backlog."""
        self.retire()
        self._live = log
        self._hurry_seq = 0
        self._is_service_older = False
        self._marks.clear()
        self.on_safe()

    def add_backlog(self, log: SpoolLog) -> None:
        """A log of a former session: ship what usage_svc lacks, seal it, remove it."""
        self._backlog.append(log)
        self._backlog_since.setdefault(log, self._clock.monotonic())
        self._backlog_wake.set()

    def retire(self) -> None:
        """The live session admits nothing more."""
        if self._live is not None:
            if self._marks:
                self._backlog_since[self._live] = self._marks[0][1]
            self.add_backlog(self._live)
            self._live = None

    def on_safe(self) -> None:
        """More records may be shipped than before."""
        self._arm()
        if self._backlog:
            self._backlog_wake.set()

    def hurry(self, seq: int) -> bool:
        """Ships without waiting for company up to `seq`. Whether that record is still on its way."""
        live = self._live
        if live is None or not live.ship_seq <= seq < live.next_seq:
            return False
        self._hurry_seq = max(self._hurry_seq, seq)
        self._arm()
        return True

    def lag_s(self) -> float:
        """Age of the oldest record that usage_svc has not acknowledged; while a former session's records are shipped,
        still of the first of them.
        """
        since = [since for log, since in self._backlog_since.items() if log.ship_seq < log.next_seq]
        if self._marks:
            since.append(self._marks[0][1])
        return max(0.0, self._clock.monotonic() - min(since)) if since else 0.0

    @property
    def unshipped_records(self) -> int:
        """Of all sessions."""
        logs = [*self._backlog_since, self._live] if self._live is not None else self._backlog_since
        return sum(log.next_seq - log.ship_seq for log in logs)

    async def run_live(self) -> None:
        """For ever: the live session's records, in batches."""
        retry_s = _RETRY_S_MIN
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._linger is not None:
                self._linger.cancel()
                self._linger = None
            log = self._live
            if log is None or log.ship_seq >= log.safe_seq:
                continue
            if await self._ship(log):
                retry_s = _RETRY_S_MIN
                self._on_shipped()
            else:
                await asyncio.sleep(retry_s * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
                retry_s = min(retry_s * 2, _RETRY_S_MAX)
            self._arm()

    async def run_backlog(self) -> None:
        """For ever: former sessions, oldest first; at most half of the time, so that live traffic goes first."""
        retry_s = _RETRY_S_MIN
        while True:
            try:
                await asyncio.wait_for(self._backlog_wake.wait(), _BACKLOG_POLL_S if self._backlog else None)
            except TimeoutError:
                pass
            self._backlog_wake.clear()
            for log in list(self._backlog):
                if await self._work_off(log):
                    retry_s = _RETRY_S_MIN
                    continue
                await asyncio.sleep(retry_s * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
                retry_s = min(retry_s * 2, _RETRY_S_MAX)
                self._backlog_wake.set()
                break

    async def until_backlog_empty(self) -> None:
        """Waits until all former sessions are sealed. The caller bounds it."""
        while self._backlog:
            self._moved.clear()
            await self._moved.wait()

    async def drain(self) -> None:
        """Waits until everything is shipped and sealed that can be. The caller bounds it."""
        self._is_draining = True
        self.retire()
        while any(log.open_count == 0 or log.ship_seq < log.next_seq for log in self._backlog):
            self._backlog_wake.set()
            self._moved.clear()
            await self._moved.wait()

    def _arm(self) -> None:
        """Wakes the live task now, for a full batch or in a hurry, or when the oldest record has waited long enough."""
        log = self._live
        if log is None or log.ship_seq >= log.safe_seq:
            return
        now = self._clock.monotonic()
        if self._marks and now - self._marks[-1][1] < _MARK_S:
            self._marks[-1] = (log.safe_seq, self._marks[-1][1])
        else:
            self._marks.append((log.safe_seq, now))
        is_full = log.safe_seq - log.ship_seq >= self._settings.ship_batch_max
        # A batch that is on its way counts as waiting until it is answered; whoever sends it arms again then.
        if log not in self._in_flight and (is_full or self._hurry_seq >= log.ship_seq):
            self._wake.set()
        elif self._linger is None:
            self._linger = asyncio.get_running_loop().call_later(self._settings.ship_linger_s, self._wake.set)

    async def _ship(self, log: SpoolLog) -> bool:
        """One batch. Whether anything moved; otherwise it should be tried again later."""
        first_seq = log.ship_seq
        records = log.read(first_seq, self._settings.ship_batch_max)
        if self._is_service_older:
            records = [record_for_older_service(record) for record in records]
        self._in_flight.add(log)
        try:
            response = await call(
                self._stub.RecordUsage,
                record_usage_request(self._session_of(log), first_seq, records),
                timeout_s=self._settings.rpc_timeout_s,
            )
        except FailedPrecondition as fault:
            if fault.reason == "SESSION_DRAINED":
                return await self._let_go(log, fault)
            if fault.reason == "SCHEMA_TOO_NEW" and not self._is_service_older:
                self._is_service_older = True
                return True  # the same records again, as it understands them
            _log.error("records refused", incarnation=log.incarnation, seq=first_seq, reason=fault.reason)
            return False
        except NotFound as fault:
            return await self._let_go(log, fault)
        except Fault as fault:
            _log.warning("records not shipped", incarnation=log.incarnation, seq=first_seq, error=str(fault))
            return False
        finally:
            self._in_flight.discard(log)
        if response.next_seq < first_seq:
            _log.warning("rewound", incarnation=log.incarnation, seq=first_seq, next_seq=response.next_seq)
        self._count(log, response.next_seq - first_seq, list(response.exceptions))
        log.ship_seq = response.next_seq
        log.acknowledge(response.next_seq)
        while self._marks and log is self._live and self._marks[0][0] <= log.ship_seq:
            self._marks.popleft()
        return response.next_seq != first_seq

    async def _work_off(self, log: SpoolLog) -> bool:
        """Ships a former session's log as far as it goes. False if that failed and must be tried again."""
        loop = asyncio.get_running_loop()
        while log.ship_seq < log.safe_seq:
            start = loop.time()
            if log in self._in_flight or not await self._ship(log):
                return False
            self._moved.set()
            if log not in self._backlog:
                return True
            if not self._is_draining:
                await asyncio.sleep(loop.time() - start)
        if log.open_count or log.ship_seq < log.next_seq:
            return True  # it goes on when they have ended
        return await self._seal(log)

    async def _seal(self, log: SpoolLog) -> bool:
        request = usage_pb2.SealRequest(session=self._session_of(log), end_seq=log.next_seq)
        try:
            response = await call(self._stub.Seal, request, timeout_s=self._settings.rpc_timeout_s)
        except FailedPrecondition as fault:
            if fault.reason == "SPOOL_NOT_INGESTED":
                log.ship_seq = max(1, log.next_seq - 1)  # the answer to the last record says where to go on
            _log.warning("spool not sealed", incarnation=log.incarnation, error=str(fault))
            return False
        except NotFound as fault:
            return await self._let_go(log, fault)
        except Fault as fault:
            _log.warning("spool not sealed", incarnation=log.incarnation, error=str(fault))
            return False
        _log.info("spool sealed", incarnation=log.incarnation, released_nanousd=response.released_nanousd)
        await self._drop(log, is_sealed=True)
        return True

    async def _let_go(self, log: SpoolLog, fault: Fault) -> bool:
        """usage_svc takes nothing more for this session. True if this ends the matter."""
        if log is self._live:
            _log.error("records refused", incarnation=log.incarnation, error=str(fault))
            return False
        # It was sealed by the process before, which ended before it could remove it: then it holds nothing new.
        is_sealed = fault.reason == "SESSION_DRAINED" and log.lost_count == 0 and log.is_recovered
        if not is_sealed:
            _log.error(
                "records stay in the spool: usage_svc takes them no more",
                folder=str(log.folder),
                records=log.next_seq - log.ship_seq,
                error=str(fault),
            )
        await self._drop(log, is_sealed=is_sealed)
        return True

    def _age_s(self, log: SpoolLog) -> float:
        """Of the first record to be shipped, as far as it says when its request ended."""
        records = log.read(log.ship_seq, 1)
        end_time_s = end_time_s_of(records[0]) if records else 0.0
        return self._clock.now().timestamp() - end_time_s if end_time_s else 0.0

    async def _drop(self, log: SpoolLog, *, is_sealed: bool) -> None:
        self._backlog.remove(log)
        del self._backlog_since[log]
        if is_sealed:
            await self._remove(log)
        self._moved.set()

    def _session_of(self, log: SpoolLog) -> usage_pb2.Session:
        return usage_pb2.Session(spool_uuid=self._spool_uuid, incarnation=log.incarnation)

    def _count(self, log: SpoolLog, count: int, exceptions: list[usage_pb2.RecordException]) -> None:
        metrics.SPOOL_RECORDS.labels("shipped").inc(max(0, count))
        for exception in exceptions:
            metrics.SPOOL_RECORDS.labels(_OUTCOME_LABELS[exception.outcome]).inc()
        for exception in exceptions[:_EXCEPTIONS_LOGGED_MAX]:
            _log.warning(
                "record not posted",
                incarnation=log.incarnation,
                seq=exception.seq,
                outcome=_OUTCOME_LABELS[exception.outcome],
                reason=exception.reason,
            )
