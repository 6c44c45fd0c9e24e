"""For readers, on the wire: balances, sums, requests, entries."""

# ruff: noqa: N802 - the contract names these methods

from typing import Any

from chassis import pages
from chassis.database import Database
from chassis.faults import InvalidArgument, NotFound, ResourceExhausted
from chassis.moments import require_timestamp
from protos.usage.v1 import usage_pb2 as pb
from protos.usage.v1 import usage_pb2_grpc
from usage_svc import bounds, funds_store, reading_store, refunding
from usage_svc.convert import (
    balance_to_pb,
    entry_to_pb,
    moment_us_from_pb,
    moment_us_to_pb,
    request_to_pb,
    usage_row_to_pb,
)
from usage_svc.key_uses import KeyUses
from usage_svc.rating import MAX_ID_CHARS, MAX_MODEL_ID_CHARS, day_of
from usage_svc.reading import MAX_USAGE_ROWS, FinishedRequest, Grouping, RequestFilter, UsageQuery

MAX_INT64 = 2**63 - 1


class ReadingServicer(usage_pb2_grpc.UsageServiceServicer):
    """See the contract for what each call promises."""

    def __init__(self, database: Database, key_uses: KeyUses) -> None:
        self._database, self._key_uses = database, key_uses

    async def GetBalance(self, request: pb.GetBalanceRequest, context: Any) -> pb.GetBalanceResponse:
        account_id = bounds.account_id(request.account_id)
        async with self._database.read() as transaction:
            account = await funds_store.read_account(transaction, account_id)
        return pb.GetBalanceResponse(balance=balance_to_pb(account))

    async def QueryUsage(self, request: pb.QueryUsageRequest, context: Any) -> pb.QueryUsageResponse:
        query = _usage_query(request)
        async with self._database.read() as transaction:
            rows = await reading_store.usage_sums(transaction, query)
        if len(rows) > MAX_USAGE_ROWS:
            raise ResourceExhausted(
                "TOO_MANY_ROWS", f"more than {MAX_USAGE_ROWS} rows: ask for a shorter time or fewer groups"
            )
        with_period = query.period_us > 0
        return pb.QueryUsageResponse(rows=[usage_row_to_pb(row, with_period=with_period) for row in rows])

    async def ListRequests(self, request: pb.ListRequestsRequest, context: Any) -> pb.ListRequestsResponse:
        wanted = _request_filter(request)
        size, query = pages.page_size(request.page_size), f"requests as {wanted}"
        last = pages.place_from_page_token(request.page_token, query)
        before = last or (MAX_INT64, "")
        if request.after_request_id:
            if last:
                raise InvalidArgument("after_request_id", "is given beside a page_token: give one of them")
            try:
                before = (await self._request(wanted.account_id, request.after_request_id)).page_key
            except NotFound:
                raise InvalidArgument("after_request_id", "no request of this account: give a page's last id") from None
        async with self._database.read() as transaction:
            found = await reading_store.requests_before(transaction, wanted, before, size + 1)
        shown = found[:size]
        more = len(found) > size
        return pb.ListRequestsResponse(
            requests=map(request_to_pb, shown),
            next_page_token=pages.place_token(shown[-1].page_key, query) if more else "",
        )

    async def GetRequest(self, request: pb.GetRequestRequest, context: Any) -> pb.GetRequestResponse:
        account_id = bounds.account_id(request.account_id)
        bounds.require_given("request_id", request.request_id)
        found = await self._request(account_id, request.request_id)
        return pb.GetRequestResponse(request=request_to_pb(found))

    async def ListKeyUses(self, request: pb.ListKeyUsesRequest, context: Any) -> pb.ListKeyUsesResponse:
        account_id = bounds.account_id(request.account_id)
        bounds.at_most("key_ids", len(request.key_ids), pages.MAX_PAGE_SIZE)
        key_ids = [bounds.text("key_ids", key_id, MAX_ID_CHARS) for key_id in request.key_ids]
        uses = await self._key_uses.of(account_id, key_ids)
        return pb.ListKeyUsesResponse(
            uses=[
                pb.KeyUse(key_id=key_id, last_use_time=moment_us_to_pb(moment_us)) for key_id, moment_us in uses.items()
            ]
        )

    async def ListEntries(self, request: pb.ListEntriesRequest, context: Any) -> pb.ListEntriesResponse:
        account_id = bounds.account_id(request.account_id)
        size, query = pages.page_size(request.page_size), f"entries of {account_id}"
        before = pages.numbered_place_from_page_token(request.page_token, query) or (MAX_INT64, MAX_INT64)
        async with self._database.read() as transaction:
            found = await reading_store.entries_before(transaction, account_id, before, size + 1)
        shown = found[:size]
        more = len(found) > size
        return pb.ListEntriesResponse(
            entries=map(entry_to_pb, shown),
            next_page_token=pages.place_token(shown[-1].page_key, query) if more else "",
        )

    async def _request(self, account_id: str, request_id: str) -> FinishedRequest:
        day = day_of(request_id)
        found = None
        if day is not None:
            async with self._database.read() as transaction:
                found = await reading_store.read_request(transaction, account_id, day, request_id)
        if found is None:
            raise refunding.not_found()
        return found


def _request_filter(request: pb.ListRequestsRequest) -> RequestFilter:
    start, end = time_range(request)
    return RequestFilter(
        account_id=bounds.account_id(request.account_id),
        start_time_us=start,
        end_time_us=end,
        model_id=bounds.text("model_id", request.model_id, MAX_MODEL_ID_CHARS),
        key_id=bounds.text("key_id", request.key_id, MAX_ID_CHARS),
        errors_only=request.errors_only,
    )


def time_range(
    request: pb.ListRequestsRequest | pb.QueryUsageRequest | pb.ListLogsRequest | pb.DeleteLogsRequest,
) -> tuple[int, int]:
    """A request's start_time and end_time, in microseconds since 1970.

    Raises:
        InvalidArgument: one of them is no moment, or the end is before the start.
    """
    start, end = 0, MAX_INT64
    if request.HasField("start_time"):
        start = moment_us_from_pb(require_timestamp("start_time", request.start_time))
    if request.HasField("end_time"):
        end = moment_us_from_pb(require_timestamp("end_time", request.end_time))
    if start > end:
        raise InvalidArgument("end_time", "is before start_time")
    return max(start, 0), max(end, 0)


def _usage_query(request: pb.QueryUsageRequest) -> UsageQuery:
    group_by: set[Grouping] = set()
    for number in map(int, request.group_by):
        if number not in set(map(int, Grouping)):
            raise InvalidArgument("group_by", f"{number} is none of HOUR, DAY, MODEL, KEY")
        if Grouping(number) in group_by:
            raise InvalidArgument("group_by", f"{Grouping(number).name} is given twice")
        group_by.add(Grouping(number))
    if {Grouping.HOUR, Grouping.DAY} <= group_by:
        raise InvalidArgument("group_by", "HOUR and DAY exclude each other")
    start, end = time_range(request)
    return UsageQuery(
        account_id=bounds.account_id(request.account_id),
        start_time_us=start,
        end_time_us=end,
        group_by=frozenset(group_by),
        model_id=bounds.text("model_id", request.model_id, MAX_MODEL_ID_CHARS),
        key_id=bounds.text("key_id", request.key_id, MAX_ID_CHARS),
    )
