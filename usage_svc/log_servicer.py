"""Logs on the wire: kept for edges, listed, shown and deleted for their customers."""

# ruff: noqa: N802 - the contract names these methods

from typing import Any

from chassis import pages
from chassis.clock import Clock
from chassis.database import Database
from chassis.faults import InvalidArgument, NotFound, ResourceExhausted
from protos.usage.v1 import usage_pb2 as pb
from protos.usage.v1 import usage_pb2_grpc
from usage_svc import bounds, log_store, metrics, reading_store
from usage_svc.log_convert import log_from_pb, log_to_pb
from usage_svc.log_partitions import LogPartitions
from usage_svc.log_sweeper import LogSweeper
from usage_svc.logs import MAX_DELETED_TIMES, MAX_DELETIONS_AHEAD, RETENTION_DAYS_MAX, Log, LogFilter, Span
from usage_svc.rating import MAX_ID_CHARS, MAX_MODEL_ID_CHARS, MICROSECONDS_PER_DAY, day_of
from usage_svc.reading_servicer import MAX_INT64, time_range

MAX_LOGS = 1000


class LogKeeper:
    """Keeps what edges send."""

    def __init__(self, database: Database, clock: Clock, partitions: LogPartitions, horizon_us: int) -> None:
        self._database, self._clock = database, clock
        self._partitions, self._horizon_us = partitions, horizon_us

    async def append(self, request: pb.AppendLogsRequest) -> pb.AppendLogsResponse:
        """MeteringService.AppendLogs."""
        bounds.at_most("logs", len(request.logs), MAX_LOGS)
        logs = [log_from_pb(log) for log in request.logs]
        today = _now_us(self._clock) // MICROSECONDS_PER_DAY
        # None for what will be dropped anyway, with a day's room for the database's clock.
        await self._partitions.make(
            log.expire_day for log in logs if today - 1 <= log.expire_day <= today + RETENTION_DAYS_MAX + 2
        )
        counts = await self._database.write(lambda transaction: log_store.append(transaction, logs, self._horizon_us))
        for outcome, count in counts.items():
            metrics.LOGS.labels(outcome).inc(count)
        return pb.AppendLogsResponse(dropped=len(logs) - counts.get("kept", 0))


class LogServicer(usage_pb2_grpc.LogServiceServicer):
    """See the contract for what each call promises."""

    def __init__(self, database: Database, clock: Clock, sweeper: LogSweeper, horizon_us: int) -> None:
        self._database, self._clock, self._sweeper = database, clock, sweeper
        self._horizon_us = horizon_us

    async def ListLogs(self, request: pb.ListLogsRequest, context: Any) -> pb.ListLogsResponse:
        start, end = time_range(request)
        wanted = LogFilter(
            account_id=bounds.account_id(request.account_id),
            start_time_us=start,
            end_time_us=end,
            model_id=bounds.text("model_id", request.model_id, MAX_MODEL_ID_CHARS),
            key_id=bounds.text("key_id", request.key_id, MAX_ID_CHARS),
        )
        size, query = pages.page_size(request.page_size), f"logs as {wanted}"
        last = pages.place_from_page_token(request.page_token, query)
        before = last or (MAX_INT64, "")
        if request.after_request_id:
            if last:
                raise InvalidArgument("after_request_id", "is given beside a page_token: give one of them")
            before = await self._place_of(wanted.account_id, request.after_request_id)
        async with self._database.read() as transaction:
            found = await log_store.logs_before(transaction, wanted, before, size + 1)
        shown = found[:size]
        more = len(found) > size
        return pb.ListLogsResponse(
            logs=map(log_to_pb, shown),
            next_page_token=pages.place_token(shown[-1].page_key, query) if more else "",
        )

    async def GetLog(self, request: pb.GetLogRequest, context: Any) -> pb.GetLogResponse:
        account_id = bounds.account_id(request.account_id)
        bounds.require_given("request_id", request.request_id)
        found = await self._log(account_id, request.request_id, whole=True)
        if found is None:
            raise _not_found()
        return pb.GetLogResponse(log=log_to_pb(found))

    async def DeleteLog(self, request: pb.DeleteLogRequest, context: Any) -> pb.DeleteLogResponse:
        account_id = bounds.account_id(request.account_id)
        bounds.require_given("request_id", request.request_id)
        day, now_us = day_of(request.request_id), _now_us(self._clock)
        today = now_us // MICROSECONDS_PER_DAY
        if day is None or day > today + 1:
            raise _not_found()
        # A request may still be under way. What is too old to be on its way any more needs no memory, and gets none:
        # the sweeper forgets it at once.
        forget_us = min(now_us, (day + 1) * MICROSECONDS_PER_DAY) + MICROSECONDS_PER_DAY
        found = await self._sweeper.delete_one(account_id, request.request_id, forget_us, MAX_DELETIONS_AHEAD)
        if found is None:
            raise _too_many_deletions("logs that are not there were deleted too often")
        if not found:
            raise _not_found()
        return pb.DeleteLogResponse()

    async def DeleteLogs(self, request: pb.DeleteLogsRequest, context: Any) -> pb.DeleteLogsResponse:
        account_id = bounds.account_id(request.account_id)
        start, end = time_range(request)
        span = await self._database.write(
            lambda transaction: log_store.remember_span(
                transaction, account_id, Span(start, end), self._horizon_us, MAX_DELETED_TIMES
            )
        )
        if span is None:
            raise _too_many_deletions("too many times with gaps between them were deleted: delete one that is longer")
        return pb.DeleteLogsResponse(deleted=await self._sweeper.delete_span(account_id, span))

    async def _place_of(self, account_id: str, request_id: str) -> tuple[int, str]:
        """Where a log stands in a listing. One that expired or was deleted since stood where its request stands: a log
        ends when its bill says."""
        log = await self._log(account_id, request_id, whole=False)
        if log is not None:
            return log.page_key
        day, finished = day_of(request_id), None
        if day is not None:
            async with self._database.read() as transaction:
                finished = await reading_store.read_request(transaction, account_id, day, request_id)
        if finished is None:
            raise InvalidArgument("after_request_id", "no log of this account: give a page's last id")
        return finished.page_key

    async def _log(self, account_id: str, request_id: str, *, whole: bool) -> Log | None:
        if day_of(request_id) is None:
            return None
        async with self._database.read() as transaction:
            return await log_store.read_log(transaction, account_id, request_id, whole=whole)


def _now_us(clock: Clock) -> int:
    return round(clock.epoch_s() * 1_000_000)


def _not_found() -> NotFound:
    return NotFound("LOG_NOT_FOUND", "no log of this request: it was not kept, has expired, or was deleted")


def _too_many_deletions(what: str) -> ResourceExhausted:
    return ResourceExhausted("TOO_MANY_DELETIONS", f"{what}; try again tomorrow")
