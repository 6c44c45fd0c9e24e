"""The face of metering: `try_admit` or `admit` before a request is forwarded, `finish` when its outcome is known.

Every admission ends in exactly one `finish`, whatever became of the request: a request that was never sent on is
finished with outcome NONE and a charge of 0. So there is no way to cancel, and no request without an outcome.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType

import uuid_utils

from chassis.clock import Clock
from chassis.lifetime import Lifetime, end_tasks
from chassis.log import logger
from edge.metering import metrics
from edge.metering.acquirer import Acquirer
from edge.metering.convert import Admitted, encode_admitted, record_from_event, record_from_return
from edge.metering.group_commit import GroupCommit
from edge.metering.lease import Lease
from edge.metering.lease_book import LeaseBook
from edge.metering.recall import RecallWatch
from edge.metering.refusals import MeteringRefusal, MeteringUnavailable, UnavailableReason, count_refusal
from edge.metering.session import SessionKeeper
from edge.metering.settings import MeteringSettings
from edge.metering.shipper import Shipper
from edge.metering.spool import Spool
from edge.metering.spool_log import EVENT_BYTES_MAX, SpoolLog
from edge.metering.usage_event import UsageEvent
from protos.usage.v1 import usage_pb2, usage_pb2_grpc

_UPKEEP_S = 1.0
_SURPLUS_LOOKS_MAX = 500  # leases per upkeep
_RETRY_AFTER_S = 2.0

_log = logger(__name__)


def _uuid7() -> str:
    return str(uuid_utils.uuid7())


class Admission:
    """A request that may be forwarded. Opaque to its holder, except that it must be finished."""

    __slots__ = ("account_id", "hold_nanousd", "is_open", "lease", "log", "request_id")

    def __init__(self, request_id: str, account_id: str, hold_nanousd: int, lease: Lease, log: SpoolLog) -> None:
        self.request_id, self.account_id, self.hold_nanousd = request_id, account_id, hold_nanousd
        self.lease, self.log = lease, log
        self.is_open = True

    @property
    def incarnation(self) -> int:
        """Of the session under which it was admitted."""
        return self.log.incarnation


class Meter:
    """Holds, spool and shipping of one edge process, for as long as the block lasts.

    At the end it returns what it has leased, ships everything and seals its session, bounded by `drain_s`; the rest is
    left for the next start, which records requests that were not finished by then as lost.

    Raises, on entering:
        FailedPrecondition: another process uses the spool folder (SPOOL_IN_USE), or it is damaged (SPOOL_DAMAGED).
        OSError: the spool folder cannot be used.
    """

    def __init__(
        self,
        settings: MeteringSettings,
        stub: "usage_pb2_grpc.MeteringServiceAsyncStub",
        clock: Clock,
        lifetime: Lifetime,
        new_id: Callable[[], str] = _uuid7,
        *,
        reports: bool = True,
    ) -> None:
        self._stub, self._settings, self._lifetime, self._new_id = stub, settings, lifetime, new_id
        self._reports = reports  # in this process's gauges; one that works off another's spool does not
        self._clock, self._monotonic = clock, clock.monotonic
        self._log: SpoolLog | None = None  # of the live session
        self._book: LeaseBook | None = None
        self._undrained: dict[int, SpoolLog] = {}  # logs of former processes that are not taken up yet
        self._tasks: list[asyncio.Task[None]] = []
        self._is_closing = False
        self._begun = asyncio.Event()

    async def __aenter__(self) -> "Meter":
        self._spool = await asyncio.to_thread(Spool.open, self._settings)
        self._undrained = dict(self._spool.logs)
        self._shipper = Shipper(
            self._stub,
            self._spool.uuid,
            self._settings,
            self._clock,
            self._remove_log,
            lambda: self._acquirer.on_shipped(),
            self._undrained.values(),
        )
        self._commit = GroupCommit(self._settings.durability, self._settings.sync_interval_s, self._shipper.on_safe)
        self._commit.failed = next(filter(None, (log.sync_failure for log in self._undrained.values())), None)
        self._keeper = SessionKeeper(
            self._stub, self._spool.uuid, self._settings, self._clock, self._new_id, self._on_session_opened
        )
        self._acquirer = Acquirer(
            self._stub,
            self._settings,
            self._clock,
            self._shipper.hurry,
            self._give_back_free,
            self._keeper.fence,
            self._new_id,
        )
        self._recall = RecallWatch(self._stub, self._settings, self._acquirer.on_recalled, self._acquirer.on_funds)
        self._waiting = self._acquirer.waiting
        supervise = self._lifetime.supervise
        self._session_task = supervise("metering session", self._keeper.run())
        self._tasks = [
            self._session_task,
            supervise("metering shipper", self._shipper.run_live()),
            supervise("metering backlog", self._shipper.run_backlog()),
            supervise("metering upkeep", self._run_upkeep()),
            supervise("metering recall", self._recall.run()),
            *(
                supervise(f"metering acquirer {number}", self._acquirer.run())
                for number in range(self._settings.acquire_calls_max)
            ),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_closing = True
        await end_tasks([self._session_task])  # a seal whose answer was lost ends its heartbeats: no reason for another
        try:
            async with asyncio.timeout(self._settings.drain_s):
                if self._log is not None and self._book is not None:
                    self._book.return_all()
                    await self._commit.settle(self._log)
                    await self._shipper.drain()
        except TimeoutError:
            left = self._shipper.unshipped_records
            _log.warning("usage is left in the spool for the next start", records=left, folder=str(self._spool.folder))
        finally:
            await end_tasks(self._tasks)
            self._observe()
            try:
                self._commit.close(self._spool.logs.values())
            finally:
                self._spool.close()

    async def until_worked_off(self) -> None:
        """Waits until a session stands and everything that former processes left is shipped and sealed."""
        await self._begun.wait()
        await self._shipper.until_backlog_empty()

    @property
    def session(self) -> usage_pb2.Session | None:
        """The session under which requests are admitted now."""
        if self._log is None:
            return None
        return usage_pb2.Session(spool_uuid=self._spool.uuid, incarnation=self._log.incarnation)

    @property
    def ready(self) -> bool:
        """Whether requests can be admitted: the session stands and the spool can be written."""
        return self._unavailability() is None

    def try_admit(
        self,
        request_id: str,
        account_id: str,
        hold_nanousd: int,
        key_id: str = "",
        model_id: str = "",
        resource: int = usage_pb2.RESOURCE_UNSPECIFIED,
    ) -> Admission | None:
        """Admits from funds that are here already: takes the hold and writes that the request is about to be forwarded.

        None when the lease cannot pay now: then `admit`. `request_id` is a UUIDv7. The last three are for the record
        that is made of the request if this process dies before its end; usage_svc keeps only complete ones.

        Raises:
            MeteringUnavailable: this edge cannot meter now.
        """
        now = self._monotonic()
        log, book = self._log, self._book
        if now >= self._keeper.admit_until or self._is_closing or self._commit.failed or log is None or book is None:
            raise self._refused(self._unavailability() or UnavailableReason.SESSION_EXPIRED)
        lease = book.get(account_id)
        if lease is None or account_id in self._waiting or not lease.take(hold_nanousd, now):
            return None
        admission = self._write_admitted(request_id, account_id, hold_nanousd, lease, log, key_id, model_id, resource)
        if lease.needs_refill(now):
            self._acquirer.refill(lease)
        return admission

    async def admit(
        self,
        request_id: str,
        account_id: str,
        hold_nanousd: int,
        key_id: str = "",
        model_id: str = "",
        resource: int = usage_pb2.RESOURCE_UNSPECIFIED,
    ) -> Admission:
        """The same, waiting for a call to usage_svc where the lease cannot pay.

        Raises:
            FundsUsedUp, FundsHeld: the account cannot pay; remembered for a moment, so that asking again costs nothing.
            MeteringUnavailable: this edge cannot meter now.
        """
        admission = self.try_admit(request_id, account_id, hold_nanousd, key_id, model_id, resource)
        if admission is not None:
            return admission
        try:
            lease = await self._acquirer.hold(account_id, hold_nanousd, request_id)
        except MeteringRefusal as refusal:
            count_refusal(refusal)
            raise
        log = self._log
        if self._unavailability() is not None or log is None or not self._acquirer.is_current(lease):
            self._acquirer.release(lease, hold_nanousd)
            raise self._refused(self._unavailability() or UnavailableReason.SESSION_EXPIRED)
        held_nanousd = lease.held_nanousd if lease.is_last else hold_nanousd
        return self._write_admitted(request_id, account_id, held_nanousd, lease, log, key_id, model_id, resource)

    def finish(self, admission: Admission, event: UsageEvent, charge_nanousd: int) -> asyncio.Future[None]:
        """Records a request's outcome and ends its hold. Await the answer before the end of the response is released.

        The admission is the authority on ids and hold: the event's are overwritten. `charge_nanousd` is what `pricing`
        says, 0 for outcomes that are not charged. Never raises for trouble with the disk: the space was reserved, and
        what the disk refuses is tried again, which the answer waits for. Shared by others, so it cannot be cancelled.

        Raises:
            RuntimeError: the admission was finished before; a bug in the caller.
        """
        if not admission.is_open:
            raise RuntimeError(f"request {admission.request_id} was finished before")
        admission.is_open = False
        if self._commit.is_closed:
            _log.warning("outcome too late: the next start records edge_lost", request_id=admission.request_id)
            return self._commit.done
        lease, log = admission.lease, admission.log
        event.request_id = admission.request_id
        event.account_id = admission.account_id
        event.lease_id = lease.lease_id
        event.hold_nanousd = admission.hold_nanousd
        record = record_from_event(event)
        if len(record) > EVENT_BYTES_MAX:
            del event.attempts[:]  # unbilled detail, in favour of what is billed
            record = record_from_event(event)
        log.append_event(admission.request_id, record)
        lease.settle(admission.hold_nanousd, charge_nanousd)
        if admission.account_id in self._waiting:
            self._acquirer.on_freed(lease)
        if lease.is_last:
            self._acquirer.end_last(lease, log)
        elif lease.near_limit:
            self._give_back_free(lease, log)
        return self._commit.settle(log)

    def _write_admitted(
        self,
        request_id: str,
        account_id: str,
        hold_nanousd: int,
        lease: Lease,
        log: SpoolLog,
        key_id: str,
        model_id: str,
        resource: int,
    ) -> Admission:
        body = encode_admitted(
            Admitted(request_id, account_id, lease.lease_id, hold_nanousd, key_id, model_id, resource)
        )
        try:
            log.append_admitted(request_id, body)
        except MeteringUnavailable as refusal:
            self._acquirer.release(lease, hold_nanousd)
            count_refusal(refusal)
            raise
        return Admission(request_id, account_id, hold_nanousd, lease, log)

    def _unavailability(self) -> UnavailableReason | None:
        if self._log is None:
            return UnavailableReason.USAGE_UNREACHABLE
        if self._is_closing or self._monotonic() >= self._keeper.admit_until:
            return UnavailableReason.SESSION_EXPIRED
        if self._commit.failed is not None or self._log.unwritable is not None:
            return UnavailableReason.SPOOL_UNWRITABLE
        return None

    def _refused(self, reason: UnavailableReason) -> MeteringUnavailable:
        refusal = MeteringUnavailable(reason, _RETRY_AFTER_S)
        count_refusal(refusal)
        return refusal

    def _give_back_free(self, lease: Lease, log: SpoolLog | None = None) -> bool:
        """Near the limit: what no open request holds goes back at once, also for the sake of other edges.

        Of a lease for an account's last request the return is its end, whatever there is to return.
        """
        target = log if log is not None else self._log
        free = max(0, lease.free_nanousd)
        if target is None or not (free or lease.is_last) or not self._give_back(target, lease, free):
            return False
        if target is self._log:
            self._shipper.hurry(lease.return_seq)
        return True

    def _give_back(self, log: SpoolLog, lease: Lease, amount_nanousd: int) -> bool:
        seq = log.append_return(record_from_return(lease.lease_id, lease.returned_nanousd + amount_nanousd))
        if seq is None:
            return False
        if amount_nanousd:
            lease.give_back(amount_nanousd)
        lease.return_seq = seq
        self._commit.settle(log)
        return True

    async def _on_session_opened(self, response: usage_pb2.OpenSessionResponse) -> None:
        log = self._spool.create_log(response.session.incarnation)
        undrained = {each.session.incarnation: each.next_seq for each in response.undrained}
        for incarnation, former in self._undrained.items():
            await self._take_up(former, undrained.get(incarnation, former.acknowledged_seq))
        self._undrained.clear()
        for incarnation, next_seq in undrained.items():
            if incarnation not in self._spool.logs:
                # Opened by a process that ended before it had made the folder: there is nothing to ship.
                _log.warning("former session without a spool", incarnation=incarnation, next_seq=next_seq)
                empty = self._spool.create_log(incarnation)
                empty.next_seq = empty.safe_seq = empty.ship_seq = empty.acknowledged_seq = next_seq
                self._shipper.add_backlog(empty)
        # Leases end with their session; open requests finish into the log under which they were admitted.
        self._log = log
        self._book = LeaseBook(
            self._settings.leases_max,
            self._settings.lease_window_s,
            self._new_id,
            lambda lease, amount_nanousd: self._give_back(log, lease, amount_nanousd),
            self._settings.spend_factor,
        )
        self._acquirer.use(response.session, self._book)
        self._recall.use(response.session)
        self._shipper.begin(log)
        self._begun.set()

    async def _take_up(self, log: SpoolLog, next_seq: int) -> None:
        """A former process's log: its open requests are lost, what usage_svc lacks is shipped, then it is sealed."""
        while True:
            try:
                lost = log.close_with_edge_lost(self._clock.now(), next_seq)
                break
            except MeteringUnavailable as refusal:
                _log.error("lost requests cannot be recorded yet", reason=refusal.reason.value, folder=str(log.folder))
                await asyncio.sleep(_UPKEEP_S)
        _log.info("former session found", incarnation=log.incarnation, lost_requests=lost, next_seq=next_seq)
        self._shipper.add_backlog(log)
        if lost:
            self._commit.settle(log)

    async def _remove_log(self, log: SpoolLog) -> None:
        await self._commit.forget(log)
        self._spool.remove_log(log)
        if log is self._log:
            self._log = None

    async def _run_upkeep(self) -> None:
        while True:
            await asyncio.sleep(_UPKEEP_S)
            if self._book is not None and not self._is_closing:
                if self._keeper.is_heard:  # else nobody could have them, and they may have to last here
                    self._book.return_surplus(self._monotonic(), _SURPLUS_LOOKS_MAX)
                self._acquirer.ask_uncertain()
            for log in self._spool.logs.values():
                if log.unwritable is not None:
                    log.probe()
            self._observe()

    def _observe(self) -> None:
        if not self._reports:
            return
        metrics.SPOOL_BYTES.set(self._spool.budget.used_bytes)
        metrics.SPOOL_UNSHIPPED_RECORDS.set(self._shipper.unshipped_records)
        metrics.SPOOL_LAG.set(self._shipper.lag_s())
        metrics.OPEN_REQUESTS.set(sum(log.open_count for log in self._spool.logs.values()))
        beat_time = self._keeper.beat_time
        metrics.HEARTBEAT_AGE.set(self._monotonic() - beat_time if beat_time is not None else 0)
        leases = list(self._book) if self._book is not None else []
        metrics.LEASES_OPEN.set(len(leases))
        metrics.HELD_NANOUSD.set(sum(lease.held_nanousd for lease in leases))
        metrics.FREE_NANOUSD.set(sum(max(0, lease.free_nanousd) for lease in leases))
